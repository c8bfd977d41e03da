"""
Recursion: two lesions, either of which is enough
=================================================

Where either of two lesions suffices, hiding one of them changes little, and one explanation may show only the stronger one.
The recursion (RGLAS, Algorithm 1 of the paper) explains the scan, masks out what the map marks, and explains again.
"""

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import torch
from nilearn.plotting import plot_stat_map

from glas3d import Grid, explain_img
from glas3d.imaging import mni_grid, resample, template
from glas3d.predict import from_callable

OUT = Path("glas3d-examples")
OUT.mkdir(exist_ok=True)

# %%
# A scan with two lesions
# -----------------------
# The template brain at 6 mm, with two dark lesions: a strong one on the left, and a weaker one on the right.

grid = mni_grid(6)
brain = resample(template(), grid)
millimetres = nib.affines.apply_affine(grid.affine, np.moveaxis(np.indices(grid.shape), 0, -1))
LESIONS = {"left": ((-34, -20, 30), 0.9), "right": ((34, 10, 24), 0.6)}  # centre in mm, weight
inside = {name: np.linalg.norm(millimetres - centre, axis=-1) < 11 for name, (centre, _) in LESIONS.items()}
volume = brain.copy()
for voxels in inside.values():
    volume[voxels] = 0.1
scan = nib.Nifti1Image(volume, grid.affine)

# %%
# A model for which either is enough
# ----------------------------------
# ``P = 1 - (1 - 0.9 a) (1 - 0.6 b)``, where ``a`` and ``b`` say how dark each lesion is. Any function of batches is a model.


def either(batch):
    """Return the probability of a lesion, ``(n, 1)``, of a batch ``(n, 1, x, y, z)``."""
    absent = torch.ones(len(batch))
    for name, (_, weight) in LESIONS.items():
        tissue = batch[:, 0, torch.from_numpy(inside[name])].mean(dim=1)
        absent = absent * (1 - weight * ((0.8 - tissue) / 0.7).clamp(0, 1))
    return 1 - absent[:, None]


predict = from_callable(either, "none", name="either lesion", classes=["lesion"], grid=grid)

# %%
# Explain, mask out, explain again
# --------------------------------
# What is masked out becomes the healthy brain, which is the background. The recursion ends when ``P`` falls to the floor.

result = explain_img(
    scan,
    predict,
    "lesion",
    Grid((8, 10, 8)),
    background=nib.Nifti1Image(brain, grid.affine),
    preset="paper",
    sigma_light=12,
    sigma_shadow=12,
    sigma_spatial=4,
    unit="mm",
    recursive={"floor": 0.3},
)
rounds = result.provenance["Recursion"]["rounds"]
for number, (img, each) in enumerate(zip(result.round_imgs, rounds, strict=True), start=1):
    values = img.get_fdata()
    highest = millimetres[np.unravel_index(values.argmax(), values.shape)]
    distance = {name: np.linalg.norm(highest - centre) for name, (centre, _) in LESIONS.items()}
    nearest = min(distance, key=distance.get)
    before, after = each["probability_before"], each["probability_after"]
    print(
        f"round {number}: P {before:.2f} to {after:.2f}, highest {distance[nearest]:.0f} mm from the {nearest} lesion"
    )
print(f"ended: {result.provenance['Recursion']['ended']}")

# %%
# The rounds are kept, each with its map from 0 to 1; the lesions are outlined. Read them together with their probabilities: where masking out leaves
# residues that the model still recognises, later rounds mark the same lesions again.

figure, axes = plt.subplots(len(result.round_imgs), 1, figsize=(9, 3 * len(result.round_imgs)), squeeze=False)
for number, (axis, img) in enumerate(zip(axes[:, 0], result.round_imgs, strict=True), start=1):
    display = plot_stat_map(
        img,
        bg_img=scan,
        axes=axis,
        cut_coords=LESIONS["left" if number == 1 else "right"][0],
        draw_cross=False,
        threshold=0.4,
        vmin=0,
        vmax=1,
        cmap="inferno",
        title=f"round {number}: P {rounds[number - 1]['probability_before']:.2f}",
    )
    for voxels in inside.values():
        display.add_contours(nib.Nifti1Image(voxels.astype(np.uint8), grid.affine), levels=[0.5], colors="cyan")
figure.savefig(OUT / "08_recursive.png", dpi=110)
