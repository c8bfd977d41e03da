"""Participants with known truth, made from the ICBM152 template.

Every participant is the template, aged, for Alzheimer's disease (AD) thinned in six regions, deformed
smoothly, and recorded by a scanner with a bias field, noise and a scale of its own. What a method should
find is therefore known: the six regions. What is simulated is a caricature of disease, good for checking
methods and software, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from glas3d.errors import GlasError
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.space import VoxelGrid, mni_grid, resample, template, template_on

PLANTED = (
    "Hippocampus_L",
    "Hippocampus_R",
    "Amygdala_L",
    "Amygdala_R",
    "Temporal_Inf_L",
    "Temporal_Inf_R",
)
GROUPS = ("NC", "AD")

# Disease begins in the medial temporal lobe and reaches the inferior temporal gyrus later (Braak & Braak 1991).
_RELATIVE_SEVERITY = np.array([1.0, 1.0, 1.0, 1.0, 0.6, 0.6])

_LATTICE_MM = 20.0  # between control points of the smooth random fields
_CSF = 0.25  # of T1 intensity, in the template's units, where grey matter was lost
_RELATIVE_AGEING = 2.0  # the hippocampus loses grey matter this much faster than the rest in normal ageing
_SITE_SCALE = (700.0, 1000.0, 1500.0)  # the scanners' units


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """What a simulated cohort is made of.

    Parameters
    ----------
    participants
        How many; AD and NC alternate while there are some of both.
    ad
        How many of them have AD; None: half.
    seed
        Participant ``i`` of a seed is the same whatever the number of participants, as long as groups alternate.
    resolution
        Voxel size in mm of the MNI grid; see `mni_grid`.
    severity
        Lowest and highest share of grey matter lost to AD in hippocampus and amygdala; the inferior temporal
        gyrus loses 0.6 times that.
    deformation
        Root mean square of the displacement, in mm.
    bias
        Standard deviation of the logarithm of the bias field.
    noise
        Standard deviation of the noise, relative to the brightest tissue.

    Raises
    ------
    GlasError
        Numbers outside their range.
    """

    participants: int = 20
    ad: int | None = None
    seed: int = 0
    resolution: float = 4.0
    severity: tuple[float, float] = (0.3, 0.7)
    deformation: float = 1.5
    bias: float = 0.05
    noise: float = 0.02

    def __post_init__(self) -> None:
        if self.participants < 1:
            raise GlasError(f"participants must be at least 1, got {self.participants}")
        if self.ad is not None and not 0 <= self.ad <= self.participants:
            raise GlasError(f"ad must be from 0 to the {self.participants} participants, got {self.ad}")
        if self.seed < 0:
            raise GlasError(f"seed must be 0 or more, got {self.seed}")
        low, high = self.severity
        if not 0 <= low <= high <= 1:
            raise GlasError(f"severity must be two shares from 0 to 1, the lower first, got {self.severity}")
        for name in ("deformation", "bias", "noise"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise GlasError(f"{name} must be 0 or more, got {getattr(self, name)}")
        mni_grid(self.resolution)

    @property
    def grid(self) -> VoxelGrid:
        """The grid of every participant."""
        return mni_grid(self.resolution)

    def group(self, number: int) -> str:
        """Group of participant ``number`` (from 0): AD first, then in turn while there are some of both."""
        if self.ad is None or number < 2 * min(self.ad, self.participants - self.ad):
            return GROUPS[1 - number % 2]
        return GROUPS[2 * self.ad > self.participants]


@dataclass(frozen=True, eq=False)
class Participant:
    """One simulated participant.

    Attributes
    ----------
    participant_id, group, age, sex, site
        The row of ``participants.tsv``.
    severity
        Share of grey matter lost to disease in each of `PLANTED`; zeros for controls.
    volume
        The recorded T1w volume in the scanner's units, float32; 0 outside the brain.
    """

    participant_id: str
    group: str
    age: float
    sex: str
    site: str
    severity: tuple[float, ...]
    volume: np.ndarray


def participants(simulation: Simulation) -> Iterator[Participant]:
    """Make the participants one after another."""
    for number in range(simulation.participants):
        yield participant(simulation, number)


def participant(simulation: Simulation, number: int) -> Participant:
    """Make participant ``number`` (from 0) of a simulation."""
    rng = np.random.default_rng([simulation.seed, number])
    group = simulation.group(number)
    age = float(np.round(np.clip(rng.normal(75, 6), 55, 92), 1))
    sex = str(rng.choice(["F", "M"]))
    site = int(rng.integers(len(_SITE_SCALE)))
    severity = np.zeros(len(PLANTED))
    general, spread = rng.uniform(*simulation.severity), rng.uniform(0.75, 1.25, len(PLANTED))
    if group == "AD":
        severity = np.clip(general * spread, *simulation.severity) * _RELATIVE_SEVERITY
    ageing = rng.normal(0.003, 0.0008) * (age - 55)

    resolution, grid = simulation.resolution, simulation.grid
    t1, grey = template_on(resolution), template_on(resolution, "gm")
    regions, hippocampus = _planted_on(resolution)
    lost = np.clip(ageing * (1 + (_RELATIVE_AGEING - 1) * hippocampus) + np.tensordot(severity, regions, 1), 0, 1)
    # lost grey matter is filled by fluid
    tissue = t1 - lost * grey * np.maximum(t1 - _CSF, 0)

    lattice = _Lattice(grid)
    displacement = np.stack([lattice.field(rng) * simulation.deformation / np.sqrt(3) for _ in range(3)])
    where = np.indices(grid.shape) + displacement / np.array(grid.spacing)[:, None, None, None]
    deformed = map_coordinates(tissue, where, order=1, mode="constant")
    brain = map_coordinates(_brain(resolution), where, order=1, mode="constant") > 0.5

    recorded = deformed * np.exp(simulation.bias * lattice.field(rng))
    noise = simulation.noise * rng.standard_normal((2, *grid.shape))
    recorded = np.hypot(recorded + noise[0], noise[1])  # a magnitude image: Rician
    scale = _SITE_SCALE[site] * rng.uniform(0.85, 1.15)
    volume = np.where(brain, recorded * scale, 0).astype(np.float32)
    name = f"{number + 1:04d}"
    return Participant(name, group, age, sex, f"site{site + 1}", tuple(map(float, severity)), volume)


def truth(resolution: float) -> np.ndarray:
    """Where disease was planted: the atlas's labels of `PLANTED` on the MNI grid, 0 elsewhere, int32."""
    aal = Atlas.load("AAL")
    labels = aal.on(mni_grid(resolution))
    planted = aal.table.loc[aal.table["name"].isin(PLANTED), "index"]
    return np.where(np.isin(labels, planted), labels, 0).astype(np.int32)


@lru_cache(maxsize=4)
def _planted_on(resolution: float) -> tuple[np.ndarray, np.ndarray]:
    """Soft shares of the planted regions ``(6, *shape)``, and of both hippocampi."""
    aal = Atlas.load("AAL")
    index = aal.table.set_index("name")["index"]
    labels = np.asarray(aal.labels_img.dataobj)
    grid = mni_grid(resolution)
    soft = []
    for name in PLANTED:
        # made at 1 mm, so that the share of a coarse voxel is right
        one = gaussian_filter((labels == index[name]).astype(np.float32), 1.0)
        soft.append(resample(type(aal.labels_img)(one, aal.labels_img.affine), grid))
    regions = np.stack(soft)
    return regions, regions[:2].sum(axis=0)


@lru_cache(maxsize=4)
def _brain(resolution: float) -> np.ndarray:
    """Share of brain in a voxel."""
    t1 = template()
    return resample(type(t1)((np.asarray(t1.dataobj) > 0.05).astype(np.float32), t1.affine), mni_grid(resolution))


class _Lattice:
    """Smooth random fields of unit variance: cubic splines over control points that do not depend on the grid.

    A participant therefore has the same anatomy at 4, 2 and 1 mm.
    """

    _LOW, _HIGH = np.array([-110.0, -150.0, -95.0]), np.array([110.0, 110.0, 130.0])

    def __init__(self, grid: VoxelGrid) -> None:
        self._shape = tuple(np.ceil((self._HIGH - self._LOW) / _LATTICE_MM).astype(int) + 1)
        axes = [np.arange(n) * s + o for n, s, o in zip(grid.shape, grid.spacing, grid.affine[:3, 3], strict=True)]
        positions = [(a - low) / _LATTICE_MM for a, low in zip(axes, self._LOW, strict=True)]
        self._weights = [_spline(p, n) for p, n in zip(positions, self._shape, strict=True)]

    def field(self, rng: np.random.Generator) -> np.ndarray:
        control = rng.standard_normal(self._shape)
        x, y, z = self._weights
        field = np.einsum("abc,xa,yb,zc->xyz", control, x, y, z, optimize=True)
        # the variance a random control point set has on average, half-way between points and on them
        norm = np.prod([np.sqrt((w**2).sum(axis=1).mean()) for w in self._weights])
        return np.asarray(field / norm)


def _spline(positions: np.ndarray, n: int) -> np.ndarray:
    """Uniform cubic B-spline weights, ``(len(positions), n)``."""
    distance = np.abs(positions[:, None] - np.arange(n)[None, :])
    inner = 2 / 3 - distance**2 + distance**3 / 2
    outer = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, inner, outer)
