"""Write rows as JSON, and as the tables of the README between its markers."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from benchmarks.rows import Row
from benchmarks.workloads import DEVICE

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
UNMEASURED = "Not measured yet: run `make bench`."

_PACKAGES = ("glas3d", "torch", "numpy", "monai", "captum", "efficientnet-lite-pytorch", "openvino", "onnxruntime")
KINDS = {
    "engines": "Engines: the whole explanation by each, against the network itself",
    "auto": "Engines: auto against the fastest",
    "overhead": "Overhead: the whole explanation over the same bare forward passes by the same engine",
    "per evaluation": "Rivals, time of a model evaluation",
    "per evaluation, GLAS by eager": "Rivals, time of a model evaluation, GLAS by the network itself too",
    "per region": "Rivals, time of a region or window",
    "per region, GLAS by eager": "Rivals, time of a region or window, GLAS by the network itself too",
    "maps": "A whole map of a photograph",
    "recomputed": "Recomputing only what a mask changes",
    "without a network": "Without a network: the whole explanation when the model takes no time",
    "roofline": "How far from the machine's limit",
    "memory": "Peak memory",
    "points": "Time against the number of points",
    "voxels": "Time against the number of voxels",
    "sigma": "Time against sigma",
    "targets": "Time against the number of targets",
}
_BUSY = "busy at the start"  # only this may differ between parts
_WIDE = ("per evaluation", "per region")


def provenance(quick: bool, load: float) -> dict[str, Any]:
    """Return what the figures depend on: the machine, its load, and versions."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        _BUSY: round(load, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _PACKAGES},
        "engine": f"eager unless a row names another, {DEVICE}, float32",
        "gpu": torch.cuda.get_device_name() if DEVICE == "cuda" else "none",
        "quick": quick,
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def as_json(rows: Sequence[Row], origin: dict[str, Any]) -> str:
    """Return rows and their provenance as JSON text."""
    return _text(origin, [asdict(row) for row in rows])


def merged(kept: str, new: str) -> str:
    """Return kept results with new rows in place of those of the same comparison and net.

    Raises
    ------
    ValueError
        The kept results are of another machine or of other versions.
    """
    old, now = json.loads(kept), json.loads(new)
    before, after = old["provenance"], now["provenance"]
    different = [key for key in after if key != _BUSY and before.get(key) != after[key]]
    if different:
        raise ValueError(f"the kept results differ in {', '.join(different)}: measure everything again")
    groups = _by_comparison(old["rows"]) | _by_comparison(now["rows"])  # a comparison keeps its position
    loads = [origin[_BUSY] for origin in (before, after)]
    return _text(after | {_BUSY: max(loads)}, list(chain.from_iterable(groups.values())))


def _by_comparison(rows: list[dict[str, Any]]) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["kind"], row["net"], row["shape"]), []).append(row)
    return groups


def _text(origin: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return the JSON text, rows sorted by their kinds in the order of the headings."""
    order = list(KINDS)
    ordered = sorted(rows, key=lambda row: order.index(row["kind"]))
    return json.dumps({"provenance": origin, "rows": ordered}, indent=1) + "\n"


def verdict(row: dict[str, Any]) -> str:
    """Return a ratio in words; a difference that the repeats do not agree on is called even."""
    if row["better"] == "higher":
        return "ahead" if row["low"] > 1 else "**behind**" if row["high"] < 1 else "even"
    if row["ratio"] >= 2:
        return f"x {row['ratio']:.1f}"
    return f"{row['ratio'] - 1:+.1%}"


def _long(rows: list[dict[str, Any]]) -> list[str]:
    """Return a table with one line for each row."""
    lines = [
        "| net | what | against | ratio | min to max | | itself | work |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r['net']} {r['shape']} | {r['what']} | {r['against']} | {r['ratio']:.3f} "
            f"| {r['low']:.3f} to {r['high']:.3f} | {verdict(r)} | {r['value']:.4g} {r['unit']} | {r['work']} |"
        )
    return lines


def _wide(rows: list[dict[str, Any]]) -> list[str]:
    """Return a table with one line for each net and one column for each rival."""
    rivals = list(dict.fromkeys(row["what"] for row in rows))
    nets = dict.fromkeys((row["net"], row["shape"]) for row in rows)
    lines = [f"| net | {' | '.join(rivals)} |", "|---" * (len(rivals) + 1) + "|"]
    for net, shape in nets:
        cells = []
        for rival in rivals:
            r = next(r for r in rows if (r["net"], r["shape"], r["what"]) == (net, shape, rival))
            cells.append(f"{r['ratio']:.2f} ({r['low']:.2f} to {r['high']:.2f}) {verdict(r)}")
        lines.append(f"| {net} {shape} | {' | '.join(cells)} |")
    return lines


def table(results: dict[str, Any]) -> str:
    """Return the figures as Markdown, one table for each comparison."""
    origin = results["provenance"]
    versions = ", ".join(f"{name} {number}" for name, number in origin["versions"].items())
    repeats = sorted({row["repeats"] for row in results["rows"]})
    parts = [
        f"{origin['cpu']}, {origin['cores']} cores ({origin[_BUSY]} of them busy before the run), "
        f"{origin['threads']} threads; {origin['system']}; Python {origin['python']}; {versions}; "
        f"engine: {origin['engine']}. "
        f"Medians of {' or '.join(map(str, repeats))} rounds."
    ]
    if origin["quick"]:
        parts.append("**A smoke test with tiny sizes: these are not figures.**")
    for kind, title in KINDS.items():
        rows = [row for row in results["rows"] if row["kind"] == kind]
        if rows:
            lines = _wide(rows) if kind.startswith(_WIDE) else _long(rows)
            parts.append("\n".join([f"### {title}", "", *lines]))
    return "\n\n".join(parts)


def insert(readme: str, figures: str) -> str:
    """Return the README with new figures between its markers.

    Raises
    ------
    ValueError
        A marker is missing.
    """
    head, begin, rest = readme.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"benchmarks/README.md must hold {BEGIN} and {END}")
    return f"{head}{BEGIN}\n\n{figures}\n\n{END}{tail}"
