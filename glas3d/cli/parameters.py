"""Values of options: models, classes, numbers, and names with values."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from glas3d.cli.derived import in_group
from glas3d.errors import GlasError, GlasWarning

if TYPE_CHECKING:
    from glas3d.predict import Predictor


@dataclass(frozen=True, kw_only=True)
class LoadingOptions:
    """How the file of a model is read: options of every command that takes --model for a scan.

    Parameters
    ----------
    activation
        What turns the model's outputs into probabilities; for .pt2 and .onnx files, and for bundles that do not state
        it.
    trust
        Allow the configuration of a bundle to run any code of its author: calls of functions, expressions and imports.
        Without it a bundle may be made of networks and layers of torch.nn, monai.networks and glas3d.
    value_range
        Lowest and highest intensity that the network takes, as two numbers; for .pt2 and .onnx files, and for bundles
        that do not state it. A scan of other intensities is then noted. Default: not known, which is noted.
    device
        Where the model runs: auto (CUDA where it is available), cpu, mps, or cuda, with a number for one GPU of
        several, such as cuda:1.
    """

    activation: Annotated[Literal["softmax", "sigmoid", "none"] | None, in_group("Model")] = None
    trust: Annotated[bool, in_group("Model")] = False
    value_range: Annotated[tuple[float, float] | None, in_group("Model")] = None
    device: Annotated[str, in_group("Speed")] = "auto"

    def load(self, model: str) -> Predictor:
        """Return the model that --model names.

        Raises
        ------
        GlasError
            See `load_model`.
        """
        from glas3d.predict import load_model

        return load_model(model, **vars(self))


def class_of(text: str | int, names: Sequence[str] | None = None) -> int | str:
    """Return a class by its name, or by its index from 0.

    Parameters
    ----------
    text
        What was given on the command line.
    names
        Names of classes: a number that is one of them is that class, whatever its index.

    Warns
    -----
    GlasWarning
        The number is the index of another class, too.
    """
    text = str(text)
    if not text.isdecimal() or text not in (names or ()):
        return int(text) if text.isdecimal() else text
    index = int(text)
    if names is not None and index < len(names) and names[index] != text:
        message = f"class {text} is taken for the class of this name, not for the one of this index, {names[index]}"
        warnings.warn(message, GlasWarning, stacklevel=2)
    return text


def named_values(texts: tuple[str, ...], option: str) -> dict[str, str]:
    """Return the values of ``name=value`` texts by their names.

    Raises
    ------
    GlasError
        A text of another form, or a name that is given twice.
    """
    values: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals) or name in values:
            raise GlasError(f"{option} takes name=value, each name once, got {text!r}")
        values[name] = value
    return values


def named_numbers(texts: tuple[str, ...], option: str) -> dict[str, float]:
    """Return the numbers of ``name=number`` texts by their names.

    Raises
    ------
    GlasError
        A text of another form, or a name that is given twice.
    """
    numbers: dict[str, float] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        parsed = number(value)
        if not (name and equals) or name in numbers or isinstance(parsed, str):
            raise GlasError(f"{option} takes name=number, each name once, got {text!r}")
        numbers[name] = parsed
    return numbers


def number(text: str) -> float | str:
    """Return a text as a number where it is one."""
    try:
        return float(text)
    except ValueError:
        return text
