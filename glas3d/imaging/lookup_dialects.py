"""The dialects of look-up tables without named columns: each line is read in one of them, or the file is refused."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from glas3d.errors import GlasError, reason
from glas3d.reading import read_bytes

Row = tuple[int, str]

_INDEX = r"(?P<index>\d+)"
_NAME = r"(?P<name>\S*[^\W\d]\S*(?:\s+\S+)*?)"  # its first word has a letter
_WORD = r"\S*[^\W\d]\S*"
_LEVEL = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"  # of a colour, 0 to 255
_SHARE = r"(?:0?\.\d+|[01](?:\.\d*)?)(?:[eE][-+]?\d+)?"  # of a colour, 0 to 1


@dataclass(frozen=True)
class Dialect:
    """A form that every line of a look-up table has.

    Attributes
    ----------
    software
        Who writes it, for messages.
    form
        The line; the groups ``index`` and ``name`` are read.
    plain
        Whether nothing but the name follows the label, so that a name of several words may be two columns.
    """

    software: str
    form: re.Pattern[str]
    plain: bool = False


DIALECTS = (
    Dialect("ITK-SNAP", re.compile(rf'{_INDEX}(?:\s+\d+){{3}}\s+[\d.]+\s+[01]\s+[01]\s+"(?P<name>[^"]*)"')),
    Dialect("FSL", re.compile(rf"{_INDEX}(?:\s+{_SHARE}){{3}}\s+{_NAME}")),
    Dialect(
        "MRtrix",
        re.compile(rf"{_INDEX}\s+(?P<short>{_WORD})\s+(?P<name>{_WORD})(?:\s+{_LEVEL}){{4}}"),
    ),
    Dialect("FreeSurfer", re.compile(rf"{_INDEX}\s+{_NAME}(?:\s+{_LEVEL}){{4}}")),
    Dialect("FreeSurfer", re.compile(rf"{_INDEX}\s+{_NAME}(?:\s+{_LEVEL}){{3}}")),
    Dialect(
        "MRIcron",
        re.compile(rf"{_INDEX}(?:\t(?P<name>[^\t]*[^\W\d][^\t]*)\t|\s+(?P<word>{_WORD})\s+)\d+"),
        plain=True,
    ),
    Dialect("SPM", re.compile(rf"{_WORD}\s+(?P<name>{_WORD})\s+{_INDEX}"), plain=True),
    Dialect("an index and a name", re.compile(rf"{_INDEX}[\s,;:]+{_NAME}"), plain=True),
)
"""The dialects in the order in which they are tried."""

KNOWN = "tables of BIDS, CAT12, FreeSurfer, FSL, ITK-SNAP, MRtrix, MRIcron and SPM"


def read_lines(lines: Sequence[str], path: Path, present: Collection[int] = ()) -> list[Row]:
    """Return index and name of each line of a table in one of `DIALECTS`; comments and blank lines are left out.

    Parameters
    ----------
    present
        The labels of the atlas.

    Raises
    ------
    GlasError
        The lines are in none of the dialects, or in one without colours and a name belongs to several labels: it may
        be another dialect, of which only a part of the name was read.
    """
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1)]
    numbered = [(number, line) for number, line in numbered if line and not line.startswith(("#", "//"))]
    furthest = 0
    for dialect in DIALECTS:
        matches = [dialect.form.fullmatch(line) for _, line in numbered]
        if None in matches:
            furthest = max(furthest, matches.index(None))
            continue
        matched = [match.groupdict() for match in matches if match]
        rows = [(int(one["index"]), (one["name"] or one.get("word") or "").strip()) for one in matched]
        shorts = [one["short"] for one in matched if "short" in one]
        if dialect.plain or len(set(shorts)) == len(shorts):
            if dialect.plain:
                _refuse_repeated([row for row in rows if row[0] in present], path)
            return rows
    number, line = numbered[furthest]
    raise GlasError(f"line {number} of {path} must be a label and its name, it is {line[:40]!r} ({KNOWN} are read)")


def _refuse_repeated(rows: Sequence[Row], path: Path) -> None:
    labels: dict[str, int] = {}
    for label, name in rows:
        if name in labels:
            raise GlasError(
                f"every label must have a name of its own, {path} names {labels[name]} and {label} {name!r}: "
                f"is it in another dialect? {KNOWN} are read"
            )
        labels[name] = label


def read_xml(path: Path) -> list[Row]:
    """Return the label in the image and the name of each region of FSL's ``.xml`` files.

    FSL counts the volumes of probabilistic atlases from 0 and their labels in the image from 1; in atlases of labels
    the two are the same.

    Raises
    ------
    GlasError
        The file does not exist or is no such description.
    """
    content = read_bytes(path, "an atlas table")
    try:
        if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
            raise ValueError("it declares entities")
        root = ElementTree.fromstring(content)
        kind = (root.findtext("header/type") or "").strip().lower()
        labels = root.findall("data/label")
        if root.tag != "atlas" or not labels:
            raise ValueError("it has no atlas with labels")
        if kind not in ("label", "probabilistic", "probabalistic", "statistic"):  # FSL's own files misspell it
            raise ValueError(f"its type is {kind!r}")
        first = 0 if kind == "label" else 1
        return [
            (int(label.get("value", int(label.attrib["index"]) + first)), " ".join("".join(label.itertext()).split()))
            for label in labels
        ]
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise GlasError(f"an atlas table in XML must be FSL's, {path} is not: {reason(error)}") from None
