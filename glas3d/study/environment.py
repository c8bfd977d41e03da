"""Resolve what a study's models run on: a device, an engine, and the versions of both."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

import torch

from glas3d.core.threads import torch_threads
from glas3d.errors import GlasError
from glas3d.imaging.brain_extraction import is_automatic
from glas3d.predict import load_model
from glas3d.predict.engine.engines import ENGINES
from glas3d.version import __version__


def software_versions(engine: str, settings: Mapping[str, Any] | None = None) -> str:
    """Return the versions that decide the numbers: of glas3d, of torch, of the engine's library and of others in use.

    Parameters
    ----------
    engine
        Name of the engine.
    settings
        Options of `explain_img`: the version of antspyx is added where scans are registered, and that of deepbet where
        it finds their brains.

    Raises
    ------
    GlasError
        One of these libraries is needed, and not installed.
    """
    versions = f"glas3d {__version__}, torch {torch.__version__.partition('+')[0]}"
    if ENGINES[engine].library != "torch":
        versions += f", {ENGINES[engine].library} {ENGINES[engine].version}"
    given = settings or {}
    if "register" in given:
        versions += f", antspyx {_version('antspyx', 'registration', 'register')}"
    if is_automatic(given.get("brain_mask")):
        versions += f", deepbet {_version('deepbet', 'an automatic brain mask', 'brain-mask')}"
    return versions


def _version(library: str, user: str, extra: str) -> str:
    """Return the version of an optional library."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        raise GlasError(f'{user} needs {library}: pip install "glas3d[{extra}]"') from None


def fastest_engine(
    model: str, device: str, threads: int, shape: tuple[int, ...], batches: int, loading: Mapping[str, Any]
) -> str:
    """Return the engine that ``"auto"`` chooses on this machine.

    Parameters
    ----------
    model
        A model as `glas3d.load_model` takes it.
    device
        Device of torch.
    threads
        Number of threads of torch.
    shape
        Shape ``(n, *spatial)`` of a batch, without channels.
    batches
        How many batches the model will evaluate, which decides if building an engine is worth its time.
    loading
        Further keywords of `glas3d.load_model`.
    """
    with torch_threads(threads):
        predict = load_model(model, device=device, **loading)
        size, *spatial = shape
        noise = torch.rand((size, predict.info.channels or 1, *spatial), generator=torch.Generator().manual_seed(0))
        candidate = predict.fit(noise[0]).with_engine("auto", batches)
        names = predict.covariates
        candidate(noise.to(predict.device), *(() if names is None else (torch.zeros(size, len(names)),)))
        return candidate.engine


def default_device() -> str:
    """Return ``"cuda"`` if CUDA is available on this machine, or ``"cpu"``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_kind(name: str) -> str:
    """Return the kind of a device, such as ``cuda`` for ``cuda:1``; if a worker has it is known only there.

    Raises
    ------
    GlasError
        The name is not one of torch's devices.
    """
    try:
        return torch.device(name).type
    except RuntimeError:
        hint = "; for a GPU give cuda" if name.lower().startswith("gpu") else ""
        raise GlasError(f"device must be auto, cpu, cuda or another device of torch, got {name!r}{hint}") from None
