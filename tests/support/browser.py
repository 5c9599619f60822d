"""A headless Chromium, as Debian's packages chromium and chromium-driver install it."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@contextmanager
def browser(width: int = 1280, height: int = 900) -> Iterator[Any]:
    """A browser whose page is so many pixels wide; narrow ones are taken for telephones."""
    webdriver = pytest.importorskip("selenium.webdriver")

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    # Tests may run as root and in containers without much shared memory.
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "no-first-run"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        yield driver
    finally:
        driver.quit()


def requested(driver: Any) -> set[str]:
    """The addresses that the page has asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]
    sockets = [each["params"]["url"] for each in messages if each["method"] == "Network.webSocketCreated"]
    return {url for url in sent + sockets if not url.startswith(("data:", "blob:"))}
