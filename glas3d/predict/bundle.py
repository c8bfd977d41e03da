"""Models on disk: MONAI bundle folders with safetensors weights.

Beside what MONAI asks for, a bundle of ours says in ``configs/metadata.json`` under ``glas3d`` how its
answers become probabilities and which settings were chosen with it, and may hold three NIfTI volumes
that fix its grid: ``models/mean.nii.gz`` and ``models/std.nii.gz`` (voxelwise standardisation) and
``models/reference.nii.gz`` (the control mean).
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.bundle.config_parser import ConfigParser
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from glas3d.checks import whole_number
from glas3d.errors import GlasError, reason
from glas3d.hashing import bytes_sha256, file_sha256
from glas3d.imaging.scan import Scan, load_scan
from glas3d.imaging.space import VoxelGrid, grid_of
from glas3d.predict.adapters.onnx_file import from_onnx
from glas3d.predict.adapters.pt2 import from_pt2
from glas3d.predict.intensity import Standardisation
from glas3d.predict.interface import Activation, ModelInfo
from glas3d.predict.predictor import Predictor
from glas3d.resources import folder, names

_EXPORTED = {".pt2": from_pt2, ".onnx": from_onnx}
_PICKLED = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".ts")


def load_model(
    model: str | os.PathLike[str],
    *,
    activation: Activation | None = None,
    device: str | torch.device = "auto",
) -> Predictor:
    """A model ready to be asked.

    Parameters
    ----------
    model
        The name of a shipped model, the path of a MONAI bundle folder, of a ``.pt2`` file of torch.export or of
        an ``.onnx`` file, or ``package.module:factory``, a function without arguments that returns a
        `Predictor`. Loading a bundle or a factory runs what its configuration names: load only what you trust.
    activation
        For bundles that do not state one, and for exported files, which never do.

    Raises
    ------
    GlasError
        No such model, a bundle that lacks something, pickled weights, weights that do not fit, or an exported
        file that cannot be used or comes without an activation.
    """
    text = os.fspath(model)
    path = Path(text)
    if text in names("models"):
        return _load_bundle(folder("models", text), activation, device)
    if path.is_dir():
        return _load_bundle(path, activation, device)
    if path.suffix in _EXPORTED:
        if not path.is_file():
            raise GlasError(f"no such file: {path}")
        if activation is None:
            raise GlasError(f"the file {path} states no activation: give softmax, sigmoid or none")
        return _EXPORTED[path.suffix](path, activation, device=device)
    if path.suffix in _PICKLED and path.exists():
        raise GlasError(
            f"a model must be a MONAI bundle folder with safetensors weights, {path} is a pickle: it can run any code"
        )
    if ":" in text and not path.exists():
        return _load_factory(text)
    known = ", ".join(names("models")) or "none"
    raise GlasError(
        f"a model must be a shipped name ({known}), a MONAI bundle folder or a .pt2 or .onnx file "
        f"or package.module:factory, got {text}"
    )


def _load_factory(spec: str) -> Predictor:
    module_name, _, attribute = spec.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise GlasError(f"no model factory {spec}: {error}") from None
    made = factory() if callable(factory) else None
    if not isinstance(made, Predictor):
        raise GlasError(f"a model factory must return a Predictor, {spec} returned {type(made).__name__}")
    return made


def _load_bundle(place: Path, activation: Activation | None, device: str | torch.device) -> Predictor:
    metadata = _json(place / "configs" / "metadata.json")
    weights = place / "models" / "model.safetensors"
    if not weights.is_file():
        pickled = sorted(p.name for p in place.glob("models/*") if p.suffix in _PICKLED)
        came = f"it has {pickled[0]}, a pickle, which can run any code" if pickled else "there is none"
        raise GlasError(f"a bundle must keep its weights in models/model.safetensors, {place}: {came}")
    own = _object(metadata, "glas3d", place)
    stated = own.get("activation") or activation
    if stated is None:
        raise GlasError(f"the bundle {place} states no activation: give softmax, sigmoid or none")
    net = _network(place)
    try:
        net.load_state_dict(load_file(weights))
    except SafetensorError as error:
        raise GlasError(f"{weights} is no safetensors file: {error}") from None
    except RuntimeError as error:
        every_key = " ".join(str(error).split())[:200]
        raise GlasError(f"the weights of {place} do not fit its network: {every_key}") from None
    data_format = _object(metadata, "network_data_format", place)
    channels = _object(_object(data_format, "inputs", place), "image", place).get("num_channels")
    if channels is not None:
        channels = whole_number(f"num_channels in the metadata of {place}", channels, least=1)
    outputs = _object(_object(data_format, "outputs", place), "pred", place)
    definition = _object(outputs, "channel_def", place)
    if not all(key.isdecimal() for key in definition):
        raise GlasError(f"channel_def in the metadata of {place} must number the outputs, got {', '.join(definition)}")
    classes = tuple(str(definition[key]) for key in sorted(definition, key=int)) or None
    reference, transform, grid = _volumes(place)
    info = ModelInfo(
        name=metadata.get("name", place.name),
        sha256=_digest(place),
        channels=channels,
        grid=grid,
        reference=reference,
        preset=_object(own, "preset", place),
    )
    try:
        predictor = Predictor(net.eval(), stated, transform, device, classes=classes, info=info)
        if grid is not None:
            _try(predictor, channels or 1, grid, outputs.get("num_channels"))
    except GlasError as error:
        raise GlasError(f"the bundle {place} does not fit its own description: {error}") from None
    return predictor


def _network(place: Path) -> nn.Module:
    configs = [p for p in (place / "configs" / f"inference.{end}" for end in ("json", "yaml", "yml")) if p.is_file()]
    if not configs:
        raise GlasError(f"a bundle must describe its network in configs/inference.json, {place} has none")
    try:
        parser = ConfigParser()
        parser.read_config(str(configs[0]))
        net = parser.get_parsed_content("network_def")
    except Exception as error:  # the configuration may run anything, so it may raise anything
        raise GlasError(f"the network_def of {configs[0]} cannot be made: {reason(error)}") from error
    if not isinstance(net, nn.Module):
        raise GlasError(f"the network_def of {configs[0]} must be a torch module, it is a {type(net).__name__}")
    return net


def _volumes(place: Path) -> tuple[np.ndarray | None, Standardisation | None, VoxelGrid | None]:
    found: dict[str, Scan] = {}
    for name in ("mean", "std", "reference"):
        path = place / "models" / f"{name}.nii.gz"
        if path.is_file():
            found[name] = load_scan(path, constant=True)
    if not found:
        return None, None, None
    grids = [grid_of(scan) for scan in found.values()]
    if not all(grid.same_as(grids[0]) for grid in grids):
        raise GlasError(f"the volumes in {place / 'models'} must share one grid")
    if ("mean" in found) != ("std" in found):
        raise GlasError(f"a standardisation needs mean.nii.gz and std.nii.gz, {place / 'models'} has one of them")
    transform = None
    if "std" in found and not (found["std"].data > 0).all():
        raise GlasError(f"standard deviations must be greater than 0, got others in {place / 'models' / 'std.nii.gz'}")
    if "mean" in found:
        mean, std = (torch.as_tensor(found[name].data).unsqueeze(0) for name in ("mean", "std"))
        transform = Standardisation(mean, std)
    reference = found["reference"].data[None] if "reference" in found else None
    return reference, transform, grids[0]


def _try(predictor: Predictor, channels: int, grid: VoxelGrid, outputs: int | None) -> None:
    """One forward, so that a model that does not fit its own description is refused before the work starts."""
    blank = torch.ones((1, channels, *grid.shape))
    answer = predictor.fit(blank[0])(blank)
    if outputs is not None and answer.shape[1] != outputs:
        raise GlasError(f"it promises {outputs} outputs, its network gives {answer.shape[1]}")
    if predictor.classes is not None and answer.shape[1] != len(predictor.classes):
        raise GlasError(f"it names {len(predictor.classes)} classes, its network gives {answer.shape[1]}")


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise GlasError(f"a MONAI bundle must hold {path.parent.name}/{path.name}, {path.parent.parent} does not")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise GlasError(f"{path} must be JSON: {error}") from None
    if not isinstance(content, dict):
        raise GlasError(f"{path} must hold a JSON object")
    return content


def _object(container: Mapping[str, Any], key: str, place: Path) -> dict[str, Any]:
    """A JSON object within the metadata; empty when it is not there."""
    value = container.get(key, {})
    if not isinstance(value, dict):
        raise GlasError(f"{key} in the metadata of {place} must be an object, got {type(value).__name__}")
    return value


def _digest(place: Path) -> str:
    """One hash over everything that decides a bundle's answers."""
    files = sorted(p for part in ("configs", "models") for p in (place / part).rglob("*") if p.is_file())
    return bytes_sha256(
        path.relative_to(place).as_posix().encode() + b"\0" + bytes.fromhex(file_sha256(path)) for path in files
    )


def write_bundle(
    place: Path,
    net: nn.Module,
    network_def: Mapping[str, Any],
    *,
    name: str,
    description: str,
    version: str,
    classes: Sequence[str],
    grid: VoxelGrid,
    standardisation: Standardisation,
    reference: np.ndarray,
    preset: Mapping[str, Any],
    card: str,
    authors: str = "not stated",
    copyright: str = "not stated",
) -> None:
    """Write a network trained on scans of one channel as a MONAI bundle (see `load_model`).

    Parameters
    ----------
    place
        Folder to make.
    network_def
        ``_target_`` and arguments that make the network again.
    reference
        ``(1, *spatial)`` control mean on the scale of scaled scans.
    card
        The model card, Markdown.
    authors, copyright
        Whose model it is, and on what terms; MONAI asks for both.
    """
    for part in ("configs", "models", "docs"):
        (place / part).mkdir(parents=True, exist_ok=True)
    metadata = {
        "version": version,
        "name": name,
        "task": "Classification of T1w brain scans",
        "description": description,
        "authors": authors,
        "copyright": copyright,
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "modality": "MR",
                    "num_channels": 1,
                    "spatial_shape": list(grid.shape),
                    "dtype": "float32",
                    "is_patch_data": False,
                }
            },
            "outputs": {
                "pred": {
                    "type": "probabilities",
                    "format": "classes",
                    "num_channels": len(classes),
                    "dtype": "float32",
                    "channel_def": {str(i): c for i, c in enumerate(classes)},
                }
            },
        },
        "glas3d": {"activation": "softmax", "preset": dict(preset)},
    }
    _write_json(place / "configs" / "metadata.json", metadata)
    _write_json(place / "configs" / "inference.json", {"network_def": dict(network_def)})
    state = {key: value.contiguous() for key, value in net.state_dict().items()}
    save_file(state, place / "models" / "model.safetensors")
    (place / "models" / "model.safetensors").chmod(0o644)  # it comes readable by its owner alone
    volumes = {
        "mean": standardisation.mean.numpy(),
        "std": standardisation.std.numpy(),
        "reference": reference,
    }
    for key, volume in volumes.items():
        img = nib.Nifti1Image(np.asarray(volume[0], dtype=np.float32), grid.affine)
        img.header.set_xyzt_units("mm")
        nib.save(img, place / "models" / f"{key}.nii.gz")
    (place / "docs" / "README.md").write_text(card, encoding="utf-8")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
