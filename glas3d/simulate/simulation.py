"""The options of a simulated cohort, declared once for Python and the command."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from glas3d.errors import GlasError, listed
from glas3d.options import option

if TYPE_CHECKING:
    from glas3d.imaging.space import VoxelGrid

PLANTED = (
    "Hippocampus_L",
    "Hippocampus_R",
    "Amygdala_L",
    "Amygdala_R",
    "Temporal_Inf_L",
    "Temporal_Inf_R",
)
"""The AAL regions in which disease is planted."""

GROUPS = ("NC", "AD")
"""Normal controls, and participants with Alzheimer's disease."""

ICBM152, COLIN27 = "ICBM152", "Colin27"
"""Templates that participants can be made from, by name."""

LESIONS = "lesions"
"""The name of a participant's white-matter lesions among the abnormalities."""

Atrophy = Literal["thinning", "shrinking", "both"]
Artefact = Literal["gibbs", "spike", "low-resolution"]

COHORT, DISEASE, IMAGES, ARTEFACTS = "Participants", "Disease", "Images", "Anatomy and artefacts"


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A simulated cohort: its participants, their disease and how their scans are recorded.

    Parameters
    ----------
    participants
        Number of participants; AD and NC alternate while there are some of both. Default: 20.
    ad
        Number of participants with AD. Default: half of them.
    seed
        Seed of everything random. Participant ``i`` of a seed is the same in cohorts of any size, as long as groups
        alternate. Default: 0.
    resolution
        Voxel size in mm of the MNI grid of the scans, from 0.5 to 16. Default: 4.
    severity
        Lowest and highest share of grey matter, from 0 to 1, that AD removes from a region; the inferior temporal gyrus
        loses 0.6 times as much. Default: 0.3 and 0.7.
    regions
        Names of the regions in which AD removes grey matter. A region loses as much in the same participant whichever
        the other regions are. Default: hippocampus, amygdala and inferior temporal gyrus of both sides.
    atlas
        The atlas of the regions, in MNI space: a name, or the path of a label image with its table. Default: AAL.
    atrophy
        What AD does to its regions: ``thinning`` turns grey matter into fluid, ``shrinking`` takes the share from the
        region's volume by a smooth deformation that draws in the tissue around it, ``both`` does both.
        Default: thinning.
    lesions
        Mean number of white-matter hyperintensities in controls and in participants with AD. On T1w scans they are as
        dark as grey matter. Default: 0 and 0.
    suppressor
        Name of a region that tells the groups apart only together with others: in everyone, whatever the group, it and
        the regions with disease lose the same further share of grey matter, from 0 to 0.3, by which the disease is hard
        to see until the suppressor's is subtracted. Default: none.
    twins
        Also write the twins of every participant: the same scan with all abnormalities healed, with one of them healed,
        and with one of them alone. Abnormalities are the disease of a region, the lesions and the suppressor's loss; a
        control without any has no twins. Default: no.
    deformation
        Root mean square of the smooth displacement of the anatomy, in mm. Default: 1.5.
    bias
        Standard deviation of the logarithm of the bias field. Default: 0.05.
    noise
        Standard deviation of the noise, relative to the brightest tissue. Default: 0.02.
    template
        The brain that participants are made from: ICBM152; Colin27, where Debian's package mricron-data is installed;
        or the path of a T1w scan of a brain without skull in MNI space. Default: ICBM152.
    artefacts
        Artefacts of the scanner: ``gibbs`` (ringing), ``spike`` (stripes), ``low-resolution``. Default: none.
    artefact_share
        Share of controls, and of participants with AD, whose scans have the artefacts. Where the two differ, a model
        can take them for the disease. Default: 1 and 1.

    Raises
    ------
    GlasError
        A number outside its range.
    """

    participants: int = option(20, group=COHORT)
    ad: int | None = option(None, group=COHORT, command=int)
    seed: int = option(0, group=COHORT)
    resolution: float = option(4.0, group=IMAGES)
    severity: tuple[float, float] = option((0.3, 0.7), group=COHORT)
    regions: tuple[str, ...] = option(PLANTED, group=DISEASE)
    atlas: str | Path = option("AAL", group=DISEASE, command=str)
    atrophy: Atrophy = option("thinning", group=DISEASE)
    lesions: tuple[float, float] = option((0.0, 0.0), group=DISEASE)
    suppressor: str | None = option(None, group=DISEASE, command=str)
    twins: bool = option(False, group=DISEASE)
    deformation: float = option(1.5, group=IMAGES)
    bias: float = option(0.05, group=IMAGES)
    noise: float = option(0.02, group=IMAGES)
    template: str | Path = option(ICBM152, group=ARTEFACTS, command=str)
    artefacts: tuple[Artefact, ...] = option((), group=ARTEFACTS)
    artefact_share: tuple[float, float] = option((1.0, 1.0), group=ARTEFACTS)

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
        _ = self.grid  # refuse an impossible resolution
        object.__setattr__(self, "regions", tuple(self.regions))
        object.__setattr__(self, "atlas", str(self.atlas))
        object.__setattr__(self, "template", str(self.template))
        if self.atrophy not in get_args(Atrophy):
            raise GlasError(f"atrophy must be one of {', '.join(get_args(Atrophy))}, got {self.atrophy!r}")
        if not all(0 <= mean < float("inf") for mean in self.lesions):
            raise GlasError(f"lesions must be two mean numbers of at least 0, got {self.lesions}")
        if unknown := sorted(set(self.artefacts) - set(get_args(Artefact))):
            raise GlasError(f"artefacts must be among {', '.join(get_args(Artefact))}, got {listed(unknown)}")
        if not all(0 <= share <= 1 for share in self.artefact_share):
            raise GlasError(f"artefact_share must be two shares from 0 to 1, got {self.artefact_share}")
        if (self.changed_regions, self.atlas) != (PLANTED, "AAL"):
            from glas3d.simulate.regions import check_regions

            check_regions(self.atlas, self.changed_regions)

    @property
    def grid(self) -> VoxelGrid:
        """The MNI grid of every scan."""
        from glas3d.imaging.space import mni_grid

        return mni_grid(self.resolution)

    def group(self, number: int) -> str:
        """Return the group of participant ``number``, counted from 0: AD first, alternating while there are both."""
        if self.ad is None or number < 2 * min(self.ad, self.participants - self.ad):
            return GROUPS[1 - number % 2]
        return GROUPS[2 * self.ad > self.participants]

    @property
    def changed_regions(self) -> tuple[str, ...]:
        """Names of the regions that lose tissue in some participants: those with disease, and the suppressor."""
        return self.regions if self.suppressor is None else (*self.regions, self.suppressor)

    @property
    def abnormalities(self) -> tuple[str, ...]:
        """Names of what participants may have and twins are healed of: regions that lose tissue, and lesions."""
        return (*self.changed_regions, LESIONS) if any(self.lesions) else self.changed_regions

    def kept(self, keep: Collection[str] | None) -> frozenset[str]:
        """Return the abnormalities that a participant keeps; all of them where None is given.

        Raises
        ------
        GlasError
            A name that is no abnormality of this simulation.
        """
        if keep is None:
            return frozenset(self.abnormalities)
        unknown = sorted(set(keep) - set(self.abnormalities))
        if unknown:
            raise GlasError(f"keep must name abnormalities of {', '.join(self.abnormalities)}, got {listed(unknown)}")
        return frozenset(keep)

    def record(self) -> dict[str, Any]:
        """Return the settings as a data set records them: those of participants and images, and others that are set."""
        return {
            declared.name: getattr(self, declared.name)
            for declared in fields(self)
            if declared.metadata["group"] in (COHORT, IMAGES) or getattr(self, declared.name) != declared.default
        }
