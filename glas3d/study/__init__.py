"""Study many participants: read a cohort, train models by folds, explain everyone, and map and compare groups."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
