"""Recomputing only what a perturbation changed of a network's activations."""
