"""A Dask scheduler with a worker in processes of their own, which can be lost and come back at the same address."""

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
_SERVE = """
import sys, time
from distributed import LocalCluster

if __name__ == "__main__":
    options = {"dashboard_address": None, "scheduler_port": int(sys.argv[1]), "silence_logs": 50}
    with LocalCluster(n_workers=1, threads_per_worker=1, **options) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


class SchedulerProcess:
    """A scheduler on this machine with one worker; ``port`` 0 is any that is free."""

    def __init__(self, folder, port=0):
        script = folder / "serve.py"
        script.write_text(_SERVE)
        self._process = subprocess.Popen(
            [sys.executable, script, str(port)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.address = self._process.stdout.readline().strip()

    @property
    def port(self):
        return int(self.address.rpartition(":")[2])

    def lose(self):
        """Kill the scheduler and its worker."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self.lose()
