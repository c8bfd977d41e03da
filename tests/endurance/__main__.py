"""Run a long suite and put its counts into docs/trust.tsv: ``python -m tests.endurance kills 200 --minutes 60``.

A suite that is stopped, by its time or otherwise, has recorded what it counted; soak and scale resume in their folder.
"""

import argparse
import sys
from pathlib import Path

from tests.endurance.disks import fill_disks
from tests.endurance.kills import send_signals
from tests.endurance.many import scale, soak
from tests.endurance.record import RECORD, keep


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.endurance", description=__doc__)
    parser.add_argument("suite", choices=("kills", "disks", "soak", "scale"))
    parser.add_argument("n", type=int, help="signals, full disks for each command, or participants of soak and scale")
    parser.add_argument("--each", type=int, default=10, help="of kills: signals to one study")
    parser.add_argument("--participants", type=int, default=20, help="of kills: participants of a study")
    parser.add_argument("--commands", nargs="+", default=(), help="of disks: only these commands")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which the suite is stopped")
    parser.add_argument("--folder", type=Path, default=Path(".endurance"), help="for scans, models and studies")
    parser.add_argument("--record", type=Path, default=RECORD, help="table that the counts are written to")
    options = parser.parse_args()
    folder, seconds = options.folder / options.suite, 60 * options.minutes
    folder.mkdir(parents=True, exist_ok=True)
    if options.suite in ("kills", "disks"):

        def report(faults):
            keep(faults.row(), options.record)
            print(faults.row(), flush=True)

        if options.suite == "kills":
            settings = {"each": options.each, "participants": options.participants}
            faults = send_signals(folder, options.n, **settings, seconds=seconds, report=report)
        else:
            faults = fill_disks(folder, options.n, names=options.commands, seconds=seconds, report=report)
        print("\n".join(faults.problems))
        return int(bool(faults.problems))
    row = {"soak": soak, "scale": scale}[options.suite](folder, options.n, seconds)
    keep(row, options.record)
    print(row)
    return int(bool(row["hangs"] or row["crashes"] or row["lost"]))


if __name__ == "__main__":
    sys.exit(main())
