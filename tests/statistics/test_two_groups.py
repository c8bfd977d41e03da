from itertools import combinations, product

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.maskers import NiftiMasker
from nilearn.mass_univariate import permuted_ols
from scipy import stats

from glas3d import GlasError, GlasWarning
from glas3d.statistics.two_groups import cohen_d, compare
from tests.statistics.people import bootstrapped, people, saliency, within

COLUMNS = [
    "name",
    "n_case",
    "n_control",
    "mean_case",
    "mean_control",
    "difference",
    "adjusted_difference",
    "t",
    "p_uncorrected",
    "p_fwe",
    "neglog10p_fwe",
    "cohen_d",
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


def test_without_covariates_t_is_students_and_d_is_cohens():
    table = people(9, 7)
    values = saliency(table, effect=1)
    result = compare(values, table, "AD", "NC", n_perm=99, n_boot=20)
    case, control = values[:9].to_numpy(), values[9:].to_numpy()
    t, p = stats.ttest_ind(case, control)
    np.testing.assert_allclose(result["t"], t, rtol=1e-10)
    np.testing.assert_allclose(result["p_uncorrected"], p, rtol=1e-9)
    np.testing.assert_allclose(result["mean_case"], case.mean(axis=0))
    np.testing.assert_allclose(result["mean_control"], control.mean(axis=0))
    np.testing.assert_allclose(result["difference"], case.mean(axis=0) - control.mean(axis=0))
    np.testing.assert_allclose(result["adjusted_difference"], result["difference"], rtol=1e-9)
    np.testing.assert_allclose(result["cohen_d"], t * np.sqrt(1 / 9 + 1 / 7), rtol=1e-10)
    np.testing.assert_allclose(result["neglog10p_fwe"], -np.log10(result["p_fwe"]))
    assert result.columns.tolist() == COLUMNS
    assert result["name"].tolist() == values.columns.tolist()
    assert result[["n_case", "n_control"]].drop_duplicates().to_numpy().tolist() == [[9, 7]]


@pytest.mark.parametrize("site", [None, "site"])
def test_covariates_are_adjusted_for_by_least_squares(site):
    table = people(12, 10, sites=SITES)
    values = saliency(table, effect=1, age=2, site=3)
    result = compare(values, table, "AD", "NC", covariates=("age", "sex", "icv"), site=site, n_perm=20, n_boot=0)
    nuisance = [table["age"], table["sex"] == "M", table["icv"] / 1e6]
    nuisance += [table["site"] == name for name in "bc"] if site else []
    beta, t, dof = ols(values.to_numpy(), (table["group"] == "AD").to_numpy(float), nuisance)
    np.testing.assert_allclose(result["t"], t, rtol=1e-8)
    np.testing.assert_allclose(result["adjusted_difference"], beta, rtol=1e-8)
    np.testing.assert_allclose(result["p_uncorrected"], 2 * stats.t.sf(np.abs(t), dof), rtol=1e-7)
    assert "d_low" not in result


@pytest.mark.parametrize("covariates", [(), ("age", "sex")])
def test_without_sites_p_values_are_those_of_permuted_ols(covariates):
    table = people(8, 11)
    values = saliency(table, p=5, effect=1.2, age=1)
    result = compare(values, table, "AD", "NC", covariates=covariates, n_perm=500, n_boot=0, seed=4)
    fixed = np.column_stack([table["age"], (table["sex"] == "M")]).astype(float) if covariates else None
    case = (table["group"] == "AD").to_numpy(float)[:, None]
    expected = permuted_ols(case, values.to_numpy(), fixed, n_perm=500, random_state=4)
    np.testing.assert_allclose(result["t"], expected["t"][0], rtol=1e-8)
    np.testing.assert_allclose(result["neglog10p_fwe"], expected["logp_max_t"][0], rtol=1e-9)


@pytest.mark.parametrize("covariates", [(), ("age", "sex")])
def test_one_site_agrees_with_permuted_ols(covariates):
    table = people(8, 11, sites=["a"] * 19)
    values = saliency(table, p=5, effect=2.5, age=1)
    blocked, free = (
        compare(values, table, "AD", "NC", covariates=covariates, site=site, n_perm=4000, n_boot=0)
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
    result = compare(values, table, "AD", "NC", site="site", n_perm=4000, n_boot=0)
    assert within(result["p_fwe"], exact, 4000)
    free = compare(values, table, "AD", "NC", n_perm=4000, n_boot=0)
    assert not within(free["p_fwe"], exact, 4000)


@pytest.mark.parametrize("site", [None, "site"])
def test_copies_of_the_observed_arrangement_count_whatever_their_rounding(site):
    """Four against four: 2 of 70 arrangements are the observed one or its mirror image."""
    for seed in range(8):
        table = people(4, 4, sites=["a"] * 8)
        values = saliency(table, p=3, seed=seed, effect=30)
        result = compare(values, table, "AD", "NC", site=site, n_perm=1500, n_boot=0, seed=seed)
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
        assert (one["d_low"] != other["d_low"]).all()
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


@pytest.mark.parametrize("site", [None, "site"])
def test_values_that_separate_the_groups_without_noise(site):
    table = people(5, 5, sites=["a", "b"] * 5)
    values = saliency(table, p=3).assign(region2=(table["group"] == "AD").to_numpy(float))
    result = compare(values, table, "AD", "NC", site=site, n_perm=2000, n_boot=10)
    assert result["t"][1] == np.inf
    assert result["p_uncorrected"][1] == 0
    ways = 252 if site is None else 100
    assert within(result["p_fwe"][1], 2 / ways, 2000)
    assert np.isnan(result["cohen_d"][1])


def test_the_interval_of_d_is_the_percentile_bootstrap():
    table = people(14, 17)
    values = saliency(table, p=3, effect=1)
    result = compare(values, table, "AD", "NC", n_perm=19, n_boot=4000)
    case, control = values[:14].to_numpy(), values[14:].to_numpy()
    for i in range(3):
        expected = bootstrapped(
            lambda a, b: (a.mean() - b.mean()) / np.sqrt((13 * a.var(ddof=1) + 16 * b.var(ddof=1)) / 29),
            case[:, i],
            control[:, i],
        )
        np.testing.assert_allclose(result.loc[i, ["d_low", "d_high"]].astype(float), expected, atol=0.12)
    assert (result["d_low"] < result["cohen_d"]).all()
    assert (result["cohen_d"] < result["d_high"]).all()
    flat = cohen_d(np.array([[1.0, 2], [1, 4]]), np.array([[1.0, 2], [1, 2]]))
    np.testing.assert_allclose(flat, [np.nan, 1 / np.sqrt(2 / 2)])


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


def test_tfce_is_nilearns_on_the_voxels_that_vary():
    table, values, inside = volumes()
    result = compare(values, table, "AD", "NC", n_perm=60, n_boot=0, tfce_mask=inside, seed=2)
    varied = np.ptp(values, axis=0) > 0
    kept = np.zeros(inside.shape, np.uint8)
    kept[inside] = varied
    smaller = NiftiMasker(nib.Nifti1Image(kept, np.diag([2.0, 3.0, 4.0, 1.0]))).fit()
    case = (table["group"] == "AD").to_numpy(float)[:, None]
    expected = permuted_ols(case, values[:, varied], n_perm=60, random_state=2, masker=smaller, tfce=True)
    np.testing.assert_allclose(result["tfce"][varied], expected["tfce"][0], rtol=1e-4)
    np.testing.assert_allclose(result["neglog10p_tfce_fwe"][varied], expected["logp_max_tfce"][0], atol=0.02)
    assert result.loc[~varied, ["t", "tfce", "p_tfce_fwe"]].isna().all(axis=None)
    blob = np.zeros(inside.shape, bool)
    blob[1:4, 1:4, 2:5] = True
    result["blob"] = blob[inside]
    assert (result.loc[result["blob"], "p_tfce_fwe"] <= 0.05).mean() > 0.9
    assert (result.loc[~result["blob"], "p_tfce_fwe"] <= 0.05).mean() < 0.1


@pytest.mark.slow
def test_tfce_within_sites_permutes_within_sites():
    table, values, inside = volumes()
    one_site = table.assign(site="a")
    free, blocked = (
        compare(values, table, "AD", "NC", n_perm=100, n_boot=0, tfce_mask=inside, **how)
        for table, how in ((table, {}), (one_site, {"site": "site"}))
    )
    np.testing.assert_allclose(blocked["tfce"], free["tfce"], rtol=1e-4)
    assert within(blocked["p_tfce_fwe"].dropna(), free["p_tfce_fwe"].dropna(), 50)
    two = compare(values, table, "AD", "NC", site="site", covariates=["age"], n_perm=20, tfce_mask=inside)
    assert two["p_tfce_fwe"].min() == 1 / 21


PEOPLE, VALUES = people(6, 5), saliency(people(6, 5))
REFUSED = {
    "voxels": ({"tfce_mask": volumes()[2]}, r"columns of the values, got 170 voxels in \(5, 6, 7\) for 4 columns"),
    "n_perm": ({"n_perm": 18}, "n_perm must be at least 19, for a p-value to be 0.05, got 18"),
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
    with pytest.raises(GlasError, match="TFCE needs finite t values"):
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
    rejected, uncorrected, unblocked = 0, 0, 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        # cases come from one site mostly, and the sites differ: what a free permutation would call disease
        table = people(12, 12, sites="a" * 9 + "b" * 3 + "a" * 3 + "b" * 9, seed=seed)
        values = saliency(table, p=8, seed=seed, age=1, site=3 if how == "sites" else 0)
        for site in "ab" if how == "sites" else ("ab",):
            rows = np.flatnonzero(table["site"].isin(list(site)))
            table.loc[rows, "group"] = rng.permutation(table["group"].to_numpy()[rows])
        result = compare(values, table, "AD", "NC", n_perm=199, n_boot=0, seed=seed, **options)
        rejected += result["p_fwe"].min() <= 0.05
        uncorrected += result["p_uncorrected"].min() <= 0.05
        if how == "sites":
            free = compare(values, table, "AD", "NC", covariates=["age"], n_perm=199, n_boot=0, seed=seed)
            unblocked += free["p_fwe"].min() <= 0.05
    assert rejected <= allowed
    assert uncorrected > allowed
    assert how != "sites" or unblocked > 25
