"""Options of the group level, declared once: keywords, options of the command and sidecars are derived from them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from glas3d.bids_names import have_distinct_labels
from glas3d.errors import GlasError
from glas3d.options import option
from glas3d.statistics.choices import (
    CorrelationMethod,
    Normalise,
    Null,
    check_counts,
    check_method,
    check_normalise,
    check_null,
    covariate_column,
)

VOLUME_CHANGE = "volume change"

_MAPS, _TESTS = "Group maps (group level)", "Tests (group level)"
_VOXELS, _CORRELATIONS = "Voxelwise comparison (group level)", "Correlations (group level)"
_SESSIONS = "Change over sessions (group level)"
_RUNS = "Stability (group level)"

# Keys of sidecars that are not the option's name in CamelCase.
_SIDECAR_KEYS = {"n_perm": "Permutations", "n_boot": "Resamples", "tfce": "TFCE", "other_run": "OtherRuns"}


@dataclass(frozen=True, kw_only=True)
class GroupOptions:
    """What is computed of the groups of a study.

    Parameters
    ----------
    normalise
        Scale of each participant's scores in comparisons and correlations: "share" divides them by their sum, "clr"
        takes centred log-ratios, which do not fall where another region rises, "minmax" brings them to 0 to 1 as group
        maps do, "none" leaves them unchanged.
    covariates
        Columns of participants.tsv to hold fixed in comparisons and correlations, such as age and sex. Text is
        categories; C(column) takes numbers as categories, too.
    site
        Column of participants.tsv with the sites, between which differences are held fixed; permutations are within
        sites. Default: one site.
    on_missing
        What happens if a participant has no value of a covariate or no site: fail ends the work, skip leaves the
        participant out of the tests with a warning.
    null
        Null distribution of comparisons. "sign-flip" and "bootstrap-t" test whether the means are equal and allow
        unequal spread; the first assumes symmetric values, the second does not and finds less. "permutation" tests
        whether the distributions are equal.
    n_perm
        Number of draws from the null distribution of each test; no p-value is below 1 / (``n_perm`` + 1).
    n_boot
        Number of bootstrap resamples for 95 % intervals; 0 leaves the intervals out.
    seed
        Seed of permutations and resamples.
    all_pairs
        Compare every two groups, not only case and control.
    omnibus
        Test three groups or more together: whether any of them differs. Every two groups are then compared, too.
    top
        Percentage for the overlap map, which counts for every region or voxel the participants that have it among the
        highest-scoring voxels, as many as this percentage.
    voxelwise
        Compare the groups' maps voxel by voxel too.
    tfce
        Test threshold-free cluster enhancement (TFCE) of the voxels too; needs ``voxelwise``.
    voxel_mask
        Image of the voxels to compare; needs ``voxelwise``. Default: the voxels of the atlas's regions, or on a grid
        those of the template's brain.
    correlate
        Columns of participants.tsv with which every region's saliency is correlated, such as MMSE, in each group.
    correlation
        Kind of correlation: Pearson's r or Spearman's rho.
    volume_change
        Table of the change of each region's volume, with which saliency is correlated. Its columns are participant_id
        and one for each region, or participant_id, name and change. Default: no such correlation.
    slope_over
        Column with the time of each session, such as years, or dates, which become years. Each participant's slope of
        saliency over it is tested in each group and compared between groups. Default: no slopes.
    other_run
        Folders OUT of other runs of this study: the same participants, explained with models that were trained from
        another seed. For each group, the mean scores of all runs are compared: Spearman's correlation, and the
        overlap of the ``k`` highest-scoring regions.
    k
        Number of highest-scoring regions whose overlap is measured between folds, and between the runs of
        ``other_run``; fewer where there are fewer regions.

    Raises
    ------
    GlasError
        A choice that does not exist, too few permutations, a voxel option without voxelwise, columns whose files
        would have the same name, or a column that is to be held fixed and correlated with.
    """

    normalise: Normalise = option("share", group=_TESTS)
    covariates: tuple[str, ...] = option((), group=_TESTS)
    site: str | None = option(None, group=_TESTS)
    on_missing: Literal["fail", "skip"] = option("fail", group=_TESTS)
    null: Null = option("sign-flip", group=_TESTS)
    n_perm: int = option(10_000, group=_TESTS)
    n_boot: int = option(1000, group=_TESTS)
    seed: int = option(0, group=_TESTS)
    all_pairs: bool = option(False, group=_TESTS)
    omnibus: bool = option(False, group=_TESTS)
    top: float = option(5.0, group=_MAPS)
    voxelwise: bool = option(False, group=_VOXELS)
    tfce: bool = option(False, group=_VOXELS)
    voxel_mask: Path | None = option(None, group=_VOXELS)
    correlate: tuple[str, ...] = option((), group=_CORRELATIONS)
    correlation: CorrelationMethod = option("pearson", group=_CORRELATIONS)
    volume_change: Path | None = option(None, group=_CORRELATIONS)
    slope_over: str | None = option(None, group=_SESSIONS)
    other_run: tuple[Path, ...] = option((), group=_RUNS)
    k: int = option(10, group=_RUNS)

    def __post_init__(self) -> None:
        self._tidy()
        check_normalise(self.normalise)
        check_null(self.null)
        if self.on_missing not in ("fail", "skip"):
            raise GlasError(f'on_missing must be "fail" or "skip", got {self.on_missing!r}')
        check_counts(self.n_perm, self.n_boot)
        check_method(self.correlation)
        if not self.voxelwise and (self.tfce or self.voxel_mask is not None):
            name = "tfce" if self.tfce else "a voxel mask"
            raise GlasError(f"{name} is for a voxelwise comparison, which needs voxelwise=True (--voxelwise)")
        fixed = [covariate_column(name) for name in self.covariates] + ([self.site] if self.site else [])
        if both := [name for name in self.correlate if name in fixed]:
            raise GlasError(
                f"a column cannot be held fixed and correlated with, got {', '.join(both)} as covariate or site and in "
                "correlate"
            )
        if not have_distinct_labels([*self.correlate, VOLUME_CHANGE]):
            raise GlasError(
                "columns to correlate with need letters or digits that tell their files apart, "
                f"got {', '.join(self.correlate)}"
            )

    def sidecar(self, *names: str) -> dict[str, Any]:
        """Return options as sidecars record them, files and folders by name; all of them where no names are given."""
        keys = self.sidecar_keys()
        return {keys[name]: _plain(getattr(self, name)) for name in names or keys}

    def sidecar_keys(self) -> dict[str, str]:
        """Return the keys under which sidecars record the options, by the options' names."""
        return {each.name: _sidecar_key(each.name) for each in fields(self)}

    def _tidy(self) -> None:
        """Bring sequences to tuples and paths to `Path`; a single name or path is a sequence of one."""
        for name, kind in (("covariates", str), ("correlate", str), ("other_run", Path)):
            value = getattr(self, name)
            items = (value,) if isinstance(value, str | Path) else value
            object.__setattr__(self, name, tuple(kind(item) for item in items))
        for name in ("voxel_mask", "volume_change"):
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, Path(path))


def _sidecar_key(name: str) -> str:
    return _SIDECAR_KEYS.get(name) or "".join(word.capitalize() for word in name.split("_"))


def _plain(value: Any) -> Any:
    """Return a value for JSON."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.name if isinstance(value, Path) else value
