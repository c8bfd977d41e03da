"""
Real participants: OASIS-1 from the download to the group map
=============================================================

The four steps of docs/oasis.md in Python: maps of grey matter of OASIS-1 become a BIDS data set, one model is trained for
each fold, every participant is explained by the model that was not trained on them, and the groups are compared with age,
sex and intracranial volume held fixed. This needs the internet, or nilearn's folder of an earlier download, and your
agreement with the data use agreement of OASIS. The script takes nilearn's folder, a number of participants, a voxel size
in mm, a number of folds and a number of epochs.
"""

# %%
import sys
from pathlib import Path

import nibabel as nib

from glas3d import Atlas
from glas3d.predict import Recipe
from glas3d.report import regions_figure
from glas3d.study import explain_cohort, fetch_oasis, oasis_terms, read_cohort, summarise_groups, train_folds
from glas3d.tables import read_table

OUT = Path("glas3d-examples") / "oasis"
DATA_DIR = sys.argv[1] if len(sys.argv) > 1 else None
PARTICIPANTS = int(sys.argv[2]) if len(sys.argv) > 2 else None
RESOLUTION = float(sys.argv[3]) if len(sys.argv) > 3 else 4.0
FOLDS = int(sys.argv[4]) if len(sys.argv) > 4 else 5
EPOCHS = int(sys.argv[5]) if len(sys.argv) > 5 else 60

# %%
# The terms, then the data
# ------------------------

print(oasis_terms())
if not (OUT / "data").is_dir():
    agree = DATA_DIR is not None or input("Do you agree with the data use agreement of OASIS? [y/N] ") == "y"
    fetched = fetch_oasis(OUT / "data", agree=agree, data_dir=DATA_DIR, participants=PARTICIPANTS)
    print(fetched.summary.round(1).to_string(index=False))
cohort = read_cohort(OUT / "data", suffix="probseg", entities={"label": "GM"}, covariates=["age", "sex", "etiv"])
print(f"{len(cohort)} scans, {cohort.groups}", flush=True)

# %%
# Train by folds, explain out of fold
# -----------------------------------
#
# A map of grey matter is taken as it is: its brightness is the amount of tissue, and no unit of a scanner.

recipe = Recipe(epochs=EPOCHS, patience=15)
trained = train_folds(cohort, OUT / "models", folds=FOLDS, resolution=RESOLUTION, recipe=recipe)
print(trained.summary.round(3).to_string(index=False), flush=True)
explain_cohort(cohort, OUT / "results", OUT / "models")

# %%
# The groups, with covariates
# ---------------------------

summarise_groups(OUT / "results", cohort.everyone, case="AD", control="NC", covariates=["age", "sex", "etiv"])
text = ("name", "hemisphere")
table = read_table(OUT / "results" / "group" / "group-AD_seg-AAL_regions.tsv", text=text)
print(table.sort_values("rank").head(10)[["rank", "name", "light", "drop", "score"]].to_string(index=False))
compared = read_table(OUT / "results" / "group" / "group-ADvsNC_seg-AAL_statistics.tsv", text=text)
print(f"regions whose share of the saliency differs (p_fwe < 0.05): {int((compared['p_fwe'] < 0.05).sum())}")

# %%
map_img = OUT / "results" / "group" / "group-AD_seg-AAL_stat-saliency_statmap.nii.gz"
title = f"OASIS-1, {cohort.groups['AD']} participants with CDR above 0"
regions_figure(nib.load(map_img), table, Atlas.load("AAL"), title=title)(OUT.parent / "11_real_participants.png")
