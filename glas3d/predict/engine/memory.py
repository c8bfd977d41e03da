"""Memory kept between forwards, by glibc's allocator."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of malloc.h
_LARGEST = 2**31 - 1
# Where glibc's own moving thresholds end in a process that has freed volumes; from 128 KiB it would not move again.
_THRESHOLD, _MAPS = 2**25, 65536


@contextmanager
def keep_memory() -> Iterator[bool]:
    """Let the process keep what its forwards free, for as long as the block lasts.

    A network's activations are otherwise given back to the system after every layer and asked for again, page by page,
    which can take longer than the layer (docs/engines.md). The process grows to its largest forward and stays there;
    at the end everything unused is given back.

    Yields
    ------
    Whether it does: on Linux with glibc, and nowhere else.
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
