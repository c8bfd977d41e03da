"""Which anatomy made a 3D classifier say so: Gaussian light and shadow for brain scans and images.

Everything is loaded when it is first used: importing this package imports neither torch nor nilearn.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "GLAS": "core.glas",
    "Explanation": "core.explanation",
    "RGLAS": "core.rglas",
    "Grid": "core.search",
    "Segments": "core.search",
    "Atlas": "imaging.atlas",
    "Predictor": "predict.predictor",
    "load_model": "predict.bundle",
    "explain_img": "explain",
    "explain_image": "explain",
    "GlasError": "errors",
    "GlasWarning": "errors",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'glas3d' has no attribute {name!r}")
    value = getattr(import_module(f"glas3d.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
