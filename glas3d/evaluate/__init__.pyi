from . import audits as audits
from . import metrics as metrics
from . import rivals as rivals
from .captum import GLASAttribution as GLASAttribution
from .quantus import explain_func as explain_func
from .true_effects import mean_true_effects as mean_true_effects
from .true_effects import true_effects as true_effects

__all__: list[str]
