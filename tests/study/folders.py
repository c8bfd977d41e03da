"""Small BIDS folders with participants of two groups, which differ by a dark hole."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from torch import nn

from glas3d.predict.networks import encoder

SHAPE = (16, 18, 20)
TINY = (4, 5, 6)
HOLE = (slice(4, 9), slice(6, 11), slice(9, 14))
AFFINE = np.array([[9.0, 0, 0, -70], [0, 10, 0, -100], [0, 0, 8, -60], [0, 0, 0, 1]])


def brain(group="NC", seed=0, shape=SHAPE, severity=0.6):
    """A bright ellipsoid in a scanner's units; AD has the hole."""
    rng = np.random.default_rng(seed)
    axes = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    volume = ((axes**2).sum(axis=0) < 1) * rng.normal(1, 0.1, shape)
    if group == "AD":
        volume[HOLE] *= 1 - severity
    return (volume * rng.uniform(500, 900)).clip(0).astype(np.float32)


def save(path, volume, affine=AFFINE):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    img = nib.Nifti1Image(volume, affine)
    img.set_sform(affine, code=4)
    nib.save(img, path)
    return path


def people(n, sites=1, **columns):
    """AD and NC alternate."""
    names = [f"sub-{i:02d}" for i in range(1, n + 1)]
    table = {"participant_id": names, "group": ["AD", "NC"] * (n // 2), "age": [60 + i / 2 for i in range(n)]}
    if sites > 1:
        table["site"] = [f"s{i // 2 % sites}" for i in range(n)]
    return pd.DataFrame(table | columns)


def write_people(place, table):
    Path(place).mkdir(parents=True, exist_ok=True)
    table.to_csv(Path(place) / "participants.tsv", sep="\t", index=False, na_rep="n/a")


def derivative(place, table, sessions=("",), shape=SHAPE, severity=0.6):
    """``sub-01/[ses-M00/]anat/sub-01_[ses-M00_]space-MNI_desc-preproc_T1w.nii.gz``."""
    place = Path(place)
    write_people(place, table)
    for number, row in enumerate(table.to_dict("records")):
        for visit, session in enumerate(sessions):
            scan_path = scan(place, row["participant_id"], session)
            save(scan_path, brain(row["group"], 100 * number + visit, shape, severity))
    return place


def scan(place, participant, session="", space="MNI"):
    folder = Path(place) / participant / (f"ses-{session}" if session else "")
    middle = f"_ses-{session}" if session else ""
    return folder / "anat" / f"{participant}{middle}_space-{space}_desc-preproc_T1w.nii.gz"


def image(path, shape=TINY, affine=AFFINE):
    """Write a small random image."""
    return save(path, np.random.default_rng(0).random(shape, dtype=np.float32), affine)


def folder(place, n=4, sessions=("",)):
    """Write a `derivative` of tiny images."""
    return derivative(place, people(n), sessions, shape=TINY)


def ids(cohort):
    return cohort.table["participant_id"].tolist()


def small_net(shape, channels, classes):
    """Make the network that ``tests.study.folders:small_net`` names."""
    return nn.Sequential(
        nn.Conv3d(channels, 2, 3, stride=4), nn.BatchNorm3d(2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(classes)
    )


def one_logit(shape, channels, classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(1))


class DeepNet(nn.Module):
    def __init__(self, shape, channels, classes):
        super().__init__()
        self.encoder = encoder(channels, batch_norm=True)
        self.last = nn.LazyLinear(classes)

    def forward(self, x):
        return self.last(self.encoder(x).flatten(1))


def deep_net(shape, channels, classes):
    """Make a network with the convolutions of the paper's."""
    return DeepNet(shape, channels, classes)


def flat_net(shape, channels, classes):
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())


def no_net(shape, channels, classes):
    return "net"
