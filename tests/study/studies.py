"""A small study: six participants, two folds that each never saw half of them, eight regions."""

import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.networks.nets import Classifier

from glas3d.hashing import file_sha256
from glas3d.imaging.scan import load_scan
from glas3d.imaging.space import mni_grid
from glas3d.predict import BundleDescription, Standardisation, write_bundle
from glas3d.study import read_cohort
from glas3d.study.training.manifest import FoldManifest, FoldScan
from glas3d.study.training.scan_identity import voxels_sha256
from tests.study import folders

GRID = mni_grid(16)
SEARCH = (2, 1, 2)
# A convolution, its batch normalisation and a linear layer: a network that bundles may be made of without trust.
NETWORK = {
    "in_shape": [1, *GRID.shape],
    "classes": 2,
    "channels": [2],
    "strides": [4],
    "num_res_units": 0,
    "act": "RELU",
    "norm": "BATCH",
}
PRESET = {"sigma_light": 40.0, "sigma_shadow": 60.0, "unit": "mm"}


def bids(place, n=6, sessions=("",), **columns):
    return folders.derivative(place, folders.people(n, **columns), sessions)


def cohort(place, **changed):
    return read_cohort(place, **changed)


def bundle(place, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Classifier(**NETWORK)
        torch.nn.init.normal_(net.final[-1].weight, std=0.5)
    blank = torch.full((1, *GRID.shape), 0.3)
    write_bundle(
        place,
        net.eval(),
        {"_target_": "Classifier", **NETWORK},
        BundleDescription(
            name=f"AD-NC-{place.name}",
            description="Random weights, for tests",
            version="0.0.1",
            classes=("NC", "AD"),
            grid=GRID,
            standardisation=Standardisation(blank, blank + 0.1),
            reference=blank.numpy(),
            preset=PRESET,
            card="# tiny\n",
        ),
    )
    return place


def folds(place, people, n=2, seed=0):
    """One after another participant is tested by the next fold; the others train it."""
    rows = people.everyone[["participant_id", "session", "group", "path"]].itertuples(index=False, name=None)
    scans = [
        FoldScan(name, session, group, file_sha256(Path(path)), voxels_sha256(load_scan(path)))
        for name, session, group, path in rows
    ]
    names = sorted({one.participant_id for one in scans})
    for fold in range(1, n + 1):
        tested = {name for i, name in enumerate(names) if i // 2 % n == fold - 1}
        made = bundle(Path(place) / f"fold-{fold}", 10 * seed + fold)
        test = tuple(one for one in scans if one.participant_id in tested)
        train = tuple(one for one in scans if one.participant_id not in tested)
        FoldManifest(fold, n, fold, {"seed": seed}, train, (), test).write(made)
    return Path(place)


def atlas(place, few):
    """Eight regions as files."""
    grid = mni_grid(4)
    path = Path(place) / "atlas-few_dseg.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(few.on(grid), grid.affine), path)
    few.table.to_csv(path.with_name("atlas-few_dseg.tsv"), sep="\t", index=False)
    return path


def content(place):
    """Every file's bytes, by its path, as a hash; and folders without any."""
    found = {}
    for path in sorted(Path(place).rglob("*")):
        name = str(path.relative_to(place))
        if path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif not any(path.iterdir()):
            found[name] = "empty"
    return found


def data(path):
    return np.asarray(nib.load(path).dataobj)
