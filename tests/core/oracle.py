"""METHOD.md once more, in float64 NumPy and plain loops: no separability, no batches, nothing from glas3d.

Slow and plain on purpose: it is what the package is compared with.
"""

import itertools
import math

import numpy as np


def grid(k, shape):
    """Cell centres ``(i + 0.5) * n / k - 0.5`` in C order."""
    cells = [k] * len(shape) if isinstance(k, int) else list(k)
    axes = [[(i + 0.5) * n / c - 0.5 for i in range(c)] for c, n in zip(cells, shape, strict=True)]
    return np.array(list(itertools.product(*axes)))


def centroids(labels):
    """Label values other than 0, ascending, and the mean voxel coordinate of each."""
    members = {}
    for x in np.ndindex(*labels.shape):
        if labels[x] != 0:
            members.setdefault(int(labels[x]), []).append(x)
    index = sorted(members)
    return index, np.array([np.mean(members[value], axis=0) for value in index])


def squared_distance(x, mu, scale):
    return sum(((a - b) * s) ** 2 for a, b, s in zip(x, mu, scale, strict=True))


def mask(mu, shape, sigma, kernel="gaussian", spacing=None):
    """``G(x; mu, sigma)``; sigma is one number or one an axis, spacing None means voxels."""
    spacing = [1.0] * len(shape) if spacing is None else spacing
    sigma = [float(s) for s in np.broadcast_to(sigma, len(shape))]
    g = np.empty(shape)
    for x in np.ndindex(*shape):
        if kernel == "gaussian":
            g[x] = math.exp(-squared_distance(x, mu, [s / each for s, each in zip(spacing, sigma, strict=True)]) / 2)
        else:
            g[x] = math.exp(-math.sqrt(squared_distance(x, mu, spacing)) / sigma[0] ** 2)
    return g


def light(volume, g, background=0.0):
    """The input of Eq. 1."""
    return volume * g + background * (1 - g)


def shade(volume, g, background=0.0):
    """The input of Eq. 2."""
    return volume * (1 - g) + background * g


def spread(points, scores, shape, sigma, distance="euclidean", spacing=None):
    """Eq. 3."""
    spacing = [1.0] * len(shape) if spacing is None else spacing
    sigma = [float(s) for s in np.broadcast_to(sigma, len(shape))]
    saliency = np.zeros(shape)
    for x in np.ndindex(*shape):
        for mu, score in zip(points, scores, strict=True):
            if distance == "squared":
                scale = [s / each for s, each in zip(spacing, sigma, strict=True)]
                weight = math.exp(-squared_distance(x, mu, scale))
            else:
                weight = math.exp(-math.sqrt(squared_distance(x, mu, spacing)) / sigma[0] ** 2)
            saliency[x] += weight * score / len(points)
    return saliency


def paint(labels, index, scores):
    """Every voxel of segment i gets score i; voxels of no segment get 0."""
    saliency = np.zeros(labels.shape)
    for value, score in zip(index, scores, strict=True):
        saliency[labels == value] = score
    return saliency


def explain(
    probabilities,
    volume,
    target,
    *,
    points=None,
    labels=None,
    sigma_light=10.0,
    sigma_shadow=15.0,
    sigma_spatial=6.0,
    kernel="gaussian",
    distance="euclidean",
    fusion="product",
    gamma=1e-5,
    background=0.0,
    spacing=None,
):
    """One explanation. ``probabilities`` answers one float64 volume ``(c, *spatial)`` with ``(k,)``."""
    volume = np.asarray(volume, dtype=np.float64)
    background = np.broadcast_to(np.asarray(background, dtype=np.float64), volume.shape)
    shape = volume.shape[1:]
    index = None
    if labels is not None:
        index, points = centroids(labels)
    intact = probabilities(volume)[target]
    result = {"points": points, "probability": intact, "light": [], "shadow": [], "drop": [], "score": []}
    for mu in points:
        lit = probabilities(light(volume, mask(mu, shape, sigma_light, kernel, spacing), background))[target]
        dark = probabilities(shade(volume, mask(mu, shape, sigma_shadow, kernel, spacing), background))
        shadow = abs(intact - dark[target]) + gamma
        result["light"].append(lit)
        result["shadow"].append(shadow)
        result["drop"].append(intact - dark[target])
        result["score"].append({"product": lit * shadow, "light": lit, "shadow": shadow}[fusion])
    if index is None:
        result["saliency"] = spread(points, result["score"], shape, sigma_spatial, distance, spacing)
    else:
        result["saliency"] = paint(labels, index, result["score"])
    return {name: np.asarray(value) for name, value in result.items()}
