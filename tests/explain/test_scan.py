"""`explain_img`: a planted region, maps on the scan's own grid, every search, targets and spaces."""

import warnings

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import center_of_mass, distance_transform_edt

from glas3d import GLAS, Atlas, Grid, explain_img
from glas3d.errors import GlasWarning, SkullWarning, SpaceWarning
from glas3d.imaging.space import VoxelGrid, voxel_to_world, world_to_voxel
from tests.core.cases import is_trial
from tests.explain.cases import SMALL
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


# The planted region has the highest score, on its own side


@pytest.mark.parametrize("pose", HEADS)
def test_the_planted_region_ranks_first_and_the_map_is_bright_on_its_side(aal, pose):
    img = head(HEADS[pose])
    r = explain_img(img, seen(img, aal), **SMALL)
    assert r.table.sort_values("rank").iloc[0]["name"] == "Hippocampus_L"
    assert len(r.table) == 116
    x = voxel_to_world(np.argwhere(np.ones(img.shape)), img.affine)[:, 0].reshape(img.shape)
    for img_of_statistic, ratio in ((r.saliency_img, 20), (r.light_img, 1.2)):
        brightness = values(img_of_statistic)
        assert brightness[x < 0].sum() > ratio * brightness[x > 0].sum()
        assert (brightness == brightness.max()).sum() == np.count_nonzero(mask_of(aal, HEADS[pose]))
        assert (brightness[mask_of(aal, HEADS[pose])] == brightness.max()).all()


def test_a_region_of_the_right_side_ranks_first(few):
    img = head(HEADS["LAS"])
    r = explain_img(img, seen(img, few, "Hippocampus_R"), search=few, **SMALL)
    assert r.table.sort_values("rank").iloc[0]["name"] == "Hippocampus_R"


def test_flipped_and_exchanged_axes_change_only_the_order_of_voxels(few):
    scans = {pose: head(HEADS[pose]) for pose in ("RAS", "LAS", "PSR")}
    ras, las, psr = (explain_img(img, seen(img, few), search=few, **SMALL) for img in scans.values())
    turns = (las, lambda volume: volume[::-1]), (psr, lambda volume: volume.transpose(2, 0, 1)[:, ::-1])
    for other, turn in turns:
        np.testing.assert_allclose(turn(values(other.saliency_img)), values(ras.saliency_img), rtol=1e-4, atol=1e-8)
        pd.testing.assert_frame_equal(other.table, ras.table, rtol=1e-4, atol=1e-6)


def test_light_and_shadow_follow_the_paper_with_distances_in_mm(few):
    # Eq. 1 and 2 written out, with distances in world coordinates, on an oblique grid of unequal voxels
    img = head(HEADS["oblique-LIP"])
    model = seen(img, few)
    r = explain_img(img, model, search=few, preset="paper")  # 20 and 30 mm
    volume, labels = values(img).astype(np.float64), few.on(HEADS["oblique-LIP"])
    xyz = voxel_to_world(np.argwhere(np.ones(img.shape)), img.affine)

    def p(masked):
        return float(model(torch.as_tensor(masked, dtype=torch.float32)[None, None])[0, 1])

    for row in r.table.to_dict("records"):
        centre = voxel_to_world(np.array(center_of_mass(labels == row["index"])), img.affine)
        np.testing.assert_allclose((row["x"], row["y"], row["z"]), centre, atol=1e-6)
        distance = ((xyz - centre) ** 2).sum(axis=1).reshape(img.shape)
        light = p(volume * np.exp(-distance / (2 * 20**2)))
        drop = p(volume) - p(volume * (1 - np.exp(-distance / (2 * 30**2))))
        expected = (light, drop, abs(drop) + 1e-5, light * (abs(drop) + 1e-5))
        np.testing.assert_allclose(
            [row[c] for c in ("light", "drop", "shadow", "score")], expected, rtol=1e-3, atol=1e-6
        )
        assert row["n_voxels"] == np.count_nonzero(labels == row["index"])


# Maps and table


@pytest.mark.parametrize(("sform", "qform"), [(4, 0), (0, 1), (2, 3)])
def test_the_maps_have_the_scan_s_grid_and_its_orientation_codes(few, sform, qform):
    img = head(HEADS["oblique"])
    img.set_sform(HEADS["oblique"].affine, sform)
    img.set_qform(HEADS["oblique"].affine, qform)
    before = values(img).copy()
    r = explain_img(img, seen(img, few), search=few)
    for map_img in (r.saliency_img, r.light_img, r.shadow_img):
        assert map_img.shape == img.shape
        assert map_img.get_data_dtype() == np.float32
        np.testing.assert_allclose(map_img.affine, img.affine, atol=1e-4)
        assert (int(map_img.header["sform_code"]), int(map_img.header["qform_code"])) == (sform, qform)
    assert np.array_equal(values(img), before)


def assert_painted(r, labels, table):
    """Check that every region of the maps has the number of its row in the table."""
    for statistic, column in (("saliency", "score"), ("light", "light"), ("shadow", "shadow")):
        expected = np.zeros(labels.shape)
        for row in table.dropna(subset="score").to_dict("records"):
            expected[labels == row["index"]] = row[column]
        if column == "light" and r.explanation.settings["link"] == "logit":  # drawn above that of the background
            expected[labels > 0] -= r.explanation.bare
        np.testing.assert_allclose(values(getattr(r, f"{statistic}_img")), expected, rtol=1e-6)


def test_maps_are_painted_with_the_numbers_of_the_table(few):
    img = head(RAS)
    r = explain_img(img, seen(img, few), search=few)
    assert_painted(r, few.on(RAS), r.table)
    np.testing.assert_array_equal(r.explanation.saliency, values(r.saliency_img))


def test_the_table_has_the_contracts_columns_and_ranks(aal):
    img = head(RAS)
    table = explain_img(img, seen(img, aal), **SMALL).table
    contract = "index name hemisphere x y z n_voxels light shadow drop score rank direction evidence density"
    assert " ".join(table.columns) == contract
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
    assert_painted(r, few.on(HEADS[pose]), r.table)  # labels on the scan's grid, not the model's enlarged
    coarse = few.on(COARSE)
    assert r.table["n_voxels"].tolist() == [np.count_nonzero(coarse == i) for i in r.table["index"]]
    centres = voxel_to_world(np.array(center_of_mass(coarse > 0, coarse, r.table["index"])), COARSE.affine)
    np.testing.assert_allclose(r.table[["x", "y", "z"]], centres, atol=1e-6)


def test_a_scan_is_averaged_onto_the_model_s_coarser_grid(few):
    img = head(HEADS["LAS"])
    inputs = []
    net = with_info(lambda b: inputs.append(b[0, 0].clone()) or torch.full((len(b), 2), 0.5), grid=COARSE)
    explain_img(img, net, search=Grid(1))
    correlation = np.corrcoef(inputs[0].flatten(), values(head(COARSE)).ravel())[0, 1]
    assert correlation > 0.98


def test_a_grid_search_is_spread_over_the_scan(few):
    img = head(RAS)
    r = explain_img(img, seen(img, few), search=Grid(3), preset="paper")
    e = GLAS(seen(img, few), sigma_light=20, sigma_shadow=30, sigma_spatial=6 * 2**0.5, unit="mm").explain(
        values(img)[None], 1, Grid(3), spacing=(6, 6, 6)
    )
    np.testing.assert_allclose(values(r.saliency_img), e.saliency, rtol=1e-4)
    assert r.table["name"].tolist()[:2] == ["point-01", "point-02"]
    np.testing.assert_allclose(r.table[["x", "y", "z"]], voxel_to_world(Grid(3).points(img.shape), img.affine))
    assert (r.table["hemisphere"] == np.where(r.table["x"] < 0, "L", np.where(r.table["x"] > 0, "R", "midline"))).all()
    assert sorted(r.table["rank"]) == list(range(1, 28))
    assert r.stem == "scan_desc-grid"


def test_a_grid_search_on_the_model_s_grid_is_mapped_back_to_its_position(few):
    img, back = head(HEADS["LAS"]), head(COARSE)
    r = explain_img(img, with_info(seen(back, few), grid=COARSE), search=Grid((6, 7, 5)), **SMALL, sigma_spatial=4.0)
    assert r.saliency_img.shape == img.shape
    brightest = voxel_to_world(np.array(np.unravel_index(values(r.saliency_img).argmax(), img.shape)), img.affine)
    highest = r.table.sort_values("rank").iloc[0][["x", "y", "z"]].astype(float)
    assert np.linalg.norm(brightest - highest) < 10
    assert brightest[0] < 0


def test_voxel_coordinates_are_searched(few):
    img = head(RAS)
    centre = np.array(center_of_mass(mask_of(few, RAS)))
    points = np.array([centre + np.array([0, 3, 3]), centre, [0, 0, 0]])
    r = explain_img(img, seen(img, few), search=points, **SMALL)
    assert r.table["rank"].tolist()[1] == 1
    np.testing.assert_allclose(r.table[["x", "y", "z"]], voxel_to_world(points, img.affine))
    assert r.stem == "scan_desc-points"
    assert_same(r, explain_img(img, seen(img, few), search=points.tolist(), **SMALL))


def test_regions_without_a_voxel_keep_their_row(few, tmp_path):
    wide = VoxelGrid((10, 12, 11), affine(spacing=(19.0, 19.0, 19.0), origin=(-92.0, -127.0, -77.0)))
    img = head(wide)
    with pytest.warns(GlasWarning, match="regions of few are too small"):
        r = explain_img(
            img, lambda b: b.mean(dim=(2, 3, 4)).repeat(1, 2), search=few, assume_space="MNI", preset="paper"
        )
    lost = r.table[r.table["n_voxels"] == 0]
    assert 0 < len(lost) < 8
    assert len(r.table) == 8
    assert lost[["x", "y", "z", "light", "shadow", "drop", "score", "rank", "direction"]].isna().all(axis=None)
    assert sorted(r.table["rank"].dropna()) == list(range(1, 9 - len(lost)))
    assert r.provenance["Search"]["regions_without_voxels"] == lost["name"].tolist()
    r.save(tmp_path)
    rows = (tmp_path / "scan_seg-few_regions.tsv").read_text().splitlines()
    written = {row.split("\t")[1] for row in rows if row.endswith("\tn/a\tn/a\tn/a\t0" + 8 * "\tn/a")}
    assert written == set(lost["name"])


def test_medoids_are_searched_and_recorded(few):
    img = head(RAS)
    r = explain_img(img, seen(img, few), search=few, point="medoid")
    voxels = np.rint(world_to_voxel(r.table[["x", "y", "z"]].to_numpy(), img.affine))
    np.testing.assert_allclose(r.explanation.points, voxels, atol=1e-6)
    assert r.provenance["Settings"]["point"] == "medoid"


def test_a_4d_scan_of_one_volume_has_3d_maps(few):
    img = head(RAS)
    scan_4d = nib.Nifti1Image(values(img)[..., None], img.affine)
    r = explain_img(scan_4d, seen(img, few), search=few)
    assert r.saliency_img.shape == img.shape
    assert_same(r, explain_img(img, seen(img, few), search=few))


# Targets, spaces and channels


def test_several_targets_share_model_evaluations(few):
    img, batches = head(RAS), []
    model = seen(img, few)
    counted = with_info(lambda b: (None if is_trial() else batches.append(len(b))) or model(b))
    both = explain_img(img, counted, ["AD", 0], few, batch_size=1)
    assert sum(batches) == 2 * 8 + 2
    assert isinstance(both, tuple)
    for r, target in zip(both, (1, 0), strict=True):
        assert_same(r, explain_img(img, model, target, few))
    assert [r.provenance["Target"] for r in both] == [{"index": 1, "class": "AD"}, {"index": 0, "class": "NC"}]
    assert [r.stem for r in both] == ["scan_seg-few_label-AD", "scan_seg-few_label-NC"]
    assert both[0].explanation.probability == pytest.approx(1 - both[1].explanation.probability, abs=1e-6)
    (alone,) = explain_img(img, model, [1], few)
    assert alone.stem == "scan_seg-few"


def test_a_target_may_be_a_numpy_integer(few):
    img = head(RAS)
    assert explain_img(img, seen(img, few), np.int64(1), few).explanation.target == 1


@pytest.mark.parametrize(
    ("target", "match"),
    [(2, "2"), ("MCI", "MCI"), ([], "empty sequence"), ([1, "MCI"], "MCI")],
)
def test_a_target_that_the_model_does_not_have_is_refused(few, target, match):
    img = head(RAS)
    with refused(match):
        explain_img(img, with_info(seen(img, few)), target, few)


def test_a_scan_in_another_space_is_warned_of(few):
    img = head(RAS)
    moved = nib.Nifti1Image(values(img), RAS.affine + np.array([[0] * 4, [0, 0, 0, 40], [0] * 4, [0] * 4]))
    model = planted(img, mask_of(few, RAS))
    with pytest.warns(SpaceWarning, match="the image does not look like a brain in MNI space: its") as caught:
        r = explain_img(moved, model, search=few)
    assert caught[0].filename == __file__
    assert r.provenance["SpaceCheck"]["distance"] > 25
    assert any(note.startswith("the scan does not look like a brain in MNI space: its") for note in r.notes)
    with pytest.warns(SpaceWarning):
        explain_img(moved, with_info(lambda b: torch.full((len(b), 2), 0.5), grid=COARSE), search=Grid(1))
    assumed = explain_img(moved, model, search=few, assume_space="MNI")  # no warning, which would be an error here
    assert assumed.provenance["SpaceCheck"] is None
    explain_img(moved, model, search=Grid(1))  # a grid needs no space
    atlas_without_space = Atlas("mine", few.labels_img, few.table, few.sha256)
    explain_img(moved, model, search=atlas_without_space)


def with_scalp(img, grid):
    """Return a brain's image with a scalp of its own brightness around it."""
    distance = distance_transform_edt(values(img) < 70, sampling=grid.spacing)
    return nib.Nifti1Image(np.where((distance > 13) & (distance < 20), np.float32(600), values(img)), img.affine)


def test_a_head_with_its_skull_is_warned_of_where_the_model_wants_a_brain_alone(few):
    img = head(RAS)
    scan = with_scalp(img, RAS)
    flat = with_info(lambda b: torch.full((len(b), 2), 0.5), grid=RAS, skull_stripped=True)
    with pytest.warns(SkullWarning, match="more than a brain.* the model toy wants .*--brain-mask") as caught:
        r = explain_img(scan, flat, search=Grid(1))
    assert [str(one.filename) for one in caught] == [__file__]
    assert any(note.startswith("the scan holds more than a brain: outside of it") for note in r.notes)
    with pytest.warns(GlasWarning, match="more than a brain") as caught:  # which commands do not refuse
        explain_img(scan, flat, search=Grid(1), assume_space="MNI")
    assert caught[0].category is GlasWarning
    brain = nib.Nifti1Image((values(img) > 70).astype(np.uint8), img.affine)
    # no warning, which would be an error here
    explain_img(scan, flat, search=Grid(1), brain_mask=brain)
    explain_img(img, flat, search=Grid(1))
    for stated in (None, False):
        explain_img(scan, with_info(flat, grid=RAS, skull_stripped=stated), search=Grid(1))


def test_inputs_that_do_not_fit_are_refused(few):
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
def test_an_array_of_labels_is_searched_as_segments(few, pose):
    img, labels = head(HEADS[pose]), few.on(RAS)
    model = with_info(seen(head(RAS), few), grid=RAS)
    r = explain_img(img, model, search=labels, **SMALL)
    assert_painted(r, few.on(HEADS[pose]), r.table)
    by_atlas = explain_img(img, model, search=few, **SMALL).table.sort_values("index", ignore_index=True)
    columns = ["index", "x", "y", "z", "n_voxels", "light", "shadow", "drop", "score", "rank"]
    pd.testing.assert_frame_equal(r.table[columns], by_atlas[columns])
    assert r.table["name"].tolist() == [f"segment-{i}" for i in r.table["index"]]
    assert r.stem == "scan_desc-segments"
    assert r.provenance["Search"] == {"segments": 8}
