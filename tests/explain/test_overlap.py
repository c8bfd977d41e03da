"""Evidence of regions from that of round masks that overlap them."""

import numpy as np
import pandas as pd
import pytest

from glas3d import GLAS, Grid, Predictor, Segments, explain_img
from glas3d.explain.notes import account_sentence
from glas3d.explain.overlap import corrected
from tests.core import oracle
from tests.core.cases import SHAPES, Linear, atlas, blocks
from tests.imaging.cases import refused, seen

ROUND = {"kernel": "gaussian", "sigma_light": 1.2, "sigma_shadow": 1.8, "fusion": "mean"}
SHAPE = (10, 12, 15)


def bright(shape):
    return np.ones((1, *shape), dtype=np.float32)


@pytest.mark.parametrize("ndim", [2, 3])
def test_overlaps_are_sums_of_masks_over_segments(ndim):
    shape, labels = SHAPES[ndim], atlas(SHAPES[ndim])
    glas = GLAS(lambda batch: batch.flatten(1).sum(1), **ROUND)
    segments = Segments.from_labels(labels)
    found = glas.overlaps(bright(shape), segments)
    index, points = oracle.centroids(labels)
    for end, sigma in (("light", 1.2), ("shadow", 1.8)):
        masks = [oracle.mask(point, shape, sigma) for point in points]
        expected = [[mask[labels == value].mean() for value in index] for mask in masks]
        np.testing.assert_allclose(found[end], expected, rtol=1e-5)


def effects(labels, per_region, **settings):
    """A linear model whose weights are spread over each region evenly, its evidence, and the true effects."""
    segments = Segments.from_labels(labels)
    w = np.zeros((1, 1, *labels.shape))
    for value, effect in zip(segments.index, per_region, strict=True):
        w[0, 0, labels == value] = effect / (labels == value).sum()
    glas = GLAS(Linear(w), **(ROUND | settings))
    found = glas.explain(bright(labels.shape), 0, segments)
    return found, glas.overlaps(bright(labels.shape), segments)


@pytest.mark.parametrize("overlap", ["ridge", "nonnegative"])
def test_effects_of_a_linear_model_are_found(overlap):
    labels = blocks(SHAPE, (2, 2, 3))
    truth = np.random.default_rng(0).uniform(0, 1, 12)
    explained, overlaps = effects(labels, truth)
    found = corrected(explained, overlaps, overlap)
    assert np.abs(explained.evidence - truth).max() > 0.1
    np.testing.assert_allclose(found.evidence, truth, atol=0.01)
    np.testing.assert_array_equal(found.score, found.evidence)
    np.testing.assert_allclose(found.density, found.evidence / Segments.from_labels(labels).n_voxels)
    np.testing.assert_array_equal(found.saliency, explained.segments.paint(found.score))
    assert np.isnan(found.accounted)
    assert found.settings["overlap"] == overlap


@pytest.mark.parametrize("overlap", ["ridge", "nonnegative"])
def test_of_masks_that_partition_the_volume_too_the_evidence_is_no_longer_theirs(overlap):
    labels = blocks(SHAPE, (2, 2, 3))
    explained, overlaps = effects(labels, np.linspace(0.1, 1, 12), kernel="segment", sigma_light=0.5, sigma_shadow=0.5)
    assert explained.accounted == pytest.approx(1, abs=0.1)
    found = corrected(explained, overlaps, overlap)
    text = account_sentence(found.account.record(), pd.DataFrame({"name": "A", "evidence": found.evidence}))
    assert text == (
        "What the regions account for is not available: evidence adds up only where it comes straight from one set of "
        "masks that nearly partition what is searched."
    )


def test_evidence_against_the_class_is_kept_or_refused_by_the_kind():
    labels = blocks(SHAPE, (2, 2, 3))
    truth = np.random.default_rng(1).normal(size=12)
    explained, overlaps = effects(labels, truth, density=True)
    ridge, nonnegative = (corrected(explained, overlaps, kind) for kind in ("ridge", "nonnegative"))
    np.testing.assert_allclose(ridge.evidence, truth, atol=0.02)
    np.testing.assert_array_equal(ridge.score, ridge.density)
    assert nonnegative.evidence.min() == 0


def test_it_is_an_option_of_explain_img(scan, few):
    region = seen(scan, few)
    model = Predictor(lambda batch: 6 * (region(batch)[:, 1:] - 0.5), "sigmoid", device="cpu", classes=("NC", "AD"))
    options = {"preset": "evidence", "kernel": "gaussian"}
    masks = explain_img(scan, model, "AD", few, **options)
    regions = explain_img(scan, model, "AD", few, overlap="ridge", **options)
    assert regions.provenance["Settings"]["overlap"] == "ridge"
    by_name = {name: r.table.set_index("name")["score"] for name, r in (("masks", masks), ("regions", regions))}
    others = ["Putamen_L", "Precuneus_L", "Amygdala_L"]
    share = {name: score[others].abs().max() / score["Hippocampus_L"] for name, score in by_name.items()}
    assert regions.table.set_index("name").loc["Hippocampus_L", "rank"] == 1
    assert share["regions"] < 0.6 * share["masks"]
    with refused('overlap is undone in the evidence of regions: give fusion="mean", got product'):
        explain_img(scan, model, "AD", few, overlap="ridge", preset="paper")
    with refused("overlap is undone between regions: search an atlas, not points"):
        explain_img(scan, model, "AD", Grid(2), overlap="ridge", **options)
    with refused("overlap must be one of ridge, nonnegative, got 'lasso'"):
        explain_img(scan, model, "AD", few, overlap="lasso")
