from itertools import permutations, product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from glas3d import GlasError, GlasWarning
from glas3d.statistics.corrected import smallest_p
from glas3d.statistics.omnibus import compare_all
from glas3d.statistics.two_groups import compare
from tests.statistics.people import people, saliency, within
from tests.statistics.test_two_groups import enhanced

GROUPS = ("AD", "MCI", "NC")


def three(*sizes, **columns):
    """Return a table of participants of three groups."""
    table = people(sizes[0], sum(sizes[1:]), **columns)
    return table.assign(group=np.repeat(GROUPS, sizes))


def winkler_g(y, groups, nuisance):
    """Return G of Winkler et al. (2014), table 2, by its matrices, with the groups as variance groups."""
    members = np.column_stack([groups == name for name in dict.fromkeys(groups)])
    design = np.column_stack([*members.T, *nuisance]).astype(float)
    design[:, members.shape[1] :] -= design[:, members.shape[1] :].mean(axis=0)
    contrast = np.zeros((design.shape[1], members.shape[1] - 1))
    contrast[0], contrast[1 : members.shape[1]] = 1, -np.eye(members.shape[1] - 1)
    psi = np.linalg.lstsq(design, y, rcond=None)[0]
    rest, maker = y - design @ psi, np.eye(len(y)) - design @ np.linalg.pinv(design)
    weights = np.empty(len(y))
    for rows in members.T:
        weights[rows] = np.trace(maker[np.ix_(rows, rows)]) / (rest[rows] @ rest[rows])
    middle = contrast.T @ np.linalg.inv(design.T @ np.diag(weights) @ design) @ contrast
    s = members.shape[1] - 1
    uneven = sum(
        (1 - weights[rows].sum() / weights.sum()) ** 2 / np.trace(maker[np.ix_(rows, rows)]) for rows in members.T
    )
    effect = contrast.T @ psi
    return effect @ np.linalg.solve(middle, effect) / s / (1 + 2 * (s - 1) / (s * (s + 2)) * uneven)


def test_without_covariates_f_is_welchs():
    table = three(7, 9, 11)
    values = saliency(table, effect=1)
    values[:7] *= 3
    result = compare_all(values, table, GROUPS, n_perm=99)
    parts = [values[(table["group"] == name).to_numpy()].to_numpy() for name in GROUPS]
    means, sizes = np.stack([part.mean(axis=0) for part in parts]), np.array([7, 9, 11])[:, None]
    weights = sizes / np.stack([part.var(axis=0, ddof=1) for part in parts])
    common = (weights * means).sum(axis=0) / weights.sum(axis=0)
    uneven = ((1 - weights / weights.sum(axis=0)) ** 2 / (sizes - 1)).sum(axis=0)
    welch = (weights * (means - common) ** 2).sum(axis=0) / 2 / (1 + 2 / 8 * uneven)
    np.testing.assert_allclose(result["f"], welch, rtol=1e-10)
    np.testing.assert_allclose(result["dof"], 8 / (3 * uneven), rtol=1e-10)
    assert set(result["dof_groups"]) == {2}
    assert set(result["n"]) == {27}
    np.testing.assert_allclose(result[[f"mean_{name}" for name in GROUPS]], means.T)
    np.testing.assert_allclose(result["neglog10p_fwe"], -np.log10(result["p_fwe"]))


def test_with_covariates_f_is_g_of_winkler():
    table = three(8, 7, 9, sites=list("abc") * 8)
    values = saliency(table, effect=1, age=2, site=3)
    values[:8] *= 2
    result = compare_all(values, table, GROUPS, covariates=["age", "sex"], site="site", n_perm=19)
    nuisance = [table["age"], table["sex"] == "M", table["site"] == "b", table["site"] == "c"]
    expected = [winkler_g(values[name].to_numpy(), table["group"].to_numpy(), nuisance) for name in values]
    np.testing.assert_allclose(result["f"], expected, rtol=1e-7)


@pytest.mark.parametrize("covariates", [(), ("age",)])
def test_for_two_groups_f_is_the_square_of_t(covariates):
    table = people(9, 7)
    values = saliency(table, effect=1, age=1)
    options = {"covariates": covariates, "n_perm": 2000}
    f = compare_all(values, table, ["AD", "NC"], **options)
    t = compare(values, table, "AD", "NC", n_boot=0, **options)
    np.testing.assert_allclose(f["f"], t["t"] ** 2, rtol=1e-8)
    np.testing.assert_allclose(f["p_fwe"], t["p_fwe"])  # the same draws
    if not covariates:
        np.testing.assert_allclose(f["dof"], t["dof"], rtol=1e-8)


def test_scale_offset_and_order_do_not_matter():
    table = three(6, 7, 8)
    values = saliency(table, effect=1)
    first = compare_all(values, table, GROUPS, covariates=["age"], n_perm=99)
    order = np.random.default_rng(0).permutation(21)
    moved = 1e-7 * (values.to_numpy()[order] + 5)
    second = compare_all(moved, table.iloc[order], GROUPS[::-1], covariates=["age"], n_perm=99)
    np.testing.assert_allclose(second["f"], first["f"], rtol=1e-6)


def test_p_values_agree_with_all_flips_of_signs():
    """By a loop over the 512 flips of the residuals of nine, over the root of 1 less the leverage."""
    table = three(4, 5, 4).iloc[[0, 1, 2, 4, 5, 6, 9, 10, 11]].reset_index(drop=True)
    values = saliency(table, p=3, effect=2)
    groups = table["group"].to_numpy()
    rest = values.to_numpy() - values.groupby(groups).transform("mean").to_numpy()
    rest *= np.sqrt(3 / 2)
    every = np.array(
        [[winkler_g(np.array(s) * rest[:, i], groups, []) for i in range(3)] for s in product([-1, 1], repeat=9)]
    )
    with pytest.warns(GlasWarning, match=r"groups of 3, 3, 3 participants no p-value of all groups can be below 0.25"):
        result = compare_all(values, table, GROUPS, n_perm=4000)
    observed = result["f"].to_numpy() * (1 - 1e-9)
    exact, corrected = (every >= observed).mean(axis=0), (every.max(axis=1)[:, None] >= observed).mean(axis=0)
    assert within(result["p_uncorrected"], np.maximum(exact, 0.25), 4000)
    assert within(result["p_fwe"], np.maximum(corrected, 0.25), 4000)
    assert corrected.max() > 0.25


def test_permutations_are_of_fishers_f_and_agree_with_all_arrangements():
    table = three(2, 3, 2)
    values = saliency(table, p=2, effect=3)
    groups = table["group"].to_numpy()

    def fisher(order):
        rows = values.to_numpy()[list(order)]
        return stats.f_oneway(*[rows[groups == name] for name in GROUPS]).statistic

    every = np.array([fisher(order) for order in permutations(range(7))])
    result = compare_all(values, table, GROUPS, null="permutation", n_perm=4000)
    np.testing.assert_allclose(result["f"], fisher(range(7)), rtol=1e-9)
    assert set(result["dof"]) == {4}
    observed = result["f"].to_numpy() * (1 - 1e-9)
    assert within(result["p_uncorrected"], (every >= observed).mean(axis=0), 4000)
    assert within(result["p_fwe"], (every.max(axis=1)[:, None] >= observed).mean(axis=0), 4000)


def test_permutations_stay_within_sites_and_hold_covariates_fixed():
    table = three(6, 6, 6, sites=list("ab") * 9)
    values = saliency(table, p=2, effect=1, age=2, site=8)
    result = compare_all(
        values, table, GROUPS, null="permutation", covariates=["age"], site="site", n_perm=1500, seed=1
    )
    fixed = np.column_stack([np.ones(18), table["age"], table["site"] == "b"]).astype(float)
    design = np.column_stack([fixed, table["group"] == "AD", table["group"] == "MCI"]).astype(float)

    def fisher(y):
        left = [((y - m @ np.linalg.lstsq(m, y, rcond=None)[0]) ** 2).sum(axis=0) for m in (fixed, design)]
        return (left[0] - left[1]) / 2 / (left[1] / 13)

    np.testing.assert_allclose(result["f"], fisher(values.to_numpy()), rtol=1e-8)
    rest = values.to_numpy() - fixed @ np.linalg.lstsq(fixed, values.to_numpy(), rcond=None)[0]
    rng, orders = np.random.default_rng(5), []
    for _ in range(1500):
        order = np.arange(18)
        for site in (order[::2], order[1::2]):
            order[site] = rng.permutation(site)
        orders.append(fisher(rest[order]))
    expected = (np.array(orders).max(axis=1)[:, None] >= result["f"].to_numpy()).mean(axis=0)
    assert within(result["p_fwe"], expected, 750)


def test_bootstrap_t_draws_residuals_within_the_groups():
    table = three(7, 8, 9)
    values = saliency(table, p=2, effect=1) ** 3
    parts = [values[(table["group"] == name).to_numpy()].to_numpy() for name in GROUPS]
    parts = [part - part.mean(axis=0) for part in parts]
    rng, groups = np.random.default_rng(9), table["group"].to_numpy()
    every = []
    for _ in range(1500):
        drawn = np.concatenate([part[rng.integers(len(part), size=len(part))] for part in parts])
        every.append([winkler_g(drawn[:, i], groups, []) for i in range(2)])
    result = compare_all(values, table, GROUPS, null="bootstrap-t", n_perm=3000)
    assert within(result["p_uncorrected"], (np.array(every) >= result["f"].to_numpy()).mean(axis=0), 750)


def test_a_group_without_spread_is_the_limit_of_little_spread():
    table = three(6, 7, 8)
    values = saliency(table, effect=1)
    flat, nearly = values.copy(), values.copy()
    flat[:6] = 4.0
    nearly[:6] = 4.0 + 1e-4 * (values[:6] - values[:6].mean())
    np.testing.assert_allclose(
        compare_all(flat, table, GROUPS, n_perm=19)["f"], compare_all(nearly, table, GROUPS, n_perm=19)["f"], rtol=1e-3
    )
    apart = values * 0 + pd.factorize(table["group"])[0][:, None]
    result = compare_all(apart, table, GROUPS, n_perm=99)
    assert np.isinf(result["f"]).all()
    assert (result["p_fwe"] <= 0.02).all()


@pytest.mark.parametrize(
    ("sizes", "null", "expected"),
    [
        ([(3, 3, 3)], "permutation", 6 * 6**3 / 362880),
        ([(4, 4, 5)], "permutation", 2 / 90090),
        ([(2, 3), (2, 3)], "permutation", 1 / 100),
        ([(2, 2), (3, 3)], "permutation", 2 / 120),
        ([(2, 9, 9)], "sign-flip", 0.5),
    ],
)
def test_the_smallest_p_value_is_that_of_all_arrangements(sizes, null, expected):
    assert smallest_p(sizes, null) == pytest.approx(expected)


def rejected(draw, repeats=150, **options):
    """Return in how many of the data sets some region was rejected at 0.05."""
    count = 0
    for seed in range(repeats):
        values, table = draw(np.random.default_rng(seed))
        count += compare_all(values, table, GROUPS, n_perm=99, seed=seed, **options)["p_fwe"].min() <= 0.05
    return count


def test_unequal_spread_is_no_difference_of_means():
    def draw(rng):
        return rng.normal(size=(40, 10)) * np.repeat([2.0, 1.0, 1.0], [8, 16, 16])[:, None], three(8, 16, 16)

    assert rejected(draw) <= stats.binom.ppf(0.999, 150, 0.06)
    assert rejected(draw, null="permutation") > stats.binom.ppf(0.999, 150, 0.06)


def test_one_group_that_differs_is_found():
    table = three(12, 12, 12)
    values = saliency(table, p=6)
    values.loc[table["participant_id"][table["group"] == "MCI"], "region3"] += 3
    result = compare_all(values, table, GROUPS, n_perm=999)
    assert result.loc[result["p_fwe"] <= 0.05, "name"].tolist() == ["region3"]


def test_regions_without_a_test_keep_their_row_and_other_groups_are_left_out():
    table = three(6, 6, 6)
    values = saliency(table)
    values["region2"] = 1.0
    more = pd.concat([table, table.assign(group="other", participant_id=table["participant_id"] + "x")])
    both = pd.concat([values, (values + 50).set_axis(values.index + "x")])
    both.index.name = "participant_id"
    result = compare_all(both, more, GROUPS, n_perm=99)
    pd.testing.assert_frame_equal(result, compare_all(values, table, GROUPS, n_perm=99))
    assert result["f"].isna().tolist() == [False, True, False, False]
    assert result["mean_AD"].notna().all()


def test_clusters_of_f_are_enhanced_exactly():
    table, mask = three(8, 8, 8), np.zeros((4, 5, 6), dtype=bool)
    mask[1:3, 1:4, 1:5] = True
    rng = np.random.default_rng(0)
    values = rng.normal(size=(24, int(mask.sum())))
    values[:8] += 2
    result = compare_all(values, table, GROUPS, n_perm=49, tfce_mask=mask)
    volume = np.zeros(mask.shape)
    volume[mask] = result["f"]
    np.testing.assert_allclose(result["tfce"], enhanced(volume)[mask], rtol=1e-4)
    assert (result["p_tfce_fwe"] <= 0.05).mean() > 0.9


@pytest.mark.parametrize(
    ("groups", "options", "message"),
    [
        (["AD"], {}, "two or more, each once, got AD"),
        (["AD", "MCI", "AD"], {}, "two or more, each once, got AD, MCI, AD"),
        (["AD", "MCI", "XX"], {}, "at least 2 participants a group, XX has 0"),
        (GROUPS, {"site": "one"}, "no one has participants of several groups"),
        (GROUPS, {"covariates": ["stage"]}, "AD, MCI, NC are told apart by stage alone"),
        (GROUPS, {"null": "normal"}, "null must be one of"),
    ],
)
def test_groups_that_cannot_be_compared_are_refused(groups, options, message):
    table = three(5, 5, 5)
    table = table.assign(one=table["group"], stage=(table["group"] == "AD").astype(float))
    with pytest.raises(GlasError, match=message):
        compare_all(saliency(table), table, groups, n_perm=99, **options)
