"""The torch modules behind a model, and their eval mode while the model is evaluated.

A model may be any callable, and a module may be hidden in it: in the closure of a lambda, in a bound method, a partial,
a wrapper or an attribute. Such a module is found by following what the callable refers to; one that still escapes is
noticed when it is called.
"""

from __future__ import annotations

import functools
import threading
import types
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from glas3d.errors import GlasError

# Objects that are looked at in the search for modules, at most; a callable refers to a few dozen.
_MOST_OBJECTS = 20_000
_NOT_SEARCHED = (str, bytes, int, float, complex, torch.Tensor, type, types.ModuleType)
# Members of a module that hold what `modules()` already returns, or tensors.
_KNOWN_MEMBERS = ("_parameters", "_buffers", "_modules")

_lock = threading.Lock()
# modules that are held in eval mode, by their identity, with the number of evaluations that hold them
_held: dict[int, tuple[nn.Module, int]] = {}


def modules_in(*roots: Any) -> list[nn.Module]:
    """Return every torch module that some objects are, hold or refer to, each once.

    Modules are searched in submodules, closures, default arguments, bound methods, partials, wrapped functions,
    containers, attributes, and in the global variables that a function names.

    Examples
    --------
    >>> net = nn.Dropout()
    >>> modules_in(lambda x: net(x)) == modules_in(functools.partial(net)) == modules_in(net.forward) == [net]
    True
    """
    by_id: dict[int, nn.Module] = {}
    seen: dict[int, Any] = {}  # holds the objects, so that no identity is used again
    left = list(roots)
    while left and len(seen) < _MOST_OBJECTS:
        item = left.pop()
        if item is None or id(item) in seen or isinstance(item, _NOT_SEARCHED):
            continue
        seen[id(item)] = item
        if isinstance(item, nn.Module):
            for module in item.modules():
                by_id[id(module)] = module
                if not isinstance(module, torch.jit.ScriptModule):
                    left += (value for key, value in vars(module).items() if key not in _KNOWN_MEMBERS)
        else:
            left += _referred(item)
    return list(by_id.values())


@contextmanager
def evaluating(*roots: Any) -> Iterator[None]:
    """Hold the modules of a model in eval mode, and compute no gradients.

    Not torch's inference mode: what a module keeps of its input could never be trained with.

    Parameters
    ----------
    *roots
        See `modules_in`.

    Raises
    ------
    GlasError
        A module has no values yet.
    """
    modules = modules_in(*roots)
    refuse_without_values(modules)
    with torch.inference_mode(False), torch.no_grad(), EvalMode(modules) as evaluation, evaluation.watching():
        yield


def refuse_without_values(modules: Iterable[nn.Module]) -> None:
    """Refuse modules whose parameters or buffers have no values yet.

    A lazy module would be given random weights by the first evaluation, and tensors on the meta device have none.

    Raises
    ------
    GlasError
        A parameter or buffer has no values.
    """
    for module in modules:
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if nn.parameter.is_lazy(tensor):
                raise GlasError(
                    f"a network must have its weights, {name} of a {type(module).__name__} is not initialised: "
                    "evaluate the network once, and load its weights"
                )
            if tensor.is_meta:
                raise GlasError(
                    f"a network must have its weights, {name} of a {type(module).__name__} is on the meta device, "
                    "where tensors have no values: load them"
                )


def _referred(item: Any) -> Iterable[Any]:
    """Return what an object that is no module refers to, as far as a module may be there."""
    if isinstance(item, types.FunctionType):
        return _of_function(item)
    if isinstance(item, types.MethodType):
        return [item.__self__, item.__func__]
    if isinstance(item, functools.partial):
        return [item.func, *item.args, *item.keywords.values()]
    if isinstance(item, dict):
        return list(item.values())
    if isinstance(item, list | tuple | set | frozenset):
        return list(item)
    if isinstance(item, types.BuiltinFunctionType | types.MethodWrapperType):
        return [item.__self__]
    members = list(getattr(item, "__dict__", {}).values())
    for kind in type(item).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        members += [getattr(item, name, None) for name in ((slots,) if isinstance(slots, str) else slots)]
    return [*members, *(vars(kind).get("__call__") for kind in type(item).__mro__)]


def _of_function(function: types.FunctionType) -> Iterable[Any]:
    """Return what a function refers to; of the global variables that it names, modules and its own file's functions."""
    referred: list[Any] = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    referred += vars(function).values()  # among them what functools.wraps wrapped
    for cell in function.__closure__ or ():
        try:
            referred.append(cell.cell_contents)
        except ValueError:  # a variable that has no value yet
            continue
    codes = [function.__code__]
    for code in codes:
        codes += (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
        for name in code.co_names:
            value = function.__globals__.get(name)
            own = getattr(value, "__module__", None) == function.__module__
            if isinstance(value, nn.Module) or (own and not isinstance(value, type)):
                referred.append(value)
    return referred


class EvalMode:
    """Holds modules in eval mode for as long as a ``with`` block lasts, and puts each back into its own mode.

    Evaluations in several threads may hold one module at a time: it is put back when the last of them ends.

    Parameters
    ----------
    modules
        The modules, see `modules_in`; those that `watching` notices are added to the list.
    """

    def __init__(self, modules: list[nn.Module]) -> None:
        self._modules = modules
        self._holding: list[nn.Module] = []

    def __enter__(self) -> EvalMode:
        self._hold(self._modules)
        return self

    def __exit__(self, *error: object) -> None:
        with _lock:
            for module in self._holding:
                _, count = _held.pop(id(module))
                if count > 1:
                    _held[id(module)] = module, count - 1
                else:
                    module.training = True
        self._holding = []

    def _hold(self, modules: Iterable[nn.Module]) -> None:
        with _lock:
            for module in modules:
                count = _held[id(module)][1] if id(module) in _held else 0
                if count or getattr(module, "training", False):  # frozen script modules have no mode
                    _held[id(module)] = module, count + 1
                    self._holding.append(module)
                    module.training = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Notice every module in training mode that this thread calls, and hold it in eval mode too."""
        thread = threading.get_ident()

        def before_call(module: nn.Module, inputs: object) -> None:
            if threading.get_ident() == thread and getattr(module, "training", False):
                modules = list(module.modules())
                self._modules += modules
                self._hold(modules)

        handle = nn.modules.module.register_module_forward_pre_hook(before_call)
        try:
            yield
        finally:
            handle.remove()
