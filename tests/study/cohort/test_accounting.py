"""Every participant of the table is explained, finished, of another group or left out, and is counted once."""

import warnings

import pytest

from glas3d import GlasError
from glas3d.errors import GlasWarning
from glas3d.study import read_cohort
from glas3d.study.cohort.accounting import similar_group
from tests.study.folders import folder, people, scan, write_people


def listed_as(tmp_path, *groups):
    root = folder(tmp_path, len(groups))
    write_people(root, people(len(groups)).assign(group=groups))
    return root


def test_the_account_adds_up_to_the_table(tmp_path):
    """Of six rows two are explained; of the others each has another reason. Two scans have no row."""
    root = folder(tmp_path, 8)
    write_people(root, people(6).assign(group=["AD", "NC", "ad", "MCI", "NA", "n/a"]))
    for name in ("sub-04", "sub-06"):
        scan(root, name).unlink()
    with pytest.warns(GlasWarning) as caught:
        cohort = read_cohort(root, on_error="skip")
    texts = [str(each.message) for each in caught]
    assert texts[0] == "group 'ad' (1 participant) is neither AD nor NC, is it another spelling of AD?"
    assert "3 no group (sub-05, sub-07, sub-08)" in texts[1]
    account = cohort.account({"AD": 1}, 1, len(cohort.concerned()), everyone=False)
    assert account.other_groups == {"MCI": 1, "ad": 1}
    assert (account.left_out, account.not_selected, account.participants, account.not_in_table) == (3, 1, 6, 2)
    assert account.total == 8 == account.participants + account.not_in_table
    assert str(account) == (
        "AD 1; finished: 1; other groups: MCI 1, ad 1; left out: 3; without scan or group: 1; in all: 8, "
        "of 6 participants in the table and 2 not in it"
    )
    everyone = cohort.account({"AD": 1, "ad": 1}, 1, len(cohort.concerned(everyone=True)), everyone=True)
    assert everyone.total == 8
    assert not everyone.other_groups


def test_selected_participants_are_those_accounted_for(tmp_path):
    cohort = read_cohort(folder(tmp_path, 6), participant_label=("01", "02"))
    account = cohort.account({"AD": 1, "NC": 1}, 0, 0, everyone=False)
    assert (account.total, account.participants, account.not_in_table) == (2, 2, 0)


@pytest.mark.parametrize("order", [("n/a", "MCI"), ("MCI", "n/a")])
def test_a_session_without_a_group_is_left_out_by_name_whatever_the_other_session_is(tmp_path, order):
    """It is not counted as one of the other session's group."""
    root = folder(tmp_path, 4, sessions=("M00", "M12"))
    rows = [(f"sub-0{i}", f"ses-{session}", "AD" if i % 2 else "NC") for i in (1, 2, 3) for session in ("M00", "M12")]
    rows += [("sub-04", f"ses-{session}", group) for session, group in zip(("M00", "M12"), order, strict=True)]
    lines = ["participant_id\tsession_id\tgroup", *("\t".join(row) for row in rows)]
    (root / "participants.tsv").write_text("\n".join(lines) + "\n")
    with pytest.warns(GlasWarning, match=r"left out: 1 no group \(sub-04 ses-M"):
        cohort = read_cohort(root, on_error="skip")
    account = cohort.account({"AD": 4, "NC": 2}, 0, len(cohort.concerned()), everyone=False)
    assert account.other_groups == {"MCI": 1}
    assert (account.left_out, account.total, account.participants) == (1, 8, 4)
    with pytest.raises(GlasError, match=r"a cohort must be whole, got 1 no group \(sub-04 ses-M"):
        read_cohort(root)


@pytest.mark.parametrize(
    ("name", "wanted", "similar"),
    [
        ("ad", "AD", True),
        ("A D", "AD", True),
        ("Alzheimer's disease", "AD", True),
        ("CN", "NC", True),
        ("HC", "NC", True),
        ("control", "NC", True),
        ("Healthy_Control", "NC", True),
        ("0.0", "0", True),
        ("AD", "AD", False),
        ("MCI", "AD", False),
        ("EMCI", "MCI", False),
        ("10", "1", False),
        ("CN", "AD", False),
        ("?", "!", False),
    ],
)
def test_other_spellings_of_a_group(name, wanted, similar):
    assert similar_group(name, wanted) == similar


def test_groups_that_differ_are_not_pointed_out(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_cohort(listed_as(tmp_path, "AD", "NC", "MCI", "FTD"))


def test_a_group_that_does_not_exist_names_another_spelling(tmp_path):
    root = listed_as(tmp_path, "AD", "CN", "HC", "MCI")
    with pytest.raises(
        GlasError, match=r"no participant is of group NC, .*; did you mean control='CN' or control='HC'"
    ):
        read_cohort(root)
