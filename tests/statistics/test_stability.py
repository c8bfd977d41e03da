import numpy as np
import pandas as pd
import pytest
from scipy import stats

from glas3d import GlasError, GlasWarning
from glas3d.statistics.stability import bootstrap_ranks, run_stability


def maps(runs=4, p=12, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=p) + noise * rng.normal(size=(runs, p))


def test_pairs_are_spearman_and_jaccard():
    values = maps()
    values[1, 3] = values[1, 7]  # a tie
    pairs = run_stability(values, k=4).pairs
    assert pairs[["first", "second"]].to_numpy().tolist() == [[1, 2], [1, 3], [1, 4], [2, 3], [2, 4], [3, 4]]
    for row in pairs.itertuples():
        a, b = values[row.first - 1], values[row.second - 1]
        assert row.spearman == pytest.approx(stats.spearmanr(a, b)[0])
        one, other = set(np.argsort(-a, kind="stable")[:4]), set(np.argsort(-b, kind="stable")[:4])
        assert row.jaccard == len(one & other) / len(one | other)


def test_alike_and_opposite_maps():
    ramp = np.arange(12.0)
    table = run_stability(np.stack([ramp, np.exp(ramp), -ramp]), k=5)
    np.testing.assert_allclose(table.pairs["spearman"], [1, -1, -1])
    np.testing.assert_allclose(table.pairs["jaccard"], [1, 0, 0])
    same = run_stability(np.stack([ramp] * 3), k=5).summary
    np.testing.assert_allclose(same[["mean", "low", "high"]], 1)


def test_the_interval_leaves_out_a_run_at_a_time():
    values = maps(runs=5, noise=0.4)
    table = run_stability(values, k=4)
    assert table.summary["measure"].tolist() == ["spearman", "jaccard_top4"]
    assert table.summary[["n_runs", "n_pairs"]].to_numpy().tolist() == [[5, 10]] * 2
    for row, column in zip(table.summary.itertuples(), ("spearman", "jaccard"), strict=True):
        without = [run_stability(np.delete(values, i, axis=0), k=4).pairs[column].mean() for i in range(5)]
        error = np.sqrt(4 / 5 * np.sum((np.array(without) - np.mean(without)) ** 2))
        mean = table.pairs[column].mean()
        assert row.mean == pytest.approx(mean)
        assert row.low == pytest.approx(max(mean - 2.7764451 * error, -1 if column == "spearman" else 0))
        assert row.high == pytest.approx(min(mean + 2.7764451 * error, 1))
        assert row.low < row.mean < row.high


def test_the_interval_covers_the_true_value():
    """Maps of noise alone: the expected correlation is 0, and 95 % of the intervals hold it or more."""
    covered = sum(
        row["low"] <= 0 <= row["high"]
        for row in (run_stability(np.random.default_rng(s).normal(size=(6, 30))).summary.iloc[0] for s in range(200))
    )
    assert covered >= stats.binom.ppf(0.001, 200, 0.95)


def test_two_runs_have_no_interval():
    summary = run_stability(maps(runs=2), k=4).summary
    assert summary["mean"].notna().all()
    assert summary[["low", "high"]].isna().all(axis=None)


def test_runs_have_names_and_their_order_does_not_matter():
    frame = pd.DataFrame(maps(), index=["fold1", "fold2", "fold3", "fold4"])
    table, turned = run_stability(frame, k=4), run_stability(frame[::-1], k=4)
    assert table.pairs.loc[0, ["first", "second"]].tolist() == ["fold1", "fold2"]
    pd.testing.assert_frame_equal(table.summary, turned.summary)


def test_a_flat_map_does_not_count():
    values = maps()
    expected = run_stability(values, k=4).summary
    table = run_stability(np.vstack([values[:2], np.full(12, 0.5), values[2:]]), k=4)
    pd.testing.assert_frame_equal(table.summary, expected)
    flat = (table.pairs[["first", "second"]] == 3).any(axis=1)
    assert table.pairs.loc[flat, ["spearman", "jaccard"]].isna().all(axis=None)
    assert table.pairs.loc[~flat, ["spearman", "jaccard"]].notna().all(axis=None)
    assert run_stability(np.ones((3, 12))).summary["mean"].isna().all()


def test_regions_a_run_lacks_are_left_out():
    values = maps()
    expected = run_stability(np.delete(values, [2, 5], axis=1), k=4)
    values[:, 2], values[1, 5] = np.nan, np.nan
    with pytest.warns(GlasWarning, match=r"left out: 6 \(1 of 4\)$"):
        table = run_stability(values, k=4)
    pd.testing.assert_frame_equal(table.pairs, expected.pairs)


@pytest.mark.parametrize(
    ("values", "k", "message"),
    [
        (maps(runs=1), 3, "at least 2 runs, got 1"),
        (pd.DataFrame(maps(), index=list("abca")), 3, "names of their own, got a, b, c, a"),
        (maps(), 12, "k must be at least 1 and below the number of regions, 12, got 12"),
        (maps(), 0, "got 0"),
        (np.zeros(4), 1, r"got an array of \(4,\)"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(values, k, message):
    with pytest.raises(GlasError, match=message):
        run_stability(values, k=k)


def test_ranks_are_of_the_mean_over_participants():
    values = maps(runs=9, noise=3.0)
    table = bootstrap_ranks(values, 50)
    expected = pd.Series(values.mean(axis=0)).rank(ascending=False, method="first").astype(int)
    assert table["rank"].tolist() == expected.tolist()
    np.testing.assert_allclose(table["mean"], values.mean(axis=0))
    assert ((table["low"] <= table["rank"]) & (table["rank"] <= table["high"])).all()
    assert table.columns.tolist() == ["name", "mean", "rank", "low", "high"]


def test_the_interval_of_ranks_is_that_of_two_regions_in_closed_form():
    """Region b is above a in all but one of n participants, and far below in that one.

    b's mean is above a's as long as the outlier is drawn at most once: binomial.
    """
    n = 12
    difference = np.ones(n)
    difference[0] = -n + 1.5  # drawn once: n - 1 - n + 1.5 > 0; twice: less
    values = np.column_stack([np.zeros(n), difference])
    twice = 1 - stats.binom.cdf(1, n, 1 / n)
    assert twice > 0.2
    table = bootstrap_ranks(values, 2000)
    assert table[["rank", "low", "high"]].to_numpy().tolist() == [[2, 1, 2], [1, 1, 2]]
    difference[0] = -n / 5 + 1.5  # from six times on: never, to speak of
    calm = bootstrap_ranks(np.column_stack([np.zeros(n), difference]), 2000)
    assert calm[["low", "high"]].to_numpy().tolist() == [[2, 2], [1, 1]]


def test_ranks_without_noise_have_no_width_and_noise_alone_has_all():
    steady = np.tile(np.arange(7.0), (5, 1))
    table = bootstrap_ranks(steady, 100)
    assert table["rank"].tolist() == table["low"].tolist() == table["high"].tolist() == [7, 6, 5, 4, 3, 2, 1]
    noise = bootstrap_ranks(np.random.default_rng(0).normal(size=(400, 3)) * 1e-3 + 5, 500)
    assert (noise["low"].min(), noise["high"].max()) == (1, 3)


def test_ranks_depend_on_the_seed():
    values = maps(runs=6, noise=5)
    one, again, other = (bootstrap_ranks(values, 20, seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, again)
    assert (one["low"] != other["low"]).any() or (one["high"] != other["high"]).any()


def test_regions_without_values_have_no_rank():
    frame = pd.DataFrame(maps(), columns=list("abcdefghijkl")).assign(c=np.nan)
    table = bootstrap_ranks(frame, 50)
    assert table.loc[2, "name"] == "c"
    assert table.loc[2, ["mean", "rank", "low", "high"]].isna().all()
    assert sorted(table["rank"].dropna()) == list(range(1, 12))


@pytest.mark.parametrize(
    ("values", "n_boot", "message"),
    [
        (maps(runs=1), 10, "over participants needs at least 2, got 1"),
        (maps(), 0, "n_boot must be at least 1, got 0"),
        (pd.DataFrame(maps(), index=["s1", "s2", "s1", "s3"]), 10, "one row, s1 has two: average its sessions first"),
    ],
)
def test_ranks_without_an_interval_are_refused(values, n_boot, message):
    with pytest.raises(GlasError, match=message):
        bootstrap_ranks(values, n_boot)
