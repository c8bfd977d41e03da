"""Models that are no torch module of this process, as predictors: estimators, exported files and callables."""
