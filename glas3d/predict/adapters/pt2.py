"""Networks in ``.pt2`` files of ``torch.export`` as predictors."""

from __future__ import annotations

import copy
import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import fx, nn

from glas3d.errors import GlasError, reason
from glas3d.hashing import bytes_sha256
from glas3d.imaging.space import VoxelGrid
from glas3d.predict.adapters.exported import AllowedBatches, ExportedModel, predictor_of_file
from glas3d.predict.adapters.pt2_archive import checked_archive
from glas3d.predict.device import choose_device
from glas3d.predict.interface import Activation, FittedTransform, Transform
from glas3d.predict.predictor import Predictor
from glas3d.reading import read_bytes

_Copied = TypeVar("_Copied")

# What an exported graph holds when it was made in training mode: the operation, and which argument says so.
_TRAINING = {
    "dropout": 2,
    "native_dropout": 2,
    "feature_dropout": 2,
    "alpha_dropout": 2,
    "batch_norm": 5,
    "_native_batch_norm_legit": 5,
    "_native_batch_norm_legit_functional": 5,
}


def from_pt2(
    path: str | os.PathLike[str],
    activation: Activation,
    *,
    transform: Transform | FittedTransform | None = None,
    device: str | torch.device = "auto",
    classes: Sequence[str] | None = None,
    grid: VoxelGrid | None = None,
    value_range: tuple[float, float] | None = None,
) -> Predictor:
    """Return a predictor of a network that was saved by ``torch.export.save``.

    A batch size or shape that is fixed in the file is read from it: batches are split and filled up to it.

    Parameters
    ----------
    path
        The ``.pt2`` file; one input, the class scores are its first output. A file that holds more than tensors and
        steps that compute with them, such as pickles, compiled code or calls of other functions, is refused.
    activation, transform, device, classes
        See `Predictor`.
    grid
        The voxel grid that the model's scans must have, if it is known; scans are resampled to it.
    value_range
        Lowest and highest intensity that the network takes. Without it and without a transform, an explanation notes
        that the scale of the intensities is not known.

    Raises
    ------
    GlasError
        The file does not exist, is not from ``torch.export``, takes not one input, or was exported in training mode.
    """
    read = partial(_read, device=device)
    return predictor_of_file(
        path, read, activation, transform=transform, classes=classes, grid=grid, value_range=value_range
    )


class Pt2Network(nn.Module):
    """A network saved by ``torch.export.save``, in batches of the sizes that its file allows."""

    def __init__(self, net: _FirstOutputOfGraph, batches: AllowedBatches) -> None:
        super().__init__()
        self.net, self.batches = net, batches

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the network's first output; see `AllowedBatches.evaluate`."""
        return self.batches.evaluate(self.net, batch)

    def steps_for_any_batch(self, shape: Sequence[int]) -> nn.Module | None:
        """Return the graph without the checks of its inputs' sizes.

        Parameters
        ----------
        shape
            ``(c, *spatial)`` of an input.

        Returns
        -------
        A module that takes any number of inputs; None where the batch size it was exported with is part of its steps.
        """
        checked: Any = self.net.graph
        graph = _copied(checked.graph)
        for node in graph.find_nodes(op="call_module", target="_guards_fn"):
            graph.erase_node(node)
        steps = _FirstOutputOfGraph(fx.GraphModule(checked, graph), self.net.dtype)  # whose hooks check too
        shadow = _copied(steps).to("meta")  # where nothing is computed
        try:
            any_batch = all(len(shadow(torch.empty((n, *shape), device="meta"))) == n for n in (3, 5))
        except Exception:  # each operation has its own
            any_batch = False
        return steps if any_batch else None


class _FirstOutputOfGraph(nn.Module):
    """The first output of a graph, its input converted to the type that it takes."""

    def __init__(self, graph: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.graph, self.dtype = graph, dtype

    def forward(self, batch: torch.Tensor) -> Any:
        output = self.graph(batch.to(self.dtype))
        return output[0] if isinstance(output, tuple | list) else output


def _read(file: Path, device: str | torch.device) -> ExportedModel:
    content = read_bytes(file, "a model", None)
    checked = checked_archive(content, str(file))
    try:
        with _quiet("torch.export"):  # it logs a traceback of what it raises again
            program = torch.export.load(io.BytesIO(checked))
    except Exception as error:  # a damaged archive may fail anywhere in the reader
        raise GlasError(f"{file} cannot be loaded as a torch.export file: {reason(error)}") from error
    chosen = choose_device(nn.Identity(), device)
    if chosen.type != "cpu" or any(t.device != chosen for t in program.state_dict.values()):
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, str(chosen))
    value = _input_of(program, file)
    _refuse_training_mode(program, file)
    batches = _allowed_batches(program, value, file.name)
    net = Pt2Network(_FirstOutputOfGraph(program.module(), value.dtype), batches)
    return ExportedModel(net, batches, bytes_sha256([content]), chosen)


def _input_of(program: torch.export.ExportedProgram, file: Path) -> torch.Tensor:
    """Return the example of the one tensor that a program takes."""
    names = program.graph_signature.user_inputs
    inputs = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in names]
    value = inputs[0].meta.get("val") if len(inputs) == 1 else None
    if not isinstance(value, torch.Tensor):
        raise GlasError(f"a model must take one tensor, {file} takes {len(inputs)} inputs")
    return value


def _allowed_batches(program: torch.export.ExportedProgram, value: torch.Tensor, name: str) -> AllowedBatches:
    shape: Sequence[Any] = value.shape  # numbers, and symbols for sizes that the file leaves open
    sizes = [n if isinstance(n, int) else None for n in shape]
    smallest = largest = sizes[0]
    limits = None if smallest is not None else program.range_constraints.get(shape[0].node.expr)
    if limits is not None:
        smallest = int(limits.lower)
        largest = int(limits.upper) if limits.upper < 2**31 else None
    return AllowedBatches(name, tuple(sizes[1:]), smallest or 1, largest)


def _refuse_training_mode(program: torch.export.ExportedProgram, file: Path) -> None:
    for node in program.graph.nodes:
        position = _TRAINING.get(str(node.target).removeprefix("aten.").split(".")[0])
        if node.op == "call_function" and position is not None and node.args[position : position + 1] == (True,):
            raise GlasError(f"{file} was exported in training mode: call eval() before torch.export.export")


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    noisy = logging.getLogger(logger)
    before, noisy.disabled = noisy.disabled, True
    try:
        yield
    finally:
        noisy.disabled = before


def _copied(original: _Copied) -> _Copied:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's, about its own code
        return copy.deepcopy(original)
