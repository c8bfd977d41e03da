"""Train one model for each fold, so that every participant can be explained by a model that never saw them."""
