"""Memory that is kept between forwards, and given back."""

import platform
import subprocess
import sys

import pytest

_KEPT = """
import torch
from glas3d.predict import keep_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

with keep_memory() as kept:
    before = resident()
    torch.ones(50 * 2**20)
    inside = resident()
after = resident()
torch.ones(50 * 2**20)
print(int(kept), inside - before, after - before, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is glibc's")
def test_memory_is_kept_and_given_back():
    """In a process of its own: what other tests have freed is a hole that the next tensor may fit into."""
    done = subprocess.run([sys.executable, "-c", _KEPT], capture_output=True, text=True, check=True)
    kept, inside, after, again = map(int, done.stdout.split())
    size = 200 * 2**20
    assert kept
    assert inside > 0.9 * size
    assert after < 0.1 * size
    assert again < 0.1 * size, "as it was"
