"""No path of this machine, no name of its user or host, and no column that was not named reaches any output."""

import gzip
import json
import shutil
import socket

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from glas3d.explain.dataset import describe_dataset
from glas3d.imaging.spatial_transform import Affine, load_transform
from glas3d.study.derivatives import FAILED, write_failed
from tests.study import studies

USER, HOST, PERSON = "alicewonder", "scanhost77", "Meier-Lehmann"
pytestmark = pytest.mark.filterwarnings("ignore:the model does not predict")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return a folder whose path holds the user's name, on a machine whose name is known."""
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, USER)
    for name in ("HOSTNAME", "COMPUTERNAME"):
        monkeypatch.setenv(name, HOST)
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)
    folder = tmp_path / "home" / USER
    folder.mkdir(parents=True)
    return folder


def traces(out, *texts):
    """Return the files that hold one of the texts, inflated where they are gzipped."""
    found = []
    for path in sorted(out.rglob("*")):
        if path.is_file():
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            found += [(path.name, text) for text in texts if text.encode() in content or text in path.name]
    return found


def test_outputs_of_a_study_say_nothing_of_its_user(home, few_path, run_command, tmp_path):
    data = studies.bids(home / f"{PERSON}, Jo: 'raw'; new" / "data", 8)
    table = pd.read_csv(data / "participants.tsv", sep="\t")
    table.assign(surname=PERSON, birth="1943-02-01").to_csv(data / "participants.tsv", sep="\t", index=False)
    models = studies.folds(home / "models", studies.cohort(data))
    atlas = home / "own.nii.gz"
    shutil.copy(few_path, atlas)
    shutil.copy(few_path.with_name(few_path.name.replace(".nii.gz", ".tsv")), home / "own.tsv")
    mask = nib.load(next(data.rglob("*.nii.gz")))
    nib.save(nib.Nifti1Image((mask.get_fdata() > 0).astype("uint8"), mask.affine), home / "mask.nii.gz")
    nib.save(mask, home / "background.nii.gz")
    (next(data.glob("sub-05/**/*.nii.gz"))).write_bytes(b"damaged")
    out = tmp_path / "out"
    words = ("--atlas", atlas, "--mask", home / "mask.nii.gz", "--background", home / "background.nii.gz")
    words += ("--assume-space", "MNI", "--on-error", "skip", "--any-grid")
    status, _, errors = run_command("cohort", data, out, "participant", "--models", models, *words)
    assert status == 2, "one scan is damaged"
    assert "sub-05" in errors
    shutil.rmtree(home / "models")
    atlas.unlink()
    status, _, errors = run_command(
        "cohort", data, out, "group", "--n-perm", 19, "--n-boot", 20, "--on-missing", "skip", "--on-error", "skip"
    )
    assert status == 0, errors
    assert (out / "participants_failed.tsv").is_file()
    assert len(list(out.rglob("*"))) > 60
    assert traces(out, USER, HOST, str(tmp_path), PERSON, "surname", "1943-02-01") == []


def test_outputs_of_one_scan_say_nothing_of_its_user(home, bundle, scan, run_command, tmp_path):
    model, own = shutil.copytree(bundle, home / "model"), home / "sub-07_T1w.nii.gz"
    img = nib.load(scan)
    img.header["descrip"] = b"left by another program"
    nib.save(img, own)
    shutil.copy(own, home / "background.nii.gz")
    options = ("--model", model, "--target", "AD", "--grid", 2, "--assume-space", "MNI")
    out = tmp_path / "out"
    more = ("--background", home / "background.nii.gz")
    assert run_command("explain", own, *options, *more, "--out", out)[0] == 0
    assert run_command("compare", own, *options, "--methods", "glas", "--out", out / "compared")[0] == 0
    assert traces(out / "compared", USER, HOST, str(tmp_path)) == []
    assert traces(out, USER, HOST, str(tmp_path)) == []


def test_a_path_to_the_source_does_not_lead_through_the_folder_of_its_user(home, tmp_path):
    """Elsewhere it is relative, as BIDS has it."""
    (home / "data").mkdir()
    (tmp_path / "other").mkdir()
    for name, url in (("out", "data"), (f"home/{USER}/out", "../data")):
        (tmp_path / name).mkdir()
        describe_dataset(tmp_path / name, [home / "data" / "sub-01_T1w.nii.gz"])
        assert json.loads((tmp_path / name / "dataset_description.json").read_text())["SourceDatasets"] == [
            {"URL": url}
        ]


def test_a_saved_transform_names_files_without_their_folders(home, tmp_path):
    for name in ("first.txt", "second.txt"):
        np.savetxt(home / name, np.eye(4))
    both = load_transform([home / "first.txt", home / "second.txt"])
    own = Affine(np.eye(4), str(home / "own.txt"))
    for transform, names in ((both, "first.txt, second.txt"), (own, "own.txt")):
        transform.save(tmp_path / names)
        assert traces(tmp_path / names, USER, str(tmp_path)) == []
        assert load_transform(tmp_path / names).record()["name"] == transform.record()["name"] == names


@pytest.mark.parametrize(
    "path", ["/{}/x.nii", "C:\\Users\\{}\\x.nii", "//server/{}/x.nii", "\\\\server\\{}\\x.nii", "file:///home/{}/x.nii"]
)
def test_errors_are_listed_without_the_folders_of_absolute_paths(tmp_path, path):
    error = f"a scan must be whole, {path.format(USER)} is truncated: 1/3 of it is there"
    write_failed(tmp_path, pd.DataFrame([["sub-01", "", error]], columns=["participant_id", "session", "error"]), set())
    assert traces(tmp_path, USER) == []
    assert "a scan must be whole, x.nii is truncated: 1/3 of it is there" in (tmp_path / FAILED).read_text()


def test_a_source_that_is_far_away_is_named_and_not_located(monkeypatch, tmp_path):
    from glas3d.explain import dataset

    monkeypatch.setattr(dataset, "_TOP_LEVEL", len(tmp_path.parts))
    (tmp_path / "home" / USER / "data").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    describe_dataset(tmp_path / "out", [tmp_path / "home" / USER / "data" / "sub-01_T1w.nii.gz"])
    assert '"URL": "data"' in (tmp_path / "out" / "dataset_description.json").read_text()
    near = tmp_path / "out" / "data"
    near.mkdir()
    describe_dataset(tmp_path / "out", [near / "sub-01_T1w.nii.gz"])
    assert traces(tmp_path / "out", USER) == []
