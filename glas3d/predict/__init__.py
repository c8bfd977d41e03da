"""Anything that classifies, as ``predict(batch) -> probabilities``; the paper's networks and their training."""
