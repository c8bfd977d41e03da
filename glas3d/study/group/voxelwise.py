"""Two groups compared voxel by voxel, corrected over all voxels, and by threshold-free cluster enhancement."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil

from glas3d.errors import GlasError
from glas3d.imaging.mask import mask_on
from glas3d.imaging.registration import template_brain
from glas3d.imaging.space import VoxelGrid, world
from glas3d.statistics.regions import Normalise, normalised
from glas3d.statistics.two_groups import compare
from glas3d.study.group.comparison import Pair, comparison_facts
from glas3d.study.group.files import GroupFiles, volume_img
from glas3d.study.group.options import GroupSettings
from glas3d.study.group.participants import Participant, Scores

# Matrices of participants by voxels that stand side by side at the worst moment of a comparison, those of
# nilearn among them.
COPIES = 6


@dataclass(frozen=True)
class VoxelResult:
    """What a voxelwise comparison says in short.

    Attributes
    ----------
    n_voxels
        Tested.
    n_below
        Of them, with a corrected p of at most 0.05 (of TFCE where it was asked).
    p
        The smallest.
    peak
        Where that is (of several, the largest statistic), x y z in mm.
    """

    n_voxels: int
    n_below: int
    p: float
    peak: tuple[float, float, float]


def compare_voxels(
    files: GroupFiles, pair: Pair, scores: Scores, pattern: nib.Nifti1Image, settings: GroupSettings
) -> VoxelResult:
    """Compare two groups voxel by voxel and write maps of t and -log10 corrected p, and those of TFCE.

    Each participant's map is the mean over sessions, normalised as is asked: with an atlas the regions' normalised
    scores painted, on a grid the whole map, before it is masked.

    Parameters
    ----------
    scores
        Of both groups, on one grid.
    pattern
        An image on that grid.

    Raises
    ------
    GlasError
        A mask without a voxel there, too many participants and voxels for this machine's memory, or what
        `glas3d.statistics.two_groups.compare` refuses.
    """
    grid = VoxelGrid(pattern.shape, pattern.affine)
    labels = None if files.atlas is None else files.atlas.on(grid)
    inside, said = _inside(labels, grid, settings.voxel_mask)
    check_memory(len(scores), int(inside.sum()))
    case, control = pair
    from nilearn.maskers import NiftiMasker

    masker = NiftiMasker(nib.Nifti1Image(inside.astype(np.uint8), grid.affine)).fit() if settings.tfce else None
    try:
        table = compare(
            _matrix(scores, labels, inside, settings.normalise),
            scores.design,
            case,
            control,
            n_boot=0,
            masker=masker,
            tfce=settings.tfce,
            **settings.test,
        )
    except MemoryError:
        raise GlasError(_too_large(len(scores), int(inside.sum()))) from None
    maps = {"t": ("t", "Student's t"), "neglog10p_fwe": ("neglog10pfwe", "-log10 of p corrected for all voxels")}
    best, p = "t", table["p_fwe"].to_numpy()
    if settings.tfce:
        maps |= {
            "tfce": ("tfce", "Threshold-free cluster enhancement of t"),
            "neglog10p_tfce_fwe": ("neglog10ptfcefwe", "-log10 of p of TFCE corrected for all voxels"),
        }
        best, p = "tfce", table["p_tfce_fwe"].to_numpy()
    facts = comparison_facts(pair, settings) | {
        "Mask": said,
        "Voxels": int(np.isfinite(p).sum()),
        "NormalisedOver": "the map" if labels is None else "the regions",
    }
    stem = files.name(case, control, desc="voxels")
    for column, (statistic, description) in maps.items():
        img = volume_img(inside, table[column].to_numpy(), pattern)
        files.image(stem, statistic, img, f"{description}, {case} against {control}", **facts)
    at = int(np.nanargmax(np.where(p == np.nanmin(p), table[best].abs(), np.nan)))
    x, y, z = world(np.argwhere(inside)[[at]], grid.affine)[0]
    return VoxelResult(int(np.isfinite(p).sum()), int((p <= 0.05).sum()), float(np.nanmin(p)), (x, y, z))


def needed_memory(participants: int, voxels: int) -> int:
    """Bytes a comparison takes at most, beyond what the program takes anyway."""
    return COPIES * 8 * participants * voxels


def free_memory() -> float:
    """Bytes there are to take: of the machine, and of the control group that batch systems put a job in."""
    free = float(psutil.virtual_memory().available)
    for limit in _limits():
        free = min(free, limit - psutil.Process().memory_info().rss)
    return free


def check_memory(participants: int, voxels: int) -> None:
    """Refuse what would not fit into memory.

    Raises
    ------
    GlasError
        It says how much is needed and how much is free.
    """
    if needed_memory(participants, voxels) > free_memory():
        raise GlasError(_too_large(participants, voxels))


def _too_large(participants: int, voxels: int) -> str:
    gib = needed_memory(participants, voxels) / 2**30
    return (
        f"a voxelwise comparison of {participants} participants and {voxels} voxels needs about {gib:.3g} GiB of "
        f"memory, {max(free_memory(), 0) / 2**30:.3g} GiB are free: a smaller mask or larger voxels need less"
    )


def _limits() -> list[float]:
    """Linux's limits of this process's control groups, in bytes."""
    found = []
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8").strip().rpartition("::")[2].strip("/")
        place = Path("/sys/fs/cgroup") / own
        for folder in (place, *place.parents):
            if (limit := folder / "memory.max").is_file():
                found.append(float(limit.read_text(encoding="utf-8").replace("max", "inf")))
    except (OSError, ValueError):
        pass  # another system, or an older one: nothing is known of limits
    return [one for one in found if math.isfinite(one)]


def _inside(labels: np.ndarray | None, grid: VoxelGrid, mask: object) -> tuple[np.ndarray, str]:
    """Which voxels are compared, and that in words."""
    chosen = None if mask is None else mask_on(str(mask), grid)
    name = "" if mask is None else Path(str(mask)).name
    if labels is None:
        if chosen is not None:
            return chosen, name
        size = min(max(min(grid.spacing), 1.0), 4.0)  # mm: much smaller voxels than those compared are of no use
        return mask_on(template_brain(size), grid), "the template's brain"
    if chosen is None:
        return labels > 0, "the atlas's regions"
    if not (chosen & (labels > 0)).any():
        raise GlasError(f"the mask {mask} holds no voxel of the atlas's regions")
    return chosen & (labels > 0), f"the atlas's regions within {name}"


def _matrix(scores: Scores, labels: np.ndarray | None, inside: np.ndarray, normalise: Normalise) -> np.ndarray:
    """``(participants, voxels)``."""
    if labels is not None:
        index = scores.members[0].regions["index"].to_numpy()
        return scores.scaled(normalise).to_numpy()[:, np.searchsorted(index, labels[inside])]
    values = np.empty((len(scores), int(inside.sum())))
    for row, one in zip(values, scores.members, strict=True):
        row[:] = normalised(_mean_map(one), normalise)[inside]
    return values


def _mean_map(one: Participant) -> np.ndarray:
    volumes = [np.asarray(read.saliency_img.dataobj, dtype=np.float64) for read in one.reads()]
    return np.asarray(sum(volumes) / len(volumes))
