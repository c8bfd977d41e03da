"""Options of a study from a TOML file."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from glas3d.errors import GlasError


def read_config(path: Path, known: Collection[str]) -> dict[str, Any]:
    """Read options, as they are named in Python or with dashes as on the command line.

    Tables such as ``[train]`` only put them in order: their keys are options like the others.

    Parameters
    ----------
    known
        The options there are. One whose value is itself a table, such as ``entities``, is given whole.

    Raises
    ------
    GlasError
        No such file, not TOML, an option given twice, or one that is not known; each is named.
    """
    try:
        with Path(path).open("rb") as file:
            content = tomllib.load(file)
    except FileNotFoundError:
        raise GlasError(f"no such file: {path}") from None
    except (OSError, ValueError) as error:
        raise GlasError(f"a configuration must be TOML, {path} is not: {error}") from None
    found: dict[str, Any] = {}
    unknown: list[str] = []
    pending = list(content.items())
    while pending:
        key, value = pending.pop(0)
        name = key.replace("-", "_")
        if name not in known:
            if isinstance(value, dict):
                pending = [*value.items(), *pending]
            else:
                near = difflib.get_close_matches(name, known, 1)
                unknown.append(key + (f" (did you mean {near[0]}?)" if near else ""))
        elif name in found:
            raise GlasError(f"{path} gives {name} twice")
        else:
            found[name] = value
    if unknown:
        raise GlasError(f"{path} has options there are none of: {', '.join(unknown)}")
    return found
