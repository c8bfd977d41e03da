"""One scan or image in, maps on its own grid and a ranked table out.

In the order a scan meets them: `scan` (`explain_img`, the door), `inputs` (scans to channels on one grid, and what a
spot puts in their place), `answers` (the ways of asking: plainly, again and again, over scales, references or
channels), `result` (maps home, table, files). `image` is the door for 2D images.
"""

from glas3d.explain.result import STATISTICS, ScanExplanation
from glas3d.explain.scan import explain_img
from glas3d.explain.table import COLUMNS, ranked

__all__ = ["COLUMNS", "STATISTICS", "ScanExplanation", "explain_img", "ranked"]
