"""The size of a page with maps on voxels of 2 mm, and the time that it takes."""

import time

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from glas3d.imaging.space import mni_grid
from glas3d.report.webpage.content import page_of
from glas3d.report.webpage.results import Map, Result, Results
from glas3d.report.webpage.writing import html_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("draws_figures")]
SETTINGS = {"fusion": "product", "background": 0, "unit": "mm", "sigma_light": 20.0, "sigma_shadow": 30.0}


def smooth_result(n_points=216):
    """Return a result of a grid whose four maps fill every voxel of the usual 2 mm grid, and its scan."""
    rng, grid = np.random.default_rng(0), mni_grid(2)
    table = pd.DataFrame(rng.normal(size=(n_points, 6)), columns=["x", "y", "z", "light", "shadow", "drop"])
    table = table.assign(index=range(1, n_points + 1), hemisphere="L", n_voxels=1, direction="for")
    table = table.assign(name=[f"point-{i:03d}" for i in range(n_points)], score=table["light"] ** 2)
    table["rank"] = table["score"].rank(ascending=False).astype(int)
    volumes = [gaussian_filter(rng.normal(size=grid.shape).astype(np.float32), 4) for _ in range(4)]
    names = ("saliency", "light", "shadow", "drop")
    maps = {
        name: Map(nib.Nifti1Image(values, grid.affine), name, "probability")
        for name, values in zip(names, volumes, strict=True)
    }
    provenance = {
        "Input": {"name": "sub-01_T1w.nii.gz", "sha256": "0" * 64},
        "Target": {"index": 1, "class": "AD"},
        "Probability": 0.9,
        "Search": {"grid": [6, 6, 6]},
        "Settings": SETTINGS,
    }
    scan = nib.Nifti1Image(rng.normal(size=grid.shape).astype(np.float32), grid.affine)
    return Result("sub-01_T1w_desc-grid", table, {}, provenance, maps), scan


def test_a_page_of_2_mm_maps_is_small_and_quick():
    result, scan = smooth_result()
    page_of(Results((result,)), {"0" * 64: scan})  # loads what is loaded once
    start = time.process_time()
    page = page_of(Results((result,)), {"0" * 64: scan})
    text = html_of(page)
    took = time.process_time() - start
    assert page.volumes.left_out == 0
    assert len(page.volumes.encoded) == 5
    assert len(text.encode()) < 15_000_000
    assert took < 4  # 2 s on a core of its own
