import os
import socket
from pathlib import Path

import pytest

from glas3d import cli
from glas3d.errors import GlasError
from glas3d.hashing import file_sha256
from glas3d.imaging.lookup_table import read_lookup_table
from glas3d.imaging.picture import load_picture
from glas3d.imaging.scan import load_scan, open_image
from glas3d.imaging.spatial_transform import load_transform
from glas3d.predict import load_model
from glas3d.reading import (
    check_regular,
    open_regular,
    parse_json,
    read_bytes,
    read_json,
    read_json_object,
    read_text,
    read_toml,
)
from glas3d.study.config import read_config
from glas3d.study.derivatives import read_study
from glas3d.tables import read_table

only_posix = pytest.mark.skipif(os.name == "nt", reason="Windows has other kinds of files")
READERS = {
    "bytes": lambda path: read_bytes(path, "a file"),
    "text": lambda path: read_text(path, "a file"),
    "JSON": lambda path: read_json(path, "a file"),
    "TOML": lambda path: read_toml(path, "a file"),
    "a table": read_table,
    "a configuration": lambda path: read_config(path, ()),
    "a look-up table": lambda path: read_lookup_table(path, (1,)),
    "a scan": load_scan,
    "the header of a scan": open_image,
    "a picture": load_picture,
    "a transform": load_transform,
    "an exported model": lambda path: load_model(path.rename(path.with_suffix(".pt2")), activation="softmax"),
    "an ONNX model": lambda path: load_model(path.rename(path.with_suffix(".onnx")), activation="softmax"),
}


def pipe(path):
    os.mkfifo(path)
    return path


def device(path):
    path.symlink_to("/dev/zero")
    return path


def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
    return path


def huge(path):
    with path.open("wb") as file:
        file.truncate(2**41)
    return path


@only_posix
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("make", "why"), [(pipe, "is a named pipe"), (device, "is a device"), (unix_socket, "is a socket")]
)
def test_what_is_no_regular_file_is_refused_at_once(reader, make, why, tmp_path):
    """A pipe that nobody writes to would be waited for, and a device never ends."""
    path = make(tmp_path / "given.nii")
    with pytest.raises(GlasError, match=rf"must be a file that you may read, .*given\.\w+ is not: {why}$"):
        READERS[reader](path)


@only_posix
def test_a_pipe_among_results_is_missing_and_not_waited_for(tmp_path):
    with pytest.raises(OSError, match="is a named pipe"):
        file_sha256(pipe(tmp_path / "map.nii.gz"))
    (tmp_path / "study.json").symlink_to("/dev/zero")
    assert read_study(tmp_path) == {}


@pytest.mark.parametrize("reader", [read_bytes, read_text, read_json, read_toml, check_regular])
def test_a_path_that_cannot_be_opened_is_named(reader, tmp_path):
    for path, message in {
        tmp_path / "none": rf"no such file: {tmp_path}/none$",
        tmp_path: rf"a file must be a file that you may read, {tmp_path} is not: is a directory$",
        tmp_path / ("n" * 300): "nnn is not: file name too long$",
        tmp_path / "a\0b": "is not: no file can have such a name$",
        tmp_path / "\ud800": "is not: no file can have such a name$",
    }.items():
        with pytest.raises(GlasError, match=message):
            reader(path, "a file")


def test_a_file_without_permission_is_named(tmp_path, monkeypatch):
    """Root may read every file."""

    def refuse(path, flags):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("glas3d.reading.os.open", refuse)
    with pytest.raises(GlasError, match=r"is not: permission denied$"):
        read_text(tmp_path / "a", "a file")


def test_a_file_beyond_the_stated_size_is_not_read(tmp_path):
    path = huge(tmp_path / "huge.tsv")
    for reader, most in ((read_json, 2**26), (read_toml, 2**16), (read_table, 2**30)):
        with pytest.raises(GlasError, match=rf"must have at most {most:,} bytes, .*huge.tsv has {2**41:,}$"):
            reader(path, "a file")
    (tmp_path / "small").write_bytes(b"12345")
    assert read_bytes(tmp_path / "small", "a file", 5) == b"12345"
    with pytest.raises(GlasError, match=r"at most 4 bytes, .*small has 5"):
        read_bytes(tmp_path / "small", "a file", 4)


DEEP, DIGITS = b"it is nested more than 100 deep", b"it holds a number of too many digits"


@pytest.mark.parametrize(
    ("content", "why"),
    {
        "nested": (b"[" * 100_000, DEEP),
        "nested objects": (b'{"a":' * 100_000, DEEP),
        "nested and whole": (b"[" * 102 + b"]" * 102, DEEP),
        "a million digits": (b"9" * 10**6, DIGITS),
        "digits that no float has": (b'{"a": [' + b"9" * 400 + b"]}", DIGITS),
        "no UTF-8": (b'{"a": "\xff"}', b"can't decode byte 0xff"),
        "half a character": (rb'{"a": "\uD800"}', b"surrogates not allowed"),
        "NUL": (b"\0", b"Expecting value"),
        "empty": (b"", b"Expecting value"),
        "cut": (b'{"a": ', b"Expecting value"),
    }.values(),
)
def test_json_that_cannot_be_used_is_refused_by_a_sentence(content, why, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(GlasError, match=rf"a file must be JSON in UTF-8, {path} is not: .*{why.decode()}"):
        read_json(path, "a file")


@pytest.mark.parametrize(
    ("content", "why"),
    {
        "nested": (b"a = " + b"[" * 20_000, DEEP),
        "nested and whole": (b"a = " + b"[" * 102 + b"]" * 102, DEEP),
        "a key of many parts": (b"a." * 20_000 + b"a = 1", b"it has a key of more than 100 parts"),
        "many digits": (b"a = " + b"9" * 50_000, DIGITS),
        "no UTF-8": (b'a = "\xff"', b"can't decode byte 0xff"),
        "NUL": (b'a = "\0"', b"Illegal character"),
    }.values(),
)
def test_toml_that_cannot_be_used_is_refused_by_a_sentence(content, why, tmp_path):
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    with pytest.raises(GlasError, match=rf"a file must be TOML, {path} is not: .*{why.decode()}"):
        read_toml(path, "a file")


def test_what_can_be_used_is_read(tmp_path):
    (tmp_path / "a").write_bytes(
        b'\xef\xbb\xbf{"a": [1, -2.5, "\xc3\xa9", "\\ud83e\\udde0", ' + b"[" * 90 + b"]" * 90 + b"]}"
    )
    assert read_json_object(tmp_path / "a", "a file")["a"][:4] == [1, -2.5, "é", "\N{BRAIN}"]
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfa = 1\r\n")
    assert read_toml(tmp_path / "a", "a file") == {"a": 1}
    assert parse_json(b'{"a": 1, "a": 2}', list) == [("a", 1), ("a", 2)]
    for content, came in {b"[]": "a list", b'"a"': "a text", b"null": "null", b"1": "a number or truth value"}.items():
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(GlasError, match=f"must be a JSON object, {tmp_path}/a holds {came}"):
            read_json_object(tmp_path / "a", "a file")


def test_a_link_leads_to_the_file_that_is_read(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "link").symlink_to("a")
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"content"


@only_posix
@pytest.mark.parametrize("command", ["verify", "report"])
def test_commands_do_not_wait_for_a_pipe_in_a_folder_of_results(command, tmp_path, capsys):
    for name in ("study.json", "hashes.json", "dataset_description.json", "a_regions.json", "a_regions.tsv"):
        pipe(tmp_path / name)
    assert cli.run([command, str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


NOT_OF_USERS = {  # files of glas3d's own, of its process, or of the system
    "cli/__init__.py": "os.devnull",
    "imaging/ants_process.py": "job.json",
    "report/webpage/writing.py": "_STATIC",
    "report/webpage/content.py": "figure.png",
    "study/group/memory.py": "/proc and /sys",
    "user_cache.py": "a private folder",
    "output.py": "what was just written",
}


def test_no_other_module_opens_files_for_reading():
    """Every text that users give comes in by one module."""
    package = Path(cli.__file__).parents[1]
    direct = (
        ".read_text(",
        ".read_bytes(",
        '.open("rb")',
        "json.load(",
        "tomllib.load(",
        "nib.load(",
        "Image.open(path",
    )
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(each in path.read_text(encoding="utf-8") for each in direct)
    }
    assert found - NOT_OF_USERS.keys() == {"imaging/scan.py", "imaging/space.py"}, "nibabel's loader, and a template"
