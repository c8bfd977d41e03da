"""Deletion and insertion against plain loops and Quantus, and what they say of maps that are right and wrong."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from glas3d import GLAS, Grid, Predictor
from glas3d.core.covariates import Covariates
from glas3d.core.reference import consensus
from glas3d.evaluate.metrics import deletion_curve, insertion_curve, ranking_curves
from tests.core.atrophy import shrunk_participant
from tests.core.cases import (
    CELLS,
    SHAPES,
    WIDE,
    NoisyOr,
    Recorder,
    TinyNet,
    assert_close,
    atlas,
    blocks,
    refused,
    volume,
)

SIGMAS = {"sigma_light": 2.5, "sigma_shadow": 1.8, "sigma_spatial": 2.0}


def explainer(shape, **settings):
    return GLAS(Predictor(TinyNet(shape), "softmax", device="cpu"), batch_size=4, **SIGMAS | settings)


def explanation(ndim=3, search="grid"):
    """An explanation by another reference than the tests remove with."""
    shape = SHAPES[ndim]
    donor = np.random.default_rng(5).uniform(0.5, 2.0, (1, *shape)).astype(np.float32)
    glas = explainer(shape, background=donor)
    return glas.explain(volume(shape), 1, Grid(2) if search == "grid" else atlas(shape))


def pairs(curve):
    return zip(curve.share[:-1], curve.share[1:], curve.probability[:-1], curve.probability[1:], strict=True)


@pytest.mark.parametrize("search", ["grid", "segments"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_it_agrees_with_plain_loops(ndim, search):
    shape = SHAPES[ndim]
    explained, image = explanation(ndim, search), volume(shape)
    recorder = Recorder(Predictor(TinyNet(shape), "softmax", device="cpu"))
    curve = deletion_curve(explainer(shape, background=0.7).replace(predict=recorder), image, explained, steps=4)
    if search == "grid":
        groups = [[x] for x in sorted(np.ndindex(*shape), key=lambda x: -explained.saliency[x])]
    else:
        ranked = sorted(range(len(explained.score)), key=lambda i: -explained.score[i])
        groups = [list(zip(*np.nonzero(atlas(shape) == explained.segments.index[i]), strict=True)) for i in ranked]
    inputs = np.concatenate(recorder.batches)
    for step in range(5):
        expected, removed = image.copy(), 0
        for turn, group in enumerate(groups):
            if turn * 4 < step * len(groups):
                removed += len(group)
                for x in group:
                    expected[0][x] = np.float32(0.7)
        assert np.array_equal(inputs[step], expected)
        assert curve.share[step] == removed / sum(map(len, groups))
    assert (curve.share[0], curve.share[-1]) == (0, 1)
    assert curve.probability[0] == pytest.approx(explained.probability, abs=1e-6)
    area = sum((b - a) * (p + q) / 2 for a, b, p, q in pairs(curve))
    assert curve.area == pytest.approx(area, rel=1e-12)


def test_the_better_map_has_the_smaller_area():
    labels = blocks(WIDE[2], CELLS[2])
    image = np.zeros((1, *WIDE[2]), dtype=np.float32)
    image[0, 16:19, 19:22] = 1.0
    glas = GLAS(NoisyOr({(17, 20): 0.9}), sigma_light=3, sigma_shadow=3)
    right = glas.explain(image, 1, labels)
    wrong = replace(right, score=-right.score, saliency=-right.saliency)
    good, bad = (deletion_curve(glas, image, explained, steps=16) for explained in (right, wrong))
    assert good.area < 0.15 < 0.8 < bad.area
    assert good.probability[1] == pytest.approx(0.02)
    assert bad.probability[-2] == pytest.approx(good.probability[0])


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_misleading_background_shows_nothing(ndim):
    """With black in place of tissue the detector only becomes more certain, whatever the order."""
    shrunk = shrunk_participant(ndim)
    agreed = consensus(shrunk.explanations).explanation
    by_mean = deletion_curve(shrunk.explainers["mean"], shrunk.volume, agreed, 8)
    by_zero = deletion_curve(shrunk.explainers["zero"], shrunk.volume, agreed, 8)
    assert by_mean.area < 0.3 < by_zero.probability[1]
    assert by_zero.probability[1] > 0.99


class ByBrightness:
    """A normalisation that is fitted to the intact volume and frozen."""

    def fit(self, volume):
        scale = float(volume.max())
        return lambda batch: batch / scale


def test_normalisation_stays_that_of_the_intact_volume():
    net, image = TinyNet((7, 9)), volume((7, 9))
    glas = GLAS(Predictor(net, "softmax", transform=ByBrightness(), device="cpu"), background=image / 2, **SIGMAS)
    plain = GLAS(Predictor(net, "softmax", device="cpu"), background=image / 2 / image.max(), **SIGMAS)
    explained = glas.explain(image, 1, atlas((7, 9)))
    curve, expected = (
        deletion_curve(glas, image, explained, 3),
        deletion_curve(plain, image / image.max(), explained, 3),
    )
    assert_close(curve.probability, expected.probability)
    assert np.ptp(curve.probability) > 1e-3


def test_batches_make_no_difference():
    explained, shape = explanation(), SHAPES[3]
    curves = []
    for size in (1, 3, 100):
        by_size = replace(explained, settings=explained.settings | {"batch_size": size})
        curves.append(deletion_curve(explainer(shape, background=0.7), volume(shape), by_size, 7))
    for other in curves[1:]:
        assert np.array_equal(other.share, curves[0].share)
        assert_close(other.probability, curves[0].probability, 1e-6)


@pytest.mark.parametrize("steps", [0, 2.5, True])
def test_steps_that_are_refused(steps):
    with refused(f"steps must be a whole number of at least 1, got {steps}"):
        deletion_curve(explainer((7, 8, 9)), volume((7, 8, 9)), explanation(), steps)


def test_volumes_that_are_refused():
    with refused(r"needs the explained volume of \(7, 8, 9\), got \(1, 7, 9\)"):
        deletion_curve(explainer((7, 9)), volume((7, 9)), explanation())
    glas = GLAS(lambda batch, table: torch.full((len(batch), 1), 0.5), **SIGMAS)
    numbers = Covariates.of({"age": 0.9, "score": -0.4}, {"age": 0.2, "score": 0.3})
    explained = glas.explain(volume((7, 9)), 0, Grid(2), covariates=numbers)
    with refused("is of a volume alone, got covariates: age, score"):
        deletion_curve(glas, volume((7, 9)), explained)


# Insertion, maps, and several references.


@pytest.mark.parametrize("search", ["grid", "segments"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_insertion_is_deletion_of_the_rest(ndim, search):
    """To put back the first k is to remove the others, beginning with the last."""
    shape = SHAPES[ndim]
    explained, image = explanation(ndim, search), volume(shape)
    glas = explainer(shape, background=0.7)
    steps = explained.saliency.size if search == "grid" else len(explained.score)
    inserted = insertion_curve(glas, image, explained, steps)
    turned = replace(explained, score=-explained.score, saliency=-explained.saliency)
    removed = deletion_curve(glas, image, turned, steps)
    assert_close(inserted.probability, removed.probability[::-1], 1e-6)
    assert_close(inserted.share, 1 - removed.share[::-1], 1e-6)
    assert np.ptp(inserted.probability) > 1e-3
    area = sum((b - a) * (p + q) / 2 for a, b, p, q in pairs(inserted))
    assert inserted.area == pytest.approx(area, rel=1e-12)


@pytest.mark.parametrize("kind", ["deletion", "insertion"])
def test_a_map_is_ranked_voxel_by_voxel(kind):
    """Against plain loops; voxels of one value are taken together, and no more than a step is due."""
    shape = SHAPES[3]
    saliency, image = np.round(np.random.default_rng(2).normal(size=shape), 1), volume(shape)
    recorder = Recorder(Predictor(TinyNet(shape), "softmax", device="cpu", classes=("NC", "MCI", "AD")))
    glas = explainer(shape, background=0.7).replace(predict=recorder)
    curve = {"deletion": deletion_curve, "insertion": insertion_curve}[kind](glas, image, saliency, 6, target=2)
    inputs = np.concatenate(recorder.batches)
    for step in range(7):
        due = saliency.size * step / 6
        taken = np.array([(saliency >= value).sum() <= due for value in saliency.ravel()]).reshape(shape)
        removed = taken if kind == "deletion" else ~taken
        assert np.array_equal(inputs[step, 0], np.where(removed, np.float32(0.7), image[0]))
        assert curve.share[step] == taken.mean()
    assert_close(curve.probability, np.asarray(recorder.predict(torch.from_numpy(inputs)))[:, 2], 1e-6)


@pytest.mark.filterwarnings("ignore")
def test_deletion_agrees_with_quantus():
    """Pixel flipping to black, one voxel a step; Quantus does not evaluate the intact image."""
    quantus = pytest.importorskip("quantus")
    shape = SHAPES[2]
    net, image = TinyNet(shape).eval(), volume(shape)
    saliency = np.random.default_rng(2).normal(size=shape)
    glas = GLAS(Predictor(net, "softmax", device="cpu"), background=float(image.min()))  # Quantus' black
    metric = quantus.PixelFlipping(
        features_in_step=1,
        perturb_baseline="black",
        abs=False,
        normalise=False,
        disable_warnings=True,
        display_progressbar=False,
    )
    flipped = metric(
        model=net,
        x_batch=image[None],
        y_batch=np.array([1]),
        a_batch=saliency[None, None],
        channel_first=True,
        softmax=True,
        device="cpu",
    )[0]
    curve = deletion_curve(glas, image, saliency, saliency.size, target=1)
    assert_close(curve.probability[1:], np.ravel(flipped), 1e-5)


def test_several_references():
    shape = SHAPES[3]
    explained, image = explanation(), volume(shape)
    backgrounds = {"black": 0.0, "grey": 0.7, "donor": volume(shape, seed=5)}
    found = ranking_curves(explainer(shape), image, explained, backgrounds, steps=4)
    for name, background in backgrounds.items():
        glas = explainer(shape, background=background)
        for kind, curve in (("deletion", deletion_curve), ("insertion", insertion_curve)):
            expected = curve(glas, image, explained, 4)
            assert np.array_equal(getattr(found, kind)[name].probability, expected.probability)
    areas = [found.deletion[name].area for name in backgrounds]
    assert found.deletion_area == pytest.approx(np.mean(areas))
    assert found.insertion_area == pytest.approx(np.mean([found.insertion[name].area for name in backgrounds]))
    assert len({round(area, 6) for area in areas}) == 3
    with refused("references must be backgrounds by their names"):
        ranking_curves(explainer(shape), image, explained, {})


def test_one_class_is_needed():
    glas, image = explainer((7, 9)), volume((7, 9))
    with refused("a deletion curve needs one class, an explanation's own or the target of a map"):
        deletion_curve(glas, image, image[0])
    with refused("an insertion curve needs one class"):
        insertion_curve(glas, image, explanation(2), target=1)
    with refused("target must be a class index from 0 to 2, got 3"):
        deletion_curve(glas, image, image[0], target=3)
