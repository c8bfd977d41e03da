"""Recursion over a scan: two planted regions, rounds and files; tests of the core check the algorithm itself."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch

from glas3d import GLAS, RGLAS, Grid, Predictor, explain_img
from glas3d.core.saliency import minmax
from glas3d.imaging.space import VoxelGrid
from tests.explain.cases import SMALL
from tests.imaging.cases import refused, values

STRENGTHS = {"Hippocampus_L": 1.0, "Putamen_R": 0.9}


@pytest.fixture(scope="module")
def model(scan, few):
    """Return a model whose P(AD) depends on the brighter of two regions, so that its evidence is redundant."""
    labels, index = few.on(VoxelGrid(scan.shape, scan.affine)), few.table.set_index("name")["index"]
    regions = [torch.as_tensor(labels == index[name]) for name in STRENGTHS]

    def levels(batch):
        means = [s * batch[:, 0, p].mean(dim=1) for p, s in zip(regions, STRENGTHS.values(), strict=True)]
        return torch.stack(means).amax(dim=0)

    top = levels(torch.as_tensor(values(scan), dtype=torch.float32)[None, None])

    def probabilities(batch):
        p = torch.sigmoid(8 * (levels(batch) / top - 0.5))
        return torch.stack([1 - p, p], dim=1)

    return Predictor(probabilities, "none", classes=("NC", "AD"))


def test_the_two_regions_are_removed_in_two_rounds(scan, model, few):
    r = explain_img(scan, model, "AD", few, recursive=True, **SMALL)
    rounds = r.provenance["Recursion"]["rounds"]
    removed = [set(record["removed"]) & set(STRENGTHS) for record in rounds]
    assert len(removed[0]) == len(removed[1]) == 1
    assert removed[0] | removed[1] == set(STRENGTHS)
    assert len(r.round_imgs) == len(rounds)
    assert rounds[0]["kept"]
    assert rounds[1]["probability_before"] == pytest.approx(rounds[0]["probability_after"], abs=1e-6)


def test_map_and_scores_are_those_of_all_rounds_fused(scan, model, few):
    r = explain_img(scan, model, "AD", few, recursive=True, **SMALL)
    segments = few.segments(VoxelGrid(scan.shape, scan.affine))
    core = RGLAS(GLAS(model, **SMALL)).explain(values(scan)[None], "AD", segments, nib.affines.voxel_sizes(scan.affine))
    np.testing.assert_allclose(values(r.saliency_img), core.saliency, atol=1e-6)
    np.testing.assert_allclose(r.table["score"], core.values)
    np.testing.assert_allclose(r.table["light"], core.rounds[0].explanation.light)
    first = segments.paint(minmax(core.rounds[0].explanation.score))
    np.testing.assert_allclose(values(r.round_imgs[0]), first, atol=1e-6)
    for img in r.round_imgs:
        assert img.shape == scan.shape
        np.testing.assert_array_equal(img.affine, scan.affine)


@pytest.mark.parametrize(("search", "stem"), [("atlas", "scan_seg-few_desc-"), (Grid((3, 4, 2)), "scan_desc-grid")])
def test_every_round_has_a_file(scan, model, few, tmp_path, search, stem):
    r = explain_img(scan, model, "AD", few if search == "atlas" else search, recursive=True, **SMALL)
    names = {path.name for path in r.save(tmp_path)}
    rounds = {f"{stem}round{i + 1}_stat-saliency_statmap.nii.gz" for i in range(len(r.round_imgs))}
    assert rounds < names
    assert f"{stem}recursive_regions.tsv" in names
    sidecar = json.loads((tmp_path / f"{stem}recursive_stat-saliency_statmap.json").read_text())
    assert sidecar["Recursion"]["ended"]
    assert len(sidecar["Recursion"]["rounds"]) == len(rounds)
    assert values(r.saliency_img).max() == pytest.approx(1)


def test_a_recursion_takes_one_target(scan, model, few):
    with refused("one target.*got"):
        explain_img(scan, model, ["NC", "AD"], few, recursive=True, **SMALL)


def test_without_recursion_there_are_no_rounds(scan, model, few):
    r = explain_img(scan, model, "AD", few, **SMALL)
    assert r.round_imgs == ()
    assert "Recursion" not in r.provenance
