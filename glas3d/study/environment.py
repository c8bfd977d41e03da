"""What a study's forwards run on: a device, an engine, and the versions of both."""

from __future__ import annotations

import importlib.metadata

import torch

from glas3d.core.threads import torch_threads
from glas3d.errors import GlasError
from glas3d.predict import load_model
from glas3d.predict.engine.engines import ENGINES
from glas3d.version import __version__


def version(engine: str, registers: bool = False) -> str:
    """Of what decides the numbers: the engine's library and, where scans are registered, antspyx among it."""
    found = f"glas3d {__version__}, torch {torch.__version__.partition('+')[0]}"
    if ENGINES[engine].library != "torch":
        found += f", {ENGINES[engine].library} {ENGINES[engine].version}"
    if not registers:
        return found
    try:
        return f"{found}, antspyx {importlib.metadata.version('antspyx')}"
    except importlib.metadata.PackageNotFoundError:
        raise GlasError('registration needs antspyx: pip install "glas3d[register]"') from None


def fastest(model: str, device: str, threads: int, shape: tuple[int, ...], batches: int) -> str:
    """The engine that ``"auto"`` settles on for batches ``(n, *spatial)`` of noise."""
    with torch_threads(threads):
        predict = load_model(model, device=device)
        size, *spatial = shape
        noise = torch.rand((size, predict.info.channels or 1, *spatial), generator=torch.Generator().manual_seed(0))
        asked = predict.fit(noise[0]).with_engine("auto", batches)
        names = predict.covariates
        asked(noise.to(predict.device), *(() if names is None else (torch.zeros(size, len(names)),)))
        return asked.engine


def device_here() -> str:
    """CUDA where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_kind(name: str) -> str:
    """The kind of a device, which the workers have, or refuse."""
    try:
        return torch.device(name).type
    except RuntimeError:
        raise GlasError(f"device must be auto or one of torch's, such as cpu or cuda, got {name!r}") from None
