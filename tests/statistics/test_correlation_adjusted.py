"""Correlations with covariates and sites held fixed."""

from itertools import permutations, product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from glas3d import GlasError
from glas3d.statistics.correlation import correlate
from tests.statistics.people import people, saliency, within

TABLE = people(8, 7, sites="aabbcabcabcabca")
MMSE = pd.Series(np.random.default_rng(5).normal(25, 3, 15), name="mmse")
VALUES = saliency(TABLE, p=4, age=1, site=1)
ADJUSTMENTS = {
    "covariates": ({"covariates": ["age", "sex"]}, [TABLE["age"], TABLE["sex"] == "M"]),
    "site": ({"site": "site"}, [TABLE["site"] == "b", TABLE["site"] == "c"]),
    "both": (
        {"covariates": ["age"], "site": "site"},
        [TABLE["age"], TABLE["site"] == "b", TABLE["site"] == "c"],
    ),
}


def rest(values, nuisance):
    """Return residuals of least squares, by the textbook."""
    design = np.column_stack([np.ones(len(values)), *nuisance]).astype(float)
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


def partial(values, other, nuisance):
    return stats.pearsonr(rest(values, nuisance), rest(other, nuisance))[0]


def studentised(values, other, nuisance):
    a, b = rest(values, nuisance), rest(other, nuisance)
    return (a * b).sum() / np.sqrt((a**2 * b**2).sum())


@pytest.mark.parametrize("adjustment", ADJUSTMENTS)
@pytest.mark.parametrize("method", ["pearson", "spearman"])
@pytest.mark.parametrize("own", [False, True], ids=["one column", "a column a region"])
def test_r_is_the_correlation_of_residuals(adjustment, method, own):
    options, nuisance = ADJUSTMENTS[adjustment]
    other = saliency(TABLE, p=4, seed=9) if own else MMSE
    table = correlate(VALUES, other, participants=TABLE, method=method, n_perm=19, n_boot=0, **options)
    ranks = stats.rankdata if method == "spearman" else np.asarray
    for i, name in enumerate(VALUES):
        r = partial(ranks(VALUES[name]), ranks(other[name] if own else other), nuisance)
        np.testing.assert_allclose(table["r"][i], r, rtol=1e-9)


def test_residuals_on_covariates_are_permuted():
    """Freedman and Lane's, by a loop over all orders of six: permuted residuals, adjusted again."""
    values, other, age = VALUES[:6].to_numpy()[:, :3], MMSE[:6].to_numpy(), TABLE["age"][:6].to_numpy()
    left = rest(values, [age])
    every = np.array(
        [[studentised(left[list(order), i], other, [age]) for i in range(3)] for order in permutations(range(6))]
    )
    table = correlate(values, other, participants=TABLE[:6], covariates=["age"], n_perm=4000, n_boot=0)
    observed = np.abs(table["z"].to_numpy()) * (1 - 1e-9)
    assert within(table["p_uncorrected"], (np.abs(every) >= observed).mean(axis=0), 4000)
    assert within(table["p_fwe"], (np.abs(every).max(axis=1)[:, None] >= observed).mean(axis=0), 4000)


def test_participants_are_exchanged_within_their_site():
    """By a loop over all orders within two sites of four and three, with a column a region."""
    table = people(4, 3, sites="aaaabbb")
    values, other = saliency(table, p=2, site=2).to_numpy(), saliency(table, p=2, seed=3, site=2).to_numpy()
    site = [table["site"] == "b"]
    left, right = rest(values, site), rest(other, site)
    every = np.array(
        [
            [studentised(left[[*a, *b], i], right[:, i], []) for i in range(2)]
            for a, b in product(permutations(range(4)), permutations(range(4, 7)))
        ]
    )
    result = correlate(values, other, participants=table, site="site", n_perm=4000, n_boot=0)
    observed = np.abs(result["z"].to_numpy()) * (1 - 1e-9)
    exact = (np.abs(every).max(axis=1)[:, None] >= observed).mean(axis=0)
    assert within(result["p_fwe"], exact, 4000)


def test_differences_between_sites_are_no_correlation():
    """In 40 data sets, saliency and score differ between sites only."""
    plain, held = 0, 0
    for seed in range(40):
        table = people(9, 9, sites="ab" * 9, seed=seed)
        values = saliency(table, p=5, seed=seed, site=4)
        score = np.random.default_rng(seed).normal(size=18) + 4 * (table["site"] == "b")
        options = {"participants": table, "n_perm": 99, "n_boot": 0, "seed": seed}
        plain += correlate(values, score, **options)["p_fwe"].min() <= 0.05
        held += correlate(values, score, site="site", **options)["p_fwe"].min() <= 0.05
    assert plain == 40
    assert held <= stats.binom.ppf(0.999, 40, 0.05)


@pytest.mark.parametrize("adjustment", ADJUSTMENTS)
def test_a_planted_correlation_is_significant_with_covariates(adjustment):
    values = VALUES.copy()
    values["region3"] += 2 * MMSE.to_numpy()
    table = correlate(values, MMSE, participants=TABLE, n_perm=499, n_boot=200, **ADJUSTMENTS[adjustment][0])
    assert table.loc[table["p_fwe"] <= 0.05, "name"].tolist() == ["region3"]
    assert 0 < table["low"][2] < table["r"][2] < table["high"][2] <= 1


def test_covariates_are_held_fixed_in_every_resample():
    table = correlate(VALUES, MMSE, participants=TABLE, covariates=["age"], n_perm=19, n_boot=1500)
    rng, age, y, x = np.random.default_rng(1), TABLE["age"].to_numpy(), VALUES["region2"].to_numpy(), MMSE.to_numpy()
    drawn = [partial(y[i], x[i], [age[i]]) for i in rng.integers(15, size=(1500, 15))]
    np.testing.assert_allclose(table.loc[1, ["low", "high"]].astype(float), np.percentile(drawn, [2.5, 97.5]), atol=0.1)


REFUSED = {
    "nobody": ({"participants": None, "site": "site"}, "columns of the table of participants, got no table"),
    "others": ({"participants": TABLE[::-1]}, "row 1 is sub-01, the participant sub-15"),
    "length": ({"participants": TABLE[:-1]}, "must have a row a participant, got 15 for 14"),
    "column": ({"covariates": ["iq"]}, "participants need a column iq"),
    "told": (
        {"participants": TABLE.assign(mmse=MMSE), "covariates": ["mmse", "age"]},
        "does not differ, once mmse, age is held fixed",
    ),
    "many": (
        {
            "participants": TABLE.assign(**{f"c{i}": np.eye(15)[i] for i in range(13)}),
            "covariates": [f"c{i}" for i in range(13)],
        },
        "a test with 13 covariates .* needs at least 16 participants, got 15",
    ),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_covariates_that_cannot_be_held_fixed_are_refused(options, message):
    with pytest.raises(GlasError, match=message):
        correlate(VALUES, MMSE, **({"participants": TABLE, "n_perm": 19} | options))
