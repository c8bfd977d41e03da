"""Do maps of images find what people marked? Data sets with boxes and landmarks, and the tables of Oh et al. 2020."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
