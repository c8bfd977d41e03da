import json
import pickle

import numpy as np
import pandas as pd
import pytest

from glas3d import GlasError
from glas3d.study import Selection, read_cohort
from tests.study.folders import brain, folder, ids, image, people, scan, write_people


def names(cohort):
    return [path.name for path in cohort.table["path"]]


# folders of data sets


def test_a_derivative_folder(tmp_path):
    cohort = read_cohort(folder(tmp_path), space="MNI", desc="preproc")
    assert list(cohort.everyone)[:4] == ["participant_id", "session", "path", "group"]
    assert ids(cohort) == ["sub-01", "sub-02", "sub-03", "sub-04"]
    assert cohort.table["group"].tolist() == ["AD", "NC", "AD", "NC"]
    assert cohort.table["age"].tolist() == [60, 60.5, 61, 61.5]
    assert cohort.table["session"].tolist() == [""] * 4
    assert cohort.table["path"].tolist() == [scan(tmp_path, f"sub-0{i}") for i in range(1, 5)]
    assert len(cohort) == 4
    assert cohort.problems.empty


def test_a_raw_folder_is_searched_without_its_derivatives(tmp_path):
    write_people(tmp_path, people(2))
    for name in ("sub-01", "sub-02"):
        image(tmp_path / name / "anat" / f"{name}_T1w.nii.gz")
        image(tmp_path / name / "anat" / f"{name}_T2w.nii.gz")
        image(tmp_path / "derivatives" / "other" / name / "anat" / f"{name}_T1w.nii.gz")
    assert names(read_cohort(tmp_path)) == ["sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz"]
    assert names(read_cohort(tmp_path, suffix="T2w")) == ["sub-01_T2w.nii.gz", "sub-02_T2w.nii.gz"]


def fmriprep(place, space="MNI152NLin2009cAsym"):
    write_people(place, people(2))
    (place / "dataset_description.json").write_text(json.dumps({"Name": "raw", "BIDSVersion": "1.8.0"}))
    root = place / "derivatives" / "fmriprep"
    for name in ("sub-01", "sub-02"):
        stem = root / name / "anat" / f"{name}_acq-mprage"
        for end in (
            "desc-preproc_T1w",
            f"space-{space}_res-2_desc-preproc_T1w",
            f"space-{space}_res-2_label-GM_probseg",
        ):
            image(f"{stem}_{end}.nii.gz")
        image(f"{stem}_space-{space}_res-2_desc-brain_mask.nii.gz", (7, 5, 6))
    return root


@pytest.mark.parametrize(
    ("chosen", "end"),
    [
        ({"space": "MNI152NLin2009cAsym"}, "res-2_desc-preproc_T1w.nii.gz"),
        ({"res": "2"}, "res-2_desc-preproc_T1w.nii.gz"),
        ({"suffix": "probseg", "entities": {"label": "GM"}}, "label-GM_probseg.nii.gz"),
        ({"suffix": "mask", "desc": "brain"}, "desc-brain_mask.nii.gz"),
    ],
    ids=str,
)
def test_fmriprep_below_its_raw_folder(tmp_path, chosen, end):
    """The participants' table is the raw folder's."""
    cohort = read_cohort(fmriprep(tmp_path), **chosen)
    assert len(cohort) == 2
    assert all(name.endswith(end) for name in names(cohort))


def test_a_prefix_of_cat12(tmp_path):
    write_people(tmp_path, people(2))
    for name in ("sub-01", "sub-02"):
        for kind in ("mwp1", "mwp2"):
            image(tmp_path / name / "ses-1" / "anat" / f"{kind}{name}_ses-1_T1w.nii")
        image(tmp_path / name / "ses-1" / "anat" / f"{name}_ses-1_T1w.nii")
    cohort = read_cohort(tmp_path, prefix="mwp1")
    assert names(cohort) == ["mwp1sub-01_ses-1_T1w.nii", "mwp1sub-02_ses-1_T1w.nii"]
    assert ids(cohort) == ["sub-01", "sub-02"]


def test_caps_of_clinicadl_with_a_table_of_sessions(tmp_path):
    table = tmp_path / "labels.tsv"
    rows = [("sub-A1", "ses-M000", "AD"), ("sub-A1", "ses-M012", "AD"), ("sub-A2", "ses-M000", "NC"),
            ("sub-A2", "ses-M012", "AD")]  # fmt: skip
    pd.DataFrame(rows, columns=["participant_id", "session_id", "diagnosis"]).to_csv(table, sep="\t", index=False)
    space = "space-MNI152NLin2009cSym_desc-Crop_res-1x1x1"
    for name, session, _ in rows:
        place = tmp_path / "caps" / "subjects" / name / session / "t1_linear"
        image(place / f"{name}_{session}_{space}_T1w.nii.gz")
        (place / f"{name}_{session}_space-MNI152NLin2009cSym_res-1x1x1_affine.mat").write_text("1")
        image(place.parent / "t1" / "spm" / f"{name}_{session}_T1w_segm-graymatter_probability.nii.gz", (9, 5, 6))
    chosen = {"participants_tsv": table, "group_column": "diagnosis"}
    cohort = read_cohort(tmp_path / "caps", **chosen)
    found = list(zip(*(cohort.table[key] for key in ("participant_id", "session", "group")), strict=True))
    assert found == rows
    one = read_cohort(tmp_path / "caps", session="M000", **chosen)
    assert one.table["group"].tolist() == ["AD", "NC"]
    assert one.problems.empty


@pytest.mark.parametrize(("session", "count"), [((), 4), ("M00", 2), (("ses-M00", "M12"), 4)], ids=str)
def test_sessions(tmp_path, session, count):
    cohort = read_cohort(folder(tmp_path, 2, ("M00", "M12")), session=session)
    assert len(cohort) == count
    assert set(cohort.table["session"]) <= {"ses-M00", "ses-M12"}


def test_chosen_participants(tmp_path):
    place = folder(tmp_path)
    assert ids(read_cohort(place, participant_label=("03", "sub-01"))) == ["sub-01", "sub-03"]
    with pytest.raises(GlasError, match=f"no such participant in {tmp_path}: sub-09, sub-10"):
        read_cohort(place, participant_label=("01", "09", "10"))


# the table of participants


def test_other_columns_and_names(tmp_path):
    table = people(2).rename(columns={"group": "dx"}).assign(group=["x", "y"], session=["one", "n/a"], empty=None)
    place = folder(tmp_path, 2)
    write_people(place, table)
    cohort = read_cohort(place, group_column="dx", covariates=("age", "empty"))
    assert cohort.table["group"].tolist() == ["AD", "NC"]
    assert cohort.table["group_"].tolist() == ["x", "y"]
    assert cohort.table["session_"].isna().tolist() == [False, True]
    assert cohort.table["age"].dtype == float


def test_ids_may_come_without_sub(tmp_path):
    place = folder(tmp_path, 2)
    write_people(place, people(2).assign(participant_id=["01", "02"]))
    assert ids(read_cohort(place)) == ["sub-01", "sub-02"]


def test_a_folder_without_a_table(tmp_path):
    place = folder(tmp_path, 2)
    (place / "participants.tsv").unlink()
    with pytest.raises(GlasError, match=f"{place} has no participants.tsv: give its path"):
        read_cohort(place)


# folders that are refused


def test_no_scan_matches(tmp_path):
    place = folder(tmp_path)
    with pytest.raises(
        GlasError, match=r"no scan in .* has suffix T1w space Talairach session M00, it has 4 images .* sub-01_"
    ):
        read_cohort(place, space="Talairach", session="M00")


@pytest.mark.parametrize(("kind", "message"), [("file", "is a file"), ("nothing", "does not exist")])
def test_the_data_set_must_be_a_folder(tmp_path, kind, message):
    place = tmp_path / "x"
    if kind == "file":
        place.write_text("")
    with pytest.raises(GlasError, match=f"must be a folder, {place} {message}"):
        read_cohort(place)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "must be JSON in UTF-8, {} is not: "),
        (b'{"Name": "Universit\xe4t"}', "must be JSON in UTF-8, {} is not: "),
        (b"null", "must be a JSON object, {} holds null"),
        (b"[1]", "must be a JSON object, {} holds a list"),
        (b'{"BIDSVersion": ["1.8"]}', r"BIDSVersion must be a text, {} has \[.1.8.\]"),
    ],
)
def test_a_damaged_description_is_refused(tmp_path, content, message):
    place = folder(tmp_path, 2)
    path = place / "dataset_description.json"
    path.write_bytes(content)
    with pytest.raises(GlasError, match=message.format(path)):
        read_cohort(place)


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was loaded",))


def test_a_large_folder_is_read_in_parts(tmp_path, monkeypatch):
    """Files are read some at a time; those of the data set's own derivatives are not read."""
    place = folder(tmp_path / "in", 6, sessions=("M00", "M12"))
    folder(place / "derivatives" / "other", 2)
    whole = read_cohort(place)
    assert len(whole) == 12
    for at_once in (1, 5):
        monkeypatch.setattr("glas3d.study.cohort.scan_files.FILES_AT_ONCE", at_once)
        pd.testing.assert_frame_equal(read_cohort(place).everyone, whole.everyone)


def test_a_pickle_in_the_folder_is_not_opened(tmp_path):
    place = folder(tmp_path, 2)
    (place / ".ancpbids-dataset.pickle").write_bytes(pickle.dumps(Trap()))
    assert len(read_cohort(place)) == 2


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"session": "../M00"}, "session must be letters and digits, got '../M00'"),
        ({"participant_label": ("01", "a b")}, "participant_label must be letters and digits, got 'a b'"),
        ({"case": "NC"}, "two groups, both are NC"),
        ({"on_error": "ignore"}, "on_error must be"),
        ({"entities": ("run",)}, "entities must be name=value, each name once, got 'run'"),
    ],
    ids=str,
)
def test_impossible_options_are_refused(bad, message):
    with pytest.raises(GlasError, match=message):
        Selection(**bad)


def test_entities_may_be_texts():
    assert Selection(entities=("label=GM", "run=1")).labels == {"label": "GM", "run": "1"}
    with pytest.raises(TypeError, match="unexpected keyword argument 'sufix'; did you mean 'suffix'"):
        read_cohort("anywhere", sufix="pet")


def test_ancpbids_is_needed(tmp_path, monkeypatch):
    import sys

    place = folder(tmp_path, 2)
    monkeypatch.setitem(sys.modules, "ancpbids", None)
    with pytest.raises(GlasError, match=r'pip install "glas3d\[study\]"'):
        read_cohort(place)


def test_simulated_brains_differ():
    assert np.ptp(brain("AD", 1)) > 100
    assert not np.array_equal(brain("AD", 1), brain("NC", 1))


def test_a_selection_in_place_of_keywords(tmp_path):
    source = folder(tmp_path)
    by_object = read_cohort(source, Selection(space="MNI", desc="preproc", participant_label=("01", "02")))
    by_keywords = read_cohort(source, space="MNI", desc="preproc", participant_label=("01", "02"))
    pd.testing.assert_frame_equal(by_object.everyone, by_keywords.everyone)
    with pytest.raises(GlasError, match="a selection or its fields as keywords, got both: case"):
        read_cohort(source, Selection(), case="AD")
