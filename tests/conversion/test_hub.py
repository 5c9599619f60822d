"""Loading by Hub id and sending there, against a local server that speaks the Hub's file protocol."""

import base64
import hashlib
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from huggingface_hub import constants, hf_api
from support.golden import GOLDEN, golden_state_dict

from conversion.models import state_dict
from conversion.source import open_source
from lxmert_pt import LxmertForQuestionAnswering
from lxmert_tf import LxmertConfig, TFLxmertForQuestionAnswering
from lxmert_tf.hub import fetch

QA = "someone/lxmert-qa"
PRETRAINING = "someone/lxmert-bin"
FOLDERS = {QA: "hf_pt_qa", PRETRAINING: "hf_pt_pretraining"}
FILES = {QA: ["config.json", "model.safetensors"], PRETRAINING: ["config.json", "pytorch_model.bin"]}
REVISIONS = {"main": "a" * 40, "v2": "b" * 40}
EXTRA = {QA: {"README.md": b"# hello"}, PRETRAINING: {}}
SENT = "me/lxmert"


def content_of(repository: str, name: str, commit: str) -> bytes:
    if name in EXTRA[repository]:
        return EXTRA[repository][name]
    content = (GOLDEN / FOLDERS[repository] / name).read_bytes()
    if name == "config.json" and commit == REVISIONS["v2"]:
        content = json.dumps({**json.loads(content), "hidden_act": "relu"}).encode()
    return content


class Hub(BaseHTTPRequestHandler):
    """/api/models/ID/{revision,tree}/REV list files, /ID/resolve/REV/FILE gives one; counts the files asked for."""

    protocol_version = "HTTP/1.1"
    requests: ClassVar[Counter] = Counter()
    posts: ClassVar[dict] = {}
    card: ClassVar[bytes] = b""  # README.md of the repository that is sent to

    def do_HEAD(self):
        self.respond()

    def do_GET(self):
        self.respond()

    def respond(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        parts = parts[2:] if api else parts
        repository, name = "/".join(parts[:2]), "/".join(parts[4:])
        kind, revision = (*parts[2:4], "revision", "main")[:2]
        commit = REVISIONS.get(revision, revision if revision in REVISIONS.values() else None)
        if repository == SENT and not api:
            code = {"X-Error-Code": "EntryNotFound"}
            found = {"ETag": '"card"', "X-Repo-Commit": "c" * 40}
            self.send(200, Hub.card, found) if Hub.card and name == "README.md" else self.send(404, b"{}", code)
        elif repository not in FOLDERS:
            self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif commit is None:
            self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif api:
            names = [*FILES[repository], *EXTRA[repository]]
            tree = [
                {"type": "file", "path": n, "size": len(content_of(repository, n, commit)), "oid": n} for n in names
            ]
            info = {"id": repository, "sha": commit, "siblings": [{"rfilename": n} for n in names]}
            self.send_json(tree if kind == "tree" else info)
        elif name not in [*FILES[repository], *EXTRA[repository]]:
            self.send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        else:
            Hub.requests[self.command, name] += 1
            content = content_of(repository, name, commit)
            self.send(200, content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": commit})

    def do_POST(self):
        """Takes a commit: POST /api/repos/create, /api/models/ID/{branch,preupload,commit}/REV."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[1] == "repos":
            name = "/".join(filter(None, (json.loads(body).get("organization"), json.loads(body)["name"])))
            Hub.posts["create"] = {**json.loads(body), "name": name, "token": self.headers.get("Authorization")}
            url = f"http://{self.headers['Host']}/{name}"
            return self.send(401, b"{}", {}) if name == "stranger/model" else self.send_json({"url": url, "id": name})
        if parts[1] == "validate-yaml":
            return self.send_json({"warnings": [], "errors": []})
        kind, revision = parts[4:6]
        if kind == "branch":
            Hub.posts["branch"] = revision
            return self.send_json({})
        if kind == "preupload":
            modes = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(body)["files"]]
            return self.send_json({"files": [{**mode, "shouldIgnore": False, "oid": None} for mode in modes]})
        entries = [json.loads(line) for line in body.splitlines()]
        files = {e["value"]["path"]: base64.b64decode(e["value"]["content"]) for e in entries if e["key"] == "file"}
        Hub.posts["commit"] = {"revision": revision, "query": self.path.partition("?")[2], "files": files}
        Hub.posts["commit"]["header"] = next(entry["value"] for entry in entries if entry["key"] == "header")
        url = f"http://{self.headers['Host']}/{'/'.join(parts[2:4])}/commit/{'c' * 40}"
        commit = {"commitOid": "c" * 40, "commitUrl": url, "success": True}
        proposed = {"pullRequestUrl": url.replace(f"commit/{'c' * 40}", "discussions/1")}
        return self.send_json({**commit, **(proposed if "create_pr=1" in self.path else {})})

    def send_json(self, value) -> None:
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args) -> None:
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def hub(server, monkeypatch):
    """Points huggingface_hub to the server."""
    monkeypatch.setattr(constants, "ENDPOINT", server)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(hf_api.api, "endpoint", server)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    Hub.requests.clear()
    Hub.posts.clear()


def test_a_model_by_its_id(tmp_path):
    model = TFLxmertForQuestionAnswering.from_pretrained(QA, cache_dir=tmp_path)
    loaded = state_dict(model)
    expected = golden_state_dict("hf_pt_qa")
    assert all((loaded[name] == expected[name]).all() for name in expected)
    assert Hub.requests["GET", "README.md"] == 0


def test_only_the_preferred_format_is_fetched(tmp_path):
    checkpoint = open_source(PRETRAINING, cache_dir=tmp_path)
    assert checkpoint.format == "hf-pt-bin"
    assert {name for method, name in Hub.requests if method == "GET"} == {"config.json", "pytorch_model.bin"}


def test_a_second_time_comes_from_the_cache(tmp_path):
    open_source(QA, cache_dir=tmp_path)
    open_source(QA, cache_dir=tmp_path)
    assert Hub.requests["GET", "model.safetensors"] == 1


def test_a_revision(tmp_path):
    assert LxmertConfig.from_pretrained(QA, cache_dir=tmp_path).hidden_act == "gelu"
    assert LxmertConfig.from_pretrained(QA, cache_dir=tmp_path, revision="v2").hidden_act == "relu"
    with pytest.raises(FileNotFoundError, match="'v3'"):
        fetch(QA, ["config.json"], cache_dir=tmp_path, revision="v3")


def test_offline_only_the_cache_counts(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="the local cache did not give it"):
        open_source(QA, cache_dir=tmp_path, local_files_only=True)
    open_source(QA, cache_dir=tmp_path)
    open_source(PRETRAINING, cache_dir=tmp_path)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hf_api.api, "endpoint", "http://127.0.0.1:9")
    assert open_source(QA, cache_dir=tmp_path, local_files_only=True).task == "qa"
    assert open_source(PRETRAINING, cache_dir=tmp_path, local_files_only=True).format == "hf-pt-bin"


def test_no_such_repository(tmp_path):
    with pytest.raises(FileNotFoundError, match="someone/nothing"):
        TFLxmertForQuestionAnswering.from_pretrained("someone/nothing", cache_dir=tmp_path)


@pytest.mark.parametrize("name", ["a/b/c", "./missing", "/missing/too", "missing.weights.h5", "b@d name"])
def test_what_cannot_be_an_id_never_reaches_the_network(name):
    with pytest.raises(FileNotFoundError, match=r"no file or directory|neither a local path nor a Hub id"):
        open_source(name)
    assert not Hub.requests


def test_a_download_is_forced(tmp_path):
    for force in (False, False, True):
        TFLxmertForQuestionAnswering.from_pretrained(QA, cache_dir=tmp_path, force_download=force)
    assert Hub.requests["GET", "model.safetensors"] == 2


def test_a_folder_of_a_repository(tmp_path, monkeypatch):
    content = (GOLDEN / "hf_pt_qa/config.json").read_bytes()
    monkeypatch.setitem(EXTRA, QA, {"base/config.json": content, "other/config.json": content})
    config = LxmertConfig.from_pretrained(QA, cache_dir=tmp_path, subfolder="base")
    assert config.num_qa_labels == LxmertConfig.from_pretrained(GOLDEN / "hf_pt_qa").num_qa_labels
    assert [name for _, name in Hub.requests if "config" in name] == ["base/config.json"] * 2
    with pytest.raises(FileNotFoundError, match="has no folder 'none'"):
        LxmertConfig.from_pretrained(QA, cache_dir=tmp_path, subfolder="none")


def test_only_safetensors_are_fetched_where_only_those_may_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold one of model\.safetensors"):
        open_source(PRETRAINING, use_safetensors=True, cache_dir=tmp_path)
    assert Hub.requests["GET", "pytorch_model.bin"] == 0
    open_source(PRETRAINING, use_safetensors=False, cache_dir=tmp_path)
    assert Hub.requests["GET", "pytorch_model.bin"] == 1


def test_proxies_are_of_the_environment(tmp_path, caplog):
    LxmertConfig.from_pretrained(QA, cache_dir=tmp_path, proxies={"http": "http://localhost:1"})
    assert "proxies is left out" in caplog.text


@pytest.mark.parametrize("model_class", [TFLxmertForQuestionAnswering, LxmertForQuestionAnswering])
def test_a_model_is_sent(model_class, tmp_path):
    model = model_class.from_pretrained(GOLDEN / "hf_pt_qa")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("not of the model")
    options = {"repo_id": SENT, "token": "hf_secret", "private": True, "revision": "trial"}
    model.save_pretrained(tmp_path / "mine", format="hf-pt", push_to_hub=True, commit_message="First", **options)
    assert (Hub.posts["create"]["name"], Hub.posts["create"]["token"]) == ("me/lxmert", "Bearer hf_secret")
    assert Hub.posts["branch"] == "trial"
    commit = Hub.posts["commit"]
    assert (commit["revision"], commit["header"]["summary"]) == ("trial", "First")
    expected = {
        name: (tmp_path / "mine" / name).read_bytes() for name in ("README.md", "config.json", "model.safetensors")
    }
    assert commit["files"] == expected
    model.push_to_hub(SENT, format="hf-pt", max_shard_size="40KB", create_pr=True, token="hf_secret")
    assert "create_pr=1" in Hub.posts["commit"]["query"]
    shards = [f"model-{number:05}-of-00008.safetensors" for number in range(1, 9)]
    assert sorted(Hub.posts["commit"]["files"]) == ["README.md", "config.json", *shards, "model.safetensors.index.json"]


def test_a_card_that_somebody_wrote_stays(tmp_path, monkeypatch):
    model = LxmertForQuestionAnswering.from_pretrained(GOLDEN / "hf_pt_qa")
    model.save_pretrained(tmp_path)
    for card, sent in ((b"# Mine", False), ((tmp_path / "README.md").read_bytes(), True)):
        monkeypatch.setattr(Hub, "card", card)
        model.push_to_hub(SENT, token="hf_secret")
        assert ("README.md" in Hub.posts["commit"]["files"]) == sent
    (tmp_path / "README.md").write_text("# Mine, not sent yet")
    model.save_pretrained(tmp_path, push_to_hub=True, repo_id=SENT, token="hf_secret")
    assert sorted(Hub.posts["commit"]["files"]) == ["config.json", "model.safetensors"]


def test_what_the_hub_does_not_take_is_written_all_the_same(tmp_path, monkeypatch):
    model = LxmertForQuestionAnswering.from_pretrained(GOLDEN / "hf_pt_qa")
    with pytest.raises(ConnectionError, match=r"^The Hub did not take 'stranger/model': .*\.$"):
        model.save_pretrained(tmp_path, push_to_hub=True, repo_id="stranger/model", token="hf_secret")
    assert (tmp_path / "model.safetensors").is_file()
    with pytest.raises(ValueError, match="repo_id must be a Hub id of the form owner/name, got 'a/b/c'"):
        model.push_to_hub("a/b/c", token="hf_secret")
    monkeypatch.setattr(hf_api.api, "endpoint", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match="The Hub did not take 'me/model'"):
        model.push_to_hub("me/model", token="hf_secret")
