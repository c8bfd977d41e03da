# %% [markdown]
# # What darkness does: the demo's group with a black background and with a reference
#
# The AD group of `glas3d demo` is explained four times. Masks put either the model's reference (the mean of its training
# controls) in place of tissue, or 0, as the paper does; each with sigmas of 8 and 12 mm and with the paper's 20
# and 30 mm. `make measure` runs this script and writes `docs/darkness.md`. The first argument is another path to write to.

# %%
import sys
from pathlib import Path

import torch

from glas3d import Atlas, explain_img, load_model
from glas3d.cli.demo import DEMO_PARTICIPANTS, DEMO_SEED, MODEL
from glas3d.explain.preset import PAPER_PRESET
from glas3d.simulate import PLANTED, Simulation, scan_img, simulate_participants
from glas3d.study.group.group_map import GroupMap

OUT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("glas3d-examples/darkness.md")
PARTICIPANTS = int(sys.argv[2]) if len(sys.argv) > 2 else DEMO_PARTICIPANTS

predict, aal = load_model(MODEL), Atlas.load("AAL")
simulation = Simulation(participants=PARTICIPANTS, seed=DEMO_SEED)
scans = [scan_img(simulation, p.volume) for p in simulate_participants(simulation) if p.group == "AD"]

# %%
small = {"sigma_light": 8.0, "sigma_shadow": 12.0}
sigmas = {"small": small, "the paper's": PAPER_PRESET}
tables = {}
for name, chosen in sigmas.items():
    for background in ("auto", 0):
        group = GroupMap("AD", aal)
        for scan in scans:
            group.add(explain_img(scan, predict, "AD", aal, unit="mm", background=background, **chosen))
        tables[name, background] = group.table().sort_values("rank").head(10)
        n_planted = tables[name, background].head(8)["name"].isin(PLANTED).sum()
        print(
            f"{name} sigmas, background {background}: {n_planted} of {len(PLANTED)} planted among the first 8",
            flush=True,
        )

# %% [markdown]
# How probable is AD for a scan that is nothing but darkness, or nothing but reference?

# %%
reference = torch.as_tensor(predict.info.reference)
blank = {"the reference": reference, "darkness": torch.zeros_like(reference)}
fitted = predict.fit(reference)
probabilities = {name: float(fitted(volume[None])[0, predict.classes.index("AD")]) for name, volume in blank.items()}

# %%
lines = [
    "# What darkness does to a network",
    "",
    "A mask of light keeps one part of a scan and replaces all the rest; a shadow replaces one part. The paper replaces it by",
    "0, darkness. For a network that standardises its input voxel by voxel, a black patch is many standard deviations away from",
    'everything that it was trained on, and its output has little to do with disease. `background="auto"` therefore takes the',
    "model's own reference if it has one (the mean of its training controls), and 0 otherwise.",
    "",
    f"The AD group of `glas3d demo` ({len(scans)} participants that the model has not seen): the ten highest-scoring of 116 regions.",
    "**Bold**: disease was planted there. `make measure` wrote this page.",
]
for name, chosen in sigmas.items():
    light, shadow = chosen["sigma_light"], chosen["sigma_shadow"]
    with_reference, dark = (tables[name, b].reset_index(drop=True) for b in ("auto", 0))
    counts = [t.head(8)["name"].isin(PLANTED).sum() for t in (with_reference, dark)]
    lines += [
        "",
        f"## {name[0].upper()}{name[1:]} sigmas: {light:g} / {shadow:g} mm",
        "",
        "| rank | reference | score | darkness (the paper) | score |",
        "|---|---|---|---|---|",
    ]
    for i in range(10):
        cells = [str(i + 1)]
        for table in (with_reference, dark):
            region = table.loc[i, "name"]
            cells += [f"**{region}**" if region in PLANTED else region, f"{table.loc[i, 'score']:.3f}"]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Planted regions among the first eight: {counts[0]} of 6 with the reference, {counts[1]} of 6 with darkness.",
    ]
lines += [
    "",
    f"A scan that is nothing but reference has P(AD) = {probabilities['the reference']:.3f}; one that is nothing but darkness "
    f"{probabilities['darkness']:.3f}.",
    "",
    "Darkness stays available (`--background 0`), and the tests of the equations use it. Which reference is right depends on the",
    "study, not on the software: Hiller (2025, doi:10.1007/978-3-658-47422-5_18) shows that the choice can reverse an",
    "explanation. Report which one you used; every sidecar does.",
]
OUT.parent.mkdir(parents=True, exist_ok=True)
OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
print(f"written: {OUT}")
