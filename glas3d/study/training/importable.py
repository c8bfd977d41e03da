"""Name a function so that another process, or a bundle, can import it again."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from glas3d.errors import GlasError


def importable_name(function: str | Callable[..., Any], what: str) -> str:
    """Return the ``package.module:name`` by which a function can be imported again.

    Parameters
    ----------
    function
        A function, a class or such a name.
    what
        What it is for, in messages: ``"factory"`` or ``"intensity_transform"``.

    Raises
    ------
    GlasError
        It cannot be imported: a lambda, a function defined within a function, or a name that names nothing.
    """
    name = function if isinstance(function, str) else f"{function.__module__}:{getattr(function, '__qualname__', '')}"
    imported = import_callable(name, what)
    if not isinstance(function, str) and imported is not function:
        raise GlasError(f"{what} must be importable as package.module:name, {name} is something else")
    return name


def import_callable(name: str, what: str) -> Any:
    """Import what ``package.module:name`` names.

    Raises
    ------
    GlasError
        It names nothing, or nothing that can be called, or its module fails or ends when it is imported.
    """
    module, _, attribute = name.partition(":")
    try:
        imported: Any = importlib.import_module(module)
        for part in attribute.split("."):
            imported = getattr(imported, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise GlasError(f"{what} must be importable as package.module:name, {name} is not: {error}") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module is run when it is imported, and may fail or end in any way
        from glas3d.core.foreign_code import described  # here, because it imports torch, and names are in every --help

        raise GlasError(f"the module of {what} {name} cannot be imported: {described(error)}") from error
    if not callable(imported):
        raise GlasError(f"{what} must be callable, {name} is a {type(imported).__name__}")
    return imported


def name_of(function: str | Callable[..., Any] | None) -> str | None:
    """Return a name for records, ``package.module:name``; that of the class for an object that is called.

    Examples
    --------
    >>> name_of("monai.transforms:RandFlip"), name_of(None)
    ('monai.transforms:RandFlip', None)
    >>> from functools import partial
    >>> name_of(partial(print))
    'functools:partial'
    """
    if function is None or isinstance(function, str):
        return function
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}:{named.__qualname__}"
