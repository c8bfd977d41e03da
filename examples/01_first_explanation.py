"""
A first explanation: which regions made the model say "AD"?
===========================================================

A participant is simulated, so that the regions with disease are known, and saved as NIfTI like a scan of your own. The
shipped model, which learnt simulated disease, is evaluated while one region of the AAL atlas after another is removed from
the scan, or is all that is left of it.
"""

# %%
from pathlib import Path

import nibabel as nib

from glas3d import explain_img, load_model
from glas3d.simulate import PLANTED, Simulation, scan_img, simulate_participant

OUT = Path("glas3d-examples")
OUT.mkdir(exist_ok=True)

simulation = Simulation(seed=77)
participant = simulate_participant(simulation, 0)
scan = OUT / "sub-01_T1w.nii.gz"
nib.save(scan_img(simulation, participant.volume), scan)
print(f"{scan}: group {participant.group}, {participant.age:.0f} years")

# %%
# One call explains the scan. The maps have the scan's own voxel grid, and the table has one row for each region.

predict = load_model("adnc-simulated")
result = explain_img(scan, predict, target="AD")
print(result)
print(f"map {result.saliency_img.shape}, scan {nib.load(scan).shape}")

# %%
# In a notebook, the result shows itself.

result

# %%
# The score is signed evidence in log-odds: what a region adds to the reference when it comes first, and what the scan
# loses without it. Six regions were thinned in this participant. The column ``planted`` marks them; with a scan of your own
# there is no such column.

table = result.table.sort_values("rank")
table = table.assign(planted=table["name"].isin(PLANTED))
columns = ["rank", "name", "x", "y", "z", "score", "direction", "planted"]
print(table[columns].head(10).to_string(index=False, float_format="%.2f"))

# %%
# A negative score is evidence against the class: the model would be more certain of AD without the region.

against = table[table["score"] < 0]
print(f"{len(against)} of {len(table)} regions speak against AD; together {against['score'].sum():.2f}")

# %%
# ``save`` writes NIfTI maps, the table, and a JSON file for each with every setting, version and hash.

for path in result.save(OUT / "01_first_explanation"):
    print(path.name)

# %%
# The five highest-scoring regions in five colours, above axial slices of the map of all regions.

figure = result.plot()
figure.savefig(OUT / "01_first_explanation.png")
figure
