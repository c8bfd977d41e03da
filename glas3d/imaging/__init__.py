"""Scans, spaces and atlases: everything that knows about NIfTI (nibabel, nilearn), and 2D pictures.

The names a user types are listed in ``__init__.pyi`` and loaded when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
