from .curves import RankingCurve as RankingCurve
from .curves import RankingCurves as RankingCurves
from .curves import deletion_curve as deletion_curve
from .curves import insertion_curve as insertion_curve
from .curves import ranking_curves as ranking_curves
from .detection import Detection as Detection
from .detection import Transport as Transport
from .detection import detection as detection
from .detection import earth_movers as earth_movers
from .effects import EffectCorrelation as EffectCorrelation
from .effects import effect_correlation as effect_correlation
from .pointing import Pointing as Pointing
from .pointing import PointingGame as PointingGame
from .pointing import highest_point as highest_point
from .pointing import intersection_over_union as intersection_over_union
from .pointing import landmark_distance as landmark_distance
from .pointing import pointing as pointing
from .pointing import pointing_game as pointing_game
from .repeatability import Repeatability as Repeatability
from .repeatability import repeatability as repeatability
from .score_drop import ScoreDrop as ScoreDrop
from .score_drop import rearranged as rearranged
from .score_drop import score_drop as score_drop
from .sparsity import sparsity as sparsity

__all__: list[str]
