"""``glas3d atlas``: look at the shipped atlases."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from glas3d.cli.terminal import say

if TYPE_CHECKING:
    from glas3d.imaging.atlas import Atlas

app = App(name="atlas", help="Look at the shipped atlases.")


@app.command(name="list")
def atlas_list() -> None:
    """Name the shipped atlases."""
    from glas3d.imaging.atlas import Atlas

    for name in Atlas.names():
        loaded = Atlas.load(name)
        say(f"{name}: {len(loaded.table)} regions, {loaded.space} space")


@app.command
def show(name: str) -> None:
    """Print an atlas's regions and their centroids as tab-separated text.

    Parameters
    ----------
    name
        A shipped atlas, or the path of a label image with its .tsv table beside it.
    """
    table = named_atlas(name).centroids()
    sys.stdout.write(table.to_csv(sep="\t", index=False, float_format="%.1f", na_rep="n/a"))


def named_atlas(name: str) -> Atlas:
    """A shipped atlas, or that of a label image with its .tsv table beside it."""
    from glas3d.imaging.atlas import Atlas

    path = Path(name)
    if name in Atlas.names() or not path.exists():
        return Atlas.load(name)
    table = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".tsv")
    return Atlas.from_files(path, table)
