"""Entries of a bundle's configuration, resolved and made without running code of the bundle's author.

MONAI evaluates expressions (``$...``), imports what it is told to, and calls whatever ``_target_`` names. Here only
what an entry refers to is read; expressions may be arithmetic and lists of numbers and texts; and what is made must be
a network or a layer of `PACKAGES`. Everything else needs ``trust``.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from glas3d.errors import GlasError

PACKAGES = ("torch.nn", "monai.networks", "glas3d")
"""Where the networks and layers of a bundle may come from."""

MAY_RUN_CODE = "which can run any code; give --trust (trust=True) if you trust it as you trust a program"

# Where MONAI's names without a package are looked for.
_SHORT_NAMES = ("monai.networks.nets", "monai.networks.blocks", "monai.networks.layers", "torch.nn")
# Parameters that make a network fetch weights, and those that name a file where they are text.
_FETCHES = re.compile(r"pretrain|url|weights|repo_id|^checkpoint")
_NAMES_FILE = re.compile(r"_(path|file|dir)$|^(path|file|dir)")
_MOST_PARTS, _DEEPEST, _LARGEST = 100_000, 50, 1e12
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
# Entries of a component that are no arguments of what it makes.
NOT_ARGUMENTS = frozenset({"_target_", "_disabled_", "_requires_", "_desc_", "_mode_"})
_SIGNS: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
}
_CALLS: dict[str, Callable[[Any], Any]] = {"int": int, "float": float, "len": len, "list": list, "tuple": tuple}


@dataclass(frozen=True)
class Code:
    """A part of an entry that only running code could resolve.

    Attributes
    ----------
    entry
        Its position, such as ``network_def::act``.
    text
        What it is, for messages.
    """

    entry: str
    text: str


class _Unsupported(Exception):
    """An expression is more than arithmetic."""


def resolve_entry(content: Mapping[str, Any], key: str) -> Any:
    """Return an entry of a configuration with its references resolved, a `Code` in place of what would run code.

    Parameters
    ----------
    content
        The configuration.
    key
        Where the entry is, its parts separated by ``::``.

    Raises
    ------
    GlasError
        A reference to an entry that does not exist, or to itself; or entries beyond any use.
    """
    return _Entries(content).at(key)


def code_in(item: Any) -> Code | None:
    """Return the first part of a resolved entry that only running code could resolve; None: there is none."""
    if isinstance(item, Code):
        return item
    parts = item.values() if isinstance(item, Mapping) else item if isinstance(item, list | tuple) else ()
    return next((code for part in parts if (code := code_in(part)) is not None), None)


class _Entries:
    """A configuration, whose entries refer to each other."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content, self._n_parts = content, 0

    def at(self, key: str, depth: int = 0) -> Any:
        return self._resolved(self.raw(key), key, depth + 1)

    def raw(self, key: str) -> Any:
        item: Any = self._content
        for part in key.split("::"):
            try:
                item = item[int(part)] if isinstance(item, list) else item[part]
            except (KeyError, IndexError, ValueError, TypeError):
                raise GlasError(f"@{key} is referred to, and does not exist") from None
        return item

    def _resolved(self, item: Any, key: str, depth: int) -> Any:
        self._n_parts += 1
        if depth > _DEEPEST or self._n_parts > _MOST_PARTS:
            raise GlasError(f"{key[:80]} is nested too deeply, refers to itself, or is too large")
        if isinstance(item, Mapping):
            return {name: self._resolved(part, f"{key}::{name}", depth + 1) for name, part in item.items()}
        if isinstance(item, list):
            return [self._resolved(part, f"{key}::{number}", depth + 1) for number, part in enumerate(item)]
        if not isinstance(item, str) or item[:1] not in ("@", "%", "$"):
            return item
        from monai.bundle.config_parser import ConfigParser  # a second to import, and most networks refer to nothing

        text = ConfigParser.resolve_relative_ids(key, item)
        if text.startswith("$"):
            return self._evaluated(text, key, depth)
        if text.startswith("%") and ConfigParser.split_path_id(text[1:])[0]:
            return Code(key, f"the content of another file, {item[1:60]!r}")
        return self.at(text[1:], depth)

    def _evaluated(self, text: str, key: str, depth: int) -> Any:
        """Return the value of an expression that is arithmetic on numbers and lists; else a `Code`."""
        references: dict[str, str] = {}

        def name_of(match: re.Match[str]) -> str:
            return references.setdefault(match[0][1:], f"reference_{len(references)}")

        try:
            tree = ast.parse(re.sub(r"@\w+(?:::\w+)*", name_of, text[1:]).strip(), mode="eval")
            values = {name: self.at(reference, depth) for reference, name in references.items()}
            value = _value(tree.body, values)
        except (SyntaxError, ValueError, TypeError, ArithmeticError, LookupError, _Unsupported) as problem:
            if isinstance(problem, GlasError):
                raise
            return Code(key, f"the expression {text[:60]!r}")
        return value


def _value(node: ast.expr, values: Mapping[str, Any]) -> Any:
    """Return the value of an expression.

    Raises
    ------
    _Unsupported
        It is more than arithmetic on numbers, texts and lists.
    """

    def inner(part: ast.expr) -> Any:
        return _value(part, values)

    result: Any
    match node:
        case ast.Constant(value=value):
            result = value
        case ast.Name(id=name) if name in values:
            result = values[name]
        case ast.List(elts=parts):
            result = [inner(part) for part in parts]
        case ast.Tuple(elts=parts):
            result = tuple(inner(part) for part in parts)
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _SIGNS:
            result = _SIGNS[type(sign)](inner(operand))
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in _ARITHMETIC:
            first, second = inner(left), inner(right)
            if isinstance(operation, ast.Mod | ast.Mult) and not {type(first), type(second)} <= {int, float, bool}:
                raise _Unsupported
            result = _ARITHMETIC[type(operation)](first, second)
        case ast.Subscript(value=container, slice=index):
            result = inner(container)[inner(index)]
        case ast.Attribute(value=ast.Name(id="torch"), attr=name) if hasattr(torch, name):
            result = getattr(torch, name)
            if not isinstance(result, torch.dtype):
                raise _Unsupported
        case ast.Attribute(value=ast.Name(id="np" | "numpy"), attr=name) if hasattr(np, name):
            result = getattr(np, name)
            if not (isinstance(result, type) and issubclass(result, np.generic)):
                raise _Unsupported
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _CALLS:
            result = _CALLS[name](inner(argument))
        case _:
            raise _Unsupported
    if isinstance(result, int | float) and abs(result) > _LARGEST:
        raise _Unsupported
    if code_in(result) is not None or (isinstance(result, list | str) and len(result) > _MOST_PARTS):
        raise _Unsupported
    return result


def is_true(value: Any) -> bool:
    """Return whether a configuration says yes; a text says so by its word."""
    return value.strip().casefold() == "true" if isinstance(value, str) else bool(value)


def make_network(item: Any, key: str) -> Any:
    """Return what a resolved entry describes, made of networks and layers of `PACKAGES` alone.

    Parameters
    ----------
    item
        See `resolve_entry`.
    key
        The name of the entry, for messages.

    Raises
    ------
    GlasError
        It names something else, which could run any code.
    """
    if isinstance(item, Code):
        raise GlasError(f"{item.entry} is {item.text}, {MAY_RUN_CODE}")
    if isinstance(item, list):
        return [make_network(part, f"{key}::{number}") for number, part in enumerate(item)]
    if not isinstance(item, Mapping):
        return item
    if "_target_" not in item:
        return {name: make_network(part, f"{key}::{name}") for name, part in item.items()}
    if is_true(item.get("_disabled_")):
        return None
    for name in ("_requires_", "_mode_"):
        if item.get(name) and item[name] not in ("default", "callable"):
            raise GlasError(f"{key}::{name} is {str(item[name])[:60]!r}, {MAY_RUN_CODE}")
    made = _network_class(item["_target_"], key)
    arguments = {name: make_network(part, f"{key}::{name}") for name, part in item.items() if name not in NOT_ARGUMENTS}
    arguments |= _without_fetching(made, arguments)
    for name, value in arguments.items():
        if value and (_FETCHES.search(name) or (_NAMES_FILE.search(name) and isinstance(value, str))):
            raise GlasError(
                f"{key}::{name} is {str(value)[:60]!r}, which reads or downloads other files; "
                "give --trust (trust=True) to let it"
            )
    if item.get("_mode_") == "callable":
        return partial(made, **arguments) if arguments else made
    return made(**arguments)


def _without_fetching(made: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments that a bundle does not give and whose defaults fetch weights: off where they can be off.

    The weights would be replaced by those of the bundle.
    """
    defaults = {name: parameter.default for name, parameter in inspect.signature(made).parameters.items()}
    fetching = {name: value for name, value in defaults.items() if name not in given and _FETCHES.search(name)}
    fetching = {name: value for name, value in fetching.items() if value and value is not inspect.Parameter.empty}
    return {name: False if value is True else value for name, value in fetching.items()}


def _network_class(target: Any, key: str) -> Any:
    """Return the class that a ``_target_`` names, or the function that is declared to return a network.

    Raises
    ------
    GlasError
        It is no network or layer of `PACKAGES`.
    """
    refused = GlasError(
        f"{key} names {str(target)[:80]}, which is no network or layer of {', '.join(PACKAGES)}, {MAY_RUN_CODE}"
    )
    if not isinstance(target, str) or not re.fullmatch(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*", target):
        raise refused
    module, _, name = target.rpartition(".")
    if module and not _is_ours(module):
        raise refused
    for package in (module,) if module else _SHORT_NAMES:
        try:
            factory = getattr(importlib.import_module(package), name, None)
        except ImportError:
            continue
        if factory is not None and _is_network(factory):
            return factory
    raise refused


def _is_network(factory: Any) -> bool:
    made = factory
    if inspect.isfunction(factory):
        try:
            made = inspect.signature(factory, eval_str=True).return_annotation
        except Exception:  # an annotation may be any expression of its module
            return False
    is_module = inspect.isclass(made) and issubclass(made, nn.Module)
    return is_module and _is_ours(factory.__module__)


def _is_ours(module: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in PACKAGES)
