"""``glas3d fetch``: data sets of real participants, for those who have the internet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from glas3d.cli import terminal
from glas3d.cli.derived import command_options, given_options, in_group
from glas3d.cli.messages import Messages
from glas3d.counts import counted
from glas3d.study.oasis.options import OasisOptions

OasisCommand: Any = command_options("OasisCommand", OasisOptions)

app = App(name="fetch", help="Download data of real participants and write them as a BIDS data set.")


@app.command
def oasis(
    bids_dir: Path,
    /,
    *,
    agree: Annotated[bool, in_group("Input")] = False,
    options: Annotated[OasisCommand, Parameter(name="*")] = OasisCommand(),  # noqa: B008 (frozen)
    messages: Annotated[Messages, Parameter(name="*")] = Messages(),  # noqa: B008 (frozen)
) -> None:
    """Fetch OASIS-1: maps of grey matter of participants with and without dementia, and of younger ones.

    Its terms of use are shown before anything is downloaded.

    Parameters
    ----------
    bids_dir
        New folder for the data set.
    agree
        You have read the data use agreement of OASIS and agree with it; nothing is downloaded without.
    """
    from glas3d.study.oasis.dataset import fetch_oasis, oasis_terms

    terminal.write(oasis_terms())
    with terminal.progress("maps") as progress:
        fetched = fetch_oasis(bids_dir, agree=agree, progress=progress, **given_options(options))
    terminal.write(f"{'group':<10}{'n':>5}{'women':>7}  {'age: mean (sd), range':<30}{'eTIV, cm^3':>10}")
    for row in fetched.summary.to_dict("records"):
        if row["n"]:
            age = f"{row['age']:.1f} ({row['age_sd']:.1f}), {row['youngest']:g} to {row['oldest']:g}"
            terminal.write(f"{row['group']:<10}{row['n']:>5}{row['women']:>7}  {age:<30}{row['etiv']:>10.0f}")
    if fetched.left_out:
        terminal.write(f"Left out, because they belong to no group: {fetched.left_out}")
    terminal.write(
        f"Written to {bids_dir}: {counted(len(fetched.participants), 'participant')}; the data use agreement is LICENSE"
    )
