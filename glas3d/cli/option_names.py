"""Messages of the package name Python's arguments; commands show the options that the user typed instead."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

# Arguments of inner functions, and the argument of the package that sets them.
_INNER = {"budget": "refine"}


def option_names(command: Callable[..., Any]) -> dict[str, str]:
    """Return the options of a command by the names of the Python arguments that they set.

    An option that sets an argument to False, such as ``--no-pretrain``, is that of ``pretrain=False``.
    """
    names: dict[str, str] = {}
    for parameter in inspect.signature(command).parameters.values():
        options = parameter.default
        if is_dataclass(options) and not isinstance(options, type):
            own = {field.name: f"--{field.name.replace('_', '-')}" for field in fields(options)}
            names |= getattr(options, "option_names", own)
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            names[parameter.name] = f"--{parameter.name.replace('_', '-')}"
        elif "_" in parameter.name:
            names[parameter.name] = parameter.name.upper()
    return names | {inner: names[name] for inner, name in _INNER.items() if name in names}


def as_typed(message: str, names: Mapping[str, str]) -> str:
    """Return a message with Python's arguments replaced by options.

    An argument is replaced where it has a value (``unit="mm"``), where its name cannot be a word of the sentence
    (``sigma_light``), and where the message is about it (``seed must be ...``).

    Parameters
    ----------
    message
        The message.
    names
        See `option_names`.

    Examples
    --------
    >>> names = {"grid": "--grid", "sigma_light": "--sigma-light", "unit": "--unit", "overwrite": "--overwrite"}
    >>> as_typed("grid must be at least 1, got 0", names)
    '--grid must be at least 1, got 0'
    >>> as_typed('/sigma_light/a.nii: sigma_light is in voxels, unit="mm" (--unit mm) sets a unit', names)
    '/sigma_light/a.nii: --sigma-light is in voxels, --unit mm sets a unit'
    >>> as_typed("the grid is small, overwrite=True replaces it", names)
    'the grid is small, --overwrite replaces it'
    """
    for name, option in sorted(names.items(), key=lambda pair: -len(pair[0])):
        word = rf"(?<![\w/.\-'\"\\]){re.escape(name)}"
        message = re.sub(rf"{word}=(\"[^\"]*\"|'[^']*'|[\w.+-]+)", partial(_with_value, option), message)
        if "_" in name:
            message = re.sub(rf"{word}(?![\w/\-='\"(\\]|\.\w)", option, message)
        message = re.sub(rf"^{re.escape(name)}(?= must | and \w+ must )", option, message)
    return re.sub(r"(--[\w-]+(?: [\w.+-]+)?) \(\1\)", r"\1", message)


def _with_value(option: str, argument: re.Match[str]) -> str:
    """Return an option with the value that a message gives it; a flag has none."""
    value = argument[1].strip("\"'")
    is_opposite = option.startswith("--no-") or option == "--any-grid"
    if value in ("True", "False"):
        return option if (value == "False") is is_opposite else argument[0]
    return f"{option} {value}"
