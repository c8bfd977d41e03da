"""Gaussian light and shadow as one of the methods that are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from glas3d.core.explanation import Explanation
from glas3d.errors import GlasError
from glas3d.evaluate.rivals.rival import Rival, Task


@dataclass(frozen=True, kw_only=True)
class Glas(Rival):
    """Gaussian light and shadow (Oh, Kim & Oh 2020).

    Parameters
    ----------
    settings
        Settings of `GLAS` by their names, and ``refine`` (see `glas3d.explain_img`). Those that are not given are those
        of the model's preset, else the defaults.
    preset
        The preset whose settings are taken where none are given, ``"paper"`` or ``"evidence"``; None: see
        `glas3d.explain_img`.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    preset: str | None = None

    def attribute(self, task: Task) -> Explanation:
        """Return the explanation, which counts its evaluations itself; see `Rival.attribute`."""
        if task.explain is None:
            raise GlasError("GLAS explains a scan or an image: use glas3d.evaluate.attribute")
        return task.explain(self.settings, self.preset)
