"""Functions that kill the worker process that runs them, in place of explaining a participant."""

import os
import signal
import time

from glas3d.study import derivatives
from glas3d.study.running import participant as participant_level
from glas3d.study.running.participant import explain_participant


def die():
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def dies_once(plan, task):
    """Kill the worker of the second participant before it starts, the first time."""
    mark = plan.out.parent / "died"
    if task.participant_id == "sub-02" and not mark.exists():
        mark.write_text("")
        die()
    return explain_participant(plan, task)


def dies_writing(plan, task):
    """Kill the worker of the second participant while it writes the results, the first time."""
    mark = plan.out.parent / "died"
    if task.participant_id != "sub-02" or mark.exists():
        return explain_participant(plan, task)

    def write_half(folder, name, save, record):
        def save_and_die(scratch):
            save(scratch)
            mark.write_text("")
            die()

        derivatives.write_participant(folder, name, save_and_die, record)

    participant_level.write_participant = write_half  # only in this process, which ends here
    return explain_participant(plan, task)


def dies_always(plan, task):
    """Kill every worker that explains the second participant."""
    if task.participant_id == "sub-02":
        die()
    return explain_participant(plan, task)


def dies_as_network(shape, channels, classes):
    """Kill the process that trains, in place of making a network."""
    die()


def hangs(plan, task):
    """Never return for the second participant."""
    while task.participant_id == "sub-02":
        time.sleep(0.1)
    return explain_participant(plan, task)


def leaves(plan, task):
    """End the worker of the second participant as a library in C might, every time."""
    if task.participant_id == "sub-02":
        os._exit(0)
    return explain_participant(plan, task)


def sleeps(shared, seconds):
    """Return the seconds, and the number of the process, after them."""
    time.sleep(seconds)
    return seconds, os.getpid()


def dies_beside_others(folder, item):
    """End the worker if another process does the same at this moment, as where memory suffices for one only.

    Until a worker has died, another is waited for.
    """
    mark = folder / f"{os.getpid()}"
    mark.write_text("")
    start = time.monotonic()
    while time.monotonic() < start + (0.5 if any(folder.glob("died-*")) else 60):
        if any(_runs(int(path.name)) for path in folder.glob("[0-9]*") if path != mark):
            time.sleep(0.5)  # until the other has seen this one
            (folder / f"died-{mark.name}").write_text("")
            os._exit(1)
        time.sleep(0.05)
    mark.unlink()
    return item


def _runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
