"""Where tasks run: in this process, or side by side by Dask."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import torch

from glas3d.errors import GlasError, GlasWarning, reason

T = TypeVar("T")
R = TypeVar("R")

_RETRIES = 3
_TIMEOUT = "20s"
# Memory given back and asked for again between forwards costs more than the forwards; Dask would have it given back.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**34)}


def end_with_parent() -> None:
    """Have this process, which another one has spawned, end when that one ends, even by SIGKILL.

    Else it would go on, and write where a run that was started again writes.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class Here:
    """The process itself, without Dask.

    Attributes
    ----------
    dashboard
        Address of a page that shows the work, or None.
    """

    dashboard: str | None = None

    def ask(self, function: Callable[[], R]) -> R:
        """Call it."""
        return function()

    def run(
        self, function: Callable[[Any, T], R], shared: Any, items: Sequence[T], lost: Callable[[T, str], R]
    ) -> Iterator[R]:
        """Call ``function(shared, item)`` for each, in order, and give answers as they come.

        Parameters
        ----------
        lost
            Makes the answer for an item whose workers died again and again, from it and the reason.
        """
        for item in items:
            yield function(shared, item)


class Workers:
    """Processes of a Dask cluster.

    What is shared travels once a worker; tasks are handed out as workers are free, so that a cohort of any size
    takes the same memory. A worker that dies is replaced (by its nanny, or the queue's), and its task done again.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    @property
    def dashboard(self) -> str | None:
        """Where the cluster shows its work; None without bokeh."""
        try:
            import bokeh  # noqa: F401
        except ImportError:
            return None
        link = self._client.dashboard_link
        return None if link is None else str(link)

    def ask(self, function: Callable[[], R]) -> R:
        """Called on any worker."""
        answer: R = self._client.submit(function, pure=False, retries=_RETRIES).result()
        return answer

    def run(
        self, function: Callable[[Any, T], R], shared: Any, items: Sequence[T], lost: Callable[[T, str], R]
    ) -> Iterator[R]:
        """As `Here.run`, in the order in which they are done."""
        from distributed import CancelledError, as_completed

        client = self._client
        # by a task and not by scatter: what was scattered is gone with the last worker that held it
        everywhere = client.submit(_same, shared, pure=False, retries=_RETRIES)
        waiting = iter(items)
        running: dict[Any, T] = {}
        done = as_completed(loop=client.loop)

        def fill() -> None:
            # none waits at a worker behind another: Dask would blame it, too, when that one kills the worker
            wanted = max(1, len(client.nthreads())) - len(running)
            for item in islice(waiting, max(0, wanted)):
                future = client.submit(function, everywhere, item, pure=False, retries=_RETRIES)
                running[future.key] = item
                done.add(future)

        fill()
        while running:
            future = next(done)
            item = running.pop(future.key)
            try:
                answer: R = future.result()  # done again where the worker died before it was fetched
            except CancelledError:
                raise GlasError("the scheduler dropped the work: it was stopped, or cannot be reached") from None
            except Exception as error:
                answer = lost(item, _reason(error))
            yield answer
            future.release()
            fill()


Pool = Here | Workers


@contextmanager
def workers(n_workers: int = 1, scheduler: str | None = None, threads: int | None = None) -> Iterator[Pool]:
    """Where participants are run, for as long as the block lasts.

    Parameters
    ----------
    n_workers
        1: this process, without Dask. More: as many processes on this machine, one GPU each where there are any. A
        script that asks for more needs an ``if __name__ == "__main__"``.
    scheduler
        Address of a running one, such as ``tcp://10.0.0.1:8786``, whose workers see the same files: by dask-jobqueue
        it may be one of SLURM, SGE or PBS. In place of ``n_workers``.
    threads
        Of torch in each; for a note when there are not enough cores.

    Raises
    ------
    GlasError
        No such scheduler, both it and workers, numbers that cannot be, workers that do not start, or Dask is not
        installed.

    Warns
    -----
    GlasWarning
        Workers and threads are more than the cores.
    """
    if isinstance(n_workers, bool) or not isinstance(n_workers, int) or n_workers < 1:
        raise GlasError(f"n_workers must be a whole number from 1, got {n_workers!r}")
    if scheduler is not None and n_workers != 1:
        raise GlasError(f"give n_workers or a scheduler, which has its own workers, got {n_workers} and {scheduler}")
    if scheduler is None and n_workers == 1:
        yield Here()
        return
    try:
        import dask
        import distributed
    except ImportError:
        raise GlasError('several workers need Dask: pip install "glas3d[study]"') from None
    if scheduler is not None:
        try:
            client = distributed.Client(scheduler, timeout=_TIMEOUT, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise GlasError(f"no Dask scheduler answers at {scheduler}: {reason(error)}") from None
        with client:
            if any(threads != 1 for threads in client.nthreads().values()):
                raise GlasError(f"workers must have one thread each (--nthreads 1), some at {scheduler} have more")
            yield Workers(client)
        return
    cores = _cores()
    if n_workers * (threads or 1) > cores:
        message = f"{n_workers} workers of {threads or 1} threads share {cores} cores, and wait for each other"
        warnings.warn(message, GlasWarning, stacklevel=3)
    environment = {**MALLOC, **{f"{name}_NUM_THREADS": str(threads or 1) for name in ("OMP", "MKL", "OPENBLAS")}}
    with dask.config.set({"distributed.nanny.pre-spawn-environ": environment}):
        try:
            cluster = distributed.LocalCluster(
                n_workers=n_workers,
                threads_per_worker=1,
                processes=True,
                memory_limit=int(distributed.system.MEMORY_LIMIT / n_workers),
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
            )
        except RuntimeError as error:
            raise GlasError(f"the {n_workers} workers did not start, one ended before it was ready: {error}") from None
        with cluster, distributed.Client(cluster, set_as_default=False) as client:
            client.register_plugin(_one_gpu_each())
            yield Workers(client)


def _one_gpu_each() -> Any:
    """A plugin that shows each worker one GPU, by turns; also to one that replaces another."""
    from distributed import WorkerPlugin

    class OneGPU(WorkerPlugin):
        name = "one-gpu"

        def setup(self, worker: Any) -> None:
            gpus = _gpus()
            if len(gpus) > 1:
                number = int(worker.name) if str(worker.name).isdecimal() else 0
                os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]

    return OneGPU()


def _gpus() -> list[str]:
    """Those this process may use, by name or number, without waking any."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [one for one in named.split(",") if one]
    return [str(number) for number in range(torch.cuda.device_count())]


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def _same(thing: T) -> T:
    return thing


def _reason(error: BaseException) -> str:
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return "its worker died each time it was tried: too little memory, perhaps"
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}"
