"""Networks for the engines, and what their outputs must be."""

import numpy as np
import torch
from torch import nn

from glas3d import GLAS, Predictor
from glas3d.predict import PaperNet
from tests.core import oracle
from tests.core.cases import in_float64, volume

POINTS = {2: np.array([[9.0, 12.0], [20.25, 5.5]]), 3: np.array([[8.0, 9.0, 11.0], [3.25, 13.0, 5.5]])}
SIGMAS = {"sigma_light": 6.0, "sigma_shadow": 8.0}


def sharp(net):
    """Weights so large that an answer depends on where a spot lies."""
    with torch.no_grad():
        for p in net.parameters():
            if p.ndim > 1:
                p.mul_(1.6)
    return net.eval()


def paper():
    torch.manual_seed(4)
    return sharp(PaperNet((16, 18, 22))), (16, 18, 22)


def flat():
    """Two axes, and a batch normalisation that has seen something."""
    torch.manual_seed(5)
    layers = [nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten()]
    net = nn.Sequential(*layers, nn.Linear(6 * 6 * 7, 3))
    net(torch.rand(8, 1, 24, 28))
    return sharp(net), (24, 28)


def dense():
    from monai.networks.nets import DenseNet121

    torch.manual_seed(6)
    return DenseNet121(spatial_dims=3, in_channels=1, out_channels=2).eval(), (36, 32, 40)


def residual():
    from monai.networks.nets import resnet18

    torch.manual_seed(7)
    return resnet18(spatial_dims=3, n_input_channels=1, num_classes=2).eval(), (32, 24, 40)


def explained(net, shape, engine, batch_size=3, **settings):
    predict = net if isinstance(net, Predictor) else Predictor(net, "softmax", device="cpu")
    glas = GLAS(predict, engine=engine, batch_size=batch_size, **SIGMAS | settings)
    return glas.explain(volume(shape), 1, POINTS[len(shape)])


def truth(net, shape):
    """P(y|I), light and drop in float64, by the oracle."""
    image, ask = volume(shape).astype(np.float64), in_float64(net)
    intact = ask(image)[1]
    points = POINTS[len(shape)]
    light = [ask(oracle.light(image, oracle.mask(mu, shape, SIGMAS["sigma_light"])))[1] for mu in points]
    shaded = [ask(oracle.shade(image, oracle.mask(mu, shape, SIGMAS["sigma_shadow"])))[1] for mu in points]
    return intact, np.array(light), intact - np.array(shaded)
