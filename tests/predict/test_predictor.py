import copy

import numpy as np
import pytest
import torch
from torch import nn

from glas3d import GLAS, Grid, Predictor
from glas3d.predict import ModelInfo
from tests.core.cases import Recorder, TinyNet, refused, volume

SHAPE = (7, 8, 9)
BATCH = torch.from_numpy(np.stack([volume(SHAPE, seed=seed) for seed in range(3)]))
SMALL = {"sigma_light": 2, "sigma_shadow": 2}


def returns(value):
    """A model that returns the same value for every batch."""
    return lambda batch: value


@pytest.mark.parametrize("classes", [2, 3])
def test_softmax(classes):
    net = TinyNet(SHAPE, classes=classes)
    p = Predictor(net, activation="softmax", device="cpu")(BATCH)
    assert p.dtype == torch.float32
    with torch.no_grad():
        raised = net(BATCH).exp()
    torch.testing.assert_close(p, raised / raised.sum(dim=1, keepdim=True))


def test_two_channels_and_two_logits_are_still_a_softmax():
    batch = torch.rand(3, 2, *SHAPE)
    p = Predictor(TinyNet(SHAPE, 2, classes=2), "softmax", device="cpu")(batch)
    torch.testing.assert_close(p.sum(dim=1), torch.ones(3))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_get_no_second_activation(activation, classes):
    net = TinyNet(SHAPE, classes=classes)
    ends_in_softmax = nn.Sequential(net, nn.Softmax(dim=1))
    for predict in (Predictor(ends_in_softmax, activation), Predictor(ends_in_softmax, activation).log_odds()):
        with refused(f'returns probabilities already.*give activation="none" in place of "{activation}"'):
            predict(BATCH)
    p = Predictor(ends_in_softmax, "none")(BATCH)
    torch.testing.assert_close(p, Predictor(net, "softmax")(BATCH))
    for given in ([[0.0, 1.0]] * 3, [[0.2, 0.9]] * 3, [[1.2, -0.2]] * 3):  # set by hand; no sum of 1; below 0
        assert Predictor(returns(torch.tensor(given)), activation)(BATCH).isfinite().all()


def test_sigmoid_makes_two_columns_of_one_logit():
    net = TinyNet(SHAPE, classes=1)
    p = Predictor(net, activation="sigmoid", classes=("NC", "AD"), device="cpu")(BATCH)
    with torch.no_grad():
        z = net(BATCH)[:, 0]
    torch.testing.assert_close(p, torch.stack([1 / (1 + z.exp()), 1 / (1 + (-z).exp())], dim=1))


def test_sigmoid_of_one_number_an_input():
    p = Predictor(returns(torch.tensor([-2.0, 0.0, 2.0])), activation="sigmoid")(BATCH)
    torch.testing.assert_close(p[:, 1], torch.tensor([0.1192029, 0.5, 0.8807971]))


def test_sigmoid_of_several_logits_keeps_them_apart():
    z = torch.tensor([[0.0, 2.0, -2.0]] * 3)
    torch.testing.assert_close(Predictor(returns(z), activation="sigmoid")(BATCH), 1 / (1 + (-z).exp()))


def test_none_takes_the_outputs_as_they_are():
    p = torch.tensor([[0.2, 0.5], [0.0, 1.0], [0.9, 0.3]], dtype=torch.float64)
    given = Predictor(returns(p), activation="none")(BATCH)
    assert torch.equal(given, p.float())


def test_softmax_over_one_output_is_refused():
    for net in (TinyNet(SHAPE, classes=1), returns(torch.zeros(3))):
        with refused('softmax over one output is always 1.*activation="sigmoid"'):
            Predictor(net, activation="softmax", device="cpu")(BATCH)


@pytest.mark.parametrize("activation", ["relu", "Softmax", None, ""])
def test_an_activation_that_is_none_of_the_three_is_refused(activation):
    with refused(f"activation must be one of softmax, sigmoid, none, got {activation!r}"):
        Predictor(TinyNet(SHAPE), activation=activation)


def test_what_is_no_model_no_transform_no_device_is_refused():
    with refused("a torch module or a callable, got str"):
        Predictor("paper-net", "softmax")
    with refused(r"transform must be callable or have fit\(\), got int"):
        Predictor(TinyNet(SHAPE), "softmax", transform=3)
    with refused("device must be auto, cpu, cuda or another.*got 'toaster'"):
        Predictor(TinyNet(SHAPE), "softmax", device="toaster")
    with refused("every class needs a name of its own, got AD, AD"):
        Predictor(TinyNet(SHAPE), "softmax", classes=("AD", "AD"))
    with refused("the name of a class must not begin as a formula does"):
        Predictor(TinyNet(SHAPE), "softmax", classes=("=cmd|x", "AD"))


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_a_device_this_machine_does_not_have_is_refused(device):
    if {"cuda": torch.cuda, "mps": torch.backends.mps}[device.partition(":")[0]].is_available():
        pytest.skip(f"needs a machine without {device}")
    with refused(f"device.*{device}.*torch finds no {device[:4].rstrip(':').upper()} here"):
        Predictor(TinyNet(SHAPE), "softmax", device=device)


@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="needs a Mac with MPS")
def test_mps_agrees_with_the_cpu():
    net = TinyNet(SHAPE, classes=2)
    maps = [
        GLAS(Predictor(net, "softmax", device=device), link=link, fusion="mean").explain(BATCH[0], 1, Grid(2)).score
        for link in ("probability", "logit")
        for device in ("cpu", "mps")
    ]
    for cpu, mps in (maps[:2], maps[2:]):
        assert abs(cpu - mps).max() < 1e-5


@pytest.mark.parametrize(
    ("output", "match"),
    [
        (torch.zeros(2, 2), r"must return \(3, classes\) for a batch of 3, got \(2, 2\)"),
        (torch.zeros(3, 2, 1, 1), r"got \(3, 2, 1, 1\)"),
        (torch.tensor(0.5), r"got \(\)"),
        ((torch.zeros(3, 2), torch.zeros(3, 2)), "one tensor .*got tuple"),
        ({"logits": torch.zeros(3, 2)}, "one tensor .*got dict"),
        (None, "got NoneType"),
        ("AD", "got str"),
    ],
)
def test_outputs_of_another_form_are_refused(output, match):
    with refused(match):
        Predictor(returns(output), "softmax")(BATCH)


def test_outputs_may_be_arrays_and_lists():
    p = np.full((3, 2), 0.5)
    for output in (p, p.tolist()):
        assert torch.equal(Predictor(returns(output), activation="none")(BATCH), torch.full((3, 2), 0.5))


def test_an_output_of_nan_ends_the_explanation():
    predict = Predictor(lambda batch: torch.full((len(batch), 2), torch.nan), "softmax")
    with refused("finite probabilities"):
        GLAS(predict, **SMALL).explain(volume(SHAPE), 1, Grid(2))


def test_a_batch_the_model_does_not_take():
    net = Predictor(TinyNet(SHAPE), "softmax", device="cpu")
    with refused(r"does not take a batch of \(3, 2, 7, 8, 9\): "):
        net(torch.zeros(3, 2, *SHAPE))


def test_a_model_that_fails_without_a_word():
    def silent(batch):
        raise RuntimeError

    origin = r"\(test_predictor\.py, line \d+, in silent\)"
    with refused(rf"does not take a batch of \(3, 1, 7, 8, 9\): RuntimeError {origin}$"):
        Predictor(silent, "softmax", device="cpu")(torch.zeros(3, 1, *SHAPE))


def test_running_out_of_memory_is_no_misuse():
    def full(batch):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError):
        Predictor(full, "softmax")(BATCH)


def test_batches_of_any_number_type():
    net = Predictor(TinyNet(SHAPE), "softmax", device="cpu")
    assert torch.equal(net(BATCH.double()), net(BATCH))
    assert torch.equal(net(BATCH.numpy()), net(BATCH))


def test_outputs_need_no_gradient():
    assert not Predictor(TinyNet(SHAPE), "softmax", device="cpu")(BATCH.clone().requires_grad_()).requires_grad


def test_the_transform_comes_after_the_mask():
    """Darkness is 0 in the scan's intensities, so the network sees it normalised: as ``-mean``."""
    seen = Recorder(returns(torch.tensor([[0.4, 0.6]])))
    predict = Predictor(seen, activation="none", transform=lambda batch: batch - 1.25)
    image = volume(SHAPE)
    GLAS(predict, sigma_light=1e-3, sigma_shadow=np.inf, batch_size=1).explain(image, 1, [[3, 4, 2]])
    intact, lit, dark = (batch[0] for batch in seen.batches)
    np.testing.assert_array_equal(intact, image - np.float32(1.25))
    np.testing.assert_array_equal(dark, np.full_like(image, -1.25))
    elsewhere = np.ones(SHAPE, dtype=bool)
    elsewhere[3, 4, 2] = False
    assert (lit[:, elsewhere] == -1.25).all()
    assert lit[0, 3, 4, 2] == image[0, 3, 4, 2] - np.float32(1.25)


class Standardise:
    """Scan-wide mean: it would move with every mask, were it not frozen."""

    def __init__(self):
        self.fitted = []

    def fit(self, volume):
        self.fitted.append(volume.clone().numpy())
        mean = volume.mean()
        return lambda batch: batch - mean


def test_a_transform_with_fit_is_fitted_once_on_the_intact_volume_and_frozen():
    transform, image = Standardise(), volume(SHAPE)
    seen = Recorder(TinyNet(SHAPE))
    predict = Predictor(seen, "softmax", transform=transform, device="cpu")
    GLAS(predict, batch_size=1, sigma_light=2, sigma_shadow=np.inf).explain(image, [0, 1], Grid(2))
    assert len(transform.fitted) == 1
    assert np.array_equal(transform.fitted[0], image)
    mean = float(torch.from_numpy(image).mean())
    assert len(seen.batches) == 17
    np.testing.assert_allclose(seen.batches[0][0], image - mean, atol=1e-6)
    for batch in seen.batches[2::2]:
        np.testing.assert_allclose(batch[0], np.full_like(image, -mean), atol=1e-6)
    brighter = image * 3
    GLAS(predict, **SMALL).explain(brighter, 1, Grid(2))
    assert len(transform.fitted) == 2
    assert np.array_equal(transform.fitted[1], brighter)


def test_fit_binds_a_copy():
    transform = Standardise()
    predict = Predictor(TinyNet(SHAPE), "softmax", transform=transform, classes=("a", "b", "c"), device="cpu")
    bound = predict.fit(BATCH[0])
    assert predict.transform is transform
    assert bound is not predict
    assert (bound.net, bound.classes, bound.device) == (predict.net, predict.classes, predict.device)
    torch.testing.assert_close(bound(BATCH), Predictor(predict.net, "softmax", device="cpu")(BATCH - BATCH[0].mean()))
    with refused(r"fitted to a scan: call predict.fit\(volume\)\(batch\)"):
        predict(BATCH)


def test_fit_is_itself_without_a_transform_to_fit():
    for transform in (None, lambda batch: batch):
        predict = Predictor(TinyNet(SHAPE), "softmax", transform=transform, device="cpu")
        assert predict.fit(BATCH[0]) is predict


def test_each_submodule_keeps_its_own_mode():
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(504, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    net.train()
    net[3].eval()
    modes, bits = [m.training for m in net.modules()], copy.deepcopy(net.state_dict())
    predict = Predictor(net, "softmax", device="cpu")
    assert torch.equal(predict(BATCH), predict(BATCH))
    torch.testing.assert_close(predict(BATCH)[:1], predict(BATCH[:1]))
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(value, bits[name]) for name, value in net.state_dict().items())


def test_modes_come_back_after_an_error():
    net = TinyNet(SHAPE).train()
    net.body.eval()
    modes = [m.training for m in net.modules()]
    with refused("does not take a batch"):
        Predictor(net, "softmax", device="cpu")(torch.zeros(1, 1, 2, 2, 2))
    assert [m.training for m in net.modules()] == modes


def test_a_module_that_is_where_it_should_be_is_not_copied():
    net = TinyNet(SHAPE)
    assert Predictor(net, "softmax", device="cpu").net is net
    moved = Predictor(net, "softmax", device="meta")
    assert moved.net is not net
    assert next(moved.net.parameters()).device.type == "meta"
    assert next(net.parameters()).device.type == "cpu"


def test_what_a_model_says_about_itself():
    assert Predictor(TinyNet(SHAPE), "softmax").info.name == "TinyNet"
    info = ModelInfo(name="paper", channels=1)
    assert Predictor(TinyNet(SHAPE), "softmax", info=info).info is info


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_auto_finds_the_gpu_and_leaves_the_module():
    net = TinyNet(SHAPE, convolve=False)
    predict = Predictor(net, "softmax")
    assert predict.device.type == "cuda"
    assert next(net.parameters()).device.type == "cpu"
    torch.testing.assert_close(predict(BATCH).cpu(), Predictor(net, "softmax", device="cpu")(BATCH))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_module_on_the_gpu_is_not_copied_there_again():
    net = TinyNet(SHAPE, convolve=False).cuda()
    assert Predictor(net, "softmax", device="auto").net is net
    assert Predictor(net, "softmax", device="cuda").net is net, 'torch.device("cuda") != torch.device("cuda:0")'
