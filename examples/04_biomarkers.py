"""
Looking for biomarkers: groups, a score, stability, volumes
===========================================================

Which regions does a model use more in mild cognitive impairment (MCI) and more still in AD? Do their scores follow a
clinical score, is their order stable over participants, and do they say anything that the volume of the region does not?
Tables of regions are enough for such questions, and ``glas3d.statistics`` has the tests.
"""

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from glas3d import explain_img, load_model
from glas3d.simulate import PLANTED, Simulation, scan_img, simulate_participant
from glas3d.statistics import bootstrap_ranks, change_correlation, compare_all, correlate, region_values

OUT = Path("glas3d-examples")
OUT.mkdir(exist_ok=True)

# %%
# Participants
# ------------
# Six each of AD, MCI and controls: MCI is disease that has taken less. The MMSE (30 is normal) falls with the loss of tissue.
# With a study of your own, the tables are those that ``glas3d cohort`` wrote.

rng = np.random.default_rng(0)
GROUPS = ("AD", "MCI", "NC")
SEVERITY = {"AD": (0.4, 0.7), "MCI": (0.15, 0.35), "NC": (0.4, 0.7)}  # controls lose nothing
predict = load_model("adnc-simulated")

people, tables, losses = [], [], []
for group in GROUPS:
    simulation = Simulation(seed=81 + GROUPS.index(group), severity=SEVERITY[group])
    for number in range(1 if group == "NC" else 0, 12, 2):
        person = simulate_participant(simulation, number)
        name = f"{group}-{person.participant_id}"
        lost = np.mean(person.severity)
        people.append({"participant_id": name, "group": group, "MMSE": round(29.5 - 14 * lost + rng.normal(0, 1))})
        # Shadow alone, in log-odds: half the evaluations of the default.
        result = explain_img(
            scan_img(simulation, person.volume), predict, "AD", fusion="shadow", link="logit", kernel="segment",
            sigma_shadow=2, unit="mm",
        )  # fmt: skip
        tables.append(result.table.assign(participant_id=name))
        losses.append(dict(zip(PLANTED, person.severity, strict=True)))
people = pd.DataFrame(people)
print(people.groupby("group", sort=False)["MMSE"].describe()[["count", "mean", "min", "max"]].round(1))

# %%
# Drops in log-odds, participants by regions: how much the model's certainty of AD rests on each.

drops = region_values(pd.concat(tables), "drop")
print(f"{drops.shape[0]} participants, {drops.shape[1]} regions")

# %%
# Three groups, and a clinical score
# ----------------------------------
# Both tests are corrected for the number of regions (``p_fwe``) by permutation.

groups = compare_all(drops, people, GROUPS, n_perm=999)
score = correlate(drops, people["MMSE"], n_perm=999, n_boot=200)
columns = ["name", "mean_AD", "mean_MCI", "mean_NC", "p_fwe"]
both = groups[columns].merge(score[["name", "r", "low", "high", "p_fwe"]], on="name", suffixes=("_groups", "_MMSE"))
print(both.sort_values("p_fwe_groups").head(8).to_string(index=False, float_format="%.3f"))

# %%
# Stability
# ---------
# The rank of a region in the AD group, with the interval over participants. An interval that is wide is no finding.

ranks = bootstrap_ranks(drops[(people["group"] == "AD").to_numpy()], n_boot=500).sort_values("rank")
print(ranks.head(8).to_string(index=False, float_format="%.2f"))

# %%
# Is it more than volume?
# -----------------------
# Scores of regions follow what was lost there only as far as the model uses it. Here the loss is known; in a study it is a
# table of volumes of regions, such as FreeSurfer's.

ill = (people["group"] != "NC").to_numpy()
loss = pd.DataFrame(losses, index=drops.index).reindex(columns=drops.columns).fillna(0.0)
volume = change_correlation(drops[ill], loss[ill], n_perm=999, n_boot=200)
print(f"correlation with the loss over regions: mean {volume.mean:.2f} ({volume.low:.2f} to {volume.high:.2f})")

# %%
# Left: one region in three groups. Right: ranks in the AD group with 95 % intervals; planted regions are red.

strongest = groups.sort_values("p_fwe").iloc[0]["name"]
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained", width_ratios=(2, 3))
for x, group in enumerate(GROUPS):
    values = drops.loc[(people["group"] == group).to_numpy(), strongest]
    left.plot(x + np.linspace(-0.12, 0.12, len(values)), values, "o", color="0.35")
    left.plot([x - 0.22, x + 0.22], [values.mean()] * 2, color="#b2182b", linewidth=2)
left.set_xticks(range(len(GROUPS)), GROUPS)
left.set_ylabel("drop, log-odds of AD")
left.set_title(strongest)
shown = ranks.head(12).iloc[::-1].reset_index(drop=True)
for y, row in shown.iterrows():
    colour = "#b2182b" if row["name"] in PLANTED else "0.35"
    right.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=2)
    right.plot(row["rank"], y, "o", color=colour)
right.set_yticks(range(len(shown)), shown["name"])
right.set_xscale("log")
right.set_xticks([1, 2, 5, 10, 20, 50, 116], [1, 2, 5, 10, 20, 50, 116])
right.set_xlabel("rank of 116 regions")
right.set_title("AD group, mean drop")
figure.savefig(OUT / "04_biomarkers.png", dpi=110)
