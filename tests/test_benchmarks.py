"""The benchmarks make every row, and refuse a rival that does no work. How fast anything is, is not asked here."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.contest import Spread, compete
from benchmarks.methods import RIVALS, CaptumAblation, CaptumOcclusion, MonaiOcclusion, Ours
from benchmarks.report import BEGIN, END, UNMEASURED, insert, table, verdict
from benchmarks.subjects import brain
from benchmarks.witness import NoWork, reacts, watch

ROOT = Path(__file__).parent.parent
PLACE = ROOT / "benchmarks"

NETS = ["paper's net", "MONAI DenseNet121", "MONAI ResNet18", "EfficientNet-Lite0"]


@pytest.fixture(scope="module")
def tiny():
    return brain((16, 24, 16), 12.0, (2, 2, 1), 4, window=8)


@pytest.mark.slow
def test_every_row_is_made(tmp_path):
    """In the strictest of moods: no rival's warning may break it."""
    command = [sys.executable, "-W", "error", "-m", "benchmarks", "--quick", "--out", str(tmp_path / "new")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "new" / "results.json").read_text())
    rows = results["rows"]
    for row in rows:
        assert all(math.isfinite(row[key]) and row[key] > 0 for key in ("ratio", "low", "high", "value")), row
        assert row["low"] <= row["ratio"] <= row["high"], row
        assert row["repeats"] >= 1
    kinds = {kind: [r for r in rows if r["kind"] == kind] for kind in dict.fromkeys(r["kind"] for r in rows)}
    assert [r["net"] for r in kinds["overhead"]] == NETS
    assert [(r["net"], r["what"]) for r in kinds["engines"]] == [(net, "openvino") for net in NETS]
    assert len(kinds["engine overhead"]) == 2 * len(NETS)
    rivals = {f"{rival.name}, {setting}" for rival in RIVALS for setting in ("stock", "our batch")}
    for kind in ("per forward", "per place"):
        assert {(r["net"], r["what"]) for r in kinds[kind]} == {(net, rival) for net in NETS for rival in rivals}
    assert {r["what"] for r in kinds["memory"]} == {"glas3d GLAS.explain", "64 points", "20 targets"}
    assert {kind: len(kinds[kind]) for kind in ("points", "voxels", "sigma", "targets")} == {
        "points": 1, "voxels": 1, "sigma": 1, "targets": 2,
    }  # fmt: skip
    text = (tmp_path / "new" / "README.md").read_text()
    assert "A smoke test" in text
    assert UNMEASURED not in text
    assert all(value for value in results["provenance"].values() if value != 0)
    assert str(ROOT) not in json.dumps(results)


def test_the_readme_shows_the_figures_that_are_kept():
    text = (PLACE / "README.md").read_text()
    kept = PLACE / "results.json"
    if not kept.exists():
        assert UNMEASURED in text
        return
    results = json.loads(kept.read_text())
    assert not results["provenance"]["quick"]
    assert min(row["repeats"] for row in results["rows"]) >= 5
    assert insert(text, table(results)) == text


def test_the_limits_of_the_house():
    for path in PLACE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400
        assert not path.name.startswith("util")


def test_rounds_are_interleaved_and_ratios_taken_within_one():
    ran, now = [], [0.0]

    def entry(name, *seconds):
        left = list(seconds)

        def call():
            ran.append(name)
            now[0] += left.pop(0)

        return call

    times = compete({"a": entry("a", 2, 4, 12), "b": entry("b", 1, 4, 3)}, 3, clock=lambda: now[0])
    assert "".join(ran) == "abbaab"
    assert times.ratio("a", "b") == Spread(2.0, 1.0, 4.0, 3)
    assert times.ratio("a", "b", per_above=2, per_below=1) == Spread(1.0, 0.5, 2.0, 3)
    assert times.of("a", per=2) == Spread(2.0, 1.0, 6.0, 3)


@pytest.mark.parametrize("kind", [Ours, *RIVALS])
@pytest.mark.parametrize("batch", [None, 3])
def test_every_method_does_its_work(kind, batch, tiny):
    method = kind(tiny, batch=batch)
    seen = watch(method, tiny.build(), keep=True)
    assert seen.different == method.forwards
    assert len(torch.cat(seen.batches)) == seen.inputs >= method.forwards
    stock = {Ours: 9, MonaiOcclusion: 4, CaptumAblation: 1, CaptumOcclusion: 1}[kind]
    assert seen.largest == (batch or stock)
    reacts(method)


def test_a_rival_that_asks_too_little_is_refused(tiny):
    class Idle(CaptumAblation):
        def bind(self, net):
            return lambda: net(self.subject.volume[None])

    with pytest.raises(NoWork, match="must ask 6 different inputs, the net saw 1 among 1"):
        watch(Idle(tiny), tiny.build())


def test_a_rival_that_asks_the_same_again_is_refused(tiny):
    class Stuck(CaptumAblation):
        def bind(self, net):
            return lambda: [net(self.subject.volume[None]) for _ in range(self.forwards)]

    with pytest.raises(NoWork, match="the net saw 1 among 6"):
        watch(Stuck(tiny), tiny.build())


@pytest.mark.parametrize("spoil", [np.zeros_like, np.negative, lambda m: np.full_like(m, np.nan)])
def test_a_map_that_does_not_react_is_refused(tiny, spoil):
    class Blind(CaptumAblation):
        def map(self, answer, intact):
            return spoil(super().map(answer, intact))

    with pytest.raises(NoWork, match="does not react"):
        reacts(Blind(tiny))


@pytest.mark.parametrize(
    ("better", "low", "ratio", "high", "words"),
    [
        ("higher", 1.1, 1.2, 1.3, "ahead"),
        ("higher", 0.9, 1.2, 1.3, "even"),
        ("higher", 0.7, 0.8, 0.9, "**behind**"),
        ("lower", 1.0, 1.034, 1.1, "+3.4%"),
        ("flat", 0.9, 0.95, 1.1, "-5.0%"),
        ("flat", 2.0, 9.87, 12.0, "x 9.9"),
    ],
)
def test_a_loss_is_called_one(better, low, ratio, high, words):
    assert verdict({"better": better, "low": low, "ratio": ratio, "high": high}) == words


def test_figures_replace_figures():
    once = insert(f"head\n{BEGIN}\nold\n{END}\ntail\n", "new")
    assert once == f"head\n{BEGIN}\n\nnew\n\n{END}\ntail\n" == insert(once, "new")
    with pytest.raises(ValueError, match="must hold"):
        insert("no markers", "new")
