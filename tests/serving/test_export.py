"""The export itself: its signatures to the letter, its version folders, the files beside it, and what --check finds."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from support.serving import BATCH_SIZES, LABELS, TASKS, serving, write_checkpoint
from tensorflow_serving.config import model_server_config_pb2

from lxmert_tf.answers import model_answers
from lxmert_tf.cli import main
from lxmert_tf.serving import server_files
from lxmert_tf.serving import version_folders as versions
from lxmert_tf.serving.check import run
from lxmert_tf.serving.checkpoint import load
from lxmert_tf.serving.client import GrpcClient
from lxmert_tf.serving.export import export
from lxmert_tf.serving.metadata import METADATA_FILE
from lxmert_tf.serving.warmup import TOKENS, WARMUP_FILE, read_warmup, replay

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_saved_model_cli_shows_these_signatures(task, exports):
    from tensorflow.python.tools import saved_model_cli

    shown = io.StringIO()
    with redirect_stdout(shown):
        saved_model_cli._show_all(str(exports / "models" / task / "1"))  # what `show --all` runs
    lines = shown.getvalue().partition("The MetaGraph with tag set")[0].strip().splitlines()
    text = "".join(f"{line}\n" for line in lines if not line.strip().startswith("name:"))  # names of nodes
    golden = GOLDEN / f"{task}.txt"
    if os.environ.get("LXMERT_TF_WRITE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_weights_are_stored_once(exports):
    weights = 4 * sum(np.prod(shape) for shape in _shapes(exports / "qa"))
    stored = (exports / "models" / "qa" / "1" / "variables" / "variables.data-00000-of-00001").stat().st_size
    assert weights <= stored < weights + 60_000  # beside the weights: names of objects


def _shapes(directory):
    from conversion.source import open_source

    return open_source(directory).tensors.shapes.values()


def test_the_metadata_tells_where_a_version_is_from(exports):
    import hashlib

    folder = exports / "models" / "qa" / "1"
    metadata = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
    assert metadata["labels"] == LABELS and metadata["model"] == "TFLxmertForQuestionAnswering"
    weights = (exports / "qa" / "model.weights.h5").read_bytes()
    assert metadata["source"]["sha256"] == hashlib.sha256(weights).hexdigest()
    assert metadata["config"]["num_qa_labels"] == 5 and metadata["versions"]["tensorflow"].startswith("2.")
    assert metadata["signatures"]["serving_default"]["outputs"]["top_answers"] == {
        "dtype": "string",
        "shape": [None, 5],
    }
    assert str(exports) not in json.dumps(metadata)


@pytest.mark.parametrize(
    "task", [pytest.param(t, marks=pytest.mark.slow) if t in ("qa", "reasoning") else t for t in TASKS]
)
def test_warmup_requests_replay_through_the_server(task, exports, server):
    client = GrpcClient(server["grpc"], task)
    seen = replay(exports / "models" / task / "1", lambda signature, inputs: client.predict(inputs, signature))
    signatures = json.loads((exports / "models" / task / "1" / METADATA_FILE).read_text())["signatures"]
    assert seen == {signature: list(BATCH_SIZES) for signature in signatures}
    client.close()


def test_models_config_and_server_files(exports):
    config = text_format.Parse(
        (exports / "models" / "models.config").read_text(), model_server_config_pb2.ModelServerConfig()
    )
    models = {model.name: model for model in config.model_config_list.config}
    assert set(models) == set(TASKS)
    assert models["qa"].base_path == "/models/qa" and dict(models["qa"].version_labels) == {"stable": 1}
    batching = (exports / "models" / "qa" / "1" / "batching_params.pbtxt").read_text()
    assert "max_batch_size { value: 3 }" in batching and "pad_variable_length_inputs: true" in batching
    for name in ("Dockerfile", "compose.yaml", "kubernetes.yaml"):
        text = (exports / "models" / name).read_text()
        assert "tensorflow/serving:" in text and "--model_config_file=/models/models.config" in text
        assert "$dns_name" not in text and "$tag" not in text
        assert re.search(r'TF_ONEDNN_ASSUME_FROZEN_WEIGHTS\W+(value: ")?0\b', text)
    assert "**/.partial-*" in (exports / "models" / ".dockerignore").read_text().splitlines()


@pytest.fixture
def copy(exports, tmp_path):
    """A copy of the exported bare model as BASE/model, and its checkpoint."""
    shutil.copytree(exports / "models" / "model", tmp_path / "base" / "model")
    server_files.update_config(tmp_path / "base", "model", 1, "stable")
    return tmp_path / "base", exports / "model"


def check(base, source):
    return main(["export", str(source), str(base), "--name", "model", "--check-only"])


def test_check_passes_a_sound_version(copy, capsys):
    base, source = copy
    assert check(base, source) == 0
    assert "sound: 2 signatures, 4 warm-up requests, equal to the checkpoint within" in capsys.readouterr().out


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


DAMAGES = {
    "a flipped byte in a warm-up request": lambda v: flip(v / WARMUP_FILE, 120),
    "a warm-up file cut short": lambda v: (v / WARMUP_FILE).write_bytes((v / WARMUP_FILE).read_bytes()[:-7]),
    "an empty warm-up file": lambda v: (v / WARMUP_FILE).write_bytes(b""),
    "no warm-up file": lambda v: (v / WARMUP_FILE).unlink(),
    "a flipped byte in the weights": lambda v: flip(v / "variables" / "variables.data-00000-of-00001", 5000),
    "weights cut short": lambda v: os.truncate(v / "variables" / "variables.data-00000-of-00001", 1000),
    "no graph": lambda v: (v / "saved_model.pb").unlink(),
    "no metadata": lambda v: (v / METADATA_FILE).unlink(),
    "metadata that are no JSON": lambda v: (v / METADATA_FILE).write_text("{"),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_check_finds(damage, copy, capsys):
    base, source = copy
    DAMAGES[damage](base / "model" / "1")
    assert check(base, source) == 1
    printed = capsys.readouterr()
    assert str(base / "model" / "1") in printed.out and "sound" not in printed.out and "Traceback" not in printed.err


def test_check_proves_nothing_by_outputs_that_are_not_finite(copy, capsys, monkeypatch):
    """Such as those of a word that no warm-up request has."""
    base, source = copy

    def run_or_spoil(signature, inputs):
        factor = 1 if inputs["input_ids"].shape[1] == TOKENS else np.nan
        return {name: value * factor for name, value in run(signature, inputs).items()}

    monkeypatch.setattr("lxmert_tf.serving.check.run", run_or_spoil)
    assert check(base, source) == 1
    assert "are not finite, so they cannot be compared" in capsys.readouterr().out


def test_check_tells_of_versions_that_no_server_would_serve(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lxmert_tf.serving.check._check_version", lambda *_: ([], "sound"))
    base, source = tmp_path / "base", tmp_path / "checkpoint"
    for version in ("1", "2"):
        (base / "model" / version).mkdir(parents=True)
    server_files.update_config(base, "model", 1, "stable")
    assert check(base, source) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "serve" not in lines[0] and lines[1].endswith("(models.config does not serve it)")
    for text, said in (("", "models.config has no model model"), ("garbage {{", "as a model config file")):
        (base / "models.config").write_text(text)
        assert check(base, source) == 1
        assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("policy", "wanted"), [("", [3]), ("latest { num_versions: 2 }", [2, 3]), ("all {}", [1, 2, 3])]
)
def test_which_versions_a_policy_serves(tmp_path, policy, wanted):
    policy = policy and f"model_version_policy {{ {policy} }}"
    (tmp_path / "models.config").write_text(f'model_config_list {{ config {{ name: "m" {policy} }} }}')
    assert server_files.served(tmp_path, "m", [1, 2, 3]) == wanted


def test_a_damaged_warmup_file_is_told_as_such(copy):
    base, _ = copy
    DAMAGES["a flipped byte in a warm-up request"](base / "model" / "1")
    with pytest.raises(ValueError, match="tf_serving_warmup_requests is damaged"):
        list(read_warmup(base / "model" / "1"))


# Versions


def served(base) -> tuple[dict[str, int], list[int]]:
    """The labels of the first model in BASE/models.config, and the versions served."""
    config = text_format.Parse((base / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    model = config.model_config_list.config[0]
    return dict(model.version_labels), list(model.model_version_policy.specific.versions)


def test_versions_count_up_and_a_second_one_takes_the_label_it_is_given(copy):
    base, source = copy
    server_files.update_config(base, "model", 1, "stable")
    (base / "model" / "notes").mkdir()  # no version
    second = export(source, base, "model", label="canary", batch_sizes=(1,))
    assert second == base / "model" / "2"
    assert served(base) == ({"stable": 1, "canary": 2}, [1, 2])


def test_a_label_always_names_a_version_that_is_served(tmp_path):
    for version, label in ((1, "stable"), (2, "canary"), (3, "canary")):
        server_files.update_config(tmp_path, "m", version, label)
    assert served(tmp_path) == ({"stable": 1, "canary": 3}, [1, 3])
    server_files.update_config(tmp_path, "m", 4, "stable")
    assert served(tmp_path) == ({"stable": 4, "canary": 3}, [3, 4])


def test_a_model_that_serves_all_versions_goes_on_to(tmp_path):
    text = 'model_config_list { config { name: "m" base_path: "/elsewhere" model_version_policy { all {} } } }'
    (tmp_path / "models.config").write_text(text)
    server_files.update_config(tmp_path, "m", 2, "stable")
    written = (tmp_path / "models.config").read_text()
    assert "all {" in written and "specific" not in written and "/elsewhere" in written
    assert served(tmp_path)[0] == {"stable": 2}


def test_a_models_config_that_cannot_be_read_is_told_before_any_work(tmp_path, capsys):
    (tmp_path / "base").mkdir()
    for content in (b"model_config_list { nonsense: 1 }", b"\xff"):
        (tmp_path / "base" / "models.config").write_bytes(content)
        assert main(["export", str(tmp_path / "nothing"), str(tmp_path / "base"), "--name", "m"]) == 2
        said = capsys.readouterr().err
        assert "models.config as a model config file" in said and ".." not in said
        assert [path.name for path in (tmp_path / "base").iterdir()] == ["models.config"]


def test_a_base_that_cannot_be_is_told_plainly(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["export", str(tmp_path / "nothing"), str(tmp_path / "file"), "--name", "m"]) == 2
    assert f"{tmp_path / 'file'} is not a directory" in capsys.readouterr().err
    with (
        pytest.raises(OSError, match=r"Cannot write to .*file/m: Not a directory\."),
        versions.staged(tmp_path / "file" / "m"),
    ):
        pass


@pytest.mark.parametrize("name", ["", "a/b", "a:b", ".hidden", "-x", "a b", "naïve"])
def test_names_that_no_url_could_hold_are_refused(name):
    with pytest.raises(ValueError, match="name"):
        versions.check_name(name)
    with pytest.raises(ValueError, match="A version label must be letters"):
        export("nothing", "nowhere", "m", label=name)


@pytest.mark.parametrize("name", ["models.config", "Dockerfile", "compose.yaml", "kubernetes.yaml"])
def test_names_of_the_server_s_files_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match="the name of a file beside the models' directories"):
        export("nothing", tmp_path, name)


def test_kubernetes_gets_a_name_it_takes(tmp_path):
    for name, wanted in (("1vqa_", "model-1vqa"), ("VQA.2", "vqa-2"), ("a" * 99, "a" * 63)):
        base = tmp_path / name
        base.mkdir()
        server_files.write_templates(base, name, "latest")
        assert f"name: {wanted}\n" in (base / "kubernetes.yaml").read_text()


def test_the_server_keeps_onednn_s_weights_where_they_are_in_bfloat16(tmp_path):
    for written in server_files.write_templates(tmp_path, "m", "latest", frozen_weights=True):
        if written.name != ".dockerignore":
            assert re.search(r'TF_ONEDNN_ASSUME_FROZEN_WEIGHTS\W+(value: ")?1\b', written.read_text())


def test_an_export_that_cannot_enter_models_config_leaves_no_version(copy, monkeypatch):
    base, source = copy

    def fail(*_):
        raise PermissionError("no")

    monkeypatch.setattr(server_files, "update_config", fail)
    with pytest.raises(PermissionError):
        export(source, base, "model", batch_sizes=(1,))
    assert [path.name for path in (base / "model").iterdir()] == ["1"]


def test_there_is_no_version_after_the_largest(tmp_path):
    (tmp_path / str(2**63 - 1)).mkdir()
    with pytest.raises(ValueError, match="the highest that TF Serving allows"):
        versions.next_version(tmp_path)


def test_versions_that_would_not_be_served_are_refused(tmp_path):
    for number in (3, 10):
        (tmp_path / str(number)).mkdir()
    assert versions.versions(tmp_path) == [3, 10]
    assert versions.next_version(tmp_path) == 11 and versions.next_version(tmp_path, 20) == 20
    for wanted in (0, -1, 3, 9, 10, 2**63):
        with pytest.raises(ValueError, match=r"version|integer"):
            versions.next_version(tmp_path, wanted)
    (tmp_path / "012").mkdir()
    with pytest.raises(ValueError, match="leading zeros"):
        versions.versions(tmp_path)


def test_a_failed_export_leaves_nothing_and_a_running_one_no_version(tmp_path):
    def fail_half_way():
        with versions.staged(tmp_path / "m") as folder:
            (folder / "saved_model.pb").touch()
            assert versions.versions(tmp_path / "m") == []
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert not (tmp_path / "m").exists()


STAGING = """
import sys, time
from lxmert_tf.command_line import exit_on_sigterm
from lxmert_tf.serving.version_folders import staged
with exit_on_sigterm(), staged(sys.argv[1]):
    print("staged", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_export_leaves_is_removed(tmp_path):
    folder = tmp_path / "m"

    def kill(number):
        process = subprocess.Popen([sys.executable, "-c", STAGING, str(folder)], stdout=subprocess.PIPE)
        assert process.stdout.readline()
        before = list(folder.iterdir())
        process.send_signal(number)
        process.communicate()
        return process.returncode, before

    code, before = kill(signal.SIGTERM)
    assert code == 128 + signal.SIGTERM and len(before) == 1 and not folder.exists()
    kill(signal.SIGKILL)
    assert len(list(folder.iterdir())) == 1
    other = folder / ".partial-elsewhere-1-x"  # of another machine, which may be at work
    other.mkdir()
    with versions.staged(folder) as running, versions.staged(folder) as second:
        assert set(folder.iterdir()) == {other, running.parent, second.parent}


def test_two_exports_at_once_get_two_versions(tmp_path):
    with versions.staged(tmp_path) as one, versions.staged(tmp_path) as other:
        (one / "a").touch()
        (other / "b").touch()
        assert versions.publish(other) == tmp_path / "1"
        assert versions.publish(one) == tmp_path / "2"
    assert {path.name: next(path.iterdir()).name for path in tmp_path.iterdir()} == {"1": "b", "2": "a"}


def test_exports_at_once_all_enter_models_config(tmp_path):
    def enter(number):
        with server_files.locked_base(tmp_path):
            server_files.update_config(tmp_path, f"m{number}", 1, "stable")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(64)))
    models = server_files.read_config(tmp_path).model_config_list.config
    assert sorted(model.name for model in models) == sorted(f"m{i}" for i in range(64))


# Labels


def test_answers_come_from_the_config_or_a_file(tmp_path):
    from lxmert_tf import LxmertConfig

    config = LxmertConfig(num_qa_labels=2, id2label={0: "no", 1: "yes"})
    assert list(model_answers(tmp_path, config)) == ["no", "yes"]
    bare = LxmertConfig(num_qa_labels=2)
    assert model_answers(tmp_path, bare) is None
    (tmp_path / "label2ans.json").write_text('["a", "b"]')
    assert list(model_answers(tmp_path, bare)) == ["a", "b"]
    (tmp_path / "table.json").write_text('{"x": 1, "y": 0}')
    assert list(model_answers(tmp_path, config, tmp_path / "table.json")) == ["y", "x"]
    for text, said in (
        ('["a"]', "1 answers"),
        ("[1, 2]", "must be text"),
        ("3", "list of answers"),
        ("{", "not json"),
    ):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=said):
            model_answers(tmp_path, config, tmp_path / "bad.json")


# Choices


def test_a_config_may_be_given_in_place_of_the_checkpoints_own(exports, tmp_path):
    config = json.loads((exports / "model" / "config.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps({**config, "num_attention_heads": 1}))
    assert config["num_attention_heads"] > 1
    assert load(exports / "model", config=tmp_path / "other.json").model.config.num_attention_heads == 1


def test_fewer_answers_than_were_asked_for_are_told(exports, capsys):
    from lxmert_tf.cli.export import _print_notes

    _print_notes(exports / "models" / "qa" / "1", 5)
    _print_notes(exports / "models" / "model" / "1", 5)
    assert not capsys.readouterr().err
    _print_notes(exports / "models" / "qa" / "1", 6)
    assert "the model has only 5 answers" in capsys.readouterr().err


@pytest.mark.slow
def test_half_precision_softmax_fewer_answers_and_other_batch_sizes(tmp_path):
    exact = write_checkpoint("qa", tmp_path / "qa")
    options = {"precision": "bfloat16", "probabilities": "softmax", "top_k": 2, "batch_sizes": (2,)}
    export(tmp_path / "qa", tmp_path / "base", "vqa", **options)
    inputs = _inputs(exact.config)
    wanted = np.asarray(exact(inputs).question_answering_score)
    with serving(f"vqa={tmp_path / 'base' / 'vqa'}") as running:
        got = GrpcClient(running["grpc"], "vqa").predict(inputs)
    assert got["logits"].dtype == np.float32 and got["top_answers"].shape == (3, 2)
    np.testing.assert_allclose(got["logits"], wanted, rtol=0, atol=0.02 * np.abs(wanted).max())  # 8 bits of mantissa
    assert np.abs(got["logits"] - wanted).max() > 1e-5 * np.abs(wanted).max()  # it is half precision indeed
    np.testing.assert_allclose(got["probabilities"].sum(-1), 1, rtol=0, atol=1e-6)
    weights = (tmp_path / "base" / "vqa" / "1" / "variables" / "variables.data-00000-of-00001").stat().st_size
    assert weights < 2 * exact.count_params() + 60_000
    assert main(["export", str(tmp_path / "qa"), str(tmp_path / "base"), "--name", "vqa", "--check-only"]) == 0


def _inputs(config):
    from support.serving import random_inputs

    return random_inputs(config, 3, 6, 5, seed=2)


def test_what_cannot_be_exported_says_why(exports, tmp_path, capsys):
    shutil.copytree(exports / "qa", tmp_path / "untold")
    (tmp_path / "untold" / "vocab.txt").unlink()
    cases = [
        ([exports / "model", "--name", "m", "--text"], "--text is for models that answer"),
        ([tmp_path / "untold", "--name", "m", "--text"], "vocab.txt"),
        ([exports / "qa", "--name", "a/b"], "name"),
        (
            [exports / "qa", "--name", "m", "--outputs", "logits"],
            "outputs must be one of hidden_states, attentions, all_attentions",
        ),
        ([exports / "qa", "--name", "m", "--batch-sizes", "1,x"], "integers separated by commas"),
        ([exports / "qa", "--name", "m", "--version", "0"], "version"),
        ([tmp_path / "nothing", "--name", "m"], "nothing"),
    ]
    for (source, *options), said in cases:
        assert main(["export", str(source), str(tmp_path / "base"), *options]) != 0
        printed = capsys.readouterr()
        assert said in printed.err and "Traceback" not in printed.err
    assert not list((tmp_path / "base").glob("*/*"))


def test_options_that_would_be_ignored_are_refused(tmp_path, capsys):
    arguments = ["--name", "m", "--check-only", "--label", "canary"]
    assert main(["export", "nothing", str(tmp_path), *arguments]) == 2
    assert "--label has no effect with --check-only" in capsys.readouterr().err
