"""Files that do not belong to a data set are never read as its scans; what stands there instead is named."""

import shutil

import numpy as np
import pandas as pd
import pytest

from glas3d import GlasError
from glas3d.errors import GlasWarning
from glas3d.study import read_cohort
from tests.study.folders import folder, ids, image, people, scan, write_people

OUTSIDE = [
    "sourcedata/sub-02/anat",
    "derivatives/other/sub-02/anat",
    ".git/annex/objects/Gk/sub-02/anat",
    ".heudiconv/sub-02/anat",
    "code/test/sub-02/anat",
    "stimuli/sub-02",
    "phenotype",
    "tmp_dcm2bids/sub-02",
    "old/sub-02/anat",
    "sub-02/derivatives/sub-02/anat",
    "sub-02/anat/derivatives",
    "sub-02/anat/mri",
    "sub-02/sourcedata/anat",
    "sub-02",
    "sub-02_before/anat",
    "subjects/sub-02/ses-1/t1_linear/derivatives",
    "mri",
    ".",
]


@pytest.mark.parametrize("where", OUTSIDE)
def test_a_scan_outside_the_data_set_is_not_read(tmp_path, where):
    root = folder(tmp_path / "data")
    path = scan(root, "sub-02")
    elsewhere = root / where / path.name
    elsewhere.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, elsewhere)
    assert read_cohort(root).problems.empty  # no second scan of the participant
    path.unlink()
    with pytest.raises(GlasError, match=r"got 1 missing \(sub-02[:)]"):
        read_cohort(root)


def test_a_folder_in_a_participant_that_is_not_read_is_named(tmp_path):
    root = folder(tmp_path / "data")
    (root / "sub-02" / "anat").rename(root / "sub-02" / "scans")
    with pytest.raises(GlasError, match=r"1 missing \(sub-02: sub-02/scans holds sub-02_.*, but scans are read"):
        read_cohort(root)


def test_a_data_set_within_the_folder_is_named(tmp_path):
    root = folder(tmp_path / "study" / "rawdata").parent
    with pytest.raises(GlasError, match="has 0 images with sub- in their names; rawdata/sub-01/anat holds sub-01_"):
        read_cohort(root, participants_tsv=root / "rawdata" / "participants.tsv")


def test_sessions_data_types_and_pipelines_are_read(tmp_path):
    """BIDS with and without sessions, CAPS at any depth, and a prefix in CAT12's folder."""
    write_people(tmp_path, people(2))
    image(tmp_path / "sub-01" / "pet" / "sub-01_pet.nii.gz")
    image(tmp_path / "sub-02" / "ses-1" / "pet" / "sub-02_ses-1_pet.nii.gz")
    assert ids(read_cohort(tmp_path, suffix="pet")) == ["sub-01", "sub-02"]
    for name in ("sub-01", "sub-02"):
        deep = tmp_path / "subjects" / name / "ses-1" / "t1" / "spm" / "segmentation" / "normalized_space"
        image(deep / f"{name}_ses-1_space-Ixi549Space_T1w.nii.gz")
        image(tmp_path / "mri" / f"mwp1{name}_acq-flat_T1w.nii")
        image(tmp_path / name / "mri" / f"mwp1{name}_acq-own_T1w.nii")
    assert ids(read_cohort(tmp_path, space="Ixi549Space")) == ["sub-01", "sub-02"]
    for label in ("flat", "own"):
        assert ids(read_cohort(tmp_path, prefix="mwp1", entities={"acq": label})) == ["sub-01", "sub-02"]


def test_a_session_folder_and_another_session_in_the_name_are_a_contradiction(tmp_path):
    root = folder(tmp_path, 2, ("M00", "M12"))
    scan(root, "sub-01", "M12").rename(scan(root, "sub-01", "M00").with_name(scan(root, "sub-01", "M12").name))
    with pytest.warns(GlasWarning, match=r"1 unreadable \(sub-01 ses-M12: sub-01/ses-M00/.*_ses-M12_.*name says"):
        cohort = read_cohort(root, on_error="skip")
    assert cohort.table["session"].tolist() == ["ses-M00", "ses-M00", "ses-M12"]


def test_dicom_files_are_named_with_their_converter(tmp_path):
    root = folder(tmp_path)
    scan(root, "sub-02").unlink()
    (root / "sub-02" / "anat" / "IM-0001").write_bytes(bytes(128) + b"DICM" + bytes(20))
    with pytest.raises(GlasError, match=r"1 missing \(sub-02: sub-02/anat holds DICOM files, which dcm2niix converts"):
        read_cohort(root)
    shutil.rmtree(root / "sub-02")
    for path in root.rglob("*.nii.gz"):
        path.unlink()
    (root / "dicom").mkdir()
    (root / "dicom" / "1.dcm").write_bytes(bytes(128) + b"DICM" + bytes(20))
    with pytest.raises(GlasError, match=r"no scan in .*; dicom holds DICOM files, which dcm2niix converts to NIfTI"):
        read_cohort(root)


def annex_link(path):
    path.symlink_to("../../.git/annex/objects/Gk/wX/MD5E-s400--0f.nii.gz/MD5E-s400--0f.nii.gz")


def annex_pointer(path):
    path.write_text("/annex/objects/MD5E-s400--0f.nii.gz\n")


def lfs_pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 400\n")


def dangling_link(path):
    path.symlink_to("nowhere.nii.gz")


@pytest.mark.parametrize(
    ("put", "message"),
    [
        (annex_link, "is a link of git-annex without its content: fetch it with datalad get"),
        (annex_pointer, "is a pointer of git-annex without its content: fetch it with datalad get"),
        (lfs_pointer, "is a pointer of Git LFS without its content: fetch it with git lfs pull"),
        (dangling_link, "is a link to nowhere.nii.gz, which does not exist"),
    ],
)
def test_a_file_without_its_content_says_how_to_fetch_it(tmp_path, put, message):
    root = folder(tmp_path)
    path = scan(root, "sub-02")
    path.unlink()
    put(path)
    with pytest.raises(GlasError, match=rf"1 unreadable \(sub-02: {path} {message}"):
        read_cohort(root)


def test_links_to_content_are_read(tmp_path):
    root = folder(tmp_path / "data")
    path = scan(root, "sub-02")
    (root / ".git" / "annex" / "objects").mkdir(parents=True)
    content = path.rename(root / ".git" / "annex" / "objects" / "MD5E-s400--0f.nii.gz")
    path.symlink_to(content)
    cohort = read_cohort(root)
    assert cohort.problems.empty
    assert np.isin("sub-02", ids(cohort))
    assert pd.Series(cohort.table["path"]).map(str).str.contains("annex").sum() == 0
