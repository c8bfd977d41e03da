"""Docstrings, as numpydoc and Sphinx want them.

The docstrings of the package are read in an editor and by ``help()``, so that they hold no markup that only a site can
read. What the site adds is added here: the types of parameters, which stand in the signatures, links to the pages that a
docstring names, and what a function returns as a text, where numpydoc expects a list of types.
"""

import inspect
import re
import sys
import typing
from functools import cache
from pathlib import Path

from sphinx.util.inspect import signature
from sphinx.util.typing import stringify_annotation

DOCS = Path(__file__).parents[1]
_HEADING = re.compile(r"^-{3,}$")
_PAGE = re.compile(r'documentation:\s"([^"]+)"')


def setup(app):
    """Change docstrings before numpydoc reads them."""
    app.connect("autodoc-process-docstring", _on_docstring, priority=400)


def _on_docstring(app, what, name, obj, options, lines):
    text = _PAGE.sub(_link, "\n".join(lines))
    lines[:] = with_types(with_returns_as_one_line(text.split("\n")), types_of(obj))


@cache
def headings() -> dict[str, str]:
    """Return the page of each heading of docs/, by the heading and by the part of it before a colon."""
    pages: dict[str, str] = {}
    for page in sorted(DOCS.glob("*.md")):
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
            for title in (heading, heading.partition(":")[0]):
                pages.setdefault(title, page.stem)
    return pages


def named_pages(docstring: str) -> list[str]:
    """Return the titles of the pages and sections of the documentation that a docstring names.

    >>> named_pages('Fuse scales (documentation: "Which\\nsigma?").')
    ['Which sigma?']
    """
    return [" ".join(title.split()) for title in _PAGE.findall(docstring)]


def _link(match: re.Match) -> str:
    title = " ".join(match[1].split())
    return f"documentation: :doc:`{title} </{headings()[title]}>`"


def with_returns_as_one_line(lines: list[str]) -> list[str]:
    """Return the lines of a docstring in which a text under "Returns" is one line, which numpydoc shows as a text.

    >>> with_returns_as_one_line(["Returns", "-------", "The map of", "one volume.", ""])
    ['Returns', '-------', 'The map of one volume.', '']
    """
    changed, position = [], 0
    while position < len(lines):
        changed.append(lines[position])
        position += 1
        if _HEADING.match(changed[-1]) and len(changed) > 1 and changed[-2] in ("Returns", "Yields"):
            text = []
            while position < len(lines) and lines[position].strip():
                text.append(lines[position])
                position += 1
            is_prose = not any(line.startswith(" ") for line in text)
            changed += [" ".join(text)] if is_prose else text
    return changed


def with_types(lines: list[str], types: dict[str, str]) -> list[str]:
    """Return the lines of a docstring in which the parameters have their types.

    >>> with_types(["Parameters", "----------", "n, m", "    Counts."], {"n": "int", "m": "int"})
    ['Parameters', '----------', 'n, m : ``int``', '    Counts.']
    """
    changed, section = [], ""
    for number, line in enumerate(lines):
        if number + 1 < len(lines) and _HEADING.match(lines[number + 1]):
            section = line
        names = line.split(", ") if section in ("Parameters", "Attributes") and re.match(r"\w", line) else []
        kinds = {types.get(name, "") for name in names}
        typed = len(kinds) == 1 and "".join(kinds) and " : " not in line
        changed.append(f"{line} : ``{kinds.pop()}``" if typed else line)
    return changed


def types_of(obj: object) -> dict[str, str]:
    """Return the types of the parameters of a function, or of the fields of a class, as text."""
    try:
        parameters = signature(obj).parameters
    except (TypeError, ValueError):
        parameters = {}
    types = {name: each.annotation for name, each in parameters.items()}
    if inspect.isclass(obj):
        for base in reversed(obj.__mro__):
            types |= {name: kind for name, kind in vars(base).get("__annotations__", {}).items() if name not in types}
    return {name: _written(kind) for name, kind in types.items() if kind is not inspect.Parameter.empty}


def _written(kind: object) -> str:
    text = kind if isinstance(kind, str) else stringify_annotation(kind, "smart", short_literals=True)
    text = re.sub(r"~?(?:[a-z_]\w*\.)+(?=[A-Za-z])", "", text)  # numpy.ndarray is ndarray
    text = re.sub(r"\b[A-Z]\w+\b", lambda name: _choices().get(name[0], name[0]), text)
    parts = list(dict.fromkeys(part.strip() for part in text.split(" | "))) if "[" not in text else [text]
    return " | ".join(parts)


@cache
def _choices() -> dict[str, str]:
    """Return the values of the types that have a name in the package and few values, such as ``Kernel``."""
    return {
        name: " | ".join(map(repr, typing.get_args(kind)))
        for module in list(sys.modules.values())
        if getattr(module, "__name__", "").startswith("glas3d.")
        for name, kind in vars(module).items()
        if typing.get_origin(kind) is typing.Literal
    }
