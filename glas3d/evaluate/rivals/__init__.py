"""Other explanation methods than GLAS, each a small object of settings, to compare with.

Each has ``attribute(model, volume, target)``, which returns a map ``(*spatial)`` of a volume ``(c, *spatial)``, higher
where there is more evidence for the class. To add one, write a class that meets `Rival` in a file of its own, and name
it in ``__init__.pyi``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
