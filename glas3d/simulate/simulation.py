"""The options of a simulated cohort, declared once for Python and the command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from glas3d.errors import GlasError
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

COHORT, IMAGES = "Participants", "Images"


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
        Lowest and highest share of grey matter, from 0 to 1, that AD removes from hippocampus and amygdala; the
        inferior temporal gyrus loses 0.6 times as much. Default: 0.3 and 0.7.
    deformation
        Root mean square of the smooth displacement of the anatomy, in mm. Default: 1.5.
    bias
        Standard deviation of the logarithm of the bias field. Default: 0.05.
    noise
        Standard deviation of the noise, relative to the brightest tissue. Default: 0.02.

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
    deformation: float = option(1.5, group=IMAGES)
    bias: float = option(0.05, group=IMAGES)
    noise: float = option(0.02, group=IMAGES)

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
