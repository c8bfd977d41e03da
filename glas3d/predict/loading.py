"""Load a model by its name, its file or folder, or the function that makes it."""

from __future__ import annotations

import importlib
import os
from dataclasses import replace
from pathlib import Path

import torch

from glas3d.core.foreign_code import described, failures_of
from glas3d.errors import GlasError
from glas3d.predict.adapters.exported import check_range
from glas3d.predict.adapters.onnx_file import from_onnx
from glas3d.predict.adapters.pt2 import from_pt2
from glas3d.predict.bundle import PICKLE_SUFFIXES, read_bundle
from glas3d.predict.interface import Activation
from glas3d.predict.predictor import Predictor
from glas3d.resources import folder, is_path, names, shipped_name, similar_name

_EXPORTED = {".pt2": from_pt2, ".onnx": from_onnx}


def load_model(
    model: str | os.PathLike[str],
    *,
    activation: Activation | None = None,
    value_range: tuple[float, float] | None = None,
    device: str | torch.device = "auto",
    trust: bool = False,
) -> Predictor:
    """Return the predictor of a model that is shipped, or stored in a file or folder, or made by a function.

    Parameters
    ----------
    model
        The name of a shipped model, the path of a MONAI bundle folder, of a ``.pt2`` file of torch.export or of
        an ``.onnx`` file, or ``package.module:factory``, a function without arguments that returns a
        `Predictor`. A factory is code, which is run.
    activation
        The activation of bundles that do not state one, and of exported files, which never do; see `Predictor`. Of a
        model that states one it may only be the same.
    value_range
        The lowest and the highest intensity that the network of an exported file takes, or of a bundle that does not
        state them. Default: they are not known, and a scan's own intensities are warned of.
    device
        See `Predictor`.
    trust
        Whether the configuration of a bundle may run any code of its author: calls of functions, expressions and
        imports. Without it a bundle may be made of networks and layers of torch.nn, monai.networks and glas3d.

    Raises
    ------
    GlasError
        The model does not exist, a bundle lacks something or would run other code, its weights are pickled or do not
        fit its network, or an exported file cannot be used or is given no activation; an activation or a range of
        intensities for a model that states another.
    """
    text = os.fspath(model)
    path = Path(text)
    if shipped_name("models", text):
        return _as_stated(read_bundle(folder("models", text), activation, device), text, activation, value_range)
    if path.is_dir():
        return _as_stated(read_bundle(path, activation, device, trust=trust), text, activation, value_range)
    if path.suffix in _EXPORTED:
        if not path.exists():
            raise GlasError(f"no such file: {path}")
        if activation is None:
            raise GlasError(f"the file {path} states no activation: give softmax, sigmoid or none")
        return _EXPORTED[path.suffix](path, activation, value_range=value_range, device=device)
    if path.suffix in PICKLE_SUFFIXES and path.is_file():
        raise GlasError(
            f"a model must be a MONAI bundle folder with safetensors weights, {path} is a pickle: it can run any code; "
            f"give package.module:factory, a function of yours that builds the network and loads its weights, or "
            f"convert the weights of a bundle (glas3d convert {path} BUNDLE_DIR)"
        )
    if ":" in text and not path.exists():
        return _as_stated(_from_factory(text), text, activation, value_range)
    if (is_path(text) or path.suffix in PICKLE_SUFFIXES) and not path.exists():
        raise GlasError(f"no such file or folder: {text}")
    shipped = ", ".join(names("models")) or "none"
    near = similar_name("models", text)
    raise GlasError(
        f"a model must be a shipped name ({shipped}), a MONAI bundle folder, a .pt2 or .onnx file, or "
        f"package.module:factory, got {text}" + (f"; did you mean {near}?" if near else "")
    )


def _as_stated(
    predict: Predictor, model: str, activation: Activation | None, value_range: tuple[float, float] | None
) -> Predictor:
    """Return a model with the range of its intensities; refuse a range or an activation where it states another."""
    if activation is not None and predict.activation != activation:
        raise GlasError(f"activation={activation!r} is for models that state none, {model} states {predict.activation}")
    if value_range is None:
        return predict
    info = predict.info
    if info.value_range is not None or predict.transform is not None or not info.from_file:
        raise GlasError(
            f"value_range (--value-range) is for files of models that do not state which intensities they take, "
            f"{info.name} does, or is made in Python"
        )
    check_range(value_range)
    predict.info = replace(info, value_range=value_range)
    return predict


def _from_factory(spec: str) -> Predictor:
    module_name, _, attribute = spec.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        raise GlasError(
            f"no model factory {spec}: {error}; Python imports from installed packages and the folders of PYTHONPATH: "
            "set PYTHONPATH=. for a file in the current folder"
        ) from None
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise GlasError(f"no model factory {spec}: {error}") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module is run when it is imported, and may fail or end in any way
        raise GlasError(f"the module of the model factory {spec} cannot be imported: {described(error)}") from error
    predict = None
    if callable(factory):
        with failures_of(f"the model factory {spec} failed"):
            predict = factory()
    if not isinstance(predict, Predictor):
        raise GlasError(f"a model factory must return a Predictor, {spec} returned {type(predict).__name__}")
    return predict
