"""
A trained network from elsewhere: how far does deepbet look?
============================================================

deepbet (Fisch et al. 2024, doi:10.1016/j.compbiomed.2024.108845) finds the brain in a T1w scan of a head. Its network was
trained on thousands of real scans and comes with its package, MIT-licensed, as TorchScript. It returns a probability of
brain for each voxel, and ``RegionMean`` reads from it the mean over a region of the atlas, which is then explained like a
class. Each region is replaced by air in turn: where does the network look to call the cerebellum, or the frontal lobe, brain?

Needs ``pip install "glas3d[brain-mask]"``. The argument is a T1w scan in MNI space, best with its skull. Without it the script
takes Colin27 with skull from Debian's package ``mricron-data``, or the template, which has no skull.
"""

# %%
import sys
import warnings
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import torch
from nilearn.datasets import load_mni152_template
from nilearn.plotting import find_xyz_cut_coords, plot_stat_map

from glas3d import Atlas, Predictor, explain_img
from glas3d.imaging import VoxelGrid
from glas3d.predict import ModelInfo, RegionMean

OUT = Path("glas3d-examples")
OUT.mkdir(exist_ok=True)
COLIN27 = Path("/usr/share/mricron/templates/ch2.nii.gz")
SCAN = sys.argv[1] if len(sys.argv) > 1 else COLIN27 if COLIN27.is_file() else load_mni152_template(resolution=2)

weights = Path(find_spec("deepbet").origin).parents[1] / "data" / "models" / "bbox_model.pt"
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # deepbet ships TorchScript
    net = torch.jit.load(weights).eval()

# %%
# The network halves its input five times, so each axis has a multiple of 32 voxels, here of 3 mm.

affine = np.diag([3.0, 3.0, 3.0, 1.0])
affine[:3, 3] = -96, -162, -78
grid = VoxelGrid((64, 96, 64), affine)


class Intensities:
    """The normalisation of deepbet, with the quantiles, mean and deviation of the intact scan."""

    def fit(self, volume):
        low, high = np.quantile(volume.numpy(), (0.005, 0.995))

        def clipped(batch):
            return ((batch - low) / (high - low)).clamp(0, 1)

        mean, std = clipped(volume).mean(), clipped(volume).std()
        return lambda batch: 0.226 * (clipped(batch) - mean) / std + 0.449


# %%
aal = Atlas.load("AAL")
TARGETS = ("Cerebelum_Crus2_L", "Frontal_Sup_L")
labels = aal.on(grid)
index = aal.table.set_index("name")["index"]
regions = np.zeros(grid.shape, int)
for column, name in enumerate(TARGETS):
    regions[labels == index[name]] = column + 1
predict = Predictor(
    net,
    "none",
    transform=Intensities(),
    readout=RegionMean(regions),
    classes=TARGETS,
    info=ModelInfo(name="deepbet", grid=grid),
)

# %%
# What changes when a region is replaced by air?
# ----------------------------------------------
# Both targets come from the same evaluations. Shadow alone is scored: the light of one region in the air is no head.

results = explain_img(
    SCAN, predict, list(TARGETS), "AAL", fusion="shadow", kernel="segment", sigma_shadow=2, unit="mm", background=0
)
for name, result in zip(TARGETS, results, strict=True):
    print(f"{name}: deepbet's mean probability of brain is {result.explanation.probability:.3f}")

# %%
# A network that finds edges looks at the region and its surroundings. How far away does air still matter? A region within
# 12 mm of the target is the target itself or touches it; what lies farther is context.

EDGES = (0, 12, 30, 60, np.inf)
world = grid.affine[:3, :3] @ results[0].explanation.points.T + grid.affine[:3, 3:]
print("mean drop of the probability by the distance of a region's centre from the target")
print(f"{'mm':>22} {'0-12':>8} {'12-30':>8} {'30-60':>8} {'> 60':>8}")
for column, (name, result) in enumerate(zip(TARGETS, results, strict=True)):
    voxels = np.argwhere(regions == column + 1)
    millimetres = voxels @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    distance = np.sqrt(((world.T[:, None] - millimetres[None]) ** 2).sum(axis=2)).min(axis=1)
    drops = [result.explanation.drop[(distance >= a) & (distance < b)] for a, b in pairwise(EDGES)]
    print(f"{name:>22} " + " ".join(f"{each.mean() if each.size else np.nan:8.4f}" for each in drops))

# %%
# Red: the target is less brain without this region. Blue: it is more. The target is outlined.

figure, axes = plt.subplots(len(TARGETS), 1, figsize=(9, 3.2 * len(TARGETS)), facecolor="white")
for column, (axis, name, result) in enumerate(zip(axes, TARGETS, results, strict=True)):
    region = nib.Nifti1Image((regions == column + 1).astype(np.uint8), grid.affine)
    largest = float(np.abs(result.drop_img.get_fdata()).max())
    display = plot_stat_map(
        result.drop_img, bg_img=SCAN, cut_coords=find_xyz_cut_coords(region), axes=axis, draw_cross=False, title=name,
        cmap="RdBu_r", vmin=-largest, vmax=largest, threshold=0.1 * largest,
    )  # fmt: skip
    display.add_contours(region, levels=[0.5], colors="lime")
figure.savefig(OUT / "13_brain_extraction.png", dpi=110)
