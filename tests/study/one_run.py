"""A run in a process of its own, ``python -m tests.study.one_run BIDS OUT MODELS``, and tasks that die."""

import os
import signal
import sys
from pathlib import Path

import torch

from glas3d.study import derivatives, participant_level
from glas3d.study.participant_level import explain_participant
from glas3d.study.runner import explain_cohort
from tests.study import studies

SEARCH = (3, 4, 3)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def dies_once(plan, one):
    """The second participant's worker is killed before it begins."""
    mark = plan.out.parent / "died"
    if one.participant_id == "sub-02" and not mark.exists():
        mark.write_text("")
        die()
    return explain_participant(plan, one)


def dies_writing(plan, one):
    """The second participant's worker is killed when half is written."""
    mark = plan.out.parent / "died"
    if one.participant_id != "sub-02" or mark.exists():
        return explain_participant(plan, one)

    def half(place, name, save, record):
        def dying(scratch):
            save(scratch)
            mark.write_text("")
            die()

        derivatives.write_participant(place, name, dying, record)

    participant_level.write_participant = half  # in a process that ends here
    return explain_participant(plan, one)


def dies_always(plan, one):
    """The second participant kills every worker."""
    if one.participant_id == "sub-02":
        die()
    return explain_participant(plan, one)


if __name__ == "__main__":
    torch.set_num_threads(1)
    source, out, models = map(Path, sys.argv[1:])
    explain_cohort(studies.cohort(source), out, models, search=SEARCH, assume_space="MNI")
