from .deletion import DeletionCurve as DeletionCurve
from .deletion import deletion_curve as deletion_curve
