import pytest
import torch
from torch import nn

from glas3d.predict import Autoencoder, PaperNet


def kinds(module):
    return [type(layer).__name__ for layer in module]


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_paper_s_layers(batch_norm):
    net = PaperNet((17, 19, 23), channels=2, classes=3, batch_norm=batch_norm, dropout=0.25)
    block = ["Conv3d", *(["BatchNorm3d"] if batch_norm else []), "ReLU", "MaxPool3d"]
    assert kinds(net.encoder) == block * 3
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv3d)]
    assert [(m.in_channels, m.out_channels) for m in convolutions] == [(2, 10), (10, 10), (10, 10)]
    assert {(m.kernel_size, m.padding, m.stride) for m in convolutions} == {((3, 3, 3), (1, 1, 1), (1, 1, 1))}
    assert {m.kernel_size for m in net.modules() if isinstance(m, nn.MaxPool3d)} == {2}
    assert kinds(net.classifier) == ["Flatten", "Dropout", "Linear", "ReLU", "Linear", "ReLU", "Linear"]
    dense = [m for m in net.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in dense] == [(10 * 2 * 2 * 2, 32), (32, 16), (16, 3)]
    assert net.classifier[1].p == 0.25


@pytest.mark.parametrize(("batch_norm", "extra"), [(False, 0), (True, 3 * 2 * 10)])
def test_parameters(batch_norm, extra):
    net = PaperNet((48, 56, 48), batch_norm=batch_norm)
    convolutions = (27 * 10 + 10) + 2 * (27 * 100 + 10)
    dense = (10 * 6 * 7 * 6 * 32 + 32) + (32 * 16 + 16) + (16 * 2 + 2)
    assert sum(p.numel() for p in net.parameters()) == convolutions + dense + extra
    assert all(p.requires_grad for p in net.parameters())


def test_the_defaults_are_the_paper_s():
    net = PaperNet((8, 8, 8))
    assert not any(isinstance(m, nn.BatchNorm3d) for m in net.modules())
    assert net.classifier[1].p == 0
    assert net(torch.rand(1, 1, 8, 8, 8)).shape == (1, 2)


SHAPES = [(8, 8, 8), (17, 19, 23), (9, 16, 31), (24, 8, 15)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_any_shape_of_eight_voxels_or_more(shape, batch_norm):
    net = PaperNet(shape, channels=2, classes=4, batch_norm=batch_norm)
    logits = net(torch.rand(3, 2, *shape))
    assert logits.shape == (3, 4)
    logits.sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_logits_are_no_probabilities():
    torch.manual_seed(0)
    net = PaperNet((8, 9, 10)).eval()
    with torch.inference_mode():
        logits = net(torch.randn(4, 1, 8, 9, 10) * 50)
    assert logits.min() < 0 or not torch.allclose(logits.sum(dim=1), torch.ones(4))


@pytest.mark.parametrize("shape", [*SHAPES, (32, 32, 33)])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_autoencoder_gives_back_its_input_s_shape(shape, channels, batch_norm):
    autoencoder = Autoencoder(channels, batch_norm=batch_norm)
    assert autoencoder(torch.rand(2, channels, *shape)).shape == (2, channels, *shape)


def test_the_decoder_mirrors_the_encoder():
    assert kinds(Autoencoder().decoder) == ["Upsample", "Conv3d", "ReLU"] * 2 + ["Upsample", "Conv3d"]


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_encoder_moves_into_the_network(batch_norm):
    autoencoder, net = Autoencoder(2, batch_norm=batch_norm), PaperNet((17, 19, 23), 2, batch_norm=batch_norm)
    batch = torch.rand(2, 2, 17, 19, 23)
    autoencoder(batch)  # running statistics that are not a new network's
    autoencoder.eval(), net.eval()
    assert not torch.equal(autoencoder.encoder(batch), net.encoder(batch))
    net.encoder.load_state_dict(autoencoder.encoder.state_dict())
    assert torch.equal(autoencoder.encoder(batch), net.encoder(batch))
