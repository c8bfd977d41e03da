"""The API reference: a page for each room with public names, and a page for each of these names."""

import importlib
import inspect
import pkgutil
from dataclasses import dataclass
from pathlib import Path

from sphinx.errors import PycodeError
from sphinx.pycode import ModuleAnalyzer

import glas3d
from site_pages.files import write_pages

# The order in which a reader meets the rooms; those that are not named follow in the order of the alphabet.
ORDER = ["glas3d", "explain", "predict", "study", "report", "evaluate", "verify", "simulate", "imaging", "statistics"]


@dataclass(frozen=True)
class PublicName:
    """A public name of a room.

    Attributes
    ----------
    room, name
        The room's dotted name, and the name in it.
    value
        What it names.
    """

    room: str
    name: str
    value: object

    @property
    def path(self) -> str:
        """The dotted name."""
        return f"{self.room}.{self.name}"


def rooms() -> list[str]:
    """Return the dotted names of the packages that export names: those with a stub that lists them."""
    modules = [glas3d, *(importlib.import_module(m.name) for m in _packages())]
    names = [module.__name__ for module in modules if Path(module.__file__).with_suffix(".pyi").exists()]

    def place(name: str) -> tuple[int, str]:
        first = name.removeprefix("glas3d.").partition(".")[0]
        return (ORDER.index(first) if first in ORDER else len(ORDER), name)

    return sorted(names, key=place)


def _packages():
    return [m for m in pkgutil.walk_packages(glas3d.__path__, "glas3d.") if m.ispkg and "_shipped" not in m.name]


def public_names(room: str) -> list[PublicName]:
    """Return what a room exports; rooms within it are not among them, because they have pages of their own."""
    module = importlib.import_module(room)
    values = {name: getattr(module, name) for name in module.__all__}
    return [PublicName(room, name, value) for name, value in values.items() if not inspect.ismodule(value)]


def pages() -> dict[str, str]:
    """Return the pages: ``index.rst``, one page for each room, and one for each name."""
    written: dict[str, str] = {}
    shown: list[PublicName] = []
    listing = []
    for room in rooms():
        names = public_names(room)
        own = [name for name in names if not any(_same(name, other) for other in shown)]
        again = [next(other for other in shown if _same(name, other)) for name in names if name not in own]
        shown += own
        written |= {f"{name.path}.rst": _name_page(name) for name in own}
        written[f"{room}.rst"] = _room_page(room, own, again)
        listing.append((room, _first_paragraph(importlib.import_module(room).__doc__)))
    written["index.rst"] = _index_page(listing)
    return written


def write(folder: Path) -> None:
    """Write the pages into a folder."""
    write_pages(folder, pages())


def _same(name: PublicName, other: PublicName) -> bool:
    """Return whether two names are one thing, exported by two rooms; equal lists are not."""
    return name.name == other.name and name.value is other.value


def _first_paragraph(docstring: str | None) -> str:
    return " ".join((docstring or "").strip().split("\n\n")[0].split())


def _title(text: str) -> str:
    return f"{text}\n{'=' * len(text)}\n\n"


def _index_page(listing: list[tuple[str, str]]) -> str:
    lines = [_title("Python"), "Everything that a user may import. Other names may change without notice.\n\n"]
    lines += [".. list-table::\n   :widths: 30 70\n\n"]
    lines += [f"   * - :doc:`{room} <{room}>`\n     - {text}\n" for room, text in listing]
    lines += ["\n.. toctree::\n   :hidden:\n\n", *(f"   {room} <{room}>\n" for room, _ in listing)]
    return "".join(lines)


def _room_page(room: str, own: list[PublicName], again: list[PublicName]) -> str:
    text = _first_paragraph(importlib.import_module(room).__doc__)
    lines = [_title(room), f".. py:module:: {room}\n\n", text, "\n\n"]
    for title, kind in (("Functions", "function"), ("Classes", "class"), ("Values", "data")):
        of_kind = [name for name in [*own, *again] if _kind(name.value) == kind]
        if of_kind:
            lines.append(f".. rubric:: {title}\n\n.. list-table::\n   :widths: 30 70\n\n")
            lines += [f"   * - :doc:`{each.name} <{each.path}>`\n     - {_summary(each)}\n" for each in of_kind]
            lines.append("\n")
    if own:
        lines += [".. toctree::\n   :hidden:\n\n", *(f"   {name.name} <{name.path}>\n" for name in own)]
    return "".join(lines)


def _kind(value: object) -> str:
    if inspect.isclass(value):
        return "class"
    return "function" if callable(value) else "data"


def _summary(name: PublicName) -> str:
    if _kind(name.value) == "data":
        return _first_paragraph(_text_of_value(name))
    return _first_paragraph(inspect.getdoc(name.value))


def _name_page(name: PublicName) -> str:
    head = _title(name.name)
    kind = _kind(name.value)
    if kind == "data":
        text = "\n".join(f"   {line}" for line in [*_text_of_value(name).splitlines(), "", *_shown_value(name.value)])
        return f"{head}.. py:data:: {name.path}\n\n{text}\n"
    if kind == "function":
        return f"{head}.. autofunction:: {name.path}\n"
    inherited = "   :inherited-members:\n" if all(map(_is_ours, name.value.__mro__)) else ""
    return f"{head}.. autoclass:: {name.path}\n   :members:\n{inherited}"


def _is_ours(base: type) -> bool:
    """Return whether the members of a base class are shown: those of torch or Captum are not."""
    return base.__module__.partition(".")[0] in ("glas3d", "abc", "typing") or base is object


def _text_of_value(name: PublicName) -> str:
    """Return the text that stands in the code under a value, or in the comment above it."""
    module = importlib.import_module(name.room)
    stub = Path(module.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    source = next(line.split()[1] for line in stub.splitlines() if line.endswith(f" as {name.name}"))
    try:
        comments = ModuleAnalyzer.for_module(f"{name.room}{source}").find_attr_docs()
    except PycodeError:
        return ""
    return "\n".join(comments.get(("", name.name), []))


def _shown_value(value: object) -> list[str]:
    items = list(value) if isinstance(value, (list, tuple, dict)) else [value]
    return [", ".join(f"``{item}``" for item in items)]
