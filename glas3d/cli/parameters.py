"""Values of options: classes, numbers, and names with values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glas3d.errors import GlasError

if TYPE_CHECKING:
    from glas3d.predict import Predictor
    from glas3d.predict.interface import Activation


def model_of(model: str, activation: Activation | None, device: str) -> Predictor:
    """Return the model that the options --model, --activation and --device name.

    Raises
    ------
    GlasError
        There is no such model, or it states another activation itself.
    """
    from glas3d.predict import load_model

    predict = load_model(model, activation=activation, device=device)
    if activation is not None and predict.activation != activation:
        raise GlasError(f"--activation is for models that state none, {model} states {predict.activation}")
    return predict


def class_of(text: str) -> int | str:
    """Return a class by its index from 0, or by its name."""
    return int(text) if text.isdecimal() else text


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
