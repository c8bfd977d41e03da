"""The benchmarks make every row, and refuse a rival that does too little work. Speed itself is not tested here."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.checks import InsufficientWork, Planted, check_reaction, count_inputs, observe
from benchmarks.gpu import page
from benchmarks.methods import RIVALS, CaptumAblation, CaptumOcclusion, Glas, MonaiOcclusion
from benchmarks.report import BEGIN, END, KINDS, UNMEASURED, as_json, insert, provenance, table, verdict
from benchmarks.roofline import Layer, layers, least_seconds
from benchmarks.rows import row as figure
from benchmarks.timing import Spread, time_in_rounds
from benchmarks.whole_maps import map_methods
from benchmarks.workloads import brain, workloads

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks"

NETS = ["paper's net", "MONAI DenseNet121", "MONAI ResNet18", "EfficientNet-Lite0"]


@pytest.mark.slow
def test_every_step_on_a_gpu_runs_without_one(tmp_path):
    command = ["bash", "benchmarks/gpu.sh", str(tmp_path), "--quick"]
    environment = os.environ | {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    texts = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert done.returncode == 0, texts
    assert set(texts) == {f"{name}.txt" for name in ("machine", "tests", "figures", "profile", "study", "steps")} | {
        "figures.json"
    }
    results = json.loads(texts["figures.json"])
    assert results["machine"]["gpu"] == "none"
    assert results["failed"] == []
    assert {row["kind"] for row in results["rows"]} >= {"engines", "auto", "overhead", "per evaluation"}
    assert all(found["ms"] > found["floor_ms"] > 0 for found in results["evaluations"])
    assert "2 participants in" in texts["study.txt"]
    written = page(results)
    assert "| paper's net 16x24x16 | eager | 2 |" in written
    assert "nan" not in written


@pytest.fixture(scope="module")
def tiny():
    return brain((16, 24, 16), 12.0, (2, 2, 1), 4, window=8)


@pytest.mark.slow
def test_every_row_is_made(tmp_path):
    """Warnings are errors here: no rival's warning may stop a benchmark."""
    command = [sys.executable, "-W", "error", "-m", "benchmarks", "--quick", "--repeats", "1"]
    command += ["--out", str(tmp_path / "new")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "new" / "results.json").read_text())
    rows = results["rows"]
    for row in rows:
        assert all(math.isfinite(row[key]) and row[key] > 0 for key in ("ratio", "low", "high", "value")), row
        assert row["low"] <= row["ratio"] <= row["high"], row
        assert row["repeats"] >= 1
    kinds = {kind: [r for r in rows if r["kind"] == kind] for kind in dict.fromkeys(r["kind"] for r in rows)}
    assert set(kinds) == set(KINDS)
    for kind in ("engines", "auto", "overhead", "without a network", "roofline"):
        assert list(dict.fromkeys(r["net"] for r in kinds[kind])) == NETS, kind
    assert {r["what"] for r in kinds["engines"]} == {"openvino", "onnx", "channels_last"}
    assert len(kinds["roofline"]) == 2 * len(NETS)
    rivals = {f"{rival.name}, {setting}" for rival in RIVALS for setting in ("stock", "tuned")}
    for kind in ("per evaluation", "per region"):
        for by in ("", ", GLAS by eager"):
            assert {(r["net"], r["what"]) for r in kinds[kind + by]} == {(net, one) for net in NETS for one in rivals}
    assert [r["what"] for r in kinds["maps"]] == [
        "glas3d GLAS by eager", "Captum LayerGradCam", "Captum Lime", "MASK", "RISE",
    ]  # fmt: skip
    assert [(r["what"], r["against"].partition(" by ")[0]) for r in kinds["equal truth"]] == [
        (f"Captum FeatureAblation, {setting}", f"glas3d {ours}")
        for ours in ("evidence", "shadow alone", "evidence, refine 1,", "shadow alone, refine 1,")
        for setting in ("stock", "tuned")
    ]
    assert [r["what"] for r in kinds["memory"]] == [
        "glas3d GLAS.explain", "64 points", "a network of 20 classes", "20 targets", "20 targets",
    ]  # fmt: skip
    assert {kind: len(kinds[kind]) for kind in ("recomputed", "points", "voxels", "sigma", "targets")} == {
        "recomputed": 2, "points": 1, "voxels": 1, "sigma": 1, "targets": 2,
    }  # fmt: skip
    text = (tmp_path / "new" / "README.md").read_text()
    assert "A smoke test" in text
    assert UNMEASURED not in text
    assert len(results["provenance"]) == 1
    assert all(value for value in results["provenance"][0].values() if value != 0)
    assert str(ROOT) not in json.dumps(results)
    # measure one part again and keep the others
    done = subprocess.run([*command, "--only", "truth"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    again = json.loads((tmp_path / "new" / "results.json").read_text())["rows"]
    assert [r for r in again if r["kind"] != "equal truth"] == [r for r in rows if r["kind"] != "equal truth"]
    assert len(again) == len(rows)
    assert list(dict.fromkeys(r["kind"] for r in again)) == list(KINDS)


def test_every_row_keeps_what_it_depends_on(tiny):
    """Ratios are taken within one run, so rows of several machines may stand in one table, each with its machine."""
    a = provenance(quick=False, load=0.1) | {"cpu": "one processor"}
    b = provenance(quick=False, load=0.3) | {"cpu": "another processor"}

    def rows(ratio, *kinds):
        return [figure(kind, tiny, "x", "y", "lower", Spread(ratio, ratio, ratio, 5), 1.0, work="z") for kind in kinds]

    first = as_json(rows(2.0, "engines", "overhead"), a)
    both = json.loads(as_json(rows(3.0, "overhead"), b, first))
    assert [(r["kind"], r["ratio"], both["provenance"][r["origin"]]["cpu"]) for r in both["rows"]] == [
        ("engines", 2.0, "one processor"),
        ("overhead", 3.0, "another processor"),
    ]
    figures = table(both)
    assert "**A**: one processor" in figures
    assert "**B**: another processor" in figures
    assert figures.count(f"{tiny.size} (B) |") == 1
    replaced = json.loads(as_json(rows(3.0, "engines", "overhead"), b, first))
    assert [each["cpu"] for each in replaced["provenance"]] == ["another processor"]
    assert "**A**" not in table(replaced)


def test_a_table_of_which_rows_are_still_missing_has_empty_cells(tiny):
    """Rows are written as they are made, a net by one rival after another."""
    larger = replace(tiny, shape=(24, 24, 16))
    spread = Spread(2.0, 1.5, 2.5, 5)
    made = [(tiny, "one"), (tiny, "two"), (larger, "one")]
    rows = [figure("per region", net, rival, "y", "higher", spread, 1.0, work="z") for net, rival in made]
    lines = table(json.loads(as_json(rows, provenance(quick=False, load=0.1)))).splitlines()
    assert lines[-2:] == [
        "| paper's net 16x24x16 | 2.00 (1.50 to 2.50) ahead | 2.00 (1.50 to 2.50) ahead |",
        "| paper's net 24x24x16 | 2.00 (1.50 to 2.50) ahead |  |",
    ]


def test_the_readme_shows_the_figures_that_are_kept():
    text = (FOLDER / "README.md").read_text()
    kept = FOLDER / "results.json"
    if not kept.exists():
        assert UNMEASURED in text
        return
    results = json.loads(kept.read_text())
    assert not any(origin["quick"] for origin in results["provenance"])
    assert min(row["repeats"] for row in results["rows"] if row["kind"] != "memory") >= 5
    assert {row["kind"] for row in results["rows"]} == set(KINDS)
    assert insert(text, table(results)) == text


def test_rounds_are_interleaved_and_ratios_taken_within_one():
    ran, now = [], [0.0]

    def entry(name, *seconds):
        left = list(seconds)

        def call():
            ran.append(name)
            now[0] += left.pop(0)

        return call

    times = time_in_rounds({"a": entry("a", 2, 4, 12), "b": entry("b", 1, 4, 3)}, 3, clock=lambda: now[0])
    assert "".join(ran) == "abbaab"
    assert times.ratio("a", "b") == Spread(2.0, 1.0, 4.0, 3)
    assert times.ratio("a", "b", per_above=2, per_below=1) == Spread(1.0, 0.5, 2.0, 3)
    assert times.of("a", per=2) == Spread(2.0, 1.0, 6.0, 3)


@pytest.mark.parametrize("kind", [Glas, *RIVALS])
@pytest.mark.parametrize("batch", [None, 3])
def test_every_method_does_its_work(kind, batch, tiny):
    method = kind(tiny, batch=batch)
    seen = observe(method, tiny.build(), keep=True)
    assert seen.different == method.evaluations
    assert len(torch.cat(seen.batches)) == seen.inputs >= method.evaluations
    stock = {Glas: 9, MonaiOcclusion: 4, CaptumAblation: 1, CaptumOcclusion: 1}[kind]
    assert seen.largest == (batch or stock)
    check_reaction(method)


@pytest.mark.parametrize("method", map_methods(workloads(True)[-1], True), ids=lambda method: method.name)
def test_every_map_method_evaluates_enough_and_shows_where_the_net_looks(method):
    workload = replace(method.workload)
    planted = np.zeros(workload.shape, dtype=bool)
    planted[20:40, 8:28] = True
    # blurring dims the planted voxels
    bright = 40 + 200 * planted + np.random.default_rng(0).uniform(0, 15, (3, *planted.shape))
    vars(workload)["volume"] = torch.as_tensor(bright, dtype=torch.float32)
    net = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), Planted(planted, workload.volume)).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(3)[..., None, None])
    enough = {"glas3d GLAS": 201, "RISE": 600, "MASK": 60, "Captum Lime": 600, "Captum LayerGradCam": 1}
    bound = replace(method, workload=workload, timed=enough[method.name], published=9999).bind(net)
    inputs, saliency = count_inputs(bound, net)
    assert inputs >= enough[method.name]
    assert saliency.shape == workload.shape
    assert saliency.isfinite().all()
    if method.name != "Captum LayerGradCam":  # its weights of channels hold no positions
        assert saliency[planted].mean() > saliency[~planted].mean() + 0.2 * saliency.std()


def test_the_limit_of_a_layer_is_its_arithmetic_or_its_traffic():
    net = nn.Sequential(nn.Conv3d(2, 4, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 5 * 6 * 7, 3))
    conv, dense = layers(net, torch.rand(2, 2, 7, 8, 9))
    outputs = 2 * 4 * 5 * 6 * 7
    assert conv == Layer(2 * outputs * 27, 4 * (2 * 2 * 7 * 8 * 9 + outputs + 4 * 27 + 4))
    assert dense == Layer(2 * 2 * 3 * 840, 4 * (2 * 840 + 6 + 3 * 840 + 3))
    assert least_seconds([Layer(10, 2), Layer(1, 8)], operations=5, traffic=2) == 2 + 4


def test_a_rival_that_evaluates_too_little_is_refused(tiny):
    class Idle(CaptumAblation):
        def bind(self, net):
            return lambda: net(self.workload.volume[None])

    with pytest.raises(InsufficientWork, match="must evaluate 5 different inputs, the net saw 1 among 1"):
        observe(Idle(tiny), tiny.build())


def test_a_rival_that_evaluates_the_same_input_again_is_refused(tiny):
    class Stuck(CaptumAblation):
        def bind(self, net):
            return lambda: [net(self.workload.volume[None]) for _ in range(self.evaluations)]

    with pytest.raises(InsufficientWork, match="the net saw 1 among 5"):
        observe(Stuck(tiny), tiny.build())


@pytest.mark.parametrize("spoil", [np.zeros_like, np.negative, lambda m: np.full_like(m, np.nan)])
def test_a_map_that_does_not_react_is_refused(tiny, spoil):
    class Blind(CaptumAblation):
        def map(self, result):
            return spoil(super().map(result))

    with pytest.raises(InsufficientWork, match="does not react"):
        check_reaction(Blind(tiny))


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
def test_a_loss_is_called_behind(better, low, ratio, high, words):
    assert verdict({"better": better, "low": low, "ratio": ratio, "high": high}) == words


def test_new_figures_replace_old_ones():
    once = insert(f"head\n{BEGIN}\nold\n{END}\ntail\n", "new")
    assert once == f"head\n{BEGIN}\n\nnew\n\n{END}\ntail\n" == insert(once, "new")
    with pytest.raises(ValueError, match="must hold"):
        insert("no markers", "new")
