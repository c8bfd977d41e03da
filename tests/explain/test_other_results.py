"""Results of another input, target or settings are refused before the model is evaluated, and never replaced."""

import json

import numpy as np
import pytest
import torch

from glas3d import GlasError, Grid, explain_image, explain_img
from glas3d.explain.image import resolve_image
from glas3d.explain.outputs import _identity
from glas3d.explain.scan import resolve_scan
from glas3d.output import to_json
from tests.explain.cases import SMALL
from tests.imaging.cases import HEADS, head, mask_of, with_info

# The model is a toy: notes on saturated outputs and on classes with nothing for them are not what is tested.
pytestmark = pytest.mark.filterwarnings("ignore::glas3d.GlasWarning")

MODES = {
    "plain": {},
    "mm": {"unit": "mm", "sigma_light": 9.0, "sigma_shadow": (8.0, 9.0, 10.0)},
    "versus": {"versus": "NC"},
    "recursive": {"recursive": {"max_iterations": 2, "threshold": 0.6}},
    "scales": {"scales": (2, 0.5)},
    "refine": {"refine": {"budget": 0.6, "tolerance": 0.1}},
    "references": {"background": {"dark": 0.0, "dim": 30.0}},
    "channels": {"channels": "each"},
}
CHANGES = {
    "plain": {"sigma_light": 11.0},
    "mm": {"sigma_shadow": (8.0, 9.0, 11.0)},
    "versus": {"fusion": "light"},
    "recursive": {"recursive": {"max_iterations": 2, "threshold": 0.7}},
    "scales": {"scales": (2, 0.25)},
    "refine": {"refine": {"budget": 0.7, "tolerance": 0.1}},
    "references": {"background": {"dark": 0.0, "dim": 31.0}},
    "channels": {"channels": "each", "gamma": 0.1},
}


@pytest.fixture
def model(scan, few):
    """Return a model of two classes that counts its evaluations."""
    region = torch.as_tensor(np.flatnonzero(mask_of(few, HEADS["LAS"])))
    top = float(np.asarray(scan.dataobj).max())

    def probabilities(batch):
        probabilities.evaluations += len(batch)
        evidence = batch.flatten(2)[:, :, region].mean(dim=(1, 2))
        return torch.stack([top / 2 + 0 * evidence, evidence], dim=1).mul(4 / top).softmax(dim=1)

    probabilities.evaluations = 0
    return probabilities


def predictor(model, channels=1):
    return with_info(model, channels=channels)


def given(mode, scan):
    """Return the images of a mode, and how many channels the model takes."""
    return ([scan, scan], 2) if mode == "channels" else (scan, 1)


def identity(provenance):
    return _identity(json.loads(to_json(provenance)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("search", ["atlas", "grid"])
def test_names_and_what_tells_results_apart_are_known_before_the_evaluation(scan, few, model, mode, search):
    """They are those of the results, in every mode."""
    images, channels = given(mode, scan)
    places = few if search == "atlas" else Grid((2, 3, 2))
    request = resolve_scan(images, predictor(model, channels), "AD", places, SMALL | MODES[mode])
    ((stem, provenance),) = request.maps.expected(request.mode, request.task)
    assert model.evaluations == 0
    result = request.explain()
    assert stem == result.stem
    expected, came = identity(provenance), identity(result.provenance)
    settings, all_settings = expected.pop("settings"), came.pop("settings")
    assert expected == came
    assert settings == {name: all_settings[name] for name in settings}
    constants = {"consensus", "dead_zone", "references"} if mode == "references" else set()
    assert set(all_settings) - set(settings) == constants


@pytest.mark.parametrize("mode", MODES)
def test_results_of_other_settings_are_refused_before_the_evaluation(scan, few, model, mode, tmp_path):
    images, channels = given(mode, scan)
    predict = predictor(model, channels)
    explain_img(images, predict, "AD", few, folder=tmp_path, **SMALL | MODES[mode])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    evaluations = model.evaluations
    with pytest.raises(
        GlasError, match=r"made with (another setting|other settings), .*; give another folder, or --overwrite"
    ):
        explain_img(images, predict, "AD", few, folder=tmp_path, **SMALL | MODES[mode] | CHANGES[mode])
    assert model.evaluations == evaluations
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    # the same again is the same result, and another one replaces it on demand only
    explain_img(images, predict, "AD", few, folder=tmp_path, **SMALL | MODES[mode])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    explain_img(images, predict, "AD", few, folder=tmp_path, overwrite=True, **SMALL | MODES[mode] | CHANGES[mode])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} != before


@pytest.mark.parametrize(
    ("change", "what"),
    [({"target": "NC"}, "target"), ({"img": "bright"}, "input"), ({"search": Grid((2, 2, 3))}, "search")],
    ids=["target", "input", "search"],
)
def test_what_differs_is_named_before_the_evaluation(scan, model, change, what, tmp_path):
    request = {"img": scan, "predict": predictor(model), "target": "AD", "search": Grid(2)}
    explain_img(**request, folder=tmp_path, **SMALL)
    evaluations = model.evaluations
    if what == "input":
        change = {"img": head(HEADS["LAS"], scale=2.0)}
    with pytest.raises(GlasError, match=f"made with another {what}; give"):
        explain_img(**request | change, folder=tmp_path, **SMALL)
    assert model.evaluations == evaluations


def test_models_of_one_name_are_told_apart(scan, few, tmp_path):
    """Networks by their weights, before they are evaluated; functions, which have no hash, by their outputs."""

    class Network(torch.nn.Module):
        def __init__(self, slope):
            super().__init__()
            self.slope = torch.nn.Parameter(torch.tensor(slope))
            self.evaluations = 0

        def forward(self, batch):
            self.evaluations += len(batch)
            z = self.slope * batch.mean(dim=(1, 2, 3, 4)) / 100
            return torch.stack([1 - z, z], dim=1).softmax(dim=1)

    first, other = Network(0.5), Network(0.9)
    explain_img(scan, predictor(first), "AD", few, folder=tmp_path / "networks", **SMALL)
    with pytest.raises(GlasError, match="made with another model; give"):
        explain_img(scan, predictor(other), "AD", few, folder=tmp_path / "networks", **SMALL)
    assert other.evaluations == 0
    explain_img(scan, predictor(first), "AD", few, folder=tmp_path / "networks", **SMALL)

    def functions(slope):
        return predictor(lambda batch: Network(slope)(batch))

    with torch.no_grad():
        explain_img(scan, functions(0.5), "AD", few, folder=tmp_path / "functions", **SMALL)
        with pytest.raises(GlasError, match="made with another model; give"):
            explain_img(scan, functions(0.9), "AD", few, folder=tmp_path / "functions", **SMALL)
        explain_img(scan, functions(0.5), "AD", few, folder=tmp_path / "functions", **SMALL)


def test_no_more_than_four_settings_are_named(scan, model, tmp_path):
    request = {"img": scan, "predict": predictor(model), "target": "AD", "search": Grid(2), "folder": tmp_path}
    explain_img(**request, **SMALL)
    changed = {"sigma_light": 9.0, "sigma_shadow": 8.0, "sigma_spatial": 7.0, "gamma": 0.1, "fusion": "light"}
    with pytest.raises(
        GlasError, match=r"made with other settings, ([a-z_]+ \(\S+ there, \S+ now\)(, )?){4} and 1 more; give"
    ):
        explain_img(**request, **SMALL | changed)


def test_the_parts_of_a_result_replace_no_other_results(scan, few, model, tmp_path):
    """A difference of two classes also writes the files of each class."""
    for result in explain_img(scan, predictor(model), ["AD", "NC"], few, **SMALL):
        result.save(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    difference = explain_img(scan, predictor(model), "AD", few, versus="NC", **SMALL | {"sigma_light": 9.0})
    with pytest.raises(
        GlasError,
        match=r"scan_seg-few_label-AD_stat-\w+.json, made with another setting, sigma_light \(12.0 there, 9.0 now\)",
    ):
        difference.save(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def brightness(batch):
    brightness.evaluations += len(batch)
    share = batch.mean(dim=(1, 2, 3)) / 255
    return torch.stack([1 - share, share], dim=1)


@pytest.mark.parametrize("change", [{"target": 0}, {"sigma_light": 3.0}, {"search": Grid((2, 4))}, {"scales": (1, 2)}])
def test_results_of_another_image_s_explanation_are_refused_before_the_evaluation(tmp_path, change):
    brightness.evaluations = 0
    image = np.random.default_rng(0).integers(0, 255, (12, 16, 3)).astype(np.uint8)
    request = {"image": image, "predict": brightness, "target": 1, "search": Grid((2, 3)), "folder": tmp_path}
    explain_image(**request)
    if "scales" in change:  # it has a name of its own
        explain_image(**request, **change)
        change = change | {"sigma_light": 3.0}
    evaluations = brightness.evaluations
    with pytest.raises(GlasError, match=r"made with another (target|setting|search)"):
        explain_image(**request | change)
    assert brightness.evaluations == evaluations
    resolved = resolve_image(image, brightness, 1, Grid((2, 3)), {})
    ((stem, provenance),) = resolved.maps.expected(resolved.mode, resolved.task)
    result = resolved.explain()
    expected, came = identity(provenance), identity(result.provenance)
    assert stem == result.stem
    assert expected == came
