"""docs/method.md once more, in float64 NumPy and plain loops: no separability, no batches, nothing from glas3d.

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
    """``G(x; mu, sigma)``; sigma is one number or one for each axis, spacing None means voxels."""
    spacing = [1.0] * len(shape) if spacing is None else spacing
    sigma = [float(s) for s in np.broadcast_to(sigma, len(shape))]
    g = np.empty(shape)
    for x in np.ndindex(*shape):
        if kernel == "gaussian":
            g[x] = math.exp(-squared_distance(x, mu, [s / each for s, each in zip(spacing, sigma, strict=True)]) / 2)
        else:
            g[x] = math.exp(-math.sqrt(squared_distance(x, mu, spacing)) / sigma[0] ** 2)
    return g


def light(volume, g, background=0.0, channel=None):
    """The input of Eq. 1; of one channel: nothing but background is left of the others."""
    lit = volume * g + background * (1 - g)
    if channel is not None:
        background = np.broadcast_to(background, volume.shape)
        for other in set(range(len(volume))) - {channel}:
            lit[other] = background[other]
    return lit


def shade(volume, g, background=0.0, channel=None):
    """The input of Eq. 2; of one channel: the others stay whole."""
    dark = volume * (1 - g) + background * g
    if channel is not None:
        for other in set(range(len(volume))) - {channel}:
            dark[other] = volume[other]
    return dark


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


def log_odds(logits, y):
    """Those of class ``y`` against all others: ``z_y - log(sum of exp(z) of the others)``."""
    others = [z for j, z in enumerate(logits) if j != y]
    return logits[y] - max(others) - math.log(sum(math.exp(z - max(others)) for z in others))


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
    link="probability",
    density=False,
    gamma=1e-5,
    background=0.0,
    spacing=None,
    channel=None,
    values=None,
    reference=None,
):
    """One explanation. ``probabilities`` returns ``(k,)`` for one float64 volume ``(c, *spatial)``; logits for "logit".

    With covariates, ``values`` and their ``reference``, it is called with the volume and a list of numbers, and they
    are players behind the points.
    """
    volume = np.asarray(volume, dtype=np.float64)
    background = np.broadcast_to(np.asarray(background, dtype=np.float64), volume.shape)
    shape = volume.shape[1:]
    index = None
    if labels is not None:
        index, points = centroids(labels)
    whole, bare = volume, background.copy()  # the inputs in which nothing of the volume is shaded, or lit
    inputs = []  # light and shadow of every point and covariate, each a volume and the covariates
    sums = []  # of the masks of light and shadow of every point
    for mu in points:
        g, h = mask(mu, shape, sigma_light, kernel, spacing), mask(mu, shape, sigma_shadow, kernel, spacing)
        lit, dark = light(volume, g, background, channel), shade(volume, h, background, channel)
        inputs.append(((lit, reference), (dark, values)))
        sums.append((g.sum(), h.sum()))
    for j in range(0 if values is None else len(values)):
        alone = [v if i == j else r for i, (v, r) in enumerate(zip(values, reference, strict=True))]
        without = [r if i == j else v for i, (v, r) in enumerate(zip(values, reference, strict=True))]
        inputs.append(((bare, alone), (whole, without)))
        sums.append((math.nan, math.nan))

    def evaluated(one, numbers):
        outputs = probabilities(one) if numbers is None else probabilities(one, numbers)
        return log_odds(outputs, target) if link == "logit" else outputs[target]

    intact, nothing = evaluated(whole, values), evaluated(bare, reference)
    found = {name: [] for name in ("light", "shadow", "drop", "score", "evidence", "density")}
    for (lit, dark), (sum_of_light, sum_of_shadow) in zip(inputs, sums, strict=True):
        f_l, drop = evaluated(*lit), intact - evaluated(*dark)
        f_s = abs(drop) + gamma

        def fused(fusion, of_light, of_shadow, f_l=f_l, f_s=f_s, drop=drop):
            return {
                "product": f_l * f_s / of_shadow,
                "light": (f_l - (nothing if link == "logit" else 0)) / of_light,
                "shadow": f_s / of_shadow,
                "mean": ((f_l - nothing) / of_light + drop / of_shadow) / 2,
            }[fusion]

        dense = fused(fusion, sum_of_light, sum_of_shadow)
        own = (f_l, f_s, drop, dense if density else fused(fusion, 1, 1), fused("mean", 1, 1), dense)
        for name, value in zip(found, own, strict=True):
            found[name].append(value)
    result = {"points": points, "output": intact, "effect": intact - nothing}
    result["probability"] = 1 / (1 + math.exp(-intact)) if link == "logit" else intact
    result |= {name: v[: len(points)] for name, v in found.items()}
    if index is None:
        result["saliency"] = spread(points, result["score"], shape, sigma_spatial, distance, spacing)
    else:
        result["saliency"] = paint(labels, index, result["score"])
    covariates = {name: np.asarray(value[len(points) :]) for name, value in found.items()}
    return {name: np.asarray(value) for name, value in result.items()} | {"covariates": covariates}


def minmax(values):
    """To [0, 1]; all zero when flat."""
    values = np.asarray(values, dtype=np.float64)
    low, high = values.min(), values.max()
    return np.zeros(values.shape) if low == high else (values - low) / (high - low)


def positive(values):
    """Signed values to [0, 1] with their zero kept: ``max(v, 0) / max``."""
    values = np.maximum(np.asarray(values, dtype=np.float64), 0)
    return values / values.max() if values.max() > 0 else values


def nearest(mu, shape):
    """The voxel a point is read at: coordinates rounded (halves to even), clipped to the image."""
    return tuple(min(max(round(float(a)), 0), n - 1) for a, n in zip(mu, shape, strict=True))


def recurse(
    probabilities,
    volume,
    target,
    *,
    points=None,
    labels=None,
    threshold=0.8,
    stop=5.0,
    max_iterations=10,
    background=0.0,
    **settings,
):
    """Algorithm 1 as docs/method.md reads it: ``S_fuse``, every round, and which of the four ends it came to."""
    image = np.asarray(volume, dtype=np.float64)
    background = np.broadcast_to(np.asarray(background, dtype=np.float64), image.shape)
    shape = image.shape[1:]
    index = None
    if labels is not None:
        index, points = centroids(labels)
    left = list(range(len(points)))
    fused, values, rounds, end = np.zeros(shape), np.zeros(len(points)), [], "iterations"
    while len(rounds) < max_iterations:
        one = explain(probabilities, image, target, points=[points[i] for i in left], background=background, **settings)
        normalised = positive if settings.get("fusion") == "mean" else minmax
        if index is None:
            s = normalised(one["saliency"])
            own = [s[nearest(points[i], shape)] for i in left]
        else:
            own = normalised(one["score"])
            s = paint(labels, [index[i] for i in left], own)
        removed = [i for i, value in zip(left, own, strict=True) if value > threshold]
        image = shade(image, s, background)
        after = probabilities(image)[target]
        if settings.get("link") == "logit":
            after = 1 / (1 + math.exp(-log_odds(probabilities(image), target)))
        measure = math.sqrt(s.mean() / after)
        kept = measure <= stop or not rounds
        rounds.append(
            {"points": left, "saliency": s, "removed": removed, "probability": after, "measure": measure, "kept": kept}
            | {"intact": one["probability"], "score": one["score"]}
        )
        if kept:
            fused += s
            values[left] += own
        left = [i for i in left if i not in removed]
        if measure > stop:
            end = "measure"
        elif not left:
            end = "no point left"
        elif not removed:
            end = "none removed"
        if end != "iterations":
            break
    # as in every round, an atlas' map is normalised over the segments' values
    saliency = normalised(fused) if index is None else paint(labels, index, normalised(values))
    return {"saliency": saliency, "rounds": rounds, "end": end}
