"""Ten thousand inputs of no sense: each is used, or refused by an error of glas3d, in bounded time and memory."""

import contextlib
import json
import resource
import time
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from glas3d import GlasError, load_model
from tests.fuzz import inputs
from tests.fuzz.doors import Door, doors, enter, original, read_bundle

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


def test_code_that_runs_is_noticed(tmp_path):
    """What the counts call executed: a bundle that is trusted does what its configuration says."""
    configuration = original("inference.json")
    configuration["network_def"] = f"$open({str(inputs.CANARY)!r}, 'w') and None"
    given = ("inference.json", json.dumps(configuration).encode())

    def trusted(folder, given):
        with contextlib.suppress(GlasError):
            read_bundle(folder, given)
        load_model(str(folder / "bundle"), trust=True)

    for open_door, executed in ((read_bundle, 0), (trusted, 1)):
        enter(Door("bundles", 100, None, open_door), tmp_path, given, counts := Counter())
        assert (counts["refused"], counts["executed"]) == (1, executed)


def test_an_input_that_hangs_is_counted(tmp_path):
    enter(Door("slow", 100, None, lambda folder, given: time.sleep(given)), tmp_path, 60, counts := Counter(), 0.2)
    assert counts == {"hangs": 1}


def test_code_in_every_kind_of_input_is_drawn():
    """Otherwise nothing could be executed, and the count would say nothing."""
    assert str(inputs.CANARY).encode() in inputs.PICKLE
    with pytest.raises(AssertionError):

        @settings(max_examples=200, derandomize=True, database=None)
        @given(inputs.VALUES)
        def never(value):
            assert str(inputs.CANARY) not in repr(value)

        never()
