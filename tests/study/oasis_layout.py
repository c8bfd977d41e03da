"""A folder as nilearn leaves it when it has downloaded OASIS-1, with small maps of simulated grey matter."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from nilearn.datasets.struct import oasis_missing_subjects

from glas3d.imaging.space import VoxelGrid, resample, template

OUTLIERS = [27, 57, 66, 83, 122, 157, 222, 269, 282, 287, 309, 428]  # as nilearn hides them
AGREEMENT = "Data use agreement: no one tries to identify a participant.\n"
# Unequal axes and voxels, the first axis to the left, as SPM writes them.
GRID = VoxelGrid((23, 25, 19), nib.affines.from_matvec(np.diag([-8.0, 9.0, 10.0]), (88, -126, -72)))


def layout(folder, n, grid=GRID, seed=0):
    """Write what the first ``n`` participants need; return the folder, as ``data_dir`` of nilearn.

    Of each five, two are of 60 years and more with CDR above 0, two with CDR 0, and one is young and not rated. With
    age grey matter is lost everywhere, and with CDR above 0 in the left hemisphere's lower part, too.
    """
    root = Path(folder) / "oasis1"
    numbers = [i for i in range(1, 457) if i not in {*oasis_missing_subjects(), *OUTLIERS}][:n]
    rng = np.random.default_rng(seed)
    grey, white = (resample(template(tissue), grid) for tissue in ("gm", "wm"))
    xyz = nib.affines.apply_affine(grid.affine, np.moveaxis(np.indices(grid.shape), 0, -1))
    rows = []
    for place, number in enumerate(numbers):
        name = f"OAS1_{number:04d}_MR1"
        kind = place % 5
        age = int(rng.integers(60, 95)) if kind < 4 else int(rng.integers(18, 50))
        cdr = [0.5, 0.0, 1.0, 0.0, np.nan][kind]
        amount = 1.1 - 0.004 * age + rng.normal(0, 0.02)
        loss = np.where((xyz[..., 0] < -10) & (xyz[..., 2] < 0), 0.5 * (cdr > 0), 0)
        for tissue, values in (("mwrc1", grey * amount * (1 - loss)), ("mwrc2", white)):
            noisy = values * rng.normal(1, 0.05, grid.shape)
            img = nib.Nifti1Image(noisy.astype(np.float32), grid.affine)
            path = root / name / f"{tissue}{name}_mpr_anon_fslswapdim_bet.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(img, path)
        rows.append([name, "FM"[place % 2], "R", age, 3, 2, 29, cdr, 1500 + number, 0.75, 1.2, np.nan])
        rows.append([name.replace("MR1", "MR2"), "F", "R", age, 3, 2, 29, cdr, 1, 0.1, 1.2, 20])  # has no map
    header = ["ID", "M/F", "Hand", "Age", "Educ", "SES", "MMSE", "CDR", "eTIV", "nWBV", "ASF", "Delay"]
    table = pd.DataFrame(rows[::-1], columns=header)  # in another order than the maps
    table.to_csv(root / "oasis_cross-sectional.csv", index=False)
    (root / "data_usage_agreement.txt").write_text(AGREEMENT)
    return Path(folder)
