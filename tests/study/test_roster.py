import numpy as np
import pytest

from glas3d import GlasError
from glas3d.study.roster import read_participants


def table(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("participant_id\tage\nsub-01\t3\n", "participants need a column group, .* has participant_id, age"),
        ("subject\tgroup\nsub-01\tAD\n", "need a column participant_id, .* has subject, group"),
        ("participant_id\tgroup\nsub-../../etc\tAD\n", "with letters and digits after it, got 'sub-../../etc'"),
        ("participant_id\tgroup\n../x\tAD\n", "must be sub- with letters and digits after it, got '../x'"),
        ("participant_id\tgroup\n\tAD\n", "must be sub- with letters and digits after it, got nan"),
        ("participant_id\tgroup\nsub-1\tAD\nsub-1\tNC\n", "every participant needs one row, sub-1 has two"),
        ("participant_id\tsession_id\tgroup\n1\ta/b\tAD\n", "a session_id must be ses- .*, got 'a/b'"),
        ("participant_id\tsession_id\tgroup\n1\t2\tAD\n1\t2\tAD\n", "sub-1 ses-2 has two"),
        ("participant_id\tgroup\nsub-1\tAD\tx\ty\nsub-2\tAD\tx\ty\nsub-1\tz\tz\tz\tz\tz\n", "tab-separated text"),
        ("", "tab-separated text"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_used(tmp_path, text, message):
    path = table(tmp_path / "participants.tsv", text)
    with pytest.raises(GlasError, match=message) as caught:
        read_participants(path)
    assert str(path) in str(caught.value)


def test_tables_that_are_not_there(tmp_path):
    with pytest.raises(GlasError, match="no such file"):
        read_participants(tmp_path / "no.tsv")
    (tmp_path / "participants.tsv").write_bytes(b"participant_id\tgroup\n\xff\xfe\tAD\n")
    with pytest.raises(GlasError, match="tab-separated text"):
        read_participants(tmp_path / "participants.tsv")


def test_numbers_stay_text_where_one_is_none(tmp_path):
    path = table(tmp_path / "p.tsv", "participant_id\tgroup\tage\tcode\n1\tAD\t70\t07\n2\tNC\tn/a\tx7\n")
    found = read_participants(path)
    assert found["age"].iloc[0] == 70
    assert np.isnan(found["age"].iloc[1])
    assert found["code"].tolist() == ["07", "x7"]
