"""Chromium without a window, for tests of pages; a test that needs it is skipped where there is none."""

import contextlib
import json
import shutil
import time

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"),
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
)


@contextlib.contextmanager
def browser(width=1400, height=1100):
    """Yield a browser that records its console and all requests."""
    selenium = pytest.importorskip("selenium", reason="selenium is not installed")
    if BROWSER is None or DRIVER is None:
        pytest.skip("needs Chromium and chromedriver (Debian: chromium, chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    assert selenium
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in (*OPTIONS, f"--window-size={width},{height}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.set_script_timeout(120)
        yield driver
    finally:
        driver.quit()


def open_report(driver, path):
    """Open a page and wait until its viewer shows its volumes."""
    driver.get(path.as_uri())
    for _ in range(240):
        state = driver.execute_script("return document.getElementById('viewer').dataset.state")
        if state != "loading":
            break
        time.sleep(0.25)
    assert state == "ready", driver.execute_script("return document.getElementById('readout').textContent")


def settled(driver):
    """Wait until the viewer has done what was asked of it, and has drawn."""
    driver.execute_async_script("glas3d.ready().then(() => requestAnimationFrame(() => arguments[0]()))")


def barriers(driver):
    """Return what keeps people from using a page: the serious and critical findings of axe-core, and where they are."""
    Axe = pytest.importorskip("axe_core_python.selenium", reason="axe-core-python is not installed").Axe
    found = Axe().run(driver)
    assert found["passes"]  # it has looked
    return [
        (rule["id"], rule["help"], [node["html"][:200] for node in rule["nodes"][:3]])
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
    ]


def requests(driver):
    """Return the addresses of all requests, without those that stay in the page."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]
    return [url for url in sent if not url.startswith(("data:", "blob:"))]
