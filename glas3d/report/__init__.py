"""Figures of explanations, and the HTML report: regions on the template, maps over pictures, and what references say.

They are drawn by nilearn and matplotlib, and loaded when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
