# %% [markdown]
# # Train by folds, explain out of fold: does light and shadow in training help?
#
# A simulated cohort is written as a BIDS folder and read back, and one model is trained for each fold, once with random
# light and shadow as augmentation and once without. Each AD participant is then explained by the model that was trained
# without them; the manifest in the models' folder says which. The script takes a path for the page that it writes, a
# number of participants, a voxel size in mm, and a number of epochs.

# %%
import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from glas3d import Atlas, explain_img, load_model
from glas3d.core.saliency import minmax
from glas3d.errors import GlasWarning
from glas3d.hashing import file_sha256
from glas3d.predict import Recipe
from glas3d.simulate import PLANTED, Simulation, write_dataset
from glas3d.study import Manifest, read_cohort, train_folds

OUT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("glas3d-examples/04_training_by_folds.md")
PARTICIPANTS = int(sys.argv[2]) if len(sys.argv) > 2 else 120
RESOLUTION = float(sys.argv[3]) if len(sys.argv) > 3 else 4.0
EPOCHS = int(sys.argv[4]) if len(sys.argv) > 4 else 30
FOLDS, EXPLAINED = 3, 12
SIGMAS = {"sigma_light": 14.0, "sigma_shadow": 21.0, "unit": "mm"}

scratch = TemporaryDirectory()
data = write_dataset(Path(scratch.name) / "data", Simulation(participants=PARTICIPANTS, seed=15, resolution=RESOLUTION))
cohort = read_cohort(data, suffix="T1w", desc="preproc", case="AD", control="NC")
print(f"{len(cohort)} scans, {cohort.groups}, sites {cohort.table['site'].value_counts().to_dict()}", flush=True)

# %% [markdown]
# ## Train
#
# The masks of the augmentation have the same size in mm for every voxel size.

# %%
recipe = Recipe(epochs=EPOCHS, sigma=(6 / RESOLUTION, 20 / RESOLUTION))
trained = {}
for name, augment in (("with light and shadow", True), ("without", False)):
    folder = Path(scratch.name) / name.replace(" ", "-")
    trained[name] = train_folds(
        cohort, folder, folds=FOLDS, resolution=RESOLUTION, recipe=recipe, augment=augment, cache=data.parent / "scans"
    )
    print(name, trained[name].summary.round(3).to_string(index=False), sep="\n", flush=True)

# %% [markdown]
# ## Explain every AD participant by the model that was trained without them

# %%
warnings.filterwarnings("ignore", "2 regions of AAL are too small", GlasWarning)  # on a grid of 8 mm
aal = Atlas.load("AAL")
participants_ad = cohort.table.query("group == 'AD'").head(EXPLAINED)
first_eight = {}
for name, result in trained.items():
    manifest = Manifest.load(result.folder)
    models = {bundle: load_model(bundle, device="cpu") for bundle in result.folds}
    for background in ("auto", 0):
        total = 0
        for row in participants_ad.itertuples():
            (bundle,) = manifest.models_for(row.participant_id, file_sha256(row.path))
            table = explain_img(row.path, models[bundle], "AD", aal, background=background, **SIGMAS).table
            table = table.dropna(subset=["score"]).set_index("name")
            total = total + pd.Series(minmax(table["score"].to_numpy()), table.index)
        first_eight[name, background] = total.nlargest(8).index.tolist()
        hits = sum(region in PLANTED for region in first_eight[name, background])
        print(f"{name}, background {background}: {hits} of {len(PLANTED)} planted among the first 8", flush=True)

# %%
lines = [
    "# Light and shadow in training",
    "",
    f"{PARTICIPANTS} simulated participants at {RESOLUTION:g} mm, {FOLDS} folds, {EPOCHS} epochs at most, one seed. Intervals are",
    "of the mean over folds (Nadeau & Bengio 2003). Recovery: how many of the six planted regions are among the eight with the",
    f"highest sum of normalised scores over {len(participants_ad)} AD participants, each explained by the model trained without them.",
    "",
    "| training | balanced accuracy | AUC | Brier | calibration error | recovery, reference | recovery, darkness |",
    "|---|---|---|---|---|---|---|",
]
for name, result in trained.items():
    rows = result.summary.set_index("metric").loc[["balanced_accuracy", "auc", "brier", "ece"]]
    cells = [f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})" for _, row in rows.iterrows()]
    cells += [f"{sum(r in PLANTED for r in first_eight[name, background])} of 6" for background in ("auto", 0)]
    lines.append(f"| {name} | " + " | ".join(cells) + " |")
OUT.parent.mkdir(parents=True, exist_ok=True)
OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
scratch.cleanup()
print(f"written: {OUT}")
