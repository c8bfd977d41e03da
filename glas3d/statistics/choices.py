"""Choices and counts that the tests take, checked; nothing heavy is imported, so that commands can list them."""

from __future__ import annotations

from typing import Literal, get_args

from glas3d.errors import GlasError

Normalise = Literal["share", "clr", "minmax", "none"]
Null = Literal["sign-flip", "bootstrap-t", "permutation"]
CorrelationMethod = Literal["pearson", "spearman"]


def check_normalise(normalise: str) -> None:
    """Refuse a scale that does not exist."""
    if normalise not in get_args(Normalise):
        raise GlasError(f"normalise must be one of {', '.join(get_args(Normalise))}, got {normalise!r}")


def check_method(method: str) -> None:
    """Refuse a correlation that does not exist."""
    if method not in get_args(CorrelationMethod):
        raise GlasError(f'method must be "pearson" or "spearman", got {method!r}')


def check_null(null: str) -> None:
    """Refuse a null distribution that does not exist."""
    if null not in get_args(Null):
        raise GlasError(f"null must be one of {', '.join(get_args(Null))}, got {null!r}")


# Draws of a null distribution with which a p-value can be 0.05.
FEWEST_DRAWS = 19


def check_counts(n_perm: int, n_boot: int) -> None:
    """Refuse numbers of permutations and resamples that cannot give a result."""
    if n_perm < FEWEST_DRAWS:
        raise GlasError(f"n_perm must be at least {FEWEST_DRAWS}, for a p-value to be 0.05, got {n_perm}")
    if n_boot < 0:
        raise GlasError(f"n_boot must be 0 (no interval) or more, got {n_boot}")


def covariate_column(covariate: str) -> str:
    """Return the column of a covariate, which ``C(column)`` takes as categories.

    Examples
    --------
    >>> covariate_column("C(scanner)"), covariate_column("age")
    ('scanner', 'age')
    """
    return covariate[2:-1] if covariate.startswith("C(") and covariate.endswith(")") else covariate
