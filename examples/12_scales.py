# %% [markdown]
# # Scales: which sigma, when lesions are of several sizes?
#
# One to three lesions of radius 2, 3 or 5 voxels are planted in noise, and three models are asked that know where
# they are: one answers to any of them (OR), one to their sum, one to all of them at once (AND). A ladder of sigmas
# explains each volume. The best fixed sigma is chosen on some seeds and reported on others, beside what uses all
# sigmas: their mean, and each point's own.
#
# `python examples/12_scales.py docs/scale.md 40` writes the page with 40 volumes a model; without arguments 6 are made.

# %%
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from sklearn.metrics import average_precision_score

from glas3d import GLAS, Grid
from glas3d.core.explanation import drawn
from glas3d.core.saliency import minmax
from glas3d.core.scale import adaptive, ladder

PAGE = Path(sys.argv[1] if len(sys.argv) > 1 else "glas3d-examples/12_scales.md")
VOLUMES = int(sys.argv[2]) if len(sys.argv) > 2 else 6
PAGE.parent.mkdir(exist_ok=True, parents=True)
torch.set_num_threads(1)

SHAPE, RADII, SIGMAS = (26, 32, 22), (2, 3, 5), (1.0, 1.6, 2.5, 4.0, 6.3)
PLACE = np.stack(np.indices(SHAPE)).astype(float)
MODELS = ("or", "sum", "and")

# %% [markdown]
# A lesion is brighter the smaller it is, so that all are about as visible. The reference of the spots is the level of
# the healthy tissue, 0 here: a spot takes a lesion away and leaves no hole.


# %%
def ball(centre, radius):
    return np.sqrt(((PLACE - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(axis=0)) <= radius


def planted(seed):
    """A volume, its lesions as masks, and how much each of them counts."""
    rng = np.random.default_rng([12, seed])
    volume = gaussian_filter(rng.standard_normal(SHAPE), 1.0)
    volume /= volume.std() * 2
    found, places = [], []
    while len(found) < 1 + seed % 3:
        radius = int(rng.choice(RADII))
        centre = np.array([rng.uniform(radius, n - 1 - radius) for n in SHAPE])
        if all(np.linalg.norm(centre - c) > radius + r + 2 for c, r in places):
            places.append((centre, radius))
            found.append(ball(centre, radius))
            volume[found[-1]] += 5 / radius
    return volume.astype(np.float32), np.array(found), rng.uniform(0.5, 0.95, len(found))


def model(kind, volume, lesions, strength):
    """P from how much of each lesion's brightness is left."""
    where = torch.as_tensor(lesions.reshape(len(lesions), -1).T / lesions.sum(axis=(1, 2, 3)), dtype=torch.float32)
    full = torch.as_tensor(volume.reshape(1, -1)) @ where
    weight = torch.as_tensor(strength, dtype=torch.float32)

    def answer(batch):
        seen = torch.sigmoid(10 * ((batch.flatten(1) @ where) / full - 0.5)) * weight
        if kind == "or":
            p = 1 - (1 - seen).prod(dim=1)
        else:
            p = seen.sum(dim=1) / weight.sum() if kind == "sum" else (seen / weight).prod(dim=1)
        return torch.stack([1 - p, p], dim=1)

    return answer


def asked(kind, seed):
    volume, lesions, strength = planted(seed)
    glas = GLAS(model(kind, volume, lesions, strength), sigma_light=1.0, sigma_shadow=1.5, sigma_spatial=1.5)
    each = {s: g.explain(volume[None], 1, Grid((9, 11, 8))) for s, g in ladder(glas, SIGMAS).items()}
    return volume, lesions, adaptive(each)


def maps(fused):
    """Every way of using the ladder, by name."""
    each = fused.explanations
    standard = {s: (e.score - e.score.mean()) / max(e.score.std(), 1e-12) for s, e in each.items()}
    own = np.array([standard[s][i] for i, s in enumerate(fused.scale)])
    return {
        **{f"fixed, {s:g}": drawn(e, minmax(e.score)) for s, e in each.items()},
        "each point's own": drawn(fused.explanation, minmax(own)),
        "the scan's own": drawn(each[fused.best], minmax(each[fused.best].score)),
        "mean of all": fused.explanation.saliency,
    }


def judged(saliency, lesions):
    """Average precision over voxels, and the share of lesions with one of as many highest, separate peaks."""
    truth = lesions.any(axis=0)
    left, hits = saliency.copy(), set()
    for _ in lesions:
        peak = np.unravel_index(left.argmax(), SHAPE)
        near = [i for i, lesion in enumerate(lesions) if (lesion & ball(peak, 2)).any()]
        hits.update(near)
        left[ball(peak, 6)] = -1
    return average_precision_score(truth.ravel(), saliency.ravel()), len(hits) / len(lesions)


# %% [markdown]
# Half of the seeds choose the best fixed sigma of a model, and of all models together; the other half reports.

# %%
scores = {}
for kind in MODELS:
    for seed in range(VOLUMES):
        _, lesions, fused = asked(kind, seed)
        for name, saliency in maps(fused).items():
            scores.setdefault((kind, name), []).append(judged(saliency, lesions))
    print(f"{kind}: {VOLUMES} volumes of {SHAPE}, {len(fused.scale)} points, {len(SIGMAS)} sigmas")
table = {key: np.array(values) for key, values in scores.items()}
choosing, reporting = slice(0, VOLUMES // 2), slice(VOLUMES // 2, None)
names = list(dict.fromkeys(name for _, name in table))
fixed = [name for name in names if name.startswith("fixed")]
best = {kind: max(fixed, key=lambda n: table[kind, n][choosing, 0].mean()) for kind in MODELS}
best_of_all = max(fixed, key=lambda n: sum(table[kind, n][choosing, 0].mean() for kind in MODELS))


def cells(name):
    found = [table[kind, name][reporting].mean(axis=0) for kind in MODELS]
    whole = np.mean(found, axis=0)
    return [f"{ap:.3f} / {hit:.2f}" for ap, hit in [*found, whole]]


rows = [[f"sigma {n.removeprefix('fixed, ')}", *cells(n)] for n in fixed]
rows += [[n, *cells(n)] for n in names if n not in fixed]
header = ["", *(kind.upper() for kind in MODELS), "all"]
lines = ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]]
print("\n".join(lines))


def difference(name, other):
    """Between two ways over the reported volumes, paired: average precision and lesions hit, with standard errors."""
    joined = np.concatenate([table[kind, name][reporting] - table[kind, other(kind)][reporting] for kind in MODELS])
    mean, error = joined.mean(axis=0), joined.std(axis=0, ddof=1) / np.sqrt(len(joined))
    return f"{mean[0]:+.3f} (s.e. {error[0]:.3f}) and {mean[1]:+.2f} ({error[1]:.2f})"


own_best = ", ".join(f"{kind.upper()} {name.removeprefix('fixed, ')}" for kind, name in best.items())
verdicts = [
    f"- {name}: {difference(name, lambda kind: best_of_all)} against the fixed sigma best for all models together "
    f"({best_of_all.removeprefix('fixed, ')}), {difference(name, best.get)} against each model's own best "
    f"({own_best})"
    for name in ("mean of all", "each point's own", "the scan's own")
]
print("\n".join(verdicts))

# %% [markdown]
# One volume with three lesions, projected along z (the largest value), from fine to coarse.

# %%
volume, lesions, fused = asked("or", 2)
drawings = maps(fused)
figure, axes = plt.subplots(2, 4, figsize=(12.5, 7.4), layout="constrained")
shown = {"volume, lesions outlined": volume, **drawings}
shown.pop("the scan's own")
for axis, (name, values) in zip(axes.flat, shown.items(), strict=True):
    image = values if name.startswith("volume") else minmax(values)
    drawn_image = axis.imshow(
        image.max(axis=2).T, origin="lower", cmap="gray" if name.startswith("volume") else "inferno"
    )
    axis.contour(lesions.any(axis=(0, 3)).T, levels=[0.5], colors="white" if values is not volume else "tab:red")
    sigma = name.removeprefix("fixed, ")
    axis.set_title(f"sigma {sigma} / {1.5 * float(sigma):g} voxels" if sigma != name else name, fontsize=11)
    axis.set(xlabel="x, voxel", ylabel="y, voxel")
    label = "intensity" if name.startswith("volume") else "saliency, 0 to 1"
    figure.colorbar(drawn_image, ax=axis, shrink=0.75, label=label)
figure.suptitle(
    "A model that answers to any of three lesions, largest values along z: from fine to coarse", fontsize=13
)
figure.savefig(PAGE.with_suffix(".png"), dpi=85)

# %%
PAGE.write_text(
    f"""# Which sigma?

`python examples/12_scales.py docs/scale.md {VOLUMES}` wrote this page. One to three lesions of radius 2, 3 or 5 voxels in
noise, {VOLUMES} volumes of {" x ".join(map(str, SHAPE))} a model, seeds 0 to {VOLUMES - 1}: the first half chose the best fixed
sigma, the second half is reported. The models know the lesions: OR answers to any of them, SUM to their weighted sum, AND to
all at once. Average precision over voxels / share of lesions hit by one of as many highest peaks; light has the
sigma of the row, shadow 1.5 times that.

{chr(10).join(lines)}

Paired differences of average precision, and of lesions hit, with standard errors:

{chr(10).join(verdicts)}

`scales=(0.5, 1, 2)` of `explain_img`, or `glas3d.core.scale`, asks with every sigma, gives a table and a map a scale, tells
each point's or region's own scale (where it stands out most among the points of that scale), and draws the mean of the
normalised scores. It costs as many times the forwards as there are scales. One fixed sigma, chosen with the model, stays
the default.

![The same volume under five sigmas, then each point's own, and the mean of all]({PAGE.with_suffix(".png").name})
""",
    encoding="utf-8",
)
print(f"written: {PAGE}")
