import numpy as np
import pandas as pd
import pytest

from glas3d import GlasError, GlasWarning
from glas3d.statistics.regions import (
    CLR_FLOOR,
    as_matrix,
    complete_regions,
    laterality,
    normalised,
    region_values,
    relative_density,
)

ROWS = pd.DataFrame({"index": [300, 7, 41, 2, 99], "name": list("abcde"), "n_voxels": [28, 16, 6, 16, 0]})


def participant(name, seed):
    """Return one participant's table of five regions; the last has no values."""
    values = np.random.default_rng(seed).uniform(0.1, 1, (2, 5))
    values[:, -1] = np.nan
    return ROWS.assign(participant_id=name, score=values[0], drop=values[1])


def minmax(values):
    return (values - np.nanmin(values)) / (np.nanmax(values) - np.nanmin(values))


PLAIN = pd.concat([participant("sub-1", 0), participant("sub-2", 1)], ignore_index=True)


def test_participants_by_regions():
    table = pd.concat([participant("sub-2", 0), participant("sub-1", 1)], ignore_index=True)
    result = region_values(table)
    assert result.index.tolist() == ["sub-2", "sub-1"]
    assert result.index.name == "participant_id"
    assert result.columns.tolist() == list("abcde")
    np.testing.assert_array_equal(result.to_numpy().ravel(), table["score"])
    np.testing.assert_array_equal(region_values(table, "drop").to_numpy().ravel(), table["drop"])
    scaled = region_values(table, normalise="minmax")
    for name in ("sub-2", "sub-1"):
        np.testing.assert_allclose(scaled.loc[name], minmax(result.loc[name].to_numpy()))
    shares = region_values(table, normalise="share")
    np.testing.assert_allclose(shares, result.div(result.sum(axis=1), axis=0))
    np.testing.assert_allclose(region_values(table.assign(score=table["score"] * 7), normalise="share"), shares)
    shuffled = table.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(region_values(shuffled).loc[result.index, result.columns], result)


def test_names_follow_their_index():
    turned = pd.concat([PLAIN[:5], PLAIN[5:][::-1]])
    np.testing.assert_array_equal(region_values(turned).loc["sub-2"], PLAIN["score"][5:])


REFUSED = {
    "not averaged": (region_values, pd.concat([PLAIN, PLAIN[5:]]), "one row a region: average the sessions first"),
    "names": (region_values, PLAIN.assign(name=list("abcab") * 2), "names of their own, two are called a"),
    "lacking": (region_values, PLAIN[:-1], "must have the same regions, sub-2 has 4 of 5"),
    "no score": (relative_density, PLAIN.drop(columns="score"), "needs the columns n_voxels, score, it has"),
    "no pair": (laterality, PLAIN, "names end in _L and _R, there is no such pair"),
    "negative": (laterality, PLAIN.assign(score=-1.5), "laterality needs values of 0 or more, score has -1.5"),
    "negative density": (
        relative_density,
        PLAIN.assign(score=-1.5),
        "density needs values of 0 or more, score has -1.5",
    ),
    "region twice": (laterality, PLAIN.assign(name="a_L"), "one row a participant and region"),
}


@pytest.mark.parametrize(("function", "table", "message"), REFUSED.values(), ids=REFUSED)
def test_tables_that_do_not_fit_are_refused(function, table, message):
    with pytest.raises(GlasError, match=message):
        function(table)


SIDES = pd.DataFrame(
    {
        "index": [1, 2, 3, 4, 5, 6, 7],
        "name": ["Amygdala_R", "Hippocampus_L", "Vermis_3", "Amygdala_L", "Hippocampus_R", "Insula_L", "Lingual_L"],
        "score": [0.1, 0.0, 5.0, 0.4, 0.2, 1.0, np.nan],
        "n_voxels": [10, 30, 40, 10, 30, 80, 0],
    }
)


def test_laterality_pairs_regions_by_name():
    table = laterality(SIDES)
    assert table["name"].tolist() == ["Hippocampus", "Amygdala"]
    np.testing.assert_allclose(table["laterality"], [-1, 0.6])
    assert table[["left", "right"]].to_numpy().tolist() == [[0, 0.2], [0.4, 0.1]]
    dark = laterality(SIDES.assign(score=[0.0, 0, 0, 0, 1, 0, 0]))
    np.testing.assert_allclose(dark["laterality"], [-1, np.nan])


def test_laterality_and_density_are_computed_within_participants():
    two = pd.concat([SIDES.assign(participant_id="sub-1"), SIDES.assign(participant_id="sub-2")[::-1]])
    two.loc[two["participant_id"] == "sub-2", "score"] **= 2
    both = laterality(two)
    alone = {name: laterality(part) for name, part in two.groupby("participant_id")}
    for row in both.itertuples():
        expected = alone[row.participant_id].set_index("name")["laterality"]
        assert row.laterality == expected[row.name]
    assert len(both) == 4
    dense = relative_density(two)
    for name, part in two.groupby("participant_id"):
        expected = relative_density(part.drop(columns="participant_id"))
        np.testing.assert_allclose(
            dense.loc[dense["participant_id"] == name, "relative_density"], expected["relative_density"]
        )


def test_density_is_a_share_over_a_share():
    table = relative_density(SIDES)
    np.testing.assert_allclose(table["saliency_share"], np.array([0.1, 0, 5, 0.4, 0.2, 1, np.nan]) / 6.7)
    np.testing.assert_allclose(table["volume_share"], np.array([10, 30, 40, 10, 30, 80, np.nan]) / 200)
    np.testing.assert_allclose(table["relative_density"], table["saliency_share"] / table["volume_share"])
    assert table[["saliency_share", "volume_share"]].sum().tolist() == pytest.approx([1, 1])
    assert (
        relative_density(SIDES.assign(score=SIDES["n_voxels"] * 0.3))["relative_density"].dropna().round(12) == 1
    ).all()
    assert relative_density(SIDES.assign(score=0.0))["relative_density"].isna().all()
    valueless = relative_density(SIDES.assign(score=[0.1, np.nan, 5, 0.4, 0.2, 1, np.nan]))
    assert valueless["volume_share"].sum() == pytest.approx(1)


def test_a_matrix_has_names_and_its_participants():
    data, names = as_matrix(np.ones((2, 3)))
    assert (data.shape, names) == ((2, 3), ["1", "2", "3"])
    frame = region_values(PLAIN)
    assert as_matrix(frame, pd.DataFrame({"participant_id": ["sub-1", "sub-2"]}))[1] == list("abcde")
    assert as_matrix(frame, pd.DataFrame({"age": [70, 80]}, index=["sub-1", "sub-2"]))[0].shape == (2, 5)
    for wrong in (["sub-2", "sub-1"], ["sub-1", "sub-3"]):
        with pytest.raises(
            GlasError, match=r"must be the participants in order, row . is sub-., the participant sub-."
        ):
            as_matrix(frame, pd.DataFrame({"participant_id": wrong}))


def test_incomplete_regions_are_named_in_a_warning():
    data = np.ones((4, 8))
    data[:, 0], data[1:3, 1:] = np.nan, np.nan
    with pytest.warns(GlasWarning, match=r"left out: b \(2 of 4\), c .*, f \(2 of 4\) and 2 more$"):
        known = complete_regions(data, list("abcdefgh"))
    assert not known.any()
    assert complete_regions(np.ones((2, 2)), ["a", "b"]).all()


def test_shares_of_signed_and_of_zero_scores():
    signed = normalised(np.array([3.0, -1.0, np.nan, 0.0]), "share")
    np.testing.assert_allclose(signed, [0.75, -0.25, np.nan, 0.0])
    np.testing.assert_array_equal(normalised(np.array([0.0, np.nan]), "share"), [0.0, np.nan])
    with pytest.raises(GlasError, match="normalise must be one of share, clr, minmax, none, got 'max'"):
        normalised(np.ones(2), "max")


def test_log_ratios_of_unchanged_regions_do_not_fall_where_another_rises():
    scores = np.random.default_rng(0).uniform(1, 3, size=9)
    raised = scores.copy()
    raised[np.argmax(scores)] *= 50
    unchanged = np.arange(9) != np.argmax(scores)
    for normalise, same in (("clr", True), ("share", False)):
        before, after = normalised(scores, normalise), normalised(raised, normalise)
        assert np.allclose(before[unchanged], after[unchanged]) == same
    np.testing.assert_allclose(normalised(1000 * scores, "clr"), normalised(scores, "clr"))
    np.testing.assert_allclose(normalised(np.e * np.array([1.0, np.e, np.e**3]), "clr"), [-1, 0, 2])


def test_log_ratios_of_zero_and_of_signed_scores():
    ratios = normalised(np.array([0.0, np.nan, 2.0, 2.0, 1e-9]), "clr")
    np.testing.assert_allclose(np.diff(ratios[[0, 2]]), np.log(1 / CLR_FLOOR))
    assert ratios[0] == ratios[4]
    assert np.isnan(ratios[1])
    np.testing.assert_array_equal(normalised(np.array([0.0, np.nan]), "clr"), [0.0, np.nan])
    with pytest.raises(GlasError, match=r"must be 0 or more, got -0.3: signed scores"):
        normalised(np.array([1.0, -0.3]), "clr")
