"""Writing figures, the same bytes for the same figure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

FileFormat = Literal["png", "pdf", "svg"]

_WITHOUT_DATE: dict[FileFormat, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None, "Creator": None},
}
# Text stays text that can be searched and edited; the names of parts do not change from one run to the next.
_VECTOR: Any = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "glas3d"}


def figure_writer(figure: Figure, file_format: FileFormat, dpi: int) -> Callable[[Path], None]:
    """Return a function that saves the figure to a path, without a date or a version, and closes it.

    Parameters
    ----------
    figure
        The figure.
    file_format
        ``png`` for screens; ``pdf`` and ``svg`` have letters and lines of any size.
    dpi
        Pixels in an inch, of PNG and of the images within the other formats.
    """

    def save(path: Path) -> None:
        try:
            with matplotlib.rc_context(_VECTOR):
                figure.savefig(path, dpi=dpi, format=file_format, metadata=_WITHOUT_DATE[file_format])
        finally:
            plt.close(figure)

    return save


def png_writer(figure: Figure, dpi: int) -> Callable[[Path], None]:
    """Return a function that saves the figure to a path as PNG, see `figure_writer`."""
    return figure_writer(figure, "png", dpi)
