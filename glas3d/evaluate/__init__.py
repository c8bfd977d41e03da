"""Is the map right? Other explanation methods, metrics of a map, audits, and doors to Captum and Quantus.

`attribute` explains by any of many methods, and `compare` by several of them. ``rivals`` holds these methods,
``metrics`` measures a map against a truth or the model, and ``audits`` says whether a map should be believed.
`GLASAttribution` makes GLAS one of Captum's attributions, and `explain_func` is what Quantus takes.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
