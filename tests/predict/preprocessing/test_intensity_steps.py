"""Transforms that are fitted to the intact scan: MONAI's own on that scan, the same numbers under masks."""

import monai.transforms as mt
import numpy as np
import pytest
import torch

from glas3d import GlasError
from glas3d.predict.bundle_config import DeclaredTransform
from glas3d.predict.preprocessing.preprocessing import Preprocessing

SHAPE = (2, 5, 6, 7)


def volume():
    values = np.random.default_rng(0).gamma(2.0, 150.0, SHAPE)
    values[:, :2] = 0
    values[1] *= 3
    return values


def mask():
    grid = np.indices(SHAPE[1:])
    return np.exp(-((grid - np.array([3.2, 2.1, 4.4]).reshape(3, 1, 1, 1)) ** 2).sum(0) / 8)


def apply(name, batch, intact, **arguments):
    preprocessing = Preprocessing.of([DeclaredTransform(name, arguments)], "image")
    fitted = preprocessing.fit(torch.as_tensor(intact, dtype=torch.float32))
    return fitted(torch.as_tensor(batch, dtype=torch.float32)[None])[0].double().numpy()


def normalised(x, intact, nonzero=False, channel_wise=False):
    out = np.empty(SHAPE)
    for c in range(len(intact)):
        part = intact[c] if channel_wise else intact
        inside = part[part != 0] if nonzero else part
        out[c] = x[c] / inside.std() - (inside.mean() / inside.std()) * (intact[c] != 0 if nonzero else 1)
    return out


def scaled(x, intact, low=0.0, high=1.0, channel_wise=False):
    out = np.empty(SHAPE)
    for c in range(len(intact)):
        part = intact[c] if channel_wise else intact
        out[c] = (x[c] - part.min()) / (part.max() - part.min()) * (high - low) + low
    return out


def percentiles(x, intact, lower, upper, b_min, b_max, clip, channel_wise=False):
    out = np.empty(SHAPE)
    for c in range(len(intact)):
        part = intact[c] if channel_wise else intact
        a_min, a_max = np.percentile(part, lower), np.percentile(part, upper)
        out[c] = (x[c] - a_min) / (a_max - a_min) * (b_max - b_min) + b_min
    return np.clip(out, b_min, b_max) if clip else out


def contrast(x, intact, gamma):
    width = np.ptp(intact)
    return (np.maximum(x - intact.min(), 0) / width) ** gamma * width + intact.min()


CASES = {
    "normalise": ("NormalizeIntensity", {}, normalised),
    "normalise tissue": ("NormalizeIntensity", {"nonzero": True}, lambda x, v: normalised(x, v, nonzero=True)),
    "normalise tissue of channels": (
        "NormalizeIntensity",
        {"nonzero": True, "channel_wise": True},
        lambda x, v: normalised(x, v, True, True),
    ),
    "normalise by given numbers": (
        "NormalizeIntensity",
        {"subtrahend": [100.0, 200.0], "divisor": [3.0, 7.0], "channel_wise": True},
        lambda x, v: (x - np.array([100.0, 200.0]).reshape(2, 1, 1, 1)) / np.array([3.0, 7.0]).reshape(2, 1, 1, 1),
    ),
    "scale": ("ScaleIntensity", {}, scaled),
    "scale channels": (
        "ScaleIntensity",
        {"minv": -1.0, "maxv": 2.0, "channel_wise": True},
        lambda x, v: scaled(x, v, -1, 2, True),
    ),
    "scale by a factor": ("ScaleIntensity", {"minv": None, "maxv": None, "factor": 0.5}, lambda x, v: 1.5 * x),
    "scale a range": (
        "ScaleIntensityRange",
        {"a_min": 50, "a_max": 600, "b_min": -1, "b_max": 1, "clip": True},
        lambda x, v: np.clip((x - 50) / 550 * 2 - 1, -1, 1),
    ),
    "scale a range without clipping": (
        "ScaleIntensityRange",
        {"a_min": 50, "a_max": 600, "b_min": 0, "b_max": 3},
        lambda x, v: (x - 50) / 550 * 3,
    ),
    "scale a range to nothing": ("ScaleIntensityRange", {"a_min": 50, "a_max": 600}, lambda x, v: (x - 50) / 550),
    "percentiles": (
        "ScaleIntensityRangePercentiles",
        {"lower": 5, "upper": 95, "b_min": 0, "b_max": 2, "clip": True},
        lambda x, v: percentiles(x, v, 5, 95, 0, 2, True),
    ),
    "percentiles of channels, relative": (
        "ScaleIntensityRangePercentiles",
        {"lower": 10, "upper": 90, "b_min": 0, "b_max": 2, "relative": True, "channel_wise": True},
        lambda x, v: percentiles(x, v, 10, 90, 0.2, 1.8, False, True),
    ),
    "clip": (
        "ClipIntensityPercentiles",
        {"lower": 20, "upper": 80},
        lambda x, v: np.clip(x, np.percentile(v, 20), np.percentile(v, 80)),
    ),
    "clip above": (
        "ClipIntensityPercentiles",
        {"lower": None, "upper": 80, "channel_wise": True},
        lambda x, v: np.minimum(x, np.percentile(v, 80, axis=(1, 2, 3)).reshape(2, 1, 1, 1)),
    ),
    "shift": ("ShiftIntensity", {"offset": 25.0}, lambda x, v: x + 25),
    "contrast": ("AdjustContrast", {"gamma": 0.7}, lambda x, v: contrast(x, v, 0.7)),
    "contrast, inverted": (
        "AdjustContrast",
        {"gamma": 2.2, "invert_image": True},
        lambda x, v: -contrast(-x, -v, 2.2),
    ),
    "contrast, statistics kept": (
        "AdjustContrast",
        {"gamma": 1.6, "retain_stats": True},
        lambda x, v: (
            (contrast(x, v, 1.6) - contrast(v, v, 1.6).mean()) / contrast(v, v, 1.6).std(ddof=1) * v.std(ddof=1)
            + v.mean()
        ),
    ),
}


@pytest.mark.parametrize(("name", "arguments", "expected"), CASES.values(), ids=CASES)
def test_the_numbers_are_those_of_the_intact_scan(name, arguments, expected):
    intact = volume()
    for perturbed in (intact, intact * mask(), intact * (1 - mask()), intact * mask() + 400 * (1 - mask())):
        output, wanted = apply(name, perturbed, intact, **arguments), expected(perturbed, intact)
        np.testing.assert_allclose(output, wanted, atol=2e-5 * max(1, np.abs(wanted).max()))
    own = getattr(mt, name)(**arguments)(torch.as_tensor(intact, dtype=torch.float32)).double().numpy()
    np.testing.assert_allclose(apply(name, intact, intact, **arguments), own, atol=2e-5 * max(1, np.abs(own).max()))


@pytest.mark.parametrize("name", ["NormalizeIntensity", "ScaleIntensity", "ClipIntensityPercentiles", "AdjustContrast"])
def test_masking_one_place_leaves_the_others_as_they_are(name):
    arguments = {"lower": 20, "upper": 80} if name.startswith("Clip") else {}
    arguments = {"gamma": 0.5, "retain_stats": True} if name == "AdjustContrast" else arguments
    intact = volume()
    masked = intact.copy()
    masked[:, 3:, 3:, 3:] = 0
    before, after = (apply(name, x, intact, **arguments) for x in (intact, masked))
    elsewhere = np.ones(SHAPE, dtype=bool)
    elsewhere[:, 3:, 3:, 3:] = False
    np.testing.assert_array_equal(before[elsewhere], after[elsewhere])
    assert np.abs(before - after)[~elsewhere].max() > 0.1


def test_a_constant_scan_is_divided_by_one():
    constant = np.full(SHAPE, 3.0)
    np.testing.assert_allclose(apply("NormalizeIntensity", constant, constant), 0, atol=1e-6)
    np.testing.assert_allclose(apply("ScaleIntensity", constant, constant, minv=2.0), 6.0, atol=1e-6)


def test_a_transform_that_cannot_be_fixed_is_refused():
    with pytest.raises(
        GlasError, match="ClipIntensityPercentiles of the model's preprocessing cannot be applied: soft"
    ):
        apply("ClipIntensityPercentiles", volume(), volume(), lower=5, upper=95, sharpness_factor=2.0)


def test_numbers_that_do_not_repeat_monai_s_are_refused(monkeypatch):
    monkeypatch.setattr(mt.intensity.array.ScaleIntensity, "__call__", lambda self, img: img * 0.5)
    with pytest.raises(
        GlasError, match=r"ScaleIntensity .*cannot be kept under masks: .* off by .* on the intact scan"
    ):
        apply("ScaleIntensity", volume(), volume())


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_what_differs_is_measured_by_the_size_of_the_output(monkeypatch, size):
    arguments = {"a_min": 0, "a_max": 1000, "b_min": 0, "b_max": size}
    apply("ScaleIntensityRange", volume(), volume(), **arguments)
    own = mt.intensity.array.ScaleIntensityRange.__call__
    monkeypatch.setattr(mt.intensity.array.ScaleIntensityRange, "__call__", lambda self, img: own(self, img) * 1.01)
    with pytest.raises(GlasError, match="cannot be kept under masks"):
        apply("ScaleIntensityRange", volume(), volume(), **arguments)


def test_a_reference_is_brought_back_to_the_units_of_the_scan():
    declared = [
        DeclaredTransform("ClipIntensityPercentiles", {"lower": 0, "upper": 100}),
        DeclaredTransform("NormalizeIntensity", {"nonzero": True}),
        DeclaredTransform("ShiftIntensity", {"offset": 2.0}),
    ]
    intact = volume()
    fitted = Preprocessing.of(declared, "image").fit(torch.as_tensor(intact, dtype=torch.float32))
    scaled_scan = fitted(torch.as_tensor(intact, dtype=torch.float32)[None])[0].numpy()
    np.testing.assert_allclose(fitted.to_scan_units(scaled_scan), intact, atol=1e-3)


@pytest.mark.parametrize("more", [{}, {"invert_image": True}, {"retain_stats": True}])
def test_a_contrast_can_be_undone_and_takes_values_below_the_scan_s(more):
    intact = volume() + 50
    arguments = {"gamma": 1.7, **more}
    preprocessing = Preprocessing.of([DeclaredTransform("AdjustContrast", arguments)], "image")
    fitted = preprocessing.fit(torch.as_tensor(intact, dtype=torch.float32))
    values = fitted(torch.as_tensor(intact, dtype=torch.float32)[None])[0].numpy()
    assert preprocessing.is_invertible
    np.testing.assert_allclose(fitted.to_scan_units(values), intact, rtol=1e-3)
    outside = np.zeros(SHAPE, np.float32) if "invert_image" not in more else np.full(SHAPE, 1e5, np.float32)
    assert np.isfinite(fitted(torch.as_tensor(outside)[None]).numpy()).all()
