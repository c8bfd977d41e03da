"""Whether a voxelwise comparison fits into the memory that is free."""

from __future__ import annotations

import math
from pathlib import Path

import psutil

from glas3d.errors import GlasError

# Matrices of participants by voxels that exist at once at the worst moment of a comparison, and maps of the null.
_COPIES, _MAPS = 6, 60


def needed_memory(participants: int, voxels: int) -> int:
    """Return the bytes a comparison takes at most, beyond what the program takes anyway."""
    return 8 * voxels * (_COPIES * participants + _MAPS)


def free_memory() -> float:
    """Return the free bytes: of the machine, and of the control group that batch systems put a job in."""
    free = float(psutil.virtual_memory().available)
    for limit in memory_limits():
        free = min(free, limit - psutil.Process().memory_info().rss)
    return free


def memory_limits() -> list[float]:
    """Return Linux's limits of this process's control groups, in bytes."""
    limits = []
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8").strip().rpartition("::")[2].strip("/")
        folder = Path("/sys/fs/cgroup") / own
        for group in (folder, *folder.parents):
            if (limit := group / "memory.max").is_file():
                limits.append(float(limit.read_text(encoding="utf-8").replace("max", "inf")))
    except (OSError, ValueError):
        pass  # another system, or an older one: nothing is known of limits
    return [limit for limit in limits if math.isfinite(limit)]


def check_memory(participants: int, voxels: int) -> None:
    """Refuse a comparison that would not fit into memory.

    Raises
    ------
    GlasError
        The message says how much is needed and how much is free.
    """
    if needed_memory(participants, voxels) > free_memory():
        raise GlasError(too_large(participants, voxels))


def too_large(participants: int, voxels: int) -> str:
    """Return the message about a comparison that does not fit into memory."""
    gib = needed_memory(participants, voxels) / 2**30
    return (
        f"a voxelwise comparison of {participants} participants and {voxels} voxels needs about {gib:.3g} GiB of "
        f"memory, {max(free_memory(), 0) / 2**30:.3g} GiB are free: a smaller mask or larger voxels need less"
    )
