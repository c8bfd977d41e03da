"""Modes of ``glas3d explain``: options reach `explain_img`, and bad ones end in one line."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from glas3d import Atlas


@pytest.fixture
def explain(run_command, scan, bundle, tmp_path):
    """Return a function that explains the scan, by default on a grid of eight cells.

    It returns the exit status, the text that was written, and the names of the files.
    """

    def run(*options, search=("--grid", 2), path=scan, out="out"):
        folder = tmp_path / out
        status, output, errors = run_command(
            *("explain", path, "--model", bundle, "--target", "AD", "--out", folder, *search, *options)
        )
        return status, output + errors, sorted(file.name for file in folder.iterdir()) if folder.exists() else []

    return run


def test_versus_compares_two_classes(explain):
    status, output, names = explain("--versus", "NC")
    assert status == 0
    assert "AD over NC" in output
    assert "sub-07_T1w_desc-gridversusNC_label-AD_regions.tsv" in names
    assert "sub-07_T1w_desc-grid_label-NC_regions.tsv" in names


def test_refine_evaluates_a_share_of_the_points(explain, tmp_path):
    status, output, names = explain("--refine", 0.25, search=("--grid", 4))
    assert status == 0, output
    assert "sub-07_T1w_desc-gridrefined_regions.tsv" in names
    table = pd.read_csv(tmp_path / "out" / "sub-07_T1w_desc-gridrefined_regions.tsv", sep="\t")
    assert 4 <= table["evaluated"].sum() <= 16
    status, output, _ = explain("--refine", 2)
    assert status == 2
    assert output.strip() == "error: --refine must be a share of the model evaluations, above 0 and at most 1, got 2.0"


def test_cut_recomputes_part_of_the_network(explain, tmp_path):
    status, output, _ = explain()
    assert status == 0, output
    whole = pd.read_csv(tmp_path / "out" / "sub-07_T1w_desc-grid_regions.tsv", sep="\t")
    status, output, _ = explain("--cut", 7, "--overwrite")
    assert status == 0, output
    recomputed = pd.read_csv(tmp_path / "out" / "sub-07_T1w_desc-grid_regions.tsv", sep="\t")
    np.testing.assert_allclose(recomputed["score"], whole["score"], atol=1e-5)
    sidecar = json.loads((tmp_path / "out" / "sub-07_T1w_desc-grid_stat-saliency_statmap.json").read_text())
    assert sidecar["Settings"]["cut"] == 7
    assert sidecar["Settings"]["recomputed"]


def test_supervoxels_replace_an_atlas(explain, tmp_path):
    pytest.importorskip("skimage")
    status, output, _ = explain("--supervoxels", 12, search=())
    assert status == 0, output
    table = pd.read_csv(tmp_path / "out" / "sub-07_T1w_seg-supervoxels_regions.tsv", sep="\t")
    assert 4 <= len(table) <= 30
    assert table["name"].str.fullmatch(r"supervoxel-\d{3}").all()
    status, output, _ = explain("--supervoxels", 12)
    assert status == 2
    assert "search an atlas, a grid, coordinates or supervoxels, got --grid 2 and --supervoxels 12" in output


def test_each_of_several_backgrounds_has_its_files(explain):
    status, output, names = explain("--background", "0", "blur", "auto")
    assert status == 0, output
    assert {f"sub-07_T1w_desc-grid{n}_regions.tsv" for n in ("0", "blur", "auto", "consensus")} < set(names)
    assert "; those of 0, blur, auto" in output


def test_coordinates_outside_the_mask_are_left_out(explain, tmp_path, scan):
    pd.DataFrame({"x": [-25.0, 26.0], "y": -20.0, "z": -12.0, "name": ["left", "right"]}).to_csv(
        tmp_path / "coordinates.tsv", sep="\t", index=False
    )
    status, output, names = explain(search=("--coordinates", tmp_path / "coordinates.tsv"))
    assert status == 0, output
    assert "sub-07_T1w_desc-points_regions.tsv" in names
    img = nib.load(scan)
    x = nib.affines.apply_affine(img.affine, np.indices(img.shape).reshape(3, -1).T)[:, 0].reshape(img.shape)
    nib.save(nib.Nifti1Image((x < 0).astype(np.uint8), img.affine), tmp_path / "left.nii.gz")
    search = ("--coordinates", tmp_path / "coordinates.tsv")
    assert explain("--mask", tmp_path / "left.nii.gz", "--overwrite", search=search)[0] == 0
    table = pd.read_csv(tmp_path / "out" / "sub-07_T1w_desc-points_regions.tsv", sep="\t")
    assert table["name"].tolist() == ["left"]


def test_a_brain_mask_changes_scores_and_an_atlas_needs_a_space(explain, tmp_path, scan):
    """The model sees half of the brain; with a transform, the space of an atlas in files must be given."""
    img = nib.load(scan)
    half = np.ones(img.shape, np.uint8)
    half[img.shape[0] // 2 :] = 0
    nib.save(nib.Nifti1Image(half, img.affine), tmp_path / "half.nii.gz")
    np.savetxt(tmp_path / "matrix.txt", np.eye(4))
    tables = []
    for more in ((), ("--brain-mask", tmp_path / "half.nii.gz", "--assume-space", "MNI")):
        status, output, _ = explain(*more, "--overwrite")
        assert status == 0, output
        tables.append(pd.read_csv(next((tmp_path / "out").glob("*_regions.tsv")), sep="\t"))
    assert not np.allclose(tables[0]["light"], tables[1]["light"], rtol=0.01)
    aal = Atlas.load("AAL")
    nib.save(aal.labels_img, tmp_path / "own.nii.gz")
    aal.table.to_csv(tmp_path / "own.tsv", sep="\t", index=False)
    search = ("--atlas", tmp_path / "own.nii.gz")
    status, output, _ = explain("--transform", tmp_path / "matrix.txt", search=search)
    assert status == 2
    assert "the space of the atlas own is not stated (space=, --atlas-space)" in output
    status, output, _ = explain("--transform", tmp_path / "matrix.txt", "--atlas-space", "MNI", search=search)
    assert status == 0, output


def test_a_transform_brings_a_scan_to_the_template(explain, tmp_path, scan):
    """A scan moved by a matrix has the same table with that matrix; without it, or with another, it is refused."""
    matrix = nib.affines.from_matvec(np.eye(3), [40.0, -35.0, 30.0])
    img = nib.load(scan)
    moved = tmp_path / "sub-07_T1w_desc-moved_T1w.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(img.dataobj), np.linalg.inv(matrix) @ img.affine), moved)
    np.savetxt(tmp_path / "matrix.txt", matrix)
    np.savetxt(tmp_path / "other.txt", matrix @ matrix)
    tables = []
    for path, out, options in ((scan, "original", ()), (moved, "moved", ("--transform", tmp_path / "matrix.txt"))):
        status, output, _ = explain(*options, path=path, out=out)
        assert status == 0, output
        tables.append(pd.read_csv(next((tmp_path / out).glob("*.tsv")), sep="\t"))
    pd.testing.assert_frame_equal(*tables, rtol=1e-3)
    for options in ((), ("--transform", tmp_path / "other.txt")):
        status, output, _ = explain(*options, path=moved, out="refused")
        assert status == 2
        assert "does not look like a brain in MNI space" in output


def test_a_floor_ends_the_recursion_after_a_round(explain):
    status, output, _ = explain("--recursive", "--floor", "0.99")
    assert status == 0
    assert "round 1" in output
    assert "round 2" not in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--floor", "0.5"), "--floor is an option of a recursion: give --recursive too"),
        (("--recursive", "--floor", "2"), "floor must be a probability below 1, got 2"),
        (("--covariate", "age"), "--covariate takes name=number, each name once, got 'age'"),
        (("--covariate", "age=old"), "--covariate takes name=number, each name once, got 'age=old'"),
        (("--covariate", "age=1", "age=2"), "each name once, got 'age=2'"),
        (("--covariate", "age=1", "--covariate-reference", "iq=1"), "takes no covariates, got age"),
        (("--covariate", "age=1", "--covariate-reference", "age=2"), "takes no covariates"),
        (("--channels", "each"), "channels one by one need two or more"),
        (("--versus", "NC", "--recursive"), "explained in one mode at a time, got versus and recursive"),
        (("--mask", "nowhere.nii"), "nowhere.nii"),
        (("--brain-mask", "nowhere.nii"), "nowhere.nii"),
        (("--transform", "nowhere.mat"), "nowhere.mat"),
        (
            ("--inverse", "nowhere.mat"),
            "inverse holds the inverses of the warps of a transform: give the transform too",
        ),
        (("--coordinates", "nowhere.tsv"), "search an atlas, a grid, coordinates or supervoxels"),
        (("--versus", "FTD"), "versus must be one of NC (0), AD (1), got 'FTD'"),
        (("--kernel", "segment"), "--kernel segment takes its shape from segments"),
        (("--background", "0", "nowhere.nii"), "nowhere.nii"),
        (("--background", "0", "0"), "several backgrounds must be two or more"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_end_in_one_line(explain, options, message):
    status, output, names = explain(*options)
    assert status == 2
    assert output.count("\n") == 1
    assert message in output
    assert names == []
