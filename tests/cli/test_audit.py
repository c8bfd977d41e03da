"""``glas3d audit``: files, exit status, and what it refuses before anything is written."""

import json

import nibabel as nib
import pytest

from tests.evaluate.audits import heads


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """Return a function from a kind to the path of its scan; ``tests.cli.test_audit:<kind>`` is its model."""
    folder = tmp_path_factory.mktemp("heads")

    def path_of(kind):
        path = folder / f"sub-{kind}_T1w.nii.gz"
        if not path.exists():
            nib.save(heads.img(heads.made(kind)[0]), path)
        return path

    return path_of


def regions():
    return heads.made("regions")[2]


def blob():
    return heads.made("blob")[2]


def arguments(head, kind, out, *more):
    model = ("--model", f"tests.cli.test_audit:{kind}", "--target", "AD", "--assume-space", "MNI")
    return ("audit", head(kind), *model, "--out", out, "--checks", "accounted", *more)


def test_a_model_that_passes(run_command, head, tmp_path):
    status, output, errors = run_command(*arguments(head, "regions", tmp_path / "out"))
    assert (status, errors) == (0, "")
    title, header, row, *_ = output.splitlines()
    assert title == "sub-regions_T1w.nii.gz: audits"
    assert header.split() == ["check", "verdict", "statement"]
    assert row.split()[:2] == ["accounted", "pass"]
    assert max(map(len, output.splitlines()[:-1])) <= 80
    name = "sub-regions_T1w_seg-AAL_desc-accounted_audit.json"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {name, "dataset_description.json", ".bidsignore"}
    content = json.loads((tmp_path / "out" / name).read_text())
    assert " ".join(output.split()).count(content["statement"][:20]) == 1
    # again with another model of the same scan
    again = list(arguments(head, "regions", tmp_path / "out"))
    again[3] = "tests.cli.test_audit:blob"
    status, output, errors = run_command(*again)
    assert (status, output) == (2, "")
    assert "made with another" in errors


def test_an_audit_that_fails_ends_with_status_1(run_command, head, tmp_path):
    status, output, errors = run_command(*arguments(head, "blob", tmp_path / "out", "--json"))
    assert (status, errors) == (1, "")
    (audit,) = json.loads(output)["audits"]
    assert audit["verdict"] == "fail"
    assert "strongest evidence outside the brain, " in audit["statement"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "SCAN or OUT is missing"),
        (("SCAN",), "to audit a scan, give --model, --target, --out"),
        (
            ("FOLDER",),
            "has no results of glas3d explain (no table of regions with a map *_stat-saliency_statmap.nii.gz)",
        ),
        (("SCAN", "--model", "none", "--target", "AD", "--out", "OUT", "--checks", "sane"), "there is no check 'sane'"),
        (("SCAN", "--fusion", "light"), "unknown option: --fusion"),
    ],
)
def test_what_is_refused(error_line, head, tmp_path, given, message):
    places = {"SCAN": head("regions"), "FOLDER": tmp_path, "OUT": tmp_path / "out"}
    assert message in error_line("audit", *(places.get(each, each) for each in given))
    assert not (tmp_path / "out").exists()


def test_a_study(run_command, error_line, bids_dir, models, few_path, tmp_path, monkeypatch):
    study = tmp_path / "study"
    command = ("cohort", bids_dir, study, "participant", "--models", models, "--atlas", few_path)
    assert run_command(*command, "--preset", "evidence", "--assume-space", "MNI", "--atlas-space", "MNI")[0] == 0
    status, output, errors = run_command("audit", study, "--checks", "accounted")
    assert errors == ""
    (path,) = (study / "group").iterdir()
    assert path.name == "study_seg-few_desc-accounted_audit.json"
    content = json.loads(path.read_text())
    assert content["verdict"] in output.split()
    assert status == (content["verdict"] == "fail")
    assert run_command("audit", study, "--checks", "retrain", "leakage", "volume", "null", "--top", 3)[0] in (0, 1)
    verdicts = {path.name: json.loads(path.read_text()) for path in (study / "group").iterdir()}
    leakage = verdicts["study_seg-few_desc-leakage_audit.json"]
    assert (leakage["verdict"], leakage["statement"]) == (
        "pass",
        "Out of fold: no model of 6 scans was trained on the participant.",
    )
    assert verdicts["study_seg-few_desc-retrain_audit.json"]["numbers"][0]["value"] == 2  # folds
    (study / "study.json").rename(tmp_path / "study.json")  # its records tell that it is a study
    assert run_command("audit", study, "--checks", "accounted")[:2] == (status, output)
    (tmp_path / "study.json").rename(study / "study.json")
    assert "--top must be a whole number" in error_line("audit", study, "--top", 0)
    assert len(content["Input"]["keys"]) == 6
    assert "audited as they are, got --model: give the scan in place of" in error_line(
        "audit", study, "--model", "adnc-simulated"
    )
    assert "give the folder of one study" in error_line("audit", study, study)
    assert "the check shortcut audits a scan" in error_line("audit", study, "--checks", "shortcut")
    agrees = ("audit", study, "--checks", "literature", "--surrogates", 99)
    assert "name a map from the literature" in " ".join(run_command(*agrees)[1].split())
    literature = tmp_path / "few.nii.gz"
    nib.save(nib.Nifti1Image(nib.load(few_path).get_fdata().astype("float32"), nib.load(few_path).affine), literature)
    agrees += ("--literature", literature, "--overwrite")
    assert "the study has no group level" in " ".join(run_command(*agrees)[1].split())
    audits = {path: path.read_bytes() for path in (study / "group").iterdir()}
    monkeypatch.chdir(tmp_path)
    status, _, errors = run_command("cohort", bids_dir, study.name, "group", "--no-report")
    assert status == 0, errors
    assert {path: path.read_bytes() for path in (study / "group").glob("*_audit.json")} == audits
    assert run_command("cohort", bids_dir, study, "group", "--no-report")[0] == 0
    assert set(audits) <= {*(study / "group").iterdir()}
    assert run_command(*agrees)[0] == 0
    content = json.loads((study / "group" / "study_seg-few_desc-literature_audit.json").read_text())
    assert content["verdict"] in ("pass", "warn")
    assert content["Settings"]["literature"]["name"] == "few.nii.gz"
    assert {number["name"] for number in content["numbers"]} >= {"ap_voxels", "ap_voxels_p", "symmetry"}
    assert "no such file: none.nii" in error_line("audit", study, "--literature", "none.nii")
