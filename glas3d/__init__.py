"""Show which anatomy made a 3D classifier decide: Gaussian light and shadow for brain scans and images.

The names a user types are listed in ``__init__.pyi`` and loaded when they are first used: importing this package loads
neither torch nor nilearn.
"""

import lazy_loader

from glas3d.version import __version__ as __version__

__getattr__, _public_names, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __dir__() -> list[str]:
    return [*_public_names(), "__version__"]
