from . import audits as audits
from . import localisation as localisation
from . import metrics as metrics
from . import rivals as rivals
from .attribution import Attribution as Attribution
from .attribution import Comparison as Comparison
from .attribution import attribute as attribute
from .attribution import compare as compare
from .captum import GLASAttribution as GLASAttribution
from .quantus import explain_func as explain_func
from .true_effects import mean_true_effects as mean_true_effects
from .true_effects import true_effects as true_effects
from .truth import Truth as Truth
from .truth import follow_truth as follow_truth
from .truth import method_values as method_values

__all__: list[str]
