"""The engines that there are, and what is known of each."""

from __future__ import annotations

import functools
import importlib.metadata
import io
import logging
import math
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass

import torch
from torch import nn

from glas3d.errors import GlasError
from glas3d.predict.device import exact_kernels
from glas3d.predict.engine import builders
from glas3d.predict.engine.builders import Build, Inputs, Run
from glas3d.user_cache import CacheEntry, UserCache

# Probabilities may differ by this much from those of the network itself, unless an engine states another tolerance.
TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A way to run a network.

    Attributes
    ----------
    name
        The name by which it is chosen.
    build
        Builds what takes inputs of these shapes and returns the network's output in eval mode.
    devices
        Kinds of device that it runs on.
    library, extra
        The distribution that must be installed, and the extra of this package that installs it.
    seconds_to_build, seconds_per_module
        How long building is expected to take: the first, and the second for each module of the network
        (documentation: "Engines").
    seconds_to_import, imports
        How long the first build in a process takes longer, and a module that such a build imports.
    seconds_to_load
        How long reading is expected to take of what was built and kept before; infinite: nothing is kept.
    speedup
        How many times faster than the network itself it is expected to be at least: the smallest measured ratio above
        1 (documentation: "Engines").
    exact
        Whether it computes in full precision; ``"auto"`` takes no other.
    tolerance
        How far its probabilities may be from those of the network itself.
    own_threads
        Whether its library has threads of its own; those of torch, which wait busily for work, are then in their way.
    blends
        Whether it makes one graph of a network and the blending of perturbed volumes before it.
    """

    name: str
    build: Build
    devices: tuple[str, ...]
    library: str = "torch"
    extra: str | None = None
    seconds_to_build: float = 0.1
    seconds_per_module: float = 0.0
    seconds_to_import: float = 0.0
    imports: str = "torch"
    seconds_to_load: float = math.inf
    speedup: float = 4 / 3
    exact: bool = True
    tolerance: float = TOLERANCE
    own_threads: bool = False
    blends: bool = False

    @property
    def version(self) -> str | None:
        """Version of its library; None where it is not installed."""
        return installed_version(self.library)

    def expected_seconds(self, n_modules: int) -> float:
        """Return how long building is expected to take in this process, for a network of so many modules."""
        first = 0.0 if self.imports in sys.modules else self.seconds_to_import
        return first + self.seconds_to_build + self.seconds_per_module * n_modules


@functools.cache
def installed_version(library: str) -> str | None:
    """Return the version of a distribution, None where it is not installed; reading it takes milliseconds."""
    try:
        return importlib.metadata.version(library).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


# In the order in which "auto" tries them.
ENGINES = {
    engine.name: engine
    for engine in (
        Engine(name="eager", build=builders.build_eager, devices=("cpu", "cuda", "mps", "xpu")),
        Engine(
            name="openvino",
            build=builders.build_openvino,
            devices=("cpu",),
            library="openvino",
            extra="openvino",
            seconds_to_build=1.0,
            seconds_per_module=0.01,
            seconds_to_import=1.0,
            imports="torch._dynamo",  # by torch.export
            seconds_to_load=0.3,
            speedup=1.8,
            own_threads=True,
            blends=True,
        ),
        Engine(name="cudagraphs", build=builders.build_cudagraphs, devices=("cuda",), blends=True),
        Engine(
            name="onnx",
            build=builders.build_onnx,
            devices=("cpu",),
            library="onnxruntime",
            extra="onnx",
            seconds_to_build=1.0,
            seconds_per_module=0.01,
            speedup=1.2,
            own_threads=True,
            blends=True,
        ),
        Engine(
            name="compile",
            build=builders.build_compiled,
            devices=("cpu", "cuda"),
            seconds_to_build=15.0,
            seconds_per_module=0.2,
            speedup=1.4,
            blends=True,
        ),
        Engine(name="channels_last", build=builders.build_channels_last, devices=("cpu", "cuda"), speedup=1.05),
        Engine(name="autocast", build=builders.build_autocast, devices=("cpu", "cuda"), exact=False, tolerance=5e-3),
    )
}


def check_engine(engine: str, device: torch.device) -> None:
    """Refuse an engine that does not exist, or not here.

    Raises
    ------
    GlasError
        The engine does not exist, its library is not installed, or it does not run on this device.
    """
    if engine == "auto":
        return
    if engine not in ENGINES:
        raise GlasError(f"engine must be one of auto, {', '.join(ENGINES)}, got {engine!r}")
    chosen = ENGINES[engine]
    if chosen.version is None:
        raise GlasError(
            f'the engine {engine} needs {chosen.library}, which is missing: pip install "glas3d[{chosen.extra}]"'
        )
    if device.type not in chosen.devices:
        raise GlasError(f"the engine {engine} runs on {' and '.join(chosen.devices)}, the model is on {device.type}")


def build(engine: Engine, net: nn.Module, inputs: Inputs, model: str | None = None) -> Run:
    """Return what an engine builds from a network, without the messages that its library prints.

    Parameters
    ----------
    inputs
        Example inputs of the network: their shapes count, not their values.
    model
        Identifies the network's weights and code; what is built is then kept for other runs. None: it is not kept.
    """
    # what is recorded or chosen while building must be what an evaluation would use
    with torch.inference_mode(False), torch.no_grad(), exact_kernels(), _silent():
        cached = None if model is None else kept(engine, inputs, model)
        return engine.build(net, tuple(x.clone() for x in inputs), cached)


def kept(engine: Engine, inputs: Inputs, model: str) -> CacheEntry:
    """Return the entry of the user's cache for what an engine builds from a network (see `build`)."""
    shapes = [tuple(x.shape) for x in inputs]
    versions = (engine.name, engine.version, torch.__version__, platform.machine(), torch.get_num_threads())
    return UserCache("engines").entry(model, shapes, *versions)


@contextmanager
def _silent() -> Iterator[None]:
    """Suppress what tracers warn of, log and print, and the handler that ``logging.warning`` would install for good."""
    root, nowhere = logging.getLogger(), logging.NullHandler()
    root.addHandler(nowhere)
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        # torch.export prints the graph of what it cannot follow
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        root.removeHandler(nowhere)
