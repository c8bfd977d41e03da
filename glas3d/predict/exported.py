"""Models in exported files: torch.export's ``.pt2``, and ONNX through ONNX Runtime."""

from __future__ import annotations

import copy
import io
import json
import logging
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import fx, nn

from glas3d.errors import GlasError, reason
from glas3d.hashing import bytes_sha256, file_sha256
from glas3d.imaging.space import VoxelGrid
from glas3d.predict.adapters import asking, rows
from glas3d.predict.engine.builders import session_options
from glas3d.predict.predictor import Activation, FittedTransform, ModelInfo, Predictor, Transform

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
# Members of a .pt2 that are pickles in other clothes, or compiled code.
_CODE = re.compile(r"(^|/)(custom_obj_|opaque_obj_|serialized_(state_dict|constants)\.json$)|/aotinductor/")
# The protobuf entry "location" of a tensor kept beside its ONNX file: key, then a length of one or two bytes.
_LOCATION = re.compile(rb"\x0a\x08location\x12(?:([\x01-\x7f])|([\x80-\xff])([\x01-\x7f]))")


def from_pt2(
    path: str | os.PathLike[str],
    activation: Activation,
    *,
    transform: Transform | FittedTransform | None = None,
    device: str | torch.device = "auto",
    classes: Sequence[str] | None = None,
    grid: VoxelGrid | None = None,
) -> Predictor:
    """A network saved by ``torch.export.save``.

    A batch size or shape that is fixed in the file is read from it: batches are cut and padded to it.

    Parameters
    ----------
    path
        The ``.pt2`` file; one input, the class scores are its first output. Files that hold pickles or
        compiled code are refused; load only what you trust all the same.
    activation, transform, device, classes
        See `Predictor`.
    grid
        The grid its scans must be on, when it is known; scans are resampled to it.

    Raises
    ------
    GlasError
        No such file, not from ``torch.export``, not one input, or exported in training mode.
    """
    place = _file(path)
    _refuse_code(place)
    chatter = logging.getLogger("torch.export")  # it logs a traceback of what it raises again
    before, chatter.disabled = chatter.disabled, True
    try:
        program = torch.export.load(place)
    except Exception as error:  # a damaged archive may fail anywhere in the reader
        raise GlasError(f"{place} cannot be loaded as a torch.export file: {reason(error)}") from error
    finally:
        chatter.disabled = before
    where = Predictor(nn.Identity(), "none", device=device).device
    if where.type != "cpu" or any(t.device != where for t in program.state_dict.values()):
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, str(where))
    signature = program.graph_signature
    inputs = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in signature.user_inputs]
    if len(inputs) != 1 or not isinstance(inputs[0].meta.get("val"), torch.Tensor):
        raise GlasError(f"a model must take one tensor, {place} takes {len(inputs)} inputs")
    for node in program.graph.nodes:
        position = _TRAINING.get(str(node.target).removeprefix("aten.").split(".")[0])
        if node.op == "call_function" and position is not None and node.args[position : position + 1] == (True,):
            raise GlasError(f"{place} was exported in training mode: call eval() before torch.export.export")
    value = inputs[0].meta["val"]
    sizes = [n if isinstance(n, int) else None for n in value.shape]
    low = high = sizes[0]
    limits = None if low is not None else program.range_constraints.get(value.shape[0].node.expr)
    if limits is not None:
        low = int(limits.lower)
        high = int(limits.upper) if limits.upper < 2**31 else None
    allowed = _Sizes(place.name, tuple(sizes[1:]), low or 1, high)
    net = Exported(_First(program.module(), value.dtype), allowed)
    return _predictor(net, allowed, place, file_sha256(place), activation, transform, where, classes, grid)


def from_onnx(
    path: str | os.PathLike[str],
    activation: Activation,
    *,
    transform: Transform | FittedTransform | None = None,
    device: str | torch.device = "auto",
    classes: Sequence[str] | None = None,
    grid: VoxelGrid | None = None,
) -> Predictor:
    """A network in an ONNX file, run by ONNX Runtime (``pip install "glas3d[onnx]"``).

    Parameters
    ----------
    path
        The ``.onnx`` file; one float32 input, the class scores are its first output.
    device
        ``"auto"``: CUDA where this ONNX Runtime has it, else the CPU, with as many threads as torch uses.
    activation, transform, classes
        See `Predictor`.
    grid
        The grid its scans must be on, when it is known; scans are resampled to it.

    Raises
    ------
    GlasError
        ONNX Runtime is missing, no such file, a broken one, or not one float32 input.
    """
    try:
        import onnxruntime
    except ImportError:
        raise GlasError('ONNX files need onnxruntime, which is missing: pip install "glas3d[onnx]"') from None
    place = _file(path)
    wanted = str(device).split(":")[0]
    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if wanted not in ("auto", "cpu", "cuda") or (wanted == "cuda" and not cuda):
        raise GlasError(f"device must be auto, cpu or, where ONNX Runtime has it, cuda for {place}, got {device!r}")
    providers = ["CUDAExecutionProvider"] if cuda and wanted != "cpu" else []
    try:
        session = onnxruntime.InferenceSession(place, session_options(), providers=[*providers, "CPUExecutionProvider"])
    except Exception as error:  # one class of its own for every kind of failure
        raise GlasError(f"{place} cannot be loaded as an ONNX model: {reason(error)}") from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)":
        came = ", ".join(f"{i.name} {i.type}" for i in inputs) or "none"
        raise GlasError(f"an ONNX model must have one float32 input, tensor(float), {place} has {came}")
    if not outputs or not outputs[0].type.startswith("tensor("):
        raise GlasError(f"an ONNX model must give a tensor first, {place} gives {[o.type for o in outputs]}")
    sizes = [n if isinstance(n, int) and n > 0 else None for n in inputs[0].shape]
    if not sizes:
        raise GlasError(f"an ONNX model must take a batch (n, c, *spatial), {place} takes a single number")

    def run(batch: torch.Tensor) -> torch.Tensor:
        fed = {inputs[0].name: batch.cpu().contiguous().numpy()}
        return torch.as_tensor(session.run([outputs[0].name], fed)[0])

    allowed = _Sizes(place.name, tuple(sizes[1:]), sizes[0] or 1, sizes[0])

    def net(batch: torch.Tensor) -> torch.Tensor:
        return allowed.ask(run, batch)

    return _predictor(net, allowed, place, _onnx_sha256(place), activation, transform, "cpu", classes, grid)


@dataclass(frozen=True)
class _Sizes:
    """The batches that an exported file allows.

    Attributes
    ----------
    name
        For messages.
    takes
        ``(c, *spatial)`` of an input, None where the file leaves it free.
    low, high
        Smallest and largest batch; None: any.
    """

    name: str
    takes: tuple[int | None, ...]
    low: int
    high: int | None

    def ask(self, run: Callable[[torch.Tensor], Any], batch: torch.Tensor) -> torch.Tensor:
        """``(n, c, *spatial)`` to ``(n, k)``; a short batch is filled up with its last input."""
        came = tuple(batch.shape[1:])
        if len(came) != len(self.takes) or any(n not in (None, m) for n, m in zip(self.takes, came, strict=True)):
            shape = ", ".join("any" if n is None else str(n) for n in self.takes)
            raise GlasError(f"the model {self.name} takes inputs of (channels, *spatial) ({shape}), got {came}")
        answers = []
        for part in torch.split(batch, self.high or len(batch)):
            missing = self.low - len(part)
            whole = part if missing <= 0 else torch.cat([part, part[-1:].expand(missing, *came)])
            with asking(self.name, whole):
                answers.append(rows(run(whole), whole, self.name)[: len(part)])
        return torch.cat(answers)


class _First(nn.Module):
    """The first output of a graph, given what it takes."""

    def __init__(self, graph: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.graph, self.dtype = graph, dtype

    def forward(self, batch: torch.Tensor) -> Any:
        answer = self.graph(batch.to(self.dtype))
        return answer[0] if isinstance(answer, tuple | list) else answer


class Exported(nn.Module):
    """A network saved by ``torch.export.save``, in batches of the sizes its file allows."""

    def __init__(self, net: _First, sizes: _Sizes) -> None:
        super().__init__()
        self.net, self.sizes = net, sizes

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """As `_Sizes.ask`."""
        return self.sizes.ask(self.net, batch)

    def steps(self, shape: Sequence[int]) -> nn.Module | None:
        """The graph without the checks of its inputs' sizes.

        Parameters
        ----------
        shape
            ``(c, *spatial)`` of an input.

        Returns
        -------
        What takes any batch of them; None where the batch it was exported with is part of its steps.
        """
        checked: Any = self.net.graph
        graph = _copied(checked.graph)
        for node in graph.find_nodes(op="call_module", target="_guards_fn"):
            graph.erase_node(node)
        steps = _First(fx.GraphModule(checked, graph), self.net.dtype)  # whose hooks check too
        shadow = _copied(steps).to("meta")  # where nothing is computed
        try:
            takes = all(len(shadow(torch.empty((n, *shape), device="meta"))) == n for n in (3, 5))
        except Exception:  # each operation has its own
            takes = False
        return steps if takes else None


def _copied(what: _Copied) -> _Copied:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's, of its own code
        return copy.deepcopy(what)


def _predictor(
    net: nn.Module | Callable[[torch.Tensor], Any],
    sizes: _Sizes,
    place: Path,
    sha256: str,
    activation: Activation,
    transform: Transform | FittedTransform | None,
    device: str | torch.device,
    classes: Sequence[str] | None,
    grid: VoxelGrid | None,
) -> Predictor:
    channels, *spatial = sizes.takes
    if grid is not None and any(n not in (None, m) for n, m in zip(spatial, grid.shape, strict=False)):
        raise GlasError(f"the model {place} takes scans of {tuple(spatial)} voxels, the grid given has {grid.shape}")
    info = ModelInfo(name=place.name, sha256=sha256, channels=channels, grid=grid)
    return Predictor(net, activation, transform, device, classes=classes, info=info)


def _file(path: str | os.PathLike[str]) -> Path:
    place = Path(path)
    if not place.is_file():
        raise GlasError(f"no such file: {place}")
    return place


def _refuse_code(place: Path) -> None:
    """``torch.export.load`` falls back on unpickling, which can run any code: look before it does."""
    try:
        with zipfile.ZipFile(place) as archive:
            members = archive.namelist()
            if not any(n.endswith(("archive_format", "serialized_exported_program.json")) for n in members):
                raise GlasError(f"a .pt2 must be a file of torch.export.save, {place} is another archive")
            for member in members:
                harmless = _CODE.search(member) is None
                if member.endswith("_config.json"):
                    entries = json.loads(archive.read(member))["config"].values()
                    harmless = not any(e.get("use_pickle") or _CODE.search(e["path_name"]) for e in entries)
                elif member.endswith(".pt"):
                    try:
                        torch.load(io.BytesIO(archive.read(member)), weights_only=True)
                    except Exception:  # whatever it is, it is no plain tensors
                        harmless = False
                if not harmless:
                    raise GlasError(f"{place} holds more than tensors, {member}: it can run any code")
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, GlasError):
            raise
        raise GlasError(f"{place} cannot be loaded as a torch.export file: {reason(error)}") from error


def _onnx_sha256(place: Path) -> str:
    """Of the file's bytes and, where it keeps tensors beside it, of those files too."""
    content = place.read_bytes()
    beside = set()
    for found in _LOCATION.finditer(content):
        short, low, high = found.groups()
        length = short[0] if short else (low[0] & 0x7F) + (high[0] << 7)
        other = place.parent / content[found.end() : found.end() + length].decode(errors="replace")
        if other.is_file():
            beside.add(other)
    return bytes_sha256([content, *(bytes.fromhex(file_sha256(other)) for other in sorted(beside))])
