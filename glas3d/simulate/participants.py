"""Simulate participants from the ICBM152 template, with disease in known regions.

Each participant is the template, aged, thinned in known regions for Alzheimer's disease (AD), deformed smoothly, and
recorded by a scanner with a bias field, noise and a scale of its own. The regions that a method should find are
therefore known. Twins of a participant differ in nothing but the disease of chosen regions, so that its effect on a
model can be measured. The simulation is a caricature of the disease: use it to check methods and software, and for
nothing else.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.ndimage import map_coordinates

from glas3d.imaging.space import VoxelGrid, mni_grid, resample, template, template_on
from glas3d.simulate.regions import atlas_of, region_shares
from glas3d.simulate.simulation import PLANTED, Simulation

# Disease begins in the medial temporal lobe and reaches the inferior temporal gyrus later (Braak & Braak 1991).
_RELATIVE_SEVERITY = {"Temporal_Inf_L": 0.6, "Temporal_Inf_R": 0.6}  # 1 in all others

_CSF = 0.25  # T1 intensity of fluid, in the template's units, where grey matter was lost
_RELATIVE_AGEING = 2.0  # in normal ageing the hippocampus loses grey matter this many times faster than the rest
_SITE_SCALE = (700.0, 1000.0, 1500.0)  # intensity of the brightest tissue in the units of each site's scanner


@dataclass(frozen=True, eq=False)
class SimulatedParticipant:
    """A simulated participant and the scan.

    Attributes
    ----------
    participant_id, group, age, sex, site
        The row of ``participants.tsv``; the age is in years.
    severity
        Share of grey matter lost to disease in each region of the simulation (by default of `PLANTED`); zeros for
        controls and for healed regions.
    volume
        ``(x, y, z)`` float32, the recorded T1w volume in the scanner's units; 0 outside the brain.
    abnormalities
        Names of what the scan shows and a twin can be healed of: the regions with disease; none in controls.
    """

    participant_id: str
    group: str
    age: float
    sex: str
    site: str
    severity: tuple[float, ...]
    volume: np.ndarray
    abnormalities: tuple[str, ...] = ()


def simulate_participants(simulation: Simulation) -> Iterator[SimulatedParticipant]:
    """Yield the participants of a simulation, one after another.

    Parameters
    ----------
    simulation
        The cohort to simulate.

    Examples
    --------
    >>> from glas3d.simulate import Simulation
    >>> [p.group for p in simulate_participants(Simulation(participants=3, resolution=16))]
    ['AD', 'NC', 'AD']
    """
    for number in range(simulation.participants):
        yield simulate_participant(simulation, number)


def simulate_participant(
    simulation: Simulation, number: int, keep: Collection[str] | None = None
) -> SimulatedParticipant:
    """Return a participant of a simulation, or a twin with some abnormalities healed and all else equal bit for bit.

    Parameters
    ----------
    simulation
        The cohort.
    number
        Number of the participant, counted from 0.
    keep
        Names of the abnormalities that the participant keeps, such as ``["Hippocampus_L"]``; all others are healed.
        Default: all are kept.

    Raises
    ------
    GlasError
        A name in ``keep`` that is no abnormality of the simulation.

    Examples
    --------
    >>> from glas3d.simulate import Simulation
    >>> simulation = Simulation(resolution=8)
    >>> ill, healed = (simulate_participant(simulation, 0, keep) for keep in (None, []))
    >>> ill.abnormalities[:2], healed.abnormalities, ill.age == healed.age
    (('Hippocampus_L', 'Hippocampus_R'), (), True)
    """
    kept = simulation.kept(keep)
    # the order of the draws below is part of what a seed means
    rng = np.random.default_rng([simulation.seed, number])
    group = simulation.group(number)
    age = float(np.round(np.clip(rng.normal(75, 6), 55, 92), 1))
    sex = str(rng.choice(["F", "M"]))
    site = int(rng.integers(len(_SITE_SCALE)))
    general, spread = rng.uniform(*simulation.severity), rng.uniform(0.75, 1.25, len(PLANTED))
    severity = np.zeros(len(simulation.regions))
    if group == "AD":
        of_regions = [_spread(simulation, number, region, spread) for region in simulation.regions]
        relative = [_RELATIVE_SEVERITY.get(region, 1.0) * (region in kept) for region in simulation.regions]
        severity = np.clip(general * np.array(of_regions), *simulation.severity) * np.array(relative)
    ageing = rng.normal(0.003, 0.0008) * (age - 55)

    tissue = _tissue(simulation, severity, ageing)
    volume = _recorded(tissue, simulation, _SITE_SCALE[site], rng)
    return SimulatedParticipant(
        participant_id=f"{number + 1:04d}",
        group=group,
        age=age,
        sex=sex,
        site=f"site{site + 1}",
        severity=tuple(map(float, severity)),
        volume=volume,
        abnormalities=tuple(r for r, lost in zip(simulation.regions, severity, strict=True) if lost),
    )


def planted_labels(resolution: float, regions: Sequence[str] = PLANTED, atlas: str | Path = "AAL") -> np.ndarray:
    """Return the regions in which disease was planted, on the MNI grid.

    Parameters
    ----------
    resolution
        Voxel size in mm.
    regions
        Names of the regions. Default: `PLANTED`.
    atlas
        Their atlas, by its name or path. Default: AAL.

    Returns
    -------
    ``(x, y, z)`` int32: the atlas's labels of the regions, 0 elsewhere.
    """
    of_names = atlas_of(atlas)
    labels = of_names.on(mni_grid(resolution))
    planted = of_names.table.loc[of_names.table["name"].isin(regions), "index"]
    return np.where(np.isin(labels, planted), labels, 0).astype(np.int32)


def _spread(simulation: Simulation, number: int, region: str, of_planted: np.ndarray) -> float:
    """Return a region's severity relative to the participant's, which no other region's disease changes."""
    if region in PLANTED:
        return float(of_planted[PLANTED.index(region)])
    return float(np.random.default_rng([simulation.seed, number, zlib.crc32(region.encode())]).uniform(0.75, 1.25))


def _tissue(simulation: Simulation, severity: np.ndarray, ageing: float) -> np.ndarray:
    """Return the template without the grey matter that disease and age removed, in the template's units."""
    t1, grey = template_on(simulation.resolution), template_on(simulation.resolution, "gm")
    regions = region_shares(simulation.resolution, simulation.regions, simulation.atlas)
    hippocampus = region_shares(simulation.resolution, PLANTED[:2]).sum(axis=0)
    lost = np.clip(ageing * (1 + (_RELATIVE_AGEING - 1) * hippocampus) + np.tensordot(severity, regions, 1), 0, 1)
    # fluid takes the space of lost grey matter
    return np.asarray(t1 - lost * grey * np.maximum(t1 - _CSF, 0))


def _recorded(tissue: np.ndarray, simulation: Simulation, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Return the tissue as a scanner records it: deformed, with a bias field and noise, in the scanner's units."""
    grid = simulation.grid
    fields = SmoothFields(grid)
    displacement = np.stack([fields.draw(rng) * simulation.deformation / np.sqrt(3) for _ in range(3)])
    voxels = np.indices(grid.shape) + displacement / np.array(grid.spacing)[:, None, None, None]
    deformed = map_coordinates(tissue, voxels, order=1, mode="constant")
    brain = map_coordinates(_brain_share(simulation.resolution), voxels, order=1, mode="constant") > 0.5

    recorded = deformed * np.exp(simulation.bias * fields.draw(rng))
    noise = simulation.noise * rng.standard_normal((2, *grid.shape))
    recorded = np.hypot(recorded + noise[0], noise[1])  # a magnitude image, whose noise is Rician
    scale = scale * rng.uniform(0.85, 1.15)
    return np.where(brain, recorded * scale, 0).astype(np.float32)


@lru_cache(maxsize=4)
def _brain_share(resolution: float) -> np.ndarray:
    """Return the share of brain in each voxel."""
    t1 = template()
    return resample(type(t1)((np.asarray(t1.dataobj) > 0.05).astype(np.float32), t1.affine), mni_grid(resolution))


class SmoothFields:
    """Smooth random fields of unit variance: cubic splines over control points that do not depend on the grid.

    A participant therefore has the same anatomy at 4, 2 and 1 mm.

    Parameters
    ----------
    grid
        The grid on which the fields are drawn.
    """

    _SPACING_MM = 20.0
    _LOW, _HIGH = np.array([-110.0, -150.0, -95.0]), np.array([110.0, 110.0, 130.0])

    def __init__(self, grid: VoxelGrid) -> None:
        self._shape = tuple(np.ceil((self._HIGH - self._LOW) / self._SPACING_MM).astype(int) + 1)
        axes = [np.arange(n) * s + o for n, s, o in zip(grid.shape, grid.spacing, grid.affine[:3, 3], strict=True)]
        positions = [(a - low) / self._SPACING_MM for a, low in zip(axes, self._LOW, strict=True)]
        self._weights = [_spline_weights(p, n) for p, n in zip(positions, self._shape, strict=True)]

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return the next random field, ``(x, y, z)``."""
        control_points = rng.standard_normal(self._shape)
        x, y, z = self._weights
        field = np.einsum("abc,xa,yb,zc->xyz", control_points, x, y, z, optimize=True)
        # the variance that random control points give on average, between points and on them
        norm = np.prod([np.sqrt((w**2).sum(axis=1).mean()) for w in self._weights])
        return np.asarray(field / norm)


def _spline_weights(positions: np.ndarray, n: int) -> np.ndarray:
    """Return the weights of ``n`` control points in a uniform cubic B-spline, ``(len(positions), n)``."""
    distance = np.abs(positions[:, None] - np.arange(n)[None, :])
    inner = 2 / 3 - distance**2 + distance**3 / 2
    outer = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, inner, outer)


participant = simulate_participant
"""The shorter name of `simulate_participant`."""
