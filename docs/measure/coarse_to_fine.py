# %% [markdown]
# # Coarse to fine: how much of a dense grid must be asked?
#
# Simulated participants with planted lesions are explained on a dense grid, every point asked, and then again from a share
# of the forwards: first evenly, then where light times shadow is high or might be, the rest estimated. Two rivals have as
# many forwards: a coarser grid, interpolated, and the same search without a second look, all points spread evenly.
#
# Give a path for the page, and a number of participants; 20 take a quarter of an hour and wrote `docs/coarse_to_fine.md`.

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
    """Volumes of the AD group whom the model calls AD."""
    for number in count(0, 2):
        volume = simulate_participant(simulation, number).volume[None]
        tensor = torch.as_tensor(volume)
        if float(predict.fit(tensor)(tensor[None])[0, 1]) > 0.5:
            yield volume


# %% [markdown]
# ## Ways of estimating what was not asked


# %%
def coarser(dense, forwards):
    """A grid of fewer cells, its light and drop interpolated linearly; from the dense one's points, every other one."""
    axes = [np.arange(k) for k in CELLS]
    step = 2 if forwards < 0.3 * (2 * np.prod(CELLS) + 1) else 1
    kept = [np.unique(np.r_[axis[::step], axis[-1]]) for axis in axes]
    found = []
    for values in (dense.light, dense.drop):
        some = values.reshape(CELLS)[np.ix_(*kept)]
        everywhere = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        found.append(RegularGridInterpolator(kept, some)(everywhere).ravel())
    return fuse(found[0], np.abs(found[1]) + GAMMA, "product"), 2 * np.prod([len(one) for one in kept]) + 1


def evenly_only(dense, forwards):
    """All points spread evenly, the others estimated in the same way, without a second look."""
    places = dense.points * spacing / np.mean(np.asarray(spacing) * np.array(dense.saliency.shape) / CELLS)
    asked = farthest_points(places, forwards // 2)
    answers = dense.light, dense.probability - dense.drop
    light, shaded = (expit(Kriging(places, asked, logit(one[asked].clip(1e-7, 1 - 1e-7))).estimate) for one in answers)
    score = fuse(light, np.abs(dense.probability - shaded) + GAMMA, "product")
    score[asked] = dense.score[asked]
    return score


def agreement(dense, score):
    """Correlation with the dense grid's scores, and the share of its highest 1 % among the highest 1 %."""
    best, found = (set(np.argsort(-one)[: max(1, round(0.01 * len(one)))].tolist()) for one in (dense.score, score))
    return np.corrcoef(dense.score, score)[0, 1], len(best & found) / len(best)


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
        if dense.score.max() < 10 * GAMMA:  # no spot's shadow changes the answer: there is nothing to find
            blank += 1
            continue
        number += 1
        total = dense.settings["evaluations"]
        for budget in BUDGETS:
            found = CoarseToFine(glas, budget).explain(volume, "AD", Grid(CELLS), spacing)
            forwards = found.explanation.settings["evaluations"]
            off = np.abs(found.explanation.score - dense.score)[~found.evaluated]
            within = (off <= 2 * found.deviation[~found.evaluated] + 1e-6).mean()
            key = f"coarse to fine, {budget:g}"
            results.setdefault(key, []).append((forwards / total, *agreement(dense, found.explanation.score), within))
            even = agreement(dense, evenly_only(dense, forwards))
            results.setdefault(f"evenly, {budget:g}", []).append((forwards / total, *even, np.nan))
        score, forwards = coarser(dense, 0.25 * total)
        results.setdefault("every other cell, linear", []).append((forwards / total, *agreement(dense, score), np.nan))
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

`python docs/measure/coarse_to_fine.py docs/coarse_to_fine.md {PARTICIPANTS}` wrote this page. `refine=0.25` (`--refine 0.25`) asks a
quarter of a grid's forwards, where light times shadow is high or might be, and estimates the other points by kriging: the
answers to light and to shadow each, as log odds, with the likeliest of six correlation lengths; the table says who was
asked, and each estimate's standard deviation (`glas3d.core.accelerate.refine`).

Simulated participants of the AD group whom the shipped model calls AD; a grid of {" x ".join(map(str, CELLS))} cells, {spacing[0] * predict.info.grid.shape[0] / CELLS[0]:g} mm apart,
all of it asked for comparison. Agreement of raw scores: their correlation over the points, and how many of the highest 1 % are
among the highest 1 %. *Passed*: correlation of at least 0.98 and 0.95 of the highest 1 %. *Within*: points not asked whose
score lies within two of its stated deviations. *Every other cell* asks only those, and *evenly* spreads all it may ask.

Passed over: participants in whom no spot's shadow changes the answer, the highest score below ten gammas
({", ".join(blanks)}). What there is to rank in them is rounding.

| sigma, mm | search | forwards | correlation, mean | least | top 1 %, mean | least | passed | within |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}

Log odds matter: of the probabilities themselves, which are steps, the same search passed in 9 of the first 20 participants,
0.82 of the highest 1 % being right on average. *Evenly* estimates by log odds too.

Spots narrower than the cells leave answers that change from a point to the next, and the more must be asked. A grid whose
cells are much wider than its spots misses evidence whether it is refined or not.
""",
    encoding="utf-8",
)
print(f"written: {OUT}")
