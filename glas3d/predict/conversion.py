"""Weights of a PyTorch checkpoint become the weights of a bundle, without running code that the checkpoint may hold."""

from __future__ import annotations

import io
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from glas3d.errors import GlasError, listed, reason
from glas3d.output import new_folder, write_together
from glas3d.predict.adapters.pt2_archive import plain_archive
from glas3d.predict.bundle import config_of, fit_weights, network_for, save_weights
from glas3d.reading import check_regular, read_bytes

_NAME = "model.safetensors"
_ARCHIVE = b"PK\x03\x04"  # by which torch knows that a file is an archive
# What wrappers put before the names of a network's weights (data-parallel training, torch.compile).
_PREFIXES = ("module.", "_orig_mod.")
# What a bundle consists of besides its weights.
_PARTS = ("configs", "docs", "LICENSE", "README.md")


@dataclass(frozen=True)
class ConvertedWeights:
    """What `convert_weights` wrote.

    Attributes
    ----------
    file
        The weights.
    n_tensors, n_values
        How many tensors they are, and of how many values.
    """

    file: Path
    n_tensors: int
    n_values: int


def convert_weights(
    weights: str | os.PathLike[str], bundle_dir: str | os.PathLike[str], *, overwrite: bool = False, trust: bool = False
) -> ConvertedWeights:
    """Write the state dict of a PyTorch checkpoint as the weights of a MONAI bundle, in the safetensors format.

    The checkpoint is read with ``weights_only=True``: tensors and numbers, and nothing that runs code. The weights are
    compared with the network that the bundle describes.

    Parameters
    ----------
    weights
        A file of ``torch.save``, such as ``models/model.pt``: a state dict, or a dictionary with one state dict in it.
    bundle_dir
        The bundle, a folder with ``configs/metadata.json`` and ``configs/inference.json``. A folder that does not exist
        is made, with configuration and documentation of the bundle that ``weights`` lies in.
    overwrite
        Replace weights that are there already.
    trust
        Whether the configuration of the bundle may run any code, see `load_model`.

    Raises
    ------
    GlasError
        The file is no state dict or holds more than tensors, the bundle does not describe its network, the weights are
        not those of this network, or there are weights already.
    """
    source, folder = Path(weights), Path(bundle_dir)
    check_regular(source, "weights")
    described = _describing_bundle(source, folder)
    if (folder / "models" / _NAME).exists() and not overwrite:
        raise GlasError(f"{folder / 'models' / _NAME} exists already: give --overwrite (overwrite=True) to replace it")
    state = _state_dict(source)
    net = network_for(config_of(described, trust=trust), state)
    state = _without_prefix(state, set(net.state_dict()))
    fit_weights(net, state, source, "the bundle's")
    if described == folder:
        write_together(folder / "models", {_NAME: lambda path: save_weights(state, path)})
    else:
        with new_folder(folder) as scratch:
            for part in (described / name for name in _PARTS):
                if part.is_dir():
                    shutil.copytree(part, scratch / part.name)
                elif part.is_file():
                    shutil.copy(part, scratch / part.name)
            (scratch / "models").mkdir()
            for volume in (described / "models").glob("*.nii.gz"):
                shutil.copy(volume, scratch / "models" / volume.name)
            save_weights(state, scratch / "models" / _NAME)
    return ConvertedWeights(folder / "models" / _NAME, len(state), sum(tensor.numel() for tensor in state.values()))


def _describing_bundle(source: Path, folder: Path) -> Path:
    """Return the folder whose configuration describes the network: the bundle, or for a new one that of the weights."""
    if (folder / "configs").is_dir() or (folder.is_dir() and any(folder.iterdir())):
        return folder
    own = source.resolve().parent.parent
    if not (own / "configs").is_dir():
        raise GlasError(
            f"a bundle must describe its network: {folder} has no configs/metadata.json and configs/inference.json, "
            f"and {source} does not lie in a bundle that has"
        )
    return own


def _state_dict(source: Path) -> dict[str, torch.Tensor]:
    """Return the only state dict that a checkpoint holds, dense and in memory of its own."""
    content = _content(source)
    found = {"": content} if _is_state_dict(content) else {}
    if not found and isinstance(content, Mapping):
        found = {str(name): value for name, value in content.items() if _is_state_dict(value)}
    if len(found) != 1:
        held = listed(content) if isinstance(content, Mapping) and content else type(content).__name__
        came = f"{len(found)} of them: {', '.join(found)}" if found else f"none, but {held}"
        raise GlasError(f"a checkpoint must hold one state dict, names and tensors, {source} holds {came}")
    (state,) = found.values()
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            kind = "without values" if tensor.is_meta else "quantised" if tensor.is_quantized else str(tensor.layout)
            raise GlasError(f"the weights of a bundle must be dense tensors, {name} of {source} is {kind}")
    return {str(name): tensor.detach().contiguous().clone() for name, tensor in state.items()}


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(v, torch.Tensor) for v in value.values())


def _content(source: Path) -> Any:
    """Return what a file of ``torch.save`` holds, if it is tensors, numbers and containers of them."""
    content = read_bytes(source, "weights", None)
    try:
        if content.startswith(_ARCHIVE):
            content = plain_archive(content, "weights", source)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about kinds of file that it refuses afterwards
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except GlasError:
        raise
    except Exception as error:  # whatever a damaged or foreign file makes of the reader
        text = str(error)
        if "TorchScript" in text:
            held = "it is a TorchScript archive: save the state dict of its network, torch.save(net.state_dict(), FILE)"
        elif "Weights only load failed" in text:
            held = "it holds more than tensors, and a pickle can run any code"
            code = re.search(r"(?:GLOBAL|class|function) ([\w.]+\.\w+)", text)
            held = f"it names {code[1]}, and a pickle can run any code" if code else held
        else:
            held = f"it cannot be read: {reason(error)}"
        raise GlasError(f"weights must be a state dict of torch.save, {source} is none: {held}") from error


def _without_prefix(state: dict[str, torch.Tensor], names: set[str]) -> dict[str, torch.Tensor]:
    """Return the state with the names that it has in the network, where a wrapper has put something before them."""
    for prefix in _PREFIXES:
        if not names & state.keys() and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state
