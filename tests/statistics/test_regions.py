import numpy as np
import pandas as pd
import pytest

from glas3d import GlasError, GlasWarning
from glas3d.explain import COLUMNS
from glas3d.statistics.regions import average_sessions, complete, density, laterality, matrix, normalised, region_values
from tests.study.group.test_group_map import INDEX, minmax, person


def long(*sessions):
    """Tables under each other, as they are read: of (participant, session, seed)."""
    tables = [
        person(seed).table.assign(participant_id=who, session_id=session, site="a") for who, session, seed in sessions
    ]
    return pd.concat(tables, ignore_index=True)


SESSIONS = (("sub-2", "ses-1", 0), ("sub-1", "ses-1", 1), ("sub-2", "ses-2", 2), ("sub-2", "ses-3", 3))


def test_sessions_are_averaged_so_that_a_participant_counts_once():
    found = average_sessions(long(*SESSIONS))
    assert found["participant_id"].tolist() == ["sub-2"] * 5 + ["sub-1"] * 5
    assert found["index"].tolist() == INDEX * 2
    assert found["n_sessions"].tolist() == [3] * 5 + [1] * 5
    assert found.columns.tolist() == [*COLUMNS, "participant_id", "site", "n_sessions"]
    for column in ("light", "shadow", "drop", "score"):
        three = np.mean([person(seed).table[column] for seed in (0, 2, 3)], axis=0)
        np.testing.assert_allclose(found[column][:5], three, rtol=1e-12)
        np.testing.assert_allclose(found[column][5:], person(1).table[column], rtol=1e-12)
    for start in (0, 5):
        part = found[start : start + 5]
        assert part["rank"].tolist()[:4] == part["score"].rank(ascending=False)[:4].tolist()
        assert part["rank"].isna().tolist() == [False] * 4 + [True]
    assert found["name"].tolist() == list("abcde") * 2


def test_one_session_each_stays_as_it_is():
    table = long(("sub-1", "ses-1", 0), ("sub-2", "ses-1", 1))
    found = average_sessions(table).drop(columns="n_sessions")
    pd.testing.assert_frame_equal(found, table.drop(columns="session_id"), check_dtype=False)


def test_a_session_without_a_value_does_not_count_for_it():
    table = long(("sub-1", "ses-1", 0), ("sub-1", "ses-2", 1))
    table.loc[0, "score"] = np.nan
    assert average_sessions(table)["score"][0] == table["score"][5]


def test_participants_by_regions():
    table = average_sessions(long(*SESSIONS))
    found = region_values(table)
    assert found.index.tolist() == ["sub-2", "sub-1"]
    assert found.index.name == "participant_id"
    assert found.columns.tolist() == list("abcde")
    np.testing.assert_array_equal(found.to_numpy().ravel(), table["score"])
    np.testing.assert_array_equal(region_values(table, "drop").to_numpy().ravel(), table["drop"])
    scaled = region_values(table, normalise="minmax")
    for who in ("sub-2", "sub-1"):
        np.testing.assert_allclose(scaled.loc[who], minmax(found.loc[who].to_numpy()))
    shares = region_values(table, normalise="share")
    np.testing.assert_allclose(shares, found.div(found.sum(axis=1), axis=0))
    np.testing.assert_allclose(region_values(table.assign(score=table["score"] * 7), normalise="share"), shares)
    shuffled = table.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(region_values(shuffled).loc[found.index, found.columns], found)


def test_names_follow_their_index():
    table = long(("sub-1", "ses-1", 0), ("sub-2", "ses-1", 1))
    turned = pd.concat([table[:5], table[5:][::-1]])
    np.testing.assert_array_equal(region_values(turned).loc["sub-2"], table["score"][5:])


PLAIN = long(("sub-1", "ses-1", 0), ("sub-2", "ses-1", 1)).drop(columns="session_id")
REFUSED = {
    "no participant": (
        average_sessions,
        PLAIN.drop(columns="participant_id"),
        "needs the columns participant_id, index",
    ),
    "session twice": (average_sessions, long(*SESSIONS, SESSIONS[0]), "once a session, sub-2, ses-1, 300 is twice"),
    "no sessions": (average_sessions, pd.concat([PLAIN, PLAIN[:1]]), "once a session, sub-1, 300 is twice"),
    "other regions": (
        average_sessions,
        long(*SESSIONS).drop(index=7 + 5),
        "all sessions of a participant must have the same regions, those of sub-2 have not",
    ),
    "not averaged": (region_values, long(*SESSIONS), "once: average the sessions first"),
    "names": (region_values, PLAIN.assign(name=list("abcab") * 2), "names of their own, two are called a"),
    "lacking": (region_values, PLAIN[:-1], "must have the same regions, sub-2 has 4 of 5"),
    "no score": (density, PLAIN.drop(columns="score"), "needs the columns n_voxels, score, it has"),
    "no pair": (laterality, PLAIN, "names end in _L and _R, there is no such pair"),
    "negative": (laterality, PLAIN.assign(score=-1.5), "laterality needs values of 0 or more, score has -1.5"),
    "negative density": (density, PLAIN.assign(score=-1.5), "density needs values of 0 or more, score has -1.5"),
    "region twice": (laterality, PLAIN.assign(name="a_L"), "a region once a participant"),
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


def test_laterality_is_of_pairs_by_name():
    found = laterality(SIDES)
    assert found["name"].tolist() == ["Hippocampus", "Amygdala"]
    np.testing.assert_allclose(found["laterality"], [-1, 0.6])
    assert found[["left", "right"]].to_numpy().tolist() == [[0, 0.2], [0.4, 0.1]]
    dark = laterality(SIDES.assign(score=[0.0, 0, 0, 0, 1, 0, 0]))
    np.testing.assert_allclose(dark["laterality"], [-1, np.nan])


def test_laterality_and_density_are_a_participant_at_a_time():
    two = pd.concat([SIDES.assign(participant_id="sub-1"), SIDES.assign(participant_id="sub-2")[::-1]])
    two.loc[two["participant_id"] == "sub-2", "score"] **= 2
    both = laterality(two)
    alone = {who: laterality(part) for who, part in two.groupby("participant_id")}
    for row in both.itertuples():
        expected = alone[row.participant_id].set_index("name")["laterality"]
        assert row.laterality == expected[row.name]
    assert len(both) == 4
    dense = density(two)
    for who, part in two.groupby("participant_id"):
        expected = density(part.drop(columns="participant_id"))
        np.testing.assert_allclose(dense.loc[dense["participant_id"] == who, "density"], expected["density"])


def test_density_is_a_share_over_a_share():
    found = density(SIDES)
    np.testing.assert_allclose(found["saliency_share"], np.array([0.1, 0, 5, 0.4, 0.2, 1, np.nan]) / 6.7)
    np.testing.assert_allclose(found["volume_share"], np.array([10, 30, 40, 10, 30, 80, np.nan]) / 200)
    np.testing.assert_allclose(found["density"], found["saliency_share"] / found["volume_share"])
    assert found[["saliency_share", "volume_share"]].sum().tolist() == pytest.approx([1, 1])
    assert (density(SIDES.assign(score=SIDES["n_voxels"] * 0.3))["density"].dropna().round(12) == 1).all()
    assert density(SIDES.assign(score=0.0))["density"].isna().all()
    valueless = density(SIDES.assign(score=[0.1, np.nan, 5, 0.4, 0.2, 1, np.nan]))
    assert valueless["volume_share"].sum() == pytest.approx(1)


def test_a_matrix_has_names_and_its_participants():
    data, names = matrix(np.ones((2, 3)))
    assert (data.shape, names) == ((2, 3), ["1", "2", "3"])
    frame = region_values(PLAIN)
    assert matrix(frame, pd.DataFrame({"participant_id": ["sub-1", "sub-2"]}))[1] == list("abcde")
    assert matrix(frame, pd.DataFrame({"age": [70, 80]}, index=["sub-1", "sub-2"]))[0].shape == (2, 5)
    for wrong in (["sub-2", "sub-1"], ["sub-1", "sub-3"]):
        with pytest.raises(
            GlasError, match=r"must be the participants in order, row . is sub-., the participant sub-."
        ):
            matrix(frame, pd.DataFrame({"participant_id": wrong}))


def test_regions_that_some_lack_are_named():
    data = np.ones((4, 8))
    data[:, 0], data[1:3, 1:] = np.nan, np.nan
    with pytest.warns(GlasWarning, match=r"left out: b \(2 of 4\), c .*, f \(2 of 4\) and 2 more$"):
        known = complete(data, list("abcdefgh"))
    assert not known.any()
    assert complete(np.ones((2, 2)), ["a", "b"]).all()


def test_shares_of_signed_and_of_no_evidence():
    signed = normalised(np.array([3.0, -1.0, np.nan, 0.0]), "share")
    np.testing.assert_allclose(signed, [0.75, -0.25, np.nan, 0.0])
    np.testing.assert_array_equal(normalised(np.array([0.0, np.nan]), "share"), [0.0, np.nan])
    with pytest.raises(GlasError, match="normalise must be one of share, minmax, none, got 'max'"):
        normalised(np.ones(2), "max")
