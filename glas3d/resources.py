"""The shipped atlases and models: where they are in a wheel, an editable install and a plain checkout alike."""

from __future__ import annotations

import difflib
import importlib.resources
import os
from pathlib import Path
from typing import Literal

from glas3d.errors import GlasError

Kind = Literal["atlases", "models"]

_PACKAGE = Path(str(importlib.resources.files("glas3d")))
_SHIPPED = _PACKAGE / "_shipped"
ROOT = _SHIPPED if _SHIPPED.is_dir() else _PACKAGE.parent
"""The folder that holds ``atlases`` and ``models``."""


def names(kind: Kind) -> list[str]:
    """Return the names of the shipped atlases or models, sorted."""
    folder = ROOT / kind
    return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def shipped_name(kind: Kind, name: str) -> str | None:
    """Return the name of a shipped atlas or model that is given in any case; None if it is not shipped."""
    return _by_casefolded_name(kind).get(name.casefold())


def folder(kind: Kind, name: str) -> Path:
    """Return the folder of a shipped atlas or model; its name may be given in any case.

    Raises
    ------
    GlasError
        Nothing of that name is shipped; the message lists the names, and suggests one that is nearly the same.
    """
    known = _by_casefolded_name(kind)
    if name.casefold() not in known:
        near = similar_name(kind, name)
        hint = f"did you mean {near}? " if near else ""
        listing = ", ".join(known.values()) or "none"
        raise GlasError(f"{name!r} is none of the shipped {kind}; {hint}there are: {listing}")
    return ROOT / kind / known[name.casefold()]


def similar_name(kind: Kind, name: str) -> str | None:
    """Return the name of a shipped atlas or model that is nearly the same; None if there is none.

    Examples
    --------
    >>> similar_name("models", "adnc_simulate"), similar_name("models", "resnet")
    ('adnc-simulated', None)
    """
    known = _by_casefolded_name(kind)
    near = difflib.get_close_matches(name.casefold(), known, n=1, cutoff=0.75)
    return known[near[0]] if near else None


def is_path(text: str) -> bool:
    """Return whether a text can only be meant as a path: it has a separator, or the suffix of an image.

    Examples
    --------
    >>> is_path("AAL"), is_path("atlases/own"), is_path("own.nii.gz")
    (False, True, True)
    """
    return "/" in text or os.sep in text or text.endswith((".nii", ".nii.gz", ".mgz"))


def _by_casefolded_name(kind: Kind) -> dict[str, str]:
    return {name.casefold(): name for name in names(kind)}
