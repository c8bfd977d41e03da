import shutil

import pytest

from glas3d import GlasError
from glas3d.errors import GlasWarning
from glas3d.study.cohort.bids import Selection, read_cohort
from tests.study.folders import AFFINE, TINY, folder, ids, image, people, scan, write_people


def skipping(**settings):
    return Selection(on_error="skip", **settings)


def problems(cohort):
    found = cohort.problems
    return list(zip(found["participant_id"], found["session"], found["problem"], strict=True))


# groups


def three(place):
    write_people(place, people(6).assign(group=["AD", "NC", "MCI"] * 2))
    for i in range(1, 7):
        image(scan(place, f"sub-0{i}"))
    return place


def test_three_groups_by_pairs(tmp_path):
    cohort = read_cohort(three(tmp_path))
    assert cohort.groups == {"AD": 2, "MCI": 2, "NC": 2}
    assert ids(cohort) == ["sub-01", "sub-02", "sub-04", "sub-05"]
    other = cohort.pair("MCI", "NC")
    assert (other.case, other.control) == ("MCI", "NC")
    assert ids(other) == ["sub-02", "sub-03", "sub-05", "sub-06"]
    assert ids(cohort.pair("NC", "MCI")) == ids(other)
    assert cohort.pairs() == [("AD", "MCI"), ("AD", "NC"), ("MCI", "NC")]
    for case, control in cohort.pairs():
        assert len(cohort.pair(case, control)) == 4


def test_groups_that_are_none(tmp_path):
    place = three(tmp_path)
    with pytest.raises(GlasError, match="no participant is of group FTD, group has AD 2, MCI 2, NC 2"):
        read_cohort(place, Selection(case="FTD"))
    cohort = read_cohort(place)
    with pytest.raises(GlasError, match=r"no participant with a scan is of group FTD, .* has AD 2, MCI 2, NC 2"):
        cohort.pair("FTD", "NC")
    with pytest.raises(GlasError, match="case and control must be two groups, both are NC"):
        cohort.pair("NC", "NC")


def test_one_group_alone_may_be_asked_for_by_participants(tmp_path):
    cohort = read_cohort(folder(tmp_path), Selection(participant_label=("01", "03")))
    assert cohort.groups == {"AD": 2}


# what is wrong


def lost(place):
    shutil.rmtree(place / "sub-02")


def twice(place):
    image(scan(place, "sub-02", space="MNI2"))


def damaged(place):
    scan(place, "sub-02").write_bytes(b"not an image")


def dangling(place):
    scan(place, "sub-02").unlink()
    scan(place, "sub-02").symlink_to(place / "annex" / "nothing")


def series(place):
    image(scan(place, "sub-02"), (*TINY, 3))


def misplaced(place):
    scan(place, "sub-02").rename(scan(place, "sub-01").parent / scan(place, "sub-02").name)


def cut_name(place):
    scan(place, "sub-02").rename(scan(place, "sub-02").parent / "sub-02-x_T1w.nii.gz")


def nobody(place):
    write_people(place, people(4).assign(group=["AD", None, "AD", "NC"]))


def stranger(place):
    table = people(4)
    write_people(place, table[table["participant_id"] != "sub-02"])


def elsewhere(place):
    image(scan(place, "sub-02"), (4, 6, 5))


def shifted(place):
    affine = AFFINE.copy()
    affine[0, 3] += 2
    image(scan(place, "sub-02"), TINY, affine)


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (lost, "missing", "1 missing \\(sub-02\\)"),
        (twice, "duplicated", "1 duplicated \\(sub-02: sub-02_space-MNI2_.* and sub-02_space-MNI_.*\\)"),
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
def test_problems_are_told_or_skipped_but_never_silent(tmp_path, spoil, kind, message):
    place = folder(tmp_path)
    spoil(place)
    with pytest.raises(GlasError, match=message) as caught:
        read_cohort(place)
    assert "\n" not in str(caught.value)
    with pytest.warns(GlasWarning, match=f"left out: .*{message}"):
        cohort = read_cohort(place, skipping())
    assert ids(cohort) == ["sub-01", "sub-03", "sub-04"]
    assert problems(cohort) == [("sub-02", "", kind)]
    assert cohort.listed(kind) == ["sub-02"]


def test_grids_may_differ_when_that_is_said(tmp_path):
    place = folder(tmp_path)
    elsewhere(place)
    assert len(read_cohort(place, Selection(same_grid=False))) == 4


def test_all_problems_are_told_at_once(tmp_path):
    place = folder(tmp_path, 12)
    for i in range(1, 6):
        shutil.rmtree(place / f"sub-0{i}")
    scan(place, "sub-07").write_bytes(b"x")
    with pytest.raises(GlasError, match=r"got 5 missing \(sub-01, sub-02, sub-03 and 2 more\), 1 unreadable \(sub-07"):
        read_cohort(place)


def test_problems_of_others_matter_only_in_their_pair(tmp_path):
    place = three(tmp_path)
    scan(place, "sub-03").unlink()
    cohort = read_cohort(place)
    assert len(cohort) == 4
    assert cohort.listed("missing") == []
    with pytest.raises(GlasError, match="1 missing \\(sub-03\\)"):
        cohort.pair("MCI", "NC")
    with pytest.warns(GlasWarning, match="1 missing \\(sub-03\\)"):
        other = read_cohort(place, skipping()).pair("MCI", "NC")
    assert ids(other) == ["sub-02", "sub-05", "sub-06"]


def test_a_session_asked_for_may_be_missing(tmp_path):
    place = folder(tmp_path, 2, ("M00", "M12"))
    scan(place, "sub-01", "M12").unlink()
    assert len(read_cohort(place)) == 3
    with pytest.raises(GlasError, match="1 missing \\(sub-01 ses-M12\\)"):
        read_cohort(place, Selection(session=("M00", "M12")))


def test_two_sessions_are_no_duplicates_and_two_files_of_one_are(tmp_path):
    place = folder(tmp_path, 2, ("M00", "M12"))
    image(scan(place, "sub-01", "M12", space="T1"))
    with pytest.warns(GlasWarning, match="1 duplicated \\(sub-01 ses-M12"):
        cohort = read_cohort(place, skipping())
    assert list(zip(ids(cohort), cohort.table["session"], strict=True)) == [
        ("sub-01", "ses-M00"), ("sub-02", "ses-M00"), ("sub-02", "ses-M12"),
    ]  # fmt: skip


def test_left_out_later(tmp_path):
    cohort = read_cohort(folder(tmp_path))
    found = [{"participant_id": "sub-03", "session": "", "problem": "unreadable", "detail": "broken"}]
    assert cohort.without([]) is cohort
    with pytest.raises(GlasError, match="1 unreadable \\(sub-03: broken\\)"):
        cohort.without(found)
    with pytest.warns(GlasWarning, match="sub-03"):
        left = read_cohort(tmp_path, skipping()).without(found)
    assert ids(left) == ["sub-01", "sub-02", "sub-04"]
    assert problems(left) == [("sub-03", "", "unreadable")]
    assert left.problems["group"].tolist() == ["AD"]
