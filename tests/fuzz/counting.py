"""Count what becomes of many inputs of a door, in a process of its own, and keep the counts in a table."""

import multiprocessing
import tempfile
import traceback
from collections import Counter
from pathlib import Path

import pandas as pd

from tests.fuzz.test_doors import DOORS, try_inputs

AT_ONCE = 2_000  # hypothesis remembers the inputs of a run
STALLED = 3600.0  # seconds for so many, after which the process hangs in a way that Python cannot interrupt
COLUMNS = ["door", "inputs", "refused", "accepted", "faults", "hangs", "executed", "slowest_seconds", "memory_mib"]


def try_door(name, wanted, report):
    """Give a door so many inputs, and send what was counted after each part of them."""
    door, tried = DOORS[name], 0
    with tempfile.TemporaryDirectory() as folder:
        while tried < wanted:
            try:
                some, longest, added = try_inputs(door, Path(folder), min(AT_ONCE, wanted - tried), derandomize=False)
            except BaseException:
                traceback.print_exc()
                report.send((Counter(faults=1), 0.0, 0))
                return
            report.send((some, longest, added))
            if not some:
                return
            tried += some.total() - some["executed"]


def counted(name, wanted):
    """Return the row of a door: what became of so many inputs in a process of its own."""
    here, there = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=try_door, args=(name, wanted, there))
    process.start()
    there.close()
    counts, slowest, memory = Counter(), 0.0, 0
    try:
        while True:
            if not here.poll(STALLED):
                counts["hangs"] += 1
                process.kill()
                break
            some, longest, added = here.recv()
            counts += some
            slowest, memory = max(slowest, longest), max(memory, added)
    except EOFError:
        process.join()
        counts["faults"] += process.exitcode != 0  # a reader in another language ended it
    kinds = {kind: counts[kind] for kind in ("refused", "accepted", "faults", "hangs", "executed")}
    inputs = counts["refused"] + counts["accepted"] + counts["hangs"]
    return {
        "door": name,
        "inputs": inputs,
        **kinds,
        "slowest_seconds": round(slowest, 2),
        "memory_mib": memory // 2**20,
    }


def keep(row, record):
    """Put a door's row into the record, in place of an earlier one."""
    rows = pd.read_csv(record, sep="\t").to_dict("records") if record.is_file() else []
    rows = {each["door"]: each for each in rows} | {row["door"]: row}
    ordered = [rows[name] for name in DOORS if name in rows]
    pd.DataFrame(ordered, columns=COLUMNS, dtype=object).to_csv(record, sep="\t", index=False)
