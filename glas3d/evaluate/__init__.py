"""Is the map right? Other explanation methods, metrics of a map, audits, and doors to Captum and Quantus.

``rivals`` holds other methods to compare with, ``metrics`` says how much a model depends on what a map ranks first, and
``audits`` is for checks of whether a map depends on the model at all. `GLASAttribution` makes GLAS one of Captum's
attributions, and `explain_func` is what Quantus takes.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
