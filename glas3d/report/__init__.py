"""Figures of explanations (nilearn.plotting)."""
