# %% [markdown]
# # Which reference? The same question with five things put in place of tissue
#
# A shadow replaces a place, so what it finds depends on what it puts there. Simulated participants whose disease is mild,
# so that the model is not certain and its answer can move both ways, are explained with five references: 0 (darkness), the
# scan blurred, the mean of the model's training controls, and two controls of about the same age and sex. Give a path to
# write the page elsewhere, and a number of participants; `make measure` writes `docs/references.md`.

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
grid = predict.info.grid
regions = aal.segments(grid)
names = aal.table.set_index("index")["name"].loc[regions.index].tolist()
planted = np.isin(names, PLANTED)
glas = GLAS(predict, **predict.info.preset)

# %% [markdown]
# ## Participants, and what may stand in for their tissue
#
# A donor's scan is brought to the participant's brightness first: another scanner's units would be a patch of their own.

# %%
mild = Simulation(seed=DEMO_SEED, severity=(0.2, 0.4))
controls = [simulate_participant(mild, number) for number in range(1, 60, 2)]


def uncertain(count):
    """Participants of the AD group whom the model calls AD without being certain."""
    number = 0
    while count:
        one = simulate_participant(mild, number)
        volume = torch.as_tensor(one.volume)[None]
        if 0.5 < float(predict.fit(volume)(volume[None])[0, 1]) < 0.99:
            count -= 1
            yield one
        number += 2


def stand_ins(one):
    """The references, in the units of the participant's scan."""
    volume, scale = one.volume[None], intensity_scale(one.volume)
    nearest = sorted(controls, key=lambda c: (c.sex != one.sex, abs(c.age - one.age)))[:DONORS]
    return {
        "zero": 0.0,
        "blur": gaussian_filter(volume, [0.0, *(BLUR_MM / size for size in grid.spacing)]),
        "control mean": predict.info.reference * np.float32(scale),
    } | {
        f"control {letter}": donor.volume[None] * np.float32(scale / intensity_scale(donor.volume))
        for letter, donor in zip("AB", nearest, strict=True)
    }


# %% [markdown]
# ## Explained once a reference, and what the references agree on
#
# Beside the five: the consensus of three of them, of which darkness is one. Each map's best regions are then put out, with
# every reference in turn: the area under the falling answer is small where the answer rests on what the map found.

# %%
THREE = ("zero", "control mean", "control A")
found, alone, areas = {}, {}, {}
for one in uncertain(PARTICIPANTS):
    volume, each = one.volume[None], references(glas, stand_ins(one))
    own = {name: e.explain(volume, "AD", regions, grid.spacing) for name, e in each.items()}
    maps = own | {
        "consensus of three": consensus({name: own[name] for name in THREE}).explanation,
        "consensus of all five": consensus(own).explanation,
    }
    for name, explanation in maps.items():
        found.setdefault(name, []).append(explanation)
        for by, e in each.items():
            areas.setdefault((name, by), []).append(deletion_curve(e, volume, explanation, STEPS).area)
    for name, e in each.items():
        alone.setdefault(name, []).append(probability_of_background(e, volume, "AD"))
    print(f"sub-{one.participant_id}: P(AD) = {own['zero'].probability:.3f}", flush=True)


def mean_of(explanations):
    """The group's: means over participants; of scores, each participant's sum to 1, so that all have the same say."""
    means = {field: np.mean([getattr(e, field) for e in explanations], axis=0) for field in ("light", "shadow", "drop")}
    score = np.mean([e.score / e.score.sum() for e in explanations], axis=0)
    probability = float(np.mean([e.probability for e in explanations]))
    return replace(explanations[0], probability=probability, score=score, saliency=regions.paint(score), **means)


group = {name: mean_of(found[name]) for name in each}
alone = {name: float(np.mean(values)) for name, values in alone.items()}
three, all_five = consensus({name: group[name] for name in THREE}), consensus(group)
group |= {"consensus of three": three.explanation, "consensus of all five": all_five.explanation}


def among_first(values, first=8):
    """How many planted regions stand among the first eight."""
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
    "A shadow asks what the answer loses when a place is replaced, so the answer depends on what replaces it. Hiller (2025,",
    "doi:10.1007/978-3-658-47422-5_18) found that the reference can turn an explanation round: a black one made the hippocampus",
    "speak *against* Alzheimer's disease. The shipped model does the same, and this page shows it, on",
    f"{PARTICIPANTS} simulated participants with mild disease whom the model calls AD without being certain (mean P(AD) = {P:.2f}).",
    "Spots are those of the model's preset, 116 AAL regions, means over participants. Made by `make measure`.",
    "",
    f"![Signed drops by region and reference]({picture.name})",
    "",
    "| reference | P(AD) of the reference alone | planted among the first 8 | planted that speak for AD | their mean drop |",
    "|---|---|---|---|---|",
]
for name, e in group.items():
    own = f"{alone[name]:.2f}" if name in alone else ""
    drops = e.drop[planted]
    lines.append(f"| {name} | {own} | {among_first(e.score)} of 6 | {(drops > 0).sum()} of 6 | {drops.mean():+.3f} |")
turned = all_five.flips(TOP)
lines += [
    "",
    "**Why.** To first order a shadow's drop is `w.(G (x - B))` ([theory.md](theory.md)): the sign is that of tissue minus",
    "reference. Where tissue was lost the scan is darker than a control's, so a control's tissue in its place takes evidence",
    "away; black is darker still and adds some. So does blur here: a blurred cortex is a thinned one to this network.",
    "",
    "**What gives a misleading reference away**: the model takes it for the disease (second column). A reference the model itself",
    "calls AD cannot show evidence for AD. `probability_of_background(glas, volume, target)` asks; it costs one forward.",
    "",
    "**What a consensus can and cannot do.** Each reference's scores are divided by their sum, and the median is taken. That",
    "stands any minority of misleading references, such as one of three or two of five, and no majority. Each reference's signed",
    "drops stay in `Consensus.drop`; `sign` and `agreement` say what most of them say and how many. The consensus of three is that",
    f"of {', '.join(THREE)}. All five agree on the sign of {np.mean(all_five.agreement == 1):.0%} of the regions.",
    "",
    f"## How much of one reference's first {TOP} is lost under another",
    "",
    "| | " + " | ".join(all_five.names) + " |",
    "|---" * (len(all_five.names) + 1) + "|",
]
lines += [
    f"| {name} | " + " | ".join(f"{value:.2f}" for value in row) + " |"
    for name, row in zip(all_five.names, turned, strict=True)
]
lines += [
    "",
    "## Deletion: the map's best regions put out, with every reference in turn",
    "",
    f"Area under P(AD) over the share of voxels put out, regions in the map's order, {STEPS} steps; small is good.",
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
    "A reference confirms itself: put out with darkness, the best map is that of "
    f"`{best['zero']}`, and the maps that found what was",
    "planted look worst. Deletion with its own reference therefore cannot tell that a reference misleads; deletion with the others can.",
    "",
    "## Use it",
    "",
    "```python",
    "from glas3d.core.reference import consensus, references",
    "",
    'each = references(glas, {"control mean": mean, "donor": donor, "blur": blurred})',
    'found = {name: one.explain(volume, "AD", regions) for name, one in each.items()}',
    "agreed = consensus(found)",
    "agreed.sign, agreed.agreement      # what most references say of each region, and how many",
    "agreed.drop                        # what each of them says, (references, regions)",
    "agreed.explanation                 # the consensus: scores, map and settings like any other explanation",
    "```",
    "",
    "Simulated disease: what is shown is how a network and a reference meet, and nothing about patients.",
]
OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
print(f"written: {OUT} and {picture}")
