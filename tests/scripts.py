"""Scripts of the repository that are in no package."""

import importlib.util
import sys


def load_script(path):
    """Return a script as a module; what it imports may lie next to it, as where it is run as a file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where dataclasses look their annotations up
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module
