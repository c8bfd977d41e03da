"""Other explanation methods than GLAS, each a small object of settings, to compare with.

Each has ``attribute(task)``, which returns a map ``(*spatial)`` or the values of regions, higher where there is more
evidence for the class. `METHODS` lists them by the names that `glas3d.evaluate.attribute` takes. To add one, write a
class that meets `Rival`, name it in ``__init__.pyi``, and enter it in ``methods.py``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
