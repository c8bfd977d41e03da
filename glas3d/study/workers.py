"""Run the tasks of a study, explaining or training, in this process or in several worker processes of Dask."""

from __future__ import annotations

import logging
import math
import os
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing import resource_tracker
from typing import Any, TypeVar

from glas3d.checks import whole_number
from glas3d.counts import counted
from glas3d.errors import GlasError, GlasWarning, reason

T = TypeVar("T")
R = TypeVar("R")

_RETRIES = 3
_TIMEOUT = "20s"
_LOOK = 60.0  # seconds between two looks at whether a worker is left
_DIED = "its worker died{}: too little memory, or the model ended the process"
# Returning memory to the system between model evaluations, and requesting it again, takes longer than the evaluations
# themselves; Dask sets these thresholds so that it is returned.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**34)}


class ThisProcess:
    """The process itself, which needs no Dask.

    Attributes
    ----------
    dashboard
        None: there is no page that shows the work.
    """

    dashboard: str | None = None

    def call(self, function: Callable[[], R]) -> R:
        """Call a function and return its result."""
        return function()

    def run(
        self,
        function: Callable[[Any, T], R],
        shared: Any,
        items: Sequence[T],
        lost: Callable[[T, str], R],
        time_limit: float | None = None,
    ) -> Iterator[R]:
        """Yield ``function(shared, item)`` for each item, in order.

        Parameters
        ----------
        function
            Called once for each item.
        shared
            First argument of every call.
        items
            Second argument, one for each call.
        lost
            Not used here. Worker processes call it with an item whose call did not return, and the reason, and
            yield its result instead.
        time_limit
            Not used here: a process cannot end its own work. `workers` gives a separate one.
        """
        for item in items:
            yield function(shared, item)


class WorkerProcesses:
    """The worker processes of a Dask cluster.

    What is shared is sent to each worker once. A task is handed out when a worker is free, so that memory does not
    grow with the number of tasks. A worker that dies is replaced by its nanny or its queue, and its task is repeated.
    Tasks whose workers died too often are tried once more at the end, one at a time: they may have shared the worker of
    a task that killed it, or the memory of the machine may suffice for one task, but not for several.

    Parameters
    ----------
    client
        A ``distributed.Client`` of the cluster.
    try_alone
        Whether a task whose workers died too often is tried once more, alone.
    dashboard
        Address of the page on which the cluster shows its work; None if it has none.
    waits
        Whether workers may come at any time, as those of a queue do. Else the work ends where none is left.
    """

    def __init__(
        self, client: Any, try_alone: bool = True, dashboard: str | None = None, *, waits: bool = False
    ) -> None:
        self._client = client
        self._try_alone = try_alone
        self.dashboard = dashboard
        self._waits = waits

    def call(self, function: Callable[[], R]) -> R:
        """Call a function on any worker and return its result."""
        with _scheduler_errors():
            called = self._client.submit(function, pure=False, retries=_RETRIES)
        with _scheduler_errors(cancelled_only=True):  # other errors are those of the function
            result: R = called.result()
        return result

    def run(
        self,
        function: Callable[[Any, T], R],
        shared: Any,
        items: Sequence[T],
        lost: Callable[[T, str], R],
        time_limit: float | None = None,
    ) -> Iterator[R]:
        """Yield ``function(shared, item)`` for each item, in the order in which the calls end.

        Parameters
        ----------
        function, shared, items
            See `ThisProcess.run`; functions and arguments must be picklable.
        lost
            Called with an item and a reason if the call raised an exception, its workers died, or it took longer than
            ``time_limit``; its result is yielded.
        time_limit
            Seconds for each call, from when it is handed to a worker. A worker that takes longer is ended and replaced.
            Default: no limit.

        Raises
        ------
        GlasError
            The scheduler was stopped or cannot be reached, or no worker is left.
        """
        from distributed import KilledWorker

        client = self._client
        waiting = iter(items)
        running: dict[Any, tuple[T, float]] = {}
        suspects: list[T] = []
        alone = False

        def send() -> Any:
            # sent by a task, because what Dask's `scatter` sends is lost with the last worker that holds it
            return client.submit(_same, shared, pure=False, retries=_RETRIES)

        sent = send()

        def start(item: T) -> None:
            future = client.submit(function, sent, item, pure=False, retries=_RETRIES)
            running[future] = item, time.monotonic() + (math.inf if time_limit is None else time_limit)

        def hand_out() -> None:
            nonlocal alone, sent
            free = max(1, len(client.nthreads())) - len(running)
            for item in () if alone else islice(waiting, max(0, free)):
                start(item)
            if suspects and not running:
                alone, sent = True, send()
                start(suspects.pop())

        with _scheduler_errors():
            hand_out()
        while running:
            with _scheduler_errors():
                future = self._first_done_or_late(running)
            item, _ = running.pop(future)
            try:
                if future.done():
                    with _scheduler_errors(cancelled_only=True):
                        result: R = future.result()  # computed again if the worker died before it was fetched
                else:
                    self._end(future)
                    result = lost(item, f"it took longer than the time limit of {time_limit:g} s")
            except _SchedulerLost:
                raise
            except KilledWorker:
                # Dask counts a death against every task that the worker had, and gives it those of a worker that died
                # before: which of them killed it shows when each runs alone.
                if self._try_alone and not alone:
                    suspects.append(item)
                    with _scheduler_errors():
                        hand_out()
                    continue
                result = lost(item, _DIED.format(" each time it was tried" if self._try_alone else ""))
            except Exception as error:
                result = lost(item, f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}")
            yield result
            with _scheduler_errors():
                future.release()
                hand_out()

    def _end(self, future: Any) -> None:
        """End the worker that runs a task, if it has a nanny that starts another one; else leave it to its task."""
        busy = [worker for worker, keys in self._client.processing().items() if future.key in keys]
        future.cancel()
        with suppress(Exception):  # workers without a nanny
            self._client.restart_workers(busy, timeout=_TIMEOUT)

    def _first_done_or_late(self, running: Mapping[Any, tuple[Any, float]]) -> Any:
        """Return a future that is done, or whose time has passed, as soon as there is one."""
        from distributed import wait

        without_workers = 0
        while without_workers < 2:  # one that has died is started again between two looks
            first = min(deadline for _, deadline in running.values())
            remaining = min(_LOOK, max(0.0, first - time.monotonic()))
            with suppress(TimeoutError), self._client.as_current():
                return next(iter(wait(list(running), timeout=remaining, return_when="FIRST_COMPLETED").done))
            late = [future for future, (_, deadline) in running.items() if deadline <= time.monotonic()]
            if late:
                return late[0]
            gone = not self._waits and not self._client.nthreads()
            without_workers = without_workers + 1 if gone else 0
        raise GlasError(
            "no worker process is left: they ended, and could not be started again; what is finished is kept, and the "
            "same command goes on"
        )


class _SchedulerLost(GlasError):
    """The connection to the scheduler was lost, and the work with it."""


@contextmanager
def _scheduler_errors(*, cancelled_only: bool = False) -> Iterator[None]:
    """Turn what Dask raises where its scheduler is gone, or has come back without the work, into one sentence.

    Parameters
    ----------
    cancelled_only
        Whether other errors of a connection are left, because the code of a task may raise them.
    """
    from distributed import CancelledError
    from distributed.client import ClosedClientError

    lost: tuple[type[Exception], ...] = (CancelledError, ClosedClientError)
    if not cancelled_only:
        lost += (OSError,)
    try:
        yield
    except lost:
        raise _SchedulerLost(
            "the scheduler dropped the work: it was stopped, or cannot be reached; what is finished is kept, and the "
            "same command goes on when the scheduler is back"
        ) from None


Pool = ThisProcess | WorkerProcesses


@contextmanager
def workers(
    n_workers: int = 1,
    scheduler: str | None = None,
    threads: int | None = None,
    allowed_deaths: int | None = None,
    *,
    separate: bool = False,
) -> Iterator[Pool]:
    """Provide where tasks run, for as long as the block lasts.

    Parameters
    ----------
    n_workers
        1: this process, without Dask. More: so many processes on this machine, each with one GPU if there are any.
        A script that sets more needs an ``if __name__ == "__main__":`` block.
    scheduler
        Address of a running Dask scheduler, such as ``tcp://10.0.0.1:8786``, whose workers see the same files; with
        dask-jobqueue it may be that of a SLURM, SGE or PBS cluster. Replaces ``n_workers``.
    threads
        Number of threads of torch in each process. Default: 1.
    allowed_deaths
        How many workers may die during one task before the task is given up. Default: Dask's setting, 3, after which a
        task is tried once more, alone; with 0 it is not.
    separate
        Whether a single worker, too, is a process of its own, which can be ended while it works.

    Yields
    ------
    The process or the worker processes, both with ``call`` and ``run``.

    Raises
    ------
    GlasError
        Numbers out of range, both a scheduler and several workers, a scheduler that does not answer, workers that do
        not start, or Dask that is not installed.

    Warns
    -----
    GlasWarning
        The workers' threads are more than the cores.
    """
    n_workers = whole_number("n_workers", n_workers, least=1)
    if scheduler is not None and n_workers != 1:
        raise GlasError(f"give n_workers or a scheduler, which has its own workers, got {n_workers} and {scheduler}")
    if scheduler is None and n_workers == 1 and not separate:
        yield ThisProcess()
        return
    require_dask()
    if scheduler is not None:
        with _running_cluster(scheduler) as client:
            yield WorkerProcesses(client, dashboard=client.dashboard_link, waits=True)
        return
    cores = _cores()
    if (total := n_workers * (threads or 1)) > cores:
        of = counted(n_workers, "worker")
        message = f"{total} threads of {of} share {counted(cores, 'core')}, and wait for each other"
        warnings.warn(message, GlasWarning, stacklevel=3)
    with _local_cluster(n_workers, threads or 1, allowed_deaths) as client:
        yield WorkerProcesses(client, try_alone=allowed_deaths != 0)


@contextmanager
def _running_cluster(scheduler: str) -> Iterator[Any]:
    """Connect to a scheduler, whose workers must have one thread each."""
    import distributed

    try:
        client = distributed.Client(scheduler, timeout=_TIMEOUT, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise GlasError(f"no Dask scheduler answers at {scheduler}: {reason(error)}") from None
    with client, _without_messages(logging.getLogger("distributed.client")):
        if any(threads != 1 for threads in client.nthreads().values()):
            raise GlasError(f"workers must have one thread each (--nthreads 1), some at {scheduler} have more")
        yield client


@contextmanager
def _without_messages(logger: logging.Logger) -> Iterator[None]:
    """Keep a logger from writing to the terminal what is raised as an error, too."""
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _local_cluster(n_workers: int, threads: int, allowed_deaths: int | None) -> Iterator[Any]:
    """Start worker processes on this machine, which end with the block and with this process."""
    import dask
    import distributed

    environment = {**_MALLOC, **{f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS")}}
    settings: dict[str, Any] = {
        "distributed.nanny.pre-spawn-environ": environment,
        # keeps what every worker did in each second of the last hour: memory that grows by tens of kilobytes a second
        "distributed.worker.profile.enabled": False,
        # Pages that any user of the machine can read: they show tasks, logs and memory without asking who reads.
        **{f"distributed.{part}.http.routes": [] for part in ("scheduler", "worker")},
    }
    if allowed_deaths is not None:
        settings["distributed.scheduler.allowed-failures"] = allowed_deaths
    scratch = tempfile.TemporaryDirectory(
        prefix="glas3d-dask-", dir=dask.config.get("temporary-directory", None), ignore_cleanup_errors=True
    )
    # Others know the name of the folder of Dask, whose scheduler, in this process, would also import from it.
    with scratch as folder, dask.config.set({**settings, "temporary-directory": folder}):
        try:
            with _without_interrupts():
                cluster = distributed.LocalCluster(
                    n_workers=n_workers,
                    threads_per_worker=1,
                    processes=True,
                    protocol="tls://",
                    security=True,  # certificates of this cluster alone: other users of the machine cannot send it work
                    memory_limit=int(distributed.system.MEMORY_LIMIT / n_workers),
                    dashboard_address="127.0.0.1:0",  # None would be a known port, and a warning where it is taken
                    scheduler_kwargs={"dashboard": False},
                    silence_logs=logging.CRITICAL,
                )
        except RuntimeError as error:
            raise GlasError(f"the worker processes did not start, one ended before it was ready: {error}") from None
        with cluster, distributed.Client(cluster, set_as_default=False) as client:
            client.register_plugin(one_gpu_each())
            yield client


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let threads and processes that are started in the block never receive Ctrl-C, which this process handles alone.

    A terminal sends Ctrl-C to all processes of a command. Workers would each write a traceback; they end with this
    process. A Ctrl-C during the block takes effect at its end.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # starting it would unblock the signal in the thread that starts the workers
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def require_dask() -> None:
    """Refuse several workers where Dask is not installed.

    Raises
    ------
    GlasError
        Dask, distributed or cryptography, which makes the certificates of the workers, cannot be imported.
    """
    try:
        import cryptography  # noqa: F401
        import dask  # noqa: F401
        import distributed  # noqa: F401
    except ImportError:
        raise GlasError('several workers need Dask and cryptography: pip install "glas3d[study]"') from None


def one_gpu_each() -> Any:
    """Return a Dask plugin that shows each worker, also a replacement, one of the GPUs, in turn."""
    from distributed import WorkerPlugin

    class OneGPU(WorkerPlugin):
        name = "one-gpu"

        def setup(self, worker: Any) -> None:
            gpus = visible_gpus()
            if len(gpus) > 1:
                number = int(worker.name) if str(worker.name).isdecimal() else 0
                os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]

    return OneGPU()


def visible_gpus() -> list[str]:
    """Return the names or numbers of the GPUs this process may use, without initialising any."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def _same(thing: T) -> T:
    return thing
