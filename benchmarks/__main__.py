"""``python -m benchmarks``: measure everything, write results.json and the tables of README.md."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import psutil

_HERE = Path(__file__).parent
_PARTS = ("engines", "overhead", "rivals", "maps", "truth", "recomputed", "roofline", "sizes", "memory")
_MEMORY_REPEATS = 3  # memory hardly varies


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, two rounds: is every row made?")
    parser.add_argument("--repeats", type=int, help="rounds of every interleaved run (default 5; quick 2)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: torch's choice; quick 1)")
    parser.add_argument("--out", type=Path, help="folder for results.json and README.md (default benchmarks/)")
    parser.add_argument("--only", nargs="+", choices=_PARTS, help="measure these parts again and keep the other rows")
    parser.add_argument(
        "--net",
        default="",
        help="with --only engines, overhead, rivals, memory: only nets whose name and shape contain this text",
    )
    options = parser.parse_args()
    if options.quick and options.out is None:
        parser.error("--quick makes no figures to keep: give a folder with --out")
    repeats = options.repeats or (2 if options.quick else 5)
    if repeats < 1:
        parser.error("--repeats must be at least 1")
    load = psutil.cpu_percent(interval=2) / 100 * (os.cpu_count() or 1)
    warnings.simplefilter("ignore")  # other packages warn while they are imported

    import torch

    from benchmarks.memory import memory_rows
    from benchmarks.report import as_json, provenance, table
    from benchmarks.rows import Row
    from benchmarks.suite import timed_rows
    from benchmarks.timing import engine_clock

    if options.threads or options.quick:
        torch.set_num_threads(options.threads or 1)  # tiny tensors on shared cores would wait for each other
    start = time.perf_counter()

    def log(message: str) -> None:
        print(f"[{time.perf_counter() - start:6.0f} s] {message}", file=sys.stderr, flush=True)

    if load > 0.5:
        log(f"the machine is busy ({load:.1f} processors): the figures will be worse than on an idle one")
    wanted = _PARTS if options.only is None else options.only
    out = _HERE if options.out is None else options.out
    path = out / "results.json"
    kept = path.read_text(encoding="utf-8") if path.is_file() else ""
    origin = provenance(options.quick, load)
    measured: Iterable[Row] = timed_rows(options.quick, repeats, log, wanted.__contains__, options.net)
    if "memory" in wanted:
        memory = memory_rows(options.quick, 1 if options.quick else _MEMORY_REPEATS, log, options.net)
        measured = chain(measured, memory)
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    with engine_clock(options.quick):
        for row in measured:  # written as they are made: a run that is stopped has lost only what it was measuring
            rows.append(row)
            _write(out, as_json(rows, origin, kept))
    if options.only is None and not options.net:
        _write(out, as_json(rows, origin))  # comparisons that are no longer made go
    log(f"{len(rows)} rows in {path}")
    print(table(json.loads(path.read_text(encoding="utf-8"))))


def _write(out: Path, text: str) -> None:
    """Write results.json and the README with its tables into a folder."""
    from benchmarks.report import insert, table

    readme = insert((_HERE / "README.md").read_text(encoding="utf-8"), table(json.loads(text)))
    (out / "results.json").write_text(text, encoding="utf-8")
    (out / "README.md").write_text(readme, encoding="utf-8")


if __name__ == "__main__":
    main()
