"""Kill writing before each of its steps on the disk, one after another: ``python -m tests.study.each_step``.

It is a process of its own, because only one without other threads may fork.
"""

import os
import signal
import sys
import tempfile
from pathlib import Path

import pandas as pd

from glas3d.study.derivatives import (
    damaged_files,
    participant_folder,
    read_records,
    record_name,
    start_study,
    write_failed,
    write_participant,
)
from tests.study.studies import content

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod"}


def write(out, key="new"):
    """Start or resume a study, and replace the folder of a participant."""

    def save(scratch):
        for name in ("a.json", "b.tsv"):
            (scratch / name).write_text(key * 1000)

    start_study(out, "a study", {"Key": key})
    write_participant(participant_folder(out, "sub-01"), record_name("sub-01", ""), save, {"Key": key})
    failed = [] if key == "new" else [("sub-02", "", "odd")]
    write_failed(out, pd.DataFrame(failed, columns=["participant_id", "session", "error"]), {("sub-02", "")})


def write_until(out, step):
    """Write in another process that is killed before change ``step`` of the disk; return whether it ended by itself."""
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
    """Return whether every existing record has all its files."""
    records = read_records(out) if list(out.glob("sub-*/anat")) else []
    return all(not damaged_files(record.folder, record.content) for record in records)


def main():
    with tempfile.TemporaryDirectory() as folder:
        write(expected := Path(folder) / "undisturbed")
        ended, step = False, 0
        while not ended:
            write(out := Path(folder) / f"killed-{step}", "old")
            ended = write_until(out, step)
            assert whole(out), step
            write(out)
            assert content(out) == content(expected), step
            step += 1
        print(step)


if __name__ == "__main__":
    main()
