"""
Results in other viewers: report, notebook, FSLeyes, ITK-SNAP
=============================================================

Maps are NIfTI on the scan's own grid, and open in any viewer. Here: the report for a browser, a view for a notebook, and the
highest-scoring regions as labels with names and colours for the usual viewers.
"""

# %%
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import nibabel as nib
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from nilearn.plotting import plot_roi

from glas3d import explain_img, load_model
from glas3d.cli import run
from glas3d.simulate import Simulation, scan_img, simulate_participant

OUT = Path("glas3d-examples") / "10_viewers"
shutil.rmtree(OUT, ignore_errors=True)  # results of an earlier run
OUT.mkdir(parents=True)

simulation = Simulation(seed=77)
scan = OUT / "sub-01_T1w.nii.gz"
nib.save(scan_img(simulation, simulate_participant(simulation, 0).volume), scan)
result = explain_img(scan, load_model("adnc-simulated"), "AD")
result.save(OUT / "results")

# %%
# A browser
# ---------
# The report is one file with an interactive view, the table, every setting and what not to conclude. It can be sent, and
# needs no internet. ``to_html`` is smaller: a page without scripts.

print(result.report(OUT / "results" / "report.html"))
result.to_html(OUT / "sub-01.html")

# %%
# A notebook
# ----------
# Three planes that follow the pointer.

view = result.view()
view.save_as_html(OUT / "view.html")

# %%
# FSLeyes, ITK-SNAP, freeview, MRIcroGL, MRIcron
# ----------------------------------------------
# ``glas3d export OUT`` on the command line; ``run`` is the same in Python. Each script opens anatomy, map and labels.

run(["export", str(OUT / "results")])
for path in sorted((OUT / "results" / "viewers").iterdir()):
    print(path.name)

# %%
# What the viewers show: the labels are ranks, in the colours of the paper's figure 12. The names are in the look-up tables.

(labels,) = (OUT / "results" / "viewers").glob("*_ranks.nii.gz")
(table,) = (OUT / "results" / "viewers").glob("*_ranks.lut")
ranks = [line.split(maxsplit=4) for line in table.read_text().splitlines()]
colours = [tuple(map(float, rank[1:4])) for rank in ranks]
figure = plt.figure(figsize=(10, 3.4), facecolor="black")
plot_roi(
    nib.load(labels), bg_img=scan, cmap=ListedColormap(colours), vmin=1, vmax=len(colours), alpha=0.8, draw_cross=False,
    figure=figure, axes=(0, 0, 0.78, 1), colorbar=False,
)  # fmt: skip
patches = [Patch(color=colour, label=rank[4]) for colour, rank in zip(colours, ranks, strict=True)]
figure.legend(handles=patches, loc="center right", labelcolor="white", frameon=False)
figure.savefig(OUT.parent / "10_viewers.png", dpi=110)
