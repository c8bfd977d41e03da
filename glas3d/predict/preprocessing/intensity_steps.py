"""Intensity transforms of MONAI, fitted to the intact scan and then fixed.

A transform such as ``NormalizeIntensity`` takes its mean from whatever it is given, so that masking one place would
change every voxel. Each function here returns the same transform as fixed numbers: gain and offset of every voxel, and
the range to which values are clipped, or for ``AdjustContrast`` the range to which its exponent applies. On the intact
scan both are the same, which `IntensityStep.fit` checks.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.transforms import intensity

from glas3d.errors import GlasError, reason

# How far a fitted transform may be from MONAI's own on the intact scan, as a share of the largest value.
_ROUNDING = 1e-4
_FLOAT32 = 1e-6


@dataclass(frozen=True, eq=False)
class FittedIntensity:
    """``x * gain + offset``, voxel by voxel, clipped to a range.

    Attributes
    ----------
    gain, offset
        Of a shape that is broadcast to ``(c, *spatial)``; float32.
    low, high
        The range, of a shape as gain's; None: no limit.
    """

    gain: torch.Tensor
    offset: torch.Tensor
    low: torch.Tensor | None = None
    high: torch.Tensor | None = None

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the values of a batch ``(n, c, *spatial)``."""
        values = torch.addcmul(self.offset, batch, self.gain)
        return values if self.low is None and self.high is None else torch.clamp(values, self.low, self.high)

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Return what becomes ``values``, ``(c, *spatial)``, where these lie within the range."""
        gain, offset = self.gain.cpu().numpy(), self.offset.cpu().numpy()
        return np.asarray((values - offset) / gain, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class FittedContrast:
    """``((sign * x - low) / width) ** gamma * gain + offset``: the exponent applies to the scan's own range.

    Attributes
    ----------
    sign
        1, or -1 where the image is inverted first.
    low, width
        The least value of the intact scan, after ``sign``, and the size of its range.
    gamma
        The exponent. A value below ``low``, which has no power, counts as ``low``.
    gain, offset
        Of a shape that is broadcast to ``(c, *spatial)``; float32.
    """

    sign: float
    low: float
    width: float
    gamma: float
    gain: torch.Tensor
    offset: torch.Tensor

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the values of a batch ``(n, c, *spatial)``."""
        share = ((batch * self.sign - self.low) / self.width).clamp_min(0)
        return torch.addcmul(self.offset, share**self.gamma, self.gain)

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Return what becomes ``values``, ``(c, *spatial)``; values that nothing becomes count as the least."""
        gain, offset = self.gain.cpu().numpy(), self.offset.cpu().numpy()
        share = np.maximum((values - offset) / gain, 0) ** (1 / self.gamma)
        return np.asarray(self.sign * (share * self.width + self.low), dtype=np.float32)


Fitted = FittedIntensity | FittedContrast


@dataclass(frozen=True, eq=False)
class IntensityStep:
    """An intensity transform of MONAI that is fitted to the intact scan.

    Attributes
    ----------
    name
        The name of its class.
    arguments
        All its arguments.
    """

    name: str
    arguments: Mapping[str, Any]

    def fit(self, volume: torch.Tensor) -> Fitted:
        """Return the transform with the numbers of one intact scan, ``(c, *spatial)``.

        Raises
        ------
        GlasError
            It does not do on this scan what MONAI's transform does.
        """
        own = getattr(intensity.array, self.name)(**self.arguments)
        try:
            fitted = _FITS[self.name](volume.double(), self.arguments)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # MONAI's, about its own code
                expected = torch.as_tensor(own(volume.clone())).as_subclass(torch.Tensor)
        except Exception as error:  # arguments may be of any kind
            raise GlasError(f"{self.name} of the model's preprocessing cannot be applied: {reason(error)}") from error
        difference = (fitted(volume[None])[0] - expected).abs().max()
        rounding = _FLOAT32 * fitted.offset.abs().max()  # where what is subtracted is much larger than what is left
        if not difference <= _ROUNDING * expected.abs().max() + rounding:
            raise GlasError(
                f"{self.name} of the model's preprocessing cannot be kept under masks: with its numbers fixed, it is "
                f"off by {float(difference):.2g} on the intact scan"
            )
        return fitted


def _fitted(
    volume: torch.Tensor,
    gain: torch.Tensor | float,
    offset: torch.Tensor | float,
    low: torch.Tensor | float | None = None,
    high: torch.Tensor | float | None = None,
) -> FittedIntensity:
    """Return the transform with its numbers as tensors of the volume's device."""

    def number(value: torch.Tensor | float) -> torch.Tensor:
        return torch.as_tensor(value, dtype=torch.float32, device=volume.device)

    limits = (None if limit is None else number(limit) for limit in (low, high))
    return FittedIntensity(number(gain), number(offset), *limits)


def _each_group(
    volume: torch.Tensor, channel_wise: bool, numbers_of: Callable[[torch.Tensor, int], tuple[float, ...]]
) -> list[torch.Tensor]:
    """Return numbers that are taken from every channel or from all together, each ``(c, 1, ...)`` float64.

    Parameters
    ----------
    numbers_of
        Returns some numbers of ``(*spatial)`` and its index where ``channel_wise``, else of the whole volume and 0.
    """
    parts = list(volume) if channel_wise else [volume]
    rows = torch.tensor([numbers_of(part, index) for index, part in enumerate(parts)], dtype=torch.float64)
    rows = rows.to(volume.device).expand(len(volume), -1)
    return [column.reshape(-1, *([1] * (volume.ndim - 1))) for column in rows.T]


def _normalize(volume: torch.Tensor, arguments: Mapping[str, Any]) -> FittedIntensity:
    """Fit ``NormalizeIntensity``: with ``nonzero``, what is 0 in the intact scan is neither measured nor shifted."""
    by_channel, nonzero = bool(arguments["channel_wise"]), bool(arguments["nonzero"])
    tissue = volume != 0 if nonzero else torch.ones_like(volume, dtype=torch.bool)

    def given(name: str) -> torch.Tensor | None:
        value = arguments[name]
        if value is None:
            return None
        numbers = torch.as_tensor(np.asarray(value), dtype=torch.float64, device=volume.device)
        if by_channel and numbers.ndim == 1:
            numbers = numbers.reshape(-1, *([1] * (volume.ndim - 1)))
        return numbers.expand(volume.shape)

    def measured(part: torch.Tensor, index: int) -> tuple[float, ...]:
        values = part[tissue[index] if by_channel else tissue]
        if not len(values):
            return 0.0, 1.0
        return float(values.mean()), float(values.std(unbiased=False))

    mean, deviation = _each_group(volume, by_channel, measured)
    subtrahend, divisor = given("subtrahend"), given("divisor")
    mean = mean if subtrahend is None else subtrahend
    deviation = deviation if divisor is None else divisor
    deviation = torch.where(deviation == 0, 1.0, deviation)
    offset = -mean / deviation
    return _fitted(volume, 1 / deviation, offset * tissue if nonzero else offset)


def _scale(volume: torch.Tensor, arguments: Mapping[str, Any]) -> FittedIntensity:
    """Fit ``ScaleIntensity``: the range from the intact scan's minimum to its maximum becomes another one."""
    low, high, factor = arguments["minv"], arguments["maxv"], arguments["factor"]
    if low is None and high is None:
        return _fitted(volume, 1.0 + (factor or 0.0), 0.0)

    def line(part: torch.Tensor, index: int) -> tuple[float, ...]:
        least, most = float(part.min()), float(part.max())
        if least == most:
            return (1.0 if low is None else float(low)), 0.0
        target = (0.0, 1.0) if low is None or high is None else (float(low), float(high))
        return _line(least, most, *target)

    gain, offset = _each_group(volume, bool(arguments["channel_wise"]), line)
    return _fitted(volume, gain, offset)


def _line(a_min: float, a_max: float, b_min: float | None, b_max: float | None) -> tuple[float, float]:
    """Return gain and offset that bring a range to another; with an end of that missing, to the range from 0 to 1."""
    if a_max == a_min:
        return 1.0, (b_min or 0.0) - a_min
    low, high = (0.0, 1.0) if b_min is None or b_max is None else (b_min, b_max)
    gain = (high - low) / (a_max - a_min)
    return gain, low - a_min * gain


def _scale_range(volume: torch.Tensor, arguments: Mapping[str, Any]) -> FittedIntensity:
    """Fix ``ScaleIntensityRange``, whose numbers are given."""
    a_min, a_max = (float(arguments[name]) for name in ("a_min", "a_max"))
    b_min, b_max = (None if arguments[name] is None else float(arguments[name]) for name in ("b_min", "b_max"))
    limits = (b_min, b_max) if arguments["clip"] and a_min != a_max else (None, None)
    return _fitted(volume, *_line(a_min, a_max, b_min, b_max), *limits)


def _scale_percentiles(volume: torch.Tensor, arguments: Mapping[str, Any]) -> FittedIntensity:
    """Fit ``ScaleIntensityRangePercentiles`` by the percentiles of the intact scan."""
    lower, upper = float(arguments["lower"]), float(arguments["upper"])
    b_min, b_max = (None if arguments[name] is None else float(arguments[name]) for name in ("b_min", "b_max"))
    if arguments["relative"] and b_min is not None and b_max is not None:
        width = b_max - b_min
        b_min, b_max = b_min + width * lower / 100, b_min + width * upper / 100

    def line(part: torch.Tensor, index: int) -> tuple[float, ...]:
        least, most = np.percentile(part.cpu().numpy(), [lower, upper])
        return _line(float(least), float(most), b_min, b_max)

    gain, offset = _each_group(volume, bool(arguments["channel_wise"]), line)
    return _fitted(volume, gain, offset, *((b_min, b_max) if arguments["clip"] else ()))


def _clip_percentiles(volume: torch.Tensor, arguments: Mapping[str, Any]) -> FittedIntensity:
    """Fit ``ClipIntensityPercentiles`` by the percentiles of the intact scan."""
    if arguments["sharpness_factor"] is not None:
        raise ValueError("soft clipping (sharpness_factor) is not supported")

    def limits(part: torch.Tensor, index: int) -> tuple[float, ...]:
        values = part.cpu().numpy()
        low, high = arguments["lower"], arguments["upper"]
        return (
            -np.inf if low is None else float(np.percentile(values, low)),
            np.inf if high is None else float(np.percentile(values, high)),
        )

    return _fitted(volume, 1.0, 0.0, *_each_group(volume, bool(arguments["channel_wise"]), limits))


def _shift(volume: torch.Tensor, arguments: Mapping[str, Any]) -> FittedIntensity:
    """Fix ``ShiftIntensity``, whose number is given."""
    return _fitted(volume, 1.0, float(arguments["offset"]))


def _contrast(volume: torch.Tensor, arguments: Mapping[str, Any]) -> FittedContrast:
    """Fit ``AdjustContrast`` by the range of the intact scan, and by its mean and deviation where it keeps those."""
    gamma = float(arguments["gamma"])
    sign = -1.0 if arguments["invert_image"] else 1.0
    signed = volume * sign
    low, width = float(signed.min()), float(signed.max() - signed.min())
    gain, offset = width, low
    if arguments["retain_stats"]:
        adjusted = ((signed - low) / (width + 1e-7)) ** gamma * width + low
        stretch = float(signed.std() / (adjusted.std() + 1e-8))
        gain, offset = width * stretch, (low - float(adjusted.mean())) * stretch + float(signed.mean())

    def number(value: float) -> torch.Tensor:
        return torch.as_tensor(sign * value, dtype=torch.float32, device=volume.device)

    return FittedContrast(sign, low, width + 1e-7, gamma, number(gain), number(offset))


_FITS: dict[str, Callable[[torch.Tensor, Mapping[str, Any]], Fitted]] = {
    "NormalizeIntensity": _normalize,
    "ScaleIntensity": _scale,
    "ScaleIntensityRange": _scale_range,
    "ScaleIntensityRangePercentiles": _scale_percentiles,
    "ClipIntensityPercentiles": _clip_percentiles,
    "ShiftIntensity": _shift,
    "AdjustContrast": _contrast,
}
# The transforms of `monai.transforms.intensity.array` that can be fitted.
FITTED_TRANSFORMS = frozenset(_FITS)
