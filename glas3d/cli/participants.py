"""Commands about many participants."""

from __future__ import annotations

from pathlib import Path

from glas3d.cli.terminal import print_table, progress, say


def simulate(
    bids_dir: Path,
    *,
    participants: int = 20,
    ad: int | None = None,
    seed: int = 0,
    resolution: float = 4.0,
    severity: tuple[float, float] = (0.3, 0.7),
    deformation: float = 1.5,
    bias: float = 0.05,
    noise: float = 0.02,
) -> None:
    """Simulate participants with known disease, as a BIDS derivative data set.

    Parameters
    ----------
    bids_dir
        New folder for the data set.
    participants
        How many.
    ad
        How many of them have AD; default: half.
    seed
        Of everything random; the same seed gives the same participants.
    resolution
        Voxel size in mm: 4, 2, 1 or others.
    severity
        Lowest and highest share of grey matter lost in AD (0.6 times that in the inferior temporal gyrus).
    deformation
        Of anatomy, in mm (root mean square).
    bias
        Of the bias field.
    noise
        Relative to the brightest tissue.
    """
    from glas3d.simulate import Simulation, write_dataset

    simulation = Simulation(
        participants=participants,
        ad=ad,
        seed=seed,
        resolution=resolution,
        severity=severity,
        deformation=deformation,
        bias=bias,
        noise=noise,
    )
    with progress("participants") as tick:
        write_dataset(bids_dir, simulation, tick)
    say(f"Written to {bids_dir}: {participants} participants, their truth in {bids_dir / 'truth'}")


def demo(*, out: Path = Path("glas3d-demo"), participants: int = 24, seed: int = 2020) -> None:
    """Simulate participants, explain every AD one, and map the group: the whole way on made data.

    Parameters
    ----------
    out
        Folder for the results; those of an earlier demo in it are replaced.
    participants
        How many to simulate, half of them AD; none was seen in training.
    seed
        Of the simulation.
    """
    from glas3d.cli.demo import run_demo

    with progress("participants") as tick:
        result = run_demo(out, participants=participants, seed=seed, tick=tick)
    say(result.summary)
    print_table(result.table, "Ten best regions of the AD group, beside the planted truth", planted=result.planted)
    say(f"{result.found} of the {len(result.planted)} planted regions are among the first 8.")
    say(f"Written to {out}; look at {result.figure}")
