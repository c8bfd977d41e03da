"""Anything that classifies, as ``predict(batch) -> probabilities``; the paper's networks and their training.

The names a user types are listed in ``__init__.pyi`` and loaded when they are first used: importing this package does
not load torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
