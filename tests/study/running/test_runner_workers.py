"""Several workers, and what dies on the way: the results are those of an undisturbed run, bit for bit."""

import os

import pytest

from glas3d import GlasError
from glas3d.errors import GlasWarning
from glas3d.study import workers as pool
from glas3d.study.running import runner
from glas3d.study.running.runner import explain_cohort
from glas3d.study.workers import ThisProcess, one_gpu_each, visible_gpus, workers
from tests.study.running import dying
from tests.study.studies import content

ASSUMED = {"search": (3, 4, 3), "assume_space": "MNI", "engine": "eager"}

# Dask closes sockets and loops when it likes.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*share .* cores:glas3d.errors.GlasWarning"),
]


@pytest.fixture(scope="module")
def undisturbed(people, models, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "study"
    explain_cohort(people, out, models, **ASSUMED)
    return content(out)


def test_one_worker_is_this_process():
    with workers() as found:
        assert isinstance(found, ThisProcess)
        assert found.dashboard is None
        assert found.call(os.getpid) == os.getpid()
        assert list(found.run(lambda a, b: (a, b, os.getpid()), 1, [2, 3], None)) == [
            (1, 2, os.getpid()),
            (1, 3, os.getpid()),
        ]


def test_a_scheduler_that_does_not_answer_is_refused(monkeypatch):
    monkeypatch.setattr(pool, "_TIMEOUT", "1s")
    with (
        pytest.raises(GlasError, match="no Dask scheduler answers at tcp://127"),
        workers(scheduler="tcp://127.0.0.1:9"),
    ):
        pass
    with pytest.raises(GlasError, match="no Dask scheduler answers at nonsense"), workers(scheduler="nonsense://x"):
        pass


def test_workers_that_do_not_start_are_told_in_one_sentence(monkeypatch):
    def none(**_):
        raise RuntimeError("Nanny failed to start.")

    monkeypatch.setattr("distributed.LocalCluster", none)
    with pytest.raises(GlasError, match="the 2 workers did not start, one ended before it was ready"), workers(2):
        pass


@pytest.mark.parametrize("n", [0, -1, 1.5, True])
def test_numbers_of_workers_that_cannot_be_are_refused(n):
    with pytest.raises(GlasError, match="n_workers must be a whole number of at least 1"), workers(n):
        pass


def test_more_workers_than_cores_is_said(monkeypatch):
    monkeypatch.setattr(pool, "_cores", lambda: 2)
    monkeypatch.setattr("distributed.LocalCluster", lambda **_: (_ for _ in ()).throw(GlasError("enough")))
    with (
        pytest.warns(GlasWarning, match="3 workers of 2 threads share 2 cores"),
        pytest.raises(GlasError, match="enough"),
        workers(3, threads=2),
    ):
        pass


@pytest.mark.parametrize(("named", "expected"), [("4,7", ["4", "7"]), ("", []), ("GPU-a,GPU-b", ["GPU-a", "GPU-b"])])
def test_each_worker_is_shown_one_gpu(monkeypatch, named, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == expected
    shown = []
    for name in (0, 1, 2):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        one_gpu_each().setup(type("Worker", (), {"name": name}))
        shown.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert shown == ([expected[i % 2] for i in range(3)] if expected else [named] * 3)


@pytest.mark.slow
def test_two_workers_give_the_same_bytes(people, models, undisturbed, tmp_path):
    ticks, links = [], []
    result = explain_cohort(
        people,
        tmp_path / "out",
        models,
        **ASSUMED,
        n_workers=2,
        progress=lambda done, total: ticks.append((done, total)),
        announce=links.append,
    )
    assert result.count("explained") == 6
    assert result.outcomes["participant_id"].tolist() == [f"sub-0{i}" for i in range(1, 7)]
    assert content(tmp_path / "out") == undisturbed
    assert ticks == [(i, 6) for i in range(7)]
    assert len(links) == 1
    assert links[0].startswith("http://127.0.0.1:")


@pytest.mark.slow
@pytest.mark.parametrize("death", [dying.dies_once, dying.dies_writing])
def test_a_worker_that_is_killed_is_replaced_and_its_participant_done_again(
    people, models, undisturbed, tmp_path, monkeypatch, death
):
    monkeypatch.setattr(runner, "explain_participant", death)
    result = explain_cohort(people, tmp_path / "out", models, **ASSUMED, n_workers=2)
    assert (tmp_path / "died").exists()
    assert result.count("failed") == 0  # what was done, and lost on the way to us, may count as kept
    assert content(tmp_path / "out") == undisturbed


@pytest.mark.slow
def test_a_participant_that_kills_every_worker_is_listed(people, models, tmp_path, monkeypatch):
    import dask

    monkeypatch.setattr(runner, "explain_participant", dying.dies_always)
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        result = explain_cohort(people, tmp_path / "out", models, **ASSUMED, n_workers=2, on_error="skip")
    listed = result.failed.set_index("participant_id")["error"]
    assert listed["sub-02"] == "its worker died each time it was tried: too little memory, perhaps"
    # at no failure allowed, Dask may blame whoever was just being handed to the worker that died, and says so
    assert set(listed) == {listed["sub-02"]}
    assert len(listed) + result.count("explained") + result.count("kept") == 6
    assert len(listed) < 6


@pytest.mark.slow
def test_a_scheduler_that_runs_already(people, models, undisturbed, tmp_path):
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        explain_cohort(people, tmp_path / "out", models, **ASSUMED, scheduler=cluster.scheduler_address)
    assert content(tmp_path / "out") == undisturbed


@pytest.mark.slow
def test_workers_of_several_threads_are_refused():
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        pytest.raises(GlasError, match="one thread each"),
        workers(scheduler=cluster.scheduler_address),
    ):
        pass


def test_queues_of_a_cluster_are_configured_by_dask_jobqueue():
    """What docs say of SLURM and SGE: one thread a job, and its address is the scheduler."""
    jobqueue = pytest.importorskip("dask_jobqueue")
    for kind, flag in ((jobqueue.SLURMCluster, "#SBATCH --mem=8G"), (jobqueue.SGECluster, "#$ -q")):
        with kind(cores=1, processes=1, memory="8GB", queue="all", n_workers=0) as cluster:
            script = cluster.job_script()
        assert "--nthreads 1" in script
        assert flag in script
