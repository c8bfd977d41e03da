# %% [markdown]
# # Which reference? The same explanation with five things in place of tissue
#
# A shadow replaces a part of the scan, so its result depends on what takes the place of tissue. Simulated participants are
# explained with five references: 0 (darkness), the blurred scan, the mean of the model's training controls, and two controls
# of the same sex and about the same age. Their disease is mild, so that the model is not certain and its probability can
# change in both directions. `make measure` writes `docs/references.md`. The arguments are a path to write the page to, a
# number of participants, and how many regions are explained besides the planted ones, to try the script.

# %%
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from glas3d import GLAS, Atlas, load_model
from glas3d.cli.demo import DEMO_SEED, MODEL
from glas3d.core.reference import consensus, probability_of_background, references
from glas3d.evaluate.metrics import deletion_curve
from glas3d.predict import intensity_scale
from glas3d.report import references_figure
from glas3d.simulate import PLANTED, Simulation, simulate_participant

OUT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("glas3d-examples/references.md")
PARTICIPANTS = int(sys.argv[2]) if len(sys.argv) > 2 else 2
BLUR_MM, DONORS, STEPS, TOP = 10.0, 2, 10, 20

predict, aal = load_model(MODEL, device="cpu"), Atlas.load("AAL")
OTHERS = int(sys.argv[3]) if len(sys.argv) > 3 else len(aal.table)
grid = predict.info.grid
is_planted = aal.table["name"].isin(PLANTED)
regions = replace(aal, table=aal.table[is_planted | ((~is_planted).cumsum() <= OTHERS)]).segments(grid)
names = aal.table.set_index("index")["name"].loc[regions.index].tolist()
planted = np.isin(names, PLANTED)
glas = GLAS(predict, sigma_light=8.0, sigma_shadow=12.0, unit="mm")

# %% [markdown]
# ## Participants, and what takes the place of their tissue
#
# A donor's scan is first scaled to the participant's brightness, because a patch in another scanner's units would stand out.

# %%
mild = Simulation(seed=DEMO_SEED, severity=(0.2, 0.4))
controls = [simulate_participant(mild, number) for number in range(1, 60, 2)]


def uncertain(count):
    """Yield participants of the AD group that the model classifies as AD without being certain."""
    number = 0
    while count:
        person = simulate_participant(mild, number)
        volume = torch.as_tensor(person.volume)[None]
        if 0.5 < float(predict.fit(volume)(volume[None])[0, 1]) < 0.99:
            count -= 1
            yield person
        number += 2


def stand_ins(person):
    """Return the references, in the units of the participant's scan."""
    volume, scale = person.volume[None], intensity_scale(person.volume)
    nearest = sorted(controls, key=lambda c: (c.sex != person.sex, abs(c.age - person.age)))[:DONORS]
    return {
        "zero": 0.0,
        "blur": gaussian_filter(volume, [0.0, *(BLUR_MM / size for size in grid.spacing)]),
        "control mean": predict.info.reference * np.float32(scale),
    } | {
        f"control {letter}": donor.volume[None] * np.float32(scale / intensity_scale(donor.volume))
        for letter, donor in zip("AB", nearest, strict=True)
    }


# %% [markdown]
# ## One explanation for each reference, and what the references agree on
#
# Next to the five there is the consensus of three of them, of which darkness is one. The highest-scoring regions of each map
# are then removed, with every reference in turn: the area under the falling probability is small where the probability
# depends on what the map ranks first.

# %%
THREE = ("zero", "control mean", "control A")
explained, alone, areas = {}, {}, {}
for person in uncertain(PARTICIPANTS):
    volume, each = person.volume[None], references(glas, stand_ins(person))
    own = {name: e.explain(volume, "AD", regions, grid.spacing) for name, e in each.items()}
    maps = own | {
        "consensus of three": consensus({name: own[name] for name in THREE}).explanation,
        "consensus of all five": consensus(own).explanation,
    }
    for name, explanation in maps.items():
        explained.setdefault(name, []).append(explanation)
        for by, e in each.items():
            areas.setdefault((name, by), []).append(deletion_curve(e, volume, explanation, STEPS).area)
    for name, e in each.items():
        alone.setdefault(name, []).append(probability_of_background(e, volume, "AD"))
    print(f"sub-{person.participant_id}: P(AD) = {own['zero'].probability:.3f}", flush=True)


def mean_of(explanations):
    """Return the mean over participants; each participant's scores sum to 1, so that all have the same weight."""
    means = {field: np.mean([getattr(e, field) for e in explanations], axis=0) for field in ("light", "shadow", "drop")}
    score = np.mean([e.score / e.score.sum() for e in explanations], axis=0)
    probability = float(np.mean([e.probability for e in explanations]))
    return replace(explanations[0], probability=probability, score=score, saliency=regions.paint(score), **means)


group = {name: mean_of(explained[name]) for name in each}
alone = {name: float(np.mean(values)) for name, values in alone.items()}
three, all_five = consensus({name: group[name] for name in THREE}), consensus(group)
group |= {"consensus of three": three.explanation, "consensus of all five": all_five.explanation}


def among_first(values, first=8):
    """Return how many planted regions are among the first eight."""
    return int(planted[np.argsort(-values, kind="stable")[:first]].sum())


for name, e in group.items():
    print(f"{name}: {among_first(e.score)} of 6 planted among the first 8, drops there {e.drop[planted].round(3)}")

# %% [markdown]
# ## The figure and the page

# %%
OUT.parent.mkdir(parents=True, exist_ok=True)
picture = OUT.with_suffix(".png")
references_figure(
    all_five,
    names,
    title=f"Five references, {PARTICIPANTS} simulated participants with mild disease",
    unit="drop of P(AD)",
    marked=PLANTED,
    marked_as="disease was planted here",
    alone=alone,
)(picture)

# %%
P = group["zero"].probability
lines = [
    "# Which reference?",
    "",
    "A shadow measures how far the probability falls when a part of the scan is replaced, so the result depends on what replaces",
    "it. Hiller (2025, doi:10.1007/978-3-658-47422-5_18) showed that the reference can reverse an explanation: a black one made",
    "the hippocampus evidence *against* Alzheimer's disease. The shipped model does the same. This page shows it for",
    f"{PARTICIPANTS} simulated participants with mild disease that the model classifies as AD without being certain (mean P(AD) = {P:.2f}).",
    f"Masks have sigmas of 8 and 12 mm; values are means over participants for {len(names)} AAL regions. `make measure` wrote",
    "this page.",
    "",
    f"![Signed drops by region and reference]({picture.name})",
    "",
    "| reference | P(AD) of the reference alone | planted regions among the first 8 | planted regions with a positive drop | their mean drop |",
    "|---|---|---|---|---|",
]
for name, e in group.items():
    own = f"{alone[name]:.2f}" if name in alone else ""
    drops = e.drop[planted]
    lines.append(f"| {name} | {own} | {among_first(e.score)} of 6 | {(drops > 0).sum()} of 6 | {drops.mean():+.3f} |")
lost = all_five.flips(TOP)
lines += [
    "",
    "**Why.** To first order, the drop of a shadow is `w.(G (x - B))` ([theory.md](theory.md)): its sign is that of tissue minus",
    "reference. Where tissue is lost, the scan is darker than a control's. A control's tissue in its place removes evidence;",
    "black is even darker and adds evidence. Blur adds evidence too: a blurred cortex looks like a thinned one to this network.",
    "",
    "**How to recognise a misleading reference**: the model classifies it as the disease (second column). A reference with a high",
    "P(AD) cannot show evidence for AD. `probability_of_background(glas, volume, target)` returns it; it takes one evaluation.",
    "",
    "**What glas3d takes by itself.** The model's reference, for masks of the shape of regions matched to the scan: it has the local",
    "brightness of the scan around each region, and evidence follows networks better ([method.md](method.md), [truth.md](truth.md)). A",
    "model without a reference gets darkness: give one (`--background`), such as the mean of controls. The masks of this page are round,",
    "and take each reference as it is.",
    "",
    "**What a consensus can and cannot do.** Each reference's scores are divided by their sum, and the median is taken. The median",
    "is robust against a minority of misleading references, such as one of three or two of five, and not against a majority. Each",
    "reference's signed drops stay in `Consensus.drop`; `sign` is the sign of most references, and `agreement` says how many agree.",
    f"The consensus of three is that of {', '.join(THREE)}. All five agree on the sign of {np.mean(all_five.agreement == 1):.0%} of the regions.",
    "",
    "A reference that the model takes for the class stays in the consensus, and a note on the result names it with its probability.",
    "Whether it can be used depends on the scan, and the maps of a study must have the same references. Where half of the references",
    "or more are such, they decide the signs: the note is a warning then, and others must be chosen. (`glas3d audit` compares only",
    "references that can be used.)",
    "",
    f"## How much of one reference's first {TOP} is lost under another",
    "",
    "| | " + " | ".join(all_five.names) + " |",
    "|---" * (len(all_five.names) + 1) + "|",
]
lines += [
    f"| {name} | " + " | ".join(f"{value:.2f}" for value in row) + " |"
    for name, row in zip(all_five.names, lost, strict=True)
]
lines += [
    "",
    "## Deletion: the highest-scoring regions of each map removed, with every reference in turn",
    "",
    f"Area under P(AD) over the share of removed voxels, regions in the map's order, {STEPS} steps; smaller is better.",
    "",
    "| map | " + " | ".join(f"by {name}" for name in all_five.names) + " |",
    "|---" * (len(all_five.names) + 1) + "|",
]
lines += [
    f"| {name} | " + " | ".join(f"{np.mean(areas[name, by]):.3f}" for by in all_five.names) + " |" for name in group
]
best = {by: min(group, key=lambda name: np.mean(areas[name, by])) for by in all_five.names}
lines += [
    "",
    f"A reference confirms itself: when regions are replaced by darkness, the map of `{best['zero']}` has the smallest area, and the maps",
    "that rank the planted regions first have the largest. Deletion with its own reference therefore cannot show that a reference",
    "misleads; deletion with the others can.",
    "",
    "## Use it",
    "",
    "```python",
    "from glas3d.core.reference import consensus, references",
    "",
    'each = references(glas, {"control mean": mean, "donor": donor, "blur": blurred})',
    'explanations = {name: explainer.explain(volume, "AD", regions) for name, explainer in each.items()}',
    "agreed = consensus(explanations)",
    "agreed.sign, agreed.agreement  # the sign of most references for each region, and how many agree",
    "agreed.drop  # the drop under each reference, (references, regions)",
    "agreed.explanation  # the consensus: scores, map and settings like any other explanation",
    "```",
    "",
    "The disease is simulated: this page shows how a network depends on a reference, and says nothing about patients.",
]
OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
print(f"written: {OUT} and {picture}")
