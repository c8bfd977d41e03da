"""Models on disk: MONAI bundle folders with safetensors weights.

In addition to what MONAI requires, a bundle of this package states in ``configs/metadata.json`` under ``glas3d`` the
activation of its outputs and the settings that were chosen with it. It may hold three NIfTI volumes, which fix its
voxel grid: ``models/mean.nii.gz`` and ``models/std.nii.gz`` (standardisation of every voxel), and
``models/reference.nii.gz`` (the mean of the control group).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from glas3d.checks import is_number, refuse_formulas, whole_number
from glas3d.core.settings import Settings
from glas3d.display import fields_repr
from glas3d.errors import GlasError, reason
from glas3d.hashing import bytes_sha256, file_sha256
from glas3d.imaging.scan import Scan, load_scan
from glas3d.imaging.space import VoxelGrid, grid_of
from glas3d.output import Writer, write_together
from glas3d.predict.bundle_config import MOST_BYTES, BundleConfig
from glas3d.predict.device import choose_device
from glas3d.predict.intensity import Intensities, Standardisation
from glas3d.predict.interface import Activation, ModelInfo
from glas3d.predict.predictor import Predictor
from glas3d.reading import parse_json, read_bytes

if TYPE_CHECKING:
    from glas3d.predict.preprocessing.preprocessing import Preprocessing

_MOST_CHANNELS = 1000
# How many values a network may have for each value of its weights: some networks replace layers while they are made.
_MOST_VALUES, _FEW_VALUES = 4, 10**6
PICKLE_SUFFIXES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".ts")


def read_bundle(
    folder: Path, activation: Activation | None, device: str | torch.device, *, trust: bool = False
) -> Predictor:
    """Return the predictor of a bundle; see `load_model`.

    Parameters
    ----------
    activation
        Used when the bundle states none.
    device
        See `Predictor`.
    trust
        Whether its configuration may run any code.

    Raises
    ------
    GlasError
        A file or an entry is missing, the configuration would run code, the weights are pickled, or the parts do not
        fit each other.
    """
    metadata = _Metadata.read(folder)
    weights = _weights_file(folder)
    config = BundleConfig.of(folder, metadata.content, trust=trust)
    stated = _stated_activation(metadata, config, activation)
    volumes = _Volumes.read(folder / "models", metadata.intensities)
    preprocessing = _preprocessing(config, volumes, metadata.image_key)
    if (inferer := config.inferer()) is not None and inferer.rsplit(".", 1)[-1] != "SimpleInferer":
        raise GlasError(
            f"a bundle must give its network the whole scan at once (SimpleInferer), {folder} states {inferer}"
        )
    state, weights_sha256 = _read_weights(weights)
    net = network_for(config, state)
    fit_weights(net, state, folder)
    channels, classes = metadata.channels, metadata.classes
    joined = () if preprocessing is None else preprocessing.channels
    if joined and channels not in (None, len(joined)):
        raise GlasError(
            f"num_channels in the metadata of {folder} is {channels}, and its preprocessing joins {len(joined)} "
            f"images, {', '.join(joined)}"
        )
    channels = len(joined) or channels
    n_outputs = metadata.n_outputs
    if stated == "sigmoid" and n_outputs == 1:  # one logit makes two columns
        n_outputs = 2
        classes = (f"not {classes[0]}", classes[0]) if classes is not None and len(classes) == 1 else classes
    chosen = choose_device(net, device)
    info = ModelInfo(
        name=metadata.content.get("name", folder.name),
        sha256=_digest(folder, {weights: weights_sha256}),
        channels=channels,
        channel_names=joined or None,
        grid=volumes.grid,
        reference=volumes.reference,
        preset=metadata.preset,
        skull_stripped=metadata.skull_stripped,
        resampling=None if preprocessing is None else preprocessing.resampling,
        preprocessing=() if preprocessing is None else preprocessing.names,
        value_range=metadata.value_range,
        from_file=True,
        caution=metadata.caution,
    )
    transform = volumes.standardisation or (preprocessing if preprocessing and preprocessing.steps else None)
    try:
        predict = Predictor(net.eval(), stated, transform, chosen, classes=classes, info=info)
        if volumes.grid is not None:
            _check_outputs(predict, channels or 1, volumes.grid, n_outputs)
    except GlasError as error:
        raise GlasError(f"the bundle {folder} does not fit its own description: {error}") from None
    return predict


@dataclass(frozen=True)
class _Metadata:
    """The content of a bundle's ``configs/metadata.json``, checked where it is read."""

    folder: Path
    content: dict[str, Any]
    own: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> _Metadata:
        path = folder / "configs" / "metadata.json"
        if not path.is_file():
            raise GlasError(
                f"a folder that is given as a model must be a MONAI bundle and must hold configs/metadata.json, "
                f"the folder {folder} has no such file"
            )
        text = read_bytes(path, "metadata", MOST_BYTES)
        try:
            content = parse_json(text)
        except ValueError as error:
            raise GlasError(f"{path} must be JSON: {reason(error)}") from None
        if not isinstance(content, dict):
            raise GlasError(f"{path} must hold a JSON object")
        return cls(folder, content, _object(content, "glas3d", folder))

    @property
    def channels(self) -> int | None:
        """Number of input channels, if it is stated."""
        channels = self._data_format("inputs", self.image_key).get("num_channels")
        if channels is None:
            return None
        name = f"num_channels in the metadata of {self.folder}"
        if whole_number(name, channels, least=1) > _MOST_CHANNELS:
            raise GlasError(f"{name} must be at most {_MOST_CHANNELS}, got {channels}")
        return int(channels)

    @property
    def n_outputs(self) -> int | None:
        """Number of outputs, if it is stated."""
        return self._data_format("outputs", "pred").get("num_channels")

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the outputs, if they are stated."""
        names = _object(self._data_format("outputs", "pred"), "channel_def", self.folder)
        if not all(key.isdecimal() for key in names):
            raise GlasError(
                f"channel_def in the metadata of {self.folder} must number the outputs, got {', '.join(names)}"
            )
        if sorted(map(int, names)) != list(range(len(names))):
            raise GlasError(
                f"channel_def in the metadata of {self.folder} must number the outputs from 0 on, "
                f"got {', '.join(names)}"
            )
        classes = tuple(str(names[key]) for key in sorted(names, key=int))
        refuse_formulas(f"the name of a class in the metadata of {self.folder}", classes)
        return classes or None

    @property
    def preset(self) -> dict[str, Any]:
        """Settings of `GLAS` that were chosen with the model; those of a name that `GLAS` does not have are kept."""
        preset = _object(self.own, "preset", self.folder)
        known = {setting.name for setting in fields(Settings)}
        try:
            Settings(**{name: value for name, value in preset.items() if name in known})
        except GlasError as error:
            raise GlasError(f"the preset in the metadata of {self.folder} cannot be used: {error}") from None
        return preset

    @property
    def skull_stripped(self) -> bool | None:
        """Whether scans must be of a brain alone, if it is stated."""
        value = self.own.get("skull_stripped")
        if value is not None and not isinstance(value, bool):
            raise GlasError(f"skull_stripped in the metadata of {self.folder} must be true or false, got {value!r}")
        return value

    @property
    def caution(self) -> str:
        """What every reader of results must know of the model; empty: nothing is stated."""
        value = self.own.get("caution", "")
        if not isinstance(value, str) or not value.isprintable():
            raise GlasError(f"caution in the metadata of {self.folder} must be a text of one line, got {value!r}")
        return value

    @property
    def intensities(self) -> Intensities:
        """Whether the standardisation scales a scan by its brightness first (relative), or not (absolute)."""
        value = self.own.get("intensities", "relative")
        if value not in ("relative", "absolute"):
            raise GlasError(
                f'intensities in the metadata of {self.folder} must be "relative" or "absolute", got {value!r}'
            )
        return "absolute" if value == "absolute" else "relative"

    @property
    def image_key(self) -> str:
        """What the configuration calls the scan: the name of the only input, else ``"image"``."""
        inputs = _object(_object(self.content, "network_data_format", self.folder), "inputs", self.folder)
        return next(iter(inputs)) if len(inputs) == 1 else "image"

    @property
    def value_range(self) -> tuple[float, float] | None:
        """Lowest and highest intensity that the network takes, if both are stated."""
        match self._data_format("inputs", self.image_key).get("value_range"):
            case [low, high] if is_number(low) and is_number(high) and low < high:
                return float(low), float(high)
        return None

    def _data_format(self, direction: str, name: str) -> dict[str, Any]:
        data_format = _object(self.content, "network_data_format", self.folder)
        return _object(_object(data_format, direction, self.folder), name, self.folder)


def _object(container: Mapping[str, Any], key: str, folder: Path) -> dict[str, Any]:
    """Return a JSON object within the metadata, empty if it is missing."""
    value = container.get(key, {})
    if not isinstance(value, dict):
        raise GlasError(f"{key} in the metadata of {folder} must be an object, got {type(value).__name__}")
    return value


def config_of(folder: Path, *, trust: bool = False) -> BundleConfig:
    """Return the configuration of a bundle.

    Parameters
    ----------
    trust
        Whether it may run any code.

    Raises
    ------
    GlasError
        The bundle does not describe its network.
    """
    return BundleConfig.of(folder, _Metadata.read(folder).content, trust=trust)


def network_for(config: BundleConfig, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Return the network that a bundle describes, with weights as they are made, if it is not far larger than its own.

    Parameters
    ----------
    config
        The configuration of the bundle.
    state
        The weights that the network will get; they are in memory already.

    Raises
    ------
    GlasError
        The network cannot be made, or has many times more values than its weights.
    """
    stored = sum(tensor.numel() for tensor in state.values())
    left = _MOST_VALUES * stored + _FEW_VALUES

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal left
        if parameter is not None and not nn.parameter.is_lazy(parameter):
            left -= parameter.numel()
        if left < 0:
            raise GlasError(f"a network must have as many values as its weights, {stored:,}, it has many times more")

    counting = nn.modules.module.register_module_parameter_registration_hook(count)
    try:
        return config.network()
    finally:
        counting.remove()


def save_weights(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a bundle's weights as safetensors."""
    # safetensors' own writer of files lets the owner alone read them
    path.write_bytes(save({key: value.contiguous() for key, value in state.items()}))


def _weights_file(folder: Path) -> Path:
    weights = folder / "models" / "model.safetensors"
    if not weights.is_file():
        pickled = sorted(p.name for p in folder.glob("models/*") if p.suffix in PICKLE_SUFFIXES)
        came = "the file does not exist"
        if pickled:
            convert = f"glas3d convert {folder / 'models' / pickled[0]} {folder}"
            came = f"it has {pickled[0]}, a pickle, which can run any code; {convert} takes its tensors"
        raise GlasError(f"a bundle must keep its weights in models/model.safetensors, {folder}: {came}")
    return weights


def _read_weights(weights: Path) -> tuple[dict[str, torch.Tensor], str]:
    """Return a bundle's weights, and the hash of the very bytes that they are from."""
    content = read_bytes(weights, "the weights of a bundle", None)
    try:
        return load(content), bytes_sha256([content])
    except SafetensorError as error:
        raise GlasError(f"{weights} is no safetensors file: {error}") from None


def fit_weights(net: nn.Module, state: Mapping[str, torch.Tensor], source: Path, owner: str = "its") -> None:
    """Give a bundle's network its weights.

    Parameters
    ----------
    source
        The bundle or file that the weights are from, for messages.
    owner
        Whose network it is, for messages.

    Raises
    ------
    GlasError
        The weights are not those of this network.
    """
    try:
        net.load_state_dict(dict(state))
    except RuntimeError as error:
        every_key = " ".join(str(error).split())[:200]
        raise GlasError(f"the weights of {source} do not fit {owner} network: {every_key}") from None


def _stated_activation(metadata: _Metadata, config: BundleConfig, given: Activation | None) -> Activation:
    """Return the activation that a bundle states in its metadata or its postprocessing, else the one that was given."""
    own: Activation | None = metadata.own.get("activation")
    try:
        stated = own or config.activation() or given
    except GlasError:  # what the postprocessing states cannot be read
        if given is None:
            raise
        stated = given
    if stated is None:
        raise GlasError(f"the bundle {config.folder} states no activation: give softmax, sigmoid or none")
    return stated


def _preprocessing(config: BundleConfig, volumes: _Volumes, key: str) -> Preprocessing | None:
    """Return what the bundle states of its scans' preprocessing, if it states any."""
    folder, declared = config.folder, config.preprocessing()
    if not declared:
        return None
    from glas3d.predict.preprocessing.preprocessing import Preprocessing  # imports MONAI

    try:
        preprocessing = Preprocessing.of(declared, key)
    except GlasError as error:
        raise GlasError(f"the preprocessing of the bundle {folder} cannot be used: {error}") from error
    if volumes.standardisation is not None:
        raise GlasError(
            f"a bundle must state its preprocessing once, {folder} has a preprocessing and models/mean.nii.gz"
        )
    if volumes.grid is not None and preprocessing.resampling is not None:
        raise GlasError(
            f"a bundle must state its voxel grid once, {folder} resamples by its preprocessing and has "
            "models/reference.nii.gz"
        )
    if volumes.reference is not None and not preprocessing.is_invertible:
        raise GlasError(
            f"the reference of the bundle {folder} cannot be brought to the units of a scan: its preprocessing, "
            f"{', '.join(preprocessing.names)}, cannot be undone"
        )
    return preprocessing


@dataclass(frozen=True)
class _Volumes:
    """The volumes of a bundle, as far as it has them."""

    reference: np.ndarray | None = None
    standardisation: Standardisation | None = None
    grid: VoxelGrid | None = None

    @classmethod
    def read(cls, folder: Path, intensities: Intensities) -> _Volumes:
        scans: dict[str, Scan] = {}
        for name in ("mean", "std", "reference"):
            path = folder / f"{name}.nii.gz"
            if path.is_file():
                scans[name] = load_scan(path, constant=True)
        if not scans:
            return cls()
        grids = [grid_of(scan) for scan in scans.values()]
        if not all(grid.same_as(grids[0]) for grid in grids):
            raise GlasError(f"the volumes in {folder} must share one grid")
        if ("mean" in scans) != ("std" in scans):
            raise GlasError(f"a standardisation needs mean.nii.gz and std.nii.gz, {folder} has one of them")
        standardisation = None
        if "mean" in scans:
            if not (scans["std"].data > 0).all():
                raise GlasError(f"standard deviations must be greater than 0, got others in {folder / 'std.nii.gz'}")
            mean, std = (torch.as_tensor(scans[name].data).unsqueeze(0) for name in ("mean", "std"))
            standardisation = Standardisation(mean, std, intensities)
        reference = scans["reference"].data[None] if "reference" in scans else None
        return cls(reference, standardisation, grids[0])


def _check_outputs(predict: Predictor, channels: int, grid: VoxelGrid, n_outputs: int | None) -> None:
    """Evaluate the model once, so that one that does not fit its own description is refused before the work starts."""
    blank = torch.ones((1, channels, *grid.shape))
    output = predict.fit(blank[0])(blank)
    if n_outputs is not None and output.shape[1] != n_outputs:
        raise GlasError(f"it promises {n_outputs} outputs, its network gives {output.shape[1]}")


def _digest(folder: Path, known: Mapping[Path, str]) -> str:
    """Return one hash over everything that decides a bundle's outputs; pickles next to its weights do not.

    Parameters
    ----------
    known
        Hashes of files that were read already.
    """
    found = (p for part in ("configs", "models") for p in (folder / part).rglob("*") if p.is_file())
    files = sorted(p for p in found if p.suffix not in PICKLE_SUFFIXES)
    return bytes_sha256(
        path.relative_to(folder).as_posix().encode() + b"\0" + bytes.fromhex(known.get(path) or file_sha256(path))
        for path in files
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class BundleDescription:
    """What a bundle states of its model, in addition to the network and its weights.

    Attributes
    ----------
    name, description, version
        Of the model, in words.
    classes
        Names of the outputs.
    grid
        The voxel grid of its scans.
    standardisation
        What its scans go through before the network.
    reference
        ``(1, *spatial)`` float32, the mean of the control group on the scale of scaled scans.
    preset
        Settings of `GLAS` that were chosen with the model.
    card
        The model card, Markdown.
    authors, copyright
        Whose model it is, and on what terms; MONAI requires both.
    skull_stripped
        Whether its scans are of a brain alone; None (default): not stated.
    caution
        What every reader of its results must know (see `ModelInfo`). Default: nothing.
    """

    name: str
    description: str
    version: str
    classes: Sequence[str]
    grid: VoxelGrid
    standardisation: Standardisation
    reference: np.ndarray
    preset: Mapping[str, Any]
    card: str
    authors: str = "not stated"
    copyright: str = "not stated"
    skull_stripped: bool | None = None
    caution: str = ""

    __repr__ = fields_repr

    def metadata(self) -> dict[str, Any]:
        """Return the content of ``configs/metadata.json``."""
        stated: dict[str, Any] = {} if self.skull_stripped is None else {"skull_stripped": self.skull_stripped}
        absolute = self.standardisation.intensities == "absolute"
        if absolute:
            stated["intensities"] = "absolute"
        if self.caution:
            stated["caution"] = self.caution
        return {
            "version": self.version,
            "name": self.name,
            "task": f"Classification of {'tissue maps' if absolute else 'T1w brain scans'}",
            "description": self.description,
            "authors": self.authors,
            "copyright": self.copyright,
            "network_data_format": {
                "inputs": {
                    "image": {
                        "type": "image",
                        "format": "magnitude",
                        "modality": "MR",
                        "num_channels": 1,
                        "spatial_shape": list(self.grid.shape),
                        "dtype": "float32",
                        "is_patch_data": False,
                    }
                },
                "outputs": {
                    "pred": {
                        "type": "probabilities",
                        "format": "classes",
                        "num_channels": len(self.classes),
                        "dtype": "float32",
                        "channel_def": {str(i): name for i, name in enumerate(self.classes)},
                    }
                },
            },
            "glas3d": {"activation": "softmax", "preset": dict(self.preset)} | stated,
        }


def write_bundle(folder: Path, net: nn.Module, network_def: Mapping[str, Any], description: BundleDescription) -> None:
    """Write a network that was trained on scans of one channel as a MONAI bundle (see `load_model`).

    Parameters
    ----------
    folder
        The folder to write; it is made if it does not exist.
    net
        The trained network.
    network_def
        ``_target_`` and the arguments that make the network again.
    description
        What the bundle states of the model.
    """

    def volume_writer(volume: Any) -> Writer:
        img = nib.Nifti1Image(np.asarray(volume[0], dtype=np.float32), description.grid.affine)
        img.header.set_xyzt_units("mm")
        return img.to_filename

    def text_writer(text: str) -> Writer:
        return lambda path: path.write_text(text, encoding="utf-8")

    contents = {"metadata": description.metadata(), "inference": {"network_def": dict(network_def)}}
    volumes = {
        "mean": description.standardisation.mean.numpy(),
        "std": description.standardisation.std.numpy(),
        "reference": description.reference,
    }
    files: dict[str, Writer] = {
        **{f"configs/{key}.json": text_writer(json.dumps(part, indent=2) + "\n") for key, part in contents.items()},
        "models/model.safetensors": partial(save_weights, net.state_dict()),
        **{f"models/{key}.nii.gz": volume_writer(volume) for key, volume in volumes.items()},
        "docs/README.md": text_writer(description.card),
    }
    write_together(folder, files)
