from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from glas3d import GlasError, GlasWarning
from glas3d.statistics.correlation import change_correlation, correlate
from tests.statistics.people import bootstrapped, people, saliency, within

TABLE = people(7, 6).assign(mmse=[21, 24, 19, 22, 26, 23, 20, 29, 30, 28, 27, 30, 29])
VALUES = saliency(TABLE, p=5)
VALUES["region2"] += 30 - TABLE["mmse"].to_numpy()
METHODS = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}


def changes(seed=0):
    """Return volume changes of the same participants and regions; the third region's follows its saliency."""
    change = saliency(TABLE, p=5, seed=seed + 10) - 5
    change["region3"] = -2 * VALUES["region3"] + 0.5 * change["region3"]
    return change


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("own", [False, True], ids=["one column", "a column a region"])
def test_r_is_the_textbooks_correlation(method, own):
    other = changes() if own else TABLE["mmse"]
    table = correlate(VALUES, other, method=method, n_perm=19, n_boot=0)
    for i, name in enumerate(VALUES):
        r = METHODS[method](VALUES[name], other[name] if own else other)[0]
        np.testing.assert_allclose(table["r"][i], r, rtol=1e-10)
    assert table.columns.tolist() == ["name", "n", "r", "z", "dof", "p_uncorrected", "p_fdr", "p_fwe", "neglog10p_fwe"]
    assert set(table["dof"]) == {11}
    assert table["name"].tolist() == VALUES.columns.tolist()
    assert set(table["n"]) == {13}
    if own:
        assert table["r"][2] < -0.8


def studentised(a, b, method="pearson"):
    """Return the statistic of DiCiccio and Romano (2017), by its formula."""
    if method == "spearman":
        a, b = stats.rankdata(a), stats.rankdata(b)
    a, b = a - np.mean(a), b - np.mean(b)
    tau = np.mean(a**2 * b**2) / (np.mean(a**2) * np.mean(b**2))
    return np.sqrt(len(a)) * stats.pearsonr(a, b)[0] / np.sqrt(tau)


@pytest.mark.parametrize("method", METHODS)
def test_p_values_agree_with_all_permutations(method):
    values, other = VALUES[:6].to_numpy()[:, :3], TABLE["mmse"][:6].to_numpy()
    every = np.array(
        [[studentised(values[:, i], other[list(order)], method) for i in range(3)] for order in permutations(range(6))]
    )
    table = correlate(values, other, method=method, n_perm=3000, n_boot=0)
    np.testing.assert_allclose(table["z"], [studentised(values[:, i], other, method) for i in range(3)])
    observed = np.abs(table["z"].to_numpy()) * (1 - 1e-9)
    assert within(table["p_uncorrected"], (np.abs(every) >= observed).mean(axis=0), 3000)
    largest = np.abs(every).max(axis=1)
    assert within(table["p_fwe"], (largest[:, None] >= observed).mean(axis=0), 3000)
    np.testing.assert_allclose(table["neglog10p_fwe"], -np.log10(table["p_fwe"]))
    np.testing.assert_allclose(table["p_fdr"], stats.false_discovery_control(table["p_uncorrected"]))


@pytest.mark.parametrize("covariate", [False, True])
def test_spread_that_follows_the_column_is_no_correlation(covariate):
    n_rejected, plain = 0, 0
    for seed in range(80):
        rng = np.random.default_rng(seed)
        column = rng.normal(size=24)
        values = rng.normal(size=(24, 8)) * np.abs(column)[:, None]
        options = {"participants": people(12, 12), "covariates": ["age"]} if covariate else {}
        table = correlate(values, column, n_perm=99, n_boot=0, seed=seed, **options)
        n_rejected += table["p_fwe"].min() <= 0.05
        plain += min(stats.pearsonr(values[:, i], column)[1] for i in range(8)) * 8 <= 0.05
    assert n_rejected <= stats.binom.ppf(0.999, 80, 0.05) < plain


def test_too_few_participants_to_permute_are_warned_of():
    table = people(3, 3, sites="aabbcc")
    with pytest.warns(GlasWarning, match="permuted in 8 ways only, so that no p-value can reach 0.05"):
        result = correlate(saliency(table), TABLE["mmse"][:6], participants=table, site="site", n_perm=99, n_boot=0)
    assert result["p_fwe"].min() >= 1 / 8


def test_planted_correlations_are_significant():
    table = correlate(VALUES, TABLE["mmse"], n_perm=999, n_boot=0)
    assert table.loc[table["p_fwe"] <= 0.05, "name"].tolist() == ["region2"]
    assert table["r"][1] < -0.8
    own = correlate(VALUES, changes(), n_perm=999, n_boot=0)
    assert own.loc[own["p_fwe"] <= 0.05, "name"].tolist() == ["region3"]


@pytest.mark.parametrize("method", METHODS)
def test_the_interval_is_the_percentile_bootstrap(method):
    table = correlate(VALUES, TABLE["mmse"], method=method, n_perm=19, n_boot=1500)
    expected = bootstrapped(
        lambda a, b: METHODS[method](a, b)[0], VALUES["region2"], TABLE["mmse"], paired=True, n=1500
    )
    np.testing.assert_allclose(table.loc[1, ["low", "high"]].astype(float), expected, atol=0.08)
    assert (table["low"] < table["r"]).all()
    assert (table["r"] < table["high"]).all()


def test_results_depend_on_the_seed_and_inputs_are_unchanged():
    before = VALUES.copy()
    one, again, other = (correlate(VALUES, TABLE["mmse"], n_perm=99, n_boot=50, seed=s) for s in (1, 1, 2))
    pd.testing.assert_frame_equal(one, again)
    assert (one["p_uncorrected"] != other["p_uncorrected"]).any()
    assert (one["low"] != other["low"]).all()
    pd.testing.assert_frame_equal(VALUES, before)


def test_regions_without_a_correlation_keep_their_row():
    values = VALUES.assign(region1=np.nan, region4=2.5)
    values.loc["sub-05", "region5"] = np.nan
    with pytest.warns(GlasWarning, match=r"left out: region5 \(1 of 13\)"):
        table = correlate(values, TABLE["mmse"], n_perm=99, n_boot=50)
    expected = correlate(VALUES[["region2", "region3"]], TABLE["mmse"], n_perm=99, n_boot=50)
    pd.testing.assert_frame_equal(table.iloc[[1, 2]].reset_index(drop=True), expected)
    assert table.loc[[0, 3, 4], ["r", "low", "p_fwe"]].isna().all(axis=None)
    assert table["name"].tolist() == VALUES.columns.tolist()


def test_random_scores_are_seldom_significant():
    """Of 100 scores, the corrected test finds 5 and sampling error."""
    allowed, detected, uncorrected = stats.binom.ppf(0.999, 100, 0.05), 0, 0
    for seed in range(100):
        score = np.random.default_rng(seed).normal(size=13)
        table = correlate(saliency(TABLE, p=8, seed=seed), score, n_perm=199, n_boot=0, seed=seed)
        detected += table["p_fwe"].min() <= 0.05
        uncorrected += table["p_uncorrected"].min() <= 0.05
    assert detected <= allowed < uncorrected


def mmse(**rows):
    changed = TABLE["mmse"].astype(object)
    for row, value in rows.items():
        changed[int(row[1:])] = value
    return changed


REFUSED = {
    "gaps": (
        mmse(r1=None, r12=np.nan),
        {},
        "every participant needs a number of mmse, these have none: sub-02, sub-13$",
    ),
    "text": (mmse(r0="low"), {}, "needs a number of mmse, these have none: sub-01$"),
    "constant": (TABLE["mmse"] * 0 + 30, {}, "a column must differ between participants, mmse is 30"),
    "length": (TABLE["mmse"][:-1], {}, r"for values of \(13, 5\) got \(12,\)"),
    "shape": (np.zeros((13, 4)), {}, r"for values of \(13, 5\) got \(13, 4\)"),
    "order": (changes()[::-1], {}, "must have the same participants in the same order"),
    "regions": (changes()[VALUES.columns[::-1]], {}, "must have the same regions in the same order"),
    "words": (changes().astype(str) + "x", {}, "values must be numbers"),
    "flat": (changes() * 0, {}, "no region can be correlated"),
    "method": (TABLE["mmse"], {"method": "kendall"}, 'method must be "pearson" or "spearman", got \'kendall\''),
    "n_perm": (TABLE["mmse"], {"n_perm": 3}, "n_perm must be at least 19"),
}


@pytest.mark.parametrize(("other", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_correlated_is_refused(other, options, message):
    with pytest.raises(GlasError, match=message):
        correlate(VALUES, other, **({"n_perm": 19} | options))


def test_three_participants_are_too_few():
    with pytest.raises(GlasError, match="needs at least 4, got 3"):
        correlate(VALUES[:3], TABLE["mmse"][:3])


def over_regions(p=8, n=4, seed=0, follow=1.0):
    rng = np.random.default_rng(seed)
    change = rng.normal(size=(n, p)) - 1
    saliency = rng.normal(size=(n, p)) - follow * change
    ids = pd.Index([f"sub-{i}" for i in range(n)], name="participant_id")
    return pd.DataFrame(saliency, index=ids), pd.DataFrame(change, index=ids)


def test_every_participant_has_a_correlation_over_the_regions():
    values, change = over_regions()
    result = change_correlation(values, change, n_perm=19, n_boot=0)
    expected = [stats.pearsonr(values.iloc[i], change.iloc[i])[0] for i in range(4)]
    np.testing.assert_allclose(result.participants["r"], expected)
    assert result.participants["participant_id"].tolist() == ["sub-0", "sub-1", "sub-2", "sub-3"]
    assert set(result.participants["n_regions"]) == {8}
    assert result.mean == pytest.approx(np.mean(expected))
    assert np.isnan([result.low, result.high]).all()
    assert "low" not in result.participants


def test_the_change_correlation_permutes_regions():
    values, change = over_regions(p=5, n=3, follow=0.2)
    unit = [each - each.mean(axis=1, keepdims=True) for each in (values.to_numpy(), change.to_numpy())]
    a, b = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in unit)
    every = np.array([(a * b[:, list(order)]).sum(axis=1) for order in permutations(range(5))])
    result = change_correlation(values, change, n_perm=3000, n_boot=0)
    r = result.participants["r"].to_numpy()
    assert within(result.participants["p_uncorrected"], (np.abs(every) >= np.abs(r) * (1 - 1e-9)).mean(axis=0), 3000)
    assert within(result.p, (np.abs(every.mean(axis=1)) >= abs(r.mean()) * (1 - 1e-9)).mean(), 3000)
    assert 0.05 < result.p < 0.95


def test_intervals_resample_regions_and_participants():
    values, change = over_regions(p=30, n=12)
    result = change_correlation(values, change, n_perm=99, n_boot=800)
    table = result.participants
    assert ((table["low"] < table["r"]) & (table["r"] < table["high"])).all()
    first = bootstrapped(lambda x, y: stats.pearsonr(x, y)[0], values.iloc[0], change.iloc[0], paired=True, n=800)
    np.testing.assert_allclose(table.loc[0, ["low", "high"]].astype(float), first, atol=0.06)
    error = 1.96 * table["r"].std(ddof=0) / np.sqrt(12)
    np.testing.assert_allclose([result.low, result.high], [result.mean - error, result.mean + error], atol=0.02)
    assert result.p == 1 / 100
    assert result.mean < -0.5


def test_flat_participants_do_not_count_and_missing_regions_are_left_out():
    values, change = over_regions()
    expected = change_correlation(values.drop(columns=2).drop("sub-1"), change.drop(columns=2).drop("sub-1"), n_boot=50)
    values.loc["sub-1"], values[2] = 0.5, np.nan
    with pytest.warns(GlasWarning, match="the same in all regions, and not counted: sub-1$"):
        result = change_correlation(values, change, n_boot=50)
    kept = result.participants.drop(1).reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, expected.participants)
    assert np.isnan(result.participants["r"][1])
    assert (result.mean, result.p, result.low) == (expected.mean, expected.p, expected.low)


@pytest.mark.parametrize(
    ("values", "change", "message"),
    [
        (np.ones((3, 5)), np.ones(3), "got one value a participant"),
        (np.ones((3, 3)), np.ones((3, 3)), "over regions needs at least 4, got 3"),
        (np.ones((3, 5)), np.eye(3, 5), "no participant has values that differ"),
    ],
)
def test_changes_that_cannot_be_correlated_are_refused(values, change, message):
    change = np.arange(3.0) if change.ndim == 1 else change
    with pytest.raises(GlasError, match=message):
        change_correlation(values, change, n_perm=19)
