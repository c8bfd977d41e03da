"""Write a simulated cohort as a BIDS derivative data set, its truth beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.imaging.atlas import Atlas
from glas3d.imaging.space import MNI
from glas3d.output import generated_by, new_folder, write_json
from glas3d.simulate.participants import PLANTED, Participant, Simulation, participant, truth
from glas3d.tables import write_table

_COLUMNS = {
    "participant_id": {"Description": "Identifier of the simulated participant"},
    "group": {
        "Description": "Diagnosis the participant was simulated with",
        "Levels": {"AD": "Alzheimer's disease (simulated)", "NC": "normal control (simulated)"},
    },
    "age": {"Description": "Age; grey matter is lost with it in everyone", "Units": "year"},
    "sex": {"Description": "Sex; without effect on the volume", "Levels": {"F": "female", "M": "male"}},
    "site": {"Description": "Scanner; each has an intensity scale of its own"},
}


def write_dataset(
    place: Path, simulation: Simulation, tick: Callable[[int, int], None] = lambda done, total: None
) -> Path:
    """Simulate a cohort and write it.

    Parameters
    ----------
    place
        Folder to make; it appears when everything is written.
    tick
        Called with participants done and in all.

    Returns
    -------
    The folder.

    Raises
    ------
    GlasError
        The folder has content already, or cannot be written.
    """
    with new_folder(place) as scratch:
        _write(scratch, simulation, tick)
    return place


def scan_path(simulation: Simulation, participant_id: str) -> Path:
    """Where a participant's volume lies in the data set."""
    stem = f"sub-{participant_id}_space-{MNI}_res-{simulation.resolution:g}mm_desc-preproc_T1w"
    return Path(f"sub-{participant_id}") / "anat" / f"{stem.replace('.', 'p')}.nii.gz"


def scan_img(simulation: Simulation, volume: np.ndarray) -> nib.Nifti1Image:
    """A participant's volume as the file keeps it: whole scanner units, in MNI space."""
    img = nib.Nifti1Image(np.rint(volume).astype(np.int16), simulation.grid.affine)
    img.set_sform(simulation.grid.affine, code=4)
    img.set_qform(simulation.grid.affine, code=4)
    img.header.set_xyzt_units("mm")
    return img


def _write(place: Path, simulation: Simulation, tick: Callable[[int, int], None]) -> None:
    made: list[Participant] = []
    for number in range(simulation.participants):
        one = participant(simulation, number)
        path = place / scan_path(simulation, one.participant_id)
        path.parent.mkdir(parents=True)
        nib.save(scan_img(simulation, one.volume), path)
        sidecar = {
            "SkullStripped": True,
            "SpatialReference": MNI,
            "Resolution": f"{simulation.resolution:g} mm",
        }
        write_json(sidecar | {"Description": "Simulated from the ICBM152 2009a symmetric template"})(
            path.with_name(path.name.replace(".nii.gz", ".json"))
        )
        made.append(one)
        tick(number + 1, simulation.participants)
    rows: list[dict[str, Any]] = [
        {
            "participant_id": f"sub-{p.participant_id}",
            "group": p.group,
            "age": p.age,
            "sex": p.sex,
            "site": p.site,
        }
        for p in made
    ]
    write_table(pd.DataFrame(rows))(place / "participants.tsv")
    write_json(_COLUMNS)(place / "participants.json")
    write_json(
        {
            "Name": "Simulated Alzheimer's disease and normal controls",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "License": "CC0",
            "GeneratedBy": [generated_by()[0] | {"Description": json.dumps(asdict(simulation), sort_keys=True)}],
        }
    )(place / "dataset_description.json")
    (place / "README.md").write_text(_README, encoding="utf-8")
    (place / ".bidsignore").write_text("truth\n", encoding="utf-8")
    _write_truth(place / "truth", simulation, made)


def _write_truth(place: Path, simulation: Simulation, made: list[Participant]) -> None:
    place.mkdir()
    nib.save(scan_img(simulation, truth(simulation.resolution)), place / f"space-{MNI}_desc-planted_dseg.nii.gz")
    table = Atlas.load("AAL").table
    table = table.assign(planted=table["name"].isin(PLANTED).astype(int))
    write_table(table)(place / "desc-planted_regions.tsv")
    severity = pd.DataFrame([p.severity for p in made], columns=list(PLANTED))
    severity.insert(0, "participant_id", [f"sub-{p.participant_id}" for p in made])
    write_table(severity)(place / "desc-severity_participants.tsv")


_README = """# Simulated Alzheimer's disease and normal controls

Every volume is the ICBM152 2009a symmetric T1w template, aged, for group AD thinned in six AAL regions
(hippocampus, amygdala and, 0.6 times as much, inferior temporal gyrus, both sides), deformed smoothly, and recorded
with a bias field,
noise and a scale of the site's scanner. No person was scanned. What is to be found is known, and written in `truth/`:

- `desc-planted_regions.tsv`: every AAL region, and whether disease was planted in it
- `space-MNI152NLin2009aSym_desc-planted_dseg.nii.gz`: where, by AAL label
- `desc-severity_participants.tsv`: the share of grey matter each participant lost there

Made to check methods and software; nothing in it is evidence about disease.
"""
