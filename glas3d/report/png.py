"""Writing a figure as PNG, the same bytes for the same figure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure


def png_writer(figure: Figure, dpi: int) -> Callable[[Path], None]:
    """Return a function that saves the figure to a path, without a date or a version, and closes it."""

    def save(path: Path) -> None:
        try:
            figure.savefig(path, dpi=dpi, format="png", metadata={"Software": None})
        finally:
            plt.close(figure)

    return save
