"""What starts from which preset, and what a preset does on points, with regressors and with models' own settings."""

import json

import numpy as np
import pytest

from glas3d import Grid, Predictor, explain_img
from glas3d.errors import GlasWarning
from glas3d.explain import explain_image
from glas3d.explain.preset import preset_of
from glas3d.imaging.coordinates import Coordinates
from tests.imaging.cases import assert_same, refused, seen, values, with_info

EVIDENCE = {"kernel": "segment", "fusion": "mean", "link": "logit", "density": False, "sigma_light": 1.0}
PAPER = {"kernel": "gaussian", "fusion": "product", "link": "probability", "density": False, "sigma_light": 20.0}


def sure(scan, few, strength=8.0):
    """A model of one logit that depends on a region."""

    region = seen(scan, few)

    def net(batch):
        return strength * (region(batch)[:, 1:] - 0.5)

    return Predictor(net, "sigmoid", device="cpu", classes=("NC", "AD"))


@pytest.mark.parametrize(
    ("given", "of_model", "named", "expected"),
    [
        ({}, {}, None, "evidence"),
        ({"background": 0}, {"sigma_spatial": 3}, None, "paper"),
        ({"background": 0}, {"background": 0}, None, "evidence"),
        ({}, {}, "evidence", "evidence"),
        ({"sigma_light": 3}, {}, None, "paper"),
        ({"link": "logit"}, {"preset": "evidence", "sigma_light": 3}, None, "paper"),
        ({"sigma_light": 3}, {}, "evidence", "evidence"),
        ({"gamma": 0.1}, {"sigma_light": 3}, None, "paper"),
        ({}, {"preset": "evidence", "sigma_light": 3}, None, "evidence"),
        ({}, {"preset": "evidence", "sigma_light": 3}, "paper", "paper"),
    ],
)
def test_what_settings_start_from(given, of_model, named, expected):
    assert preset_of(given, of_model, named) == expected


def test_a_call_that_chooses_nothing_is_made_of_evidence(scan, few):
    r = explain_img(scan, sure(scan, few), "AD", few)
    assert settings(r, EVIDENCE) == EVIDENCE
    assert r.provenance["Preset"] == "evidence"


def settings(r, like):
    return {name: r.explanation.settings[name] for name in like}


def test_an_explicit_setting_wins_over_a_preset_and_that_over_the_model(scan, few):
    model = sure(scan, few)
    model.info = with_info(model, preset={"sigma_light": 5.0, "unit": "mm", "sigma_spatial": 7.0}).info
    assert settings(explain_img(scan, model, "AD", few, preset="evidence"), EVIDENCE) == EVIDENCE
    assert settings(explain_img(scan, model, "AD", few, preset="paper"), PAPER) == PAPER
    own = explain_img(scan, model, "AD", few)
    assert settings(own, PAPER) == PAPER | {"sigma_light": 5.0}
    named = explain_img(scan, model, "AD", few, preset="evidence", fusion="shadow", sigma_light=6.0, unit="mm")
    assert [r.provenance["Preset"] for r in (own, named)] == ["paper", "evidence"]
    assert settings(named, EVIDENCE) == EVIDENCE | {"fusion": "shadow", "sigma_light": 6.0}
    assert named.explanation.settings["sigma_shadow"] == 1.0
    assert named.explanation.settings["sigma_spatial"] == 7.0  # which no preset chooses


def test_evidence_on_points_has_round_masks(scan, few):
    for search in (Grid(6), Coordinates([[-25, -21, -10], [27, 6, 2], [-20, -10, -5]], space="MNI")):
        r = explain_img(scan, sure(scan, few), "AD", search, preset="evidence")
        expected = {"kernel": "gaussian", "sigma_light": 8.0, "sigma_shadow": 12.0, "fusion": "mean", "link": "logit"}
        assert settings(r, expected) == expected


def test_a_regressor_keeps_its_own_output(scan, few):
    regressor = Predictor(lambda batch: 70 + 20 * batch.mean(dim=(1, 2, 3, 4)), "none", device="cpu")
    with pytest.warns(GlasWarning, match="made of the model's own output"):
        r = explain_img(scan, regressor, 0, few, preset="evidence")
    assert settings(r, EVIDENCE) == EVIDENCE | {"link": "probability"}
    with refused('link="logit" gives negative light'):
        explain_img(scan, regressor, 0, few, link="logit")
    with refused("preset must be one of paper, evidence, got 'best'"):
        explain_img(scan, regressor, 0, few, preset="best")


def test_images_have_presets_too():
    picture = np.random.default_rng(0).uniform(0, 255, (20, 24)).astype(np.uint8)
    cells = np.arange(480).reshape(20, 24) // 97 + 1

    def bright(batch):
        z = (batch[:, 0, :10].mean(dim=(1, 2)) - 100) / 20
        return z[:, None]

    model = Predictor(bright, "sigmoid", device="cpu")
    for search, kernel in ((cells, "segment"), (Grid(3), "gaussian")):
        r = explain_image(picture, model, 1, search, preset="evidence")
        assert r.explanation.settings["kernel"] == kernel
        assert (r.explanation.settings["link"], r.provenance["Preset"]) == ("logit", "evidence")
        np.testing.assert_array_equal(r.table["score"], r.table["evidence"])
    assert explain_image(picture, model, 1, cells).explanation.settings["kernel"] == "exponential"


@pytest.mark.parametrize("link", ["probability", "logit"])
def test_tables_and_sidecars_hold_evidence_and_how_much_it_accounts_for(scan, few, tmp_path, link):
    sigma = {"sigma_light": 2.0, "sigma_shadow": 2.0, "unit": "mm"}  # few regions lose much at their edges
    r = explain_img(scan, sure(scan, few), "AD", few, preset="evidence", link=link, **sigma)
    table, e = r.table, r.explanation
    bare = e.output - e.effect
    np.testing.assert_allclose(table["evidence"], (table["light"] - bare + table["drop"]) / 2, atol=1e-12)
    sums = {end: cover.sums for end, cover in e.covers.items()}
    by_region = (e.light - bare) / sums["light"] / 2 + e.drop / sums["shadow"] / 2
    np.testing.assert_allclose(table["density"], by_region, atol=1e-12)
    np.testing.assert_array_equal(table["score"], table["evidence"])
    assert table.set_index("name").loc["Hippocampus_L", "rank"] == 1
    signs = table["direction"].map({"for": 1.0, "against": -1.0}).fillna(0.0)
    np.testing.assert_array_equal(signs, np.sign(table["evidence"]))
    r.save(tmp_path)
    sidecar = json.loads((tmp_path / f"{r.stem}_regions.json").read_text())
    units = "log-odds" if link == "logit" else "probability"
    assert sidecar["evidence"]["Units"] == sidecar["drop"]["Units"] == units
    account = sidecar["Account"]
    assert account["accounted"] == pytest.approx(table["evidence"].sum() / e.effect)
    assert account["largest"] == pytest.approx(table["evidence"].max() / e.effect)
    round_masks = explain_img(scan, sure(scan, few), "AD", few, preset="paper")
    assert round_masks.provenance["Account"]["accounted"] is None
    assert not round_masks.provenance["Account"]["partition"]


@pytest.mark.parametrize(("fusion", "missing"), [("light", ["shadow", "drop"]), ("shadow", ["light"])])
def test_an_end_that_is_not_evaluated_has_no_map(scan, few, tmp_path, fusion, missing):
    r = explain_img(scan, sure(scan, few), "AD", few, fusion=fusion)
    written = {path.name for path in r.save(tmp_path)}
    for statistic in ("light", "shadow", "drop"):
        assert (f"{r.stem}_stat-{statistic}_statmap.nii.gz" in written) == (statistic not in missing)
        assert (getattr(r, f"{statistic}_img") is None) == (statistic in missing)
        assert r.table[statistic].isna().all() == (statistic in missing)
    assert "evidence" not in r.table
    assert r.explanation.settings["evaluations"] == 9
    both = explain_img(scan, sure(scan, few), "AD", few, preset="paper")
    np.testing.assert_allclose(r.table["score"], both.table[fusion], rtol=1e-5)
    np.testing.assert_allclose(values(r.saliency_img), values(getattr(both, f"{fusion}_img")), rtol=1e-5)


def test_a_recursion_keeps_the_zero_of_evidence(scan, few, tmp_path):
    r = explain_img(scan, sure(scan, few), "AD", few, preset="evidence", recursive=True)
    first = r.provenance["Recursion"]["rounds"][0]
    assert first["removed"] == ["Hippocampus_L"]
    hidden = values(r.round_imgs[0])
    assert hidden.max() == 1
    # every region without evidence keeps its tissue
    assert np.count_nonzero(hidden) == np.count_nonzero(values(r.saliency_img))
    assert r.table.set_index("name")["score"].sort_values().iloc[-2] < 0.05


def test_results_of_auto_are_recognised_as_those_of_logits(scan, few, tmp_path):
    options = {"preset": "evidence", "folder": tmp_path}
    first = explain_img(scan, sure(scan, few), "AD", few, **options)
    assert_same(explain_img(scan, sure(scan, few), "AD", few, **options), first)
    with refused(r"made with another setting, link \(logit there, probability now\); give", tmp_path):
        explain_img(scan, sure(scan, few), "AD", few, link="probability", **options)
