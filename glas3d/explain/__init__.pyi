from .image import explain_image as explain_image
from .image_result import ImageExplanation as ImageExplanation
from .image_result import ImageRound as ImageRound
from .outputs import STATISTICS as STATISTICS
from .result import ScanExplanation as ScanExplanation
from .scan import explain_img as explain_img
from .table import COLUMNS as COLUMNS
from .table import EVIDENCE as EVIDENCE
from .table import ranked as ranked

__all__ = [
    "COLUMNS",
    "EVIDENCE",
    "STATISTICS",
    "ImageExplanation",
    "ImageRound",
    "ScanExplanation",
    "explain_image",
    "explain_img",
    "ranked",
]
