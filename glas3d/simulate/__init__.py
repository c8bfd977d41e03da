"""Participants with known truth, simulated and written as a BIDS data set."""
