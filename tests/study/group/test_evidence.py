"""Signed evidence at the group level: its zero is kept, and the regions' account is a sum over a sum."""

import json

import nibabel as nib
import numpy as np
import pytest

from glas3d import Grid, Predictor, explain_img
from glas3d.study.group.group_map import GroupMap
from glas3d.study.group.voxel_map import VoxelMap
from glas3d.study.running.participant import average
from tests import bundles

# Regions of few lose much at their edges with wider masks.
EVIDENCE = {"preset": "evidence", "sigma_light": 1.0, "sigma_shadow": 1.0, "unit": "mm"}
ROUND = {"sigma_light": 20.0, "sigma_shadow": 20.0}


def explained(few, seed, search=None, **settings):
    predict = Predictor(bundles.network(), "softmax", lambda batch: batch / 20 - 1, "cpu")
    img = bundles.t1()
    noisy = nib.Nifti1Image(bundles.scan(seed)[0].numpy(), img.affine, img.header)
    return explain_img(noisy, predict, 1, few if search is None else search, **(EVIDENCE | settings))


@pytest.fixture(scope="module")
def people(few):
    return [explained(few, seed) for seed in range(3)]


def group_of(group, people):
    for each in people:
        group.add(each)
    return group


def test_a_group_map_is_the_mean_evidence_over_its_largest_size(people, few, tmp_path):
    group = group_of(GroupMap("AD", few), people)
    mean = np.mean([each.table["evidence"] for each in people], axis=0)
    assert mean.min() < 0 < mean.max()
    table = group.table()
    np.testing.assert_allclose(table["score"], mean / np.abs(mean).max(), rtol=1e-9)
    np.testing.assert_allclose(table["evidence"], mean, rtol=1e-9)
    np.testing.assert_allclose(table["density"], np.mean([each.table["density"] for each in people], axis=0))
    assert (table["direction"] == np.where(mean > 0, "for", "against")).all()
    assert table.sort_values("rank")["score"].is_monotonic_decreasing
    values, labels = np.asarray(group.saliency_img().dataobj), few.on(bundles.GRID)
    for index, score in zip(table["index"], table["score"], strict=True):
        np.testing.assert_array_equal(values[labels == index], np.float32(score))
    np.testing.assert_allclose(group.variation()["mean"], mean)
    sidecar = json.loads(group.save(tmp_path)[1].read_text())
    assert sidecar["Statistic"] == "mean evidence, divided by its largest absolute value"


def test_the_group_and_its_participants_account_for_effects(people, few, tmp_path):
    group = group_of(GroupMap("AD", few), people)
    evidence = sum(each.table["evidence"].sum() for each in people)
    effect = sum(each.explanation.effect for each in people)
    sidecar = json.loads(group.save(tmp_path)[3].read_text())
    assert sidecar["Account"]["effect"] == pytest.approx(effect / 3)
    assert sidecar["Account"]["accounted"] == pytest.approx(evidence / effect)
    largest = max(sum(each.table["evidence"] for each in people) / effect)
    assert sidecar["Account"]["largest"] == pytest.approx(largest)
    own = json.loads((tmp_path / "group-AD_seg-few_stat-saliency_statmap.json").read_text())["Participants"]
    assert [each["account"]["accounted"] for each in own] == pytest.approx([e.explanation.accounted for e in people])


def test_models_of_one_participant_are_averaged(people):
    both = average(people[:2])
    first, second = people[:2]
    account = both.provenance["Account"]
    assert account["effect"] == pytest.approx((first.explanation.effect + second.explanation.effect) / 2)
    assert account["accounted"] == pytest.approx(both.table["evidence"].sum() / account["effect"])
    np.testing.assert_allclose(both.table["evidence"], (first.table["evidence"] + second.table["evidence"]) / 2)
    alone = average([explained(None, seed, Grid(2), fusion="shadow", **ROUND) for seed in range(2)])
    assert alone.light_img is None
    assert alone.table["light"].isna().all()
    assert "Account" not in alone.provenance


def test_a_group_on_a_grid_keeps_the_zero_of_its_maps():
    people = [explained(None, seed, Grid((2, 3, 2)), **ROUND) for seed in range(2)]
    group = group_of(VoxelMap("AD"), people)
    maps = np.mean([np.asarray(each.saliency_img.dataobj, dtype=float) for each in people], axis=0)
    np.testing.assert_allclose(group.saliency_img().dataobj, maps / np.abs(maps).max(), atol=1e-6)
    scores = np.mean([each.table["evidence"] for each in people], axis=0)
    np.testing.assert_allclose(group.table()["score"], scores / np.abs(scores).max())
