from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from nilearn.mass_univariate import permuted_ols
from scipy import ndimage, stats

from glas3d import GlasError, GlasWarning
from glas3d.statistics.two_groups import compare
from tests.statistics.people import people, saliency, within

COLUMNS = [
    "name",
    "n_case",
    "n_control",
    "mean_case",
    "mean_control",
    "difference",
    "adjusted_difference",
    "t",
    "dof",
    "p_uncorrected",
    "p_fdr",
    "p_fwe",
    "neglog10p_fwe",
    "cohen_d",
    "hedges_g",
    "d_low",
    "d_high",
]
SITES = list("aabbccaabbccaabb" + "abcabc")


def ols(y, case, nuisance):
    """Return coefficient, t and degrees of freedom of ``case``, by the textbook."""
    design = np.column_stack([case, np.ones(len(case)), *nuisance])
    beta, *_ = np.linalg.lstsq(design, y, rcond=None)
    rest = y - design @ beta
    dof = len(y) - np.linalg.matrix_rank(design)
    variance = np.linalg.pinv(design.T @ design)[0, 0] * (rest**2).sum(axis=0) / dof
    return beta[0], beta[0] / np.sqrt(variance), dof


def aspin_welch(y, case, nuisance):
    """Return the coefficient of ``case`` and Aspin and Welch's v, by the formula of Winkler et al. (2014) for G."""
    design = np.column_stack([case, np.ones(len(case)), *nuisance]).astype(float)
    beta = np.linalg.lstsq(design, y, rcond=None)[0]
    rest = y - design @ beta
    maker = np.eye(len(y)) - design @ np.linalg.pinv(design)
    weights = np.empty(len(y))
    for rows in (case == 1, case == 0):
        weights[rows] = np.trace(maker[np.ix_(rows, rows)]) / (rest[rows] @ rest[rows])
    return beta[0], beta[0] / np.sqrt(np.linalg.inv(design.T @ np.diag(weights) @ design)[0, 0])


def test_without_covariates_t_is_welchs_and_d_is_cohens():
    table = people(9, 7)
    values = saliency(table, effect=1)
    values[:9] *= 2
    result = compare(values, table, "AD", "NC", n_perm=99, n_boot=20)
    case, control = values[:9].to_numpy(), values[9:].to_numpy()
    welch = stats.ttest_ind(case, control, equal_var=False)
    np.testing.assert_allclose(result["t"], welch.statistic, rtol=1e-10)
    np.testing.assert_allclose(result["dof"], welch.df, rtol=1e-10)
    np.testing.assert_allclose(result["mean_case"], case.mean(axis=0))
    np.testing.assert_allclose(result["mean_control"], control.mean(axis=0))
    np.testing.assert_allclose(result["difference"], case.mean(axis=0) - control.mean(axis=0))
    np.testing.assert_allclose(result["adjusted_difference"], result["difference"], rtol=1e-9)
    student = stats.ttest_ind(case, control).statistic
    np.testing.assert_allclose(result["cohen_d"], student * np.sqrt(1 / 9 + 1 / 7), rtol=1e-10)
    np.testing.assert_allclose(result["neglog10p_fwe"], -np.log10(result["p_fwe"]))
    np.testing.assert_allclose(result["p_fdr"], stats.false_discovery_control(result["p_uncorrected"]))
    assert result.columns.tolist() == COLUMNS
    assert result["name"].tolist() == values.columns.tolist()
    assert result[["n_case", "n_control"]].drop_duplicates().to_numpy().tolist() == [[9, 7]]


@pytest.mark.parametrize("site", [None, "site"])
def test_covariates_are_adjusted_for_by_least_squares(site):
    table = people(12, 10, sites=SITES)
    values = saliency(table, effect=1, age=2, site=3)
    values[:12] *= 1.5
    covariates = ("age", "sex", "icv")
    result, student = (
        compare(values, table, "AD", "NC", covariates=covariates, site=site, null=null, n_perm=20, n_boot=0)
        for null in ("sign-flip", "permutation")
    )
    nuisance = [table["age"], table["sex"] == "M", table["icv"] / 1e6]
    nuisance += [table["site"] == name for name in "bc"] if site else []
    case = (table["group"] == "AD").to_numpy(float)
    for i, name in enumerate(values):
        beta, v = aspin_welch(values[name].to_numpy(), case, nuisance)
        np.testing.assert_allclose(result.loc[i, ["adjusted_difference", "t"]].astype(float), [beta, v], rtol=1e-6)
    beta, t, dof = ols(values.to_numpy(), case, nuisance)
    np.testing.assert_allclose(student["t"], t, rtol=1e-8)
    np.testing.assert_allclose(student["adjusted_difference"], beta, rtol=1e-8)
    assert set(student["dof"]) == {dof}
    assert "d_low" not in result


@pytest.mark.parametrize("covariates", [(), ("age",)])
def test_p_values_agree_with_all_flips_of_signs(covariates):
    """By a loop over the 512 flips of the residuals of nine, with covariates over the root of 1 less the leverage."""
    table = people(4, 5)
    values = saliency(table, p=3, effect=2)
    values[:4] *= 2
    nuisance, case = [table[name] for name in covariates], (table["group"] == "AD").to_numpy(float)
    design = np.column_stack([case, np.ones(9), *nuisance])
    hat = design @ np.linalg.pinv(design)
    rest = (values.to_numpy() - hat @ values.to_numpy()) / np.sqrt(1 - np.diag(hat))[:, None]
    every = [
        [aspin_welch(np.array(signs) * rest[:, i], case, nuisance)[1] for i in range(3)]
        for signs in product([-1, 1], repeat=9)
    ]
    result = compare(values, table, "AD", "NC", covariates=covariates, n_perm=4000, n_boot=0)
    observed, every = np.abs(result["t"].to_numpy()) * (1 - 1e-9), np.abs(np.nan_to_num(every))
    exact, corrected = (every >= observed).mean(axis=0), (every.max(axis=1)[:, None] >= observed).mean(axis=0)
    assert within(result["p_uncorrected"], np.maximum(exact, 1 / 126), 4000)  # 126 ways to exchange four and five
    assert within(result["p_fwe"], np.maximum(corrected, 1 / 126), 4000)
    assert corrected.max() > 0.1


def test_bootstrap_t_draws_residuals_within_the_groups():
    """By a plain loop, in which the mean of each group is that of its draws."""
    table = people(7, 9)
    values = saliency(table, p=3, effect=1) ** 3
    case, control = (group.to_numpy() - group.to_numpy().mean(axis=0) for group in (values[:7], values[7:]))
    rng = np.random.default_rng(9)
    every = np.abs(
        [
            stats.ttest_ind(case[rng.integers(7, size=7)], control[rng.integers(9, size=9)], equal_var=False).statistic
            for _ in range(3000)
        ]
    )
    result = compare(values, table, "AD", "NC", null="bootstrap-t", n_perm=3000, n_boot=0)
    observed = np.abs(result["t"].to_numpy())
    assert within(result["p_uncorrected"], (every >= observed).mean(axis=0), 1500)
    assert within(result["p_fwe"], (every.max(axis=1)[:, None] >= observed).mean(axis=0), 1500)
    assert result["p_uncorrected"].between(0.002, 0.9).all()


@pytest.mark.parametrize("covariates", [(), ("age", "sex")])
def test_permutations_without_sites_agree_with_permuted_ols(covariates):
    table = people(8, 11)
    values = saliency(table, p=5, effect=1.2, age=1)
    result = compare(values, table, "AD", "NC", covariates=covariates, null="permutation", n_perm=4000, n_boot=0)
    fixed = np.column_stack([table["age"], (table["sex"] == "M")]).astype(float) if covariates else None
    case = (table["group"] == "AD").to_numpy(float)[:, None]
    expected = permuted_ols(case, values.to_numpy(), fixed, n_perm=4000, random_state=4)
    np.testing.assert_allclose(result["t"], expected["t"][0], rtol=1e-8)
    assert within(result["p_fwe"], 10 ** -expected["logp_max_t"][0], 2000)


@pytest.mark.parametrize("covariates", [(), ("age", "sex")])
def test_permutations_within_one_site_are_those_of_all(covariates):
    table = people(8, 11, sites=["a"] * 19)
    values = saliency(table, p=5, effect=2.5, age=1)
    blocked, free = (
        compare(values, table, "AD", "NC", covariates=covariates, site=site, null="permutation", n_perm=4000, n_boot=0)
        for site in ("site", None)
    )
    pd.testing.assert_series_equal(blocked["t"], free["t"])
    assert free["p_fwe"].min() < 0.3 < free["p_fwe"].max()
    assert within(blocked["p_fwe"], free["p_fwe"], 2000)


def test_within_sites_p_values_agree_with_all_arrangements():
    """The exact test, by enumeration: 3 of 5 in one site, 2 of 4 in the other."""
    table = people(5, 4, sites=["a", "a", "a", "b", "b", "a", "a", "b", "b"])
    values = saliency(table, p=3, effect=1.5, site=4)
    y, site = values.to_numpy(), (table["site"] == "b").to_numpy(float)
    a, b = np.flatnonzero(site == 0), np.flatnonzero(site == 1)
    observed = np.abs(ols(y, (table["group"] == "AD").to_numpy(float), [site])[1])
    largest = []
    for one, two in product(combinations(a, 3), combinations(b, 2)):
        case = np.zeros(9)
        case[[*one, *two]] = 1
        largest.append(np.abs(ols(y, case, [site])[1]).max())
    assert len(largest) == 60
    exact = np.mean(np.array(largest)[:, None] >= observed * (1 - 1e-9), axis=0)
    result = compare(values, table, "AD", "NC", site="site", null="permutation", n_perm=4000, n_boot=0)
    assert within(result["p_fwe"], exact, 4000)
    free = compare(values, table, "AD", "NC", null="permutation", n_perm=4000, n_boot=0)
    assert not within(free["p_fwe"], exact, 4000)


@pytest.mark.parametrize("site", [None, "site"])
def test_copies_of_the_observed_arrangement_count_whatever_their_rounding(site):
    """Four against four: 2 of 70 arrangements are the observed one or its mirror image."""
    for seed in range(8):
        table = people(4, 4, sites=["a"] * 8)
        values = saliency(table, p=3, seed=seed, effect=30)
        options = {"null": "permutation", "n_perm": 1500, "n_boot": 0, "seed": seed}
        result = compare(values, table, "AD", "NC", site=site, **options)
        assert within(result["p_fwe"][0], 2 / 70, 1500)


def test_the_test_is_two_sided():
    table = people(8, 8)
    values = saliency(table, effect=1)
    one, other = (compare(values * sign, table, "AD", "NC", n_perm=300, n_boot=0) for sign in (1, -1))
    pd.testing.assert_series_equal(one["p_fwe"], other["p_fwe"])
    np.testing.assert_allclose(one["t"], -other["t"])
    swapped = compare(values, table, "NC", "AD", n_perm=300, n_boot=0)
    np.testing.assert_allclose(swapped["t"], -one["t"])
    np.testing.assert_allclose(swapped["cohen_d"], -one["cohen_d"])


@pytest.mark.parametrize("site", [None, "site"])
def test_only_the_planted_difference_is_significant(site):
    table = people(16, 16, sites=list("abcd") * 8)
    values = saliency(table, p=20, effect=3, age=1, site=1)
    result = compare(values, table, "AD", "NC", covariates=["age"], site=site, n_perm=500, n_boot=0)
    assert result.loc[result["p_fwe"] <= 0.05, "name"].tolist() == ["region1"]
    assert result["p_fwe"].min() >= 1 / 501
    assert (result["p_fwe"] >= result["p_uncorrected"] - 0.02).all()


def test_participants_of_other_groups_are_left_out():
    table = people(6, 9)
    table.loc[9:10, "group"] = "MCI"
    table.loc[11, "group"] = None
    values = saliency(table)
    values.iloc[9:12] = 1e6
    kept = table["group"].isin(["AD", "NC"]).to_numpy()
    result = compare(values, table, "AD", "NC", covariates=["age"], n_perm=50, n_boot=10)
    alone = compare(values[kept], table[kept], "AD", "NC", covariates=["age"], n_perm=50, n_boot=10)
    pd.testing.assert_frame_equal(result, alone)
    assert result["n_control"].tolist() == [6] * 4


def test_results_depend_on_the_seed_and_inputs_are_unchanged():
    table = people(6, 7, sites=list("ab" * 6 + "a"))
    values = saliency(table, effect=1)
    before = values.copy(), table.copy()
    for site in (None, "site"):
        one, again, other = (compare(values, table, "AD", "NC", site=site, n_perm=200, seed=s) for s in (1, 1, 2))
        pd.testing.assert_frame_equal(one, again)
        assert (one["p_fwe"] != other["p_fwe"]).any()
        pd.testing.assert_series_equal(one["d_low"], other["d_low"])  # it needs no resamples
    pd.testing.assert_frame_equal(values, before[0])
    pd.testing.assert_frame_equal(table, before[1])
    array = compare(values.to_numpy(), table, "AD", "NC", n_perm=200)
    assert array["name"].tolist() == ["1", "2", "3", "4"]


def test_tiny_differences_of_large_values_are_not_rounded_away():
    table = people(7, 8)
    values = saliency(table, effect=1)
    result, shifted = (compare(each, table, "AD", "NC", n_perm=50, n_boot=0) for each in (values, 1 + values * 1e-7))
    np.testing.assert_allclose(shifted["t"], result["t"], rtol=1e-6)


def test_regions_without_a_test_keep_their_row():
    table = people(6, 6)
    values = saliency(table, p=5, effect=4)
    expected = compare(values[["region1", "region5"]], table, "AD", "NC", n_perm=200)
    values["region2"], values["region3"] = np.nan, 0.25
    values.loc["sub-03", "region4"] = np.nan
    with pytest.warns(GlasWarning, match=r"left out: region4 \(1 of 12\)$"):
        result = compare(values, table, "AD", "NC", n_perm=200)
    pd.testing.assert_frame_equal(result.iloc[[0, 4]].reset_index(drop=True), expected)
    assert result.loc[1:3, ["t", "p_fwe", "cohen_d", "d_low"]].isna().all(axis=None)
    assert result.loc[2, ["mean_case", "mean_control", "difference"]].tolist() == [0.25, 0.25, 0]
    assert result.loc[[1, 3], "mean_case"].isna().all()


@pytest.mark.parametrize("null", ["sign-flip", "bootstrap-t", "permutation"])
def test_values_that_separate_the_groups_without_noise(null):
    table = people(5, 5)
    values = saliency(table, p=3).assign(region2=(table["group"] == "AD").to_numpy(float))
    result = compare(values, table, "AD", "NC", null=null, n_perm=2000, n_boot=10)
    assert result["t"][1] == np.inf
    assert result["p_fwe"][1] >= 2 / 252
    assert within(result["p_fwe"][1], 2 / 252, 2000)
    assert result["p_fwe"][[0, 2]].min() > 2 / 252
    assert np.isnan(result["cohen_d"][1])


@pytest.mark.parametrize("null", ["sign-flip", "permutation"])
@pytest.mark.parametrize(("n_case", "n_control"), [(3, 3), (2, 3)])
def test_groups_too_small_for_any_p_value_are_warned_of(n_case, n_control, null):
    """However far apart: 3 against 3 have 20 arrangements, and the mirrored one is as extreme."""
    table = people(n_case, n_control)
    values = saliency(table, effect=1000)
    with pytest.warns(GlasWarning, match=f"with {n_case} participants against {n_control} .* none can reach 0.05"):
        result = compare(values, table, "AD", "NC", null=null, n_perm=999, n_boot=0)
    assert result["p_fwe"].min() >= 0.1
    assert result["p_uncorrected"].min() >= 0.1


def test_groups_of_four_can_reach_a_small_p_value():
    table = people(4, 4)
    assert compare(saliency(table, effect=1000), table, "AD", "NC", n_perm=999, n_boot=0)["p_fwe"].min() <= 0.05


def test_skewed_values_name_the_null_that_allows_them():
    table, rng = people(20, 20), np.random.default_rng(1)
    skewed = rng.gamma(2.0, 1, (40, 9))
    skewed[:20] = rng.gamma(0.15, 1, (20, 9))
    with pytest.warns(GlasWarning, match=r"skewed.* in \d of 9 regions.*--null bootstrap-t"):
        compare(skewed, table, "AD", "NC", n_perm=19, n_boot=0)
    for null in ("bootstrap-t", "permutation"):  # without a warning, which would be an error
        compare(skewed, table, "AD", "NC", null=null, n_perm=19, n_boot=0)
    compare(rng.normal(size=(40, 9)), table, "AD", "NC", n_perm=19, n_boot=0)


def rejected(draw, *, repeats=100, n_case=8, n_control=32, **options):
    """Return how many of the data sets without effect have a corrected p-value of at most 0.05."""
    count = 0
    for seed in range(repeats):
        values = draw(np.random.default_rng(seed), n_case, n_control)
        result = compare(values, people(n_case, n_control), "AD", "NC", n_perm=99, n_boot=0, seed=seed, **options)
        count += result["p_fwe"].min() <= 0.05
    return count


def test_unequal_spread_is_no_difference_of_means():
    def spread(rng, n_case, n_control):
        return rng.normal(size=(n_case + n_control, 10)) * np.repeat([2.5, 1.0], [n_case, n_control])[:, None]

    allowed = stats.binom.ppf(0.999, 100, 0.05)  # 13
    assert rejected(spread) <= allowed
    assert rejected(spread, null="bootstrap-t") <= allowed
    assert rejected(spread, null="permutation") > 30  # which is right: the distributions differ


def test_bootstrap_t_allows_skew():
    def skew(rng, n_case, n_control):
        # of mean 1: the median case lies far below it
        return np.vstack([rng.gamma(0.2, 5, (n_case, 10)), rng.gamma(3, 1 / 3, (n_control, 10))])

    sizes = {"n_case": 20, "n_control": 20, "repeats": 60}
    assert rejected(skew, null="bootstrap-t", **sizes) <= stats.binom.ppf(0.999, 60, 0.05)
    with pytest.warns(GlasWarning, match="bootstrap-t"):
        assert rejected(skew, **sizes) > 25


def test_the_power_is_that_of_permutations_less_little():
    """Three of ten regions raised by 1.5 standard deviations, 12 against 12."""
    found = dict.fromkeys(("sign-flip", "permutation"), 0.0)
    for seed in range(40):
        table = people(12, 12)
        values = np.random.default_rng(seed).normal(size=(24, 10))
        values[:12, :3] += 1.5
        for null in found:
            result = compare(values, table, "AD", "NC", null=null, n_perm=199, n_boot=0, seed=seed)
            found[null] += (result["p_fwe"][:3] <= 0.05).mean() / 40
    assert found["permutation"] > 0.5
    assert found["sign-flip"] > found["permutation"] - 0.08


def volumes():
    """Return maps with a blob in AD; the mask leaves out some voxels, and some inside are constant."""
    table = people(9, 8, sites=list("ab" * 8 + "a"))
    rng = np.random.default_rng(3)
    data = rng.normal(size=(17, 5, 6, 7))
    data[:9, 1:4, 1:4, 2:5] += 2.5
    data[:, 4] = 1.5
    mask = np.ones((5, 6, 7), np.uint8)
    mask[:, 0], mask[0, :, 0] = 0, 0
    return table, data[:, mask > 0], mask > 0


def enhanced(volume):
    """Return TFCE by its definition: extents are constant between two values, where the integral of h^2 is exact."""
    total = np.zeros(volume.shape)
    for sign in (1, -1):
        low = 0.0
        for high in np.unique(volume[sign * volume > 0] * sign):
            labels, _ = ndimage.label(sign * volume >= high)  # neighbours share a face
            extent = np.bincount(labels.ravel())[labels]
            total += np.where(labels > 0, sign * np.sqrt(extent) * (high**3 - low**3) / 3, 0)
            low = high
    return total


@pytest.mark.parametrize("null", ["sign-flip", "bootstrap-t", "permutation"])
def test_tfce_is_the_exact_integral_on_the_voxels_that_vary(null):
    table, values, inside = volumes()
    result = compare(values, table, "AD", "NC", null=null, n_perm=60, n_boot=0, tfce_mask=inside, seed=2)
    varied = np.ptp(values, axis=0) > 0
    t = np.zeros(inside.shape)
    t[inside] = np.where(varied, result["t"], 0)
    np.testing.assert_allclose(result["tfce"][varied], enhanced(t)[inside][varied], rtol=1e-4)
    assert result.loc[~varied, ["t", "tfce", "p_tfce_fwe"]].isna().all(axis=None)
    blob = np.zeros(inside.shape, bool)
    blob[1:4, 1:4, 2:5] = True
    result["blob"] = blob[inside]
    assert (result.loc[result["blob"], "p_tfce_fwe"] <= 0.05).mean() > 0.9
    assert (result.loc[~result["blob"], "p_tfce_fwe"] <= 0.05).mean() < 0.15


def test_a_strong_focus_hides_no_broad_effect():
    """Steps of a share of the largest value would be too coarse for the broad one."""
    table = people(9, 8)
    values = np.random.default_rng(5).normal(size=(17, 6, 7, 8)) * 0.5
    values[:9, 0, 0, 0] += 500
    values[:9, 3:, 3:, 3:] += 1
    inside = np.ones((6, 7, 8), bool)
    result = compare(values[:, inside], table, "AD", "NC", n_perm=99, n_boot=0, tfce_mask=inside)
    broad = np.zeros(inside.shape, bool)
    broad[3:, 3:, 3:] = True
    assert (result.loc[broad[inside], "p_tfce_fwe"] <= 0.05).mean() > 0.8


PEOPLE, VALUES = people(6, 5), saliency(people(6, 5))
REFUSED = {
    "voxels": ({"tfce_mask": volumes()[2]}, r"columns of the values, got 170 voxels in \(5, 6, 7\) for 4 columns"),
    "n_perm": ({"n_perm": 18}, "n_perm must be at least 19, for a p-value to be 0.05, got 18"),
    "null": ({"null": "normal"}, "null must be one of sign-flip, bootstrap-t, permutation, got 'normal'"),
    "n_boot": ({"n_boot": -1}, r"n_boot must be 0 \(no interval\) or more, got -1"),
    "axes": ({"values": np.zeros(11)}, r"values must be participants by regions, got an array of \(11,\)"),
    "rows": ({"values": VALUES[:-1]}, "must have a row a participant, got 10 for 11"),
    "order": ({"values": VALUES[::-1]}, "row 1 is sub-11, the participant sub-01"),
    "constant": ({"values": VALUES * 0 + 3}, "no region can be tested"),
    "empty": ({"values": VALUES * np.nan}, "no region can be tested"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_values_that_cannot_be_compared_are_refused(change, message):
    given = {"values": VALUES, "n_perm": 19} | change
    with pytest.raises(GlasError, match=message):
        compare(given.pop("values"), PEOPLE, "AD", "NC", **given)


def test_tfce_of_a_voxel_without_noise_is_refused():
    table, values, inside = volumes()
    values[:, 3] = table["group"] == "AD"
    with pytest.raises(GlasError, match="TFCE needs finite statistics"):
        compare(values, table, "AD", "NC", n_perm=19, tfce_mask=inside)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["plain", "covariates", "sites"])
def test_shuffled_labels_are_seldom_significant(how):
    """Of 100 data sets without effect, the corrected test rejects in 5 % and sampling error."""
    allowed = stats.binom.ppf(0.999, 100, 0.05)  # 13
    options = {
        "plain": {},
        "covariates": {"covariates": ["age", "sex"]},
        "sites": {"site": "site", "covariates": ["age"]},
    }[how]
    n_rejected, uncorrected, unblocked = 0, 0, 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        # cases come from one site mostly, and the sites differ: what a free permutation would call disease
        table = people(12, 12, sites="a" * 9 + "b" * 3 + "a" * 3 + "b" * 9, seed=seed)
        values = saliency(table, p=8, seed=seed, age=1, site=3 if how == "sites" else 0)
        for site in "ab" if how == "sites" else ("ab",):
            rows = np.flatnonzero(table["site"].isin(list(site)))
            table.loc[rows, "group"] = rng.permutation(table["group"].to_numpy()[rows])
        result = compare(values, table, "AD", "NC", n_perm=199, n_boot=0, seed=seed, **options)
        n_rejected += result["p_fwe"].min() <= 0.05
        uncorrected += result["p_uncorrected"].min() <= 0.05
        if how == "sites":
            free = compare(values, table, "AD", "NC", covariates=["age"], n_perm=199, n_boot=0, seed=seed)
            unblocked += free["p_fwe"].min() <= 0.05
    assert n_rejected <= allowed
    assert uncorrected > allowed
    assert how != "sites" or unblocked > 25
