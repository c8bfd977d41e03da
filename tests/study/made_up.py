"""A study's folder with made-up results, for tests of the group level."""

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.explain import COLUMNS
from glas3d.study.derivatives import participant_folder, record_name, start_study, write_participant

FEW = {"case": "AD", "control": "NC", "n_perm": 49, "n_boot": 20, "overwrite": True}  # tests share studies
SHAPE, AFFINE = (7, 8, 9), np.diag([20.0, 22.0, 18.0, 1.0])
AFFINE[:3, 3] = -60, -90, -60


class Study:
    """A study's folder; `add` adds the made-up results of one participant's session."""

    def __init__(self, out, atlas_path, atlas, grid=False):
        self.out, self.atlas, self.grid = out, atlas, grid
        start_study(out, "made up", {"Search": [2, 1, 2] if grid else str(atlas_path)})

    def add(
        self,
        name,
        session="",
        seed=0,
        *,
        p=0.7,
        fold=1,
        boost=0.0,
        affine=AFFINE,
        shape=SHAPE,
        volume=None,
        model="2 folds",
        scores=None,
        notes=(),
        outputs=None,
        **method,
    ):
        rng = np.random.default_rng(seed)
        rows = self.atlas.table.copy()
        if self.grid:
            rows = pd.DataFrame({"index": [1, 2, 3, 4], "name": [f"point-{i}" for i in range(1, 5)], "hemisphere": "L"})
        values = rng.uniform(0.1, 1, (6, len(rows)))
        rows = rows.assign(**dict(zip(["x", "y", "z", "light", "shadow", "drop"], values, strict=True)))
        rows["score"] = rows["light"] * rows["shadow"] + boost * (rows["name"].isin(["Amygdala_L", "point-1"]))
        for region, score in (scores or {}).items():
            rows.loc[rows["name"] == region, "score"] = score
        rows = rows.assign(n_voxels=np.arange(1, len(rows) + 1), rank=0)
        rows["rank"] = rows["score"].rank(ascending=False).astype(int)
        rows["direction"] = np.where(rows["drop"] > 0, "for", "against")
        stem = f"{name}_{session + '_' if session else ''}seg-few"
        if volume is None:
            volume = rng.uniform(0, 1, shape).astype(np.float32)

        def save(folder):
            rows[COLUMNS].to_csv(folder / f"{stem}_regions.tsv", sep="\t", index=False, na_rep="n/a")
            nib.Nifti1Image(volume, affine).to_filename(folder / f"{stem}_stat-saliency_statmap.nii.gz")

        search = {"grid": [2, 1, 2]} if self.grid else {"atlas": self.atlas.name, "sha256": self.atlas.sha256}
        record = {
            "Key": "k",
            "Stem": stem,
            "Input": {"name": f"{stem}.nii.gz", "sha256": "0"},
            "InSample": False,
            "Folds": [fold],
            "Probability": p,
            "Method": {
                "Target": {"index": 1, "class": "AD"},
                "Settings": {"sigma_light": 20.0} | method,
                "Model": {"name": model},
                "Search": search,
            },
        } | ({"Notes": list(notes)} if notes else {})
        if outputs is not None:
            record["Outputs"] = list(outputs.values())
            record["Method"]["Model"]["classes"] = list(outputs)
        write_participant(participant_folder(self.out, name, session), record_name(name, session), save, record)
        return rows[COLUMNS], volume


def filled(study, people, n_folds=1):
    """Add one session of each participant; AD has a bright left amygdala."""
    return {
        row["participant_id"]: study.add(
            row["participant_id"],
            seed=i,
            fold=i // 2 % n_folds + 1,
            p=0.2 + 0.1 * i,
            boost=3.0 * (row["group"] == "AD"),
        )
        for i, row in enumerate(people.to_dict("records"))
    }


def read(place, name):
    return pd.read_csv(place / name, sep="\t", keep_default_na=False, na_values=["n/a"])


def minmax(values):
    return (values - values.min()) / (values.max() - values.min())
