"""Tests on tables and maps: two groups, correlation, design, resampling, stability.

Knows neither BIDS nor NIfTI files.
"""
