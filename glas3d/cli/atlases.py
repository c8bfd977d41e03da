"""``glas3d atlas``: look at the shipped atlases."""

from __future__ import annotations

import sys

from cyclopts import App

from glas3d.cli.terminal import say

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
    from glas3d.imaging.atlas import Atlas

    table = Atlas.load(name).centroids()
    sys.stdout.write(table.to_csv(sep="\t", index=False, float_format="%.1f", na_rep="n/a"))
