"""Metrics of a map: how much does the model's probability depend on what the map ranks first?"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
