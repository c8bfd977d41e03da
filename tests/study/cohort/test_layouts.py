"""Folders as the tools of the field write them: which scans are selected."""

import json

import pandas as pd
import pytest

from glas3d import GlasError
from glas3d.study import read_cohort
from tests.study.folders import ids, image, people, write_people


def names(cohort):
    return [path.name for path in cohort.table["path"]]


def fmriprep(place):
    """Each T1w in its native space and on the template, with the transforms between them."""
    write_people(place, people(2))
    (place / "dataset_description.json").write_text(json.dumps({"Name": "fMRIPrep", "BIDSVersion": "1.8.0"}))
    for name in ("sub-01", "sub-02"):
        folder = place / name / "anat"
        image(folder / f"{name}_desc-preproc_T1w.nii.gz", (5, 6, 7))
        image(folder / f"{name}_space-MNI152NLin2009cAsym_desc-preproc_T1w.nii.gz")
        image(folder / f"{name}_desc-brain_mask.nii.gz", (5, 6, 7))
        image(folder / f"{name}_space-MNI152NLin2009cAsym_desc-brain_mask.nii.gz")
        (folder / f"{name}_from-T1w_to-MNI152NLin2009cAsym_mode-image_xfm.h5").write_bytes(b"")
    return place


@pytest.mark.parametrize(
    ("space", "end"),
    [
        ("MNI152NLin2009cAsym", "_space-MNI152NLin2009cAsym_desc-preproc_T1w.nii.gz"),
        ("none", "_desc-preproc_T1w.nii.gz"),
    ],
)
def test_fmriprep_on_the_template_and_in_native_space(tmp_path, space, end):
    cohort = read_cohort(fmriprep(tmp_path), space=space)
    assert names(cohort) == [f"sub-01{end}", f"sub-02{end}"]


def test_both_spaces_at_once_are_duplicates(tmp_path):
    with pytest.raises(GlasError, match=r"2 duplicated \(sub-01, sub-02: .* and .*\)"):
        read_cohort(fmriprep(tmp_path))


def test_cat12_in_a_folder_of_derivatives(tmp_path):
    """CAT12 writes ``mri/mwp1sub-01_T1w.nii`` and ``report/`` in the folder of the participant."""
    root = tmp_path / "derivatives" / "CAT12.9"
    write_people(tmp_path, people(2))
    for name in ("sub-01", "sub-02"):
        for kind in ("mwp1", "mwp2", "wm", "p0"):
            image(root / name / "anat" / "mri" / f"{kind}{name}_T1w.nii")
        (root / name / "anat" / "report").mkdir()
        (root / name / "anat" / "report" / f"cat_{name}_T1w.xml").write_text("<x/>")
    for kind in ("mwp1", "wm"):
        assert names(read_cohort(root, prefix=kind)) == [f"{kind}sub-01_T1w.nii", f"{kind}sub-02_T1w.nii"]


def test_cat12_with_bids_names(tmp_path):
    write_people(tmp_path, people(2))
    for name in ("sub-01", "sub-02"):
        for label in ("GM", "WM"):
            path = tmp_path / name / "ses-1" / "anat"
            image(path / f"{name}_ses-1_space-MNI152NLin2009cAsym_label-{label}_probseg.nii.gz")
    cohort = read_cohort(tmp_path, suffix="probseg", entities={"label": "GM"})
    assert all("label-GM" in name for name in names(cohort))
    assert len(cohort) == 2


def caps(place, sessions=("M000", "M012")):
    """ClinicaDL's ``t1_linear``; the participants are described in the BIDS folder the CAPS was made from."""
    for name in ("sub-A1", "sub-A2"):
        for session in sessions:
            stem = f"{name}_ses-{session}_space-MNI152NLin2009cSym_res-1x1x1"
            folder = place / "caps" / "subjects" / name / f"ses-{session}" / "t1_linear"
            image(folder / f"{stem}_T1w.nii.gz")
            (folder / f"{stem}_affine.mat").write_text("1")
    return place / "caps"


def rows(cohort):
    return list(zip(*(cohort.table[key] for key in ("participant_id", "session", "group", "age")), strict=True))


def test_caps_and_the_sessions_of_its_bids_folder(tmp_path):
    """The diagnosis and the age are those of the session; a listed session without a scan is no problem."""
    root, bids = caps(tmp_path), tmp_path / "bids"
    write_people(bids, pd.DataFrame({"participant_id": ["sub-A1", "sub-A2"], "sex": ["F", "M"]}))
    for name, groups in (("sub-A1", ["NC", "AD", "AD"]), ("sub-A2", ["NC", "NC", "NC"])):
        (bids / name).mkdir()
        table = {"session_id": ["ses-M000", "ses-M012", "ses-M024"], "diagnosis": groups, "age": [70, 71, 72]}
        pd.DataFrame(table).to_csv(bids / name / f"{name}_sessions.tsv", sep="\t", index=False)
    chosen = {"participants_tsv": bids / "participants.tsv", "group_column": "diagnosis", "covariates": "age"}
    assert rows(read_cohort(root, **chosen)) == [
        ("sub-A1", "ses-M000", "NC", 70), ("sub-A1", "ses-M012", "AD", 71),
        ("sub-A2", "ses-M000", "NC", 70), ("sub-A2", "ses-M012", "NC", 71),
    ]  # fmt: skip
    assert rows(read_cohort(root, session="M012", **chosen))[0] == ("sub-A1", "ses-M012", "AD", 71)
    with pytest.raises(GlasError, match=r"2 missing \(sub-A1 ses-M024, sub-A2 ses-M024\)"):
        read_cohort(root, session=("M000", "M024"), **chosen)


def test_participants_with_and_without_a_table_of_sessions(tmp_path):
    root = caps(tmp_path, ("M000",))
    write_people(root, pd.DataFrame({"participant_id": ["sub-A1", "sub-A2"], "group": ["AD", "NC"], "age": [60, 61]}))
    (root / "sub-A1").mkdir()
    (root / "sub-A1" / "sub-A1_sessions.tsv").write_text("session_id\tage\nses-M000\t62\n")
    assert rows(read_cohort(root)) == [("sub-A1", "ses-M000", "AD", 62), ("sub-A2", "ses-M000", "NC", 61)]


def test_a_run_is_selected(tmp_path):
    write_people(tmp_path, people(2))
    for name in ("sub-01", "sub-02"):
        for run in ("01", "02"):
            image(tmp_path / name / "anat" / f"{name}_run-{run}_T1w.nii.gz")
    with pytest.raises(
        GlasError,
        match=r"duplicated \(sub-01, sub-02: sub-01/anat/.*run-01_T.* and sub-01/anat/.*run-02",
    ):
        read_cohort(tmp_path)
    for run in ("2", "02"):
        cohort = read_cohort(tmp_path, entities={"run": run})
        assert ids(cohort) == ["sub-01", "sub-02"]
        assert all("run-02" in name for name in names(cohort))
