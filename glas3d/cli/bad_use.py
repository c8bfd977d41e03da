"""The messages about arguments that a command cannot take: what was required, and what came."""

from __future__ import annotations

import difflib
import errno
import inspect
from collections.abc import Sequence
from itertools import chain
from typing import Any, Literal, get_args, get_origin

from cyclopts import (
    App,
    CoercionError,
    ConsumeMultipleError,
    CycloptsError,
    MissingArgumentError,
    UnknownOptionError,
    UnusedCliTokensError,
)

# Errors of the file system that are about the path that was given, not about the disk.
_BAD_USE = {
    getattr(errno, name)
    for name in ("EACCES", "EPERM", "ENOENT", "EISDIR", "ENOTDIR", "EEXIST", "ENAMETOOLONG", "ELOOP", "EROFS", "ENXIO")
}
_KINDS = {float: "a number", int: "a whole number", bool: "true or false"}


def message_of(problem: CycloptsError, app: App, arguments: Sequence[str]) -> str:
    """Return one sentence about arguments that cannot be parsed.

    Parameters
    ----------
    problem
        The error of parsing them.
    app
        The command line.
    arguments
        The arguments.
    """
    if isinstance(problem, MissingArgumentError):
        return _missing(problem, app, arguments)
    if isinstance(problem, UnknownOptionError):
        return _unknown(problem)
    if isinstance(problem, CoercionError):
        return _not_converted(problem)
    if isinstance(problem, ConsumeMultipleError):
        return f"{_name(problem.argument)} needs a value" if problem.argument else str(problem)
    if isinstance(problem, UnusedCliTokensError) and problem.unused_tokens:
        return f"not understood: {' '.join(problem.unused_tokens)} (see {_help(problem)})"
    return str(problem)


def file_problem(problem: OSError) -> tuple[str, int]:
    """Return one sentence about what the file system refused, and the exit status: 2 where another path would help."""
    from glas3d.output import why_not_written

    named = " and ".join(str(name) for name in (problem.filename, problem.filename2) if name is not None)
    why = why_not_written(problem) if problem.errno else str(problem)
    return (
        f"cannot use {named}: {why}" if named else f"the file system refused: {why}",
        2 if problem.errno in _BAD_USE else 1,
    )


def _missing(problem: MissingArgumentError, app: App, arguments: Sequence[str]) -> str:
    """Return a message that names everything that is missing, not only the first."""
    argument = problem.argument
    if argument is None:
        return str(problem)
    if problem.tokens_so_far:
        needed, _ = argument.token_count()
        return f"{_name(argument)} needs {needed} values, got {len(problem.tokens_so_far)}"
    missing: list[str] = []
    tried, error = list(arguments), problem
    while len(missing) < 20:
        argument = error.argument
        if argument is None:
            return str(error)
        if argument.index is None and argument.name in tried:
            return f"{argument.name} needs a value"
        missing.append(_described(argument))
        if argument.index is None:
            tried += [argument.name, _placeholder(argument)]
        else:  # before the first option, which might take it for one of its values
            first_option = next((i for i, given in enumerate(tried) if given.startswith("-")), len(tried))
            tried.insert(first_option, _placeholder(argument))
        try:
            _, bound, _ = app.parse_args(tried, exit_on_error=False, print_error=False)
        except MissingArgumentError as another:
            error = another
        except CycloptsError:
            break
        else:
            if bound.arguments.get("scan", None) == () or ("scan" in bound.signature.parameters and not bound.args):
                missing.insert(0, "SCAN")
            break
    message = f"missing: {', '.join(missing)} (see {_help(problem)})"
    first = _positional(problem)
    if missing[0].split()[0] in first and (took := _took_several(problem, app, arguments)):
        return f"{message}; {took} takes all values that follow it: put {' '.join(first)} first"
    return message


def _positional(problem: CycloptsError) -> list[str]:
    """Return the names of the positional arguments of the command that was given, as usage lines show them."""
    parameters = inspect.signature(problem.target).parameters.values() if problem.target else ()
    return [each.name.upper() for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.VAR_POSITIONAL)]


def _took_several(problem: CycloptsError, app: App, arguments: Sequence[str]) -> str:
    """Return the first option that takes any number of values and was given several, or an empty text."""
    command = app
    for name in problem.command_chain or ():
        command = command[name]
    several = {
        name
        for argument in command.assemble_argument_collection()
        if argument.index is None and argument.parameter.consume_multiple and argument.token_count()[1]
        for name in argument.names
    }
    given = ((name, arguments[i + 1 : i + 3]) for i, name in enumerate(arguments) if name in several)
    return next((name for name, values in given if len(values) == 2 and not values[1].startswith("-")), "")


def _help(problem: CycloptsError) -> str:
    """Return the command that shows the help of the command that was given."""
    return " ".join(["glas3d", *(problem.command_chain or ()), "--help"])


def _name(argument: Any) -> str:
    """Return the name of an argument as usage lines show it: BIDS_DIR if it is positional, else --model."""
    name: str = argument.name
    return name if argument.index is None else name.lstrip("-").upper().replace("-", "_")


def _described(argument: Any) -> str:
    """Return the name of an argument, and of a positional one its choices, which the name does not tell."""
    choices = argument.get_choices() if argument.index is not None else None
    return f"{_name(argument)} ({' or '.join(map(str, choices))})" if choices else _name(argument)


def _placeholder(argument: Any) -> str:
    """Return a value that an argument accepts."""
    choices = argument.get_choices()
    return str(choices[0]) if choices else "0"


def _not_converted(problem: CoercionError) -> str:
    """Return the message about a value of the wrong type, with advice if it may belong to another argument."""
    argument, token = problem.argument, problem.token
    if argument is None or token is None or problem.target_type is None:
        return str(problem)
    source = "" if token.source in ("", "cli") else f" from {token.source}"
    name = _name(argument) if source or not token.keyword else token.keyword
    if get_origin(problem.target_type) is Literal and (choices := get_args(problem.target_type)):
        return f"{name} must be one of {', '.join(map(str, choices))}, got {token.value!r}{source}"
    kind = _KINDS.get(problem.target_type)
    if kind is None:
        return str(problem)
    if argument.parameter.consume_multiple and token.index:
        command = " ".join(["glas3d", *(problem.command_chain or ())])
        first = " ".join(_positional(problem))
        return (
            f"{name} reads all following values as numbers, got {token.value!r}{source}: "
            f"put {first} first, as in {command} {first} {name} {argument.tokens[0].value}"
        )
    return f"{name} must be {kind}, got {token.value!r}{source}"


def _unknown(problem: UnknownOptionError) -> str:
    """Return the message about an option that does not exist; it suggests an option spelt nearly the same."""
    name = (problem.token.keyword or problem.token.value).split("=", 1)[0]
    source = "" if problem.token.source in ("", "cli") else f" from {problem.token.source}"
    names = set(chain.from_iterable(argument.names for argument in problem.argument_collection if argument.parse))
    near = difflib.get_close_matches(name, names, 1, 0.8)
    return f"unknown option: {name}{source} ({f'did you mean {near[0]}?' if near else f'see {_help(problem)}'})"
