"""Verify results: is what lies in a folder what was written, and can it be had again?"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
