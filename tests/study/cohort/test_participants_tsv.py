import numpy as np
import pytest

from glas3d import GlasError
from glas3d.study.cohort.participants_tsv import read_participants


def table(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("participant_id\tage\nsub-01\t3\n", "participants need a column group, .* has participant_id, age$"),
        ("subject\tgroup\nsub-01\tAD\n", "need a column participant_id, .* has subject, group"),
        ("participant_id\tgroup\nsub-../../etc\tAD\n", "with letters and digits after it, got 'sub-../../etc'"),
        ("participant_id\tgroup\n../x\tAD\n", "must be sub- with letters and digits after it, got '../x'"),
        ("participant_id\tgroup\n\tAD\n", "every participant needs a participant_id, .* has a row without one: AD"),
        ("participant_id\tgroup\nsub-1\tAD\nsub-1\tNC\n", "every participant needs one row, sub-1 has two"),
        ("participant_id\tsession_id\tgroup\n1\ta/b\tAD\n", "a session_id must be ses- .*, got 'a/b'"),
        ("participant_id\tsession_id\tgroup\n1\t2\tAD\n1\t2\tAD\n", "sub-1 ses-2 has two"),
        ("participant_id\tgroup\nsub-1\tAD\tx\ty\nsub-2\tAD\tx\ty\nsub-1\tz\tz\tz\tz\tz\n", "tab-separated text"),
        ("participant_id,group\nsub-1,AD\n", "need a column participant_id, .* has participant_id,group"),
        ("participant_id\tgroup\nsub-1\tAD\tx\n", "tab-separated text, .* rows have more cells"),
        ("", "tab-separated text"),
    ],
)  # fmt: skip
def test_unusable_tables_are_refused(tmp_path, text, message):
    path = table(tmp_path / "participants.tsv", text)
    with pytest.raises(GlasError, match=message) as caught:
        read_participants(path)
    assert str(path) in str(caught.value)


def test_files_that_are_no_table_are_refused(tmp_path):
    with pytest.raises(GlasError, match="no such file"):
        read_participants(tmp_path / "no.tsv")
    (tmp_path / "participants.tsv").write_bytes(b"participant_id\tgroup\n\xff\xfe\tAD\n")
    with pytest.raises(GlasError, match="tab-separated text"):
        read_participants(tmp_path / "participants.tsv")


QUIRKS = {
    "a byte order mark": "\ufeffparticipant_id\tgroup\tage\nsub-1\tAD\t70\nsub-2\tNC\t71.5\n",
    "blanks around": " participant_id\tgroup \tage\nsub-1 \t AD\t70 \nsub-2\tNC  \t71.5\n",
    "numbers for ids": "participant_id\tgroup\tage\n1\tAD\t70\n2\tNC\t71.5\n",
    "Windows lines": "participant_id\tgroup\tage\r\nsub-1\tAD\t70\r\nsub-2\tNC\t71.5\r\n",
    "a missing group": "participant_id\tgroup\tage\nsub-1\tAD\t70\nsub-2\tNC\t71.5\nsub-3\tn/a \t\n",
    "rows of blanks": "participant_id\tgroup\tage\n\t\t\nsub-1\tAD\t70\n \t \t \r\nsub-2\tNC\t71.5\n\t\t\n",
    "an empty line": "participant_id\tgroup\tage\nsub-1\tAD\t70\n\nsub-2\tNC\t71.5\n",
}


@pytest.mark.parametrize("text", QUIRKS.values(), ids=QUIRKS)
def test_tables_are_read_in_any_of_their_forms(tmp_path, text):
    path = tmp_path / "participants.tsv"
    path.write_bytes(text.encode())
    found = read_participants(path, covariates=["age"])
    assert found["participant_id"].tolist()[:2] == ["sub-1", "sub-2"]
    assert found["group"].dropna().tolist() == ["AD", "NC"]
    assert found["age"].dropna().tolist() == [70.0, 71.5]
    assert found["session"].tolist() == [""] * len(found)


def test_sessions_tsv_next_to_the_table(tmp_path):
    """Their values replace the participant's; without such a table a participant's row belongs to all sessions."""
    path = table(tmp_path / "participants.tsv", "participant_id\tsex\tage\tgroup\nsub-1\tF\t70\tNC\nsub-2\tM\t60\tNC\n")
    (tmp_path / "sub-1").mkdir()
    text = "session_id\tage\tgroup\tmmse\nses-M00\tn/a\tNC\t29\nM12\t71\tAD\t24\n"
    own = table(tmp_path / "sub-1" / "sub-1_sessions.tsv", text)
    found = read_participants(path, covariates=["mmse"])
    rows = found[["participant_id", "session", "group", "sex", "age", "in_sessions_tsv"]].values.tolist()
    assert sorted(rows) == [
        ["sub-1", "ses-M00", "NC", "F", 70, True],
        ["sub-1", "ses-M12", "AD", "F", 71, True],
        ["sub-2", "", "NC", "M", 60, False],
    ]
    assert found.set_index("session")["mmse"].to_dict() == {
        "ses-M00": 29,
        "ses-M12": 24,
        "": pytest.approx(np.nan, nan_ok=True),
    }
    with pytest.raises(GlasError, match=r"need a column iq, .*tsv has .* with 1 sessions.tsv"):
        read_participants(path, covariates=["iq"])
    own.write_text("session_id\tgroup\nM00\tAD\nM00\tNC\n")
    with pytest.raises(GlasError, match="sub-1 ses-M00 has two"):
        read_participants(path)
    own.write_text("session\tgroup\nM00\tAD\n")
    with pytest.raises(GlasError, match=f"need a column session_id, {own} has session, group"):
        read_participants(path)


def test_a_column_stays_text_if_one_value_is_no_number(tmp_path):
    path = table(tmp_path / "p.tsv", "participant_id\tgroup\tage\tcode\n1\tAD\t70\t07\n2\tNC\tn/a\tx7\n")
    found = read_participants(path)
    assert found["age"].iloc[0] == 70
    assert np.isnan(found["age"].iloc[1])
    assert found["code"].tolist() == ["07", "x7"]


@pytest.mark.parametrize("missing", ["NA", "<NA>", "#N/A", "NULL", "n/a", ""])
def test_missing_values_of_other_programs_are_missing(tmp_path, missing):
    """An age of R's NA would make the whole column text, and a group of that name would be one more group."""
    text = f"participant_id\tgroup\tage\nsub-1\tAD\t70\nsub-2\t{missing}\t71\nsub-3\tNC\t{missing}\n"
    found = read_participants(table(tmp_path / "p.tsv", text))
    assert found["group"].fillna("missing").tolist() == ["AD", "missing", "NC"]
    assert found["age"].tolist() == [70, 71, pytest.approx(np.nan, nan_ok=True)]


def test_a_group_may_be_called_na(tmp_path):
    path = table(tmp_path / "p.tsv", "participant_id\tgroup\nsub-NA\tNA\nsub-2\tEU\n")
    assert read_participants(path, groups=("NA", "EU"))["group"].tolist() == ["NA", "EU"]
    assert read_participants(path)["participant_id"].tolist() == ["sub-NA", "sub-2"]


def test_a_row_without_a_session_belongs_to_all_sessions(tmp_path):
    text = "participant_id\tsession_id\tgroup\n1\tn/a\tAD\n2\tM00\tNC\n2\tM12\tNC\n"
    path = table(tmp_path / "p.tsv", text)
    assert read_participants(path)["session"].tolist() == ["", "ses-M00", "ses-M12"]
    path.write_text(text + "2\tn/a\tAD\n")
    with pytest.raises(GlasError, match=f"must all have a session_id or none, sub-2 has both in {path}"):
        read_participants(path)
