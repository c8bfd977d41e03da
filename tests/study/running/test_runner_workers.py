"""Several workers, some of which are killed: the results are those of an undisturbed run, bit for bit."""

import os
import stat
import threading
import urllib.error
import urllib.request
from pathlib import Path

import dask
import distributed
import psutil
import pytest

from glas3d import GlasError
from glas3d.errors import GlasWarning
from glas3d.study import workers as study_workers
from glas3d.study.running import runner
from glas3d.study.running.runner import explain_cohort
from glas3d.study.workers import ThisProcess, one_gpu_each, visible_gpus, workers
from tests.study.running import killed_workers
from tests.study.running.scheduler_process import SchedulerProcess
from tests.study.studies import content

ASSUMED = {"search": (3, 4, 3), "assume_space": "MNI", "engine": "eager"}
DIED = "its worker died each time it was tried: too little memory, or the model ended the process"

# Dask closes sockets and event loops after the test has ended.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*share .* cores:glas3d.errors.GlasWarning"),
]


@pytest.fixture(scope="module")
def undisturbed(people, models, tmp_path_factory):
    """Return the content of the folder of an undisturbed run."""
    out = tmp_path_factory.mktemp("out") / "study"
    explain_cohort(people, out, models, **ASSUMED)
    return content(out)


def test_one_worker_is_this_process():
    with workers() as pool:
        assert isinstance(pool, ThisProcess)
        assert pool.dashboard is None
        assert pool.call(os.getpid) == os.getpid()
        assert list(pool.run(lambda a, b: (a, b, os.getpid()), 1, [2, 3], None)) == [
            (1, 2, os.getpid()),
            (1, 3, os.getpid()),
        ]


def test_a_scheduler_that_cannot_be_reached_is_refused(monkeypatch):
    client = distributed.Client
    monkeypatch.setattr(distributed, "Client", lambda *given, **options: client(*given, **options | {"timeout": "1s"}))
    with (
        pytest.raises(GlasError, match="no Dask scheduler answers at tcp://127"),
        workers(scheduler="tcp://127.0.0.1:9"),
    ):
        pass
    with pytest.raises(GlasError, match="no Dask scheduler answers at nonsense"), workers(scheduler="nonsense://x"):
        pass


def scratch_folder():
    return distributed.get_worker().local_directory


def test_workers_let_no_other_user_in(tmp_path):
    """A client without the certificate of the cluster is refused, and nobody else can write where workers do."""
    with dask.config.set({"temporary-directory": str(tmp_path)}), workers(2) as pool:
        address = pool._client.scheduler.address
        assert address.startswith("tls://")
        other = distributed.Security.temporary()
        with pytest.raises(OSError, match="TLS certificate does not match"):
            distributed.Client(address, security=other, timeout="1s", set_as_default=False)
        folder = tmp_path / Path(pool.call(scratch_folder)).relative_to(tmp_path).parts[0]
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not any(tmp_path.iterdir())


def test_workers_show_no_page_to_other_users():
    """Dask's pages on tasks, logs and memory are there for everybody who can reach them, also without its dashboard."""
    with workers(2) as pool:
        assert pool.dashboard is None
        known = pool._client.scheduler_info(n_workers=-1)
        ports = [server["services"].get("dashboard") for server in (known, *known["workers"].values())]
        assert len(ports) == 3
        assert 8787 not in ports, "Dask's own port, which warns where another study has it"
        for port in filter(None, ports):
            for page in ("status", "info/main/workers.html", "json/counts.json", "metrics", "health"):
                with pytest.raises(urllib.error.HTTPError, match="404"):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=60)
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        listening = [c.laddr for p in processes for c in p.net_connections() if c.status == psutil.CONN_LISTEN]
        assert {address.ip for address in listening} == {"127.0.0.1"}


def test_workers_that_do_not_start_are_reported_in_one_sentence(monkeypatch):
    def fail(**_):
        raise RuntimeError("Nanny failed to start.")

    monkeypatch.setattr("distributed.LocalCluster", fail)
    with pytest.raises(GlasError, match="worker processes did not start, one ended before it was ready"), workers(2):
        pass


@pytest.mark.parametrize("n", [0, -1, 1.5, True])
def test_a_number_of_workers_below_1_or_not_whole_is_refused(n):
    with pytest.raises(GlasError, match="n_workers must be a whole number of at least 1"), workers(n):
        pass


def test_more_workers_than_cores_are_warned_of(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    monkeypatch.setattr("distributed.LocalCluster", lambda **_: (_ for _ in ()).throw(GlasError("enough")))
    with (
        pytest.warns(GlasWarning, match="6 threads of 3 workers share 2 cores"),
        pytest.raises(GlasError, match="enough"),
        workers(3, threads=2),
    ):
        pass


@pytest.mark.parametrize(("visible", "expected"), [("4,7", ["4", "7"]), ("", []), ("GPU-a,GPU-b", ["GPU-a", "GPU-b"])])
def test_each_worker_sees_one_gpu(monkeypatch, visible, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_gpus() == expected
    shown = []
    for name in (0, 1, 2):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        one_gpu_each().setup(type("Worker", (), {"name": name}))
        shown.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert shown == ([expected[i % 2] for i in range(3)] if expected else [visible] * 3)


@pytest.mark.slow
def test_two_workers_give_the_same_bytes(people, models, undisturbed, tmp_path):
    steps = []
    result = explain_cohort(
        people,
        tmp_path / "out",
        models,
        **ASSUMED,
        n_workers=2,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert result.count("explained") == 6
    assert result.outcomes["participant_id"].tolist() == [f"sub-0{i}" for i in range(1, 7)]
    assert content(tmp_path / "out") == undisturbed
    assert steps == [(i, 6) for i in range(7)]


@pytest.mark.slow
@pytest.mark.parametrize("death", [killed_workers.dies_once, killed_workers.dies_writing])
def test_a_killed_worker_is_replaced_and_its_participant_explained_again(
    people, models, undisturbed, tmp_path, monkeypatch, death
):
    monkeypatch.setattr(runner, "explain_participant", death)
    result = explain_cohort(people, tmp_path / "out", models, **ASSUMED, n_workers=2)
    assert (tmp_path / "died").exists()
    assert result.count("failed") == 0  # a result that was written but not reported may count as kept
    assert content(tmp_path / "out") == undisturbed


@pytest.mark.slow
def test_a_participant_that_kills_every_worker_is_listed(people, models, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "explain_participant", killed_workers.dies_always)
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        result = explain_cohort(people, tmp_path / "out", models, **ASSUMED, n_workers=2, on_error="skip")
    listed = result.failed.set_index("participant_id")["error"]
    assert dict(listed) == {"sub-02": DIED}
    assert result.count("explained") + result.count("kept") == 5
    assert len(listed) < 6


@pytest.mark.slow
def test_a_running_scheduler_is_used(people, models, undisturbed, tmp_path):
    from distributed import LocalCluster

    dashboards = []
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        given = {"scheduler": cluster.scheduler_address, "announce": dashboards.append}
        explain_cohort(people, tmp_path / "out", models, **ASSUMED, **given)
        assert dashboards == [cluster.dashboard_link]
    assert content(tmp_path / "out") == undisturbed


@pytest.mark.slow
def test_a_scheduler_that_is_lost_ends_the_run_which_goes_on_when_it_is_back(
    people, models, undisturbed, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(study_workers, "_TIMEOUT", "3s")

    def lose(done, total):
        if done == 2:
            scheduler.lose()

    out = tmp_path / "out"
    with (
        SchedulerProcess(tmp_path) as scheduler,
        pytest.raises(GlasError, match=r"the scheduler dropped the work: .* goes on when the scheduler is back"),
    ):
        explain_cohort(people, out, models, **ASSUMED, scheduler=scheduler.address, progress=lose)
    assert capfd.readouterr().err == "", "lines of Dask's own"
    with SchedulerProcess(tmp_path, scheduler.port) as scheduler:
        result = explain_cohort(people, out, models, **ASSUMED, scheduler=scheduler.address)
    assert result.count("kept") >= 2
    assert content(out) == undisturbed


@pytest.mark.slow
def test_workers_of_several_threads_are_refused():
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        pytest.raises(GlasError, match="one thread each"),
        workers(scheduler=cluster.scheduler_address),
    ):
        pass


def test_dask_jobqueue_starts_workers_of_one_thread():
    """The settings that the documentation gives for SLURM and SGE make jobs of one thread."""
    jobqueue = pytest.importorskip("dask_jobqueue")
    for kind, flag in ((jobqueue.SLURMCluster, "#SBATCH --mem=8G"), (jobqueue.SGECluster, "#$ -q")):
        with kind(cores=1, processes=1, memory="8GB", queue="all", n_workers=0) as cluster:
            script = cluster.job_script()
        assert "--nthreads 1" in script
        assert flag in script


@pytest.mark.slow
def test_tasks_that_fit_the_machine_only_alone_are_done(tmp_path):
    """Deaths of a worker are counted against all of its tasks, so that only a task that dies alone is given up."""
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), workers(n_workers=2) as pool:
        done = sorted(pool.run(killed_workers.dies_beside_others, tmp_path, [1, 2, 3], lambda item, reason: reason))
    assert done == [1, 2, 3]
    assert list(tmp_path.glob("died-*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "options", "reason"),
    [
        (killed_workers.hangs, {"time_limit": 20}, "it took longer than the time limit of 20 s"),
        (killed_workers.leaves, {}, DIED),
    ],
)
def test_a_model_that_hangs_or_ends_its_process_is_a_failure(
    people, models, tmp_path, monkeypatch, end, options, reason
):
    """The others are explained, by the worker that replaces the one that was ended."""
    monkeypatch.setattr(runner, "explain_participant", end)
    allowed = {"distributed.scheduler.allowed-failures": 0} if end is killed_workers.leaves else {}
    with dask.config.set(allowed):  # each death costs the start of another worker
        result = explain_cohort(people, tmp_path / "out", models, **ASSUMED, **options, n_workers=2, on_error="skip")
    assert result.failed.to_dict("records") == [{"participant_id": "sub-02", "session": "", "error": reason}]
    assert result.count("explained") + result.count("kept") == 5


@pytest.mark.slow
def test_a_single_worker_that_can_be_ended_is_a_process_of_its_own():
    with workers(separate=True) as pool:
        found = dict(pool.run(killed_workers.sleeps, None, [600, 0], lambda item, reason: (item, reason), time_limit=5))
    assert found[600] == "it took longer than the time limit of 5 s"
    assert found[0] != os.getpid()


@pytest.mark.slow
def test_work_ends_where_no_worker_is_left(monkeypatch):
    """Rather than to wait for ever, as Dask does."""
    monkeypatch.setattr("glas3d.study.workers._LOOK", 0.5)
    with workers(n_workers=2) as pool:
        threading.Timer(1, pool._client.cluster.scale, [0]).start()
        with pytest.raises(GlasError, match="no worker process is left"):
            list(pool.run(killed_workers.sleeps, None, [600, 600], lambda item, reason: reason))


@pytest.mark.parametrize(("value", "message"), [(0, "greater than 0"), (float("nan"), "number")])
def test_a_time_limit_is_a_number_of_seconds(people, models, tmp_path, value, message):
    with pytest.raises(GlasError, match=f"time_limit .*{message}"):
        explain_cohort(people, tmp_path / "out", models, **ASSUMED, time_limit=value)
