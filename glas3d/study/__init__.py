"""Many participants: cohort (BIDS in), training (folds), running (participant level), group (group level)."""
