"""Twins: one simulated participant with the disease of chosen regions healed, everything else equal bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from glas3d.bids_names import bids_label
from glas3d.simulate.participants import SimulatedParticipant, simulate_participant
from glas3d.simulate.simulation import Simulation

Kind = Literal["healed", "without", "only"]
KINDS: tuple[Kind, ...] = ("healed", "without", "only")


@dataclass(frozen=True, eq=False)
class Twin:
    """A participant with some abnormalities healed.

    Attributes
    ----------
    kind
        ``"healed"``: of all abnormalities, ``"without"``: of one of them, ``"only"``: of all others.
    abnormality
        The one that is healed, or kept alone; empty when all are healed.
    participant
        The twin and the scan.
    """

    kind: Kind
    abnormality: str
    participant: SimulatedParticipant

    @property
    def desc(self) -> str:
        """The label of the entity ``desc`` in file names, such as ``withoutHippocampusL``."""
        return twin_label(self.kind, self.abnormality)


def twins(simulation: Simulation, number: int) -> Iterator[Twin]:
    """Yield the twins of a participant: all healed, and for every abnormality the twin without it and with it only.

    Parameters
    ----------
    simulation
        The cohort.
    number
        Number of the participant, counted from 0. A participant without abnormalities, such as a control, has no twins.

    Examples
    --------
    >>> simulation = Simulation(resolution=16, regions=("Precuneus_L", "Precuneus_R"))
    >>> [(twin.desc, twin.participant.abnormalities) for twin in twins(simulation, 0)][:3]
    [('healed', ()), ('withoutPrecuneusL', ('Precuneus_R',)), ('onlyPrecuneusL', ('Precuneus_L',))]
    >>> list(twins(simulation, 1))
    []
    """
    present = simulate_participant(simulation, number).abnormalities
    if present:
        yield Twin("healed", "", simulate_participant(simulation, number, ()))
    for name in present:
        others = [other for other in present if other != name]
        yield Twin("without", name, simulate_participant(simulation, number, others))
        yield Twin("only", name, simulate_participant(simulation, number, (name,)))


def twin_label(kind: Kind, abnormality: str = "") -> str:
    """Return the label of a twin in file names, such as ``withoutHippocampusL``."""
    return kind + bids_label(abnormality)
