"""Write rows as JSON, and as the tables of the README between its markers."""

from __future__ import annotations

import json
import os
import platform
import string
from collections.abc import Callable, Sequence
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
    "equal truth": "Seconds to a map that follows the model (r of at least 0.93 with true effects)",
    "recomputed": "Recomputing only what a mask changes",
    "without a network": "Without a network: the whole explanation when the model takes no time",
    "roofline": "How far from the machine's limit",
    "memory": "Peak memory",
    "points": "Time against the number of points",
    "voxels": "Time against the number of voxels",
    "sigma": "Time against sigma",
    "targets": "Time against the number of targets",
}
_WIDE = ("per evaluation", "per region")


def provenance(quick: bool, load: float) -> dict[str, Any]:
    """Return what the figures depend on: the machine, its load, and versions."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "busy at the start": round(load, 1),
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


def as_json(rows: Sequence[Row], origin: dict[str, Any], kept: str = "") -> str:
    """Return rows and what they depend on as JSON text, in place of kept rows of the same comparison and net.

    Rows of several machines or versions stand side by side, because each ratio was taken within one run: ``provenance``
    lists what they depend on, and the ``origin`` of a row is its position in that list.
    """
    old = json.loads(kept) if kept else {"provenance": [], "rows": []}
    before = [(old["provenance"][row["origin"]], row) for row in old["rows"]]
    now = [(origin, asdict(row)) for row in rows]
    chosen = list(chain.from_iterable((_by_comparison(before) | _by_comparison(now)).values()))  # positions are kept
    order = list(KINDS)
    chosen.sort(key=lambda each: order.index(each[1]["kind"]))
    origins: list[dict[str, Any]] = []
    for each, _ in chosen:
        if each not in origins:
            origins.append(each)
    written = [row | {"origin": origins.index(each)} for each, row in chosen]
    return json.dumps({"provenance": origins, "rows": written}, indent=1) + "\n"


_Traced = tuple[dict[str, Any], dict[str, Any]]  # what a row depends on, and the row


def _by_comparison(rows: list[_Traced]) -> dict[tuple[str, str, str], list[_Traced]]:
    groups: dict[tuple[str, str, str], list[_Traced]] = {}
    for each in rows:
        groups.setdefault((each[1]["kind"], each[1]["net"], each[1]["shape"]), []).append(each)
    return groups


def verdict(row: dict[str, Any]) -> str:
    """Return a ratio in words; a difference that the repeats do not agree on is called even."""
    if row["better"] == "higher":
        return "ahead" if row["low"] > 1 else "**behind**" if row["high"] < 1 else "even"
    if row["ratio"] >= 2:
        return f"x {row['ratio']:.1f}"
    return f"{row['ratio'] - 1:+.1%}"


def _long(rows: list[dict[str, Any]], label: Callable[[dict[str, Any]], str]) -> list[str]:
    """Return a table with one line for each row."""
    lines = [
        "| net | what | against | ratio | min to max | | itself | work |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r['net']} {r['shape']}{label(r)} | {r['what']} | {r['against']} | {r['ratio']:.3f} "
            f"| {r['low']:.3f} to {r['high']:.3f} | {verdict(r)} | {r['value']:.4g} {r['unit']} | {r['work']} |"
        )
    return lines


def _wide(rows: list[dict[str, Any]], label: Callable[[dict[str, Any]], str]) -> list[str]:
    """Return a table with one line for each net and one column for each rival."""
    rivals = list(dict.fromkeys(row["what"] for row in rows))
    nets = {(row["net"], row["shape"]): label(row) for row in rows}
    lines = [f"| net | {' | '.join(rivals)} |", "|---" * (len(rivals) + 1) + "|"]
    for (net, shape), origin in nets.items():
        of_net = {row["what"]: row for row in rows if (row["net"], row["shape"]) == (net, shape)}
        cells = [  # a cell is empty as long as its row is not made
            f"{r['ratio']:.2f} ({r['low']:.2f} to {r['high']:.2f}) {verdict(r)}" if (r := of_net.get(rival)) else ""
            for rival in rivals
        ]
        lines.append(f"| {net} {shape}{origin} | {' | '.join(cells)} |")
    return lines


def table(results: dict[str, Any]) -> str:
    """Return the figures as Markdown, one table for each comparison."""
    origins = results["provenance"]
    parts = []
    for number, origin in enumerate(origins):
        repeats = sorted({row["repeats"] for row in results["rows"] if row["origin"] == number})
        parts.append(f"{f'**{_letter(number)}**: ' if origins[1:] else ''}{_described(origin, repeats)}")
    if origins[1:]:
        parts.append(f"The letter behind a net says which of these it was measured on; none is {_letter(0)}.")
    if any(origin["quick"] for origin in origins):
        parts.append("**A smoke test with tiny sizes: these are not figures.**")

    def label(row: dict[str, Any]) -> str:
        return f" ({_letter(row['origin'])})" if row["origin"] else ""

    for kind, title in KINDS.items():
        rows = [row for row in results["rows"] if row["kind"] == kind]
        if rows:
            lines = _wide(rows, label) if kind.startswith(_WIDE) else _long(rows, label)
            parts.append("\n".join([f"### {title}", "", *lines]))
    return "\n\n".join(parts)


def _letter(number: int) -> str:
    return string.ascii_uppercase[number]


def _described(origin: dict[str, Any], repeats: list[int]) -> str:
    """Return in words what figures depend on."""
    versions = ", ".join(f"{name} {number}" for name, number in origin["versions"].items())
    return (
        f"{origin['cpu']}, {origin['cores']} cores ({origin['busy at the start']} of them busy before the run), "
        f"{origin['threads']} threads; {origin['system']}; Python {origin['python']}; {versions}; "
        f"engine: {origin['engine']}. Medians of {' or '.join(map(str, repeats))} rounds."
    )


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
