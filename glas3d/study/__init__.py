"""Many participants: simulated cohorts with known truth, and group maps."""
