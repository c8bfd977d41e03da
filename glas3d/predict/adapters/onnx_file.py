"""Networks in ONNX files as predictors, run by ONNX Runtime."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from glas3d.errors import GlasError, reason
from glas3d.hashing import bytes_sha256, file_sha256
from glas3d.imaging.space import VoxelGrid
from glas3d.predict.adapters.exported import AllowedBatches, ExportedModel, predictor_of_file
from glas3d.predict.adapters.onnx_tensors import tensor_locations
from glas3d.predict.engine.builders import import_onnxruntime, onnx_session_options
from glas3d.predict.interface import Activation, FittedTransform, Transform
from glas3d.predict.predictor import Predictor
from glas3d.reading import file_access, read_bytes

# Where ONNX Runtime looks for tensors in other files, for a model that is given by its bytes, and how it reads these.
_FORMAT = ("session.load_model_format", "ONNX")
_FOLDER = "session.model_external_initializers_file_folder_path"
_FLOATS = ("tensor(float)", "tensor(double)", "tensor(float16)", "tensor(bfloat16)")


def from_onnx(
    path: str | os.PathLike[str],
    activation: Activation,
    *,
    transform: Transform | FittedTransform | None = None,
    device: str | torch.device = "auto",
    classes: Sequence[str] | None = None,
    grid: VoxelGrid | None = None,
    value_range: tuple[float, float] | None = None,
) -> Predictor:
    """Return a predictor of a network in an ONNX file, run by ONNX Runtime (``pip install "glas3d[onnx]"``).

    Parameters
    ----------
    path
        The ``.onnx`` file; one float32 input, the class scores are its first output.
    device
        ``"auto"``: CUDA where this ONNX Runtime has it, else the CPU, with as many threads as torch uses.
    activation, transform, classes
        See `Predictor`.
    grid
        The voxel grid that the model's scans must have, if it is known; scans are resampled to it.
    value_range
        Lowest and highest intensity that the network takes. Without it and without a transform, an explanation notes
        that the scale of the intensities is not known.

    Raises
    ------
    GlasError
        ONNX Runtime is missing, the file does not exist or is damaged, or takes not one float32 input.
    """
    try:
        onnxruntime = import_onnxruntime()
    except ImportError:
        raise GlasError('ONNX files need onnxruntime, which is missing: pip install "glas3d[onnx]"') from None
    read = partial(_read, device=device, onnxruntime=onnxruntime)
    return predictor_of_file(
        path, read, activation, transform=transform, classes=classes, grid=grid, value_range=value_range
    )


def _read(file: Path, device: str | torch.device, onnxruntime: Any) -> ExportedModel:
    kind = str(device).split(":")[0]
    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if kind not in ("auto", "cpu", "cuda") or (kind == "cuda" and not cuda):
        raise GlasError(f"device must be auto, cpu or, where ONNX Runtime has it, cuda for {file}, got {device!r}")
    providers = ["CUDAExecutionProvider"] if cuda and kind != "cpu" else []
    content = read_bytes(file, "a model", None)
    others = _tensor_files(content, file)
    before = _states(others)
    with file_access(file, "the tensors of a model"):
        digest = bytes_sha256([content, *(bytes.fromhex(file_sha256(other)) for other in others)])
    options = onnx_session_options()
    options.add_session_config_entry(*_FORMAT)
    options.add_session_config_entry(_FOLDER, os.path.realpath(file.parent))
    try:
        session = onnxruntime.InferenceSession(content, options, providers=[*providers, "CPUExecutionProvider"])
    except Exception as error:  # one class of its own for every kind of failure
        raise GlasError(f"{file} cannot be loaded as an ONNX model: {reason(error)}") from error
    if _states(others) != before:
        raise GlasError(f"a model must stay as it is while it is read, the tensors of {file} were changed")
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)":
        came = ", ".join(f"{i.name} {i.type}" for i in inputs) or "none"
        raise GlasError(f"an ONNX model must have one float32 input, tensor(float), {file} has {came}")
    if not outputs or not outputs[0].type.startswith("tensor("):
        raise GlasError(f"an ONNX model must give a tensor first, {file} gives {[o.type for o in outputs]}")
    if outputs[0].type not in _FLOATS:
        came = ", ".join(f"{o.name} {o.type}" for o in outputs)
        raise GlasError(f"the first output of an ONNX model must be the class scores, floats, {file} gives {came}")
    sizes = [n if isinstance(n, int) and n > 0 else None for n in inputs[0].shape]
    if not sizes:
        raise GlasError(f"an ONNX model must take a batch (n, c, *spatial), {file} takes a single number")
    batches = AllowedBatches(file.name, tuple(sizes[1:]), sizes[0] or 1, sizes[0])

    def first_output(batch: torch.Tensor) -> torch.Tensor:
        values = {inputs[0].name: batch.cpu().contiguous().numpy()}
        return torch.as_tensor(session.run([outputs[0].name], values)[0])

    def net(batch: torch.Tensor) -> torch.Tensor:
        return batches.evaluate(first_output, batch)

    return ExportedModel(net, batches, digest, torch.device("cpu"))


def _tensor_files(content: bytes, file: Path) -> list[Path]:
    """Return the files next to an ONNX file in which it stores tensors, sorted.

    Raises
    ------
    GlasError
        The file is damaged, or they would lie elsewhere, are links, or are missing.
    """
    try:
        names = tensor_locations(content)
    except ValueError as error:
        raise GlasError(f"{file} cannot be loaded as an ONNX model: {reason(error)}") from None
    folder, others = Path(os.path.realpath(file.parent)), []
    for name in sorted(names):
        # An asterisk is in the name by which ONNX Runtime reads a tensor from its own memory.
        if not name.isprintable() or {"", ".."} & set(name.split("/")) or re.search(r"[\\:*]", name):
            raise GlasError(f"an ONNX file must store its tensors next to it, {file} names {name[:80]!r}")
        other = folder / name
        if os.path.realpath(other) != str(other):
            raise GlasError(f"an ONNX file must store its tensors next to it, {name[:80]!r} of {file} is a link")
        if not os.path.isfile(other):
            raise GlasError(f"{file} stores tensors in {name[:80]!r}, which is not next to it")
        others.append(other)
    return others


def _states(files: Sequence[Path]) -> list[tuple[int, ...]]:
    """Return what changes when a file is written again."""
    states = [file.stat() for file in files]
    return [(state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns) for state in states]
