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
from pathlib import Path

import numpy as np
from scipy.ndimage import map_coordinates

from glas3d.checks import whole_number
from glas3d.display import fields_repr
from glas3d.imaging.space import VoxelGrid, mni_grid, voxel_to_world
from glas3d.simulate.anatomy import anatomy
from glas3d.simulate.artefacts import with_artefacts
from glas3d.simulate.lesions import lesion_share
from glas3d.simulate.regions import atlas_of, region_shares
from glas3d.simulate.shrinkage import shrinking_shift
from glas3d.simulate.simulation import GROUPS, LESIONS, PLANTED, Simulation

# Disease begins in the medial temporal lobe and reaches the inferior temporal gyrus later (Braak & Braak 1991).
_RELATIVE_SEVERITY = {"Temporal_Inf_L": 0.6, "Temporal_Inf_R": 0.6}  # 1 in all others

_CSF, _GREY = 0.25, 0.65  # T1 intensities, in the template's units, of fluid and of grey matter
_SHARED_LOSS = 0.3  # largest share of grey matter that regions with disease lose together with a suppressor
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
        Names of what the scan shows and a twin can be healed of: regions with disease, the suppressor, ``"lesions"``.
    lesions
        ``(x, y, z)`` share of each voxel in white-matter lesions; None without any.
    suppressor
        Share of grey matter that the suppressor lost; 0 without one.
    artefacts
        Names of the scanner's artefacts in the scan.
    """

    participant_id: str
    group: str
    age: float
    sex: str
    site: str
    severity: tuple[float, ...]
    volume: np.ndarray
    abnormalities: tuple[str, ...] = ()
    lesions: np.ndarray | None = None
    suppressor: float = 0.0
    artefacts: tuple[str, ...] = ()

    __repr__ = fields_repr


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
    simulation: Simulation, number: int, keep: Collection[str] | None = None, *, scan: int = 0
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
    scan
        Number of the scan, counted from 0. Scans of a participant show the same anatomy and disease on the same
        scanner; bias field, noise and scale are those of each scan. Default: the first.

    Raises
    ------
    GlasError
        A name in ``keep`` that is no abnormality of the simulation, or a number of a scan below 0.

    Examples
    --------
    >>> from glas3d.simulate import Simulation
    >>> simulation = Simulation(resolution=8)
    >>> ill, healed = (simulate_participant(simulation, 0, keep) for keep in (None, []))
    >>> ill.abnormalities[:2], healed.abnormalities, ill.age == healed.age
    (('Hippocampus_L', 'Hippocampus_R'), (), True)
    """
    kept = simulation.kept(keep)
    whole_number("scan", scan, least=0)
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

    loss = _loss(simulation, number, severity, kept)
    lesions = None
    if LESIONS in kept and any(simulation.lesions):
        mean = simulation.lesions[GROUPS.index(group)]
        lesions = lesion_share(_own(simulation, number, LESIONS), mean, str(simulation.template), simulation.grid)
    record = _Recording(simulation, number, group, loss, rng, scan)
    volume = record(_tissue(simulation, loss, ageing, lesions), _SITE_SCALE[site])
    present = {region: bool(lost) for region, lost in zip(simulation.regions, severity, strict=True)}
    present |= {LESIONS: lesions is not None}
    suppressed = 0.0 if simulation.suppressor is None else float(loss[-1])
    if simulation.suppressor is not None:
        present[simulation.suppressor] = bool(suppressed)
    return SimulatedParticipant(
        participant_id=f"{number + 1:04d}",
        group=group,
        age=age,
        sex=sex,
        site=f"site{site + 1}",
        severity=tuple(map(float, severity)),
        volume=volume,
        abnormalities=tuple(name for name in simulation.abnormalities if present[name]),
        lesions=None if lesions is None else record.moved(lesions),
        suppressor=suppressed,
        artefacts=record.artefacts,
    )


def _own(simulation: Simulation, number: int, purpose: str) -> np.random.Generator:
    """Return a generator of a participant's own for one purpose, so that what is drawn changes nothing else."""
    return np.random.default_rng([simulation.seed, number, zlib.crc32(purpose.encode())])


def _spread(simulation: Simulation, number: int, region: str, of_planted: np.ndarray) -> float:
    """Return a region's severity relative to the participant's, which no other region's disease changes."""
    if region in PLANTED:
        return float(of_planted[PLANTED.index(region)])
    return float(_own(simulation, number, region).uniform(0.75, 1.25))


def _loss(simulation: Simulation, number: int, severity: np.ndarray, kept: frozenset[str]) -> np.ndarray:
    """Return the share that each changed region loses: by disease, and by what it shares with the suppressor."""
    if simulation.suppressor is None:
        return severity
    shared = _own(simulation, number, "suppressor").uniform(0, _SHARED_LOSS)
    return np.append(np.minimum(severity + shared, 1), shared * (simulation.suppressor in kept))


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


def _tissue(simulation: Simulation, loss: np.ndarray, ageing: float, lesions: np.ndarray | None) -> np.ndarray:
    """Return the template as disease, age and lesions left it, in the template's units."""
    brain = anatomy(str(simulation.template), simulation.resolution)
    hippocampus = region_shares(simulation.resolution, PLANTED[:2]).sum(axis=0)
    lost = ageing * (1 + (_RELATIVE_AGEING - 1) * hippocampus)
    if simulation.atrophy != "shrinking":
        regions = region_shares(simulation.resolution, simulation.changed_regions, simulation.atlas)
        lost = lost + np.tensordot(loss, regions, 1)
    # fluid takes the space of lost grey matter
    t1 = np.asarray(brain.t1 - np.clip(lost, 0, 1) * brain.grey * np.maximum(brain.t1 - _CSF, 0))
    return t1 if lesions is None else t1 - lesions * brain.white * np.maximum(t1 - _GREY, 0)


class _Recording:
    """How a scanner records a participant: the deformation of the anatomy, the bias field, noise and the scale.

    Parameters
    ----------
    simulation, number, group
        The cohort, and the participant's number and group.
    loss
        Share that each changed region loses, by which it shrinks where the simulation shrinks regions.
    rng
        The participant's generator; what is drawn from it does not depend on the tissue.
    scan
        Number of the scan; a later one draws what is its own from a generator of its own.
    """

    def __init__(
        self, simulation: Simulation, number: int, group: str, loss: np.ndarray, rng: np.random.Generator, scan: int
    ) -> None:
        self._simulation = simulation
        self._rng = _own(simulation, number, f"scan {scan}") if scan else rng
        grid = simulation.grid
        self._fields = SmoothFields(grid)
        displacement = np.stack([self._fields.draw(rng) * simulation.deformation / np.sqrt(3) for _ in range(3)])
        self._voxels = np.indices(grid.shape) + displacement / np.array(grid.spacing)[:, None, None, None]
        if simulation.atrophy != "thinning" and loss.any():
            points = voxel_to_world(np.moveaxis(self._voxels, 0, -1), grid.affine)
            shift = shrinking_shift(points, loss, simulation.changed_regions, str(simulation.atlas))
            self._voxels = self._voxels + np.moveaxis(shift / np.array(grid.spacing), -1, 0)
        self._of_artefacts = _own(simulation, number, "artefacts")
        share = simulation.artefact_share[GROUPS.index(group)]
        self.artefacts = simulation.artefacts if self._of_artefacts.uniform() < share else ()

    def moved(self, values: np.ndarray) -> np.ndarray:
        """Return values of the template, such as a tissue's share, where the participant has them."""
        return np.asarray(map_coordinates(values, self._voxels, order=1, mode="constant"))

    def __call__(self, tissue: np.ndarray, scale: float) -> np.ndarray:
        """Return the recorded volume, float32 in the scanner's units; 0 outside the brain. Call it once."""
        simulation, rng = self._simulation, self._rng
        brain = self.moved(anatomy(str(simulation.template), simulation.resolution).brain) > 0.5
        recorded = self.moved(tissue) * np.exp(simulation.bias * self._fields.draw(rng))
        if self.artefacts:
            recorded = with_artefacts(recorded, self.artefacts, self._of_artefacts)
        noise = simulation.noise * rng.standard_normal((2, *tissue.shape))
        recorded = np.hypot(recorded + noise[0], noise[1])  # a magnitude image, whose noise is Rician
        scale = scale * rng.uniform(0.85, 1.15)
        return np.where(brain, recorded * scale, 0).astype(np.float32)


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
