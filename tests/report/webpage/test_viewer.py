"""The viewer of a report, in Chromium from file://: volumes, crosshair, threshold, maps, keyboard, no request."""

import io

import numpy as np
import pytest
from PIL import Image

from glas3d.explain.dataset import describe_dataset
from glas3d.report import write_report
from glas3d.study.group.group_map import GroupMap
from tests.report.webpage import chromium

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reports(explained, few, scan_path, tmp_path_factory):
    """Return the reports of a scan and of a study."""
    out = tmp_path_factory.mktemp("viewed")
    explained.save(out / "scan")
    describe_dataset(out / "scan", [scan_path])
    group = GroupMap("AD", few)
    group.add(explained)
    group.save(out / "study" / "group")
    return {kind: write_report(out / kind) for kind in ("scan", "study")}


@pytest.fixture(scope="module")
def driver():
    with chromium.browser() as driver:
        yield driver


def picture(driver):
    """Return what the viewer shows, ``(rows, cols, 3)``, without its rounded corners."""
    chromium.settled(driver)
    canvas = driver.find_element("id", "canvas")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    content = canvas.screenshot_as_png
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)[12:-12, 12:-12]


def coloured(pixels):
    """Return how many pixels are no shade of grey; the crosshair, which is thin, is among them."""
    return int((np.ptp(pixels, axis=2) > 60).sum())


def choose(driver, field, value):
    script = "const e = document.getElementById(arguments[0]); e.value = arguments[1]; "
    driver.execute_script(script + "for (const k of ['input', 'change']) e.dispatchEvent(new Event(k))", field, value)
    chromium.settled(driver)


def place(driver):
    return driver.execute_script("return glas3d.state.place")


@pytest.mark.parametrize("kind", ["scan", "study"])
def test_a_report_is_looked_around(driver, reports, kind):
    chromium.open_report(driver, reports[kind])
    choose(driver, "layout", "axial")
    pixels = picture(driver)
    grey = (pixels.min(axis=2) > 60) & (np.ptp(pixels, axis=2) < 25)
    columns = np.flatnonzero(grey.any(axis=0))
    middle = (columns[0] + columns[-1]) // 2
    assert grey[:, :middle].sum() > 2000  # both hemispheres are there
    assert grey[:, middle:].sum() > 2000
    assert 0.6 < grey[:, :middle].sum() / grey[:, middle:].sum() < 1.6

    # a row moves the crosshair to its centroid; the right amygdala speaks against the target
    for name in ("Hippocampus_L", "Amygdala_R"):
        button = driver.find_element("xpath", f"//tr[@data-place]//button[text()='{name}']")
        row = button.find_element("xpath", "ancestor::tr")
        button.click()
        chromium.settled(driver)
        wanted = [float(value) for value in row.get_attribute("data-place").split()]
        assert np.allclose(place(driver), wanted, atol=0.05)
        assert f": {name}, score" in driver.find_element("id", "readout").text

    shown = coloured(picture(driver))
    strong = np.ptp(picture(driver), axis=2).sum()
    choose(driver, "opacity", 40)
    assert np.ptp(picture(driver), axis=2).sum() < 0.8 * strong
    choose(driver, "opacity", 0)
    assert coloured(picture(driver)) < shown - 100
    choose(driver, "opacity", 80)
    choose(driver, "threshold", 100)
    assert coloured(picture(driver)) < shown - 100
    choose(driver, "threshold", 10)
    before = picture(driver)
    choose(driver, "map", "density")
    assert (picture(driver) != before).any()
    assert "density" in driver.find_element("id", "scale-name").text

    assert [url for url in chromium.requests(driver) if url.startswith("http") or url != reports[kind].as_uri()] == []
    assert [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("kind", ["scan", "study"])
def test_nothing_keeps_people_from_using_a_report(driver, reports, kind, width):
    driver.set_window_size(width, 1000)
    try:
        chromium.open_report(driver, reports[kind])
        for opened in ("", "for (const each of document.querySelectorAll('details')) each.open = true"):
            driver.execute_script(opened)
            assert chromium.barriers(driver) == []
    finally:
        driver.set_window_size(1400, 1100)


def test_the_check_of_barriers_finds_them(driver, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<html><body><img src='data:,'><p style='color: #ccc; background: #fff'>pale</p></body></html>")
    driver.get(page.as_uri())
    assert {rule for rule, *_ in chromium.barriers(driver)} >= {"image-alt", "color-contrast", "html-has-lang"}


def test_the_keyboard_reaches_everything(driver, reports):
    from selenium.webdriver.common.keys import Keys

    chromium.open_report(driver, reports["scan"])
    driver.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    reached = set()
    for _ in range(150):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        active = "const e = document.activeElement; return e.id || e.className || e.tagName"
        reached.add(driver.execute_script(active))
    wanted = {
        "view",
        "map",
        "threshold",
        "opacity",
        "layout",
        "radiological",
        "canvas",
        "filter",
        "sort",
        "go",
        "scroll",
    }
    assert wanted <= reached
    canvas = driver.find_element("id", "canvas")
    start = place(driver)
    for key, axis, sign in ((Keys.RIGHT, 0, 1), (Keys.UP, 1, 1), (Keys.PAGE_DOWN, 2, -1)):
        canvas.send_keys(key)
        moved = np.subtract(place(driver), start)
        assert moved[axis] * sign > 1
        start = place(driver)
    threshold = driver.find_element("id", "threshold")
    threshold.send_keys(Keys.END)
    assert threshold.get_attribute("value") == "100"


def test_tables_are_sorted_and_filtered(driver, reports):
    chromium.open_report(driver, reports["scan"])

    def names():
        buttons = driver.find_elements("css selector", "table.regions tbody tr:not([hidden]) button.go")
        return [button.text for button in buttons]

    by_rank = names()
    name = driver.find_element("xpath", "//table[contains(@class, 'regions')]//button[text()='name']")
    name.click()
    assert names() == sorted(by_rank) != by_rank
    name.click()
    assert names() == sorted(by_rank, reverse=True)
    driver.find_element("css selector", "input.filter").send_keys("amyg")
    assert set(names()) == {"Amygdala_L", "Amygdala_R"}
