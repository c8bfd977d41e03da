"""What a ``.pt2`` file of ``torch.export`` may hold, checked before torch reads it.

The format can run code in several ways, and ``torch.export.load`` takes all of them: pickles among the weights, steps
of the graph that name any function (``torch.os.system``), sizes and guards that are evaluated as Python, and names that
are written into Python code. Here everything is read once, by one reader, and only what computes with tensors is let
through. What was let through is written into a new archive, and torch reads that: what is checked is what is loaded,
however two readers of archives differ.
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import torch

from glas3d.errors import GlasError

MOST_INFLATION = 20
"""How many times larger than in its file a member of an archive may become; torch stores members uncompressed."""

_SMALL = 2**20  # below this many bytes, inflation does no harm
_PROGRAM = re.compile(r"models/[^/]+\.json|serialized_exported_program\.json")
_CONFIG = re.compile(r"data/(weights|constants)/[^/]+_config\.json")
_TENSORS = re.compile(r"data/(weights|constants|sample_inputs)/[^/]+\.pt|serialized_[a-z_]+\.pt")
_PLAIN = re.compile(
    r"data/weights/weight_[^/]+|data/constants/tensor_[^/]+|archive_format|archive_version|version|byteorder|\.data/[^/]+"
)
_IGNORED = re.compile(r"extra/.+|extra_files/.+")
# Steps of a graph: operations on tensors, on the sizes of tensors, and parts of the graph that run under a condition.
_STEP = re.compile(
    r"torch\.ops\.(aten|prims)\.\w+(\.\w+)?"
    r"|torch\.ops\.higher_order\.(cond|map_impl|scan|while_loop|wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|torch\._?sym_\w+|math\.\w+"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_|xor|index)"
)
_FILES = re.compile(r"torch\.ops\.aten\.(from_file|save|load)(\.\w+)?")  # operations on files
_EXPRESSION = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Call, ast.keyword, ast.Load, ast.Tuple, ast.BinOp, ast.UnaryOp),
    *(ast.Compare, ast.BoolOp, ast.operator, ast.unaryop, ast.cmpop, ast.boolop),
)
_GUARD = (*_EXPRESSION, ast.Attribute, ast.Subscript)
_FUNCTION = re.compile(
    "Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|Abs|floor|ceiling|sqrt|FloorDiv"
    "|ModularIndexing|Where|PythonMod|Mod|CleanDiv|CeilToInt|FloorToInt|CeilDiv|LShift|RShift|PowByNatural|FloatPow"
    "|FloatTrueDiv|IntTrueDiv|IsNonOverlappingAndDenseIndicator|TruncToFloat|TruncToInt|RoundToInt|RoundDecimal|ToFloat"
    "|Identity"
)
_POWERS = ("Pow", "PowByNatural", "FloatPow", "LShift")
_MOST_CHARACTERS, _MOST_POWERS, _HIGHEST_POWER = 2000, 3, 8
_CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")


class _Unsafe(Exception):
    """Names what a file holds that is not computing with tensors."""


def checked_archive(content: bytes, name: str) -> bytes:
    """Return a ``.pt2`` archive with the same program and tensors, which ``torch.export.load`` can read without harm.

    Parameters
    ----------
    content
        The bytes of the file.
    name
        What messages call the file.

    Raises
    ------
    GlasError
        The archive is none of ``torch.export.save``, has two members of one name, encrypted or oddly named members, or
        members that inflate beyond `MOST_INFLATION`; or it holds something that can run code.
    """
    try:
        members = dict(_members(content, "a .pt2", name))
        known = {member for member in members if member == "archive_format" or _PROGRAM.fullmatch(member)}
        if not known:
            raise GlasError(f"a .pt2 must be a file of torch.export.save, {name} is another archive")
        rebuilt = io.BytesIO()
        with zipfile.ZipFile(rebuilt, "w") as archive:
            root = "archive/" if "archive_format" in members else ""
            for member, stored in members.items():
                try:
                    kept = _checked(member, stored, members)
                except _Unsafe as unsafe:
                    raise GlasError(f"{name} holds more than tensors, {unsafe}: it can run any code") from None
                if kept is not None:
                    archive.writestr(root + member, kept)
    except GlasError:
        raise
    except Exception as error:  # whatever a damaged archive makes of its readers: each kind of compression has its own
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise GlasError(f"{name} cannot be loaded as a torch.export file: {first_line}") from error
    return rebuilt.getvalue()


def plain_archive(content: bytes, what: str, name: str | os.PathLike[str]) -> bytes:
    """Return an archive of the members of another, uncompressed, in which every reader finds the same.

    Parameters
    ----------
    content
        The bytes of the other's file.
    what, name
        What messages call a file of its kind, and the file.

    Raises
    ------
    GlasError
        It has two members of one name, encrypted or oddly named members, or members that inflate beyond
        `MOST_INFLATION`.
    Exception
        It is damaged; each kind of compression has exceptions of its own.
    """
    rebuilt = io.BytesIO()
    with zipfile.ZipFile(rebuilt, "w") as archive:
        for member, stored in _members(content, what, name):
            archive.writestr(f"archive/{member}", stored)
    return rebuilt.getvalue()


def _members(content: bytes, what: str, name: str | os.PathLike[str]) -> Iterator[tuple[str, bytes]]:
    """Yield names, without the folder that all are in, and bytes of an archive's members."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        infos = archive.infolist()
        roots = {info.filename.split("/", 1)[0] for info in infos if "/" in info.filename}
        in_one_folder = len(roots) == 1 and all("/" in info.filename for info in infos)
        names = [info.filename.split("/", 1)[1] if in_one_folder else info.filename for info in infos]
        if len(set(names)) < len(names):
            twice = next(each for each in names if names.count(each) > 1)
            raise GlasError(f"{what} must hold each member once, {name} holds {twice!r} several times")
        for info, member in zip(infos, names, strict=True):
            parts = info.filename.split("/")
            if not info.filename.isprintable() or {"", ".", ".."} & set(parts) or re.search(r"[\\:]", info.filename):
                raise GlasError(f"the members of a .pt2 must have plain names, {name} holds {info.filename!r}")
            if info.flag_bits & 0x1:
                raise GlasError(f"{what} must not be encrypted, {member} of {name} is")
        stated, most = sum(info.file_size for info in infos), MOST_INFLATION * len(content) + _SMALL
        if stated > most or any(i.file_size > MOST_INFLATION * i.compress_size + _SMALL for i in infos):
            raise GlasError(
                f"{what} must not be more than {MOST_INFLATION} times larger than its file, {name} has "
                f"{len(content):,} bytes and inflates to {stated:,}"
            )
        for info, member in zip(infos, names, strict=True):
            yield member, archive.read(info)


def _checked(member: str, content: bytes, members: dict[str, bytes]) -> bytes | None:
    """Return what torch may read of a member; None: nothing.

    Raises
    ------
    _Unsafe
        It can run code.
    """
    if _IGNORED.fullmatch(member):
        return None
    if _PROGRAM.fullmatch(member):
        return json.dumps(_checked_program(json.loads(content))).encode()
    if _CONFIG.fullmatch(member):
        folder, config = member.rpartition("/")[0], json.loads(content)
        for entry in config["config"].values():
            if entry.get("use_pickle") or not _PLAIN.fullmatch(f"{folder}/{entry['path_name']}"):
                raise _Unsafe(member)
            sizes = [size.get("as_int", 1) for size in (entry.get("tensor_meta") or {}).get("sizes", ())]
            if not members.get(f"{folder}/{entry['path_name']}") and 0 not in sizes:
                raise ValueError(f"{entry['path_name']} is empty, and should hold {sizes} values")
        return json.dumps(config).encode()
    if _TENSORS.fullmatch(member):
        try:
            torch.load(io.BytesIO(content), weights_only=True)
        except Exception:  # whatever it is, it is not plain tensors
            raise _Unsafe(member) from None
        return content
    if _PLAIN.fullmatch(member):
        return content
    raise _Unsafe(member)


def _checked_program(program: dict[str, Any]) -> dict[str, Any]:
    """Return a program without what describes its origin, which would be written into code.

    Raises
    ------
    _Unsafe
        A step that is no operation on tensors, or a text that is evaluated and is no plain expression.
    """
    program["graph_module"]["metadata"] = {}
    for guard in program.get("guards_code") or ():
        _check_expression(guard, _GUARD)
    _walk({key: value for key, value in program.items() if key != "guards_code"}, "")
    return program


def _walk(value: Any, key: str) -> None:
    """Check each text of a program by the key that it has."""
    if isinstance(value, dict):
        if "target" in value and "inputs" in value:
            value["metadata"] = {}
        for name, part in value.items():
            if re.search(r"[\"'\\\s]", str(name)):
                raise _Unsafe(f"the name {str(name)[:60]!r}")
            _walk(part, name)
    elif isinstance(value, list):
        for part in value:
            _walk(part, key)
    elif isinstance(value, str):
        _CHECKS.get(key, _check_text)(value)


def _check_step(target: str) -> None:
    if not _STEP.fullmatch(target) or _FILES.fullmatch(target):
        raise _Unsafe(f"the step {target[:60]!r}")


def _check_name(name: str) -> None:
    if not re.fullmatch(r"\w*", name):
        raise _Unsafe(f"the name {name[:60]!r}")


def _check_text(text: str) -> None:
    if re.search(r"[\"'\\\n\r()]", text):
        raise _Unsafe(f"the name {text[:60]!r}")


def _check_structure(text: str) -> None:
    """Check how inputs or outputs are nested: in lists, tuples and dictionaries of Python, and no class of others."""

    def check(part: Any) -> None:
        if isinstance(part, dict):
            if part.get("type") not in _CONTAINERS:
                raise _Unsafe(f"the container {str(part.get('type'))[:60]}")
            for child in part.get("children_spec", ()):
                check(child)

    for part in json.loads(text):
        check(part)


def _check_expression(text: str, allowed: tuple[type, ...] = _EXPRESSION) -> None:
    """Check a text that torch evaluates: arithmetic on named sizes, and nothing else.

    Parameters
    ----------
    allowed
        The kinds of syntax that the text may have.
    """
    unsafe = _Unsafe(f"the expression {text[:60]!r}")
    if len(text) > _MOST_CHARACTERS:
        raise unsafe
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError):
        raise unsafe from None
    powers = 0
    for node in ast.walk(tree):
        exponent: ast.expr | None = None
        if not isinstance(node, allowed):
            raise unsafe
        if isinstance(node, ast.Attribute) and node.attr not in ("size", "shape", "stride"):
            raise unsafe
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not re.fullmatch(r"\w*", node.value):
            raise unsafe
        if isinstance(node, ast.Name) and node.id.startswith("__"):
            raise unsafe
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                if not _FUNCTION.fullmatch(node.func.id):
                    raise unsafe
                exponent = node.args[-1] if node.func.id in _POWERS and node.args else None
            elif not isinstance(node.func, ast.Attribute):
                raise unsafe
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow | ast.LShift):
            exponent = node.right
        if exponent is not None:
            powers += 1
            number = exponent.operand if isinstance(exponent, ast.UnaryOp) else exponent
            value = number.value if isinstance(number, ast.Constant) else None
            if powers > _MOST_POWERS or not isinstance(value, int | float) or value > _HIGHEST_POWER:
                raise unsafe


_CHECKS: dict[str, Callable[[str], None]] = {
    "target": _check_step,
    "as_operator": _check_step,
    "expr_str": _check_expression,
    "in_spec": _check_structure,
    "out_spec": _check_structure,
    "name": _check_name,
    "as_name": _check_name,
    "forward_arg_names": _check_name,
    "as_string": lambda text: None,
    "as_strings": lambda text: None,
}
