"""``glas3d export``: results for other viewers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from glas3d.cli import terminal
from glas3d.cli.derived import in_group
from glas3d.cli.messages import Messages
from glas3d.counts import counted
from glas3d.report.viewer_names import VIEWERS

Viewer: Any = Literal[VIEWERS]

export = App(
    name="export",
    usage="Usage: glas3d export OUT [--viewer NAME ...] [OPTIONS]",
    help_epilogue="An option that takes several values takes everything up to the next option: give OUT first.",
)


@export.default
def export_for_viewers(
    out: Path,
    /,
    *,
    viewer: Annotated[tuple[Viewer, ...], in_group("Output", consume_multiple=1)] = VIEWERS,
    top: Annotated[int, in_group("Output")] = 5,
    scan: Annotated[tuple[Path, ...], in_group("Input", consume_multiple=1)] = (),
    messages: Annotated[Messages, Parameter(name="*")] = Messages(),  # noqa: B008 (frozen)
) -> None:
    """Write what FSLeyes, ITK-SNAP, freeview, MRIcroGL and MRIcron need to OUT/viewers, with a command for each.

    The highest-scoring regions become a label image in red, green, blue, yellow and purple (ranks 1 to 5), with names
    and colours in the form that each viewer reads. A script for each viewer opens anatomy, map and labels.

    Parameters
    ----------
    out
        What glas3d explain, demo or cohort wrote, or the folder of one participant of a study.
    viewer
        Only for these viewers. Default: for all.
    top
        How many ranks the label image has; ranks after the fifth are grey. Default: 5.
    scan
        The scans that were explained, as anatomy of maps in their native space; they are recognised by their hash.
        Default: maps in MNI space are opened with the template, others without anatomy.
    """
    from glas3d.output import refuse_links, write_with_hashes
    from glas3d.report.folder import shown_in
    from glas3d.report.viewers import viewer_files
    from glas3d.verify.files import damage_named

    folder = out / "viewers"
    refuse_links(out, folder)
    with damage_named(out):
        written = write_with_hashes(folder, viewer_files(shown_in(out, scan), folder, viewer, top=top))
    for path in written:
        if path.suffix in (".sh", ".py"):
            terminal.write(f"Open: {path}")
    terminal.write(f"Written to {folder}: {counted(len(written), 'file')}")
