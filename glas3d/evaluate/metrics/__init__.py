"""Metrics of a map: does it find a truth, does the model depend on what it ranks first, and is it repeatable?

Against a truth map or table: `detection`, `earth_movers`, `intersection_over_union`, `pointing`, `landmark_distance`;
against the true effects of regions: `effect_correlation`. Against the model: `deletion_curve`, `insertion_curve`,
`ranking_curves`, `score_drop`. Of maps alone: `sparsity`, `repeatability`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
