"""The report of an image: its map over it, its points, what was explained in words; no viewer of brains."""

import re

import numpy as np
import pytest
from PIL import Image

from glas3d import Grid, Predictor
from glas3d.explain import explain_image
from tests.report.webpage import chromium


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    """Return the explanation of a picture of unequal sides, in which a bright corner makes it a finch."""
    path = tmp_path_factory.mktemp("pictures") / "a <b>bird.png"
    pixels = np.full((18, 24, 3), 20, np.uint8)
    pixels[2:8, 15:22] = 230
    Image.fromarray(pixels).save(path)

    def model(batch):
        p = batch[:, :, 2:8, 15:22].mean(dim=(1, 2, 3)) / 320
        return np.stack([1 - p, p], axis=1)

    predict = Predictor(model, "none", classes=("grebe", "finch"))
    return explain_image(str(path), predict, "finch", Grid((3, 4)), sigma_light=3.0, sigma_shadow=3.0)


def test_the_page_shows_the_image_and_speaks_of_one(explained, tmp_path, draws_figures):
    path = explained.report(tmp_path / "report.html")
    assert path == tmp_path / "report.html"
    page = path.read_text(encoding="utf-8")
    text = re.sub(r"<style>.*?</style>|<script.*?</script>|<[^>]+>", " ", page, flags=re.DOTALL)
    assert "a &lt;b&gt;bird" in text
    assert "<b>bird" not in page
    assert "which points the output for finch depends on" in text
    assert f"gives this image the probability P(finch) = {explained.explanation.probability:.3f}" in text
    best = explained.table.sort_values("rank").iloc[0]
    assert f"(row {best['row']:.0f}, column {best['column']:.0f})" in text
    assert page.count('<th scope="row">point-') == 12
    assert page.count("data:image/png;base64,") == 1
    assert "the map of finch over it" in page
    assert page.index("the map of finch over it") < page.index("<th scope")
    assert "light 3 pixels" in text
    words = re.sub(
        r"[^a-z ]", " ", text.split("Every setting")[0].lower() + text.split("Methods and citations")[-1].lower()
    )
    assert not {"scan", "brain", "anatomy", "niivue", "atlas"} & set(words.split())
    assert "niivue" not in page


@pytest.mark.slow
def test_the_page_works_in_a_browser(explained, tmp_path, draws_figures):
    path = explained.report(tmp_path / "report.html")
    with chromium.browser(1280, 1000) as driver:
        driver.get(path.as_uri())
        assert chromium.barriers(driver) == []
        picture = driver.find_element("css selector", "figure.brain img")
        assert driver.execute_script("return arguments[0].naturalWidth", picture) > 300
        first = "table.regions tbody tr:first-child th"
        before = driver.find_element("css selector", first).text
        driver.find_element("xpath", "//th/button[text()='rank']").click()
        assert driver.find_element("css selector", first).text != before
        assert [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
