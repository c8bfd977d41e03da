# %% [markdown]
# # Several regions in one forward: do they rank alike?
#
# An atlas of 116 regions takes 232 forwards. Lighting or shading several regions at once would take fewer, if their scores
# could be told apart afterwards. Here they are: regions are grouped far from each other, each group is asked once, and a
# region's own effect is solved for, as if effects on the log odds added up. The other way to ask less is to ask fewer
# regions, where the score may be high, and to estimate the others from their neighbours (`CoarseToFine` on the centroids).
#
# Give a path for the page, and a number of participants; 20 take three minutes and wrote `docs/regions_together.md`.

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
from glas3d.simulate import Simulation, simulate_participant

OUT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("glas3d-examples/regions_together.md")
PARTICIPANTS = int(sys.argv[2]) if len(sys.argv) > 2 else 1
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
    """Volumes of the AD group whom the model calls AD."""
    for number in count(0, 2):
        volume = simulate_participant(simulation, number).volume[None]
        tensor = torch.as_tensor(volume)
        if float(predict.fit(tensor)(tensor[None])[0, 1]) > 0.5:
            yield volume


# %% [markdown]
# ## Groups


# %%
class Together:
    """The masks of groups of points: where any of their spots is bright."""

    def __init__(self, groups, sigma):
        self.groups = groups
        self.spots = gaussian_masks(segments.points, grid.shape, (sigma,) * 3, spacing=grid.spacing)

    def __len__(self):
        return len(self.groups)

    def masks(self, start, out):
        for row, group in zip(out, self.groups[start : start + len(out)], strict=True):
            row.zero_()
            for point in group:
                torch.maximum(row, self.spots.masks(int(point), torch.empty_like(row)[None])[0], out=row)
        return out


def far_apart(size, chance):
    """A partition into groups whose members are far from each other: each takes the farthest of some left."""
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
    """Every region's score from groups of so many, each region in so many groups; forwards."""
    chance = np.random.default_rng(0)
    groups = [group for _ in range(times) for group in far_apart(size, chance)]
    array = torch.as_tensor(volume)
    asked, _ = bind(predict, array)
    background = torch.as_tensor(predict.info.reference, dtype=torch.float32).expand_as(array)
    with torch.inference_mode():
        dark = float(asked(background[None])[0, 1])
        masks = [Together(groups, sigma) for sigma in SIGMAS]
        intact, light, shaded = (
            one[..., 1] for one in evaluate_all(asked, Perturbations(LightAndShadow(array, background, *masks), 4))
        )
    member = np.zeros((len(groups), m))
    for row, group in enumerate(groups):
        member[row, group] = 1
    # the smallest effects that explain the groups'
    solve = np.linalg.pinv(member)
    lit = expit(odds(dark) + solve @ (odds(light) - odds(dark)))
    dimmed = expit(odds(intact) - solve @ (odds(intact) - odds(shaded)))
    return lit * (np.abs(intact - dimmed) + GAMMA), 2 * len(groups) + 2


def fewer(volume, budget):
    """The centroids by a coarse-to-fine search; forwards."""
    found = CoarseToFine(glas, budget).explain(volume, "AD", segments.points, grid.spacing).explanation
    return found.score, found.settings["evaluations"]


WAYS = {
    "pairs, once": lambda volume: together(volume, 2, 1),
    "fours, twice": lambda volume: together(volume, 4, 2),
    "fours, once": lambda volume: together(volume, 4, 1),
    "fewer regions, 0.5": lambda volume: fewer(volume, 0.5),
    "fewer regions, 0.25": lambda volume: fewer(volume, 0.25),
}

# %% [markdown]
# ## Every participant

# %%
results = {name: [] for name in WAYS}
everyone = called_ad()
done = 0
while done < PARTICIPANTS:
    volume = next(everyone)
    dense = glas.explain(volume, "AD", segments, grid.spacing)
    if dense.score.max() < 10 * GAMMA:  # no spot's shadow changes the answer: there is nothing to rank
        continue
    done += 1
    best = set(np.argsort(-dense.score)[:10].tolist())
    for name, way in WAYS.items():
        score, forwards = way(volume)
        same = len(best & set(np.argsort(-score)[:10].tolist())) / 10
        rank, linear = spearmanr(dense.score, score)[0], np.corrcoef(dense.score, score)[0, 1]
        results[name].append((forwards / dense.settings["evaluations"], rank, linear, same))

rows = []
for name, ones in results.items():
    share, rank, linear, same = np.array(ones).T
    rows.append(
        f"| {name} | {100 * share.mean():.0f} % | {np.median(rank):.2f} ({rank.min():.2f}) | "
        f"{np.median(linear):.2f} ({linear.min():.2f}) | {same.mean():.2f} ({same.min():.1f}) |"
    )
    print(rows[-1], flush=True)

# %%
OUT.parent.mkdir(parents=True, exist_ok=True)
OUT.write_text(
    f"""# Several regions in one forward

`python docs/measure/regions_together.py docs/regions_together.md {PARTICIPANTS}` wrote this page. Could an atlas be asked in fewer
forwards by lighting and shading several regions at once? {PARTICIPANTS} simulated participants whom the shipped model calls AD, the
116 regions of AAL, {SIGMAS[0]:g}/{SIGMAS[1]:g} mm. *Together*: groups of regions far from each other, each asked once; a region's own effect is
the smallest that explains its groups', as if effects on the log odds added up. *Fewer regions*: a coarse-to-fine search over
the centroids, the regions not asked estimated from their neighbours. All against every region asked by itself: medians over
participants (least).

| | forwards | rank correlation | correlation of scores | of the ten best, found |
|---|---|---|---|---|
{chr(10).join(rows)}

Regions lit or shaded together do not rank as they do by themselves: a network's answer to two spots is not the sum of its
answers to each. So glas3d does not ask so. `refine=0.5` asks half of the regions instead, and finds nearly all of the ten
best; the order of those that hardly matter is lost with any of them.
""",
    encoding="utf-8",
)
print(f"written: {OUT}")
