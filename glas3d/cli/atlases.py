"""``glas3d atlas``: look at the shipped atlases."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import App

from glas3d.cli import terminal
from glas3d.cli.derived import in_group
from glas3d.counts import counted

app = App(name="atlas", help="Look at the shipped atlases.")


@app.command(name="list")
def atlas_list(*, json: Annotated[bool, in_group("Output")] = False) -> None:
    """List the shipped atlases.

    Parameters
    ----------
    json
        Write the list as JSON, for other programs.
    """
    from glas3d.imaging.atlas import Atlas

    atlases = [Atlas.load(name) for name in Atlas.names()]
    if json:
        content = [{"name": atlas.name, "regions": len(atlas.table), "space": atlas.space} for atlas in atlases]
        terminal.write_json({"atlases": content})
        return
    for atlas in atlases:
        terminal.write(f"{atlas.name}: {counted(len(atlas.table), 'region')}, {atlas.space} space")


@app.command
def show(name: str, /) -> None:
    """Print the regions of an atlas and their centroids as tab-separated text.

    Parameters
    ----------
    name
        Name of a shipped atlas, or path of a label image with its table next to it.
    """
    from glas3d.imaging.atlas import Atlas

    table = Atlas.load(name).centroids()
    table[["x", "y", "z"]] = table[["x", "y", "z"]].round(1) + 0.0  # the sum of -0.0 and 0.0 is 0.0
    sys.stdout.write(table.to_csv(sep="\t", index=False, float_format="%.1f", na_rep="n/a"))
