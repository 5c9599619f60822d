"""The page in a browser."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from PIL import Image
from support.browser import BROWSER, DRIVER, browser, requested
from support.data import make_store, make_tokenizer
from support.detector import tiny_detector
from support.golden import ROOT
from support.models import tiny_model

pytestmark = pytest.mark.slow
needs_browser = pytest.mark.skipif(None in (BROWSER, DRIVER), reason="chromium or chromedriver is not here")
WAIT = 60  # seconds, on a busy machine
OPTIONS = ["--min-boxes", 3, "--max-boxes", 8, "--set", "min_size=64", "--set", "max_size=128"]


@pytest.fixture(scope="module")
def address(explainer, tmp_path_factory):
    """The command's page. In a process of its own, since Gradio leaves sockets and event loops open."""
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("web")
    explainer.model.save_pretrained(folder / "model")
    explainer.tokenizer.save_pretrained(folder / "model")
    tiny_detector().save_pretrained(folder / "detector")
    named = ["--detector", folder / "detector", "--max-upload", 0.1, *OPTIONS]
    with served("--model", folder / "model", *named) as address:
        yield address


@pytest.fixture(scope="module")
def chosen_from(tmp_path_factory):
    """The page with 1,001 pictures of a file to choose from."""
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("features")
    make_store(folder, images=1001)
    tiny_model(vocab_size=46, visual_feat_dim=4, l_layers=1, r_layers=0).save_pretrained(folder / "model")
    make_tokenizer(folder).save_pretrained(folder / "model")
    Image.new("RGB", (64, 48), "green").save(folder / "image_7.png")
    with served("--model", folder / "model", "--features", folder / "features.h5", "--images", folder) as address:
        yield address


@contextmanager
def served(*arguments):
    """The address of the page of `lxmert-tf web`."""
    server = subprocess.Popen(
        [sys.executable, "-m", "support.web_server", "web", *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
    )
    with server:
        yield server.stdout.readline().split()[0]
        server.send_signal(signal.SIGINT)
        server.stdout.read()
    assert server.returncode == 0


def test_the_page_is_local_and_sends_nothing(address):
    assert address.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(address, timeout=WAIT) as page, urllib.request.urlopen(f"{address}config") as config:
        text, config = page.read().decode(), json.load(config)
    assert "Ask a picture" in text
    assert "fonts.googleapis.com" not in text
    assert config["analytics_enabled"] is False
    assert not config["run_history"]


@pytest.mark.parametrize(("size", "status"), [(1000, 200), (200_000, 413)])
def test_large_files_are_refused(address, size, status):
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    request = urllib.request.Request(f"{address}gradio_api/upload", head + bytes(size) + b"\r\n--x--\r\n")
    request.add_header("Content-Type", "multipart/form-data; boundary=x")
    try:
        with urllib.request.urlopen(request, timeout=WAIT) as answer:
            found = answer.status
    except urllib.error.HTTPError as error:
        found = error.code
        error.close()
    assert found == status


class Visit:
    """A visitor's view of the page."""

    def __init__(self, driver, address: str):
        self.driver = driver
        driver.get(address)
        self.wait_for("#ask")

    def find(self, selector: str) -> list:
        return self.driver.find_elements("css selector", selector)

    def wait_for(self, selector: str, text: str = ""):
        """The first such element with the text, as soon as there is one."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.driver, WAIT, ignored_exceptions=[StaleElementReferenceException])
        return waiting.until(
            lambda driver: next((each for each in self.find(selector) if text in each.text), None),
            f"{selector} with {text!r}",
        )

    def upload(self, path) -> None:
        if removing := self.find("#picture button[aria-label='Remove Image']"):
            removing[0].click()
        self.wait_for("#picture input[type=file]").send_keys(str(path))

    def choose(self, name: str, text: str) -> None:
        """Chooses from a list."""
        self.find(f"#{name} input")[0].click()
        self.wait_for("[role=option]", text).click()

    def ask(self, question: str, number: int = 1) -> None:
        box = self.find(f"#question{number} textarea, #question{number} input")[0]
        box.clear()
        box.send_keys(question)
        self.find("#ask")[0].click()


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_upload_ask_and_compare(address, photo, width):
    with browser(width) as driver:
        visit = Visit(driver, address)
        visit.upload(photo)
        visit.wait_for("#picture img")
        visit.ask("word1 word2?")
        assert "%" in visit.wait_for("#answers1", "word1 word2?").text
        visit.wait_for("#relevance1", "by chefer")
        visit.wait_for("#boxes1 img")
        assert not visit.find("#answers2")
        visit.ask("incomprehensible " * 6 + "word3?", 2)
        visit.wait_for("#answers2", "word3?")
        if width > 760:  # one question takes more lines than the other
            visit.wait_for("#boxes2 img")
            assert visit.find("#boxes1")[0].rect["y"] == visit.find("#boxes2")[0].rect["y"]
        explained = visit.find("#relevance1 .heading")[0].text
        answers = [each.text for each in visit.find("#answers1 .bars > span:nth-child(3n + 1)")]
        visit.choose("answer1", answers[1])
        changed = visit.wait_for("#relevance1 .heading", f"\N{LEFT DOUBLE QUOTATION MARK}{answers[1]}").text
        assert changed != explained
        visit.choose("method", "raw attention")
        visit.wait_for("#relevance2 .heading", "by raw attention")
        wide = driver.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width  # nothing sticks out
        elsewhere = {url for url in requested(driver) if not url.startswith(address)}
        assert not elsewhere
        assert not [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


@needs_browser
def test_wrong_files_are_refused(address, photo, tmp_path):
    notes, large = tmp_path / "notes.png", tmp_path / "large.bmp"
    notes.write_text("no picture")
    Image.new("RGB", (300, 300)).save(large)
    with browser() as driver:
        visit = Visit(driver, address)
        visit.ask("word1?")
        visit.wait_for(".toast-body", "Choose a picture first.")
        visit.upload(notes)
        visit.wait_for(".toast-body", "notes.png is not a picture of a known kind, such as JPEG or PNG.")
        visit.wait_for("#picture input[type=file]")  # taken away again
        visit.upload(large)
        visit.wait_for(".toast-body", "maximum allowed size")
        visit.upload(photo)
        visit.wait_for("#picture img")
        visit.ask("word1?")
        visit.wait_for("#answers1", "word1?")


@needs_browser
def test_pictures_are_chosen_or_typed(chosen_from):
    from selenium.webdriver.common.keys import Keys

    with browser() as driver:
        visit = Visit(driver, chosen_from)
        visit.wait_for("body", "Picture (the first 1,000 of 1,001; others can be typed)")
        visit.choose("picture", "image_7")
        visit.wait_for("#preview img")
        visit.ask("word1?")
        visit.wait_for("#answers1", "word1?")
        for name, shown in (("image_1000", "word2?"), ("image_1001", "There is no picture 'image_1001'.")):
            box = visit.find("#picture input")[0]
            box.send_keys(Keys.CONTROL, "a")
            box.send_keys(name, Keys.ENTER)
            visit.ask("word2?")
            visit.wait_for("#answers1, .toast-body", shown)
