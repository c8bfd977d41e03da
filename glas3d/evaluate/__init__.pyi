from . import audits as audits
from . import metrics as metrics
from . import rivals as rivals
from .captum import GLASAttribution as GLASAttribution
from .quantus import explain_func as explain_func

__all__: list[str]
