"""How far a map and a map from the literature agree, and how far surrogates of the latter would."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import nibabel as nib
import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score

from glas3d.errors import GlasError, GlasWarning
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.mask import template_brain
from glas3d.imaging.scan import Scan, load_scan
from glas3d.imaging.space import VoxelGrid, grid_of, mni_grid, resample
from glas3d.statistics.surrogates import SpatialSurrogates

VOXEL_MM = 4.0
"""Size of the voxels on which maps are compared; the two sides of the grid mirror each other."""

SHARES = (0.02, 0.05, 0.1, 0.2, 0.3)
"""Shares of the voxels that Dice compares: those with the highest values of both maps."""

FEWEST_REGIONS = 10
"""Regions are compared as well where both maps have at least this number of them."""

MARKED = 0.1
"""The share of voxels, or of regions, with the literature's highest values, which average precision looks for."""

_COVERED = 0.75  # of the brain, by the field of view of a literature's map
_IN_BRAIN = 0.5  # of the sum of the sizes of a literature's map


@lru_cache(maxsize=1)
def comparison_grid() -> VoxelGrid:
    """Return the grid on which maps are compared, in MNI space."""
    return mni_grid(VOXEL_MM)


@dataclass(frozen=True, eq=False)
class ComparedMap:
    """A map on the grid on which maps are compared.

    Attributes
    ----------
    inside
        ``(x, y, z)`` booleans, the voxels that are compared.
    values
        ``(n,)`` float64, the map in these voxels.
    labels
        ``(n,)`` int, the region of each voxel, from 0; None where regions are not compared.
    """

    inside: np.ndarray
    values: np.ndarray
    labels: np.ndarray | None

    @classmethod
    def of_regions(cls, index: Iterable[int], scores: Iterable[float], atlas: Atlas) -> ComparedMap:
        """Return the map of the scores of an atlas's regions; voxels of no region, or without a score, do not count.

        Parameters
        ----------
        index, scores
            The label of each region, and its score.
        atlas
            The atlas, in MNI space.
        """
        known = {int(i): float(score) for i, score in zip(index, scores, strict=True) if np.isfinite(score)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GlasWarning)  # of regions too small for the grid
            labels = np.asarray(atlas.on(comparison_grid()))
        inside = np.isin(labels, list(known))
        regions, own = np.unique(labels[inside], return_inverse=True)
        values = np.array([known[int(i)] for i in regions])[own]
        return cls._checked(inside, values, own if len(regions) >= FEWEST_REGIONS else None)

    @classmethod
    def of_image(cls, img: Any) -> ComparedMap:
        """Return an image in MNI space in the voxels of the template's brain."""
        brain = template_brain(comparison_grid())
        return cls._checked(brain, resample(img, comparison_grid())[brain].astype(np.float64), None)

    @classmethod
    def _checked(cls, inside: np.ndarray, values: np.ndarray, labels: np.ndarray | None) -> ComparedMap:
        if not len(values) or np.ptp(values) == 0:
            raise GlasError("a map that is compared with the literature must have values that differ, it is flat")
        return cls(inside, values, labels)

    def literature(self, scan: Scan, which: str) -> np.ndarray:
        """Return a map from the literature in the voxels of this map, ``(n,)`` float64, high where disease is.

        Parameters
        ----------
        scan
            The literature's map, see `read_literature`.
        which
            Which of its values mean disease: ``"high"``, ``"low"`` or ``"size"``, those far from 0.

        Raises
        ------
        GlasError
            It does not vary in these voxels.
        """
        values = resample(nib.Nifti1Image(scan.data, scan.affine), comparison_grid())[self.inside].astype(np.float64)
        values = np.asarray({"high": values, "low": -values, "size": np.abs(values)}[which])
        if np.ptp(values) == 0:
            raise GlasError(
                f"a map from the literature must vary where the map it is compared with has values, {scan.name} is "
                f"{values[0]:g} in all of these voxels: the two do not overlap"
            )
        return values


def read_literature(literature: Any) -> Scan:
    """Read a map from the literature, before work is spent on what it is compared with.

    Parameters
    ----------
    literature
        A path, a nibabel image, or a `Scan`.

    Raises
    ------
    GlasError
        It is no 3D image, has the same value everywhere, or is not in MNI space: its field of view or its values lie
        elsewhere.
    """
    what = "a map from the literature"
    scan = literature if isinstance(literature, Scan) else load_scan(literature, what=what)
    grid = comparison_grid()
    everywhere = resample(nib.Nifti1Image(np.ones_like(scan.data), scan.affine), grid)
    covered = float((everywhere[template_brain(grid)] > 0.5).mean())
    if covered < _COVERED:
        raise GlasError(
            f"{what} must be in MNI space and hold the brain, the field of view of {scan.name} holds {covered:z.0%} of "
            f"it ({_COVERED:z.0%} needed)"
        )
    size = np.abs(scan.data.astype(np.float64))
    share = float(size[template_brain(grid_of(scan))].sum() / size.sum())
    if share < _IN_BRAIN:
        raise GlasError(
            f"{what} must be in MNI space, {share:z.0%} of the values of {scan.name} lie in the brain "
            f"({_IN_BRAIN:z.0%} needed): bring it to MNI space, or mask what is outside the brain"
        )
    return scan


@dataclass(frozen=True)
class Agreement:
    """A number that says how far two maps agree, and what it is for surrogates.

    Attributes
    ----------
    name, units, description
        As in `Number`.
    value
        The number.
    null
        Its 95th percentile over surrogates.
    p
        The share of surrogates that agree as much or more, the map itself counted among them.
    """

    name: str
    units: str
    description: str
    value: float
    null: float
    p: float


def measure_agreement(
    compared: ComparedMap, literature: np.ndarray, n: int, seed: int = 0
) -> tuple[tuple[Agreement, ...], SpatialSurrogates]:
    """Measure how far two maps agree, more than surrogates of the second.

    Parameters
    ----------
    compared
        The map.
    literature
        ``(n,)`` the map from the literature in the same voxels, see `ComparedMap.literature`.
    n
        Number of surrogates.
    seed
        Seed of the random numbers.

    Returns
    -------
    The numbers, and the surrogates' model of the literature's map.
    """
    volume = np.zeros(compared.inside.shape)
    volume[compared.inside] = literature
    surrogates = SpatialSurrogates.fit(volume, compared.inside, comparison_grid().spacing)
    statistics = _Statistics(compared, literature)
    observed = statistics.of(literature)
    null = [statistics.of(each) for each in surrogates.draws(n, seed)]
    agreements = (_agreement(name, value, [each[name] for each in null]) for name, value in observed.items())
    return tuple(agreements), surrogates


def _agreement(name: str, value: float, null: list[float]) -> Agreement:
    as_much = np.asarray(null) >= value - 1e-12
    units, description = _described(name)
    return Agreement(
        name, units, description, value, float(np.percentile(null, 95)), float((1 + as_much.sum()) / (1 + len(null)))
    )


def _described(name: str) -> tuple[str, str]:
    """Return the units and the description of a number."""
    kind, _, of = name.partition("_")
    if kind == "spearman":
        return "rho", f"rank correlation over {of}"
    if kind == "ap":
        return (
            "average precision",
            f"of the tenth of {of} with the literature's highest values, in the order of the map",
        )
    return "Dice", f"overlap of the {of} % of voxels with the highest values of each map"


class _Statistics:
    """The numbers of agreement of a map with others that have the values of a literature's map."""

    def __init__(self, compared: ComparedMap, literature: np.ndarray) -> None:
        self._own, self._labels = compared.values, compared.labels
        least = literature.min()
        # shares that reach the lowest value, of which many voxels of a thresholded map have the same, have no order
        self._shares = [share for share in SHARES if _threshold(literature, share) > least]
        self._tops = [_top(self._own, share) for share in self._shares]
        self._ranks = _standard_ranks(self._own)
        if self._labels is not None:
            self._regions = self._means(self._own)
            self._region_ranks = _standard_ranks(self._regions)

    def _means(self, values: np.ndarray) -> np.ndarray:
        assert self._labels is not None
        return np.asarray(np.bincount(self._labels, values) / self._counts)

    @cached_property
    def _counts(self) -> np.ndarray:
        assert self._labels is not None
        return np.bincount(self._labels)

    def of(self, literature: np.ndarray) -> Mapping[str, float]:
        """Return the numbers by their names."""
        numbers: dict[str, float] = {}
        if self._labels is not None:
            means = self._means(literature)
            numbers["spearman_regions"] = float(self._region_ranks @ _standard_ranks(means))
            numbers["ap_regions"] = float(average_precision_score(_marked(means), self._regions))
        numbers["spearman_voxels"] = float(self._ranks @ _standard_ranks(literature))
        numbers["ap_voxels"] = float(average_precision_score(_marked(literature), self._own))
        for share, top in zip(self._shares, self._tops, strict=True):
            numbers[f"dice_{share * 100:g}"] = float(top @ _top(literature, share) / top.sum())
        return numbers


def _standard_ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks with a mean of 0 and a length of 1; zeros where all values are the same."""
    ranks = rankdata(values) - (len(values) + 1) / 2
    length = np.linalg.norm(ranks)
    return np.asarray(ranks / length if length > 0 else ranks)


def _threshold(values: np.ndarray, share: float) -> float:
    """Return the least value of the voxels with the highest values."""
    k = max(1, round(share * len(values)))
    return float(np.partition(values, -k)[-k])


def _top(values: np.ndarray, share: float) -> np.ndarray:
    """Return which voxels have the highest values: 1, or the share of those that tie at the threshold, or 0.

    Dice of two such arrays is its expectation over the order of the voxels that tie, as all voxels of a region do.
    """
    k, last = max(1, round(share * len(values))), _threshold(values, share)
    above, tied = values > last, values == last
    return np.asarray(above + tied * ((k - above.sum()) / tied.sum()))


def _marked(values: np.ndarray) -> np.ndarray:
    """Return which voxels or regions average precision looks for: a tenth, or those above the lowest value if fewer."""
    return np.asarray((values >= np.quantile(values, 1 - MARKED)) & (values > values.min()))
