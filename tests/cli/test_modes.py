"""The ways of asking, from the command line: options reach `explain_img`, bad ones end in one line."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from glas3d import Atlas, cli
from tests import bundles


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("scans") / "sub-07_T1w.nii.gz"
    nib.save(bundles.t1(6), path)
    return path


@pytest.fixture
def explain(go, scan, bundle, tmp_path):
    """Run it on a grid of eight cells: status, what was said, the files' names."""

    def command(*options, look=("--grid", 2)):
        place = tmp_path / "out"
        given = ["explain", scan, "--model", bundle, "--target", "AD", "--out", place, *look, *options]
        status, printed, notes = go(*given)
        return status, printed + notes, sorted(p.name for p in place.iterdir()) if place.exists() else []

    return command


def test_a_second_class(explain):
    status, said, names = explain("--versus", "NC")
    assert status == 0
    assert "AD over NC" in said
    assert "sub-07_desc-gridversusNC_label-AD_regions.tsv" in names
    assert "sub-07_desc-grid_label-NC_regions.tsv" in names


def test_coarse_to_fine(explain, tmp_path):
    status, said, names = explain("--refine", 0.25, look=("--grid", 4))
    assert status == 0, said
    assert "sub-07_desc-gridrefined_regions.tsv" in names
    table = pd.read_csv(tmp_path / "out" / "sub-07_desc-gridrefined_regions.tsv", sep="\t")
    assert 4 <= table["evaluated"].sum() <= 16
    status, said, _ = explain("--refine", 2)
    assert status == 2
    assert said.strip() == "error: budget must be a share of the model evaluations, above 0 and at most 1, got 2.0"


def test_a_cut(explain, tmp_path):
    status, said, _ = explain()
    assert status == 0, said
    whole = pd.read_csv(tmp_path / "out" / "sub-07_desc-grid_regions.tsv", sep="\t")
    status, said, _ = explain("--cut", 7)
    assert status == 0, said
    cut = pd.read_csv(tmp_path / "out" / "sub-07_desc-grid_regions.tsv", sep="\t")
    np.testing.assert_allclose(cut["score"], whole["score"], atol=1e-5)
    sidecar = json.loads((tmp_path / "out" / "sub-07_desc-grid_stat-saliency_statmap.json").read_text())
    assert sidecar["Settings"]["cut"] == 7
    assert sidecar["Settings"]["recomputed"]


def test_supervoxels(explain, tmp_path):
    pytest.importorskip("skimage")
    status, said, _ = explain("--supervoxels", 12, look=())
    assert status == 0, said
    table = pd.read_csv(tmp_path / "out" / "sub-07_seg-supervoxels_regions.tsv", sep="\t")
    assert 4 <= len(table) <= 30
    assert table["name"].str.fullmatch(r"supervoxel-\d{3}").all()
    status, said, _ = explain("--supervoxels", 12)
    assert status == 2
    assert "search an atlas, a grid, coordinates or supervoxels, got --grid 2 and --supervoxels 12" in said


def test_several_backgrounds(explain):
    status, said, names = explain("--background", "0", "blur", "auto")
    assert status == 0, said
    assert {f"sub-07_desc-grid{n}_regions.tsv" for n in ("0", "blur", "auto", "consensus")} < set(names)
    assert "and those of 0, blur, auto" in said


def test_places_and_a_mask(explain, tmp_path, scan):
    pd.DataFrame({"x": [-25.0, 26.0], "y": -20.0, "z": -12.0, "name": ["left", "right"]}).to_csv(
        tmp_path / "places.tsv", sep="\t", index=False
    )
    status, said, names = explain(look=("--coordinates", tmp_path / "places.tsv"))
    assert status == 0, said
    assert "sub-07_desc-points_regions.tsv" in names
    img = nib.load(scan)
    x = nib.affines.apply_affine(img.affine, np.indices(img.shape).reshape(3, -1).T)[:, 0].reshape(img.shape)
    nib.save(nib.Nifti1Image((x < 0).astype(np.uint8), img.affine), tmp_path / "left.nii.gz")
    explain("--mask", tmp_path / "left.nii.gz", look=("--coordinates", tmp_path / "places.tsv"))
    table = pd.read_csv(tmp_path / "out" / "sub-07_desc-points_regions.tsv", sep="\t")
    assert table["name"].tolist() == ["left"]


def test_a_brain_mask_and_the_space_of_an_atlas(explain, tmp_path, scan):
    """The model is shown half of the brain; an atlas file follows a transform when its space is said."""
    img = nib.load(scan)
    half = np.ones(img.shape, np.uint8)
    half[img.shape[0] // 2 :] = 0
    nib.save(nib.Nifti1Image(half, img.affine), tmp_path / "half.nii.gz")
    np.savetxt(tmp_path / "matrix.txt", np.eye(4))
    tables = []
    for more in ((), ("--brain-mask", tmp_path / "half.nii.gz", "--assume-space", "MNI")):
        status, said, _ = explain(*more)
        assert status == 0, said
        tables.append(pd.read_csv(next((tmp_path / "out").glob("*_regions.tsv")), sep="\t"))
    assert not np.allclose(tables[0]["light"], tables[1]["light"], rtol=0.01)
    aal = Atlas.load("AAL")
    nib.save(aal.labels_img, tmp_path / "own.nii.gz")
    aal.table.to_csv(tmp_path / "own.tsv", sep="\t", index=False)
    look = ("--atlas", tmp_path / "own.nii.gz")
    status, said, _ = explain("--transform", tmp_path / "matrix.txt", look=look)
    assert status == 2
    assert "the space of the atlas own is not stated (space=, --atlas-space)" in said
    status, said, _ = explain("--transform", tmp_path / "matrix.txt", "--atlas-space", "MNI", look=look)
    assert status == 0, said


def test_a_scan_of_native_space(explain, tmp_path, scan, bundle, capsys):
    """Moved by a matrix that is given: the same table; by none, or another's: refused."""
    matrix = nib.affines.from_matvec(np.eye(3), [40.0, -35.0, 30.0])
    img = nib.load(scan)
    moved = tmp_path / "sub-07_desc-moved_T1w.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(img.dataobj), np.linalg.inv(matrix) @ img.affine), moved)
    np.savetxt(tmp_path / "matrix.txt", matrix)
    np.savetxt(tmp_path / "other.txt", matrix @ matrix)
    tables = []
    for given, more in ((scan, ()), (moved, ("--transform", tmp_path / "matrix.txt"))):
        place = tmp_path / given.name.split(".")[0]
        asked = ["explain", given, "--model", bundle, "--target", "AD", "--grid", 2, "--out", place, *more]
        assert cli.run([str(one) for one in asked]) == 0, capsys.readouterr().err
        tables.append(pd.read_csv(next(place.glob("*.tsv")), sep="\t"))
    pd.testing.assert_frame_equal(*tables, rtol=1e-3)
    capsys.readouterr()
    for more in ((), ("--transform", tmp_path / "other.txt")):
        asked = ["explain", moved, "--model", bundle, "--target", "AD", "--grid", 2, "--out", tmp_path / "no", *more]
        assert cli.run([str(one) for one in asked]) == 2
        assert "does not look like a brain in MNI space" in capsys.readouterr().err


def test_a_recursion_with_a_floor(explain):
    status, said, _ = explain("--recursive", "--floor", "0.99")
    assert status == 0
    assert "round 1" in said
    assert "round 2" not in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--floor", "0.5"), "--floor is an option of a recursion: give --recursive too"),
        (("--recursive", "--floor", "2"), "floor must be a probability below 1, got 2"),
        (("--covariate", "age"), "--covariate takes name=number, each name once, got 'age'"),
        (("--covariate", "age=old"), "--covariate takes name=number, each name once, got 'age=old'"),
        (("--covariate", "age=1", "age=2"), "each name once, got 'age=2'"),
        (("--covariate", "age=1", "--covariate-reference", "iq=1"), "must be of age, got a reference value for 'iq'"),
        (("--covariate", "age=1", "--covariate-reference", "age=2"), "states no covariates"),
        (("--channels", "each"), "channels one by one need two or more"),
        (("--versus", "NC", "--recursive"), "explained in one mode at a time, got versus and recursive"),
        (("--mask", "nowhere.nii"), "nowhere.nii"),
        (("--brain-mask", "nowhere.nii"), "nowhere.nii"),
        (("--transform", "nowhere.mat"), "nowhere.mat"),
        (("--inverse", "nowhere.mat"), "inverse holds the inverses of the warps of a transform: give that too"),
        (("--coordinates", "nowhere.tsv"), "search an atlas, a grid, coordinates or supervoxels"),
        (("--versus", "FTD"), "target must be one of 'NC', 'AD', got 'FTD'"),
        (("--kernel", "segment"), 'kernel="segment" takes its shape from segments'),
        (("--background", "0", "nowhere.nii"), "nowhere.nii"),
        (("--background", "0", "0"), "several backgrounds must be two or more"),
    ],
    ids=str,
)
def test_what_does_not_fit_ends_in_one_line(explain, options, message):
    status, said, names = explain(*options)
    assert status == 2
    assert said.count("\n") == 1
    assert message in said
    assert names == []
