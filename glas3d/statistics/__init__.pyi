from .correlation import ChangeCorrelation as ChangeCorrelation
from .correlation import change_correlation as change_correlation
from .correlation import correlate as correlate
from .design import NuisanceDesign as NuisanceDesign
from .design import TwoGroupDesign as TwoGroupDesign
from .design import nuisance_design as nuisance_design
from .design import strata as strata
from .design import two_group_design as two_group_design
from .effect_size import cohen_d as cohen_d
from .effect_size import cohen_d_interval as cohen_d_interval
from .effect_size import hedges_g as hedges_g
from .folds import compare_within_folds as compare_within_folds
from .map_sums import MapSums as MapSums
from .regions import density as density
from .regions import laterality as laterality
from .regions import normalised as normalised
from .regions import region_values as region_values
from .resampling import bootstrap_interval as bootstrap_interval
from .resampling import p_values as p_values
from .resampling import shuffles as shuffles
from .stability import Stability as Stability
from .stability import bootstrap_ranks as bootstrap_ranks
from .stability import run_stability as run_stability
from .two_groups import compare as compare

__all__: list[str]
