"""Clusters of significant voxels and their peaks."""

import nibabel as nib
import numpy as np
import pytest
from nilearn.reporting import get_clusters_table
from scipy import ndimage

from glas3d import GlasError
from glas3d.statistics.clusters import cluster_tables

AFFINE = np.array([[-3.0, 0, 0, 40], [0, 2, 0, -30], [0, 0, 4, -20], [0, 0, 0, 1]])
SHAPE = (11, 13, 9)


def p_of(t, threshold=3.0):
    return np.where(np.abs(t) >= threshold, 0.01, 0.8)


def smooth(seed=0):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(21, 23, 19)), 1.5)
    return 4 * noise / noise.std()


def test_clusters_are_those_of_nilearn():
    """Where it has at most four peaks in a cluster."""
    t = smooth()
    found = cluster_tables(t, p_of(t, 8.0), AFFINE)
    expected = get_clusters_table(nib.Nifti1Image(t, AFFINE), 8.0 - 1e-9, two_sided=True, min_distance=8.0)
    sizes = expected["Cluster Size (mm3)"].replace("", np.nan).dropna().astype(float)
    assert len(found.clusters) == len(sizes) > 4
    np.testing.assert_allclose(sorted(found.clusters["volume"]), sorted(sizes))
    own = {tuple(row) for row in found.peaks[["x", "y", "z"]].round(3).to_numpy().tolist()}
    assert {tuple(row) for row in expected[["X", "Y", "Z"]].astype(float).round(3).to_numpy().tolist()} <= own
    assert (found.peaks["statistic"] < 0).any()
    assert (found.peaks["statistic"] > 0).any()


def test_positions_sizes_and_regions_in_closed_form():
    t = np.zeros(SHAPE)
    t[2:5, 3:5, 4], t[4, 4, 4] = 4.0, 6.0
    t[8, 9:12, 2], t[8, 11, 2] = -5.0, -7.0
    t[8, 0, 2] = 3.5
    labels = np.zeros(SHAPE, dtype=int)
    labels[:4], labels[4, :4], labels[8, 10:] = 7, 7, 300
    found = cluster_tables(t, p_of(t), AFFINE, labels=labels, names={7: "Left", 300: "Right"})
    first, second, third = found.clusters.to_dict("records")
    assert (first["n_voxels"], first["volume"], first["n_peaks"]) == (6, 144.0, 1)
    assert (first["x"], first["y"], first["z"]) == (40 - 12, -30 + 8, -20 + 16)
    assert (first["statistic"], first["p"], first["name"]) == (6.0, 0.01, "no region")
    assert first["regions"] == "Left 0.833, no region 0.167"
    assert (second["n_voxels"], second["statistic"], second["index"]) == (3, -7.0, 300)
    assert second["regions"] == "Right 0.667, no region 0.333"
    assert (third["n_voxels"], third["statistic"]) == (1, 3.5)
    assert found.clusters["cluster"].tolist() == [1, 2, 3]


def test_every_peak_is_found_and_those_nearby_count_once():
    """Nine peaks along a ridge; nilearn stops at four."""
    t = np.zeros((40, 5, 5))
    t[1:38, 2, 2] = 3.0 + (np.arange(37) % 4 == 0) * np.linspace(2, 1, 37)
    peaks = cluster_tables(t, p_of(t), np.diag([3.0, 2.0, 4.0, 1.0])).peaks
    assert len(peaks) == 10
    assert peaks["statistic"].is_monotonic_decreasing
    assert peaks["x"].tolist() == (3.0 * np.arange(1, 38, 4)).tolist()
    near = cluster_tables(t, p_of(t), np.diag([1.0, 2.0, 4.0, 1.0])).peaks
    assert near["x"].tolist() == np.arange(1.0, 38, 8).tolist()


def test_voxels_of_one_value_have_one_peak_unless_they_touch_higher_ones():
    t = np.zeros((30, 7, 9))
    t[2:9, 2:5, 3:6], t[9:14, 2:5, 3:6], t[14:23, 2:5, 3:6] = 5.0, 4.0, 6.0
    peaks = cluster_tables(t, p_of(t), np.diag([3.0, 2.0, 4.0, 1.0])).peaks
    assert peaks["statistic"].tolist() == [6.0, 5.0]
    assert peaks[["x", "y", "z"]].to_numpy().tolist() == [[54.0, 6.0, 16.0], [15.0, 6.0, 16.0]]


def test_a_peak_lies_inside_its_cluster():
    """The centre of a ring is not in it."""
    t = np.zeros((9, 9, 5))
    t[2:7, 2:7, 2], t[3:6, 3:6, 2] = 4.0, 0.0
    (row,) = cluster_tables(t, p_of(t), np.diag([3.0, 2.0, 4.0, 1.0])).peaks.to_dict("records")
    assert row["statistic"] == 4.0


def test_without_a_significant_voxel_tables_are_empty():
    t = np.full(SHAPE, np.nan)
    t[2:5] = 1.0
    found = cluster_tables(t, np.where(np.isnan(t), np.nan, 0.3), AFFINE)
    assert found.clusters.empty
    assert found.peaks.columns.tolist() == ["cluster", "peak", "x", "y", "z", "statistic", "p", "index", "name"]
    with pytest.raises(GlasError, match="volumes of one shape"):
        cluster_tables(t, t[1:], AFFINE)
