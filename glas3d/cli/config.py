"""What every command does with its options before they are converted: the file ``--config``, and whole numbers."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

from cyclopts import App, ArgumentCollection, CoercionError

from glas3d.errors import GlasError


def from_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Give the options of the file that ``--config`` names, where the command line does not give them."""
    from cyclopts.config import Dict

    from glas3d.study.config import read_config

    files = [token.value for argument in arguments if argument.name == "--config" for token in argument.tokens]
    if not files:
        return
    known = {
        name.removeprefix("--").replace("-", "_")
        for argument in arguments
        for name in argument.names
        if name.startswith("--")
    }
    options = read_config(Path(files[-1]), known - {"config"})
    dashed = {name.replace("_", "-"): value for name, value in options.items()}
    Dict(dashed, use_commands_as_keys=False, source=files[-1])(app, commands, arguments)


def no_nul(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuse the character NUL, which no name of a file can hold.

    Raises
    ------
    GlasError
        A value of an option has it.
    """
    for argument in arguments:
        for token in argument.tokens:
            if "\0" in token.value:
                raise GlasError(f"{argument.name} must not hold the character NUL, got {token.value[:80]!r}")


def whole_numbers(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuse a fraction where a whole number is needed: cyclopts rounds it without a word.

    Raises
    ------
    CoercionError
        A value such as 2.5 of an option that takes a whole number; 2.0 is one.
    """
    for argument in arguments:
        if not _takes_whole_numbers(argument.hint):
            continue
        for token in argument.tokens:
            with suppress(ValueError):  # text that is no number is refused when it is converted
                if not float(token.value).is_integer():
                    raise CoercionError(argument=argument, token=token, target_type=int)


def _takes_whole_numbers(hint: Any) -> bool:
    """Return whether a type is int, or int among None or in a tuple."""
    return hint is int or any(map(_takes_whole_numbers, get_args(hint)))
