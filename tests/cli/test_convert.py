"""``glas3d convert`` makes a bundle of the model zoo ready for ``glas3d explain``."""

import json

import pandas as pd
import pytest
import torch

from tests import zoo


@pytest.fixture
def bundle(tmp_path):
    transforms = [zoo.step("Orientationd", axcodes="RAS"), zoo.step("NormalizeIntensityd", nonzero=True)]
    folder = zoo.write(tmp_path / "zoo", transforms, postprocessing=zoo.SOFTMAX, weights=False)
    torch.save(zoo.network().state_dict(), folder / "models" / "model.pt")
    return folder


def test_from_the_zoo_to_a_table(bundle, tmp_path, run_command):
    scan, out = zoo.scan(tmp_path / "sub-01_T1w.nii.gz"), tmp_path / "out"
    explain = ["explain", scan, "--model", bundle, "--target", 1, "--grid", 2, "--assume-space", "MNI", "--out", out]
    status, _, error = run_command(*explain)
    assert status == 2
    assert f"glas3d convert {bundle}/models/model.pt {bundle}" in error
    status, output, _ = run_command("convert", bundle / "models" / "model.pt", bundle)
    assert (status, "models/model.safetensors" in output.replace("\n", "")) == (0, True)
    status, _, error = run_command(*explain)
    assert (status, "intensities" in error) == (0, False)
    sidecar = json.loads((out / "sub-01_T1w_desc-grid_stat-saliency_statmap.json").read_text())
    expected = zoo.probabilities(zoo.preprocessed(bundle, scan))[1]
    assert sidecar["Probability"] == pytest.approx(expected, abs=1e-6)
    assert sidecar["Model"]["preprocessing"] == ["Orientation(axcodes=RAS)", "NormalizeIntensity(nonzero=True)"]
    assert len(pd.read_csv(out / "sub-01_T1w_desc-grid_regions.tsv", sep="\t")) == 8


def test_the_result_as_json(bundle, tmp_path, run_command):
    status, output, _ = run_command("convert", bundle / "models" / "model.pt", tmp_path / "new", "--json")
    assert status == 0
    assert json.loads(output)["file"] == str(tmp_path / "new" / "models" / "model.safetensors")


def test_a_pickle_with_code_ends_in_one_line(bundle, run_command):
    path = bundle / "models" / "model.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    status, output, error = run_command("convert", path, bundle)
    assert (status, output, error.count("\n")) == (2, "", 1)
    assert error.startswith(f"error: weights must be a state dict of torch.save, {path} is none: it names torch.nn.")
