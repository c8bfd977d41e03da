# %% [markdown]
# # Coarse to fine: at how many points of a dense grid must the model be evaluated?
#
# Simulated participants with planted lesions are explained on a dense grid, at every point, and then again from a share of
# the evaluations: first spread evenly, then where the score is large or may be; the other points are estimated.
# Two rivals: coarser grids, interpolated linearly, and the same estimate from points that are all spread evenly.
#
# The arguments are a path for the page and a number of participants; 4 take half an hour and wrote
# `docs/coarse_to_fine.md`.

# %%
import sys
from dataclasses import dataclass
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
FULL = PARTICIPANTS >= 4
BUDGETS = (0.1, 0.15, 0.25, 0.4) if FULL else (0.25,)
CELLS = (15, 18, 15) if FULL else (6, 7, 6)
COARSER = ((8, 9, 8), (11, 13, 11)) if FULL else ((3, 4, 3),)


# The kinds of search by how their names begin, as columns of a table.
KINDS = {"coarse to fine": "coarse to fine", "evenly": "spread evenly, kriging", "grid": "coarser grid, linear"}


@dataclass(frozen=True)
class Score:
    """What the points are scored by, and for how many participants.

    Attributes
    ----------
    fusion, link
        Settings of GLAS.
    sigmas
        Of light and shadow, in mm.
    participants
        How many are explained.
    """

    fusion: str
    link: str
    sigmas: tuple[int, int]
    participants: int

    def fused(self, explanation, light, shaded):
        """Return the scores of points whose outputs are these."""
        drop = explanation.output - shaded
        return fuse(self.fusion, light, drop, explanation.bare, link=self.link, gamma=GAMMA)

    @property
    def name(self):
        """Its name in the table."""
        return f"{'evidence' if self.fusion == 'mean' else self.fusion}, {self.sigmas[0]} / {self.sigmas[1]} mm"


SCORES = (
    Score("product", "probability", (20, 30), PARTICIPANTS),
    Score("product", "probability", (12, 18), PARTICIPANTS // 2),
    Score("mean", "logit", (20, 30), PARTICIPANTS),
    Score("mean", "logit", (12, 18), PARTICIPANTS // 2),
)
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
def interpolated(score, dense, coarse):
    """Return the scores of the dense grid from a coarser one, whose light and shaded outputs are interpolated linearly."""
    axes = [np.unique(axis) for axis in coarse.points.T]
    cells = [len(axis) for axis in axes]
    # outside of the outermost points the outputs go on as straight lines, so that a probability may leave 0 to 1
    light, shaded = (
        RegularGridInterpolator(axes, values.reshape(cells), bounds_error=False, fill_value=None)(dense.points)
        for values in (coarse.light, coarse.output - coarse.drop)
    )
    return score.fused(dense, light, shaded)


def evenly_only(score, dense, evaluations):
    """Return scores from points that are all spread evenly, the others estimated in the same way."""
    positions = dense.points * spacing / np.mean(np.asarray(spacing) * np.array(dense.saliency.shape) / CELLS)
    evaluated = farthest_points(positions, evaluations // 2)
    light, shaded = (estimated(score, positions, evaluated, o) for o in (dense.light, dense.output - dense.drop))
    scores = score.fused(dense, light, shaded)
    scores[evaluated] = dense.score[evaluated]
    return scores


def estimated(score, positions, evaluated, outputs):
    """Return the outputs at all points by kriging, as log-odds."""
    if score.link == "logit":
        return Kriging(positions, evaluated, outputs[evaluated]).estimate
    return expit(Kriging(positions, evaluated, logit(outputs[evaluated].clip(1e-7, 1 - 1e-7))).estimate)


def agreement(dense, score):
    """Return the correlation with the dense grid's scores, and the share of its highest 1 % among the highest 1 %."""
    highest, estimated = (set(np.argsort(-s)[: max(1, round(0.01 * len(s)))].tolist()) for s in (dense.score, score))
    return np.corrcoef(dense.score, score)[0, 1], len(highest & estimated) / len(highest)


def searched(score, glas, volume, dense):
    """Yield each search with its share of the evaluations, its agreement, and how many estimates are within two deviations."""
    total = dense.settings["evaluations"]
    for budget in BUDGETS:
        refined = CoarseToFine(glas, budget).explain(volume, "AD", Grid(CELLS), spacing)
        explanation, others = refined.explanation, ~refined.evaluated
        evaluations = explanation.settings["evaluations"]
        off = np.abs(explanation.score - dense.score)[others]
        within = (off <= 2 * refined.deviation[others] + 1e-6).mean()
        yield f"coarse to fine, {budget:g}", evaluations / total, *agreement(dense, explanation.score), within
        even = evenly_only(score, dense, evaluations)
        yield f"evenly, {budget:g}", evaluations / total, *agreement(dense, even), np.nan
    for cells in COARSER:
        coarse = glas.explain(volume, "AD", Grid(cells), spacing)
        name = f"grid {' x '.join(map(str, cells))}, linear"
        share = coarse.settings["evaluations"] / total
        yield name, share, *agreement(dense, interpolated(score, dense, coarse)), np.nan


# %% [markdown]
# ## Every participant

# %%
rows, blanks, fewest = [], [], []
for score in SCORES:
    glas = GLAS(
        predict,
        sigma_light=score.sigmas[0],
        sigma_shadow=score.sigmas[1],
        sigma_spatial=12,
        unit="mm",
        fusion=score.fusion,
        link=score.link,
        engine="auto",
        background=predict.info.reference,
    )
    results, blank = {}, 0
    everyone = called_ad()
    number = 0
    while number < score.participants:
        volume = next(everyone)
        dense = glas.explain(volume, "AD", Grid(CELLS), spacing)
        if dense.score.max() < 10 * GAMMA:  # no shadow changes the probability, so there is nothing to rank
            blank += 1
            continue
        number += 1
        for name, *measured in searched(score, glas, volume, dense):
            results.setdefault(name, []).append(measured)
        print(f"{score.name}, participant {number}: {results[f'coarse to fine, {0.25:g}'][-1]}", flush=True)
    if blank:
        blanks.append(f"{blank} with {score.name}")
    enough = {}  # of each kind of search, the fewest evaluations that are enough on average
    for name, ones in results.items():
        share, correlation, top, within = np.array(ones).T
        passed = int(((correlation >= 0.98) & (top >= 0.95)).sum())
        rows.append(
            f"| {score.name} | {name} | {100 * share.mean():.1f} % | {correlation.mean():.3f} | "
            f"{correlation.min():.3f} | {top.mean():.3f} | {top.min():.2f} | {passed} of {len(ones)} | "
            + ("" if np.isnan(within).any() else f"{100 * within.mean():.0f} %")
            + " |"
        )
        print(rows[-1], flush=True)
        kind = next(kind for kind in KINDS if name.startswith(kind))
        if correlation.mean() >= 0.98:
            enough[kind] = min(enough.get(kind, np.inf), share.mean())
    fewest.append(
        f"| {score.name} | {len(ones)} | "
        + " | ".join(f"{100 * enough[kind]:.0f} %" if kind in enough else "none of these" for kind in KINDS)
        + " |"
    )
    print(fewest[-1], flush=True)

# %%
OUT.parent.mkdir(parents=True, exist_ok=True)
OUT.write_text(
    f"""# Coarse to fine

`python docs/measure/coarse_to_fine.py docs/coarse_to_fine.md {PARTICIPANTS}` wrote this page. `refine=0.25` (`--refine 0.25`) evaluates
a quarter of the points of a grid, where the score is large or may be, for or against the class. The other points are estimated by kriging:
the outputs under light and under shadow, each as log-odds, with the likeliest of six correlation lengths. The table says
which points were evaluated, and the standard deviation of each estimate (`glas3d.core.accelerate.refine`).

How few evaluations give the map of a dense grid? Simulated participants of the AD group that the shipped model classifies as AD; a
grid of {" x ".join(map(str, CELLS))} cells, {spacing[0] * predict.info.grid.shape[0] / CELLS[0]:.1f} mm apart, {2 * np.prod(CELLS) + 1:,} evaluations and more, evaluated at all points for comparison. *Product*: of probabilities,
the paper's score. *Evidence*: the mean of both ends in log-odds, with its sign. After each name: sigma of light and of shadow.

Fewest evaluations, of those tried, whose mean correlation with the dense map is at least 0.98:

| score | participants | {" | ".join(KINDS.values())} |
|---|---|{"---|" * len(KINDS)}
{chr(10).join(fewest)}

All that were tried. Agreement of raw scores: their correlation over the points, and how many of the highest 1 % are
among the highest 1 %. *Passed*: correlation of at least 0.98 and 0.95 of the highest 1 %. *Within*: estimated points whose
score lies within two of its stated deviations. *Evenly* spreads its evaluations, and estimates as coarse to fine does. *Linear*: the
outputs of a coarser grid are interpolated between its points, and go on as straight lines outside of them.

Participants are left out if no shadow changes the probability, so that the highest score is below ten gammas
({", ".join(blanks) or "none was"}). Their scores differ only by rounding.

| score | search | evaluations | correlation, mean | least | top 1 %, mean | least | passed | within |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}

With masks narrower than the cells, outputs change from one point to the next, and more points must be evaluated. A grid
whose cells are much wider than its masks misses evidence, refined or not.
""",
    encoding="utf-8",
)
print(f"written: {OUT}")
