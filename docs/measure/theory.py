# %% [markdown]
# # What light and shadow measure: the numbers of docs/theory.md
#
# Regions are players: a coalition is what is kept, everything else is the reference. Light keeps one player, shadow removes
# one. Both are compared with the exact Shapley value, by enumeration: for toy models, for random games of a given order, and
# for small random networks, with light and shadow as `GLAS` computes them. `make measure` writes `docs/theory.md`; the
# argument is another path to write to.

# %%
import sys
from math import comb
from pathlib import Path
from string import Template

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from glas3d import GLAS, RGLAS, Atlas
from glas3d.core.gaussian import gaussian_masks
from glas3d.imaging.space import mni_grid, template_on

OUT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("glas3d-examples/theory.md")
GAMES, NETWORKS = 200, 40
torch.set_num_threads(1)

# %% [markdown]
# ## Players: blocks of a volume, lit and shaded by their own shape
#
# With `kernel="segment"` and a small sigma a mask is its block and nothing else, so light and shadow are coalitions.

# %%


def volume_of(n):
    """Return a volume of ``n`` bright blocks of two voxels, and their labels."""
    return torch.ones(1, n, 2, 1), np.repeat(np.arange(1, n + 1), 2).reshape(n, 2, 1)


def as_predict(v):
    """Return a game ``v``, a function of a tuple of booleans, as a model of a volume of blocks."""

    def predict(batch):
        kept = batch[:, 0, :, 0, 0] > 0.5
        return torch.tensor([[v(tuple(row))] for row in kept.tolist()], dtype=torch.float64)

    return predict


def explained(v, n, **settings):
    """Return the explanation of a game by `GLAS`."""
    glas = GLAS(as_predict(v), kernel="segment", sigma_light=1e-3, sigma_shadow=1e-3, **settings)
    return glas.explain(volume_of(n)[0], 0, volume_of(n)[1])


def shapley(values, n):
    """Return the exact Shapley values from the ``values`` of every coalition, indexed by its bits."""
    phi = np.zeros(n)
    for i in range(n):
        for coalition in range(2**n):
            if not coalition >> i & 1:
                weight = 1 / (n * comb(n - 1, coalition.bit_count()))
                phi[i] += weight * (values[coalition | 1 << i] - values[coalition])
    return phi


def table_of(v, n):
    """Return the value of every coalition, indexed by its bits."""
    return np.array([v(tuple(bool(c >> i & 1) for i in range(n))) for c in range(2**n)])


# %% [markdown]
# ## Toy models

# %%
TOYS = {
    "linear, 0.1 + 0.5 a + 0.2 b": lambda s: 0.1 + 0.5 * s[0] + 0.2 * s[1],
    "evidence against, 0.5 + 0.2 a - 0.25 b": lambda s: 0.5 + 0.2 * s[0] - 0.25 * s[1],
    "a AND b": lambda s: float(s[0] and s[1]),
    "a OR b": lambda s: float(s[0] or s[1]),
    "a XOR b": lambda s: float(s[0] != s[1]),
    "noisy OR, 0.9 and 0.8": lambda s: 1 - (1 - 0.9 * s[0]) * (1 - 0.8 * s[1]),
}


def number(value):
    """Return a number with three digits, or as a power of ten if it is small but not 0."""
    if 5e-7 <= abs(value) < 5e-4:
        return f"{value:.0e}"
    return f"{0.0 if abs(value) < 5e-7 else value:.3f}"


toys = []
for name, v in TOYS.items():
    e, values = explained(v, 2), table_of(v, 2)
    phi, mean = shapley(values, 2), (e.light - values[0] + e.drop) / 2
    for i, player in enumerate("ab"):
        cells = [e.light[i], e.light[i] - values[0], e.drop[i], mean[i], phi[i], e.score[i]]
        toys.append(f"| {name if i == 0 else ''} | {player} | " + " | ".join(map(number, cells)) + " |")
print("\n".join(toys))

# %% [markdown]
# ## Random games
#
# Dividends (the part of a coalition's value that none of its parts has) are normal, scaled so that every size of coalition
# has the same weight in a player's Shapley value; or their absolute values, so that nothing is evidence against the class.
# Values are then mapped to [0, 1] by an affine map, which changes no order of interaction.

# %%
N = 8
SUBSETS = np.array([[c & t == t for t in range(2**N)] for c in range(2**N)], dtype=float)


def game(order, only_for, rng):
    """Return the value of every coalition of a random game without interactions beyond ``order``."""
    size = np.array([t.bit_count() for t in range(2**N)])
    dividends = rng.standard_normal(2**N)
    dividends = np.abs(dividends) if only_for else dividends
    scale = np.array(
        [0.0] + [s / (comb(N - 1, s - 1) if only_for else comb(N - 1, s - 1) ** 0.5) for s in range(1, N + 1)]
    )
    values = SUBSETS @ np.where(size <= order, dividends * scale[size], 0.0)
    return (values - values.min()) / np.ptp(values)


def measures(light, drop, bare):
    """Return the measures of each player that are compared with its Shapley value."""
    return {
        "light": light,
        "drop": drop,
        "mean": (light - bare + drop) / 2,
        "product": light * (np.abs(drop) + 1e-5),
        "signed product": light * drop,
    }


def correlations(light, drop, values, n):
    """Return each measure's rank correlation with the Shapley value, and the product's with its size."""
    phi, of = shapley(values, n), measures(light, drop, values[0])
    signed = [spearmanr(m, phi).statistic for m in of.values()]
    return [*signed, spearmanr(of["product"], np.abs(phi)).statistic]


games = []
for only_for in (False, True):
    for order in (1, 2, 3, N):
        rng = np.random.default_rng([order, only_for])
        rows = []
        for _ in range(GAMES):
            values = game(order, only_for, rng)
            single = 1 << np.arange(N)
            rows.append(correlations(values[single], values[-1] - values[-1 - single], values, N))
        kind = "only for the class" if only_for else "for and against"
        games.append(f"| {kind} | {order} | " + " | ".join(f"{x:.2f}" for x in np.median(rows, axis=0)) + " |")
print("\n".join(games))

# %% [markdown]
# ## Small random networks
#
# Eight blocks, two layers of random weights, a sigmoid at the end; light and shadow from `GLAS`.

# %%


def network(seed, depth_of_tanh):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(2 * N, 16), nn.Tanh(), nn.Linear(16, 1))
    with torch.no_grad():
        net[1].weight *= depth_of_tanh
        net[3].weight *= 4 / depth_of_tanh
    return lambda batch: net(batch).sigmoid().detach()


everything = torch.tensor([[c >> i & 1 for i in range(N)] for c in range(2**N)], dtype=torch.float32)
networks = []
for label, gain in (("nearly linear", 0.3), ("curved", 2.0), ("sharply curved", 8.0)):
    rows = []
    for seed in range(NETWORKS):
        predict = network(seed, gain)
        values = predict(everything.repeat_interleave(2, dim=1).reshape(-1, 1, N, 2, 1))[:, 0].double().numpy()
        glas = GLAS(predict, kernel="segment", sigma_light=1e-3, sigma_shadow=1e-3)
        e = glas.explain(volume_of(N)[0], 0, volume_of(N)[1])
        rows.append(correlations(e.light, e.drop, values, N))
    networks.append(f"| {label} | " + " | ".join(f"{x:.2f}" for x in np.median(rows, axis=0)) + " |")
print("\n".join(networks))

# %% [markdown]
# ## What the masks of an atlas add up to
#
# The sum of all shadows' masks, over the brain's voxels, AAL centroids at 4 mm.

# %%
grid = mni_grid(4)
centroids = Atlas.load("AAL").segments(grid).points
brain = template_on(4) > 0.05
coverage = []
for sigma in (8, 12, 20, 30):
    made = gaussian_masks(centroids, grid.shape, (float(sigma),) * 3, spacing=grid.spacing)
    total = made.masks(0, torch.empty((len(centroids), *grid.shape))).sum(dim=0).numpy()[brain]
    low, middle, high = np.percentile(total, (5, 50, 95))
    coverage.append(f"| {sigma} | {low:.2f} | {middle:.2f} | {high:.2f} |")
print("\n".join(coverage))

# %% [markdown]
# ## Recursion makes what was redundant necessary

# %%
noisy = TOYS["noisy OR, 0.9 and 0.8"]
recursive = RGLAS(GLAS(as_predict(noisy), kernel="segment", sigma_light=1e-3, sigma_shadow=1e-3))
recursion = recursive.explain(volume_of(2)[0], 0, volume_of(2)[1])
rounds = []
for i, each in enumerate(recursion.rounds, start=1):
    for at, player in enumerate(each.points):
        e = each.explanation
        cells = [e.probability, e.light[at], e.drop[at], e.score[at]]
        removed = "masked out" if player in each.removed else ""
        rounds.append(f"| {i} | {'ab'[player]} | " + " | ".join(map(number, cells)) + f" | {removed} |")
print("\n".join(rounds))

# %% [markdown]
# ## The page

# %%
TEXT = Template("""# What light and shadow measure

The paper names theory as future work. This page says what light and shadow are for the simplest models, where they differ,
and what their product rewards. Its tables are computed by `docs/measure/theory.py`, with light and shadow as `GLAS` finds them,
and written by `make measure`; the statements are tested in `tests/core/test_theory.py`.

## A linear model: one number, twice

Let `P(x) = b + w.x`, `B` the reference and `G` a Gaussian mask. Light evaluates `B + G (x - B)`, shadow `x - G (x - B)`, so

    light = P(B) + w.(G (x - B))        drop = w.(G (x - B))

With equal sigmas they are the same number `a` up to the constant `P(B)`, and the score is `(P(B) + a) (|a| + gamma)`: a
quadratic in `a`. Three things follow.

- **The reference decides the sign.** The sign is that of `w (x - B)`: tissue brighter than the reference and tissue darker
  than the reference have opposite signs. [references.md](references.md) shows it on the shipped model.
- **`P(B)` decides what light adds.** If the reference alone has a high probability, light is nearly the same everywhere and
  the score is the shadow; if it has probability 0, the score of a linear model is `a^2`.
- **Evidence against the class has a score too.** For `a < 0` the score is `(P(B) - |a|) |a|`: up to `P(B)^2 / 4`, at
  `a = -P(B)/2`, as for `b` of the second model below. The absolute value of Eq. 2 hides the sign; the signed `drop` keeps it.

## Interactions: what only light or only shadow shows

Call regions players, and `v(S)` the probability when the regions of `S` are kept and the others are reference. With masks that
do not overlap, light is `v({i})` and drop is `v(N) - v(N without i)`: the contribution of `i` to no other player, and to all.

| model | player | light | light - v(none) | drop | mean of the two | Shapley value | score |
|---|---|---|---|---|---|---|---|
$toys

- **AND**: each is necessary, none is enough. Shadow shows both, light none, and the score is 0.
- **OR**: each is enough, none is necessary (redundant evidence, for example the same region left and right). Light shows both,
  shadow none; the score is `gamma` times the light, so `gamma` only keeps their order. With AND not even an order remains.
- **XOR**: each is evidence for the class alone, and against it together with the other. The Shapley value is 0; the score, which
  ignores the sign, is as high as it can be. A high score with a negative drop is not evidence for the class.

## Two ends of the Shapley value

The Shapley value averages a player's contribution over all orders in which players may come. Light and shadow are its two
ends: coming first, `F_i = v({i}) - v(none) = light - P(B)`, and coming last, `L_i = drop`.

**Without interactions of more than two players, `(F_i + L_i) / 2` is the Shapley value.** Proof: every game is a sum of
dividends, `v(S) = sum of d(T) over T within S`, where `d(T)` is what `T` has and none of its parts; without interactions of more
than two, `d(T) = 0` for `|T| > 2`. Then `F_i = d(i)` and `L_i = d(i) + sum over j of d(i,j)`, and half their sum is
`d(i) + 1/2 sum over j of d(i,j)`, which is the Shapley value, since it shares each `d(T)` equally within `T`. In general

    (F_i + L_i) / 2 - Shapley_i = sum over T with i, |T| > 2, of (1/2 - 1/|T|) d(T)

This takes two evaluations for each player, the exact value 2^n; the price is the interactions of three and more. How well do
ranks agree? Median Spearman correlation with the exact Shapley value (in the last column with its size, the sign left out) over
$games_count random games of 8 players, values in [0, 1]:

| evidence | order | light | drop | mean of both ends | score | light * drop | score, with the size |
|---|---|---|---|---|---|---|---|
$games

and over $networks_count small random networks (8 blocks, 16 hidden units, a sigmoid), explained by `GLAS`:

| network | light | drop | mean of both ends | score | light * drop | score, with the size |
|---|---|---|---|---|---|---|
$networks

No other measure is better than the mean of both ends in any row. The mean is not in the paper: it is the evidence of
`fusion="mean"`, `(light - P(B) + drop) / 2`, which every table of both ends has as a column ([method.md](method.md)).

## What the product rewards

A product is high only where both factors are: **evidence that is enough alone and missed when it is removed**. That is stricter
than the Shapley value, which rewards either. If all evidence is for the class, the product ranks well (rows "only for the
class"). If some is against it, the product ranks by size and not by direction: read it together with the sign of the drop, or
compare two classes.

## Sigma: masks are not a partition

A soft mask keeps a player only in part, and neighbours share voxels. For a linear model the drops add up to `P(x) - P(B)`, as
contributions should, only if the masks add up to 1 where the model has weights. They do not: the sum of all 116 AAL masks over
the voxels of the brain (percentiles) is

| sigma, mm | 5 % | median | 95 % |
|---|---|---|---|
$coverage

Small masks leave some tissue out. With the paper's 20 and 30 mm every voxel is counted many times, and a region is rewarded for
its neighbours; rank such drops and do not add them. With `kernel="segment"` and a small sigma the masks are the regions
themselves, and the drops add up if the regions cover what the model uses. Light and shadow of different sigmas are also
different players: with a wider shadow the two ends are those of a region and of a region with its surroundings.

## Recursion

Of two redundant pieces of evidence, each makes the drop of the other small. RGLAS masks out the stronger, and then the other has
a large drop. The noisy OR from above:

| round | player | P | light | drop | score | |
|---|---|---|---|---|---|---|
$rounds

Exactly equal evidence (the OR above) has equal scores: next to regions without evidence it is masked out in one round; alone it
makes a flat map, in which nothing stands out, and the recursion ends.
""")
OUT.parent.mkdir(parents=True, exist_ok=True)
page = TEXT.substitute(
    toys="\n".join(toys),
    games="\n".join(games),
    networks="\n".join(networks),
    coverage="\n".join(coverage),
    rounds="\n".join(rounds),
    games_count=GAMES,
    networks_count=NETWORKS,
)
OUT.write_text(page, encoding="utf-8")
print(f"written: {OUT}")
