"""Read the options of a study from a TOML file."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from glas3d.errors import GlasError
from glas3d.reading import read_toml


def read_config(path: Path, known: Collection[str]) -> dict[str, Any]:
    """Read options, named as in Python, or with dashes as on the command line.

    Tables such as ``[train]`` only group them: their keys are options like the others.

    Parameters
    ----------
    path
        The file.
    known
        Names of all options. The value of an option that is itself a table, such as ``entities``, is returned whole.

    Returns
    -------
    The values by the options' names, with underscores.

    Raises
    ------
    GlasError
        The file does not exist, is not TOML, gives an option twice, or has options that are not known; it names them.
    """
    content = read_toml(Path(path), "a configuration")
    options: dict[str, Any] = {}
    unknown: list[str] = []
    pending = list(content.items())
    while pending:
        key, value = pending.pop(0)
        name = key.replace("-", "_")
        if name in options:
            raise GlasError(f"{path} gives {name} twice")
        if name in known:
            options[name] = value
        elif isinstance(value, dict):
            pending = [*value.items(), *pending]
        else:
            similar = difflib.get_close_matches(name, known, 1, 0.75)
            unknown.append(key + (f" (did you mean {similar[0]}?)" if similar else ""))
    if unknown:
        raise GlasError(f"{path} has unknown options: {', '.join(unknown)}")
    return options
