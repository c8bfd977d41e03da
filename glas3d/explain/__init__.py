"""Explain one scan or image: maps on its own grid and a ranked table.

In the order a scan meets them: `scan` (`explain_img`), `options` (every option, declared once), `inputs` (scans become
channels on one grid, and the reference that replaces tissue), `search` (where to search), `preset` (settings that were
not given), `modes` (how the model is evaluated), `outputs`, `result` and `table` (maps on the native grid, the ranked
table, files). `cost` estimates beforehand what an explanation takes. `image` (`explain_image`) and `image_result` are
the same for images.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
