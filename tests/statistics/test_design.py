import numpy as np
import pandas as pd
import pytest

from glas3d import GlasError, GlasWarning
from glas3d.statistics.design import strata, two_group_design
from tests.statistics.people import people

TABLE = people(6, 5, sites="aabbababbab")


def but(**columns):
    return TABLE.assign(**columns)


def at(column, row, value):
    table = TABLE.astype({column: object})
    table.loc[row, column] = value
    return table


def test_the_group_is_adjusted_for_covariates_and_sites():
    fitted = two_group_design(TABLE, "AD", "NC", covariates=["age", "sex"], site="site")
    design = np.column_stack([np.ones(11), TABLE["age"], TABLE["sex"] == "M", TABLE["site"] == "b"]).astype(float)
    case = (TABLE["group"] == "AD").to_numpy(float)
    rest = case - design @ np.linalg.lstsq(design, case, rcond=None)[0]
    np.testing.assert_allclose(fitted.tested, rest, atol=1e-12)
    nuisance = fitted.basis
    np.testing.assert_allclose(nuisance.T @ nuisance, np.eye(4), atol=1e-12)
    projected = nuisance @ (nuisance.T @ design)
    np.testing.assert_allclose(projected, design, rtol=1e-10, atol=1e-10)
    assert fitted.dof == 11 - 5
    assert fitted.case.tolist() == [True] * 6 + [False] * 5
    assert fitted.blocks.tolist() == [0, 0, 1, 1, 0, 1, 0, 1, 1, 0, 1]
    np.testing.assert_allclose(fitted.covariates.sum(axis=0), 0, atol=1e-12)


def test_without_covariates_the_group_is_only_centred():
    design = two_group_design(TABLE, "AD", "NC")
    np.testing.assert_allclose(design.tested, [5 / 11] * 6 + [-6 / 11] * 5)
    assert (design.dof, design.covariates.shape, set(design.blocks)) == (9, (11, 0), {0})


def test_a_covariate_twice_counts_once():
    table = but(years=TABLE["age"] * 12 + 3)
    design = two_group_design(table, "AD", "NC", covariates=["age", "years", "icv"])
    assert design.dof == 11 - 4


@pytest.mark.parametrize("form", [lambda age: age.astype(str), lambda age: age.round().astype(int)])
def test_numbers_may_come_as_text_or_whole(form):
    table = but(age=form(TABLE["age"]))
    expected = two_group_design(but(age=pd.to_numeric(table["age"])), "AD", "NC", covariates=["age"])
    np.testing.assert_allclose(two_group_design(table, "AD", "NC", covariates=["age"]).tested, expected.tested)


@pytest.mark.parametrize("values", [["F", "M"], [True, False], [0, 1], ["1", "2"]])
def test_two_values_are_a_covariate(values):
    table = but(sex=np.where(TABLE["sex"] == "F", *values) if values[0] is not True else TABLE["sex"] == "F")
    expected = two_group_design(TABLE, "AD", "NC", covariates=["sex"]).tested
    np.testing.assert_allclose(two_group_design(table, "AD", "NC", covariates=["sex"]).tested, expected, atol=1e-12)


def test_groups_may_be_numbers():
    table = but(group=np.repeat([1, 0], [6, 5]))
    for labels in ((1, 0), ("1", "0")):
        assert two_group_design(table, *labels).case.tolist() == [True] * 6 + [False] * 5
    renamed = table.rename(columns={"group": "dx"})
    assert two_group_design(renamed, 1, 0, group="dx").case.tolist() == [True] * 6 + [False] * 5


def test_three_categories_are_two_columns():
    hand = ["left", "right", "both"] * 3 + ["left", "right"]
    design = two_group_design(but(hand=hand), "AD", "NC", covariates=["hand"])
    dummies = pd.get_dummies(hand)[["left", "right"]].to_numpy(float)
    case = (TABLE["group"] == "AD").to_numpy(float)
    full = np.column_stack([np.ones(11), dummies])
    np.testing.assert_allclose(design.tested, case - full @ np.linalg.lstsq(full, case, rcond=None)[0], atol=1e-12)
    assert design.dof == 11 - 4


def test_codes_of_categories_are_pointed_out_and_can_be_called_so():
    codes = [1, 2, 3] * 3 + [1, 2]
    with pytest.warns(GlasWarning, match=r"site3 has 3 whole numbers .* as an amount: .* write C\(site3\)$"):
        assert two_group_design(but(site3=codes), "AD", "NC", covariates=["site3"]).dof == 11 - 3
    coded = two_group_design(but(site3=codes), "AD", "NC", covariates=["C(site3)"])
    named = two_group_design(but(site3=[f"s{code}" for code in codes]), "AD", "NC", covariates=["site3"])
    np.testing.assert_allclose(coded.tested, named.tested, atol=1e-12)
    categorical = pd.Series(codes).astype("category")
    assert two_group_design(but(site3=categorical), "AD", "NC", covariates=["site3"]).dof == 11 - 4


REFUSED = {
    "group": (
        TABLE.drop(columns="group"),
        {},
        "participants need a column group, the table has participant_id, age, icv, sex, site",
    ),
    "same": (TABLE, {"control": "AD"}, "case and control must be two groups, both are AD"),
    "nobody": (
        TABLE,
        {"control": "MCI"},
        r"needs at least 2 participants a group, MCI has 0 \(AD 6, NC 5\)",
    ),
    "one": (TABLE[:7], {}, r"needs at least 2 participants a group, NC has 1 \(AD 6, NC 1\)"),
    "twice": (
        at("participant_id", 3, "sub-02"),
        {},
        "every participant must have one row, sub-02 has two: average its sessions first",
    ),
    "no covariate": (TABLE, {"covariates": ["mmse"]}, "participants need a column mmse"),
    "not numeric": (
        at("age", 2, "old"),
        {"covariates": ["age"]},
        "must hold numbers only, or categories only, age is old for sub-03$",
    ),
    "names": (
        but(doctor=list("abcdefghijk")),
        {"covariates": ["doctor"]},
        "must have participants in common, in doctor each has a category of their own",
    ),
    "infinite": (at("age", 4, np.inf), {"covariates": ["age"]}, "age is inf for sub-05"),
    "constant": (but(age=70), {"covariates": ["age"]}, "must differ between participants, age is 70 for all"),
    "gaps": (
        but(age=[70, np.nan, 71, 72, np.nan, *range(60, 66)]),
        {"covariates": ["age"]},
        "every participant needs a value of age, these have none: sub-02, sub-05$",
    ),
    "n/a": (at("sex", 2, "n/a"), {"covariates": ["sex"]}, "value of sex, these have none: sub-03$"),
    "no site": (TABLE, {"site": "scanner"}, "participants need a column scanner"),
    "site gaps": (at("site", 10, None), {"site": "site"}, "value of site, these have none: sub-11$"),
    "confounded": (
        but(site=["a", "b"] * 3 + ["c", "d", "d", "c", "d"]),
        {"site": "site"},
        "no site has participants of both groups: .* no participants can be exchanged",
    ),
    "told apart": (
        but(therapy=np.repeat([2.5, 1], [6, 5])),
        {"covariates": ["age", "therapy"]},
        "AD and NC are told apart by age, therapy alone: no difference is left to test",
    ),
    "many": (
        TABLE[3:9].assign(**{f"c{i}": [0, 1, 4, 9, 2, 5 + 3 * i**2][i:] + [7, 1, 8, 2, 8][:i] for i in range(4)}),
        {"covariates": [f"c{i}" for i in range(4)]},
        r"with 4 covariates \(each site but one is one\) needs at least 7 participants, got 6",
    ),
}


@pytest.mark.parametrize(("table", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_designs_that_cannot_be_tested_are_refused(table, options, message):
    options = {"control": "NC"} | options
    with pytest.raises(GlasError, match=message):
        two_group_design(table, "AD", options.pop("control"), **options)


def test_only_those_compared_need_values():
    table = at("group", 0, "MCI")
    table.loc[0, "age"] = np.nan
    assert two_group_design(table, "AD", "NC", covariates=["age"]).rows.tolist() == [False] + [True] * 10


def test_sites_of_one_group_are_named():
    table = but(site=list("aacbababbab"))
    with pytest.warns(GlasWarning, match="one of the groups only and add nothing to the difference: c$"):
        design = two_group_design(table, "AD", "NC", site="site")
    assert design.dof == 11 - 4


def test_strata_are_true_and_false_positives_and_negatives():
    truth, predictions = list("AANNAN"), list("ANNAAN")
    assert strata(truth, predictions, "A").tolist() == ["tp", "fn", "tn", "fp", "tp", "tn"]
    assert strata(truth, predictions, "N").tolist() == ["tn", "fp", "tp", "fn", "tn", "tp"]
    assert strata(np.array([1, 0]), pd.Series([0, 0]), 1).tolist() == ["fn", "tn"]
    assert strata(["A", "A"], ["A", "A"], "A").tolist() == ["tp", "tp"]


@pytest.mark.parametrize(
    ("truth", "called", "message"),
    [
        (["AD"], ["AD", "NC"], "a truth and a prediction a participant, got 1 and 2"),
        (["AD", "NC"], ["AD", None], "number 2 has a gap"),
        (["AD", "MCI"], ["AD", "NC"], "strata need two labels, one of them AD, got"),
        (["CN", "NC"], ["NC", "NC"], "strata need two labels, one of them AD, got"),
    ],
)
def test_strata_of_other_labels_are_refused(truth, called, message):
    with pytest.raises(GlasError, match=message):
        strata(truth, called, "AD")
