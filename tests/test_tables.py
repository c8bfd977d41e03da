import pandas as pd
import pytest

from glas3d.errors import GlasError
from glas3d.tables import read_table, write_table


@pytest.fixture
def file(tmp_path):
    def write(content, name="t.tsv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_cells_stay_text_without_blanks_and_with_missing_values(file):
    table = read_table(file("\ufeff id \tage\n 01 \t7\nNA\tn/a\n\tnan\n"))
    assert list(table.columns) == ["id", "age"]
    assert table["id"].fillna("missing").tolist() == ["01", "NA", "missing"]
    assert table["age"].fillna("missing").tolist() == ["7", "missing", "missing"]


def test_columns_become_numbers_unless_they_are_named(file):
    table = read_table(file("session\tp\n01\t0.5\nn/a\t1\n"), text=("session", "absent"))
    assert table["session"].fillna("missing").tolist() == ["01", "missing"]
    assert table["p"].tolist() == [0.5, 1]


def test_what_counts_as_missing_can_be_chosen(file):
    table = read_table(file("name\nn/a\nnan\n"), missing=())
    assert table["name"].tolist() == ["n/a", "nan"]


def test_a_csv_file_is_separated_by_commas(file):
    assert read_table(file("a,b\n1,2\n", "t.CSV"))["b"].tolist() == ["2"]


def test_a_table_is_read_as_it_was_written(tmp_path):
    table = pd.DataFrame({"name": ["a\tb", 'c "d"'], "x": [0.1 + 0.2, None]})
    write_table(table)(tmp_path / "t.tsv")
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.tsv", text=("name",)), table, check_dtype=False)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "no such file: .*t.tsv"),
        ("", "a list must be tab-separated text, .*t.tsv is not: No columns"),
        (b"\xff\xfe\x00\x81", "a list must be tab-separated text, .*t.tsv is not: "),
        ("a\tb\n1\t2\t3\n", "a list must be tab-separated text, .*t.tsv is not: rows have more cells than columns"),
    ],
)
def test_what_is_no_table_is_refused_in_one_sentence(file, tmp_path, content, match):
    path = tmp_path / "t.tsv" if content is None else file(content)
    with pytest.raises(GlasError, match=match) as caught:
        read_table(path, "a list")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        'id\tnote\n1\t"left\n2\tright\n3\t"\n',
        'id\tnote\n1\tnone\n2\t"left\n3\tright\n',
        'id\tnote\n1\tnone\n2\t"left" side\n3\tright\n',
        '"id\tnote\n1\tnone\n2\tleft"\n',
    ],
)
def test_a_quotation_mark_that_would_swallow_rows_is_refused(file, content):
    line = next(number for number, text in enumerate(content.split("\n"), 1) if '"' in text)
    with pytest.raises(GlasError, match=f"t.tsv is not: a quotation mark in line {line} is not closed"):
        read_table(file(content))


def test_quotation_marks_within_a_cell_or_around_it_are_kept_or_dropped(file):
    table = read_table(file('id\tnote\n"1"\t5" scar\n2\t"a ""b"" c"\n'))
    assert table["id"].tolist() == ["1", "2"]
    assert table["note"].tolist() == ['5" scar', 'a "b" c']


@pytest.mark.parametrize(("name", "blank"), [("t.tsv", " \t\t"), ("t.csv", ",, ")])
def test_rows_without_content_are_dropped(file, name, blank):
    mark = blank.strip(" ")[0]
    rows = [mark.join("abc"), blank, mark.join("123"), blank, mark.join(("4", "", "n/a")), blank, ""]
    table = read_table(file("\r\n".join(rows), name))
    assert table["a"].tolist() == ["1", "4"]
    assert table["c"].fillna("missing").tolist() == ["3", "missing"]
