"""One scan or image in, maps on its own grid and a ranked table out.

In the order a scan meets them: `scan` (`explain_img`, the door), `inputs` (scans to channels on one grid, and what a
spot puts in their place), `where` (to look), `answers` (the ways of asking: plainly, again and again, over scales,
references or channels), `table` and `result` (maps home, table, files). `cost` tells beforehand what that takes.
`image` (`explain_image`) is the door for pictures, `image_result` what it gives back.
"""

from glas3d.explain.image import explain_image
from glas3d.explain.image_result import ImageExplanation, ImageRound
from glas3d.explain.outputs import STATISTICS
from glas3d.explain.result import ScanExplanation
from glas3d.explain.scan import explain_img
from glas3d.explain.table import COLUMNS, ranked

__all__ = [
    "COLUMNS",
    "STATISTICS",
    "ImageExplanation",
    "ImageRound",
    "ScanExplanation",
    "explain_image",
    "explain_img",
    "ranked",
]
