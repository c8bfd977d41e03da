"""
References and pitfalls: what stands where tissue is removed?
=============================================================

A mask removes tissue, and something has to stand there instead. The answer depends on it more than on anything else. The
same scan is explained with three backgrounds: the mean of the controls that came with the model, darkness, and a blurred
copy of the scan. Then comes a second pitfall: what
the regions do not account for.
"""

# %%
import warnings
from pathlib import Path

import numpy as np

from glas3d import GlasWarning, explain_img, load_model
from glas3d.core.reference import consensus
from glas3d.report import references_figure
from glas3d.simulate import PLANTED, Simulation, scan_img, simulate_participant

OUT = Path("glas3d-examples")
OUT.mkdir(exist_ok=True)

simulation = Simulation(seed=77)
scan = scan_img(simulation, simulate_participant(simulation, 0).volume)
predict = load_model("adnc-simulated")

# %%
# Several backgrounds in one call
# -------------------------------
# ``"auto"`` is the model's own reference, matched to the scan. Each background has its own maps in ``result.parts``, and the
# result itself is their consensus: what most of them agree on. A warning names backgrounds that cannot show evidence, if they decide the consensus.

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", GlasWarning)
    result = explain_img(scan, predict, "AD", background=["auto", 0, "blur"])
print(*(warning.message for warning in caught), sep="\n")
for name, part in result.parts.items():
    highest = part.table.sort_values("rank")["name"].head(6)
    print(f"{name:5} {sum(region in PLANTED for region in highest)} of 6 planted regions among the first 6")

# %%
# Look at what the model says about each background alone. A background that is itself "AD" cannot show what made the scan
# "AD". Darkness is such a background for many networks that read atrophy, which is dark on a T1w scan: removing tissue
# then adds disease. This network takes the blurred scan for AD, too, and two misleading backgrounds of three mislead their
# consensus. ``effect`` is the scan's log-odds less those of the background.

of_scan = np.log(result.probability / (1 - result.probability))
alone = {}
for name, part in result.parts.items():
    alone[name] = float(1 / (1 + np.exp(part.explanation.effect - of_scan)))
    print(f"{name:5} P(AD) of this background alone: {alone[name]:.3f}")

# %%
# What regions do not account for
# -------------------------------
# The evidence of all regions is compared with the effect of the whole scan. About 100 % is what a table should have. Far less
# says that the model reads something that lies in no region. A negative number says that the background cannot be used.

for name, part in result.parts.items():
    print(f"{name:5} regions account for {part.explanation.accounted:.0%} of the effect")

# %%
# The figure shows what each background says about the same regions: red speaks for AD, blue against it.

agreed = consensus({name: part.explanation for name, part in result.parts.items()})
draw = references_figure(
    agreed,
    result.table["name"].tolist(),
    title="One participant, three backgrounds",
    unit="drop in log-odds of AD",
    marked=PLANTED,
    marked_as="disease was planted here",
    alone=alone,
)
draw(OUT / "05_references_and_pitfalls.png")
