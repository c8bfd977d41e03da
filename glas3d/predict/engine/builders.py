"""What each engine makes of a network: something that returns the same output in less time.

Every function ``build_...`` takes the network, example inputs (their shapes count, not their values) and the entry of
the cache that keeps what is built, or None, and returns what takes inputs of these shapes.
"""

from __future__ import annotations

import atexit
import copy
import io
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from glas3d.user_cache import CacheEntry, cache_folder, make_private

Inputs = tuple[torch.Tensor, ...]
Run = Callable[..., torch.Tensor]
Build = Callable[[nn.Module, Inputs, CacheEntry | None], Run]

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def own_copy(net: nn.Module) -> nn.Module:
    """Return a copy of a network in eval mode: what is built from it is independent of changes to the original."""
    return copy.deepcopy(net).eval().requires_grad_(False)


class LeavesInputs(nn.Module):
    """A network that writes to its inputs, given copies of them, so that what is built from it has no such step."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Return the network's output."""
        return self.net(*(x.clone() for x in inputs))


class BlendingNetwork(nn.Module):
    """A network with the blending of perturbed volumes before it, so that an engine makes one graph of both.

    Parameters
    ----------
    net
        The network.
    n_blended
        How many tensors a batch is blended of (see `glas3d.core.perturb.PerturbedBatch.tensors`).
    """

    def __init__(self, net: nn.Module, n_blended: int) -> None:
        super().__init__()
        self.net, self.n_blended = net, n_blended

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Return the network's output for the tensors of a batch, and the covariates where it takes some."""
        volume, difference, offset, product, *factors, last = inputs[: self.n_blended]
        for factor in factors:
            product = product * factor
        share = torch.addcmul(offset, product, last)  # of the background
        return self.net(torch.addcmul(volume, difference, share), *inputs[self.n_blended :])


class BlendingRun:
    """What an engine built of a `BlendingNetwork`: takes the tensors of a batch in its place."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return the network's output."""
        return self._run(*inputs)


def build_eager(net: nn.Module, inputs: Inputs, cached: CacheEntry | None) -> Run:
    """Return the network itself."""
    return net


def build_channels_last(net: nn.Module, inputs: Inputs, cached: CacheEntry | None) -> Run:
    """Return the network with the channels of a voxel next to each other in memory, as fast convolutions want them."""
    built = own_copy(net)
    for tensor in [*built.parameters(), *built.buffers()]:
        if tensor.ndim in _CHANNELS_LAST:
            tensor.data = _channels_last(tensor.data)

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = built(*(_channels_last(x) for x in inputs))
        return output

    return run


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    layout = _CHANNELS_LAST.get(tensor.ndim)
    return tensor if layout is None else tensor.contiguous(memory_format=layout)


def build_compiled(net: nn.Module, inputs: Inputs, cached: CacheEntry | None) -> Run:
    """Return the network as `torch.compile` makes it.

    Raises
    ------
    GlasError
        The folder in which the compiler keeps libraries is open to others.
    """
    use_private_compile_cache()
    own = own_copy(net)

    def call(*inputs: torch.Tensor) -> torch.Tensor:
        # a function: a compiled module is traced anew, with a warning, where anyone watches the calls of all modules
        output: torch.Tensor = own(*inputs)
        return output

    built = torch.compile(call, dynamic=False)
    with torch.no_grad():  # as it will be evaluated; otherwise it would be compiled once more
        built(*inputs)
    run: Run = built
    return run


def use_private_compile_cache() -> None:
    """Let torch's compiler keep libraries in the user's cache folder, from which it loads them without a check.

    Its own choice is a folder of a known name in the temporary folder that all users share. A folder that was chosen
    by TORCHINDUCTOR_CACHE_DIR stays.

    Raises
    ------
    GlasError
        See `make_private`.
    """
    from torch._inductor import config
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    chosen = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    folder = cache_folder("compiled") if chosen in (None, default_cache_dir()) else Path(str(chosen))
    try:
        make_private(folder)
    except OSError:  # no home folder, or a full one
        folder = Path(tempfile.mkdtemp(prefix="glas3d-compiled-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    config.cpp_cache_precompile_headers = False  # they would stay in the shared folder


def build_cudagraphs(net: nn.Module, inputs: Inputs, cached: CacheEntry | None) -> Run:
    """Return the network with every kernel of a forward pass recorded once and started together."""
    built, buffers = own_copy(net), tuple(x.clone() for x in inputs)
    lock = threading.Lock()
    with torch.no_grad():
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                built(*buffers)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = built(*buffers)

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        with lock:  # the buffers are shared by all threads
            for buffer, x in zip(buffers, inputs, strict=True):
                buffer.copy_(x)
            graph.replay()
            copied: torch.Tensor = output.clone()
            return copied

    # A graph holds addresses, not tensors: the memory of weights that nobody keeps would be given to others, and read.
    run.network = built  # type: ignore[attr-defined]
    return run


def build_autocast(net: nn.Module, inputs: Inputs, cached: CacheEntry | None) -> Run:
    """Return the network in bfloat16, in the operations that torch's autocast considers safe."""
    built, kind = own_copy(net), inputs[0].device.type

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast(kind, dtype=torch.bfloat16):
            output: torch.Tensor = built(*inputs)
        return output.float()

    return run


def build_openvino(net: nn.Module, inputs: Inputs, cached: CacheEntry | None) -> Run:
    """Return the network compiled by OpenVINO, for as many threads as torch has."""
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,  # parallel workers would all be pinned to the first cores
    }
    content = None if cached is None else cached.read()
    compiled = None
    if content is not None:
        with suppress(Exception):  # from another version, or damaged
            compiled = core.import_model(content, "CPU", settings)
    if compiled is None:
        compiled = core.compile_model(_openvino_model(net, inputs), "CPU", settings)
        if cached is not None:
            exported = io.BytesIO()
            compiled.export_model(exported)
            cached.write(exported.getvalue())
    request, lock = compiled.create_infer_request(), threading.Lock()

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        arrays = [x.contiguous().numpy() for x in inputs]
        with lock:  # a request runs one batch at a time
            return torch.from_numpy(request.infer(arrays, share_inputs=True)[0])

    return run


def _openvino_model(net: nn.Module, inputs: Inputs) -> Any:
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    program = torch.export.export(own_copy(net), inputs)
    # not openvino.convert_model, which sends usage data to its makers
    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchFXPythonDecoder.from_exported_program(program)  # must outlive the conversion
    model = frontend.convert(frontend.load(decoder))
    for port, x in zip(model.inputs, inputs, strict=True):
        port.get_node().set_partial_shape(openvino.PartialShape(list(x.shape)))
    model.validate_nodes_and_infer_types()
    return model


def build_onnx(net: nn.Module, inputs: Inputs, cached: CacheEntry | None) -> Run:
    """Return the network exported to ONNX and run by ONNX Runtime."""
    onnxruntime = import_onnxruntime()
    file = io.BytesIO()
    names = [f"input{i}" for i in range(len(inputs))]
    with _quiet_exporter():  # the exporter by torch.export would need onnxscript
        torch.onnx.export(own_copy(net), inputs, cast(Any, file), input_names=names, dynamo=False)
    session = onnxruntime.InferenceSession(file.getvalue(), onnx_session_options(), providers=["CPUExecutionProvider"])

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        values = {name: x.contiguous().numpy() for name, x in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, values)[0])

    return run


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep torch's exporter from writing the graph of what it cannot export to standard output."""
    logged, torch._C._jit_onnx_log = torch._C._jit_onnx_log, lambda *_: None  # no public setting reaches it
    try:
        yield
    finally:
        torch._C._jit_onnx_log = logged


def import_onnxruntime() -> Any:
    """Return ONNX Runtime, which sends nothing to its makers.

    Its official builds send events over HTTPS, and keep a number of this device in the user's cache folder, unless
    this variable is set before it is first imported (``Privacy.md`` of the package).

    Raises
    ------
    ImportError
        It is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # where it was imported before; some events are sent nevertheless
    return onnxruntime


def onnx_session_options() -> Any:
    """Return options by which ONNX Runtime has as many threads as torch, and repeats its bits."""
    options = import_onnxruntime().SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # what fails is raised too
    # idle threads would spin while torch makes the next masks on the same cores
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options
