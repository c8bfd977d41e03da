"""The examples and the measuring scripts run, in folders of their own."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from glas3d.study import fetch_oasis
from tests.study.oasis_layout import layout

ROOT = Path(__file__).parent.parent
OUTPUTS = {
    "01_explain_a_scan.py": ["scan/scan_seg-AAL_regions.tsv", "scan/scan_seg-AAL_stat-saliency_statmap.nii.gz"],
    "02_a_photograph.py": ["02_a_photograph.png", "photograph/picture_desc-grid_stat-saliency_statmap.tif"],
    "03_a_group.py": ["03_a_group.png", "group/group-AD_seg-AAL_regions.tsv"],
    "darkness.py": ["darkness.md"],
    "05_score_drop.py": ["05_score_drop.png"],
    "06_scales_of_a_photograph.py": ["06_scales_of_a_photograph.png"],
    "07_a_wrong_class.py": ["07_a_wrong_class.png"],
    "08_one_map_for_each_class.py": ["08_one_map_for_each_class.png"],
    "09_rounds.py": ["09_rounds.png"],
    "10_words.py": ["10_words.png"],
    "11_real_participants.py": ["11_real_participants.png", "oasis/results/group/group-AD_seg-AAL_regions.tsv"],
    "12_brain_age.py": ["12_brain_age.png"],
    "13_birds.py": ["13_birds.png", "birds/bounding_boxes.txt"],
    "scales.py": ["scales.md", "scales.png"],
    "references.py": ["references.md", "references.png"],
    "theory.py": ["theory.md"],
    "figures.py": ["figures/regions.png", "figures/groups.png", "figures/light-shadow.png"],
    "04_training_by_folds.py": ["04_training_by_folds.md"],
    "scaling.py": ["scaling.md"],
    "coarse_to_fine.py": ["coarse_to_fine.md"],
    "experiment.py": ["experiment.md"],
    "regions_together.py": ["regions_together.md"],
    "truncation.py": ["truncation.md"],
    "parity.py": ["parity.md", "parity.json"],
    "photographs.py": ["photographs.md"],
}
LIMITED = [  # what small groups and coarse grids are told
    "2 regions of AAL are too small",
    "shares of saliency of AD are higher in",
]
ALLOWED = {"11_real_participants.py": LIMITED, "12_brain_age.py": LIMITED}
PREPARED = {
    "11_real_participants.py": lambda folder: layout(folder / "nilearn", 40),
    "12_brain_age.py": lambda folder: fetch_oasis(
        folder / "data", agree=True, data_dir=layout(folder / "nilearn", 40), participants=40
    ),
}
ARGUMENTS = {
    "photographs.py": ["glas3d-examples/photographs.md", "cache", "0.03"],
    "11_real_participants.py": ["nilearn", "40", "8", "2", "12"],
    "12_brain_age.py": ["data", "8", "2", "20", "4"],
    "darkness.py": ["glas3d-examples/darkness.md", "2"],
    "truncation.py": ["glas3d-examples/truncation.md", "1"],
    "04_training_by_folds.py": ["glas3d-examples/04_training_by_folds.md", "24", "12", "2"],
}


def numbers(printed, start):
    """Return the numbers of the line that starts so, percentages and signs included."""
    (line,) = (line for line in printed.splitlines() if line.startswith(start))
    return [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", line.removeprefix(start))]


def score_drops(printed):
    intact, by_map, by_centre, at_random = numbers(printed, "mean ")
    assert by_map < min(by_centre, at_random, intact)
    assert numbers(printed, "the map lowers P more than the centre in")[0] >= 4
    assert numbers(printed, "more than the mean of the random ones in")[0] >= 4


def scales(printed):
    """Each row holds light, drop, the share in the tripod's box, and the share of pixels with half of the map."""
    rows = [numbers(printed, start) for start in ("   10 /  6", "   20 / 12", "  100 / 60")]
    assert numbers(printed, "the tripod's box is")[0] == 25
    inside = [row[2] for row in rows]
    assert inside[1] > max(inside[0], inside[2]) > 25
    assert rows[0][0] < 0.05 < rows[1][0] < rows[2][0]


def wrong_class(printed):
    intact, without_platform, without_missile = (
        numbers(printed, start) for start in ("intact", "platform's map masked out", "missile's map masked out")
    )
    assert intact[0] > 2 * intact[1]
    assert without_platform[0] < 0.8 * intact[0]
    assert without_platform[1] > intact[1]
    assert without_missile[0] > intact[0]
    assert without_missile[1] < intact[1]


def maps_of_classes(printed):
    assert numbers(printed, "each map has at least")[0] >= 60
    assert "488 model evaluations for 3 classes" in printed


def rounds(printed):
    assert re.search(r"^ +1 .*first cat$", printed, re.MULTILINE)
    assert re.search(r"^ +2 .*second cat$", printed, re.MULTILINE)
    assert "marked in order: strong, weak" in printed


def real_participants(printed):
    """The grey matter that the layout takes from cases is on the left."""
    first = re.findall(r"^ +\d+\.0 +(\w+) ", printed, re.MULTILINE)
    assert len(first) == 10
    assert sum(name.endswith("_L") for name in first) >= 8
    assert "Data Usage Agreement" in printed


def brain_age(printed):
    (error,) = numbers(printed, "mean absolute error out of fold:")
    (constant,) = numbers(printed, "that of the training participants' mean age:")
    assert error < 0.9 * constant


def birds_apart(printed):
    """The last row of the table holds the mean distances, by Grad-CAM, three of ours, and at random."""
    assert numbers(printed, "the net is right about")[0] >= 70
    *ours, at_random, _ = numbers(printed, " " * 13 + "mean")
    assert min(ours[1:]) < 0.5 * at_random


def parity(printed):
    """A second run has the same bits; engines, threads and batches are as near as the page promises."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("|")]
    assert rows[0][1::2] == ["same bits", "same bits"]
    assert {row[0] for row in rows} >= {"openvino", "onnx", "eager, 2 threads instead of 1"}
    for name, *cells in rows:
        apart = [float(cell) for cell in cells[::2] if re.fullmatch(r"[\d.]+e-\d+", cell)]
        assert name.startswith("autocast") or all(value <= 1e-4 for value in apart), name


CHECKS = {
    "parity.py": parity,
    "13_birds.py": birds_apart,
    "11_real_participants.py": real_participants,
    "12_brain_age.py": brain_age,
    "05_score_drop.py": score_drops,
    "06_scales_of_a_photograph.py": scales,
    "07_a_wrong_class.py": wrong_class,
    "08_one_map_for_each_class.py": maps_of_classes,
    "09_rounds.py": rounds,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTPUTS)
def test_example_runs(name, tmp_path):
    if name in PREPARED:
        PREPARED[name](tmp_path)
    process = subprocess.run(
        [
            sys.executable,
            "-W",
            "error::glas3d.errors.GlasWarning",
            "-W",
            "ignore:the output is saturated:glas3d.errors.GlasWarning",  # as that of the shipped model is for some
            *(f"-Wignore:{message}:glas3d.errors.GlasWarning" for message in ALLOWED.get(name, ())),
            str(ROOT / ("examples" if name[0].isdigit() else "docs/measure") / name),
            *ARGUMENTS.get(name, []),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        check=False,
    )
    assert process.returncode == 0, process.stderr
    for path in OUTPUTS[name]:
        assert (tmp_path / "glas3d-examples" / path).stat().st_size > 200
    if name in CHECKS:
        CHECKS[name](process.stdout)


def test_every_example_is_run_or_trains():
    scripts = [*(ROOT / "examples").glob("*.py"), *(ROOT / "docs" / "measure").glob("*.py")]
    assert {p.name for p in scripts} == {
        *OUTPUTS,
        "audits.py",
        "individual.py",
        "shipped_model.py",
        "null_rates.py",
        "relabelling.py",
        "truth.py",  # these take hours
        "report_picture.py",  # needs a browser; tests/report/webpage/test_viewer.py opens reports
    }


def shipped_model():
    spec = importlib.util.spec_from_file_location("train", ROOT / "docs" / "measure" / "shipped_model.py")
    train = importlib.util.module_from_spec(spec)
    sys.modules["train"] = train  # where dataclasses look their annotations up
    spec.loader.exec_module(train)
    return train


@pytest.mark.slow
def test_training_the_shipped_model_at_a_small_size(monkeypatch):
    train = shipped_model()
    sizes = {"TRAINING_SIZE": 4, "UNSEEN_SIZE": 2, "TEST_SIZE": 2}
    for name, size in sizes.items():
        monkeypatch.setattr(train, name, size)
    monkeypatch.setattr(train, "RECIPE", train.Recipe(epochs=1))
    trained = train.one_seed(5)
    accuracy = trained["accuracy"]
    assert accuracy["balanced accuracy"] == pytest.approx((accuracy["sensitivity"] + accuracy["specificity"]) / 2)
    assert all(0 <= value <= 1 for value in accuracy.values())
    card = train.card([trained], trained)
    assert "learnt simulated disease" in card
    lines = [line for line in card.splitlines() if line.startswith("| 5 | ")]
    rows = [[float(cell) for cell in line.split("|")[2:8]] for line in lines[:2]]  # accuracy, and true effects
    assert rows[0] == pytest.approx(list(accuracy.values()), abs=0.0005)
    assert rows[1] == pytest.approx(list(trained["effects"].values()), abs=0.005)


def test_the_labels_of_the_shipped_model_add_up_over_regions():
    """Their log-odds lose the share of a region's disease that masks hide, and no more."""
    import numpy as np
    import torch

    train = shipped_model()
    gained = torch.tensor([[1.0, 2.0, 0.0, 0.5, 0.25, 3.0], [0.0] * 6])
    labels = train.RegionalDisease(gained)
    left = torch.ones(2, 1, 48, 56, 48)
    left[:, :, :24] = 0.25  # the first axis runs from left to right

    def log_odds(kept):
        p = labels(torch.tensor([0, 1]), kept)
        torch.testing.assert_close(p.sum(dim=1), torch.ones(2))
        return torch.logit(p[:, 1]).numpy()

    np.testing.assert_allclose(log_odds(torch.ones_like(left)), [train.NONE_ILL + 6.75, train.NONE_ILL], rtol=1e-4)
    np.testing.assert_allclose(log_odds(left), [train.NONE_ILL + 5.5 + 0.25 * 1.25, train.NONE_ILL], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::glas3d.errors.GlasWarning"
)  # a coarse grid loses regions; a network that learnt nothing
def test_the_benchmark_of_truth_at_a_small_size(tmp_path, monkeypatch):
    """A run that is killed loses one explanation; the page says how many networks stand in the record."""
    spec = importlib.util.spec_from_file_location("truth", ROOT / "docs" / "measure" / "truth.py")
    truth = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "truth", truth)  # dataclasses look their module up
    spec.loader.exec_module(truth)
    few = ("glas_paper", "glas_evidence", "feature_ablation", "shadow 4 mm", "difference")
    monkeypatch.setattr(truth, "METHODS_RUN", {name: truth.METHODS_RUN[name] for name in few})
    monkeypatch.setattr(truth, "DECIDING", truth.METHODS_RUN)
    monkeypatch.setattr(truth, "AVERAGED", {})
    size = truth.Size(resolution=12.0, training=8, unseen=4, epochs=1, explained=1, rescanned=2, least_accuracy=0)
    bench, nets = truth.Bench(tmp_path, size), truth.networks((0, 1), ("six",))
    stages = [truth.Stage(nets, few), truth.Stage(nets[1:], few[1:3], rescans=True)]
    monkeypatch.setattr(truth, "INDIVIDUAL", few[1:3])
    method_values, calls = truth.method_values, []

    def counted(*arguments, **keywords):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(arguments)
        return method_values(*arguments, **keywords)

    monkeypatch.setattr(truth, "method_values", counted)
    with pytest.raises(KeyboardInterrupt):
        truth.run(bench, stages, 1, float("inf"))
    calls += [None]  # no interruption any more
    truth.run(bench, stages, 1, float("inf"))
    assert len(calls) == 1 + 2 * 5 + 6  # the first scan of the first participant is there for the rescans, too
    truth.write(bench, stages, tmp_path)
    record = pd.read_csv(tmp_path / "truth.tsv", sep="\t")
    assert len(record) == 2 * 5 * 2  # networks, methods, a participant and the group
    assert record["r"].between(-1, 1).all()
    assert record.groupby("method")["evaluations"].max().to_dict() == {
        **dict.fromkeys(("glas_paper", "glas_evidence"), record["evaluations"].max()),
        **dict.fromkeys(("feature_ablation", "shadow 4 mm"), record["evaluations"].max() // 2),
        "difference": 0,
    }
    individual = pd.read_csv(tmp_path / "truth_individual.tsv", sep="\t")
    assert individual["n_scans"].tolist() == [4, 4]
    page = (tmp_path / "truth.md").read_text()
    assert "**2 networks stand in the record**" in page
    median = record.query("half == 'report' and method == 'shadow 4 mm' and participant != 'group'")["r"].median()
    (row,) = [line for line in page.splitlines() if line.startswith("| shadow 4 mm | ") and line.count("|") == 9]
    assert f"| {median:.3f} |" in row
    for units in (tmp_path / "units").iterdir():
        next(units.glob("*.json")).unlink()  # the record keeps what the cache has lost
    truth.write(bench, stages, tmp_path)
    assert len(pd.read_csv(tmp_path / "truth.tsv", sep="\t")) == len(record)


@pytest.mark.slow
def test_audits_of_trained_networks(tmp_path):
    """Of one seed: the network with a blob and the one that reads brightness are caught, their clean twin is not."""
    spec = importlib.util.spec_from_file_location("audits", ROOT / "docs" / "measure" / "audits.py")
    audits = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(audits)
    table = audits.main(tmp_path / "audits.tsv", tmp_path, seeds=(0,)).set_index("kind")
    assert (table["accounted"] == "fail").to_dict() == {"clean": False, "blob": True, "brightness": False}
    assert (table["shortcut"] == "fail").to_dict() == {"clean": False, "blob": True, "brightness": True}
    assert table.loc["blob", "blob_mm"] < 12
    assert (tmp_path / "audits.tsv").read_text().count("\n") == 4


def test_the_page_of_audits_has_the_summary_of_the_record():
    spec = importlib.util.spec_from_file_location("audits", ROOT / "docs" / "measure" / "audits.py")
    audits = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(audits)
    record = pd.read_csv(ROOT / "docs" / "audits.tsv", sep="\t", na_values=["n/a"])
    assert audits.summary(record) in (ROOT / "docs" / "audits.md").read_text(encoding="utf-8")
