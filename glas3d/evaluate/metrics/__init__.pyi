from .deletion import DeletionCurve as DeletionCurve
from .deletion import deletion_curve as deletion_curve
from .score_drop import ScoreDrop as ScoreDrop
from .score_drop import rearranged as rearranged
from .score_drop import score_drop as score_drop

__all__: list[str]
