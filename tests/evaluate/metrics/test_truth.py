"""Metrics against a truth: cases by hand, Quantus, scikit-learn, SciPy and scikit-image where they do the case too."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr, wasserstein_distance
from skimage.measure import label, regionprops
from sklearn.metrics import average_precision_score, jaccard_score, roc_auc_score

from glas3d.evaluate.metrics import (
    detection,
    earth_movers,
    effect_correlation,
    highest_point,
    intersection_over_union,
    landmark_distance,
    pointing,
    pointing_game,
    sparsity,
)
from tests.core.cases import refused

SHAPES = {2: (9, 12), 3: (6, 7, 9)}
QUIET = {"disable_warnings": True, "display_progressbar": False}
AFFINE = np.array([[0.0, 2.0, 0, 5], [-3.0, 0, 0, 1], [0, 0, 4.0, 2], [0, 0, 0, 1]])


def case(ndim, seed=0):
    """A map and a truth, of several voxels that are true."""
    rng = np.random.default_rng(seed)
    truth = np.zeros(SHAPES[ndim])
    truth[(slice(2, 5), slice(3, 6), slice(4, 6))[:ndim]] = 1
    return rng.normal(size=SHAPES[ndim]) + 1.2 * truth, truth


def of_quantus(name, saliency, truth):
    """The value of a metric of Quantus for one map that is given to it as it is."""
    quantus = pytest.importorskip("quantus")
    metric = getattr(quantus, name)(abs=False, normalise=False, **QUIET)
    shape = (1, 1, *saliency.shape)
    return metric(
        model=None,
        x_batch=np.zeros(shape),
        y_batch=np.zeros(1, dtype=int),
        a_batch=saliency.reshape(shape),
        s_batch=truth.reshape(shape).astype(bool),
        channel_first=True,
    )[0]


# Detection.


@pytest.mark.parametrize("ndim", [2, 3])
def test_detection_agrees_with_scikit_learn_and_quantus(ndim):
    saliency, truth = case(ndim)
    found = detection(saliency, truth)
    assert found.average_precision == average_precision_score(truth.ravel(), saliency.ravel())
    assert found.auroc == roc_auc_score(truth.ravel(), saliency.ravel())
    assert found.chance == truth.mean()
    assert found.k == truth.sum()
    assert found.precision == pytest.approx(of_quantus("RelevanceRankAccuracy", saliency, truth))
    assert found.auroc == pytest.approx(of_quantus("AUC", saliency, truth))
    positive = saliency.clip(min=0)
    assert found.mass == pytest.approx(of_quantus("RelevanceMassAccuracy", positive, truth))
    assert found.mass == detection(positive, truth).mass


def test_detection_by_hand():
    """The order is a, c, d, b with a and d true: precision 1 at the first hit, 2/3 at the second."""
    found = detection([0.9, -2.0, 0.8, 0.3], [1, 0, 0, 5])
    assert found.average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert found.auroc == 3 / 4
    assert (found.precision, found.k) == (0.5, 2)
    assert found.mass == pytest.approx(1.2 / 2.0)
    assert detection([0.9, -2.0, 0.8, 0.3], [1, 0, 0, 5], k=3).precision == pytest.approx(2 / 3)
    # of two that tie at the second place one is true: expected over their order
    assert detection([3, 2, 2, 0], [1, 1, 0, 0], k=2).precision == 0.75
    assert np.isnan(detection([-1, -2], [1, 0]).mass)


def test_values_that_know_nothing_are_at_chance():
    truth = np.arange(1000) < 100
    found = detection(np.zeros(1000), truth)
    assert found.average_precision == pytest.approx(0.1)
    assert (found.auroc, found.precision) == (0.5, pytest.approx(0.1))


# Kinds of input.


def images(saliency, truth, affine=AFFINE):
    return nib.Nifti1Image(saliency.astype(np.float32), AFFINE), nib.Nifti1Image(truth.astype(np.float32), affine)


def test_images_are_read_as_arrays_are(tmp_path):
    saliency, truth = case(3)
    img, truth_img = images(saliency, truth)
    assert detection(img, truth_img) == detection(saliency.astype(np.float32), truth)
    nib.save(img, tmp_path / "map.nii.gz")
    nib.save(truth_img, tmp_path / "truth.nii.gz")
    assert detection(tmp_path / "map.nii.gz", str(tmp_path / "truth.nii.gz")) == detection(img, truth_img)


def tables():
    scores = pd.DataFrame({"index": [7, 3, 9, 4], "name": list("abcd"), "score": [0.9, 0.2, 0.4, np.nan]})
    truth = pd.DataFrame({"index": [3, 4, 7, 9], "planted": [0, 0, 1, 1], "effect": [0.0, 0.0, 2.0, 1.0]})
    return scores, truth


def test_tables_are_joined_by_their_index():
    """In another order; the region without a voxel, and so without a score, is left out."""
    scores, truth = tables()
    assert detection(scores, truth) == detection([0.2, 0.9, 0.4], [0, 1, 1])
    assert effect_correlation(scores, truth).pearson == effect_correlation([0.2, 0.9, 0.4], [0, 2, 1]).pearson
    renamed = scores.rename(columns={"score": "lime"})
    assert detection(renamed, truth, score="lime", effect="effect") == detection(scores, truth)


def moved(axis=0, by=0.1):
    affine = AFFINE.copy()
    affine[axis, 3] += by
    return affine


@pytest.mark.parametrize(
    ("values", "truth", "match"),
    [
        (np.ones((3, 4)), np.ones((4, 3)), r"on the voxel grid of the map, got \(3, 4\) and \(4, 3\)"),
        (np.ones(3), tables()[1], "values and truth must be of one kind, got an array and a table"),
        (*images(case(3)[0], case(3)[1][:-1]), r"on the voxel grid of the map, got \(6, 7, 9\) and \(5, 7, 9\)"),
        (*images(*case(3), moved()), "on the voxel grid of the map, got affines that differ: .*resample_to_img"),
        (np.arange(4.0), np.zeros(4), "a truth must hold something to be found, all of 4 values are 0"),
        (np.arange(4.0), np.ones(4), "something that is not to be found, none of 4 values is 0"),
        ([1.0, np.nan], [1, 0], "a map must hold finite numbers, got NaN or infinity"),
        ([], [], "a map must hold finite numbers, got none"),
        (["a", "b"], [1, 0], "a map must hold numbers, got list"),
        (tables()[0], tables()[1][1:], "both tables must have the same regions, 1 are in one alone: 3"),
        (tables()[0], tables()[1].assign(planted=1), "regions with an effect must have a score, got none for 4"),
        (tables()[0], tables()[0], "must have the columns index and planted, got no planted"),
    ],
)
def test_a_truth_that_does_not_fit_is_one_sentence(values, truth, match):
    with refused(match):
        detection(values, truth)


def test_k_beyond_the_values_is_refused():
    with refused("k must be at most the number of values, 3, got 4"):
        detection([1, 2, 3], [0, 1, 0], k=4)


# Earth mover's distance.


def test_earth_movers_distance_by_hand():
    """Half of the mass moves by 2 voxels, of 3 mm; the image is 3 x 4 voxels of 3 x 2 mm."""
    saliency, truth = np.zeros((3, 4)), np.zeros((3, 4))
    saliency[0, 0], saliency[2, 1], saliency[1, 1] = 4, 4, -9
    truth[0] = [7, 0, 0, 0]
    truth[0, 1] = 7
    found = earth_movers(saliency, truth)
    assert found.distance == pytest.approx(1.0)
    assert found.score == pytest.approx(1 - 1 / np.hypot(2, 3))
    volume = np.zeros((3, 4, 1)), np.zeros((3, 4, 1))
    volume[0][..., 0], volume[1][..., 0] = saliency, truth
    assert earth_movers(*images(*volume)).distance == pytest.approx(3.0)  # the first axis has 3 mm
    assert earth_movers(truth, truth).score == 1


def test_earth_movers_distance_along_one_axis_agrees_with_scipy():
    rng = np.random.default_rng(0)
    saliency, truth = rng.uniform(size=30), (rng.uniform(size=30) > 0.7) * rng.uniform(size=30)
    positions = rng.uniform(0, 50, 30)
    expected = wasserstein_distance(positions, positions, saliency, truth)
    assert earth_movers(saliency, truth, positions=positions[:, None]).distance == pytest.approx(expected, abs=1e-6)


def test_many_voxels_are_summed_over_blocks():
    """A ball of 515 voxels, moved by 10 voxels."""
    centre = np.indices((40, 24, 22)) - np.array([10, 11, 10]).reshape(3, 1, 1, 1)
    ball = (np.square(centre).sum(axis=0) < 25).astype(float)
    assert ball.sum() > 400
    found = earth_movers(ball, np.roll(ball, 10, axis=0))
    assert found.distance == pytest.approx(10, rel=0.03)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (([1, 2], [1, 0], None), "the earth mover's distance of regions needs their positions"),
        (([1, 2], [1, 0], [[1], [2], [3]]), r"positions must be \(2, d\), one for each region, got \(3, 1\)"),
        (([-1, 0], [1, 0], [[1], [2]]), "needs a map with positive values, got none"),
        (([1, 2], [0, 0], [[1], [2]]), "a truth must hold something to be found"),
    ],
)
def test_earth_movers_distance_that_cannot_be_had(arguments, match):
    values, truth, positions = arguments
    with refused(match):
        earth_movers(values, truth, positions=positions)


# True effects.


def test_correlation_with_true_effects():
    rng = np.random.default_rng(0)
    effects = np.where(np.arange(60) < 7, rng.uniform(1, 9, 60), 0)
    scores = effects + rng.normal(size=60)
    found = effect_correlation(scores, effects)
    assert found.pearson == pytest.approx(np.corrcoef(scores, effects)[0, 1])
    assert found.spearman == pytest.approx(spearmanr(scores[:7], effects[:7]).statistic)
    assert (found.n_regions, found.n_with_effect) == (60, 7)
    scaled = effect_correlation(-3 * scores + 1, effects)
    assert (scaled.pearson, scaled.spearman) == (pytest.approx(-found.pearson), pytest.approx(-found.spearman))


def test_correlations_that_do_not_exist():
    assert np.isnan(effect_correlation([1, 1, 1], [0, 1, 2]).pearson)
    assert np.isnan(effect_correlation([1, 2, 3, 4], [0, 0, 1, 2]).spearman)
    with refused("true effects must hold one that is not 0, all of 3 are 0"):
        effect_correlation([1, 2, 3], [0, 0, 0])
    with refused("a correlation needs effects that differ, all of 2 are 1.5"):
        effect_correlation([1, 2], [1.5, 1.5])


# Pointing.


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_the_pointing_game_agrees_with_quantus(ndim, seed):
    saliency, truth = case(ndim, seed)
    assert pointing(saliency, truth).hit == of_quantus("PointingGame", saliency, truth)


def test_the_blob_agrees_with_scikit_image():
    rng = np.random.default_rng(3)
    saliency = rng.uniform(size=(30, 36)) ** 0.02
    scaled = (saliency - saliency.min()) / np.ptp(saliency)
    largest = max(regionprops(label(scaled > 0.95, connectivity=1)), key=lambda region: region.area)
    np.testing.assert_allclose(highest_point(saliency, 0.95), largest.centroid)
    assert largest.area > 5


def test_the_point_by_hand():
    saliency = np.zeros((6, 7, 8))
    saliency[1, 2, 3] = 10  # the highest voxel
    saliency[4, 2:4, 5:7] = 9.8  # the largest blob
    saliency[5, 4, 7] = 9.8  # touches it at a corner only
    assert highest_point(saliency).tolist() == [1, 2, 3]
    assert highest_point(saliency, 0.95).tolist() == [4, 2.5, 5.5]
    assert highest_point(saliency, 0.99).tolist() == [1, 2, 3]
    assert landmark_distance(saliency, (1, 5, 3), spacing=(1, 2, 1)) == 6
    assert landmark_distance(saliency, (4, 2.5, 2.5), level=0.95) == 3
    with refused("a landmark and a spacing must have 3 numbers"):
        landmark_distance(saliency, (1, 2))


def test_boxes_masks_tolerance_and_small_objects():
    saliency = np.zeros((20, 24))
    saliency[10, 12] = 1
    assert pointing(saliency, ((8, 11), (12, 15))).hit
    assert not pointing(saliency, ((8, 10), (12, 15))).hit  # the end is not part of the box
    assert pointing(saliency, ((8, 10), (12, 15)), tolerance=1).hit
    assert not pointing(saliency, ((0, 3), (12, 15)), tolerance=7.9).hit
    assert pointing(saliency, ((0, 3), (12, 15)), tolerance=8).hit
    # a quarter of 20 x 24 is 120 pixels
    assert not pointing(saliency, ((0, 10), (0, 12))).small
    assert pointing(saliency, ((0, 10), (0, 11))).small
    corners = np.zeros((20, 24))
    corners[0, 0] = corners[19, 23] = 1  # few voxels, but a box as large as the image
    assert not pointing(saliency, corners).small
    both = [((0, 2), (0, 3)), ((9, 12), (11, 15))]  # several boxes of one object: their areas count
    assert pointing(saliency, both).hit
    assert pointing(saliency, both).small
    assert not pointing(saliency, both[:1]).hit
    rounds = [pointing(saliency, box) for box in (((0, 20), (0, 24)), ((9, 12), (9, 15)), ((0, 2), (0, 2)))]
    game = pointing_game(rounds)
    assert (game.accuracy, game.accuracy_small, game.n, game.n_small) == (pytest.approx(2 / 3), 0.5, 3, 2)
    assert pointing_game(rounds, ["a", "a", "b"]).accuracy == 0.5
    assert np.isnan(pointing_game(rounds[:1]).accuracy_small)


@pytest.mark.parametrize(
    ("target", "match"),
    [
        (((0, 3), (5, 5)), "a box must hold first voxel and end along each axis"),
        (((0, 3), (5, 25)), "a box must hold first voxel and end along each axis"),
        (np.zeros((20, 24)), "a truth must hold something to be found"),
        (np.ones((24, 20)), r"a box, boxes or a mask on the map's grid \(20, 24\), got \(24, 20\)"),
    ],
)
def test_objects_that_are_refused(target, match):
    with refused(match):
        pointing(np.arange(480.0).reshape(20, 24), target)


def test_a_flat_map_points_nowhere():
    with refused("a map that points somewhere must not be flat"):
        highest_point(np.ones((3, 4)))
    with refused("level must be from 0 to below 1, got 1"):
        highest_point(np.arange(4.0), 1)
    with refused("a pointing game needs rounds and one class for each, got 0 and 0"):
        pointing_game([])


@pytest.mark.parametrize("ndim", [2, 3])
def test_overlap_agrees_with_scikit_learn(ndim):
    saliency, truth = case(ndim)
    scaled = (saliency - saliency.min()) / np.ptp(saliency)
    thresholds = (0.1, 0.3, 0.5, 0.7, 0.9)
    expected = [jaccard_score(truth.ravel(), scaled.ravel() > threshold) for threshold in thresholds]
    np.testing.assert_allclose(intersection_over_union(saliency, truth), expected)
    np.testing.assert_allclose(intersection_over_union(5 * saliency - 2, truth), expected)
    with refused(r"thresholds must be from 0 to 1, got \[1.5\]"):
        intersection_over_union(saliency, truth, [1.5])
    with refused("a truth must hold something to be found"):
        intersection_over_union(saliency, 0 * truth)
    # an object may fill the image
    np.testing.assert_allclose(intersection_over_union(saliency, np.ones_like(truth), [0.5]), (scaled > 0.5).mean())


# Sparsity.


@pytest.mark.parametrize("ndim", [2, 3])
def test_sparsity_agrees_with_quantus(ndim):
    saliency, truth = case(ndim)
    expected = of_quantus("Sparseness", np.abs(saliency), truth)
    assert sparsity(saliency) == pytest.approx(expected, abs=1e-6)
    assert sparsity(-7 * saliency) == pytest.approx(sparsity(saliency))


def test_sparsity_of_nothing_is_refused():
    with refused("sparsity needs a map that is not 0 everywhere"):
        sparsity(np.zeros((3, 4)))
