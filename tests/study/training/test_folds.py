import numpy as np
import pandas as pd
import pytest

from glas3d import GlasError
from glas3d.study.training.folds import split_participants
from glas3d.study.training.options import TrainingOptions


def table(n=40, sessions=1, sites=1, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        row = {"participant_id": f"sub-{i:03d}", "group": "AD" if i % 5 < 2 else "NC", "site": f"s{i // 5 % sites}"}
        count = int(rng.integers(1, sessions + 1))
        rows += [{**row, "session": f"ses-{k}"} for k in range(count)]
    return pd.DataFrame(rows)


def split(rows, **options):
    return split_participants(rows, TrainingOptions(**options))


def share(rows, ids, column, value):
    return (rows[rows["participant_id"].isin(ids)].drop_duplicates("participant_id")[column] == value).mean()


@pytest.mark.parametrize("folds", [2, 3, 5])
@pytest.mark.parametrize("sessions", [1, 4])
@pytest.mark.parametrize("validation", [0, 0.2])
def test_everyone_is_tested_once_and_nobody_is_in_two_parts(folds, sessions, validation):
    rows = table(sessions=sessions)
    splits = split(rows, folds=folds, validation=validation)
    everyone = sorted(set(rows["participant_id"]))
    assert [s.fold for s in splits] == list(range(1, folds + 1))
    assert sorted(p for s in splits for p in s.test) == everyone
    for s in splits:
        assert sorted([*s.train, *s.validation, *s.test]) == everyone
        assert bool(s.validation) == bool(validation)
        assert s.train == tuple(sorted(s.train))


def test_parts_have_their_sizes():
    for s in split(table(100), folds=5, validation=0.25):
        assert len(s.test) == 20
        assert len(s.validation) == 20
        assert len(s.train) == 60


def test_groups_are_spread_evenly():
    rows = table(100)
    for s in split(rows, folds=5):
        assert s.stratified_by == ("group",)
        for ids in (s.train, s.validation, s.test):
            assert share(rows, ids, "group", "AD") == pytest.approx(0.4, abs=0.1)


def test_sites_are_spread_if_possible():
    rows = table(120, sites=3)
    for s in split(rows, folds=4):
        assert s.stratified_by == ("group", "site")
        for site in ("s0", "s1", "s2"):
            assert share(rows, s.test, "site", site) == pytest.approx(1 / 3, abs=0.05)
    few = split(table(40, sites=8), folds=4)
    assert {s.stratified_by for s in few} == {("group",)}
    assert {s.stratified_by for s in split(rows.assign(centre=rows["site"]), folds=4, site="none")} == {("group",)}
    named = rows.rename(columns={"site": "centre"})
    assert {s.stratified_by for s in split(named, folds=4, site="centre")} == {("group", "centre")}


def test_a_missing_site_counts_as_a_site():
    rows = table(60, sites=2)
    rows["site"] = rows["site"].where(rows["site"] != "s1")
    assert split(rows, folds=3)[0].stratified_by == ("group", "site")


def test_seeds_and_the_order_of_rows():
    rows = table(sessions=3)
    splits = split(rows, seed=4)
    assert split(rows.sample(frac=1, random_state=1), seed=4) == splits
    assert split(rows, seed=5) != splits


def test_the_validation_part_does_not_change_the_test_parts():
    rows = table()
    with_, without = (split(rows, validation=v) for v in (0.2, 0))
    assert [s.test for s in with_] == [s.test for s in without]


def test_participants_whose_group_changes_stay_together():
    rows = table(30, sessions=3)
    rows.loc[rows["session"] == "ses-2", "group"] = "AD"
    for s in split(rows, folds=3):
        assert not {*s.train} & {*s.test}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 1}, "folds must be a whole number of at least 2, got 1"),
        ({"folds": 2.0}, "folds must be a whole number of at least 2, got 2.0"),
        ({"folds": True}, "folds must be a whole number"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"validation": 0.6}, "validation must be a share from 0 to 0.5, got 0.6"),
        ({"validation": float("nan")}, "validation must be a share"),
        ({"folds": 17}, "17 folds need two groups of at least 17 participants, got AD 16, NC 24: give folds=16"),
    ],
    ids=str,
)
def test_impossible_options_are_refused(settings, message):
    with pytest.raises(GlasError, match=message):
        split(table(), **settings)


def test_too_few_participants():
    rows = table()
    with pytest.raises(GlasError, match=r"2 folds need two groups of at least 2 participants, got NC 24$"):
        split(rows[rows["group"] == "NC"], folds=2)
    with pytest.raises(GlasError, match="got nobody"):
        split(rows.iloc[:0], folds=2)
    many = pd.concat([rows.iloc[[0]]] * 4 + [rows[rows["group"] == "NC"]])
    with pytest.raises(GlasError, match="got AD 1, NC 24"):
        split(many, folds=2)
    with pytest.raises(GlasError, match="of each group to train with, fold 1 of 2 has AD 1, NC 1: give validation=0"):
        split(table(4).assign(group=["AD", "NC"] * 2), folds=2, validation=0.3)
    six = table(6).assign(group=["AD", "NC"] * 3)
    with pytest.raises(GlasError, match=r"give more folds \(at most 3\), or validation=0"):
        split(six, folds=2, validation=0.3)
    assert len(split(six, folds=3, validation=0.3)) == 3
