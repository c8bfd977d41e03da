import shutil

import pytest

from glas3d import GlasError
from glas3d.errors import GlasWarning
from glas3d.study import read_cohort
from tests.study.folders import AFFINE, TINY, folder, ids, image, people, scan, write_people


def problems(cohort):
    return list(cohort.problems[["participant_id", "session", "problem"]].itertuples(index=False, name=None))


# groups


def three(root):
    write_people(root, people(6).assign(group=["AD", "NC", "MCI"] * 2))
    for i in range(1, 7):
        image(scan(root, f"sub-0{i}"))
    return root


def test_two_of_three_groups_are_compared(tmp_path):
    root = three(tmp_path)
    cohort = read_cohort(root)
    assert cohort.groups == {"AD": 2, "MCI": 2, "NC": 2}
    assert ids(cohort) == ["sub-01", "sub-02", "sub-04", "sub-05"]
    other = read_cohort(root, case="MCI", control="NC")
    assert (other.case, other.control) == ("MCI", "NC")
    assert ids(other) == ["sub-02", "sub-03", "sub-05", "sub-06"]
    assert ids(read_cohort(root, case="NC", control="MCI")) == ids(other)


def test_a_group_without_participants_is_refused(tmp_path):
    with pytest.raises(GlasError, match="no participant is of group FTD, group has AD 2, MCI 2, NC 2"):
        read_cohort(three(tmp_path), case="FTD")


def test_selected_participants_may_be_of_one_group(tmp_path):
    cohort = read_cohort(folder(tmp_path), participant_label=("01", "03"))
    assert cohort.groups == {"AD": 2}


# problems


def lost(root):
    shutil.rmtree(root / "sub-02")


def twice(root):
    image(scan(root, "sub-02", space="MNI2"))


def damaged(root):
    scan(root, "sub-02").write_bytes(b"not an image")


def dangling(root):
    scan(root, "sub-02").unlink()
    scan(root, "sub-02").symlink_to(root / "annex" / "nothing")


def series(root):
    image(scan(root, "sub-02"), (*TINY, 3))


def misplaced(root):
    scan(root, "sub-02").rename(scan(root, "sub-01").parent / scan(root, "sub-02").name)


def cut_name(root):
    scan(root, "sub-02").rename(scan(root, "sub-02").parent / "sub-02-x_T1w.nii.gz")


def nobody(root):
    write_people(root, people(4).assign(group=["AD", None, "AD", "NC"]))


def stranger(root):
    table = people(4)
    write_people(root, table[table["participant_id"] != "sub-02"])


def elsewhere(root):
    image(scan(root, "sub-02"), (4, 6, 5))


def shifted(root):
    affine = AFFINE.copy()
    affine[0, 3] += 2
    image(scan(root, "sub-02"), TINY, affine)


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (lost, "missing", "1 missing \\(sub-02\\)"),
        (twice, "duplicated", "1 duplicated \\(sub-02: sub-02/anat/.*-MNI2_.* and sub-02/anat/.*-MNI_.*\\)"),
        (damaged, "unreadable", "sub-02: .*sub-02_space-MNI_desc-preproc_T1w.nii.gz is no image"),
        (dangling, "unreadable", "1 unreadable \\(sub-02"),
        (series, "unreadable", "has shape \\(4, 5, 6, 3\\), no 3D volume"),
        (misplaced, "unreadable", "does not lie where its name says"),
        (cut_name, "unreadable", "sub-02-x_T1w.nii.gz does not lie where its name says"),
        (nobody, "no group", "1 no group \\(sub-02\\)"),
        (stranger, "no group", "1 no group \\(sub-02: not in the participants' table\\)"),
        (elsewhere, "grid", "sub-02: scans must share one grid, its is 4 x 6 x 5 of 9 x 10 x 8 mm .* 4 x 5"),
        (shifted, "grid", "from -68 x -100 x -60 and most are .* from -70 x"),
    ],
)  # fmt: skip
def test_problems_end_the_work_or_are_warned_of(tmp_path, spoil, kind, message):
    root = folder(tmp_path)
    spoil(root)
    with pytest.raises(GlasError, match=message) as caught:
        read_cohort(root)
    assert "\n" not in str(caught.value)
    with pytest.warns(GlasWarning, match=f"left out: .*{message}"):
        cohort = read_cohort(root, on_error="skip")
    assert ids(cohort) == ["sub-01", "sub-03", "sub-04"]
    assert problems(cohort) == [("sub-02", "", kind)]
    assert cohort.concerned()["participant_id"].tolist() == ["sub-02"]


def test_grids_may_differ_on_request(tmp_path):
    root = folder(tmp_path)
    elsewhere(root)
    assert len(read_cohort(root, same_grid=False)) == 4


def test_all_problems_are_reported_at_once(tmp_path):
    root = folder(tmp_path, 12)
    for i in range(1, 6):
        shutil.rmtree(root / f"sub-0{i}")
    scan(root, "sub-07").write_bytes(b"x")
    with pytest.raises(GlasError, match=r"got 5 missing \(sub-01, sub-02, sub-03 and 2 more\), 1 unreadable \(sub-07"):
        read_cohort(root)


def test_problems_of_other_groups_do_not_matter(tmp_path):
    root = three(tmp_path)
    scan(root, "sub-03").unlink()
    cohort = read_cohort(root)
    assert len(cohort) == 4
    assert cohort.concerned().empty
    with pytest.raises(GlasError, match="1 missing \\(sub-03\\)"):
        read_cohort(root, case="MCI", control="NC")
    with pytest.warns(GlasWarning, match="1 missing \\(sub-03\\)"):
        other = read_cohort(root, case="MCI", control="NC", on_error="skip")
    assert ids(other) == ["sub-02", "sub-05", "sub-06"]


def test_a_selected_session_may_be_missing(tmp_path):
    root = folder(tmp_path, 2, ("M00", "M12"))
    scan(root, "sub-01", "M12").unlink()
    assert len(read_cohort(root)) == 3
    with pytest.raises(GlasError, match="1 missing \\(sub-01 ses-M12\\)"):
        read_cohort(root, session=("M00", "M12"))


def test_two_files_of_one_session_are_duplicates(tmp_path):
    root = folder(tmp_path, 2, ("M00", "M12"))
    image(scan(root, "sub-01", "M12", space="T1"))
    with pytest.warns(GlasWarning, match="1 duplicated \\(sub-01 ses-M12"):
        cohort = read_cohort(root, on_error="skip")
    assert list(zip(ids(cohort), cohort.table["session"], strict=True)) == [
        ("sub-01", "ses-M00"), ("sub-02", "ses-M00"), ("sub-02", "ses-M12"),
    ]  # fmt: skip


def test_scans_are_left_out_later(tmp_path):
    cohort = read_cohort(folder(tmp_path))
    later = [{"participant_id": "sub-03", "session": "", "problem": "unreadable", "detail": "broken"}]
    assert cohort.without([]) is cohort
    with pytest.raises(GlasError, match="1 unreadable \\(sub-03: broken\\)"):
        cohort.without(later)
    with pytest.warns(GlasWarning, match="sub-03"):
        rest = read_cohort(tmp_path, on_error="skip").without(later)
    assert ids(rest) == ["sub-01", "sub-02", "sub-04"]
    assert problems(rest) == [("sub-03", "", "unreadable")]
    assert rest.problems["group"].tolist() == ["AD"]
