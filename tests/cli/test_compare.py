"""``glas3d compare``: its files, its table, what it writes, and what it refuses before anything is written."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from glas3d.evaluate import attribute
from glas3d.evaluate.rivals import METHODS
from glas3d.predict import load_model

CHOSEN = ("glas", "feature_ablation", "integrated_gradients", "random")


@pytest.fixture
def compare(scan, bundle, few_path, tmp_path):
    """Return the arguments of a comparison with the tiny model and an atlas of eight regions."""

    def arguments(*methods, out="out"):
        needed = ("--model", bundle, "--target", "AD", "--atlas", few_path, "--assume-space", "MNI")
        return ("compare", scan, *needed, "--out", tmp_path / out, "--methods", *methods)

    return arguments


def test_its_files_are_one_table_and_one_map_a_method(run_command, compare, scan, bundle, few, few_path, tmp_path):
    status, output, errors = run_command(*compare(*CHOSEN))
    assert (status, errors) == (0, "")
    start = f"sub-07_T1w_seg-{few.name}_desc-methods_regions"
    maps = [f"sub-07_T1w_desc-{name.replace('_', '')}_stat-attribution_statmap" for name in CHOSEN]
    expected = {f"{start}.tsv", f"{start}.json"} | {f"{name}.{end}" for name in maps for end in ("nii.gz", "json")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
    table = pd.read_csv(tmp_path / "out" / f"{start}.tsv", sep="\t")
    assert table.columns.tolist() == ["index", "name", *CHOSEN]
    assert table["name"].tolist() == few.table["name"].tolist()
    original = nib.load(scan)
    for name in maps:
        img = nib.load(tmp_path / "out" / f"{name}.nii.gz")
        assert img.shape == original.shape
        np.testing.assert_array_equal(img.affine, original.affine)
    found = attribute(original, load_model(bundle), "AD", "feature_ablation", str(few_path))
    np.testing.assert_allclose(table["feature_ablation"], found.table["score"], rtol=1e-6)
    # what is shown: the cost and the highest-scoring region of each method
    lines = {line.split()[0]: line.split() for line in output.splitlines() if line.split()}
    for name in CHOSEN:
        assert lines[name][-1] == table.loc[table[name].idxmax(), "name"]
    assert (lines["feature_ablation"][1], lines["random"][1]) == ("9", "0")
    ranks = table[list(CHOSEN)].rank()
    rho = np.corrcoef(ranks["glas"], ranks["feature_ablation"])[0, 1]
    assert lines["feature_ablation"][3] == f"{rho:+.2f}"
    assert max(map(len, output.splitlines()[:-2])) <= 80
    assert output.splitlines()[-1] == f"To see it in a browser: glas3d report {tmp_path / 'out'}"


def test_a_report_that_is_older_is_named(run_command, compare, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.html").write_text("older")
    output = run_command(*compare("difference"))[1]
    message = f"{out / 'report.html'} does not show this yet: glas3d report {out} writes it again"
    assert output.splitlines()[-1] == message
    assert (out / "report.html").read_text() == "older"


def test_json(run_command, compare):
    status, output, errors = run_command(*compare("difference", "gradient"), "--json")
    assert (status, errors) == (0, "")
    content = json.loads(output)
    assert content["evaluations"] == {"difference": 0, "gradient": 3}
    assert len(content["regions"]) == 8
    assert set(content["regions"][0]) == {"index", "name", "difference", "gradient"}


def test_a_grid_and_the_link(run_command, scan, bundle, tmp_path):
    command = ("compare", scan, "--model", bundle, "--target", "AD", "--grid", 2, "--link", "probability")
    status, _, errors = run_command(*command, "--methods", "feature_ablation", "rise", "--out", tmp_path / "out")
    assert (status, errors) == (0, "")
    sidecar = json.loads((tmp_path / "out" / "sub-07_T1w_desc-gridmethods_regions.json").read_text())
    assert sidecar["Settings"]["feature_ablation"]["link"] == "probability"
    assert sidecar["Search"] == {"grid": 2}


def test_the_help_names_every_method(run_command):
    text = " ".join(run_command("compare", "--help")[1].replace("│", " ").split())
    for name, method in METHODS.items():
        assert f"{name} ({method.summary})" in text


def test_another_comparison_is_not_replaced(run_command, error_line, compare, bundle, tmp_path):
    assert run_command(*compare("difference"))[0] == 0
    before = sorted((p.name, p.read_bytes()) for p in (tmp_path / "out").iterdir())
    assert "made with other settings, methods (['difference'] there, ['random'] now) and random; give" in error_line(
        *compare("random")
    )
    assert sorted((p.name, p.read_bytes()) for p in (tmp_path / "out").iterdir()) == before
    assert run_command(*compare("difference"))[0] == 0
    assert run_command(*compare("random"), "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("methods", "more", "message"),
    [
        (("gradcam",), (), "there is no method 'gradcam'; did you mean grad_cam?"),
        (("lime", "lime"), (), "methods must be one or more, each once, got lime, lime"),
        (("lime",), ("--background", "0", "blur"), "methods are compared with one background, got several"),
        (("lime",), ("--batch-size", "0"), "--batch-size must be a whole number of at least 1, got 0"),
        (("lime",), ("--link", "odds"), "--link must be one of probability, logit, got 'odds'"),
        (("lime",), ("--fusion", "light"), "unknown option: --fusion"),
    ],
)
def test_what_is_refused(error_line, compare, tmp_path, methods, more, message):
    assert message in error_line(*compare(*methods), *more)
    assert not (tmp_path / "out").exists()


def test_a_model_without_gradients_is_refused(error_line, compare, tmp_path, monkeypatch):
    (tmp_path / "numeric_model.py").write_text(
        "from glas3d.predict import Predictor\n"
        "def make():\n"
        "    return Predictor(lambda batch: batch.numpy().mean(axis=(1, 2, 3, 4))[:, None], 'sigmoid')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    arguments = list(compare("feature_ablation", "gradient"))
    arguments[3], arguments[5] = "numeric_model:make", "1"
    assert "gradient needs a torch network through which gradients flow" in error_line(*arguments)
    assert not (tmp_path / "out").exists()
