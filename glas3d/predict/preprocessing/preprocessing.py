"""`Preprocessing`: the steps between a scan and the network that a bundle states, and masks in their midst.

Scans are resampled first, to the orientation and voxel size that the bundle states. Then masks are applied. What the
bundle does to intensities comes after that, as the transform of the predictor: numbers that depend on the scan are
those of the intact scan.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import monai.transforms as monai_transforms
import numpy as np
import torch

from glas3d.errors import GlasError, reason
from glas3d.predict.bundle_config import DeclaredTransform
from glas3d.predict.bundle_entries import MAY_RUN_CODE, Code, code_in
from glas3d.predict.interface import Transform
from glas3d.predict.preprocessing.intensity_steps import (
    FITTED_TRANSFORMS,
    FittedContrast,
    FittedIntensity,
    IntensityStep,
)
from glas3d.predict.preprocessing.resampling import MonaiResampling

# Every MONAI transform that a bundle may name, by what becomes of it; any other one is refused.
# Done already when a scan is read.
_READING = frozenset(
    (
        "LoadImage",
        "EnsureChannelFirst",
        "AddChannel",
        "AsChannelFirst",
        "EnsureType",
        "ToTensor",
        "ToDevice",
        "CastToType",
        "FromMetaTensor",
        "ToMetaTensor",
        "Identity",
        "DeleteItems",
        "SelectItems",
    )
)
_RESAMPLING = frozenset(("Orientation", "Spacing"))
# The same for every content: applied to each perturbed scan as MONAI does it.
_UNCHANGED = frozenset(
    (
        "ThresholdIntensity",
        "GaussianSmooth",
        "GaussianSharpen",
        "MedianSmooth",
        "Flip",
        "Rotate90",
        "Resize",
        "SpatialPad",
        "BorderPad",
        "DivisiblePad",
        "CenterSpatialCrop",
        "ResizeWithPadOrCrop",
    )
)
_PADDING_BY_CONTENT = ("maximum", "mean", "median", "minimum", "empty", "linear_ramp")
_WHY_NOT = {
    "CropForeground": "what it crops depends on the content of the scan",
    "OneOf": "it is random",
    "SomeOf": "it is random",
    "RandomOrder": "it is random",
}
# Arguments of dictionary transforms, and those of which there may be one for each key.
_OF_DICTIONARIES = (
    "keys",
    "allow_missing_keys",
    "meta_keys",
    "meta_key_postfix",
    "overwriting",
    "ensure_same_shape",
)
_READ_ONLY = ("source_key", "ref_image_keys", "meta_keys", "meta_key_postfix")  # name an image that is only read
_FOR_EACH_KEY = ("mode", "padding_mode", "align_corners", "dtype", "anti_aliasing")


class Step(Protocol):
    """A step on intensities."""

    def fit(self, volume: torch.Tensor) -> Transform:
        """Return the step for batches that are made from ``volume``, ``(c, *spatial)``."""
        ...


@dataclass(frozen=True, eq=False)
class UnchangedStep:
    """A transform of MONAI whose numbers do not depend on the scan, applied to each input of a batch."""

    name: str
    transform: Callable[[Any], Any]

    def fit(self, volume: torch.Tensor) -> UnchangedStep:
        """Return the step itself."""
        return self

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the transformed inputs of a batch ``(n, c, *spatial)``."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MONAI's, about its own code
            outputs = [torch.as_tensor(self.transform(volume)).as_subclass(torch.Tensor) for volume in batch]
        return torch.stack(outputs)


@dataclass(frozen=True, eq=False)
class EachChannel:
    """A step that is fitted to each channel and applied to it alone, as transforms are before channels are joined.

    Attributes
    ----------
    steps
        One for each channel, in their order; None leaves a channel as it is.
    """

    steps: tuple[Step | None, ...]

    def fit(self, volume: torch.Tensor) -> FittedChannels:
        """Return the step with the numbers of each channel of one intact scan, ``(c, *spatial)``."""
        if len(volume) != len(self.steps):
            raise GlasError(f"the model's preprocessing joins {len(self.steps)} channels, got {len(volume)}")
        parts = (None if step is None else step.fit(volume[c : c + 1]) for c, step in enumerate(self.steps))
        return FittedChannels(tuple(parts))

    @property
    def is_invertible(self) -> bool:
        """Whether values of every channel can be brought back."""
        return all(step is None or isinstance(step, IntensityStep) for step in self.steps)


@dataclass(frozen=True, eq=False)
class FittedChannels:
    """The fitted step of each channel; None leaves it as it is."""

    steps: tuple[Transform | None, ...]

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the values of a batch ``(n, c, *spatial)``."""
        parts = (batch[:, c : c + 1] for c in range(len(self.steps)))
        made = [part if step is None else step(part) for part, step in zip(parts, self.steps, strict=True)]
        return torch.cat(made, dim=1)

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Return what becomes ``values``, ``(c, *spatial)``."""
        parts = []
        for part, step in zip(values[:, None], self.steps, strict=True):
            assert step is None or isinstance(step, FittedIntensity | FittedContrast)
            parts.append(part if step is None else step.inverse(part))
        return np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class FittedPreprocessing:
    """The steps on intensities, with the numbers of one intact scan."""

    steps: tuple[Transform, ...]

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the intensities that the network takes, of a batch ``(n, c, *spatial)`` in the scan's units."""
        for step in self.steps:
            batch = step(batch)
        return batch

    def to_scan_units(self, reference: np.ndarray) -> np.ndarray:
        """Return a volume on the model's intensity scale in the units of the scan that this is fitted to."""
        for step in reversed(self.steps):
            assert isinstance(step, FittedIntensity | FittedContrast | FittedChannels)
            reference = step.inverse(reference)
        return reference


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """What a bundle says is done to a scan before the network.

    Attributes
    ----------
    resampling
        Brings a scan to the voxel grid of the model; None: it is taken on its own grid.
    steps
        What is done to intensities after that.
    names
        All steps with their arguments, for records.
    channels
        Names of the images that are joined to one of several channels, in their order; empty: it is one image.
    """

    resampling: MonaiResampling | None
    steps: tuple[Step, ...]
    names: tuple[str, ...]
    channels: tuple[str, ...] = ()

    @classmethod
    def of(cls, declared: Sequence[DeclaredTransform], key: str) -> Preprocessing:
        """Return the preprocessing that a list of transforms means.

        Parameters
        ----------
        declared
            The transforms in their order.
        key
            The image among the entries of MONAI's dictionaries.

        Raises
        ------
        GlasError
            A transform that cannot be kept where masks come first, by its name.
        """
        resampling: list[Callable[[Any], Any]] = []
        steps: list[Step] = []
        names: list[str] = []
        if declared and not any(_touches(transform, key) for transform in declared):
            raise GlasError(f"none of its transforms is applied to the image, {key!r}")
        channels, joined_at = _joined(declared, key)
        for number, transform in enumerate(declared):
            if number == joined_at:
                names.append(f"ConcatItems({', '.join(channels)})")
                continue
            keys = channels if number < joined_at else (key,)
            found = [_without_dictionary(transform, each) for each in keys]
            if any(name == "LoadImage" and arguments.get("as_closest_canonical") for name, arguments in found):
                resampling.append(_made("Orientation", {"axcodes": "RAS"}))
                names.append("Orientation(axcodes=RAS)")
            kept = [None if name is None or _is_reading(name, more) else (name, more) for name, more in found]
            _refuse_code([one for one in kept if one is not None])
            applied = {each: _text(*one) for each, one in zip(keys, kept, strict=True) if one is not None}
            if not applied:
                continue
            name, arguments = next(one for one in kept if one is not None)
            alike = len(applied) == len(keys) and len(set(applied.values())) == 1
            if name in _RESAMPLING:
                if (name != "Orientation" and steps) or any(map(_may_change_the_grid, steps)):
                    raise GlasError(f"{transform.target} comes after {names[-1]}, and scans are resampled first")
                if not alike:
                    raise GlasError(f"{transform.target} does not resample the channels {', '.join(keys)} alike")
                resampling.append(_made(name, arguments))
            else:
                made = [None if one is None else _step(*one) for one in kept]
                steps.append(EachChannel(tuple(made)) if number < joined_at else _step(name, arguments))
            names += [applied[keys[0]]] if alike else [f"{text} of {each}" for each, text in applied.items()]
        grids = MonaiResampling(tuple(resampling)) if resampling else None
        return cls(grids, tuple(steps), tuple(names), channels)

    def fit(self, volume: torch.Tensor) -> FittedPreprocessing:
        """Return the steps on intensities with the numbers of one intact scan, ``(c, *spatial)``."""
        fitted: list[Transform] = []
        for step in self.steps:
            fitted.append(step.fit(volume))
            volume = fitted[-1](volume[None])[0]
        return FittedPreprocessing(tuple(fitted))

    @property
    def is_invertible(self) -> bool:
        """Whether a reference can be brought from the model's intensity scale to that of a scan."""
        return all(
            step.is_invertible if isinstance(step, EachChannel) else isinstance(step, IntensityStep)
            for step in self.steps
        )


def _joined(declared: Sequence[DeclaredTransform], key: str) -> tuple[tuple[str, ...], int]:
    """Return the images that are joined to the image, and the position of the transform that does so, or -1.

    Raises
    ------
    GlasError
        They are not joined as channels.
    """
    for number, transform in enumerate(declared):
        arguments = transform.arguments
        if _name_of(transform) != "ConcatItems" or key not in _texts(arguments.get("name", ())):
            continue
        _refuse_other_package(transform)
        _refuse_code(arguments)
        channels = tuple(_texts(arguments.get("keys", ())))
        if arguments.get("dim", 0) != 0 or len(set(channels)) < len(channels) or not channels:
            raise GlasError(f"{transform.target} cannot be kept under masks: it must join images as channels (dim 0)")
        return channels, number
    return (), -1


def _step(name: str, arguments: dict[str, Any]) -> Step:
    """Return the step that a transform means."""
    if name in FITTED_TRANSFORMS:
        return IntensityStep(name, _all_arguments(name, arguments))
    return UnchangedStep(name, _made(name, arguments))


def _may_change_the_grid(step: Step) -> bool:
    parts = step.steps if isinstance(step, EachChannel) else (step,)
    return any(isinstance(part, UnchangedStep) for part in parts)


def _text(name: str, arguments: Mapping[str, Any]) -> str:
    """Return a transform with its arguments, for records."""
    return f"{name}({', '.join(f'{k}={v}' for k, v in arguments.items())})"


def _name_of(transform: DeclaredTransform) -> str:
    """Return the name of the transform of arrays that a transform means."""
    last = transform.target.rpartition(".")[2]
    name = last.removesuffix("Dict").removesuffix("D") if last[-1:] in "Dt" else last
    return name.removesuffix("d") if name == last and "keys" in transform.arguments else name


def _refuse_code(arguments: Any) -> None:
    if (code := code_in(arguments)) is not None:
        raise GlasError(f"{code.entry} is {code.text}, {MAY_RUN_CODE}")


def _refuse_other_package(transform: DeclaredTransform) -> None:
    package = transform.target.rpartition(".")[0]
    if package and package.split(".")[:2] != ["monai", "transforms"]:
        raise GlasError(f"{transform.target} is none of MONAI's transforms, and cannot be kept under masks")


def _without_dictionary(transform: DeclaredTransform, key: str) -> tuple[str | None, dict[str, Any]]:
    """Return name and arguments of the transform of arrays that a transform of dictionaries applies to the image.

    The name is None where the transform leaves the image alone.

    Raises
    ------
    GlasError
        It is none of MONAI's transforms that can be kept.
    """
    arguments = dict(transform.arguments)
    name = _name_of(transform)
    if "keys" in arguments:
        listed = _texts(arguments["keys"])
        if not _touches(transform, key):
            return None, {}
        if key not in listed:
            raise GlasError(f"{transform.target} cannot be kept under masks: it makes the image {key!r} of others")
        for argument in set(_FOR_EACH_KEY) & set(arguments):
            if isinstance(arguments[argument], list | tuple):
                arguments[argument] = arguments[argument][listed.index(key)]
    _refuse_other_package(transform)
    if name not in _READING | _RESAMPLING | _UNCHANGED | FITTED_TRANSFORMS:
        known = "it is random" if name.startswith("Rand") else _WHY_NOT.get(name, "it is none that glas3d knows")
        raise GlasError(f"{transform.target} cannot be kept under masks: {known}")
    if name in _UNCHANGED and arguments.get("mode") in _PADDING_BY_CONTENT:
        raise GlasError(
            f"{transform.target} cannot be kept under masks: what it pads with depends on the content of the scan"
        )
    return name, {k: v for k, v in arguments.items() if k not in _OF_DICTIONARIES}


def _touches(transform: DeclaredTransform, key: str) -> bool:
    """Return whether a transform is applied to the image, or writes it; transforms of arrays always are."""
    arguments = transform.arguments
    return "keys" not in arguments or any(
        key in _texts(value) for name, value in arguments.items() if name not in _READ_ONLY
    )


def _texts(value: Any) -> list[str]:
    """Return a text, or each of a list, as plain text."""
    return [str(getattr(text, "value", text)) for text in (value if isinstance(value, list | tuple) else [value])]


def _is_reading(name: str, arguments: Mapping[str, Any]) -> bool:
    """Return whether a transform does what reading a scan has done; refuse one that rounds intensities."""
    if name not in _READING:
        return False
    dtype = arguments.get("dtype")
    if isinstance(dtype, Code):
        raise GlasError(f"{dtype.entry} is {dtype.text}, {MAY_RUN_CODE}")
    if name in ("CastToType", "EnsureType", "ToTensor") and dtype is not None:
        kind = str(getattr(dtype, "__name__", dtype)).rsplit(".", 1)[-1]
        if kind not in ("float", "float32", "float64", "double"):
            raise GlasError(f"{name} to {kind} cannot be kept under masks: it rounds intensities")
    return True


def _class(name: str) -> Any:
    return getattr(monai_transforms, name)


def _all_arguments(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return all arguments of a transform, given and by default.

    Raises
    ------
    GlasError
        The transform cannot be made with these arguments.
    """
    _made(name, arguments)
    bound = inspect.signature(_class(name)).bind(**arguments)
    bound.apply_defaults()
    return dict(bound.arguments)


def _made(name: str, arguments: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Return a transform of MONAI.

    Raises
    ------
    GlasError
        The transform cannot be made with these arguments.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MONAI's, about its own code
            transform: Callable[[Any], Any] = _class(name)(**arguments)
            return transform
    except Exception as error:  # arguments may be of any kind
        raise GlasError(f"{name} cannot be made with these arguments: {reason(error)}") from error
