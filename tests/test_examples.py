"""The examples and the measuring scripts run, in folders of their own."""

import ast
import re
import runpy
import sys
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from glas3d.errors import GlasWarning
from glas3d.study import fetch_oasis
from tests.scripts import load_script
from tests.study.oasis_layout import layout

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
MEASURED = {  # what the measuring scripts write
    "darkness.py": ["darkness.md"],
    "scales.py": ["scales.md", "scales.png"],
    "references.py": ["references.md", "references.png"],
    "theory.py": ["theory.md"],
    "figures.py": ["figures/regions.png", "figures/groups.png", "figures/light-shadow.png"],
    "scaling.py": ["scaling.md"],
    "coarse_to_fine.py": ["coarse_to_fine.md"],
    "experiment.py": ["experiment.md"],
    "regions_together.py": ["regions_together.md"],
    "truncation.py": ["truncation.md"],
    "parity.py": ["parity.md", "parity.json"],
    "photographs.py": ["photographs.md"],
    "method_figures.py": ["light-and-shadow.png"],
}
LIMITED = [  # what small groups and coarse grids are told
    "2 regions of AAL are too small",
    "shares of saliency of AD are higher in",
]
ALLOWED = {
    "03_study.py": [*LIMITED, "values are skewed"],
    "09_cluster.py": ["The training participants of the model adnc-simulated are not recorded"],
    "11_real_participants.py": LIMITED,
    "12_brain_age.py": LIMITED,
}
PREPARED = {
    "11_real_participants.py": lambda folder: layout(folder / "nilearn", 40),
    "12_brain_age.py": lambda folder: fetch_oasis(
        folder / "data", agree=True, data_dir=layout(folder / "nilearn", 40), participants=40
    ),
}
ARGUMENTS = {
    "experiment.py": ["glas3d-examples/experiment.md", "12"],
    "photographs.py": ["glas3d-examples/photographs.md", "cache", "0.03"],
    "11_real_participants.py": ["nilearn", "40", "8", "2", "12"],
    "12_brain_age.py": ["data", "8", "2", "20", "4"],
    "darkness.py": ["glas3d-examples/darkness.md", "2"],
    "references.py": ["glas3d-examples/references.md", "1", "18"],
    "method_figures.py": ["glas3d-examples/light-and-shadow.png"],
    "truncation.py": ["glas3d-examples/truncation.md", "1", "12"],
}
NEEDED = {"13_brain_extraction.py": "deepbet"}  # an extra that does not install everywhere


def numbers(printed, start):
    """Return the numbers of the line that starts so, percentages and signs included."""
    (line,) = (line for line in printed.splitlines() if line.startswith(start))
    return [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", line.removeprefix(start))]


def first_explanation(printed):
    assert re.search(r"^ +1 +Temporal_Inf_L .* True$", printed, re.MULTILINE)
    assert "map (48, 56, 48), scan (48, 56, 48)" in printed


def own_model(printed):
    assert numbers(printed, "trained on 48 participants; right about")[0] >= 75
    forms = ("scikit-learn", "MONAI bundle", "ONNX", "service")
    rows = [numbers(printed, f"{form:14}") for form in forms]
    assert len({probability for probability, _ in rows}) == 1
    assert max(difference for _, difference in rows) < 1e-4


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


def wrong_class(printed):
    intact, without_platform, without_missile = (
        numbers(printed, start) for start in ("intact", "platform's map masked out", "missile's map masked out")
    )
    assert intact[0] > 2 * intact[1]
    assert without_platform[0] < 0.8 * intact[0]
    assert without_platform[1] > intact[1]
    assert without_missile[0] > intact[0]
    assert without_missile[1] < intact[1]


def references(printed):
    """The controls' mean can be used; darkness and the blurred scan are AD themselves."""
    alone = re.findall(r"^(\w+) +P\(AD\) of this background alone: ([\d.]+)$", printed, re.MULTILINE)
    assert [(name, float(p) > 0.9) for name, p in alone] == [("auto", False), ("0", True), ("blur", True)]


def rounds(printed):
    assert re.search(r"^round 1: .* from the left lesion$", printed, re.MULTILINE)
    assert re.search(r"^round 2: .* from the right lesion$", printed, re.MULTILINE)
    assert "ended: P fell to" in printed


def cluster(printed):
    same, of = numbers(printed, "maps with the same bytes:")
    assert same == of > 0


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
    "01_first_explanation.py": first_explanation,
    "02_own_model.py": own_model,
    "05_references_and_pitfalls.py": references,
    "07_fine_grained.py": birds_apart,
    "08_recursive.py": rounds,
    "09_cluster.py": cluster,
    "11_real_participants.py": real_participants,
    "12_brain_age.py": brain_age,
    "14_two_classes.py": wrong_class,
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_a_page_of_the_gallery(name):
    """It begins with a title in reStructuredText, its texts are no Markdown, and it is named after its picture."""
    source = (ROOT / "examples" / name).read_text(encoding="utf-8")
    title, underline, *_ = ast.get_docstring(ast.parse(source)).splitlines()
    assert underline == "=" * len(title)
    assert "[markdown]" not in source
    texts = "\n".join(re.findall(r"^# %%\n((?:#.*\n)+)", source, re.MULTILINE))
    assert not re.search(r"^# #|\]\(", texts, re.MULTILINE), "Markdown in a text"
    assert f"{Path(name).stem}.png" in source


def test_examples_are_numbered_without_gaps():
    assert [int(name.split("_")[0]) for name in EXAMPLES] == list(range(1, len(EXAMPLES) + 1))


def run_script(path, arguments, folder, monkeypatch):
    """Run it as a file, in this process, so that libraries are loaded once for all of them."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [path.name, *arguments])
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    try:
        runpy.run_path(str(path), run_name="__main__")
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
        plt.close("all")


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:the output is saturated:glas3d.errors.GlasWarning",  # as that of the shipped model is for some
    "ignore::ResourceWarning",  # Dask closes sockets after a test has ended
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name, tmp_path, monkeypatch, capsys):
    if name in NEEDED:
        pytest.importorskip(NEEDED[name])
    if name in PREPARED:
        PREPARED[name](tmp_path)
    with warnings.catch_warnings():
        for message in ALLOWED.get(name, ()):
            warnings.filterwarnings("ignore", message, GlasWarning)
        run_script(ROOT / "examples" / name, ARGUMENTS.get(name, []), tmp_path, monkeypatch)
    picture = np.asarray(Image.open(tmp_path / "glas3d-examples" / f"{Path(name).stem}.png").convert("RGB"))
    assert min(picture.shape[:2]) > 150
    assert (picture.std(axis=(0, 1)) > 5).all(), "the picture is empty"
    if name in CHECKS:
        CHECKS[name](capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_measuring_script_runs(name, tmp_path, monkeypatch, capsys):
    """Warnings of glas3d stop it; those of other packages belong to their versions."""
    (tmp_path / "glas3d-examples").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", GlasWarning)
        warnings.filterwarnings("ignore", "the output is saturated", GlasWarning)
        run_script(ROOT / "docs" / "measure" / name, ARGUMENTS.get(name, []), tmp_path, monkeypatch)
    for path in MEASURED[name]:
        assert (tmp_path / "glas3d-examples" / path).stat().st_size > 200
    if name in CHECKS:
        CHECKS[name](capsys.readouterr().out)


def test_every_measuring_script_is_run_or_takes_hours():
    assert {path.name for path in (ROOT / "docs" / "measure").glob("*.py")} == {
        *MEASURED,
        "audits.py",
        "individual.py",
        "literature.py",
        "shipped_model.py",
        "null_rates.py",
        "relabelling.py",
        "truth.py",  # these take hours
        "report_picture.py",  # needs a browser; tests/report/webpage/test_viewer.py opens reports
    }


def measuring_script(name):
    return load_script(ROOT / "docs" / "measure" / f"{name}.py")


@pytest.mark.slow
def test_training_the_shipped_model_at_a_small_size(monkeypatch):
    train = measuring_script("shipped_model")
    sizes = {"TRAINING_SIZE": 4, "UNSEEN_SIZE": 2, "TEST_SIZE": 2}
    for name, size in sizes.items():
        monkeypatch.setattr(train, name, size)
    monkeypatch.setattr(train, "RECIPE", train.Recipe(epochs=1))
    trained = train.one_seed(5)
    accuracy = trained["accuracy"]
    assert accuracy["balanced accuracy"] == pytest.approx((accuracy["sensitivity"] + accuracy["specificity"]) / 2)
    assert all(0 <= value <= 1 for value in accuracy.values())
    card = train.card([trained])
    assert "learnt simulated disease" in card
    lines = [line for line in card.splitlines() if line.startswith("| 5 | ")]
    rows = [[float(cell) for cell in line.split("|")[2:8]] for line in lines[:2]]  # accuracy, and true effects
    assert rows[0] == pytest.approx(list(accuracy.values()), abs=0.0005)
    assert rows[1] == pytest.approx(list(trained["effects"].values()), abs=0.005)


def test_the_labels_of_the_shipped_model_add_up_over_regions():
    """Their log-odds lose the share of a region's disease that masks hide, and no more."""
    import numpy as np
    import torch

    train = measuring_script("shipped_model")
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
    truth = measuring_script("truth")
    few = ("glas_paper", "glas_evidence", "feature_ablation", "shadow 4 mm", "difference")
    monkeypatch.setattr(truth, "METHODS_RUN", {name: truth.METHODS_RUN[name] for name in few})
    monkeypatch.setattr(truth, "DECIDING", truth.METHODS_RUN)
    size = truth.Size(resolution=12.0, training=8, unseen=4, epochs=1, explained=1, least_accuracy=0)
    bench, nets = truth.Bench(tmp_path, size), truth.networks((0, 1), ("six",))
    stages = [truth.Stage(nets, few)]
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
    assert len(calls) == 1 + 2 * 5
    truth.write(bench, stages, tmp_path)
    record = pd.read_csv(tmp_path / "truth.tsv", sep="\t")
    assert len(record) == 2 * 5 * 2  # networks, methods, a participant and the group
    assert record["r"].between(-1, 1).all()
    assert record.groupby("method")["evaluations"].max().to_dict() == {
        **dict.fromkeys(("glas_paper", "glas_evidence"), record["evaluations"].max()),
        **dict.fromkeys(("feature_ablation", "shadow 4 mm"), record["evaluations"].max() // 2),
        "difference": 0,
    }
    page = (tmp_path / "truth.md").read_text()
    assert "**2 networks stand in the record**" in page
    median = record.query("half == 'report' and method == 'shadow 4 mm' and participant != 'group'")["r"].median()
    (row,) = [line for line in page.splitlines() if line.startswith("| shadow 4 mm | ") and line.count("|") == 10]
    assert f"| {median:.3f} |" in row
    for units in (tmp_path / "units").iterdir():
        next(units.glob("*.json")).unlink()  # the record keeps what the cache has lost
    truth.write(bench, stages, tmp_path)
    assert len(pd.read_csv(tmp_path / "truth.tsv", sep="\t")) == len(record)


@pytest.mark.slow
def test_audits_of_trained_networks(tmp_path):
    """Of one seed: the network with a blob and the one that reads brightness are caught, their clean twin is not."""
    audits = measuring_script("audits")
    table = audits.main(tmp_path / "audits.tsv", tmp_path, seeds=(0,), lengths=(12,)).set_index("kind")
    assert (table["accounted"] == "fail").to_dict() == {"clean": False, "blob": True, "brightness": False}
    assert (table["shortcut"] == "fail").to_dict() == {"clean": False, "blob": True, "brightness": True}
    assert table.loc["blob", "blob_mm"] < 12
    assert (tmp_path / "audits.tsv").read_text().count("\n") == 4


def test_the_page_of_audits_has_the_summary_of_the_record():
    audits = measuring_script("audits")
    record = pd.read_csv(ROOT / "docs" / "audits.tsv", sep="\t", na_values=["n/a"])
    assert audits.summary(record) in (ROOT / "docs" / "audits.md").read_text(encoding="utf-8")


def test_the_page_of_audits_has_the_summary_of_comparisons_with_the_literature():
    literature = measuring_script("literature")
    record = pd.read_csv(ROOT / "docs" / "literature.tsv", sep="\t", na_values=["n/a"])
    assert literature.summary(record) in (ROOT / "docs" / "audits.md").read_text(encoding="utf-8")
