"""The configuration of a MONAI bundle: its network, and what it states of preprocessing, inferer and activation.

Without ``trust`` nothing that the bundle's author wrote is run (see `glas3d.predict.bundle_entries`); with it MONAI
resolves references and expressions. What a bundle states of its preprocessing is read as names and arguments: nothing
that a ``_target_`` in it names is made here. Only `BundleConfig.network` makes something.

MONAI takes about a second to import, and is imported where its parser is needed: with ``trust``, for YAML, and for
references.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from glas3d.errors import GlasError, GlasWarning, reason
from glas3d.predict.bundle_entries import MAY_RUN_CODE, NOT_ARGUMENTS, Code, is_true, make_network, resolve_entry
from glas3d.predict.interface import Activation
from glas3d.reading import parse_json, read_bytes

if TYPE_CHECKING:
    from monai.bundle.config_parser import ConfigParser

META_KEY = "_meta_"
"""The key under which a configuration has the content of the bundle's metadata, by the convention of MONAI."""

MOST_BYTES = 16 * 2**20
"""How large a configuration or the metadata of a bundle may be."""

_SUFFIXES = ("json", "yaml", "yml")
# Where configurations for inference and for training keep the preprocessing of scans that are not trained on.
_PREPROCESSING = {"inference": ("preprocessing",), "train": ("validate::preprocessing", "val_preprocessing")}
_ACTIVATIONS = ("Activationsd", "ActivationsD", "ActivationsDict", "Activations")
_TRAINING_ONLY = ("train::preprocessing", "preprocessing")


@dataclass(frozen=True)
class DeclaredTransform:
    """A transform as a configuration names it.

    Attributes
    ----------
    target
        Its ``_target_``, such as ``"NormalizeIntensityd"``.
    arguments
        Its arguments, references resolved.
    """

    target: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class BundleConfig:
    """The configuration files of a bundle.

    Attributes
    ----------
    folder
        The bundle.
    files
        The files for ``"inference"`` and ``"train"``, as far as it has them.
    metadata
        The content of its ``configs/metadata.json``, to which configurations may refer.
    trust
        Whether the configuration may run any code.
    """

    folder: Path
    files: Mapping[str, Path]
    metadata: Mapping[str, Any]
    trust: bool

    @classmethod
    def of(cls, folder: Path, metadata: Mapping[str, Any], *, trust: bool) -> BundleConfig:
        """Return the configuration of a bundle.

        Raises
        ------
        GlasError
            It has neither a configuration for inference nor one for training.
        """
        files: dict[str, Path] = {}
        for name in ("inference", "train"):
            candidates = (folder / "configs" / f"{name}.{suffix}" for suffix in _SUFFIXES)
            if (path := next(filter(Path.is_file, candidates), None)) is not None:
                files[name] = path
        if not files:
            raise GlasError(f"a bundle must describe its network in configs/inference.json, {folder} has none")
        return cls(folder, files, metadata, trust)

    @cached_property
    def _contents(self) -> dict[Path, dict[str, Any]]:
        """The content of each file, read once."""
        return {path: self._read(path) for path in self.files.values()}

    def network(self) -> nn.Module:
        """Return the network of ``network_def``, with weights as they are made.

        Raises
        ------
        GlasError
            There is none, it cannot be made, or it is no torch module.
        """
        path = next(iter(self.files.values()))
        try:
            if self.trust:
                net = self._parser(path).get_parsed_content("network_def")
            else:
                net = make_network(resolve_entry(self._contents[path], "network_def"), "network_def")
        except GlasError as error:
            raise GlasError(f"the network_def of {path} cannot be made: {error}") from None
        except (Exception, SystemExit) as error:  # the network of anyone's arguments may raise anything
            raise GlasError(f"the network_def of {path} cannot be made: {reason(error)}") from error
        if not isinstance(net, nn.Module):
            raise GlasError(f"the network_def of {path} must be a torch module, it is a {type(net).__name__}")
        return net

    def preprocessing(self) -> list[DeclaredTransform]:
        """Return the transforms that scans go through before the network, in order; empty where none are stated.

        Raises
        ------
        GlasError
            They cannot be read.
        """
        for name, keys in (*_PREPROCESSING.items(), ("train", _TRAINING_ONLY)):
            for key in keys:
                declared = self._transforms(name, key)
                if declared is not None:
                    return declared
        return []

    def activation(self) -> Activation | None:
        """Return the activation that the postprocessing applies to the network's outputs, if it states one."""
        for transform in self._transforms("inference", "postprocessing") or ():
            if transform.target.rsplit(".", 1)[-1] in _ACTIVATIONS:
                for activation in ("softmax", "sigmoid"):
                    stated = transform.arguments.get(activation)
                    if any(map(is_true, stated if isinstance(stated, list | tuple) else [stated])):
                        return "softmax" if activation == "softmax" else "sigmoid"
        return None

    def inferer(self) -> str | None:
        """Return the ``_target_`` of what applies the network to a scan, if it is stated."""
        path = self.files.get("inference")
        content = None if path is None else self._contents[path].get("inferer")
        return str(content.get("_target_")) if isinstance(content, dict) else None

    def _transforms(self, name: str, key: str) -> list[DeclaredTransform] | None:
        """Return the transforms under a key of a file; None where there is no such file or key."""
        path = self.files.get(name)
        item = None if path is None else self._item(path, key)
        if item is None:
            return None
        try:
            return list(_declared(item))
        except _Unreadable as error:
            raise GlasError(f"the {key} of {path} cannot be read: {error}") from None

    def _item(self, path: Path, key: str) -> Any:
        """Return what a file has under a key, references resolved but nothing made; None if it has no such key."""
        try:
            if self.trust:
                parser = self._parser(path)
                return parser.get_parsed_content(key, instantiate=False) if key in parser else None
            content: Any = self._contents[path]
            for part in key.split("::"):
                if not isinstance(content, dict) or part not in content:
                    return None
                content = content[part]
            return resolve_entry(self._contents[path], key)
        except (Exception, SystemExit) as error:  # expressions may run anything, so they may raise anything
            raise GlasError(f"the {key} of {path} cannot be read: {reason(error)}") from error

    def _parser(self, path: Path) -> ConfigParser:
        from monai.bundle.config_parser import ConfigParser

        parser = ConfigParser()
        try:
            parser.read_config(copy.deepcopy(self._contents[path]))
        except Exception as error:  # references may be of any form
            raise GlasError(f"{path} cannot be read as a configuration of MONAI: {reason(error)}") from error
        return parser

    def _read(self, path: Path) -> dict[str, Any]:
        """Return the content of a file, with what configurations may refer to."""
        text = read_bytes(path, "a configuration", MOST_BYTES)
        try:
            content = _load(path, text)
            if not isinstance(content, dict):
                raise TypeError(f"it holds a {type(content).__name__}")
        except Exception as error:  # a damaged file may fail anywhere in the reader
            raise GlasError(f"{path} cannot be read as a configuration of MONAI: {reason(error)}") from error
        return content | {"bundle_root": str(self.folder), META_KEY: dict(self.metadata)}


def _load(path: Path, text: bytes) -> Any:
    """Return the content of a JSON or YAML file, whose text is given for JSON."""
    if path.suffix != ".json":
        from monai.bundle.config_parser import ConfigParser

        return ConfigParser.load_config_file(path)

    def entries(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            warnings.warn(f"{path} has the key {twice!r} more than once, the last counts", GlasWarning, stacklevel=2)
        return content

    return parse_json(text, entries)


class _Unreadable(Exception):
    """Says, in words, why a list of transforms cannot be read."""


def _declared(item: Any) -> Iterator[DeclaredTransform]:
    """Yield the transforms of a resolved item: of a ``Compose``, of a list, or the item itself."""
    if isinstance(item, list | tuple):
        for part in item:
            yield from _declared(part)
        return
    if isinstance(item, Code):
        raise _Unreadable(f"{item.entry} is {item.text}, {MAY_RUN_CODE}")
    config = _component(item)
    if config is None:
        raise _Unreadable(f"it must be a list of transforms with a _target_ each, it holds a {type(item).__name__}")
    target = config.get("_target_")
    if is_true(config.get("_disabled_")):
        return
    if not isinstance(target, str):
        raise _Unreadable(f"the _target_ of a transform must be a name, got a {type(target).__name__}")
    if is_true(config.get("lazy")) or config.get("_mode_", "default") != "default":
        raise _Unreadable(f"{target} is lazy, or not made in the default way")
    arguments = {name: value for name, value in config.items() if name not in NOT_ARGUMENTS}
    if target.rsplit(".", 1)[-1] == "Compose":
        yield from _declared(arguments.get("transforms") or [])
    else:
        yield DeclaredTransform(target, arguments)


def _component(item: Any) -> Mapping[str, Any] | None:
    """Return the entries of what has a ``_target_``, an object where MONAI's parser read it; else None."""
    if isinstance(item, dict):
        return item if "_target_" in item else None
    config = item.get_config() if hasattr(item, "get_config") else None
    return config if isinstance(config, dict) else None
