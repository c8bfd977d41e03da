"""Memory of a voxelwise comparison, and of the group level, which reads one participant after another."""

import gc
import shutil
import tracemalloc

import numpy as np
import pandas as pd
import psutil
import pytest

from glas3d.statistics import compare
from glas3d.study.derivatives import participant_folder
from glas3d.study.group import memory, summarise_groups
from glas3d.study.group.memory import free_memory, needed_memory
from tests.study.made_up import Study

MANY, FEW = 60, 20


@pytest.fixture(scope="module", params=[False, True], ids=["regions", "points"])
def study(request, tmp_path_factory, aal):
    """A study with real files of `MANY` participants."""
    folder = tmp_path_factory.mktemp("out")
    made = Study(folder / "study", "AAL", aal, grid=request.param)
    volume = np.zeros((30, 32, 34), np.float32)
    for number in range(MANY):
        volume[number % 30, number % 32] = number
        made.add(f"sub-{number:04d}", seed=number, volume=volume, fold=number % 2 + 1)
    return made


def peak(study, n):
    """Return the peak memory, in bytes, of the group level of the first ``n`` participants."""
    ids = [f"sub-{number:04d}" for number in range(n)]
    people = pd.DataFrame({"participant_id": ids, "group": ["AD", "NC"] * (n // 2)})
    for number in range(n, MANY):
        shutil.rmtree(participant_folder(study.out, f"sub-{number:04d}").parent, ignore_errors=True)
    gc.collect()
    tracemalloc.start()
    summarise_groups(study.out, people, case="AD", control="NC", n_perm=19, n_boot=10, overwrite=True)
    table = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return table


@pytest.mark.slow
def test_memory_of_the_group_level_hardly_grows(study):
    """Keeping a map would take 130 kB a participant, and a table of regions with its texts 47 kB; hashes take 11 kB."""
    peak(study, MANY)  # what is imported and kept by the first run is not counted
    many, few = peak(study, MANY), peak(study, FEW)
    assert many - few < 15_000 * (MANY - FEW)


def test_a_comparison_takes_no_more_than_the_needed_memory():
    rng, shape = np.random.default_rng(0), (12, 13, 14)
    table = pd.DataFrame({"group": ["AD", "NC"] * 30, "site": list("aabb") * 15, "age": rng.normal(size=60)})
    small = rng.normal(size=(60, 4))
    compare(small, table, "AD", "NC", n_perm=19, n_boot=0, tfce_mask=np.ones((2, 2, 1), bool))  # imports
    for options in ({}, {"site": "site", "covariates": ["age"]}, {"tfce_mask": np.ones(shape, bool)}):
        tracemalloc.start()
        try:
            compare(rng.normal(size=(60, 2184)), table, "AD", "NC", n_perm=19, n_boot=0, **options)
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert 0.5 * needed_memory(60, 2184) < peak_bytes < needed_memory(60, 2184)


def test_free_memory_is_what_the_machine_or_the_job_has(monkeypatch):
    free, own = free_memory(), psutil.Process().memory_info().rss
    assert 0 < free <= psutil.virtual_memory().total
    monkeypatch.setattr(memory, "memory_limits", lambda: [own + 2.0**20])
    assert free_memory() <= 2**21
