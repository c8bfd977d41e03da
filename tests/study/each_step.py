"""Writing killed before each of its steps on the disk, one after another: ``python -m tests.study.each_step``.

A process of its own, for one without other threads may fork.
"""

import os
import signal
import sys
import tempfile
from pathlib import Path

import pandas as pd

from glas3d.study.derivatives import (
    begin,
    damaged_files,
    participant_folder,
    read_records,
    record_name,
    write_failed,
    write_participant,
)
from tests.study.studies import content

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod"}


def write(out, key="new"):
    """A study is begun, or gone on with; a participant's folder takes the place of an older one."""

    def save(scratch):
        for name in ("a.json", "b.tsv"):
            (scratch / name).write_text(key * 1000)

    begin(out, "a study", {"Key": key})
    write_participant(participant_folder(out, "sub-01"), record_name("sub-01", ""), save, {"Key": key})
    failed = [] if key == "new" else [("sub-02", "", "odd")]
    write_failed(out, pd.DataFrame(failed, columns=["participant_id", "session", "error"]), {("sub-02", "")})


def write_until(out, step):
    """Write in another process, killed before so many changes of the disk; whether it came to its end."""
    child = os.fork()
    if not child:
        left = [step]

        def hook(event, arguments):
            if event in CHANGES or (event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)):
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1

        sys.addaudithook(hook)
        write(out)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), status
    return status == 0


def whole(out):
    """Whether a participant who is there is there with every file."""
    there = read_records(out) if list(out.glob("sub-*/anat")) else []
    return all(not damaged_files(one.folder, one.content) for one in there)


def main():
    with tempfile.TemporaryDirectory() as place:
        write(expected := Path(place) / "undisturbed")
        ended, step = False, 0
        while not ended:
            write(out := Path(place) / f"killed-{step}", "old")
            ended = write_until(out, step)
            assert whole(out), step
            write(out)
            assert content(out) == content(expected), step
            step += 1
        print(step)


if __name__ == "__main__":
    main()
