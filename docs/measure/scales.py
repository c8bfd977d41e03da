# %% [markdown]
# # Scales: which sigma, when lesions are of several sizes?
#
# One to three lesions of radius 2, 4 or 6 voxels are planted in noise. A ladder of sigmas explains each volume. The best
# fixed sigma is chosen on some volumes and reported on others, next to methods that use all sigmas at once: `fuse_scales`,
# which `scales=` of `explain_img` uses, and its rivals. Then the same is done with segments in place of points, where masks
# may have the shape of the segments, and with simulated brains.
#
# `python docs/measure/scales.py docs/scale.md 24` writes the page in ten minutes; without arguments, 2 volumes and no network.

# %%
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score
from torch import nn

from glas3d import GLAS, Atlas, Grid, Predictor, Segments, explain_img, load_model
from glas3d.cli.demo import DEMO_SEED, MODEL
from glas3d.core.explanation import draw_scores
from glas3d.core.saliency import minmax
from glas3d.core.scale import fuse_scales, ladder
from glas3d.simulate import PLANTED, Simulation, scan_img, simulate_participants
from glas3d.study.group.group_map import GroupMap

PAGE = Path(sys.argv[1] if len(sys.argv) > 1 else "glas3d-examples/scales.md")
VOLUMES = int(sys.argv[2]) if len(sys.argv) > 2 else 2
FULL = VOLUMES >= 8
PAGE.parent.mkdir(exist_ok=True, parents=True)
torch.set_num_threads(1)

SHAPE, RADII, SEGMENTS = (32, 38, 28), (2, 4, 6), 70
SIGMAS, SOFTENINGS = (0.6, 1.0, 1.6, 2.5, 4.0, 6.3), (0.5, 1.0, 1.6, 2.5, 4.0)
MODELS = {"or": "OR", "sum": "SUM", "noisy": "OR, noisy", **({"network": "network"} if FULL else {})}
PLACE = np.stack(np.indices(SHAPE)).astype(np.float32)

# %% [markdown]
# Smaller lesions are brighter, so that all are about as visible. The background is the level of healthy tissue, 0 here: a
# shadow removes a lesion and leaves no hole.


# %%
def distance(centre):
    return np.sqrt(((PLACE - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(axis=0))


def planted(rng, lesions):
    """Return a volume of correlated noise with lesions, their centres with radii, and their voxels."""
    volume = gaussian_filter(rng.standard_normal(SHAPE).astype(np.float32), 1.0)
    volume /= volume.std()
    centres = []
    while len(centres) < lesions:
        radius = int(rng.choice(RADII))
        centre = np.array([rng.uniform(radius, n - 1 - radius) for n in SHAPE])
        if all(np.linalg.norm(centre - c) > radius + r + 3 for c, r in centres):
            centres.append((centre, radius))
            volume += 10 / radius / (1 + np.exp((distance(centre) - radius - 0.3) / 0.3))
    return volume.astype(np.float32), centres, np.array([distance(c) <= r for c, r in centres]).reshape(-1, *SHAPE)


def informed_model(kind, seed, centres, lesions):
    """Return a model that knows the lesions: it depends on how much of the brightness of each lesion is left."""
    weight = lesions.reshape(len(lesions), -1).T / lesions.sum(axis=(1, 2, 3)) * [r / 10 for _, r in centres]
    weight = torch.as_tensor(weight, dtype=torch.float32)
    strength = torch.as_tensor(np.random.default_rng([seed, 1]).uniform(0.5, 0.95, len(centres)), dtype=torch.float32)
    phase = float(seed)
    none = torch.sigmoid(torch.tensor(-4.0))

    def predict(batch):
        left = batch.flatten(1) @ weight
        if kind == "sum":
            p = torch.sigmoid(8 * (left @ strength / strength.sum() - 0.55))
        else:
            visible = ((torch.sigmoid(8 * (left - 0.5)) - none) / (1 - 2 * none)).clamp(0, 1) * strength
            p = 0.02 + 0.98 * (1 - (1 - visible).prod(dim=1))
        if kind == "noisy":
            # of the standard deviation 0.003, and always the same for one input, as a model must be
            p = (p + 0.003 * 2**0.5 * torch.sin(phase + 1e4 * batch.double().flatten(1).sum(1)).float()).clamp(0, 1)
        return torch.stack([1 - p, p], dim=1)

    return predict


# %% [markdown]
# The network does not know where lesions are. It learns to separate volumes with lesions from volumes without. Some training
# volumes are lit or shaded, so that it knows masks. It treats all positions alike and keeps the strongest response.


# %%
def training_volume(rng, label, perturbed):
    volume, _, _ = planted(rng, rng.integers(1, 4) if label else 0)
    if rng.uniform() < perturbed:
        sigma, dark = np.exp(rng.uniform(np.log(1.0), np.log(8.0))), np.ones(SHAPE, dtype=np.float32)
        for _ in range(rng.integers(1, 4)):
            dark *= 1 - np.exp(-0.5 * (distance([rng.uniform(0, n - 1) for n in SHAPE]) / sigma) ** 2)
        volume *= dark if rng.uniform() < 0.4 else 1 - dark
    return volume


def trained(seed, steps=600, size=10):
    rng = np.random.default_rng([2, seed])
    torch.manual_seed(seed)
    layers = [nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(8, 12, 3, padding=1), nn.ReLU()]
    layers += [nn.MaxPool3d(2), nn.Conv3d(12, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool3d(1), nn.Flatten()]
    net = nn.Sequential(*layers, nn.Linear(16, 2)).to(memory_format=torch.channels_last_3d)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=steps)
    labels = torch.arange(60) % 2
    for step in range(steps):
        batch = [training_volume(rng, i % 2, 0.6 if step > steps // 4 else 0.0) for i in range(size)]
        loss = nn.functional.cross_entropy(net(torch.as_tensor(np.stack(batch))[:, None]), labels[:size])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    unseen = torch.as_tensor(np.stack([training_volume(rng, i % 2, 0.0) for i in range(60)]))[:, None]
    predict = Predictor(net.eval(), activation="softmax", device="cpu")
    right = int((predict(unseen).argmax(dim=1) == labels).sum())
    print(f"network {seed}: {right} of 60 unseen volumes classified correctly", flush=True)
    return predict


networks = [trained(seed) for seed in range(4)] if FULL else []

# %% [markdown]
# Every method that uses the ladder gives one score for each point; all scores are drawn alike. The rivals: scores min-max
# normalised within each scale and averaged; the largest of the scores standardised within each scale, of the scores' share
# of the sum within their scale, and of the score per volume of the mask; the smallest mask with half the light of the
# largest one.


# %%
def standard(values):
    return (values - values.mean(axis=1, keepdims=True)) / np.maximum(values.std(axis=1, keepdims=True), 1e-12)


def methods(fused):
    """Return the score ``(m,)`` of every method, by its name."""
    each = fused.explanations
    score = np.stack([e.score for e in each.values()])
    light = np.stack([e.light for e in each.values()])
    sigma = np.array(list(each))[:, None]
    in_logs = standard(np.log(np.maximum(score, 1e-7 * score.max())))
    enough = (light >= light[-1] / 2).argmax(axis=0)
    return {
        **{f"sigma {s:g}": e.score for s, e in each.items()},
        **{f"sigma {s:g}, log": row for s, row in zip(each, in_logs, strict=True)},
        "mean of min-max normalised": np.mean([minmax(row) for row in score], axis=0),
        "largest standard score": standard(score).max(axis=0),
        "largest share": (score / score.sum(axis=1, keepdims=True)).max(axis=0),
        "largest per mask volume": (score / sigma**3).max(axis=0),
        "smallest mask with half the light": (score / sigma)[enough, np.arange(score.shape[1])],
        "largest standard score, log": in_logs.max(axis=0),
        "the scan's best sigma, log": in_logs[list(each).index(fused.best)],
        "all scales (`fuse_scales`)": fused.explanation.score,
    }


def precision(truth, values):
    """Return average precision, and the best overlap (intersection over union) of any threshold."""
    order = np.argsort(-values, kind="stable")
    hits, chosen = truth[order].cumsum(), np.arange(1, len(order) + 1)
    return average_precision_score(truth, values), (hits / (chosen + truth.sum() - hits)).max()


def quality(saliency, centres, lesions):
    """Return the `METRICS` of a map; lesions hit and their distance are those of as many separate peaks as lesions."""
    truth = lesions.any(axis=0)
    left, peaks = saliency.copy(), []
    for _ in centres:
        peaks.append(np.unravel_index(left.argmax(), SHAPE))
        left[distance(peaks[-1]) <= 6] = -np.inf
    away = [min(np.linalg.norm(centre - peak) for peak in peaks) for centre, _ in centres]
    near = [a <= radius + 1 for a, (_, radius) in zip(away, centres, strict=True)]
    area, overlap = precision(truth.ravel(), saliency.ravel())
    return [area, np.mean(near), overlap, truth[peaks[0]], np.mean(away)]


METRICS = ("average precision", "lesions hit", "best overlap", "highest voxel in a lesion", "distance, voxels")


def workload(kind, seed):
    rng = np.random.default_rng([12, seed])
    volume, centres, lesions = planted(rng, 1 + seed % 3)
    predict = networks[seed * 4 // VOLUMES] if kind == "network" else informed_model(kind, seed, centres, lesions)
    glas = GLAS(predict, sigma_light=1.0, sigma_shadow=1.5, sigma_spatial=3.5, distance="squared", batch_size=8)
    return rng, volume, centres, lesions, glas


def laddered(glas, volume, search, scales):
    return fuse_scales({s: g.explain(volume[None], 1, search) for s, g in ladder(glas, scales).items()})


# %%
scores, sizes = {}, {}
for kind in MODELS:
    for seed in range(VOLUMES):
        _, volume, centres, lesions, glas = workload(kind, seed)
        fused = laddered(glas, volume, Grid((7, 9, 6)), SIGMAS)
        for name, score in methods(fused).items():
            scores.setdefault((kind, name), []).append(quality(draw_scores(fused.explanation, score), centres, lesions))
        for centre, radius in centres:
            nearest = np.linalg.norm(fused.explanation.points - centre, axis=1).argmin()
            sizes.setdefault(kind, []).append((radius, fused.scale[nearest]))
    print(f"{kind}: {VOLUMES} volumes, {len(fused.scale)} points, {len(SIGMAS)} sigmas", flush=True)
table = {key: np.array(values, dtype=float) for key, values in scores.items()}

# %%
choosing, reporting = slice(0, VOLUMES // 2), slice(VOLUMES // 2, None)
names = list(dict.fromkeys(name for _, name in table))
fixed, in_logs = ([f"sigma {s:g}{end}" for s in SIGMAS] for end in ("", ", log"))
overall = {n: sum(table[kind, n][choosing, 0].mean() for kind in MODELS) for n in names}
best, best_log = max(fixed, key=overall.get), max(in_logs, key=overall.get)
hindsight = {kind: max(fixed + in_logs, key=lambda n: table[kind, n][reporting, 0].mean()) for kind in MODELS}


def markdown(header, rows):
    cells = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in cells)


def row(name, judgements=table):
    means = [judgements[kind, name][reporting].mean(axis=0) for kind in MODELS]
    return [f"{of[0]:.3f} / {of[1]:.2f}" for of in [*means, np.mean(means, axis=0)]]


by_model = markdown(["", *MODELS.values(), "mean"], [[name, *row(name)] for name in names])
named = [best, best_log, *names[len(fixed + in_logs) :]]
whole = {n: np.mean([table[kind, n][reporting].mean(axis=0) for kind in MODELS], axis=0) for n in named}
by_metric = markdown(["", *METRICS], [[n, *(f"{v:.3f}" for v in values)] for n, values in whole.items()])


def difference(other):
    """Return the paired difference of `fuse_scales` and another method: precision and lesions hit, with errors."""
    joined = np.concatenate([table[k, names[-1]][reporting] - table[k, other(k)][reporting] for k in MODELS])
    mean, error = joined.mean(axis=0), joined.std(axis=0) / np.sqrt(len(joined))
    return f"{mean[0]:+.3f} (s.e. {error[0]:.3f}) and {mean[1]:+.3f} ({error[1]:.3f})"


oracle = "; ".join(f"{MODELS[kind]}: {name}" for kind, name in hindsight.items())
verdicts = [
    f"- against the fixed sigma chosen for all models ({best}): {difference(lambda kind: best)}",
    f"- against the fixed sigma chosen for standard scores of the logarithm ({best_log}): {difference(lambda kind: best_log)}",
    f"- against the best choice in hindsight for each model ({oracle}): {difference(hindsight.get)}",
]
own = []
for kind, pairs in sizes.items():
    radius, scale = np.array(pairs).T
    typical = [f"{np.exp(np.log(scale[radius == r]).mean()):.1f}" if (radius == r).any() else "" for r in RADII]
    rank = spearmanr(radius, scale)[0] if np.ptp(radius) and np.ptp(scale) else float("nan")
    own.append([MODELS[kind], *typical, f"{rank:.2f}"])
own_table = markdown(["", *(f"radius {r}" for r in RADII), "rank correlation"], own)
print(by_model, by_metric, "\n".join(verdicts), own_table, sep="\n\n", flush=True)

# %% [markdown]
# Segments are the cells nearest to random seeds. A segment belongs to a lesion if it holds a quarter of the lesion, or if
# the lesion fills half of it. Masks are round, the ellipsoid of the segment, or the softened segment itself.


# %%
KERNELS = {"gaussian": SIGMAS, "ellipsoid": SOFTENINGS, "segment": SOFTENINGS}
scores = {}
for kind in MODELS:
    for seed in range(VOLUMES):
        rng, volume, centres, lesions, glas = workload(kind, seed)
        seeds = rng.uniform(0, np.array(SHAPE) - 1, (SEGMENTS, 3))
        segments = Segments.from_labels(cKDTree(seeds).query(PLACE.reshape(3, -1).T)[1].reshape(SHAPE) + 1)
        held = np.array([[lesion[segments.labels == value].sum() for value in segments.index] for lesion in lesions])
        belongs = (held >= 0.25 * held.sum(axis=1, keepdims=True)) | (held >= 0.5 * segments.n_voxels)
        any_lesion = belongs.any(axis=0)
        for kernel, scales in KERNELS.items():
            for name, score in methods(laddered(glas.replace(kernel=kernel), volume, segments, scales)).items():
                top = belongs[:, np.argsort(-score)[: any_lesion.sum()]]
                value = [precision(any_lesion, score)[0], top.any(axis=1).mean()]
                scores.setdefault((kind, f"{kernel}, {name}"), []).append(value)
by_segment = {key: np.array(values) for key, values in scores.items()}
rows, verdict = [], [f"points, round masks: {row(names[-1])[-1]} against {row(best)[-1]} of {best}"]
for kernel, scales in KERNELS.items():
    single = [f"{kernel}, sigma {s:g}" for s in scales]
    chosen = max(single, key=lambda n: sum(by_segment[kind, n][choosing, 0].mean() for kind in MODELS))
    for name in (chosen, f"{kernel}, mean of min-max normalised", f"{kernel}, {names[-1]}"):
        rows.append([name, *row(name, by_segment)])
    verdict.append(f"segments, {kernel}: {rows[-1][-1]} against {rows[-3][-1]} of {chosen.split(', ')[1]}")
by_kernel = markdown(["mask", *MODELS.values(), "mean"], rows)

# %% [markdown]
# Simulated brains: how many of the six planted regions are among the first of the group's 116?

# %%
count = 6 if FULL else 1
predict, aal = load_model(MODEL), Atlas.load("AAL")
simulation = Simulation(participants=2 * count, seed=DEMO_SEED + 12)
scans = [scan_img(simulation, p.volume) for p in simulate_participants(simulation) if p.group == "AD"]
rows = []
for kernel in KERNELS if FULL else ("gaussian",):
    groups = {}
    for scan in scans:
        result = explain_img(scan, predict, "AD", aal, kernel=kernel, scales=(0.5, 1, 2) if FULL else (0.5, 1))
        for name, part in {**result.parts, names[-1]: result}.items():
            groups.setdefault(name, GroupMap("AD", aal)).add(part)
    for name, group in groups.items():
        regions = group.table().dropna(subset=["score"]).sort_values("rank")
        hits = regions["name"].isin(PLANTED).to_numpy()
        label = name if name == names[-1] else f"{name.removeprefix('scale').replace('p', '.')} x preset"
        ap = average_precision_score(hits, regions["score"])
        rows.append([kernel, label, f"{hits[:6].sum()} / {hits[:8].sum()}", f"{ap:.3f}"])
    preset = next(cells[-1] for cells in rows if cells[:2] == [kernel, "1 x preset"])
    verdict.append(f"simulated brains, {kernel}: {rows[-1][-1]} against {preset} of the preset")
by_region = markdown(["mask", "", "planted in the first 6 / 8", "average precision"], rows)

# %%
_, volume, centres, lesions, glas = workload("or", 14)
fused = laddered(glas, volume, Grid((7, 9, 6)), SIGMAS)
shown = {f"sigma {s:g} / {1.5 * s:g} voxels": e.saliency for s, e in fused.explanations.items()}
shown["all scales"] = fused.explanation.saliency
figure, axes = plt.subplots(2, 4, figsize=(13, 7.6), layout="constrained")
for axis, (name, values) in zip(axes.flat, {"volume": volume, **shown}.items(), strict=True):
    image = values.max(axis=2) if values is volume else values.max(axis=2).clip(0) / values.max()
    picture = axis.imshow(image.T, origin="lower", cmap="gray" if values is volume else "inferno")
    outline = lesions.any(axis=(0, 3)).astype(float).T
    axis.contour(outline, levels=[0.5], colors="tab:red" if values is volume else "white", linewidths=1)
    axis.set(title=name, xlabel="first axis, voxels", ylabel="second axis, voxels")
    label = "intensity, noise s.d." if values is volume else "saliency, highest = 1"
    figure.colorbar(picture, ax=axis, shrink=0.75, label=label)
figure.suptitle(
    "Three lesions (outlined) and a model for which any of them is enough; largest value along the third axis"
)
figure.savefig(PAGE.with_suffix(".png"), dpi=80)

# %%
network = (
    "\nThe network is trained to separate volumes with lesions from volumes without: two networks for each half."
    if FULL
    else ""
)
PAGE.write_text(
    f"""# Which sigma?

`python docs/measure/scales.py docs/scale.md {VOLUMES}` wrote this page. In short, average precision / lesions hit of all scales
together (`fuse_scales`) against one sigma, means over models (simulated brains: average precision of the planted regions):

{chr(10).join(f"- {line}" for line in verdict)}

So a ladder of sigmas is useful when no sigma has been chosen for the model. One sigma that fits the
model can be as good (segments, gaussian), costs less, and stays the default. A scale at which little stands out has
almost no weight, and a lesion that only such a scale shows may be missing (OR, volume 2): look at each scale's own map too.

One to three lesions of radius {RADII[0]}, {RADII[1]} or {RADII[2]} voxels in noise, {VOLUMES} volumes of {" x ".join(map(str, SHAPE))} for each model: the first half
chose the fixed sigmas, the second is reported; `fuse_scales` was fixed before, on volumes of another shape. OR depends on
any of the volume's lesions, SUM on their weighted sum; *noisy* adds noise of 0.003 to each probability.{network}
Light has the sigma of the row, shadow 1.5 times that. Standard scores are `(v - mean) / standard deviation` over the points
of one scale; *log*: of the logarithm of the score.

## Points

{len(fused.scale)} points of a grid. Average precision over voxels / share of lesions hit by one of the highest peaks, as many as there are lesions.

{by_model}

Means over models; distances are from a lesion's centre to the nearest of those peaks:

{by_metric}

Paired differences of `fuse_scales` in average precision and in lesions hit:

{chr(10).join(verdicts)}

## The scale of each point

The sigma at which the point nearest to a lesion's centre stands out most: the geometric mean for each radius, and Spearman's
rank correlation of the two, over {len(sizes["or"])} lesions for each model.

{own_table}

## {SEGMENTS} segments, and masks of their shape

Average precision over segments / share of lesions hit by one of the highest segments, as many as belong to lesions.
*gaussian* is round, *ellipsoid* has the segment's covariance plus sigma squared, *segment* is itself softened by sigma.

{by_kernel}

## Simulated brains: the shipped model, {count} participants with simulated disease that it has not seen, AAL

{by_region}

## What `scales=` does

`scales=(0.5, 1, 2)` of `explain_img`, or `glas3d.core.scale`, explains once for each scale, a factor on both sigmas, and
keeps every scale's own table and map. The fused score is the mean over scales of the standard scores of `log f`. The weight of
a scale is the fourth power of its highest standard score, so that scales at which a point stands out clearly decide. The unit
is standard deviations above the average point, negative below. The scale of a point, and its light, shadow and drop, are those
of its largest standard score of `f`. The number of evaluations is multiplied by the number of scales.

![The same volume (OR, volume 14) under six sigmas, and all scales]({PAGE.with_suffix(".png").name})
""",
    encoding="utf-8",
)
print(by_kernel, by_region, f"written: {PAGE}", sep="\n\n")
