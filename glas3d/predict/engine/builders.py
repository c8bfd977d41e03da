"""The engines: each makes something from a network that answers as it does, in less time."""

from __future__ import annotations

import copy
import importlib.metadata
import io
import logging
import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from glas3d.hashing import bytes_sha256
from glas3d.predict.engine.build_cache import Stored

Inputs = tuple[torch.Tensor, ...]
Run = Callable[..., torch.Tensor]

# Probabilities may be this far from those of the network itself, unless an engine says otherwise.
TOLERANCE = 1e-4
# Values of a tensor that its fingerprint holds.
_SAMPLED = 4096


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What can run a network.

    Attributes
    ----------
    name
        As it is asked for.
    build
        ``(net, inputs, stored)`` to what takes inputs of these shapes and answers as the network, in eval mode;
        ``stored`` keeps what was built, where the library can.
    devices
        Kinds of device it runs on.
    library, extra
        The distribution that must be installed, and our extra that brings it.
    base, each
        Seconds that building is expected to take: ``base + each * modules``, roughly (docs/engines.md).
    tolerance
        How far its probabilities may be from those of the network itself.
    own_threads
        Whether its library has threads of its own: torch's, which wait busily for more work, then stand in their way.
    """

    name: str
    build: Callable[[nn.Module, Inputs, Stored | None], Run]
    devices: tuple[str, ...]
    library: str = "torch"
    extra: str | None = None
    base: float = 0.1
    each: float = 0.0
    tolerance: float = TOLERANCE
    own_threads: bool = False

    @property
    def version(self) -> str | None:
        """Of its library; None where it is not installed."""
        try:
            return importlib.metadata.version(self.library).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            return None

    def seconds(self, net: nn.Module) -> float:
        """How long building is expected to take."""
        return self.base + self.each * sum(1 for _ in net.modules())


def own_copy(net: nn.Module) -> nn.Module:
    """A network of its own in eval mode: what is made from it outlives changes to the one given."""
    return copy.deepcopy(net).eval().requires_grad_(False)


def _eager(net: nn.Module, inputs: Inputs, stored: Stored | None) -> Run:
    return net


def _channels_last(net: nn.Module, inputs: Inputs, stored: Stored | None) -> Run:
    """The network with the channels of a voxel side by side, as the fastest convolutions want them."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    made = own_copy(net)
    for tensor in [*made.parameters(), *made.buffers()]:
        if tensor.ndim in formats:
            tensor.data = tensor.data.contiguous(memory_format=formats[tensor.ndim])

    def run(*given: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = made(
            *(x.contiguous(memory_format=formats[x.ndim]) if x.ndim in formats else x for x in given)
        )
        return answer

    return run


def _compile(net: nn.Module, inputs: Inputs, stored: Stored | None) -> Run:
    made = torch.compile(own_copy(net), dynamic=False)
    with torch.inference_mode():  # as it will be asked: else it would be compiled once more
        made(*inputs)
    run: Run = made
    return run


def _cudagraphs(net: nn.Module, inputs: Inputs, stored: Stored | None) -> Run:
    """Every kernel of a forward recorded once and started together."""
    made, place = own_copy(net), tuple(x.clone() for x in inputs)
    with torch.inference_mode():
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                made(*place)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            answer = made(*place)

    def run(*given: torch.Tensor) -> torch.Tensor:
        for to, x in zip(place, given, strict=True):
            to.copy_(x)
        graph.replay()
        found: torch.Tensor = answer.clone()
        return found

    return run


def _autocast(net: nn.Module, inputs: Inputs, stored: Stored | None) -> Run:
    """In bfloat16, where autocast takes it to be safe."""
    made, kind = own_copy(net), inputs[0].device.type

    def run(*given: torch.Tensor) -> torch.Tensor:
        with torch.autocast(kind, dtype=torch.bfloat16):
            answer: torch.Tensor = made(*given)
        return answer.float()

    return run


def _openvino(net: nn.Module, inputs: Inputs, stored: Stored | None) -> Run:
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,  # workers side by side would all sit on the first cores
    }
    kept = None if stored is None else stored.read()
    compiled = None
    if kept is not None:
        with suppress(Exception):  # another version's, or damaged
            compiled = core.import_model(kept, "CPU", settings)
    if compiled is None:
        compiled = core.compile_model(_converted(net, inputs), "CPU", settings)
        if stored is not None:
            content = io.BytesIO()
            compiled.export_model(content)
            stored.write(content.getvalue())
    request = compiled.create_infer_request()

    def run(*given: torch.Tensor) -> torch.Tensor:
        arrays = [x.contiguous().numpy() for x in given]
        return torch.from_numpy(request.infer(arrays, share_inputs=True)[0])

    return run


def _converted(net: nn.Module, inputs: Inputs) -> Any:
    """A network as OpenVINO's."""
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    program = torch.export.export(own_copy(net), inputs)
    # not openvino.convert_model, which reports home
    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchFXPythonDecoder.from_exported_program(program)  # must outlive the conversion
    model = frontend.convert(frontend.load(decoder))
    for port, x in zip(model.inputs, inputs, strict=True):
        port.get_node().set_partial_shape(openvino.PartialShape(list(x.shape)))
    model.validate_nodes_and_infer_types()
    return model


def _onnx(net: nn.Module, inputs: Inputs, stored: Stored | None) -> Run:
    import onnxruntime

    file = io.BytesIO()
    names = [f"input{i}" for i in range(len(inputs))]
    # the exporter by torch.export would need onnxscript
    torch.onnx.export(own_copy(net), inputs, cast(Any, file), input_names=names, dynamo=False)
    session = onnxruntime.InferenceSession(file.getvalue(), session_options(), providers=["CPUExecutionProvider"])

    def run(*given: torch.Tensor) -> torch.Tensor:
        fed = {name: x.contiguous().numpy() for name, x in zip(names, given, strict=True)}
        return torch.from_numpy(session.run(None, fed)[0])

    return run


def session_options() -> Any:
    """ONNX Runtime with as many threads as torch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # what fails is raised too
    # idle threads would spin while torch makes the next masks on the same cores
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


# In the order in which "auto" tries them.
ENGINES = {
    engine.name: engine
    for engine in (
        Engine(name="eager", build=_eager, devices=("cpu", "cuda", "mps", "xpu")),
        Engine(
            name="openvino",
            build=_openvino,
            devices=("cpu",),
            library="openvino",
            extra="openvino",
            base=1.0,
            each=0.01,
            own_threads=True,
        ),
        Engine(name="cudagraphs", build=_cudagraphs, devices=("cuda",)),
        Engine(
            name="onnx",
            build=_onnx,
            devices=("cpu",),
            library="onnxruntime",
            extra="onnx",
            base=1.0,
            each=0.01,
            own_threads=True,
        ),
        Engine(name="compile", build=_compile, devices=("cpu", "cuda"), base=15.0, each=0.2),
        Engine(name="channels_last", build=_channels_last, devices=("cpu", "cuda")),
        Engine(name="autocast", build=_autocast, devices=("cpu", "cuda"), tolerance=5e-3),
    )
}


def build(engine: Engine, net: nn.Module, inputs: Inputs, model: str | None = None) -> Run:
    """What an engine makes of a network, whatever its library says on the way.

    Parameters
    ----------
    inputs
        What the network is given: the shapes count, not the values.
    model
        Names its weights and its code; what is built is then kept for other runs. None: it is not.
    """
    with torch.inference_mode(False), torch.no_grad(), _silent():
        shapes = [tuple(x.shape) for x in inputs]
        versions = (engine.name, engine.version, torch.__version__, platform.machine(), torch.get_num_threads())
        stored = None if model is None else Stored(model, shapes, *versions)
        return engine.build(net, tuple(x.clone() for x in inputs), stored)


def digest(net: nn.Module) -> str:
    """Of a network's parameters and buffers."""

    def parts() -> Iterator[bytes | memoryview]:
        for described, tensor in _tensors(net):
            yield described.encode()
            yield _bytes(tensor.detach().reshape(-1))

    return bytes_sha256(parts())


def fingerprint(net: nn.Module) -> str:
    """Whether a network still is what it was, in a hundredth of the time of `digest`.

    Of every parameter and buffer, how often it was written to and some of its values: torch does not count what is
    written through ``.data``, which changes all values of a tensor as a rule.
    """

    def parts() -> Iterator[bytes | memoryview]:
        for described, tensor in _tensors(net):
            written = 0 if tensor.is_inference() else tensor._version
            flat = tensor.detach().reshape(-1)
            yield f"{described} {written}".encode()
            yield _bytes(flat[:: max(1, len(flat) // _SAMPLED)])

    return bytes_sha256(parts())


def _tensors(net: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers, each with its name, kind and shape in words."""
    for name, tensor in net.state_dict(keep_vars=True).items():
        if isinstance(tensor, torch.Tensor):
            yield f"{name} {tensor.dtype} {tuple(tensor.shape)}", tensor


def _bytes(flat: torch.Tensor) -> memoryview:
    return flat.cpu().contiguous().view(torch.uint8).numpy().data


@contextmanager
def _silent() -> Iterator[None]:
    """Without the warnings of tracers, and without the handler that ``logging.warning`` would leave behind."""
    root, nowhere = logging.getLogger(), logging.NullHandler()
    root.addHandler(nowhere)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeHandler(nowhere)
