"""Made-up explanations of participants in five regions, and their group map."""

from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d import Atlas
from glas3d.explain import COLUMNS, ScanExplanation
from glas3d.study.group.group_map import GroupMap

AFFINE = np.diag([2.0, 3.0, 4.0, 1.0])
LABELS = np.zeros((7, 8, 9), dtype=np.int32)
LABELS[1:3], LABELS[3:5, :4], LABELS[5, 2:], LABELS[6, :, 3:5] = 300, 7, 41, 2
INDEX = [300, 7, 41, 2, 99]  # 99 owns no voxel
ROWS = pd.DataFrame({"index": INDEX, "name": list("abcde"), "hemisphere": ["L", "R", "L", "R", "midline"]})
ATLAS = Atlas("few", nib.Nifti1Image(LABELS, AFFINE), ROWS, "0" * 64)


def explanation(seed, *, index=INDEX, affine=AFFINE, shape=LABELS.shape, score=None):
    """Return one participant's explanation; the last region has no values."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.1, 1, (6, len(index))) * 10.0 ** rng.integers(-4, 1)
    values[:, -1] = np.nan
    table = ROWS.assign(index=index, **dict(zip(["x", "y", "z", "light", "shadow", "drop"], values, strict=True)))
    table["score"] = table["light"] * table["shadow"] if score is None else score
    table["n_voxels"] = [28, 16, 6, 16, 0]
    table["rank"] = table["score"].rank(ascending=False, method="first").astype("Int64")
    img = nib.Nifti1Image(np.zeros(shape, np.float32), affine)
    img.set_sform(affine, code=4)
    img.set_qform(affine, code=2)
    provenance = {
        "Target": {"index": 1},
        "Settings": {"sigma_light": 5},
        "Model": {"name": "m"},
        "Search": {"atlas": "few"},
    }
    provenance["Input"] = {"name": f"sub-{seed}.nii.gz", "sha256": f"{seed}" * 64}
    core = SimpleNamespace(probability=0.5 + seed / 100)
    return ScanExplanation(
        img, img, img, img, table.assign(direction="for")[COLUMNS], core, provenance, f"sub-{seed}_seg-few"
    )


def group_of(*explanations, name="AD"):
    group = GroupMap(name, ATLAS)
    for each in explanations:
        group.add(each)
    return group


def minmax(values):
    return (values - np.nanmin(values)) / (np.nanmax(values) - np.nanmin(values))
