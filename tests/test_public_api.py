"""The public names, their signatures and the options of the commands are those of a text file; a change is a decision.

``make api`` writes the file again. A name that disappears, or a parameter, needs a release of warnings first
(CONTRIBUTING.md, "What stays").
"""

import difflib
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import glas3d
from glas3d.cli import app

SNAPSHOT = Path(__file__).with_name("public_api.txt")


def public_modules():
    """Return the modules that list what they export: the package, and the rooms and folders with a stub."""
    names = ["glas3d"]
    for module in pkgutil.walk_packages(glas3d.__path__, "glas3d."):
        parts = module.name.split(".")
        if module.ispkg and not any(part.startswith("_") for part in parts):
            folder = Path(glas3d.__path__[0], *parts[1:])
            names += [module.name] * (folder / "__init__.pyi").is_file()
    return names


def signature(thing):
    """Return the parameters of a function or class with their defaults, without types."""
    full = inspect.signature(thing)
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in full.parameters.values()]
    text = str(full.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def members(kind):
    """Yield the public methods and properties of a class that this package defines, and its signature."""
    own = [ancestor for ancestor in kind.__mro__ if ancestor.__module__.startswith("glas3d")]
    names = sorted({name for ancestor in own for name in vars(ancestor) if not name.startswith("_")})
    for name in names:
        value = inspect.getattr_static(kind, name)
        if isinstance(value, classmethod | staticmethod):
            value = value.__func__
        if inspect.isfunction(value):
            yield f".{name}{signature(value)}"
        elif isinstance(value, property) or hasattr(value, "func"):
            yield f".{name}"


def described(name, value):
    """Yield the lines of one public name."""
    if inspect.isclass(value):
        error = "" if not issubclass(value, BaseException) else f" ({value.__mro__[1].__name__})"
        yield f"class {name}{error or signature(value)}"
        yield from (f"  {line}" for line in members(value))
    elif callable(value):
        yield f"{name}{signature(value)}"
    else:
        yield f"{name}: {type(value).__name__}"


def commands(parent=app, prefix="glas3d"):
    """Yield the commands with their arguments and options."""
    for name in sorted(parent):
        if name.startswith("-"):
            continue
        command = parent[name]
        title = f"{prefix} {name}"
        if command.default_command is not None:
            yield f"$ {title}"
            yield from sorted(
                f"  {' '.join(argument.names)}" for argument in command.assemble_argument_collection() if argument.show
            )
        yield from commands(command, title)


def public_api():
    lines = []
    for module in public_modules():
        lines += [f"# {module}"]
        exported = importlib.import_module(module)
        for name in sorted(exported.__all__):
            lines += described(name, getattr(exported, name))
    return "\n".join([*lines, "# The commands", *commands()]) + "\n"


def test_the_public_names_are_those_that_are_recorded():
    changed = difflib.unified_diff(
        SNAPSHOT.read_text(encoding="utf-8").splitlines(),
        public_api().splitlines(),
        "recorded",
        "now",
        lineterm="",
        n=0,
    )
    difference = "\n".join(changed)
    assert not difference, (
        f"the public names changed; if that is intended, write them again by `make api`:\n{difference}"
    )


if __name__ == "__main__":
    SNAPSHOT.write_text(public_api(), encoding="utf-8")
