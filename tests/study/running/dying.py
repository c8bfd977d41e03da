"""Tasks that die."""

import os
import signal

from glas3d.study import derivatives
from glas3d.study.running import participant as participant_level
from glas3d.study.running.participant import explain_participant


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


def dies_as_network(shape, channels, classes):
    """A factory that kills the process that trains."""
    die()
