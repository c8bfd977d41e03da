import warnings

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import center_of_mass

from glas3d import GLAS, Atlas, Grid, explain_img
from glas3d.errors import GlasWarning, SpaceWarning
from glas3d.imaging.space import VoxelGrid, voxel_to_world, world_to_voxel
from tests.imaging.cases import (
    HEADS,
    affine,
    assert_same,
    head,
    head_grid,
    mask_of,
    planted,
    refused,
    seen,
    values,
    with_info,
)

RAS = HEADS["RAS"]
COARSE = head_grid("RAS", mm=(9.0, 8.0, 10.0))
SMALL = {"sigma_light": 12.0, "sigma_shadow": 12.0, "unit": "mm"}  # a spot about as large as a hippocampus


# The planted region is found, and on the right side


@pytest.mark.parametrize("pose", HEADS)
def test_the_planted_region_is_first_and_the_map_is_bright_on_its_side(aal, pose):
    img = head(HEADS[pose])
    r = explain_img(img, seen(img, aal), **SMALL)
    assert r.table.sort_values("rank").iloc[0]["name"] == "Hippocampus_L"
    assert len(r.table) == 116
    x = voxel_to_world(np.argwhere(np.ones(img.shape)), img.affine)[:, 0].reshape(img.shape)
    for one, times in ((r.saliency_img, 20), (r.light_img, 1.2)):
        assert values(one)[x < 0].sum() > times * values(one)[x > 0].sum()
        assert (values(one) == values(one).max()).sum() == np.count_nonzero(mask_of(aal, HEADS[pose]))
        assert (values(one)[mask_of(aal, HEADS[pose])] == values(one).max()).all()


def test_the_right_hippocampus_too(few):
    img = head(HEADS["LAS"])
    r = explain_img(img, seen(img, few, "Hippocampus_R"), search=few, **SMALL)
    assert r.table.sort_values("rank").iloc[0]["name"] == "Hippocampus_R"


def test_flips_and_turned_axes_change_nothing_but_the_maps_order(few):
    scans = {pose: head(HEADS[pose]) for pose in ("RAS", "LAS", "PSR")}
    ras, las, psr = (explain_img(img, seen(img, few), search=few, **SMALL) for img in scans.values())
    turns = (las, lambda one: one[::-1]), (psr, lambda one: one.transpose(2, 0, 1)[:, ::-1])
    for other, turn in turns:
        np.testing.assert_allclose(turn(values(other.saliency_img)), values(ras.saliency_img), rtol=1e-4)
        pd.testing.assert_frame_equal(other.table, ras.table, rtol=1e-4)


def test_light_and_shadow_are_the_papers_with_distances_in_the_head(few):
    # Eq. 1 and 2 by hand, with distances measured in world coordinates, on turned and unequal voxels.
    img = head(HEADS["oblique-LIP"])
    model = seen(img, few)
    r = explain_img(img, model, search=few)  # 20 and 30 mm, the paper's
    volume, labels = values(img).astype(np.float64), few.on(HEADS["oblique-LIP"])
    xyz = voxel_to_world(np.argwhere(np.ones(img.shape)), img.affine)

    def p(one):
        return float(model(torch.as_tensor(one, dtype=torch.float32)[None, None])[0, 1])

    for row in r.table.to_dict("records"):
        centre = voxel_to_world(np.array(center_of_mass(labels == row["index"])), img.affine)
        np.testing.assert_allclose((row["x"], row["y"], row["z"]), centre, atol=1e-6)
        away = ((xyz - centre) ** 2).sum(axis=1).reshape(img.shape)
        light = p(volume * np.exp(-away / (2 * 20**2)))
        drop = p(volume) - p(volume * (1 - np.exp(-away / (2 * 30**2))))
        expected = (light, drop, abs(drop) + 1e-5, light * (abs(drop) + 1e-5))
        np.testing.assert_allclose(
            [row[c] for c in ("light", "drop", "shadow", "score")], expected, rtol=1e-3, atol=1e-6
        )
        assert row["n_voxels"] == np.count_nonzero(labels == row["index"])


# What comes back


@pytest.mark.parametrize(("sform", "qform"), [(4, 0), (0, 1), (2, 3)])
def test_the_maps_are_on_the_scans_own_grid_with_its_codes(few, sform, qform):
    img = head(HEADS["oblique"])
    img.set_sform(HEADS["oblique"].affine, sform)
    img.set_qform(HEADS["oblique"].affine, qform)
    before = values(img).copy()
    r = explain_img(img, seen(img, few), search=few)
    for one in (r.saliency_img, r.light_img, r.shadow_img):
        assert one.shape == img.shape
        assert one.get_data_dtype() == np.float32
        np.testing.assert_allclose(one.affine, img.affine, atol=1e-4)
        assert (int(one.header["sform_code"]), int(one.header["qform_code"])) == (sform, qform)
    assert np.array_equal(values(img), before)


def assert_painted(r, labels, table):
    for statistic, column in (("saliency", "score"), ("light", "light"), ("shadow", "shadow")):
        expected = np.zeros(labels.shape)
        for row in table.dropna(subset="score").to_dict("records"):
            expected[labels == row["index"]] = row[column]
        np.testing.assert_allclose(values(getattr(r, f"{statistic}_img")), expected, rtol=1e-6)


def test_maps_are_painted_with_the_tables_numbers(few):
    img = head(RAS)
    r = explain_img(img, seen(img, few), search=few)
    assert_painted(r, few.on(RAS), r.table)
    np.testing.assert_array_equal(r.explanation.saliency, values(r.saliency_img))


def test_the_table_has_the_contracts_columns_and_ranks(aal):
    img = head(RAS)
    table = explain_img(img, seen(img, aal), **SMALL).table
    assert " ".join(table.columns) == "index name hemisphere x y z n_voxels light shadow drop score rank"
    assert table[["index", "name", "hemisphere"]].equals(aal.table)
    assert sorted(table["rank"]) == list(range(1, 117))
    assert (table.sort_values("rank")["score"].diff().dropna() <= 0).all()
    np.testing.assert_allclose(table["score"], table["light"] * table["shadow"])
    np.testing.assert_allclose(table["shadow"], table["drop"].abs() + 1e-5)


@pytest.mark.parametrize("pose", ["LAS", "oblique-LIP"])
def test_a_model_with_a_grid_is_asked_there_and_the_maps_come_back(few, pose):
    img, shapes = head(HEADS[pose]), set()
    region = planted(head(COARSE), mask_of(few, COARSE))

    def net(batch):
        shapes.add(tuple(batch.shape[1:]))
        return region(batch)

    r = explain_img(img, with_info(net, grid=COARSE, channels=1), target="AD", search=few, **SMALL)
    assert shapes == {(1, *COARSE.shape)}
    assert r.table.sort_values("rank").iloc[0]["name"] == "Hippocampus_L"
    assert r.explanation.saliency.shape == COARSE.shape
    assert r.saliency_img.shape == img.shape
    np.testing.assert_allclose(r.saliency_img.affine, img.affine, atol=1e-4)
    assert_painted(r, few.on(HEADS[pose]), r.table)  # labels on the scan's grid, not the model's blown up
    coarse = few.on(COARSE)
    assert r.table["n_voxels"].tolist() == [np.count_nonzero(coarse == i) for i in r.table["index"]]
    centres = voxel_to_world(np.array(center_of_mass(coarse > 0, coarse, r.table["index"])), COARSE.affine)
    np.testing.assert_allclose(r.table[["x", "y", "z"]], centres, atol=1e-6)


def test_a_scan_is_averaged_onto_the_models_grid(few):
    img = head(HEADS["LAS"])
    first = []
    net = with_info(lambda b: first.append(b[0, 0].clone()) or torch.full((len(b), 2), 0.5), grid=COARSE)
    explain_img(img, net, search=Grid(1))
    correlation = np.corrcoef(first[0].flatten(), values(head(COARSE)).ravel())[0, 1]
    assert correlation > 0.98


def test_a_grid_search_is_spread_over_the_scan(few):
    img = head(RAS)
    r = explain_img(img, seen(img, few), search=Grid(3))
    e = GLAS(seen(img, few), sigma_light=20, sigma_shadow=30, sigma_spatial=6 * 2**0.5, unit="mm").explain(
        values(img)[None], 1, Grid(3), spacing=(6, 6, 6)
    )
    np.testing.assert_allclose(values(r.saliency_img), e.saliency, rtol=1e-4)
    assert r.table["name"].tolist()[:2] == ["point-01", "point-02"]
    np.testing.assert_allclose(r.table[["x", "y", "z"]], voxel_to_world(Grid(3).points(img.shape), img.affine))
    assert (r.table["hemisphere"] == np.where(r.table["x"] < 0, "L", np.where(r.table["x"] > 0, "R", "midline"))).all()
    assert sorted(r.table["rank"]) == list(range(1, 28))
    assert r.stem == "scan_desc-grid"


def test_a_grid_search_on_the_models_grid_comes_back_in_place(few):
    img, back = head(HEADS["LAS"]), head(COARSE)
    r = explain_img(img, with_info(seen(back, few), grid=COARSE), search=Grid((6, 7, 5)), **SMALL, sigma_spatial=4.0)
    assert r.saliency_img.shape == img.shape
    brightest = voxel_to_world(np.array(np.unravel_index(values(r.saliency_img).argmax(), img.shape)), img.affine)
    best = r.table.sort_values("rank").iloc[0][["x", "y", "z"]].astype(float)
    assert np.linalg.norm(brightest - best) < 10
    assert brightest[0] < 0


def test_points_of_ones_own(few):
    img = head(RAS)
    centre = np.array(center_of_mass(mask_of(few, RAS)))
    points = np.array([centre + np.array([0, 3, 3]), centre, [0, 0, 0]])
    r = explain_img(img, seen(img, few), search=points, **SMALL)
    assert r.table["rank"].tolist()[1] == 1
    np.testing.assert_allclose(r.table[["x", "y", "z"]], voxel_to_world(points, img.affine))
    assert r.stem == "scan_desc-points"
    assert_same(r, explain_img(img, seen(img, few), search=points.tolist(), **SMALL))


def test_regions_that_vanish_keep_their_row(few, tmp_path):
    wide = VoxelGrid((10, 12, 11), affine(spacing=(19.0, 19.0, 19.0), origin=(-92.0, -127.0, -77.0)))
    img = head(wide)
    with pytest.warns(GlasWarning, match="regions of few own no voxel"):
        r = explain_img(img, lambda b: torch.full((len(b), 2), 0.5), search=few, assume_space="MNI")
    lost = r.table[r.table["n_voxels"] == 0]
    assert 0 < len(lost) < 8
    assert len(r.table) == 8
    assert lost[["x", "y", "z", "light", "shadow", "drop", "score", "rank"]].isna().all(axis=None)
    assert sorted(r.table["rank"].dropna()) == list(range(1, 9 - len(lost)))
    assert r.provenance["Search"]["regions_without_voxels"] == lost["name"].tolist()
    r.save(tmp_path)
    rows = (tmp_path / "scan_seg-few_regions.tsv").read_text().splitlines()
    written = {row.split("\t")[1] for row in rows if row.endswith("\tn/a\tn/a\tn/a\t0\tn/a\tn/a\tn/a\tn/a\tn/a")}
    assert written == set(lost["name"])


def test_a_medoid_is_asked_for_and_said(few):
    img = head(RAS)
    r = explain_img(img, seen(img, few), search=few, point="medoid")
    at = np.rint(world_to_voxel(r.table[["x", "y", "z"]].to_numpy(), img.affine))
    np.testing.assert_allclose(r.explanation.points, at, atol=1e-6)
    assert r.provenance["Settings"]["point"] == "medoid"


def test_one_volume_in_four_dimensions_gives_maps_of_three(few):
    img = head(RAS)
    four = nib.Nifti1Image(values(img)[..., None], img.affine)
    r = explain_img(four, seen(img, few), search=few)
    assert r.saliency_img.shape == img.shape
    assert_same(r, explain_img(img, seen(img, few), search=few))


# Targets, spaces and channels


def test_many_targets_share_their_forwards(few):
    img, forwards = head(RAS), []
    model = seen(img, few)
    counted = with_info(lambda b: forwards.append(len(b)) or model(b))
    both = explain_img(img, counted, ["AD", 0], few, batch_size=1)
    assert sum(forwards) == 2 * 8 + 1
    assert isinstance(both, tuple)
    for r, target in zip(both, (1, 0), strict=True):
        assert_same(r, explain_img(img, model, target, few))
    assert [r.provenance["Target"] for r in both] == [{"index": 1, "class": "AD"}, {"index": 0, "class": "NC"}]
    assert [r.stem for r in both] == ["scan_seg-few_label-AD", "scan_seg-few_label-NC"]
    assert both[0].explanation.probability == pytest.approx(1 - both[1].explanation.probability, abs=1e-6)
    (alone,) = explain_img(img, model, [1], few)
    assert alone.stem == "scan_seg-few"


def test_a_target_may_be_numpys_integer(few):
    img = head(RAS)
    assert explain_img(img, seen(img, few), np.int64(1), few).explanation.target == 1


@pytest.mark.parametrize(
    ("target", "match"),
    [(2, "2"), ("MCI", "MCI"), ([], "empty sequence"), ([1, "MCI"], "MCI")],
)
def test_a_target_there_is_not_is_refused(few, target, match):
    img = head(RAS)
    with refused(match):
        explain_img(img, with_info(seen(img, few)), target, few)


def test_a_scan_in_another_space_is_told(few):
    img = head(RAS)
    moved = nib.Nifti1Image(values(img), RAS.affine + np.array([[0] * 4, [0, 0, 0, 40], [0] * 4, [0] * 4]))
    model = planted(img, mask_of(few, RAS))
    with pytest.warns(SpaceWarning, match="the image does not look like a brain in MNI space: its") as caught:
        r = explain_img(moved, model, search=few)
    assert caught[0].filename == __file__
    assert r.provenance["SpaceCheck"]["distance"] > 25
    with pytest.warns(SpaceWarning):
        explain_img(moved, with_info(lambda b: torch.full((len(b), 2), 0.5), grid=COARSE), search=Grid(1))
    assumed = explain_img(moved, model, search=few, assume_space="MNI")  # no warning: they are errors here
    assert assumed.provenance["SpaceCheck"] is None
    explain_img(moved, model, search=Grid(1))  # no anatomy, no space
    anywhere = Atlas("mine", few.labels_img, few.table, few.sha256)
    explain_img(moved, model, search=anywhere)


def test_what_does_not_fit_is_refused(few):
    img = head(RAS)
    model = seen(img, few)
    with refused("the model toy takes 2 input channels, a scan has 1"):
        explain_img(img, with_info(model, channels=2), search=few)
    with refused("assume_space must be", "Talairach"):
        explain_img(img, model, search=few, assume_space="Talairach")
    with refused("none of the shipped atlases", "AAL3"):
        explain_img(img, model, search="AAL3")
    with refused("Predictor.*activation"):
        explain_img(img, torch.nn.Flatten(), search=few)
    far = VoxelGrid((5, 6, 7), affine(origin=(-400.0, -400.0, -400.0)))
    with warnings.catch_warnings(), refused(r"no signal on the grid of the model toy, \(5, 6, 7\)", "the image"):
        warnings.simplefilter("ignore", SpaceWarning)
        explain_img(img, with_info(model, grid=far), search=Grid(1))


@pytest.mark.parametrize("pose", ["RAS", "LAS"])
def test_a_label_array_is_painted(few, pose):
    img, labels = head(HEADS[pose]), few.on(RAS)
    model = with_info(seen(head(RAS), few), grid=RAS)
    r = explain_img(img, model, search=labels, **SMALL)
    assert_painted(r, few.on(HEADS[pose]), r.table)
    whole = explain_img(img, model, search=few, **SMALL).table.sort_values("index", ignore_index=True)
    columns = ["index", "x", "y", "z", "n_voxels", "light", "shadow", "drop", "score", "rank"]
    pd.testing.assert_frame_equal(r.table[columns], whole[columns])
    assert r.table["name"].tolist() == [f"segment-{i}" for i in r.table["index"]]
    assert r.stem == "scan_desc-segments"
    assert r.provenance["Search"] == {"segments": 8}
