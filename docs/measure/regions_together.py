# %% [markdown]
# # Several regions in one evaluation: do they rank alike?
#
# An atlas of 116 regions takes 232 evaluations. Lighting or shading several regions at once would take fewer, if their scores
# could be separated afterwards. This script tries it: regions far from each other form groups, each group is evaluated once,
# and each region's own effect is solved for, as if effects on the log odds added up. The other way to save evaluations is to
# evaluate fewer regions, where the score may be high, and to estimate the others from their neighbours (`CoarseToFine` on the
# centroids). A third way masks neighbours together and divides the groups that do most (`CoarseToFine` with masks of the
# regions' own shape); what it finds is compared with the true effects of the regions, too.
#
# The arguments are a path for the page and a number of participants; 20 take ten minutes of one processor and wrote
# `docs/regions_together.md`.

# %%
import sys
from itertools import count
from pathlib import Path

import numpy as np
import torch
from scipy.special import expit, logit
from scipy.stats import spearmanr

from glas3d import GLAS, Atlas, load_model
from glas3d.cli.demo import DEMO_SEED, MODEL
from glas3d.core.accelerate.refine import CoarseToFine
from glas3d.core.gaussian import gaussian_masks
from glas3d.core.perturb import LightAndShadow, Perturbations
from glas3d.core.score import bind, evaluate_all
from glas3d.core.search import Segments
from glas3d.evaluate import attribute, true_effects
from glas3d.simulate import Simulation, simulate_participant
from glas3d.simulate.dataset import scan_img

OUT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("glas3d-examples/regions_together.md")
PARTICIPANTS = int(sys.argv[2]) if len(sys.argv) > 2 else 1
FULL = PARTICIPANTS > 1  # one participant only tries the script
SIGMAS, GAMMA, SURE = (20.0, 30.0), 1e-5, 1e-7
torch.set_num_threads(1)

predict = load_model(MODEL, device="cpu")
grid = predict.info.grid
segments = Segments.from_labels(Atlas.load("AAL").on(grid))
centres = segments.points * grid.spacing
m = len(centres)
simulation = Simulation(seed=DEMO_SEED + 19)
glas = GLAS(predict, sigma_light=SIGMAS[0], sigma_shadow=SIGMAS[1], unit="mm", background=predict.info.reference)


def called_ad():
    """Yield numbers and volumes of the AD group that the model classifies as AD."""
    for number in count(0, 2):
        volume = simulate_participant(simulation, number).volume[None]
        tensor = torch.as_tensor(volume)
        if float(predict.fit(tensor)(tensor[None])[0, 1]) > 0.5:
            yield number, volume


# %% [markdown]
# ## Groups


# %%
class Together:
    """The masks of groups of points: the largest of the Gaussian masks of a group."""

    def __init__(self, groups, sigma):
        self.groups = groups
        self.single = gaussian_masks(segments.points, grid.shape, (sigma,) * 3, spacing=grid.spacing)

    def __len__(self):
        return len(self.groups)

    def masks(self, start, out):
        for row, group in zip(out, self.groups[start : start + len(out)], strict=True):
            row.zero_()
            for point in group:
                torch.maximum(row, self.single.masks(int(point), torch.empty_like(row)[None])[0], out=row)
        return out


def far_apart(size, chance):
    """Return groups of points far from each other: each group takes the farthest of some points that are left."""
    left, groups = list(chance.permutation(m)), []
    while left:
        group = [left.pop()]
        while left and len(group) < size:
            some = left[:12]
            nearest = np.linalg.norm(centres[some][:, None] - centres[group][None], axis=-1).min(axis=1)
            group.append(some[int(nearest.argmax())])
            left.remove(group[-1])
        groups.append(group)
    return groups


def odds(probability):
    return logit(np.clip(probability, SURE, 1 - SURE))


def together(volume, size, times):
    """Return every region's score from groups of ``size``, each region in ``times`` groups, and the evaluations."""
    chance = np.random.default_rng(0)
    groups = [group for _ in range(times) for group in far_apart(size, chance)]
    array = torch.as_tensor(volume)
    fitted, _ = bind(predict, array)
    background = torch.as_tensor(predict.info.reference, dtype=torch.float32).expand_as(array)
    with torch.inference_mode():
        dark = float(fitted(background[None])[0, 1])
        masks = [Together(groups, sigma) for sigma in SIGMAS]
        intact, light, shaded = (
            outputs[..., 1]
            for outputs in evaluate_all(fitted, Perturbations(LightAndShadow(array, background, *masks), 4))[:3]
        )
    member = np.zeros((len(groups), m))
    for row, group in enumerate(groups):
        member[row, group] = 1
    # the smallest effects that explain those of the groups
    solve = np.linalg.pinv(member)
    lit = expit(odds(dark) + solve @ (odds(light) - odds(dark)))
    dimmed = expit(odds(intact) - solve @ (odds(intact) - odds(shaded)))
    return lit * (np.abs(intact - dimmed) + GAMMA), 2 * len(groups) + 2


def fewer(volume, budget):
    """Return every region's score by a coarse-to-fine search over the centroids, and the evaluations."""
    refined = CoarseToFine(glas, budget).explain(volume, "AD", segments.points, grid.spacing).explanation
    return refined.score, refined.settings["evaluations"]


METHODS = {
    "pairs, once": lambda volume: together(volume, 2, 1),
    "fours, twice": lambda volume: together(volume, 4, 2),
    "fours, once": lambda volume: together(volume, 4, 1),
    "fewer regions, 0.5": lambda volume: fewer(volume, 0.5),
    "fewer regions, 0.25": lambda volume: fewer(volume, 0.25),
}
if not FULL:
    METHODS = {name: METHODS[name] for name in ("fours, once", "fewer regions, 0.25")}

# %% [markdown]
# ## Groups that are divided, against true effects

# %%
FUSIONS = {"evidence": "mean", "shadow alone": "shadow"}
BUDGETS = {"every region": None} | {f"groups, {budget}": budget for budget in ((0.5, 0.4, 0.3) if FULL else (0.3,))}
DIVIDED = [f"{fusion}, {budget}" for fusion in FUSIONS for budget in BUDGETS]


def same_highest(score, whole):
    """Return the share of the ten highest scores that are among the ten highest of another way."""
    highest, own = (set(np.argsort(-values)[:10].tolist()) for values in (whole, score))
    return len(highest & own) / 10


def divided(number, volume):
    """Return for each of these ways its evaluations, and its correlations with the true effects and the whole."""
    effects = true_effects(predict, simulation, number)["effect"].to_numpy()[:m]
    given = {"preset": "evidence", "background": "matched", "engine": "eager", "search": simulation.atlas}
    found = {}
    for kind, fusion in FUSIONS.items():
        whole = None
        for name, budget in BUDGETS.items():
            explained = attribute(
                scan_img(simulation, volume[0]), predict, "AD", "glas", fusion=fusion, refine=budget, **given
            )
            score = explained.table["score"].to_numpy()
            whole = score if whole is None else whole
            correlations = (np.corrcoef(score, other)[0, 1] for other in (effects, whole))
            found[f"{kind}, {name}"] = (explained.evaluations, *correlations, same_highest(score, whole))
    return found


# %% [markdown]
# ## Every participant

# %%
results = {name: [] for name in METHODS}
of_groups = {name: [] for name in DIVIDED}
everyone = called_ad()
done = 0
while done < PARTICIPANTS:
    number, volume = next(everyone)
    dense = glas.explain(volume, "AD", segments, grid.spacing)
    if dense.score.max() < 10 * GAMMA:  # no shadow changes the probability, so there is nothing to rank
        continue
    done += 1
    for name, values in divided(number, volume).items():
        of_groups[name].append(values)
    for name, method in METHODS.items():
        score, evaluations = method(volume)
        rank, linear = spearmanr(dense.score, score)[0], np.corrcoef(dense.score, score)[0, 1]
        share = evaluations / dense.settings["evaluations"]
        results[name].append((share, rank, linear, same_highest(score, dense.score)))


def rows_of(values_of, cost, digits):
    """Return a row for each way: what it costs, medians (least) of its correlations, and the share of the highest."""
    rows = []
    for name, values in values_of.items():
        spent, *correlations, same = np.array(values).T
        cells = [f"{np.median(one):.{digits}f} ({one.min():.2f})" for one in correlations]
        rows.append(" | ".join([f"| {name}", cost(spent), *cells, f"{same.mean():.2f} ({same.min():.1f}) |"]))
        print(rows[-1], flush=True)
    return rows


rows = rows_of(results, lambda share: f"{100 * share.mean():.0f} %", 2)
rows_of_groups = rows_of(of_groups, lambda evaluations: f"{np.median(evaluations):.0f}", 3)

# %%
OUT.parent.mkdir(parents=True, exist_ok=True)
OUT.write_text(
    f"""# Several regions in one evaluation

`python docs/measure/regions_together.py docs/regions_together.md {PARTICIPANTS}` wrote this page. Could an atlas be explained with
fewer evaluations by lighting and shading several regions at once? {PARTICIPANTS} simulated participants that the shipped model
classifies as AD, the 116 regions of AAL, {SIGMAS[0]:g}/{SIGMAS[1]:g} mm. *Together*: groups of regions far from each other; the regions' own effects are
the smallest that explain those of the groups, as if effects on the log odds added up. *Fewer regions*: a coarse-to-fine search
over the centroids; the other regions are estimated from their neighbours. All are compared with every region evaluated by
itself: medians over participants (least).

| | evaluations | rank correlation | correlation of scores | share of the ten highest |
|---|---|---|---|---|
{chr(10).join(rows)}

Regions far from each other that are lit or shaded together by round masks do not rank as they do by themselves: the effect
of two such masks on a network is not the sum of their single effects. So glas3d does not unmix groups. `refine=0.5` evaluates
half of the regions instead, and its ten highest are nearly always the same. All of these ways lose the order of regions with
low scores.

## Groups that are divided

Masks of the regions' own shape do not overlap, and log-odds nearly add up. So `refine` with them (`preset="evidence"`)
masks *neighbours* together, in a few groups at first, divides the groups that do most in two, and evaluates the halves: no group
is unmixed. What an undivided group does is shared among its regions by their size (`CoarseToFine`). The same participants and
network, the reference matched to the scan; *true effects* by twins ([simulation.md](simulation.md)); medians (least).
[truth.md](truth.md) has the same for many networks.

| | evaluations | correlation with true effects | with every region by itself | share of the ten highest |
|---|---|---|---|---|
{chr(10).join(rows_of_groups)}

Two regions of one group that speak for the class and against it by as much are not noticed, and regions of an undivided group
cannot be distinguished.
""",
    encoding="utf-8",
)
print(f"written: {OUT}")
