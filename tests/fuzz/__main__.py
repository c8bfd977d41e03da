"""Try many more inputs than the tests do, other ones each time: ``python -m tests.fuzz 1000000 docs/fuzz.tsv``.

The table has a row for each door. A fault ends the run of its door with the smallest input that shows it.
"""

import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

import pandas as pd

from tests.fuzz.test_doors import DOORS, try_inputs

AT_ONCE = 5_000  # hypothesis remembers the inputs of a run


def main(n: int, record: Path) -> int:
    rows = []
    for door in DOORS.values():
        counts, slowest, memory, wanted, faults = Counter(), 0.0, 0, n * door.share // 100, 0
        with tempfile.TemporaryDirectory() as folder:
            while (tried := counts["accepted"] + counts["refused"]) < wanted and not faults:
                try:
                    some, longest, added = try_inputs(
                        door, Path(folder), min(AT_ONCE, wanted - tried), derandomize=False
                    )
                except BaseException:
                    traceback.print_exc()
                    faults = 1
                    continue
                if not some:
                    break
                counts += some
                slowest, memory = max(slowest, longest), max(memory, added)
        kinds = {kind: counts[kind] for kind in ("refused", "accepted")}
        row = {"door": door.name, "inputs": sum(kinds.values()), **kinds, "faults": faults}
        rows.append(row | {"slowest_seconds": round(slowest, 2), "memory_mib": memory // 2**20})
        print(row, flush=True)
        pd.DataFrame(rows).to_csv(record, sep="\t", index=False)
    return int(any(row["faults"] for row in rows))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2])))
