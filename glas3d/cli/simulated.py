"""``glas3d simulate`` and ``glas3d demo``: participants with known disease."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from glas3d.cli import terminal
from glas3d.cli.derived import command_options, given_options, in_group
from glas3d.cli.interruption import if_interrupted
from glas3d.cli.messages import Messages
from glas3d.cli.report import look_at
from glas3d.counts import counted
from glas3d.simulate.simulation import Simulation

SimulationCommand: Any = command_options("SimulationCommand", Simulation)

simulate = App(name="simulate", usage="Usage: glas3d simulate BIDS_DIR [OPTIONS]")
demo = App(name="demo", usage="Usage: glas3d demo [OPTIONS]")


@simulate.default
def simulate_participants(
    bids_dir: Path,
    /,
    *,
    options: Annotated[SimulationCommand, Parameter(name="*")] = SimulationCommand(),  # noqa: B008 (frozen)
    messages: Annotated[Messages, Parameter(name="*")] = Messages(),  # noqa: B008 (frozen)
) -> None:
    """Simulate participants with known disease, as a BIDS derivative data set.

    Parameters
    ----------
    bids_dir
        New folder for the data set.
    """
    if_interrupted("nothing was written")
    from glas3d.simulate.dataset import write_dataset

    simulation = Simulation(**given_options(options))
    with terminal.progress("participants") as progress:
        write_dataset(bids_dir, simulation, progress)
    if_interrupted(f"the data set is in {bids_dir}")
    terminal.write(
        f"Written to {bids_dir}: {counted(simulation.participants, 'participant')}, their truth in {bids_dir / 'truth'}"
    )


@demo.default
def run(
    *,
    out: Annotated[Path, in_group("Output")] = Path("glas3d-demo"),
    participants: Annotated[int, in_group("Participants")] = 24,
    seed: Annotated[int, in_group("Participants")] = 2020,
    no_report: Annotated[bool, in_group("Output")] = False,
    messages: Annotated[Messages, Parameter(name="*")] = Messages(),  # noqa: B008 (frozen)
) -> None:
    """Simulate participants, explain all with Alzheimer's disease, and map the group.

    Parameters
    ----------
    out
        Folder for the results; those of an earlier demo in it are replaced. Default: glas3d-demo.
    participants
        Number of participants to simulate, half of them with AD; the model was trained on none of them. Default: 24.
    seed
        Seed of the simulation. Default: 2020.
    no_report
        Do not write report.html, which shows the results in a browser.
    """
    if_interrupted("nothing was written")
    from glas3d.cli.demo import run_demo

    with terminal.progress("participants") as progress:
        result = run_demo(out, participants=participants, seed=seed, report=not no_report, progress=progress)
    if_interrupted(f"the results are in {out}")
    terminal.write(result.summary)
    title = "The ten highest-scoring regions of the AD group, and the truth about them"
    terminal.write_table(result.table, title, result.columns, truth=result.truth)
    terminal.write(
        f"{result.n_planted_first} of the {result.truth['planted'].sum()} planted regions are among the first 8."
    )
    terminal.write(
        "True effect: how much disease of the region raises the model's log-odds of AD, measured with twins."
    )
    terminal.write(f"Written to {out}, with the figure {result.figure}")
    account = "" if result.account is None else terminal.account_text(result.account, result.table)
    if account or result.report is not None:
        terminal.write(f"{account}{look_at(result.report)}".strip())
