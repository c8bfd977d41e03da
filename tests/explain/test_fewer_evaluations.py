"""Explanations of fewer or cheaper evaluations: a share of the points, and recomputation of part of the network."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from glas3d import Grid, Predictor, explain_img
from tests.explain.cases import SMALL
from tests.imaging.cases import HEADS, mask_of, refused, values


@pytest.fixture(scope="module")
def sided(scan, few):
    """Return a model: AD where the left hippocampus is bright."""
    region = torch.as_tensor(np.flatnonzero(mask_of(few, HEADS["LAS"])))
    top = float(torch.as_tensor(values(scan), dtype=torch.float32).flatten()[region].mean())

    def probabilities(batch):
        odds = 4 * batch[:, 0].flatten(1)[:, region].mean(dim=1) / top - 2
        return torch.sigmoid(torch.stack([-odds, odds], dim=1))

    return Predictor(probabilities, "none", classes=("NC", "AD"), device="cpu")


def test_a_share_of_a_grid_is_evaluated_and_the_rest_estimated(scan, sided, tmp_path):
    wide = SMALL | {"sigma_light": 25.0, "sigma_shadow": 30.0}
    r = explain_img(scan, sided, "AD", Grid((8, 9, 7)), refine={"budget": 0.25}, **wide)
    dense = explain_img(scan, sided, "AD", Grid((8, 9, 7)), **wide)
    evaluated = r.table["evaluated"] == 1
    assert 0.15 * len(evaluated) < evaluated.sum() < 0.25 * len(evaluated)
    assert np.array_equal(r.table["score_error"] == 0, evaluated)
    assert np.corrcoef(r.table["score"], dense.table["score"])[0, 1] > 0.98
    np.testing.assert_allclose(r.table["drop"][evaluated], dense.table["drop"][evaluated], atol=1e-5)
    r.save(tmp_path)
    sidecar = json.loads((tmp_path / "scan_desc-gridrefined_stat-saliency_statmap.json").read_text())
    assert sidecar["Settings"]["coarse_to_fine"] == {"budget": 0.25, "tolerance": 0.0}


def test_half_of_an_atlas_is_evaluated_and_the_rest_estimated(scan, sided, aal, tmp_path):
    wide = SMALL | {"sigma_light": 25.0, "sigma_shadow": 30.0}
    r = explain_img(scan, sided, "AD", aal, refine=0.5, **wide)
    dense = explain_img(scan, sided, "AD", aal, **wide)
    assert r.table["name"].equals(dense.table["name"])
    assert (r.table["evaluated"] == 1).sum() < 60
    assert np.corrcoef(r.table["score"], dense.table["score"])[0, 1] > 0.95
    highest = [set(explanation.table.nsmallest(5, "rank")["name"]) for explanation in (r, dense)]
    assert len(highest[0] & highest[1]) >= 4
    r.save(tmp_path)
    assert (tmp_path / "scan_seg-AAL_desc-refined_stat-saliency_statmap.nii.gz").exists()
    with refused('with kernel="ellipsoid" every mask has its own shape'):
        explain_img(scan, sided, "AD", aal, refine=0.5, **(wide | {"kernel": "ellipsoid"}))


def test_regions_are_masked_together_and_divided_where_they_matter(scan, sided, aal, tmp_path):
    own = SMALL | {"sigma_light": 1.0, "sigma_shadow": 1.0, "kernel": "segment", "fusion": "mean"}
    r = explain_img(scan, sided, "AD", aal, refine=0.4, **own)
    dense = explain_img(scan, sided, "AD", aal, **own)
    table = r.table
    assert r.explanation.settings["evaluations"] <= 0.4 * dense.explanation.settings["evaluations"]
    assert "score_error" not in table
    assert np.array_equal(table["evaluated"] == 1, table["together"] == 1)
    assert table["together"].max() > 1
    assert np.corrcoef(table["score"], dense.table["score"])[0, 1] > 0.95
    assert table["name"][table["score"].idxmax()] == dense.table["name"][dense.table["score"].idxmax()]
    r.save(tmp_path)
    sidecar = json.loads((tmp_path / "scan_seg-AAL_desc-refined_regions.json").read_text())
    assert sidecar["together"]["Description"].startswith("How many regions were masked together, this one included")
    report = r.report(tmp_path / "report.html").read_text()
    assert "Neighbouring parts were masked together, and the groups that did most were divided" in report


def test_only_the_part_of_the_network_that_a_mask_changes_is_recomputed(scan, few, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv3d(1, 2, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(2, 2)
    )
    predict = Predictor(net.eval(), "softmax", classes=("NC", "AD"), device="cpu")
    dense = explain_img(scan, predict, "AD", few, **SMALL)
    r = explain_img(scan, predict, "AD", few, cut=7, cut_always=True, **SMALL)
    np.testing.assert_allclose(r.table["score"], dense.table["score"], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(values(r.saliency_img), values(dense.saliency_img), rtol=1e-4, atol=1e-7)
    r.save(tmp_path)
    settings = json.loads((tmp_path / "scan_seg-few_stat-saliency_statmap.json").read_text())["Settings"]
    assert settings["cut"] == 7
    assert settings["recomputed"]["recomputed"]
    assert settings["recomputed"]["measured_change"] < 1e-6
