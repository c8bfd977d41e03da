"""Ten thousand inputs of no sense: each is used, or refused by an error of glas3d, in bounded time and memory."""

import resource
import time
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz.doors import doors, enter

SLOWEST = 20.0  # seconds of one input, on a machine that does other things too
MEMORY = 400 * 2**20

# nibabel leaves a file that it refuses to be closed with its object
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

DOORS = {door.name: door for door in doors()}


def try_inputs(door, folder, n, *, derandomize):
    """Give a door so many inputs; return how many were accepted and refused, the longest time and the memory added."""
    counts, slowest = Counter(), 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @settings(
        max_examples=n,
        derandomize=derandomize,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @given(door.inputs)
    def run(content):
        nonlocal slowest
        start = time.perf_counter()
        enter(door, folder, content, counts)
        slowest = max(slowest, time.perf_counter() - start)

    run()
    return counts, slowest, 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def test_the_shares_make_a_hundred():
    assert sum(door.share for door in DOORS.values()) == 100


@pytest.mark.parametrize("name", DOORS)
@pytest.mark.parametrize("n", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_what_has_no_sense_is_refused_by_a_sentence(name, n, tmp_path):
    door = DOORS[name]
    counts, slowest, memory = try_inputs(door, tmp_path, n * door.share // 100, derandomize=True)
    assert counts["refused"]
    assert set(counts) <= {"accepted", "refused"}
    assert slowest < SLOWEST
    assert memory < MEMORY
