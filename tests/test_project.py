"""The limits the house set itself, and what the shipped model promises."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

import glas3d
from glas3d import load_model
from glas3d.cli.demo import run_demo
from glas3d.imaging.space import mni_grid
from glas3d.resources import folder
from glas3d.simulate.participants import GROUPS, PLANTED, Simulation, participants

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def sources(*places):
    return [p for place in places for p in sorted((ROOT / place).rglob("*.py*")) if p.suffix in (".py", ".pyi")]


def test_the_package_shows_few_names_all_of_them_public():
    assert len(glas3d.__all__) == len(set(glas3d.__all__)) <= 12
    for name in glas3d.__all__:
        assert getattr(glas3d, name).__module__.startswith("glas3d.")
    assert set(dir(glas3d)) == {*glas3d.__all__, "__version__"}
    with pytest.raises(AttributeError, match="Nonsense"):
        _ = glas3d.Nonsense
    assert {"GLAS", "RGLAS", "Grid", "Atlas", "Predictor", "explain_img"} <= set(glas3d.__all__)


def test_importing_the_package_is_quick_and_imports_no_numeric_library():
    code = (
        "import sys, time; start = time.perf_counter(); import glas3d; took = time.perf_counter() - start; "
        "print(took, *{'torch', 'numpy', 'nibabel', 'nilearn', 'pandas'} & set(sys.modules))"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    took, *heavy = min((run.stdout.split() for run in runs), key=lambda words: float(words[0]))
    assert heavy == []
    assert float(took) < 0.05


def test_no_room_is_called_utils():
    assert [p.name for p in sources("glas3d", "tests", "examples") if p.name.startswith("util")] == []


@pytest.mark.parametrize("place", ["models", "atlases"])
def test_no_code_lies_among_data(place):
    """A Python file there would break the editable install."""
    assert (ROOT / place).is_dir()
    assert sources(place) == []


def test_the_version_is_one():
    version = PYPROJECT["project"]["version"]
    assert glas3d.__version__ == version
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert re.search(rf"^version: {re.escape(version)}$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)


def test_the_readme_says_what_it_is_not():
    text = " ".join((ROOT / "README.md").read_text().split()).lower()
    assert re.search(r"(for )?research( use)? only", text)
    assert re.search(r"(no|not a) medical device", text)
    assert "simulated disease" in text


def test_every_link_of_the_readme_leads_somewhere():
    links = re.findall(r"\]\(([^)#\s]+)", (ROOT / "README.md").read_text())
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_what_is_not_python_is_in_the_wheel():
    """`.gitignore` rules about volumes and weights would drop it in silence."""
    build = PYPROJECT["tool"]["hatch"]["build"]
    assert {"/atlases/**", "/models/**"} <= set(build["artifacts"])
    assert build["targets"]["wheel"]["sources"] == {p: f"glas3d/_shipped/{p}" for p in ("atlases", "models")}


# The shipped model.


@pytest.fixture(scope="module")
def shipped():
    return folder("models", "adnc-simulated")


def test_the_shipped_model_loads(shipped):
    predict = load_model("adnc-simulated", device="cpu")
    assert predict.classes == GROUPS == ("NC", "AD")
    info = predict.info
    assert (info.name, info.channels) == ("adnc-simulated", 1)
    assert info.grid.same_as(mni_grid(4))
    assert info.reference.shape == (1, 48, 56, 48)
    assert {"sigma_light", "sigma_shadow", "unit"} == set(info.preset)
    assert info.preset["sigma_light"] > 0 < info.preset["sigma_shadow"]
    volume = torch.as_tensor(next(participants(Simulation(participants=1, seed=31))).volume)[None]
    p = predict.fit(volume)(volume[None])
    assert p.shape == (1, 2)
    assert p.sum() == pytest.approx(1)
    assert not [path for path in shipped.rglob("*") if path.suffix in (".pt", ".pth", ".pkl", ".ckpt", ".bin")]


def test_it_says_that_it_learnt_simulated_disease(shipped):
    card = " ".join((shipped / "docs" / "README.md").read_text().lower().split())
    assert "it learnt simulated disease" in card
    assert "no medical device" in card
    metadata = json.loads((shipped / "configs" / "metadata.json").read_text())
    assert "simulated" in metadata["description"].lower()


def test_its_card_holds_its_accuracy(shipped):
    lines = (shipped / "docs" / "README.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|") and "balanced accuracy" in line)
    columns = [c.strip() for c in lines[start].strip("|").split("|")]
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(dict(zip(columns, (float(c) for c in line.strip("|").split("|")), strict=True)))
    assert len({row["seed"] for row in rows}) == len(rows) >= 3
    assert all(0.90 <= row["balanced accuracy"] <= 1 for row in rows)
    for row in rows:
        assert row["balanced accuracy"] == pytest.approx((row["sensitivity"] + row["specificity"]) / 2, abs=2e-3)
    unseen = re.search(r"(\d+) participants no network has seen", " ".join(lines))
    assert int(unseen[1]) >= 100


@pytest.mark.slow
def test_it_holds_on_participants_made_here():
    predict = load_model("adnc-simulated", device="cpu")
    right = {group: [] for group in GROUPS}
    for one in participants(Simulation(participants=100, seed=987654)):
        volume = torch.as_tensor(one.volume)[None]
        called = GROUPS[int(predict.fit(volume)(volume[None])[0].argmax())]
        right[one.group].append(called == one.group)
    assert np.mean([np.mean(found) for found in right.values()]) >= 0.88


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo with its own settings, as ``make demo`` runs it."""
    out = tmp_path_factory.mktemp("out") / "glas3d-demo"
    return out, run_demo(out)


@pytest.mark.slow
def test_the_demo_finds_what_was_planted(demo):
    _, result = demo
    first = result.table.sort_values("rank").head(8)["name"]
    assert result.found == len(set(first) & set(PLANTED))
    assert result.found >= 5, first.tolist()


@pytest.mark.slow
def test_the_demo_s_files(demo):
    out, result = demo
    people = pd.read_csv(out / "simulated" / "participants.tsv", sep="\t")
    cases = people.loc[people["group"] == "AD", "participant_id"].tolist()
    assert len(cases) >= 12
    assert sorted(p.name for p in out.glob("sub-*")) == cases
    for name in cases:
        assert len(list((out / name / "anat").glob(f"{name}_*_seg-AAL_stat-saliency_statmap.nii.gz"))) == 1
        assert len(list((out / name / "anat").glob(f"{name}_*_seg-AAL_regions.tsv"))) == 1
    table = pd.read_csv(out / "group" / "group-AD_seg-AAL_regions.tsv", sep="\t")
    assert len(table) == 116
    assert sorted(table["rank"]) == list(range(1, 117))
    values = np.asarray(nib.load(out / "group" / "group-AD_seg-AAL_stat-saliency_statmap.nii.gz").dataobj)
    assert (values.min(), values.max()) == (0, 1)
    assert result.figure.parent == out / "group"
    assert plt.imread(result.figure).shape[1] > 1000
    assert plt.get_fignums() == []


@pytest.mark.slow
def test_a_second_demo_replaces_the_first(demo):
    """Last of this file: it replaces what the tests above look at."""
    out, _ = demo
    run_demo(out, participants=2)
    assert [p.name for p in out.glob("sub-*")] == ["sub-0001"]
    assert len(pd.read_csv(out / "simulated" / "participants.tsv", sep="\t")) == 2
    assert [p.name for p in out.parent.iterdir()] == [out.name]
