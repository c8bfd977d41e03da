"""The audit *sanity*: explanations that do not depend on the network fail, those that do pass."""

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from glas3d import Atlas, Predictor
from glas3d.core.search import Segments
from glas3d.errors import GlasError
from glas3d.evaluate import attribute
from glas3d.evaluate.audits import audit_scan
from glas3d.evaluate.audits.sanity import initialise, layers_of, lower_bound, null_similarity, randomised, similarity
from glas3d.imaging.space import VoxelGrid, resample, template
from glas3d.predict import ModelInfo
from tests.evaluate.audits import heads

pytestmark = pytest.mark.filterwarnings("ignore:6 regions of AAL are too small")

AFFINE = np.array([[12.0, 0, 0, -90], [0, 10, 0, -120], [0, 0, 13, -70], [0, 0, 0, 1]])
SMALL = VoxelGrid((16, 21, 14), AFFINE)
HEALTHY = (resample(template(), SMALL) * 1000).astype(np.float32)
UNSIGNED = "unsigned"


@pytest.fixture(scope="module")
def predict():
    """Return a small network whose output depends on the scan."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        convolution, flat = nn.Conv3d(1, 4, 3), 4 * 6 * 8 * 5
        layers = (convolution, nn.ReLU(), nn.Flatten(), nn.Linear(flat, 8), nn.ReLU(), nn.Linear(8, 2))
        net = nn.Sequential(nn.AvgPool3d(2), *layers)
    info = ModelInfo(name="small", grid=SMALL, channels=1, reference=HEALTHY[None])
    return Predictor(net.eval(), "softmax", lambda x: x / 100, "cpu", classes=heads.CLASSES, info=info)


@pytest.fixture(scope="module")
def scan():
    rng = np.random.default_rng(3)
    return nib.Nifti1Image(HEALTHY * rng.uniform(0.6, 1, SMALL.shape).astype(np.float32), SMALL.affine)


def unsigned_gradients(img, predict, target):
    """Return the mean size of integrated gradients in each region."""
    found = attribute(img, predict, target, "integrated_gradients_mean", assume_space="MNI")
    segments: Segments = Atlas.load("AAL").segments(SMALL)
    means = {i: np.abs(found.volume[segments.labels == i]).mean() for i in segments.index}
    return found.table["index"].map(means).to_numpy()


def audited(scan, predict, methods, **more):
    (audit,) = audit_scan(scan, predict, "AD", ["sanity"], methods=methods, assume_space="MNI", **more)
    return audit


@pytest.mark.parametrize("method", ["glas_evidence", "integrated_gradients"])
def test_explanations_that_depend_on_the_network_pass(scan, predict, method):
    audit = audited(scan, predict, [method], randomised=4)
    assert audit.verdict == "pass", audit
    assert audit[f"{method}_lower_bound"] < audit[f"{method}_allowed"]


@pytest.mark.parametrize("method", ["difference", "edges", UNSIGNED])
def test_explanations_that_do_not_fail(scan, predict, method):
    methods = {UNSIGNED: unsigned_gradients} if method == UNSIGNED else [method]
    audit = audited(scan, predict, methods, randomised=3)
    assert audit.verdict == "fail", audit
    assert "It shows the scan more than the model." in audit.statement
    if method != UNSIGNED:  # not a function of the network at all
        assert audit[f"{method}_similarity"] == pytest.approx(1)
        assert audit[f"{method}_stage_2"] == pytest.approx(1)


@pytest.mark.slow
def test_one_that_fails_among_several(scan, predict):
    audit = audited(scan, predict, ["integrated_gradients", "difference"], randomised=3)
    assert audit.verdict == "fail"
    assert "difference (mean similarity 1.00, at least 1.00" in audit.statement
    assert "integrated_gradients" not in audit.statement
    content = audit.record()
    assert content["Settings"]["methods"] == ["integrated_gradients", "difference"]
    assert content["Settings"]["randomised"] == 3


def test_the_model_is_left_as_it_was(predict):
    before = [p.clone() for p in predict.net.parameters()]
    other = randomised(predict, 1, 0)
    for now, then in zip(predict.net.parameters(), before, strict=True):
        assert torch.equal(now, then)
    equal = [torch.equal(a, b) for a, b in zip(other.net.parameters(), before, strict=True)]
    assert equal == [True] * 4 + [False] * 2  # the weights and biases of the last of three layers are new
    again = randomised(predict, 1, 0).net.parameters()
    assert all(torch.equal(a, b) for a, b in zip(again, other.net.parameters(), strict=True))
    assert len(layers_of(predict.net)) == 3


def test_a_parameter_of_no_known_layer_is_drawn_with_its_own_size():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.full((4000,), 3.0))

    layer = Scale()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        initialise(layer)
    weight = layer.weight.detach()
    assert float(weight.square().mean().sqrt()) == pytest.approx(3, rel=0.1)
    assert abs(float(weight.mean())) < 0.3


def test_the_bound_is_that_of_a_mean():
    rng = np.random.default_rng(0)
    below = [lower_bound(rng.normal(0.3, 0.2, 8)) < 0.3 for _ in range(400)]
    assert np.mean(below) == pytest.approx(0.95, abs=0.03)
    assert lower_bound([0.7, 0.7, 0.7]) == pytest.approx(0.7)


def test_the_null_is_that_of_a_rank_correlation():
    values = np.random.default_rng(0).normal(size=116)
    assert null_similarity(values, 0) == pytest.approx(2.326 / np.sqrt(115), rel=0.2)
    assert similarity(values, -values) == pytest.approx(-1)
    assert similarity(values, np.ones(116)) == 0


def test_what_is_no_torch_network(scan):
    kind = heads.made("regions")
    (audit,) = audit_scan(heads.img(kind[0]), kind[2], "AD", ["sanity"], assume_space="MNI")
    assert audit.verdict == "n/a"
    with pytest.raises(GlasError, match="there is no method 'gradcam'; did you mean grad_cam"):
        audited(scan, kind[2], ["gradcam"])
    with pytest.raises(GlasError, match="methods must be one or more"):
        audited(scan, kind[2], [])
