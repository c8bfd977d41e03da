"""Coarse to fine over an atlas: groups of regions that are masked together, against every region by itself."""

import numpy as np
import pytest
import torch

from glas3d import GLAS, GlasError, Grid, Predictor
from glas3d.core.accelerate.refine import CoarseToFine
from glas3d.core.search import Segments

SHAPE = (18, 25, 22)
M = 60
SHARP = {"kernel": "segment", "sigma_light": 0.1, "sigma_shadow": 0.1, "link": "probability", "fusion": "mean"}


def scattered(m=M, shape=SHAPE):
    """Return a parcellation: each voxel belongs to the nearest of some random points."""
    seeds = np.random.default_rng(1).uniform(0, 1, (m, len(shape))) * shape
    voxels = np.moveaxis(np.indices(shape), 0, -1)[..., None, :]
    return Segments.from_labels(1 + ((voxels - seeds) ** 2).sum(axis=-1).argmin(axis=-1))


def volume(shape=SHAPE):
    return 1 + 0.05 * np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)


class Additive:
    """A model whose output is a sum over voxels, of some regions alone; it counts its inputs."""

    def __init__(self, segments, weights):
        of_regions = np.zeros(len(segments.index))
        of_regions[list(weights)] = list(weights.values())
        self.weights = torch.as_tensor(segments.paint(of_regions / segments.n_voxels), dtype=torch.float64)
        self.evaluated = []

    def __call__(self, batch):
        self.evaluated.append(len(batch))
        answer = (batch[:, 0].double() * self.weights).flatten(1).sum(dim=1)
        return torch.stack([-answer, answer], dim=1)


USED = {7: 3.0, 21: -2.0, 40: 1.0}


def explained(segments, fusion, budget):
    """Explain by every region, and by groups of them."""
    glas = GLAS(Additive(segments, USED), evidence=True, **(SHARP | {"fusion": fusion}))
    return glas.explain(volume(), 1, segments), CoarseToFine(glas, budget).explain(volume(), 1, segments)


@pytest.mark.parametrize("fusion", ["mean", "shadow"])
def test_what_a_model_uses_is_found_region_by_region(fusion):
    segments = scattered()
    dense, found = explained(segments, fusion, 0.6)
    ours = found.explanation
    assert ours.settings["evaluations"] <= 0.6 * dense.settings["evaluations"]
    assert found.deviation is None
    assert found.evaluated[list(USED)].all()
    np.testing.assert_array_equal(found.evaluated, found.together == 1)
    assert found.together.max() > 1
    np.testing.assert_allclose(ours.drop[found.evaluated], dense.drop[found.evaluated], atol=1e-5)
    # nothing is lost by an additive model: groups do what their regions do
    assert ours.drop.sum() == pytest.approx(dense.drop.sum(), abs=1e-5)
    np.testing.assert_allclose(ours.score, dense.score, atol=2e-5)
    np.testing.assert_array_equal(ours.segments.labels, segments.labels)
    np.testing.assert_allclose(ours.saliency, segments.paint(ours.score))
    if fusion == "mean":
        assert ours.accounted == pytest.approx(dense.accounted, abs=1e-5)
        np.testing.assert_allclose(ours.density, ours.evidence / segments.n_voxels, atol=1e-6)
        np.testing.assert_allclose(ours.light, dense.light, atol=1e-4)
    else:
        assert np.isnan(ours.light).all()
        assert ours.evidence is None


def test_a_group_is_shared_by_the_voxels_of_its_regions():
    segments = scattered()
    glas = GLAS(Additive(segments, USED), **SHARP)
    found = CoarseToFine(glas, 0.3).explain(volume(), 1, segments)
    ours, sizes = found.explanation, segments.n_voxels
    for size in set(found.together.tolist()) - {1}:
        of_size = found.together == size
        density = ours.evidence[of_size] / sizes[of_size]
        assert len(np.unique(density.round(9))) <= of_size.sum() // size  # one value in each group


@pytest.mark.parametrize("fusion", ["mean", "shadow"])
def test_the_whole_budget_is_the_plain_explanation(fusion):
    dense, found = explained(scattered(), fusion, 1)
    assert found.evaluated.all()
    for name in ("points", "light", "shadow", "drop", "score", "saliency"):
        np.testing.assert_array_equal(getattr(found.explanation, name), getattr(dense, name))


@pytest.mark.parametrize("change", [lambda a: a[..., ::-1], lambda a: a[..., ::-1, :], lambda a: a.swapaxes(-1, -3)])
def test_a_flipped_or_turned_scan_has_the_same_groups(change):
    segments, image = scattered(), volume()
    turned = Segments.from_labels(change(segments.labels))
    weights = dict(enumerate(np.random.default_rng(3).normal(size=M)))
    one, other = (
        CoarseToFine(GLAS(Additive(each, weights), **SHARP), 0.4).explain(scan, 1, each)
        for each, scan in ((segments, image), (turned, change(image)))
    )
    np.testing.assert_array_equal(one.together, other.together)
    np.testing.assert_allclose(one.explanation.score, other.explanation.score, atol=1e-5)


def test_in_mm_the_longest_axis_is_divided():
    """Voxels of another size change what is longest, and so the groups."""
    segments = scattered()
    glas = GLAS(Additive(segments, USED), unit="mm", **SHARP)
    found = [CoarseToFine(glas, 0.3).explain(volume(), 1, segments, spacing=s) for s in ((9, 1, 1), (1, 9, 1))]
    assert not np.array_equal(found[0].together, found[1].together)


def test_a_tolerance_ends_it_when_no_group_does_much():
    segments = scattered()
    glas = GLAS(Additive(segments, dict.fromkeys(range(M), 0.01) | {7: 3.0}), **SHARP)
    whole, sooner = (CoarseToFine(glas, 0.9, tolerance=t).explain(volume(), 1, segments) for t in (0, 0.05))
    assert sooner.explanation.settings["evaluations"] < whole.explanation.settings["evaluations"]
    assert sooner.evaluated[7]


def test_two_sides_that_cancel_within_a_group_are_not_noticed():
    """The limit of it, which its documentation states."""
    segments = scattered()
    order = np.argsort(segments.points[:, 1])
    first, second = (int(region) for region in order[:2])
    glas = GLAS(Additive(segments, {first: 1.0, second: -1.0, 40: 3.0}), **SHARP)
    found = CoarseToFine(glas, 0.25).explain(np.ones((1, *SHAPE), np.float32), 1, segments)
    assert found.together[first] == found.together[second] > 1
    assert abs(found.explanation.score[first]) < 0.5
    assert found.explanation.score.argmax() == 40


def test_the_model_is_tried_once_and_not_in_every_round():
    evaluated = []

    class Counting(torch.nn.Module):
        def forward(self, batch):
            evaluated.append(len(batch))
            mean = batch.mean(dim=(2, 3, 4))
            return torch.cat([-mean, mean], dim=1)

    segments = scattered()
    glas = GLAS(Predictor(Counting(), "softmax", device="cpu"), batch_size=1, engine="eager", **SHARP)
    found = CoarseToFine(glas, 0.6).explain(volume(), 1, segments)
    assert sum(evaluated) == found.explanation.settings["evaluations"] + 4  # the trial: one alone, three together


def test_regions_inside_a_mask_alone():
    segments = scattered()
    mask = np.zeros(SHAPE, bool)
    mask[:, :14] = True
    glas = GLAS(Additive(segments, USED), **SHARP)
    found = CoarseToFine(glas, 0.5).explain(volume(), 1, segments, mask=mask)
    assert len(found.together) == len(segments.within(mask).index) < M
    assert not found.explanation.saliency[~mask].any()


def test_pictures_too():
    segments = scattered(40, (32, 45))
    glas = GLAS(Additive(segments, {7: 3.0, 21: -2.0}), **SHARP)
    dense = glas.explain(volume((32, 45)), 1, segments)
    found = CoarseToFine(glas, 0.6).explain(volume((32, 45)), 1, segments).explanation
    np.testing.assert_allclose(found.score, dense.score, atol=2e-5)


@pytest.mark.parametrize("fusion", ["product", "light"])
def test_scores_that_cannot_be_shared_are_refused(fusion):
    glas = GLAS(lambda batch: batch.mean(dim=(2, 3, 4)).repeat(1, 2), **(SHARP | {"fusion": fusion}))
    with pytest.raises(GlasError, match=f'takes fusion="mean" or "shadow", got "{fusion}"'):
        CoarseToFine(glas).explain(volume(), 1, scattered())
    with pytest.raises(GlasError, match="takes its shape from segments: search an atlas, not points"):
        CoarseToFine(glas.replace(fusion="mean")).explain(volume(), 1, Grid(3))
