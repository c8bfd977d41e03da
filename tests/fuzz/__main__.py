"""Try many more inputs than the tests do, other ones each time: ``python -m tests.fuzz 1000000 docs/fuzz.tsv``.

The table has a row for each door, and keeps those of doors that are not tried. A fault ends the run of its door with
the smallest input that shows it. Each door is tried in a process of its own: what ends that process is a fault, too.
"""

import argparse
import sys
from pathlib import Path

from tests.fuzz.counting import counted, keep
from tests.fuzz.test_doors import DOORS


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("n", type=int, help="inputs of all doors, of which each gets its share")
    parser.add_argument("record", type=Path, help="table that the counts are written to")
    parser.add_argument("--doors", nargs="+", choices=DOORS, default=list(DOORS), help="only these, with all inputs")
    options = parser.parse_args()
    whole = sum(DOORS[name].share for name in options.doors)
    wrong = 0
    for name in options.doors:
        row = counted(name, max(1, options.n * DOORS[name].share // whole))
        keep(row, options.record)
        print(row, flush=True)
        wrong += row["faults"] + row["hangs"] + row["executed"]
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
