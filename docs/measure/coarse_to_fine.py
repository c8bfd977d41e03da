# %% [markdown]
# # Coarse to fine: at how many points of a dense grid must the model be evaluated?
#
# Simulated participants with planted lesions are explained on a dense grid, at every point, and then again from a share of
# the evaluations: first spread evenly, then where light times shadow is high or may be high; the other points are estimated.
# Two rivals have as many evaluations: a coarser grid, interpolated, and the same estimate from points that are all spread
# evenly.
#
# The arguments are a path for the page and a number of participants; 20 take a quarter of an hour and wrote
# `docs/coarse_to_fine.md`.

# %%
import sys
from itertools import count
from pathlib import Path

import numpy as np
import torch
from scipy.interpolate import RegularGridInterpolator
from scipy.special import expit, logit

from glas3d import GLAS, Grid, load_model
from glas3d.cli.demo import DEMO_SEED, MODEL
from glas3d.core.accelerate.kriging import Kriging, farthest_points
from glas3d.core.accelerate.refine import CoarseToFine
from glas3d.core.score import fuse
from glas3d.simulate import Simulation, simulate_participant

OUT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("glas3d-examples/coarse_to_fine.md")
PARTICIPANTS = int(sys.argv[2]) if len(sys.argv) > 2 else 1
FULL = PARTICIPANTS >= 8
BUDGETS = (0.15, 0.25, 0.4) if FULL else (0.25,)
CELLS = (12, 14, 12) if FULL else (6, 7, 6)
SIGMAS = {(20, 30): PARTICIPANTS, (12, 18): PARTICIPANTS // 4}  # mm, and how many participants
GAMMA = 1e-5
torch.set_num_threads(1)

predict = load_model(MODEL, device="cpu")
spacing = predict.info.grid.spacing
simulation = Simulation(seed=DEMO_SEED + 17)


def called_ad():
    """Yield volumes of the AD group that the model classifies as AD."""
    for number in count(0, 2):
        volume = simulate_participant(simulation, number).volume[None]
        tensor = torch.as_tensor(volume)
        if float(predict.fit(tensor)(tensor[None])[0, 1]) > 0.5:
            yield volume


# %% [markdown]
# ## Ways to estimate the points that are not evaluated


# %%
def coarser(dense, evaluations):
    """Return scores from every other point of the dense grid, light and drop interpolated linearly, and evaluations."""
    axes = [np.arange(k) for k in CELLS]
    step = 2 if evaluations < 0.3 * (2 * np.prod(CELLS) + 1) else 1
    kept = [np.unique(np.r_[axis[::step], axis[-1]]) for axis in axes]
    interpolated = []
    for values in (dense.light, dense.drop):
        some = values.reshape(CELLS)[np.ix_(*kept)]
        everywhere = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        interpolated.append(RegularGridInterpolator(kept, some)(everywhere).ravel())
    return fuse("product", *interpolated, gamma=GAMMA), 2 * np.prod([len(axis) for axis in kept]) + 1


def evenly_only(dense, evaluations):
    """Return scores from points that are all spread evenly, the others estimated in the same way."""
    positions = dense.points * spacing / np.mean(np.asarray(spacing) * np.array(dense.saliency.shape) / CELLS)
    evaluated = farthest_points(positions, evaluations // 2)
    probabilities = dense.light, dense.probability - dense.drop
    light, shaded = (
        expit(Kriging(positions, evaluated, logit(p[evaluated].clip(1e-7, 1 - 1e-7))).estimate) for p in probabilities
    )
    score = fuse("product", light, dense.probability - shaded, gamma=GAMMA)
    score[evaluated] = dense.score[evaluated]
    return score


def agreement(dense, score):
    """Return the correlation with the dense grid's scores, and the share of its highest 1 % among the highest 1 %."""
    highest, estimated = (set(np.argsort(-s)[: max(1, round(0.01 * len(s)))].tolist()) for s in (dense.score, score))
    return np.corrcoef(dense.score, score)[0, 1], len(highest & estimated) / len(highest)


# %% [markdown]
# ## Every participant

# %%
rows, blanks = [], []
for sigmas, participants in SIGMAS.items():
    glas = GLAS(
        predict,
        sigma_light=sigmas[0],
        sigma_shadow=sigmas[1],
        sigma_spatial=12,
        unit="mm",
        background=predict.info.reference,
    )
    results, blank = {}, 0
    everyone = called_ad()
    number = 0
    while number < participants:
        volume = next(everyone)
        dense = glas.explain(volume, "AD", Grid(CELLS), spacing)
        if dense.score.max() < 10 * GAMMA:  # no shadow changes the probability, so there is nothing to rank
            blank += 1
            continue
        number += 1
        total = dense.settings["evaluations"]
        for budget in BUDGETS:
            refined = CoarseToFine(glas, budget).explain(volume, "AD", Grid(CELLS), spacing)
            evaluations = refined.explanation.settings["evaluations"]
            off = np.abs(refined.explanation.score - dense.score)[~refined.evaluated]
            within = (off <= 2 * refined.deviation[~refined.evaluated] + 1e-6).mean()
            key = f"coarse to fine, {budget:g}"
            results.setdefault(key, []).append(
                (evaluations / total, *agreement(dense, refined.explanation.score), within)
            )
            even = agreement(dense, evenly_only(dense, evaluations))
            results.setdefault(f"evenly, {budget:g}", []).append((evaluations / total, *even, np.nan))
        score, evaluations = coarser(dense, 0.25 * total)
        results.setdefault("every other cell, linear", []).append(
            (evaluations / total, *agreement(dense, score), np.nan)
        )
        print(f"{sigmas} mm, participant {number}: {results[f'coarse to fine, {0.25:g}'][-1]}", flush=True)
    blanks.append(f"{blank} at {sigmas[0]} / {sigmas[1]} mm")
    for name, ones in results.items():
        share, correlation, top, within = np.array(ones).T
        passed = int(((correlation >= 0.98) & (top >= 0.95)).sum())
        rows.append(
            f"| {sigmas[0]} / {sigmas[1]} | {name} | {100 * share.mean():.1f} % | {correlation.mean():.3f} | "
            f"{correlation.min():.3f} | {top.mean():.3f} | {top.min():.2f} | {passed} of {len(ones)} | "
            + ("" if np.isnan(within).any() else f"{100 * within.mean():.0f} %")
            + " |"
        )
        print(rows[-1], flush=True)

# %%
OUT.parent.mkdir(parents=True, exist_ok=True)
OUT.write_text(
    f"""# Coarse to fine

`python docs/measure/coarse_to_fine.py docs/coarse_to_fine.md {PARTICIPANTS}` wrote this page. `refine=0.25` (`--refine 0.25`) evaluates
a quarter of the points of a grid, where light times shadow is high or may be high. The other points are estimated by kriging:
the probabilities under light and under shadow, each as log odds, with the likeliest of six correlation lengths. The table says
which points were evaluated, and the standard deviation of each estimate (`glas3d.core.accelerate.refine`).

Simulated participants of the AD group that the shipped model classifies as AD; a grid of {" x ".join(map(str, CELLS))} cells, {spacing[0] * predict.info.grid.shape[0] / CELLS[0]:g} mm apart,
evaluated at all points for comparison. Agreement of raw scores: their correlation over the points, and how many of the highest 1 % are
among the highest 1 %. *Passed*: correlation of at least 0.98 and 0.95 of the highest 1 %. *Within*: estimated points whose
score lies within two of its stated deviations. *Every other cell* evaluates only those; *evenly* spreads its evaluations.

Participants are left out if no shadow changes the probability, so that the highest score is below ten gammas
({", ".join(blanks)}). Their scores differ only by rounding.

| sigma, mm | search | evaluations | correlation, mean | least | top 1 %, mean | least | passed | within |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}

Log odds matter: with the probabilities themselves, which change in steps, the same search passed in 9 of the first 20
participants, and on average 0.82 of the highest 1 % were right. *Evenly* estimates by log odds too.

With masks narrower than the cells, probabilities change from one point to the next, and more points must be evaluated. A grid
whose cells are much wider than its masks misses evidence, refined or not.
""",
    encoding="utf-8",
)
print(f"written: {OUT}")
