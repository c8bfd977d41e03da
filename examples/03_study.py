"""
A study of two groups: from BIDS to the figure
==============================================

Scans in a BIDS folder, one model for each fold, everyone explained by the model that was not trained on them, and the groups
compared. Here the participants are simulated and the networks small, so that it takes seconds; with scans of your own the
calls are the same, and ``glas3d train`` and ``glas3d cohort`` do the same on the command line.
"""

# %%
import shutil
from pathlib import Path

from glas3d.predict import Recipe
from glas3d.simulate import PLANTED, Simulation, write_dataset
from glas3d.study import explain_cohort, read_cohort, summarise_groups, train_folds
from glas3d.tables import read_table

OUT = Path("glas3d-examples") / "03_study"
shutil.rmtree(OUT, ignore_errors=True)  # results of an earlier run

# %%
# Read the data set
# -----------------
# ``read_cohort`` finds scans by their BIDS entities, and groups and covariates in ``participants.tsv``. What is missing is
# named before any work is done.

RESOLUTION = 8.0  # voxel size in mm; coarse, for speed
simulation = Simulation(participants=32, seed=15, resolution=RESOLUTION, severity=(0.7, 0.95))  # severe, learnt quickly
write_dataset(OUT / "data", simulation)
cohort = read_cohort(OUT / "data", suffix="T1w", desc="preproc", case="AD", control="NC")
print(f"{len(cohort)} scans, {cohort.groups}")

# %%
# Train by folds
# --------------
# Random light and shadow masks are the augmentation, so that perturbed scans are familiar to the network. Their size is in
# voxels.

recipe = Recipe(epochs=30, sigma=(6 / RESOLUTION, 20 / RESOLUTION))
trained = train_folds(cohort, OUT / "models", folds=2, resolution=RESOLUTION, recipe=recipe)
print(trained.summary.set_index("metric").loc[["balanced_accuracy", "auc"], "mean"].round(2).to_string())

# %%
# Explain out of fold
# -------------------
# Every participant is explained by the model that was not trained on them. A run that was stopped resumes here.

explained = explain_cohort(cohort, OUT / "results", OUT / "models")
print(f"explained: {explained.count('explained')}, failed: {explained.count('failed')}")

# %%
# Compare the groups
# ------------------
# Group maps, ranks, a comparison corrected for all regions with age and sex held fixed, and the stability over folds. All of
# it is in ``group/``, with a JSON file next to each that says how it was made.

groups = summarise_groups(
    OUT / "results", cohort.everyone, case="AD", control="NC", covariates=["age", "sex"], n_perm=999, n_boot=200
)
text = ("name", "hemisphere")
table = read_table(OUT / "results" / "group" / "group-AD_seg-AAL_regions.tsv", text=text)
highest = table.assign(planted=table["name"].isin(PLANTED)).sort_values("rank").head(8)
print(highest[["rank", "name", "score", "planted"]].to_string(index=False, float_format="%.2g"))

# %%
# The map of the AD group. ``groups.plot("groups")`` shows the comparison, ``groups.plot("stability")`` the folds.

figure = groups.plot("regions", group="AD")
figure.savefig(OUT.parent / "03_study.png")
figure
