"""Declare a setting once, as a field of a frozen dataclass, and derive everything else from it.

A field states its type, default, group and documentation (the numpydoc docstring of its dataclass). From these come the
keywords and the docstring of every function that takes it (`accepts`), the options of the commands with their help,
the keys of configuration files, and the entries of sidecars.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, field, fields, make_dataclass
from textwrap import dedent, indent
from typing import Any, TypeVar

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_ENTRY = re.compile(r"^(\w+(?:, \w+)*)(?: : .*)?$")


def option(
    default: Any = MISSING,
    *,
    group: str = "",
    command: Any = None,
    name: str = "",
    alias: str = "",
    factory: Callable[[], Any] | None = None,
) -> Any:
    """Declare one option as a field of a frozen dataclass.

    Parameters
    ----------
    default
        Value of an option that is not given.
    group
        Title under which ``--help`` lists it; empty when commands do not have it as an option.
    command
        Type of the option on the command line, where that differs from the field's own: a type, or ``"file"`` or
        ``"files"`` for paths.
    name
        Name of the option on the command line, where that differs from the field's own.
    alias
        A second name of the option on the command line, which a convention of the field demands.
    factory
        Makes the default, in place of ``default``.
    """
    metadata = {"group": group, "command": command, "name": name, "alias": alias}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def documentation(declaration: type) -> dict[str, str]:
    """Return the text that the docstring of a dataclass, or of one it extends, gives for each of its fields.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Lamp:
    ...     '''A lamp.
    ...
    ...     Parameters
    ...     ----------
    ...     power
    ...         In watts.
    ...     '''
    ...     power: float = 60.0
    >>> documentation(Lamp)
    {'power': 'In watts.'}
    """
    texts: dict[str, str] = {}
    for ancestor in reversed(declaration.__mro__):
        for names, text in _entries(ancestor):
            texts |= dict.fromkeys(names, text)
    return texts


def accepts(*declarations: type, unset: Iterable[type] = ()) -> Callable[[F], F]:
    """Give a function that takes ``**options`` the keywords of dataclasses, in its signature and its docstring.

    Its docstring has an entry ``**options``, which is replaced by those of the dataclasses' fields.

    Parameters
    ----------
    declarations
        Frozen dataclasses whose fields are keywords.
    unset
        Those of them whose fields are None where they are not given, because their default is resolved later.
    """
    unresolved = set(unset)

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        keywords = {
            declared.name: inspect.Parameter(
                declared.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None if declaration in unresolved else _default(declared),
                annotation=declared.type,
            )
            for declaration in declarations
            for declared in fields(declaration)
        }
        function.__signature__ = signature.replace(parameters=[*own, *keywords.values()])  # type: ignore[attr-defined]
        if function.__doc__ is not None:
            function.__doc__ = _inserted(function.__doc__, declarations)
        return function

    return decorate


def parse(options: Mapping[str, Any], *declarations: type[Any], caller: str) -> tuple[Any, ...]:
    """Return one instance of each dataclass, from keywords that belong to any of them.

    Parameters
    ----------
    options
        Keywords and their values. A name that several dataclasses have goes to each of them.
    caller
        Name of the function that was given the keywords, for the message.

    Raises
    ------
    TypeError
        A keyword that belongs to none of the dataclasses; a similar one is named.
    """
    known = {declared.name for declaration in declarations for declared in fields(declaration)}
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.75)
            suggestion = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"{caller}() got an unexpected keyword argument {name!r}{suggestion}")
    return tuple(
        declaration(
            **{declared.name: options[declared.name] for declared in fields(declaration) if declared.name in options}
        )
        for declaration in declarations
    )


def optional(declaration: type, name: str) -> type[Any]:
    """Return a dataclass of the same fields, each of them None where it is not given.

    For functions that take the default of a setting from elsewhere, such as the preset of a model.
    """
    made = make_dataclass(
        name,
        [
            (declared.name, f"{declared.type} | None", field(default=None, metadata=declared.metadata))
            for declared in fields(declaration)
        ],
        frozen=True,
        kw_only=True,
    )
    made.__doc__ = declaration.__doc__
    made.__module__ = declaration.__module__
    return made


def given(options: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that differ from None."""
    return {
        declared.name: value for declared in fields(options) if (value := getattr(options, declared.name)) is not None
    }


def _default(declared: Field[Any]) -> Any:
    """Return the default of a field as a signature shows it; `inspect.Parameter.empty` where it has none."""
    if declared.default is not MISSING:
        return declared.default
    return inspect.Parameter.empty if declared.default_factory is MISSING else declared.default_factory()


def _entries(declaration: type) -> list[tuple[list[str], str]]:
    """Return the entries of the section Parameters: the names, and the text under them."""
    entries: list[tuple[list[str], list[str]]] = []
    for line in _parameters(declaration.__dict__.get("__doc__") or "").splitlines():
        if (match := _ENTRY.match(line)) is not None:
            entries.append((match[1].split(", "), []))
        elif entries:
            entries[-1][1].append(line)
    return [(names, dedent("\n".join(lines)).strip()) for names, lines in entries]


def _parameters(docstring: str) -> str:
    """Return the text of the section Parameters of a numpydoc docstring, without indentation."""
    lines = inspect.cleandoc(docstring).splitlines()
    for number, line in enumerate(lines[:-1]):
        if line == "Parameters" and set(lines[number + 1]) == {"-"}:
            rest = lines[number + 2 :]
            end = next((i for i in range(1, len(rest)) if rest[i] and set(rest[i]) == {"-"}), len(rest) + 1) - 1
            return "\n".join(rest[:end]).rstrip()
    return ""


def _inserted(docstring: str, declarations: Iterable[type]) -> str:
    """Replace the entry ``**options`` of a docstring by the entries of the dataclasses."""
    match = re.search(r"^( *)\*\*options\n((?:\1 +.*\n)*)", docstring, re.MULTILINE)
    if match is None:
        return docstring
    texts: list[str] = []
    for declaration in declarations:
        documented = documentation(declaration)
        for declared in fields(declaration):
            texts.append(f"{declared.name}\n{indent(documented.get(declared.name, ''), '    ')}")
    return docstring[: match.start()] + indent("\n".join(texts), match[1]) + "\n" + docstring[match.end() :]
