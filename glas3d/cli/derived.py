"""Options of the commands, derived from the dataclasses that declare them (see `glas3d.options`)."""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Collection, Mapping
from dataclasses import MISSING, Field, field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from cyclopts import Group, Parameter

from glas3d.options import documentation

# The order in which --help lists the groups of options.
_ORDER = (
    "Arguments",
    "Audit",
    "Model",
    "Output",
    "Input",
    "Participants",
    "Scans",
    "Covariates",
    "Folds",
    "Training",
    "Disease",
    "Images",
    "Anatomy and artefacts",
    "Where to look",
    "Masks and scales",
    "Score and mode",
    "Recursion",
    "Saliency map",
    "Reference",
    "Native space",
    "Group maps (group level)",
    "Tests (group level)",
    "Voxelwise comparison (group level)",
    "Correlations (group level)",
    "Change over sessions (group level)",
    "Stability (group level)",
    "Speed",
    "Messages",
)
_PATHS = {"file": Path, "files": tuple[Path, ...]}


def group(title: str) -> Group:
    """Return the group of options of a title, in its position in the help."""
    return Group(title, sort_key=_ORDER.index(title))


def in_group(title: str, **settings: Any) -> Parameter:
    """Return the settings of an option that is listed in a group."""
    return Parameter(group=group(title), negative=(), show_default=False, **settings)


def command_options(name: str, *declarations: type, without: Collection[str] = ()) -> Any:
    """Return a dataclass of command-line options from the dataclasses that declare them.

    An option that is not given is None, False or empty, so that the default of its declaration applies.

    Parameters
    ----------
    name
        Name of the dataclass.
    declarations
        Their fields that have a group become options.
    without
        Names of fields that this command has no option for.
    """
    made: dict[str, tuple[str, Any, Any]] = {}
    named = {
        declared.name: _option_name(declared)
        for declaration in declarations
        for declared in fields(declaration)
        if declared.metadata.get("group") and declared.name not in without and declared.default is not True
    }
    typed: dict[str, str] = {}
    for declaration in declarations:
        texts = documentation(declaration)
        for declared in fields(declaration):
            if declared.metadata.get("group") and declared.name not in without:
                text = help_text(texts.get(declared.name, ""), named)
                made[declared.name] = _option(declared, declaration, text)
                typed[declared.name] = _typed(declared)
    derived = make_dataclass(name, list(made.values()), frozen=True, kw_only=True)
    derived.__module__ = __name__  # cyclopts takes classes of the module "types" for built-in ones
    derived.option_names = typed  # type: ignore[attr-defined]
    derived.__doc__ = f"Command-line options of {', '.join(declaration.__name__ for declaration in declarations)}."
    return derived


def given_options(options: Any, without: Collection[str] = ()) -> dict[str, Any]:
    """Return the options that were given on the command line, by the names of the fields that declare them."""
    values = {
        declared.name: getattr(options, declared.name) for declared in fields(options) if declared.name not in without
    }
    defaults = {declared.name: declared.default for declared in fields(options)}
    return {name: value for name, value in values.items() if value != defaults[name]}


def help_text(documented: str, named: Mapping[str, str] | None = None) -> str:
    """Return the documentation of a field as ``--help`` shows it: without markup and without notes for Python.

    Parameters
    ----------
    documented
        The text in the docstring of the dataclass.
    named
        Options of the command by the names of their fields: where the text marks such a name, the option is shown.

    Examples
    --------
    >>> help_text("Standard deviation in ``unit``. In Python also a sequence. Default: 5 (in Python: 10).")
    'Standard deviation in unit. Default: 5.'
    >>> help_text("At most ``n_perm``, ``none`` for no limit.", {"n_perm": "--n-perm"})
    'At most --n-perm, none for no limit.'
    """
    text = " ".join(documented.split())
    text = re.sub(r" ?\([Ii]n Python[^()]*(?:\([^()]*\)[^()]*)*\)", "", text)
    kept = [s for s in re.split(r"(?<=[.:]) (?=[A-Z])", text) if not s.startswith("In Python")]
    options = named or {}
    text = re.sub(r"``(\w+)``", lambda match: options.get(match[1], match[1]), " ".join(kept))
    return text.replace("``", "").replace("`", "")


def _option_name(declared: Field[Any]) -> str:
    """Return the option of a field on the command line, such as ``--sigma-light``."""
    return f"--{declared.metadata.get('name') or declared.name.replace('_', '-')}"


def _typed(declared: Field[Any]) -> str:
    """Return what the user types to give a field: of one that is True by default, the option that makes it False."""
    opposite = declared.default is True and not declared.metadata.get("name")
    return f"--no-{declared.name.replace('_', '-')}" if opposite else _option_name(declared)


def _option(declared: Field[Any], declaration: type, text: str) -> tuple[str, Any, Any]:
    """Return name, annotation and default of a command-line option."""
    kind = _kind(declared, declaration)
    flag = kind is bool
    several = get_origin(kind) is tuple and get_args(kind)[-1] is ...
    default: Any = False if flag else () if several else None
    settings: dict[str, Any] = {"help": text, "group": group(declared.metadata["group"]), "show_default": False}
    option_name = declared.metadata.get("name") or ""
    if option_name:
        settings["name"] = f"--{option_name}"
    if declared.metadata.get("alias"):
        settings["name"] = (_option_name(declared), f"--{declared.metadata['alias']}")
    if several:
        settings["consume_multiple"] = 1  # at least one value
    stated = declared.default if declared.default is not MISSING else None
    if flag and stated is True:  # only the opposite of the default needs an option
        settings["negative"] = f"--{option_name}" if option_name else f"--no-{declared.name.replace('_', '-')}"
        settings["name"] = ()
        default = None
        kind = bool | None
    else:
        settings["negative"] = ()
    if "Default:" not in text and not (stated is None or isinstance(stated, bool) or stated == ()):
        settings["help"] = f"{text} Default: {_shown(stated)}."
    annotation: Any = Annotated[kind if flag or several else kind | None, Parameter(**settings)]
    return declared.name, annotation, field(default=default)


def _kind(declared: Field[Any], declaration: type) -> Any:
    """Return the type of an option on the command line."""
    command = declared.metadata.get("command")
    if command is not None:
        return _PATHS.get(command, command) if isinstance(command, str) else command
    annotation = declared.type
    if isinstance(annotation, str):
        owner = next(c for c in declaration.__mro__ if declared.name in inspect.get_annotations(c))
        annotation = eval(annotation, vars(sys.modules[owner.__module__]))  # source code of this package
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not types.NoneType]
        literals = [value for member in members if get_origin(member) is Literal for value in get_args(member)]
        return Literal[tuple(literals)] if len(literals) and len(members) == 1 else members[0]
    return annotation


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_shown, value))
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
