"""Where the shipped atlases and models are, in a wheel, an editable install and a plain checkout alike."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from glas3d.errors import GlasError

_PACKAGE = Path(str(importlib.resources.files("glas3d")))
_SHIPPED = _PACKAGE / "_shipped"
ROOT = _SHIPPED if _SHIPPED.is_dir() else _PACKAGE.parent


def names(kind: str) -> list[str]:
    """The names shipped of a kind, ``"atlases"`` or ``"models"``."""
    folder = ROOT / kind
    return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def folder(kind: str, name: str) -> Path:
    """The folder of one shipped atlas or model.

    Raises
    ------
    GlasError
        Nothing of that name is shipped; the message lists what is.
    """
    known = names(kind)
    if name not in known:
        raise GlasError(f"{name!r} is none of the shipped {kind}; there are: {', '.join(known) or 'none'}")
    return ROOT / kind / name
