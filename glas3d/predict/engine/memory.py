"""Memory that the process keeps between forward passes, by the allocator of glibc."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of malloc.h
_LARGEST = 2**31 - 1
# The values that glibc's own moving thresholds reach in a process that has freed volumes; set to its initial 128 KiB
# they would not move again.
_THRESHOLD, _MAPS = 2**25, 65536


@contextmanager
def keep_memory() -> Iterator[bool]:
    """Let the process keep the memory that its forward passes free, for as long as the block lasts.

    Otherwise the activations of a network are returned to the system after every layer and requested again, page by
    page, which can take longer than the layer (documentation: "Engines"). The process grows to the size of its largest
    forward pass and stays there; at the end of the block all unused memory is returned.

    Yields
    ------
    Whether memory is kept: on Linux with glibc, and nowhere else.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        yield False
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, _LARGEST)
    try:
        yield True
    finally:
        libc.mallopt(_MMAP_MAX, _MAPS)
        libc.mallopt(_MMAP_THRESHOLD, _THRESHOLD)
        libc.mallopt(_TRIM_THRESHOLD, 2 * _THRESHOLD)
        libc.malloc_trim(0)
