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
from glas3d.predict.preprocessing.intensity_steps import FITTED_TRANSFORMS, FittedIntensity, IntensityStep
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
            assert isinstance(step, FittedIntensity)
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
    """

    resampling: MonaiResampling | None
    steps: tuple[Step, ...]
    names: tuple[str, ...]

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
        for transform in declared:
            name, arguments = _without_dictionary(transform, key)
            if name is None or _is_reading(name, arguments):
                if name == "LoadImage" and arguments.get("as_closest_canonical"):
                    resampling.append(_made("Orientation", {"axcodes": "RAS"}))
                    names.append("Orientation(axcodes=RAS)")
                continue
            if (code := code_in(arguments)) is not None:
                raise GlasError(f"{code.entry} is {code.text}, {MAY_RUN_CODE}")
            if name in _RESAMPLING:
                if (name != "Orientation" and steps) or any(isinstance(step, UnchangedStep) for step in steps):
                    raise GlasError(f"{transform.target} comes after {names[-1]}, and scans are resampled first")
                resampling.append(_made(name, arguments))
            elif name in FITTED_TRANSFORMS:
                steps.append(IntensityStep(name, _all_arguments(name, arguments)))
            else:
                steps.append(UnchangedStep(name, _made(name, arguments)))
            names.append(f"{name}({', '.join(f'{k}={v}' for k, v in arguments.items())})")
        return cls(MonaiResampling(tuple(resampling)) if resampling else None, tuple(steps), tuple(names))

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
        return all(isinstance(step, IntensityStep) for step in self.steps)


def _without_dictionary(transform: DeclaredTransform, key: str) -> tuple[str | None, dict[str, Any]]:
    """Return name and arguments of the transform of arrays that a transform of dictionaries applies to the image.

    The name is None where the transform leaves the image alone.

    Raises
    ------
    GlasError
        It is none of MONAI's transforms that can be kept.
    """
    package, _, last = transform.target.rpartition(".")
    arguments = dict(transform.arguments)
    name = last.removesuffix("Dict").removesuffix("D") if last[-1:] in "Dt" else last
    if "keys" in arguments:
        listed = _texts(arguments["keys"])
        name = name.removesuffix("d") if name == last else name
        if not _touches(transform, key):
            return None, {}
        if key not in listed:
            raise GlasError(f"{transform.target} cannot be kept under masks: it makes the image {key!r} of others")
        for argument in set(_FOR_EACH_KEY) & set(arguments):
            if isinstance(arguments[argument], list | tuple):
                arguments[argument] = arguments[argument][listed.index(key)]
    if package and package.split(".")[:2] != ["monai", "transforms"]:
        raise GlasError(f"{transform.target} is none of MONAI's transforms, and cannot be kept under masks")
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
