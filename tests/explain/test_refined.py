"""A share of the points asked, and the rest estimated; also together with a cut."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from glas3d import Grid, Predictor, explain_img
from tests.imaging.cases import HEADS, head, mask_of, refused, values

SMALL = {"sigma_light": 12.0, "sigma_shadow": 12.0, "unit": "mm"}
T1 = HEADS["LAS"]


@pytest.fixture(scope="module")
def scan():
    return head(T1)


@pytest.fixture(scope="module")
def sided(scan, few):
    """AD when the left hippocampus is bright."""
    where = torch.as_tensor(np.flatnonzero(mask_of(few, T1)))
    top = float(torch.as_tensor(values(scan), dtype=torch.float32).flatten()[where].mean())

    def answer(batch):
        odds = 4 * batch[:, 0].flatten(1)[:, where].mean(dim=1) / top - 2
        return torch.sigmoid(torch.stack([-odds, odds], dim=1))

    return Predictor(answer, "none", classes=("NC", "AD"), device="cpu")


def test_a_part_of_a_grid_asked_and_the_rest_estimated(scan, sided, tmp_path):
    wide = SMALL | {"sigma_light": 25.0, "sigma_shadow": 30.0}
    r = explain_img(scan, sided, "AD", Grid((8, 9, 7)), refine={"budget": 0.25}, **wide)
    dense = explain_img(scan, sided, "AD", Grid((8, 9, 7)), **wide)
    asked = r.table["evaluated"] == 1
    assert 0.15 * len(asked) < asked.sum() < 0.25 * len(asked)
    assert np.array_equal(r.table["score_error"] == 0, asked)
    assert np.corrcoef(r.table["score"], dense.table["score"])[0, 1] > 0.98
    np.testing.assert_allclose(r.table["drop"][asked], dense.table["drop"][asked], atol=1e-5)
    r.save(tmp_path)
    sidecar = json.loads((tmp_path / "scan_desc-gridrefined_stat-saliency_statmap.json").read_text())
    assert sidecar["Settings"]["coarse_to_fine"] == {"budget": 0.25, "tolerance": 0.0}


def test_half_of_an_atlas_asked_and_the_rest_estimated(scan, sided, aal, tmp_path):
    wide = SMALL | {"sigma_light": 25.0, "sigma_shadow": 30.0}
    r = explain_img(scan, sided, "AD", aal, refine=0.5, **wide)
    dense = explain_img(scan, sided, "AD", aal, **wide)
    assert r.table["name"].equals(dense.table["name"])
    assert (r.table["evaluated"] == 1).sum() < 60
    assert np.corrcoef(r.table["score"], dense.table["score"])[0, 1] > 0.95
    best = [set(one.table.nsmallest(5, "rank")["name"]) for one in (r, dense)]
    assert len(best[0] & best[1]) >= 4
    r.save(tmp_path)
    assert (tmp_path / "scan_seg-AAL_desc-refined_stat-saliency_statmap.nii.gz").exists()
    with refused('with kernel="segment" every mask has its own shape'):
        explain_img(scan, sided, "AD", aal, refine=0.5, **(wide | {"kernel": "segment"}))


def test_only_what_a_spot_changes_is_computed_again(scan, few, tmp_path):
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
    told = json.loads((tmp_path / "scan_seg-few_stat-saliency_statmap.json").read_text())["Settings"]
    assert told["cut"] == 7
    assert told["recomputed"]["recomputed"]
    assert told["recomputed"]["measured_change"] < 1e-6
