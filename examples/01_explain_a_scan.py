# %% [markdown]
# # One scan: which regions made the model say "AD"?
#
# A participant is simulated, so that the diseased regions are known, and saved as NIfTI like a scan of your own. The
# shipped model (which learnt simulated disease) is evaluated with masks at the 116 centroids of the AAL atlas.

# %%
from pathlib import Path

import nibabel as nib

from glas3d import explain_img, load_model
from glas3d.simulate import PLANTED, Simulation, scan_img, simulate_participant

OUT = Path("glas3d-examples")
OUT.mkdir(exist_ok=True)

simulation = Simulation(seed=77, resolution=2)
participant = simulate_participant(simulation, 0)
scan = OUT / "scan.nii.gz"
nib.save(scan_img(simulation, participant.volume), scan)
print(f"{scan}: group {participant.group}, age {participant.age}")

# %% [markdown]
# The model takes volumes of 4 mm: the scan is resampled for it, and the maps are mapped back to the scan's 2 mm grid.

# %%
predict = load_model("adnc-simulated")
result = explain_img(scan, predict, target="AD")
print(result)
print(result.saliency_img.shape, "like the scan:", nib.load(scan).shape)

# %%
table = result.table.sort_values("rank").head(10)
table = table.assign(planted=table["name"].isin(PLANTED))
print(table.to_string(index=False, float_format="%.4g"))

# %% [markdown]
# The sign of the drop separates evidence for the class from evidence against it; the score alone does not.

# %%
against = result.table[result.table["drop"] < 0]
print(f"{len(against)} regions raise P(AD) when they are replaced by the control mean")
for path in result.save(OUT / "scan"):
    print("written:", path)
