"""Rows as JSON, and as the table of the README between its markers."""

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
from benchmarks.subjects import DEVICE

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
UNMEASURED = "Not measured yet: run `make bench`."

_PACKAGES = ("glas3d", "torch", "numpy", "monai", "captum", "efficientnet-lite-pytorch", "openvino", "onnxruntime")
_KINDS = {
    "engines": "Engines: the whole explanation by each, against the network itself",
    "auto": "Engines: auto against the fastest",
    "overhead": "Overhead: the whole explanation over the same bare forwards by the same engine",
    "per forward": "Rivals, per perturbed forward",
    "per forward, ours by eager": "Rivals, per perturbed forward, ours by the network itself too",
    "per place": "Rivals, per region or window",
    "per place, ours by eager": "Rivals, per region or window, ours by the network itself too",
    "maps": "A whole map of a photograph",
    "recomputed": "Recomputing only what a spot changes",
    "beside": "Beside the forwards: the whole explanation when the network takes no time",
    "roofline": "How far from the machine's limit",
    "memory": "Peak memory",
    "points": "Time against the number of points",
    "voxels": "Time against the number of voxels",
    "sigma": "Time against sigma",
    "targets": "Time against the number of targets",
}
_BUSY = "busy at the start"  # alone may differ between parts
_WIDE = ("per forward", "per place")


def provenance(quick: bool, load: float) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        _BUSY: round(load, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _PACKAGES},
        "engine": f"eager unless a row says another, {DEVICE}, float32",
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
    return _text(origin, [asdict(row) for row in rows])


def beside(kept: str, new: str) -> str:
    """Rows measured again in place of those of the same question and net, with what else was kept.

    Raises
    ------
    ValueError
        What was kept is of another machine or of other versions.
    """
    old, now = json.loads(kept), json.loads(new)
    before, after = old["provenance"], now["provenance"]
    apart = [key for key in after if key != _BUSY and before.get(key) != after[key]]
    if apart:
        raise ValueError(f"what was kept differs in {', '.join(apart)}: measure everything again")
    questions = _by_question(old["rows"]) | _by_question(now["rows"])  # a question keeps its place
    loads = [one[_BUSY] for one in (before, after)]
    return _text(after | {_BUSY: max(loads)}, list(chain.from_iterable(questions.values())))


def _by_question(rows: list[dict[str, Any]]) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["kind"], row["net"], row["shape"]), []).append(row)
    return found


def _text(origin: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Rows by their kinds, in the order of the headings."""
    order = list(_KINDS)
    ordered = sorted(rows, key=lambda row: order.index(row["kind"]))
    return json.dumps({"provenance": origin, "rows": ordered}, indent=1) + "\n"


def verdict(row: dict[str, Any]) -> str:
    """A ratio in words; a difference that the repeats do not agree on is even."""
    if row["better"] == "higher":
        return "ahead" if row["low"] > 1 else "**behind**" if row["high"] < 1 else "even"
    if row["ratio"] >= 2:
        return f"x {row['ratio']:.1f}"
    return f"{row['ratio'] - 1:+.1%}"


def _long(rows: list[dict[str, Any]]) -> list[str]:
    """A line a row."""
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
    """A line a net, a column a rival."""
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
    """The figures as Markdown, one table a question."""
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
        parts.append("**A smoke test with tiny sizes: these are no figures.**")
    for kind, title in _KINDS.items():
        rows = [row for row in results["rows"] if row["kind"] == kind]
        if rows:
            lines = _wide(rows) if kind.startswith(_WIDE) else _long(rows)
            parts.append("\n".join([f"### {title}", "", *lines]))
    return "\n\n".join(parts)


def insert(readme: str, figures: str) -> str:
    """The README with new figures between its markers.

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
