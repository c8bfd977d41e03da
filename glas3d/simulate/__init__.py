"""Simulate participants with known disease, to check methods and software, and write them as a BIDS data set."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
