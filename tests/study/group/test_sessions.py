"""Several sessions of a participant become one table."""

import numpy as np
import pandas as pd
import pytest

from glas3d import GlasError
from glas3d.explain import COLUMNS
from glas3d.study.group.sessions import average_sessions
from tests.study.group.explanations import INDEX, explanation


def long(*sessions):
    """Return the tables of (participant, session, seed), one under the other, as they are read."""
    tables = [
        explanation(seed).table.assign(participant_id=name, session_id=session, site="a")
        for name, session, seed in sessions
    ]
    return pd.concat(tables, ignore_index=True)


SESSIONS = (("sub-2", "ses-1", 0), ("sub-1", "ses-1", 1), ("sub-2", "ses-2", 2), ("sub-2", "ses-3", 3))


def test_sessions_are_averaged_so_that_a_participant_counts_once():
    averaged = average_sessions(long(*SESSIONS))
    assert averaged["participant_id"].tolist() == ["sub-2"] * 5 + ["sub-1"] * 5
    assert averaged["index"].tolist() == INDEX * 2
    assert averaged["n_sessions"].tolist() == [3] * 5 + [1] * 5
    assert averaged.columns.tolist() == [*COLUMNS, "participant_id", "site", "n_sessions"]
    for column in ("light", "shadow", "drop", "score"):
        three = np.mean([explanation(seed).table[column] for seed in (0, 2, 3)], axis=0)
        np.testing.assert_allclose(averaged[column][:5], three, rtol=1e-12)
        np.testing.assert_allclose(averaged[column][5:], explanation(1).table[column], rtol=1e-12)
    for start in (0, 5):
        part = averaged[start : start + 5]
        assert part["rank"].tolist()[:4] == part["score"].rank(ascending=False)[:4].tolist()
        assert part["rank"].isna().tolist() == [False] * 4 + [True]
    assert averaged["name"].tolist() == list("abcde") * 2


def test_one_session_each_stays_as_it_is():
    table = long(("sub-1", "ses-1", 0), ("sub-2", "ses-1", 1))
    averaged = average_sessions(table).drop(columns="n_sessions")
    pd.testing.assert_frame_equal(averaged, table.drop(columns="session_id"), check_dtype=False)


def test_a_session_without_a_value_does_not_count_for_it():
    table = long(("sub-1", "ses-1", 0), ("sub-1", "ses-2", 1))
    table.loc[0, "score"] = np.nan
    assert average_sessions(table)["score"][0] == table["score"][5]


PLAIN = long(("sub-1", "ses-1", 0), ("sub-2", "ses-1", 1)).drop(columns="session_id")
REFUSED = {
    "no participant": (PLAIN.drop(columns="participant_id"), "needs the columns participant_id, index"),
    "session twice": (long(*SESSIONS, SESSIONS[0]), "session's table once, sub-2, ses-1, 300 is twice"),
    "no sessions": (pd.concat([PLAIN, PLAIN[:1]]), "session's table once, sub-1, 300 is twice"),
    "other regions": (
        long(*SESSIONS).drop(index=7 + 5),
        "all sessions of a participant must have the same regions, those of sub-2 differ",
    ),
}


@pytest.mark.parametrize(("table", "message"), REFUSED.values(), ids=REFUSED)
def test_sessions_that_cannot_be_averaged_are_refused(table, message):
    with pytest.raises(GlasError, match=message):
        average_sessions(table)
