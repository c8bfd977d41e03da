"""README's command lines and Python blocks run as they are printed, on simulated scans and at small size.

What installs and what runs for minutes is run elsewhere (`COVERED`). What stands for the reader's own files, and what
makes a command small, is written in one table (`WRITTEN_OUT`).
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from glas3d import Predictor, cli, load_model

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COVERED = {
    "pip install .": (
        ".ci/run",
        "dist/glas3d-*.whl",
    ),  # the wheel that pip makes of a checkout, into a fresh environment
    "make test": (".ci/run", "make test"),
    "make demo": ("Makefile", "demo: $(READY_DEMO)\n\t$(BIN)/glas3d demo\n"),  # tests/test_shipped_model.py runs it
}
SCAN = "data/sub-0001/anat/*_T1w.nii.gz"
WRITTEN_OUT = {
    "SCAN": SCAN,
    "MODEL": "adnc-simulated",
    "--participants 16": "--participants 8",
    "train data my_models": "train data my_models --folds 2 --epochs 1 --resolution 12",
    "study group": "study group --n-perm 19 --n-boot 10",
    "audit SCAN": "audit SCAN --checks accounted",
}


def command_lines():
    """Return every command of README: the indented lines without their comments, and the first cells of tables."""
    indented = re.findall(
        r"^    ([a-z].*?)(?: +#.*)?$", re.sub(r"```.*?```", "", README, flags=re.DOTALL), re.MULTILINE
    )
    return [*indented, *re.findall(r"^\| `(glas3d [^`]+)` \|", README, re.MULTILINE)]


def written_out(line):
    """Return a command line with the reader's names and the sizes of `WRITTEN_OUT`."""
    for printed, run in reversed(WRITTEN_OUT.items()):
        line = re.sub(rf"(?<!\S){re.escape(printed)}(?!\S)", run, line)
    return line


def arguments(line):
    """Return the arguments of a command as a shell would pass them on."""
    words = shlex.split(line)[1:]
    return [path for word in words for path in (sorted(map(str, Path.cwd().glob(word))) if "*" in word else [word])]


def test_every_command_is_run_here_or_elsewhere():
    lines = command_lines()
    assert {line.split()[0] for line in lines} == {"glas3d", "pip", "make"}
    assert {line for line in lines if not line.startswith("glas3d ")} == set(COVERED)
    for where, text in COVERED.values():
        assert text in (ROOT / where).read_text(encoding="utf-8")
    commands = {line.split()[1] for line in lines if line.startswith("glas3d ")}
    assert commands >= {"simulate", "explain", "compare", "audit", "figure", "report", "train", "cohort", "verify"}
    assert all(any(printed in line for line in (*lines, *map(written_out, lines))) for printed in WRITTEN_OUT)


@pytest.fixture(scope="module")
def first_map(tmp_path_factory):
    """Return the folder in which a shell has run the first two commands."""
    folder = tmp_path_factory.mktemp("readme")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    first = [line for line in command_lines() if line.startswith("glas3d ")][:2]
    for line in map(written_out, first):
        subprocess.run(["bash", "-c", line], cwd=folder, env=os.environ | {"PATH": path}, check=True)
    return folder


@pytest.mark.slow
def test_the_first_two_commands_make_a_map_in_a_shell(first_map):
    results = first_map / "results"
    assert (results / "report.html").stat().st_size > 100_000
    for page in ("README.md", "docs/quickstart.md"):  # which begin with the same scan
        scans = re.findall(r"\bdata/sub-\S+", (ROOT / page).read_text(encoding="utf-8"))
        assert scans
        assert all(len(list(first_map.glob(scan))) == 1 for scan in scans), page
    (table,) = results.glob("*_seg-AAL_regions.tsv")
    assert len(pd.read_csv(table, sep="\t")) == 116


@pytest.mark.slow
def test_all_commands_run_in_turn(first_map, monkeypatch, capsys):
    monkeypatch.chdir(first_map)
    for line in [line for line in command_lines() if line.startswith("glas3d ")][2:]:
        status = cli.run(arguments(written_out(line)))
        printed, errors = capsys.readouterr()
        assert status == 0, (line, errors)
        assert printed, line
    written = ("results/figures", "my_models/fold-1", "study/group/group-AD_seg-AAL_regions.tsv", "study/report.html")
    assert all((first_map / path).exists() for path in written)
    (compared,) = (first_map / "results").glob("*_desc-methods_regions.tsv")
    assert {"glas", "feature_ablation"} <= set(pd.read_csv(compared, sep="\t"))


def python_blocks(path):
    return re.findall(r"```python\n(.*?)```", (ROOT / path).read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.slow
def test_the_python_blocks_run(first_map, tmp_path, monkeypatch):
    """A network, a normalisation and a volume stand for those that the pages leave to the reader."""
    (scan,) = first_map.glob(SCAN)
    nib.save(nib.load(scan), tmp_path / "sub-01_T1w.nii.gz")
    monkeypatch.chdir(tmp_path)
    own_scan, own_network = python_blocks("README.md")
    names = {}
    exec(own_scan, names)
    assert (tmp_path / "report.html").is_file()
    assert len(own_scan.splitlines()) <= 7
    best = names["result"].table.sort_values("rank")["name"].head(3)
    assert best.str.contains("Temporal_Inf|Hippocampus|Amygdala").any()
    names = {"net": load_model("adnc-simulated").net, "normalise": lambda batch: batch / 1000}
    (quickstart,) = python_blocks("docs/quickstart.md")
    exec(quickstart, names)
    assert (tmp_path / "results" / "report.html").is_file()
    exec(own_network, names)
    image, arrays = python_blocks("docs/explaining.md")
    names["volume"] = np.asarray(torch.rand(1, 48, 56, 48))
    exec(arrays.replace("Grid(15)", "Grid(2)"), names)
    assert names["e"].saliency.shape == (48, 56, 48)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)).save("bird.png")
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    names["predict"] = Predictor(net, "softmax", classes=("wren", "owl", "jay"))
    exec(image.replace("Grid(15)", "Grid(2)"), names)
    assert names["result"].saliency.shape == (20, 24)


def test_what_fit_receives_is_as_readme_says():
    from glas3d import Grid
    from glas3d.core.glas import GLAS

    received = []

    class Scaled:
        def fit(self, volume):
            received.append(("fit", type(volume), tuple(volume.shape), float(volume.max())))
            return lambda batch: (received.append(("batch", type(batch), tuple(batch.shape), 0.0)), batch)[1]

    volume = np.full((2, 7, 8, 9), 500.0, dtype=np.float32)
    predict = Predictor(lambda batch: batch.mean(dim=(1, 2, 3, 4))[:, None], activation="none", transform=Scaled())
    GLAS(predict, background=0, batch_size=4).explain(volume, target=0, search=Grid(2))
    fitted = [each for each in received if each[0] == "fit"]
    assert fitted == [("fit", torch.Tensor, (2, 7, 8, 9), 500.0)]
    assert {each[2][1:] for each in received if each[0] == "batch"} == {(2, 7, 8, 9)}
