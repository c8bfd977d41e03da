"""The score drop against its formula, and of maps in the right and in the wrong voxels."""

import numpy as np
import pytest

from glas3d import GLAS, Predictor
from glas3d.evaluate.metrics import rearranged, score_drop
from tests.core.cases import SHAPES, NoisyOr, TinyNet, refused, volume


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("ndim", [2, 3])
def test_it_agrees_with_its_formula(ndim, batch_size):
    shape = SHAPES[ndim]
    predict, image = Predictor(TinyNet(shape), "softmax", device="cpu", classes=("NC", "MCI", "AD")), volume(shape)
    maps = np.random.default_rng(0).uniform(size=(5, *shape)).astype(np.float32)
    measured = score_drop(GLAS(predict, background=0.7), image, maps, "AD", batch_size)
    inputs = np.stack([image * (1 - saliency) + np.float32(0.7) * saliency for saliency in maps])
    np.testing.assert_allclose(measured.remaining, np.asarray(predict(inputs))[:, 2], atol=1e-6)
    assert measured.intact == pytest.approx(float(predict(image[None])[0, 2]), abs=1e-6)
    assert np.array_equal(measured.drop, measured.intact - measured.remaining)


def test_the_right_map_lowers_the_probability_most():
    image = np.zeros((1, 20, 24), dtype=np.float32)
    image[0, 3:6, 4:7] = 1.0
    elsewhere = rearranged(image[0], -np.hypot(*(np.mgrid[:20, :24] - np.array([15, 20])[:, None, None])))
    assert elsewhere.sum() == image.sum()
    assert elsewhere[15, 20] == 1
    right, wrong = score_drop(GLAS(NoisyOr({(4, 5): 0.9})), image, [image[0], elsewhere], 1).drop
    assert right > 0.8
    assert wrong == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("saliency", [np.zeros((9, 7)), np.full((7, 9), 1.1), np.full((7, 9), np.nan)])
def test_maps_that_are_refused(saliency):
    with refused(r"maps must be of shape \(7, 9\) with values from 0 to 1"):
        score_drop(GLAS(Predictor(TinyNet((7, 9)), "softmax", device="cpu")), volume((7, 9)), [saliency], 1)
