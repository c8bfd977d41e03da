"""Bad use of the commands: one ``error:`` line, exit status 2, no other output and no file written."""

import re

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from glas3d.imaging.space import mni_grid, template_on
from tests import bundles


@pytest.fixture
def refused(error_line, tmp_path):
    """Return a function that runs a command that must be refused without a change to any file."""

    def files():
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def run(*arguments):
        before = files()
        error = error_line(*arguments)
        assert files() == before
        return error

    return run


@pytest.fixture
def explain(refused, bundle, tmp_path):
    """Return a function that explains a good scan by the tiny model on a grid, with options changed so as to fail."""

    def run(*more, scan=None, **changed):
        if scan is None:
            scan = tmp_path / "good.nii"
            nib.save(bundles.t1(), scan)
        options = {"--model": bundle, "--target": "AD", "--grid": 2, "--out": tmp_path / "out"}
        options |= {f"--{name}": value for name, value in changed.items()}
        arguments = [part for pair in options.items() if pair[1] is not None for part in pair]
        error = refused("explain", scan, *arguments, *more)
        assert not (tmp_path / "out").exists()  # not even an empty folder
        return error

    return run


def saved(values, affine=bundles.GRID.affine, name="scan.nii"):
    """Return a function that saves an image in a folder and returns its path."""

    def make(folder):
        nib.save(nib.Nifti1Image(values, affine), folder / name)
        return folder / name

    return make


def truncated(name):
    """Return a function that saves half of a scan's file."""

    def make(folder):
        nib.save(bundles.t1(), folder / name)
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        return folder / name

    return make


def written(name, content):
    """Return a function that writes a file of the given bytes."""

    def make(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return make


def singular(folder):
    """Save a scan whose affine cannot be inverted."""
    img = nib.Nifti1Image(np.asarray(bundles.t1().dataobj), None)
    img.header.set_sform(np.diag([8.0, 8.0, 0.0, 1.0]), code=1)
    nib.save(img, folder / "scan.nii")
    return folder / "scan.nii"


def folder_itself(folder):
    """Make a folder in path of a scan."""
    (folder / "scan").mkdir()
    return folder / "scan"


full = np.ones(bundles.GRID.shape, dtype=np.float32)
head = np.asarray(bundles.t1().dataobj)
moved = bundles.GRID.affine + np.array([[0, 0, 0, 90.0], [0] * 4, [0] * 4, [0] * 4])
SCANS = {
    "missing": (lambda folder: folder / "no.nii.gz", "no such file: .*no.nii.gz"),
    "folder": (folder_itself, "must be an image file, .*scan is a folder"),
    "truncated": (truncated("scan.nii"), "must be complete, .*scan.nii is truncated or damaged"),
    "truncated gz": (truncated("scan.nii.gz"), "must be complete, .*scan.nii.gz is truncated or damaged"),
    "text": (written("scan.txt", b"a brain"), "must be an image nibabel can read, .*scan.txt is not"),
    "text in nii": (written("scan.nii", b"a brain" * 100), "must be an image nibabel can read, .*scan.nii is not"),
    "empty": (written("scan.nii", b""), "must be an image nibabel can read, .*scan.nii is not"),
    "NaN": (saved(full * np.nan), "must hold finite intensities, .*scan.nii holds none"),
    "zero": (saved(full * 0), "must hold varying intensities, .*scan.nii is 0 everywhere"),
    "constant": (saved(full * 7), "must hold varying intensities, .*scan.nii is 7 everywhere"),
    "many volumes": (saved(np.stack([head] * 3, axis=-1)), r"one 3D volume, .*shape \(24, 32, 24, 3\), 3 volumes"),
    "2D": (saved(head[:, :, 12]), r"one 3D volume, .*shape \(24, 32\)"),
    "singular": (singular, "affine that can be inverted, .*scan.nii has"),
    "elsewhere": (
        saved(head, moved),
        "scan.nii does not look like a brain in MNI space: its .*Give --assume",
    ),
    "upside down": (
        saved(head[:, :, ::-1].copy()),
        "does not look like a brain in MNI space: .*Give --assume",
    ),
}


@pytest.mark.parametrize(("make", "message"), SCANS.values(), ids=SCANS)
def test_a_scan_that_cannot_be_explained_is_refused(explain, tmp_path, make, message):
    folder = tmp_path / "scans"
    folder.mkdir()
    error = explain(scan=make(folder))
    assert re.search(message, error), error


def with_pickle(folder):
    """Write a bundle whose weights are a pickle."""
    bundles.write(folder / "other")
    (folder / "other" / "models" / "model.safetensors").unlink()
    torch.save(bundles.network().state_dict(), folder / "other" / "models" / "model.pt")
    return folder / "other"


def pickle_itself(folder):
    """Write a pickle in path of a bundle."""
    torch.save(bundles.network().state_dict(), folder / "model.pt")
    return folder / "model.pt"


MODELS = {
    "unknown": (lambda folder: "nosuch", "a shipped name (", "got nosuch"),
    "empty folder": (lambda folder: folder, "must hold configs/metadata.json"),
    "pickle": (pickle_itself, "safetensors", "model.pt is a pickle"),
    "bundle with a pickle": (with_pickle, "must keep its weights in models/model.safetensors", "model.pt, a pickle"),
    "no module": (lambda folder: "no.module:make", "no model factory no.module:make"),
    "no predictor": (lambda folder: "tests.bundles:no_predictor", "must return a Predictor", "returned PaperNet"),
}


@pytest.mark.parametrize(("make", "parts"), [(make, parts) for make, *parts in MODELS.values()], ids=MODELS)
def test_a_model_that_cannot_be_loaded_is_refused(explain, tmp_path, make, parts):
    error = explain(model=make(tmp_path))
    assert all(part in error for part in parts), error


OPTIONS = [
    ({"target": "MCI"}, "target must be one of NC (0), AD (1), got 'MCI'"),
    ({"target": "ad"}, "target must be one of NC (0), AD (1), got 'ad'"),
    ({"target": "Ad"}, "got 'Ad'; did you mean AD?"),
    ({"versus": "AD"}, "versus must be another class than the target, got AD for both"),
    ({"versus": "1"}, "versus must be another class than the target, got AD for both"),
    ({"versus": "2"}, "--versus must be a class index from 0 to 1, got 2"),
    ({"activation": "sigmoid"}, "--activation sigmoid is for models that state none, "),
    ({"atlas-space": "MNI"}, "--atlas-space is for an atlas that is a file, got --grid 2"),
    (
        {"device": "gpu"},
        "another device of torch, got 'gpu'; for a GPU give cuda",
    ),
    ({"model": "no/model"}, "no such file or folder: no/model"),
    ({"atlas": "no/atlas.nii.gz", "grid": None}, "no such file: no/atlas.nii.gz"),
    ({"background": "grey"}, "background must be auto, matched, reference, blur, a number or an existing image"),
    ({"target": "2"}, "--target must be a class index from 0 to 1, got 2"),
    ({"target": "-1"}, "target must be one of NC (0), AD (1), got '-1'"),
    ({"target": ""}, "target must be one of NC (0), AD (1), got ''"),
    ({"target": "²"}, "target must be one of NC (0), AD (1), got '²'"),
    ({"sigma-light": 0}, "--sigma-light must be greater than 0, got 0"),
    ({"sigma-light": -3}, "--sigma-light must be greater than 0, got -3"),
    ({"sigma-light": "nan"}, "--sigma-light must be greater than 0, got nan"),
    ({"sigma-light": "wide"}, "--sigma-light"),
    ({"sigma-shadow": 0}, "--sigma-shadow must be greater than 0, got 0"),
    ({"sigma-spatial": "-inf"}, "--sigma-spatial must be greater than 0, got -inf"),
    ({"gamma": -1}, "gamma must be 0 or a positive number, got -1"),
    ({"grid": 0}, "--grid must have at least 1 cell on each axis, got 0"),
    ({"grid": -2}, "--grid must have at least 1 cell on each axis, got -2"),
    ({"grid": 25}, "--grid must have no more cells than voxels, got 25 on a volume of (24, 32, 24)"),
    ({"grid": 10**6}, "--grid must have no more cells than voxels, got 1000000 on"),
    ({"grid": "many"}, "--grid"),
    ({"grid": 2.5}, "--grid must have a whole number of cells on each axis, got "),
    ({"grid": "nan"}, "--grid must have a whole number of cells on each axis, got "),
    ({"grid": "inf"}, "--grid must have a whole number of cells on each axis, got "),
    ({"atlas": "nosuch", "grid": None}, "'nosuch' is none of the shipped atlases; there are: AAL"),
    ({"unit": "inch"}, "--unit"),
    ({"kernel": "box"}, "--kernel"),
    ({"fusion": "both"}, "--fusion"),
    ({"point": "middle"}, "--point"),
    ({"assume-space": "Talairach"}, "--assume-space"),
    ({"batch-size": 0}, "--batch-size must be a whole number of at least 1, got 0"),
    ({"engine": "fast"}, "engine must be one of auto, eager"),
    ({"engine": "cudagraphs"}, "the engine cudagraphs runs on cuda, the model is on cpu"),
    ({"background": "no.nii"}, "no such file: no.nii"),
    ({"background": "nan"}, "background must hold finite numbers"),
    ({"model": None}, "--model"),
    ({"target": None}, "--target"),
    ({"out": None}, "--out"),
    ({"colour": "red"}, "--colour"),
]


@pytest.mark.parametrize(("changed", "message"), OPTIONS, ids=str)
def test_an_option_outside_its_range_is_refused(explain, changed, message):
    assert message in explain(**changed)


def test_a_grid_of_two_axes_is_refused_for_a_scan(explain):
    assert "--grid must have one number or one for each of the volume's 3 axes, got 2 3" in explain(
        "--grid", 2, 3, grid=None
    )


def test_a_grid_and_an_atlas_together_are_refused(explain):
    error = explain("--atlas", "AAL")
    assert "search an atlas, a grid, coordinates or supervoxels, got --atlas AAL and --grid 2" in error


@pytest.mark.parametrize("below", [False, True])
def test_a_file_in_place_of_the_folder_of_results_is_refused(refused, bundle, tmp_path, below):
    nib.save(bundles.t1(), tmp_path / "good.nii")
    (tmp_path / "out").write_text("mine")
    out = tmp_path / "out" / "deeper" if below else tmp_path / "out"
    error = refused("explain", tmp_path / "good.nii", "--model", bundle, "--target", "AD", "--grid", 2, "--out", out)
    assert "results need a folder, " in error
    assert error.endswith(" is a file")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("damage", ["fractions", "no table", "columns", "unnamed"])
def test_a_damaged_atlas_is_refused(explain, tmp_path, damage):
    labels = np.round(np.clip(head, 0, 3)) + (0.5 if damage == "fractions" else 0)
    nib.save(nib.Nifti1Image(labels.astype(np.float32), bundles.GRID.affine), tmp_path / "mine_dseg.nii.gz")
    table = {"columns": "label\tname\n1\ta\n", "unnamed": "index\tname\n1\ta\n"}.get(damage, "index\tname\n")
    if damage != "no table":
        (tmp_path / "mine_dseg.tsv").write_text(table)
    error = explain(atlas=tmp_path / "mine_dseg.nii.gz", grid=None)
    expected = {
        "fractions": "must hold whole numbers",
        "no table": "an atlas needs a look-up table",
        "columns": "columns index and name",
    }
    assert expected.get(damage, "these have none: 2, 3") in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain"], "--model"),
        (["explain", "--model", "m", "--target", "1", "--out", "o"], "SCAN is missing"),
        (["fly"], 'Unknown command "fly"'),
        (["atlas", "show"], "missing: NAME"),
        (["atlas", "show", "nosuch"], "none of the shipped atlases; there are: AAL"),
        (["atlas", "list", "more"], "more"),
        (["--nosuch"], "--nosuch"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_a_command_with_wrong_arguments_is_refused(refused, arguments, message):
    assert message in refused(*arguments)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"participants": 0}, "participants must be at least 1, got 0"),
        ({"participants": "few"}, "--participants"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"resolution": 0}, "resolution must be from 0.5 to 16 mm, got 0"),
        ({"resolution": "nan"}, "resolution must be from 0.5 to 16 mm, got nan"),
        ({"noise": -1}, "noise must be 0 or more, got -1"),
        ({"bias": "inf"}, "bias must be 0 or more, got inf"),
    ],
    ids=str,
)
def test_a_simulation_outside_its_range_is_refused(refused, tmp_path, changed, message):
    options = [part for name, value in changed.items() for part in (f"--{name}", value)]
    assert message in refused("simulate", tmp_path / "cohort", *options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("severity", [(0.7, 0.3), (0.3,), (-1, 0.5)], ids=str)
def test_a_severity_outside_its_range_is_refused(refused, tmp_path, severity):
    assert "severity" in refused("simulate", tmp_path / "cohort", "--severity", *severity)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["simulate"], ["demo", "--out"]], ids=" ".join)
@pytest.mark.parametrize(("kind", "message"), [("file", "is a file"), ("folder", "has content")])
def test_a_folder_that_holds_something_else_is_refused(refused, tmp_path, command, kind, message):
    path = tmp_path / "taken"
    if kind == "folder":
        path.mkdir()
    (path / "thesis" if kind == "folder" else path).write_text("years of work")
    assert f"must be new or empty, {path} {message}" in refused(*command, path)


@pytest.mark.parametrize("participants", [0, 1, -4])
def test_a_demo_of_too_few_participants_is_refused(refused, tmp_path, participants):
    error = refused("demo", "--out", tmp_path / "demo", "--participants", participants)
    assert f"needs at least 2 participants, one of them AD, got {participants}" in error
    assert list(tmp_path.iterdir()) == []


def test_a_head_with_its_skull_is_refused_before_the_model_is_evaluated(error_line, tmp_path):
    grid = mni_grid(4)
    brain = template_on(4)
    distance = distance_transform_edt(brain < 0.1, sampling=grid.spacing)
    nib.save(nib.Nifti1Image(np.where((distance > 13) & (distance < 20), 0.9, brain), grid.affine), tmp_path / "a.nii")
    error = error_line(
        "explain", tmp_path / "a.nii", "--model", "adnc-simulated", "--target", "AD", "--out", tmp_path / "out"
    )
    assert "a.nii holds more than a brain" in error
    assert error.endswith(
        "wants a brain without skull: give its mask as --brain-mask, or --brain-mask auto for deepbet's"
    )
    assert not (tmp_path / "out").exists()
