"""
Is the map right? Twins, controls and audits
============================================

A map always looks like one. With simulated participants it can be compared with the truth: a *twin* is the same participant
with the disease of one region healed, or alone, and equal in every other bit. What that changes in the model's log-odds is
the true effect of the region. With scans of real people there is no truth, but an audit can try to refute the map.
"""

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from glas3d import load_model
from glas3d.evaluate import follow_truth
from glas3d.evaluate.audits import audit_scan
from glas3d.simulate import Simulation, scan_img, simulate_participant

OUT = Path("glas3d-examples")
OUT.mkdir(exist_ok=True)

simulation = Simulation(seed=78)
predict = load_model("adnc-simulated")

# %%
# Against the truth
# -----------------
# The signed evidence of the default, the paper's product of light and shadow, and a control that never evaluates the model:
# how far each region of the scan is from the reference. Participant 0 has AD.

METHODS = {
    "evidence": {"method": "glas_evidence"},
    "paper": {"method": "glas_paper"},
    "no model": {"method": "difference"},
}
truth = follow_truth(predict, simulation, [0], METHODS)
print("correlation with the true effects")
print(truth.by_participant()[["method", "evaluations", "r", "spearman"]].to_string(index=False, float_format="%.2f"))

# %%
# Without truth
# -------------
# Audits look for what would make the map unbelievable. Here: do the regions account for the model's output, and does the
# model read something outside the brain? ``glas3d audit`` makes these and more.

scan = scan_img(simulation, simulate_participant(simulation, 0).volume)
audits = audit_scan(scan, predict, "AD", ["accounted", "shortcut"])
for audit in audits:
    print(f"{audit.check}: {audit.verdict}. {audit.statement}")

# %%
# A point for each region: a method that follows the model has its points on a line, with the
# regions without an effect at zero. The control has high values where the scan is dark, whatever the model does with it.

effects = truth.effects.set_index("index")
effect, planted = effects["effect"], effects["planted"].astype(bool)
figure, axes = plt.subplots(1, len(METHODS), figsize=(11, 4), layout="constrained", sharex=True)
for axis, name in zip(axes, METHODS, strict=True):
    score = truth.values[truth.values["method"] == name].set_index("index")["score"].reindex(effect.index)
    axis.axhline(0, color="0.85", linewidth=0.8)
    axis.axvline(0, color="0.85", linewidth=0.8)
    for chosen, colour, label in ((~planted, "0.55", "no disease"), (planted, "#b2182b", "disease planted")):
        axis.scatter(effect[chosen], score[chosen], s=18, color=colour, label=label, zorder=2)
    axis.set_title(f"{name}: r = {np.corrcoef(effect, score)[0, 1]:.2f}")
    axis.set_xlabel("true effect, log-odds of AD")
axes[0].set_ylabel("score of the region, arbitrary unit")
axes[0].legend(frameon=False, loc="upper left")
figure.savefig(OUT / "06_is_the_map_right.png", dpi=110)
