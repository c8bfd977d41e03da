"""``glas3d report``: one HTML file that shows the results of a folder."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from glas3d.cli import terminal
from glas3d.cli.derived import in_group
from glas3d.cli.interruption import if_interrupted
from glas3d.cli.messages import Messages
from glas3d.errors import GlasError, GlasWarning, reason

report = App(name="report", usage="Usage: glas3d report OUT [OPTIONS]")


@report.default
def report_on_folder(
    out: Path,
    /,
    *,
    scan: Annotated[tuple[Path, ...], in_group("Input", consume_multiple=1)] = (),
    no_scan: Annotated[bool, in_group("Output")] = False,
    messages: Annotated[Messages, Parameter(name="*")] = Messages(),  # noqa: B008 (frozen)
) -> None:
    """Write OUT/report.html: one file that shows results, and all that a reader must know about them, in a browser.

    Parameters
    ----------
    out
        What glas3d explain, demo, compare or cohort wrote, or the folder of one participant of a study.
    scan
        Files of the scans that were explained, in case they were moved: they are shown below their maps. Default: where
        they were then.
    no_scan
        Show the template in place of the scan, for a report that may be sent to others. Default: the report of scans
        holds a copy of them, with larger voxels.
    """
    if_interrupted("the report was not written")
    from glas3d.report import write_report

    terminal.write(f"Written: {write_report(out, scans=scan, with_scan=not no_scan)}")


def written_report(out: Path, scans: Sequence[Path] = ()) -> Path | None:
    """Write the report of results that a command has just written; a warning where that fails, and None."""
    from glas3d.report import write_report

    try:
        return write_report(out, scans=scans)
    except Exception as error:  # whatever it is, the results are there, and stay
        kind = "" if isinstance(error, GlasError) else f"unexpected {type(error).__name__}: "
        warnings.warn(f"the results are written, but no report: {kind}{reason(error)}", GlasWarning, stacklevel=2)
        return None


def look_at(report_path: Path | None, folder: Path | None = None) -> str:
    """Return the end of a command's last line: which report to open; nothing where there is none.

    Parameters
    ----------
    report_path
        The report that the command has written; None: it has written none.
    folder
        The folder of the results, which may have a report of an earlier command that does not show them.
    """
    from glas3d.output import REPORT

    if report_path is not None:
        return f" Look at {report_path}"
    outdated = None if folder is None else folder / REPORT
    if outdated is None or not outdated.is_file():
        return ""
    return f" {outdated} does not show this yet: glas3d report {shlex.quote(str(folder))} writes it again"
