"""Write a simulated cohort as a BIDS derivative data set, with the truth in a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.bids_names import have_distinct_labels
from glas3d.errors import GlasError
from glas3d.explain.table import DESCRIPTIONS
from glas3d.imaging.space import MNI
from glas3d.output import (
    DESCRIPTION,
    dataset_description,
    describe_columns,
    described_table,
    generated_by,
    new_folder,
    write_each,
    write_json,
)
from glas3d.simulate.participants import SimulatedParticipant, planted_labels, simulate_participants
from glas3d.simulate.regions import atlas_of
from glas3d.simulate.simulation import COLIN27, ICBM152, LESIONS, PLANTED, Simulation
from glas3d.simulate.twins import KINDS, Kind, twin_label, twins
from glas3d.tables import write_table

Progress = Callable[[int, int], None]

_LEVELS = {
    "group": {"AD": "Alzheimer's disease (simulated)", "NC": "normal control (simulated)"},
    "sex": {"F": "female", "M": "male"},
}
_COLUMNS = {
    "participant_id": ("Identifier of the simulated participant", ""),
    "group": ("Diagnosis the participant was simulated with", ""),
    "age": ("Age; grey matter is lost with it in everyone", "year"),
    "sex": ("Sex; without effect on the volume", ""),
    "site": ("Scanner; each has an intensity scale of its own", ""),
    "desc_id": ("Label of the entity desc in the names of scans", ""),
    "description": ("Meaning of the label", ""),
    "planted": ("1 where disease was planted in the region, else 0", "0 or 1"),
    "suppressor": ("1 for the region that loses tissue in everyone, else 0", "0 or 1"),
    "artefacts": ("1 where the scan has artefacts, else 0", "0 or 1"),
    LESIONS: ("Volume of the lesions of white matter", "mm3"),
}
_TWINS: dict[Kind, str] = {
    "healed": "all abnormalities healed",
    "without": "the abnormality of {} healed",
    "only": "the abnormality of {} kept and all others healed",
}


def write_dataset(folder: Path, simulation: Simulation, progress: Progress = lambda done, total: None) -> Path:
    """Simulate a cohort and write it as a BIDS derivative data set.

    Parameters
    ----------
    folder
        New or empty folder of the data set; it appears when everything is written.
    simulation
        The cohort to simulate.
    progress
        Called with the number of participants done and of all participants.

    Returns
    -------
    The folder.

    Raises
    ------
    GlasError
        The folder has content, or cannot be written; or the names of twins in files would not be distinct.
    """
    if simulation.twins and not have_distinct_labels(simulation.abnormalities):
        raise GlasError(
            "the names of twins' files need letters or digits by which the regions differ, got "
            f"{', '.join(simulation.abnormalities)}"
        )
    with new_folder(folder) as scratch:
        participants = _write_scans(scratch, simulation, progress)
        _write_description(scratch, simulation, participants)
        _write_truth(scratch / "truth", simulation, participants)
    return folder


def scan_path(simulation: Simulation, participant_id: str, desc: str = "preproc") -> Path:
    """Return the path of a participant's scan within the data set.

    Parameters
    ----------
    simulation
        The cohort.
    participant_id
        The id without ``sub-``.
    desc
        ``"preproc"`` (default), or the `Twin.desc` of a twin.
    """
    stem = f"sub-{participant_id}_space-{_space(simulation)}_res-{simulation.resolution:g}mm_desc-{desc}_T1w"
    return Path(f"sub-{participant_id}") / "anat" / f"{stem.replace('.', 'p')}.nii.gz"


def scan_img(simulation: Simulation, volume: np.ndarray) -> nib.Nifti1Image:
    """Return a participant's volume as its file holds it: rounded to whole scanner units, in MNI space."""
    img = nib.Nifti1Image(np.rint(volume).astype(np.int16), simulation.grid.affine)
    img.set_sform(simulation.grid.affine, code=4)
    img.set_qform(simulation.grid.affine, code=4)
    img.header.set_xyzt_units("mm")
    return img


def _space(simulation: Simulation) -> str:
    """Return the label of the scans' space in file names; MNI alone for a template of the user's own."""
    return {ICBM152: MNI, COLIN27: "MNIColin27"}.get(str(simulation.template), "MNI")


def _template(simulation: Simulation) -> str:
    """Return what texts call the template that participants are made from."""
    names = {ICBM152: "the ICBM152 2009a symmetric", COLIN27: "the Colin27"}
    return names.get(str(simulation.template), f"{Path(simulation.template).name}, a")


def _write_scans(folder: Path, simulation: Simulation, progress: Progress) -> list[SimulatedParticipant]:
    participants: list[SimulatedParticipant] = []
    sidecar = {
        "SkullStripped": True,
        "SpatialReference": _space(simulation),
        "Resolution": f"{simulation.resolution:g} mm",
        "Description": f"Simulated from {_template(simulation)} template",
    }
    for number, participant in enumerate(simulate_participants(simulation)):
        scans = {"preproc": participant}
        if simulation.twins:
            scans |= {twin.desc: twin.participant for twin in twins(simulation, number)}
        for desc, scan in scans.items():
            path = folder / scan_path(simulation, participant.participant_id, desc)
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(scan_img(simulation, scan.volume), path)
            write_json(sidecar)(path.with_name(path.name.replace(".nii.gz", ".json")))
        participants.append(participant)
        progress(len(participants), simulation.participants)
    return participants


def _write_description(folder: Path, simulation: Simulation, participants: list[SimulatedParticipant]) -> None:
    table = pd.DataFrame(
        [
            {"participant_id": f"sub-{p.participant_id}", "group": p.group, "age": p.age, "sex": p.sex, "site": p.site}
            for p in participants
        ]
    )
    described = describe_columns(table.columns, _COLUMNS)
    write_table(table)(folder / "participants.tsv")
    write_json(
        {name: text | ({"Levels": _LEVELS[name]} if name in _LEVELS else {}) for name, text in described.items()}
    )(folder / "participants.json")
    write_json(
        dataset_description(
            "Simulated Alzheimer's disease and normal controls",
            License="CC0",
            GeneratedBy=[generated_by()[0] | {"Description": json.dumps(simulation.record(), sort_keys=True)}],
        )
    )(folder / DESCRIPTION)
    if simulation.twins:
        _write_twins(folder, simulation)
    (folder / "README.md").write_text(_readme(simulation), encoding="utf-8")
    (folder / ".bidsignore").write_text("truth\n", encoding="utf-8")


def _write_twins(folder: Path, simulation: Simulation) -> None:
    """Write what each label of the entity desc means, as BIDS has it."""
    meanings = {"preproc": "the participant's scan", twin_label("healed"): _TWINS["healed"]}
    for kind in KINDS[1:]:
        meanings |= {twin_label(kind, name): _TWINS[kind].format(name) for name in simulation.abnormalities}
    table = pd.DataFrame({"desc_id": [f"desc-{desc}" for desc in meanings], "description": meanings.values()})
    write_each(folder, described_table("descriptions", table, _COLUMNS))


def _write_truth(folder: Path, simulation: Simulation, participants: list[SimulatedParticipant]) -> None:
    folder.mkdir()
    space = f"space-{_space(simulation)}"
    labels = scan_img(simulation, planted_labels(simulation.resolution, simulation.regions, simulation.atlas))
    nib.save(labels, folder / f"{space}_desc-planted_dseg.nii.gz")
    regions = atlas_of(simulation.atlas).table
    regions = regions.assign(planted=regions["name"].isin(simulation.regions).astype(int))
    if simulation.suppressor is not None:
        regions["suppressor"] = (regions["name"] == simulation.suppressor).astype(int)
    columns = DESCRIPTIONS | _COLUMNS
    write_each(folder, described_table("desc-planted_regions", regions, columns))
    severity = pd.DataFrame([p.severity for p in participants], columns=list(simulation.regions))
    if simulation.suppressor is not None:
        severity[simulation.suppressor] = [p.suppressor for p in participants]
    if any(simulation.lesions):
        shares = [p.lesions for p in participants]
        severity[LESIONS] = [0.0 if s is None else float(s.sum() * simulation.resolution**3) for s in shares]
        for participant, share in zip(participants, shares, strict=True):
            if share is not None:
                img = nib.Nifti1Image(share.astype(np.float32), simulation.grid.affine)
                nib.save(img, folder / f"sub-{participant.participant_id}_{space}_label-WMH_probseg.nii.gz")
    if simulation.artefacts:
        severity["artefacts"] = [int(bool(p.artefacts)) for p in participants]
    severity.insert(0, "participant_id", [f"sub-{p.participant_id}" for p in participants])
    lost = "Share of the grey matter of {} that the disease removed"
    columns |= {name: (lost.format(name), "share, 0 to 1") for name in simulation.regions}
    if simulation.suppressor is not None:
        everyone = f"Share of the grey matter of {simulation.suppressor} that was removed, whatever the group"
        columns |= {simulation.suppressor: (everyone, "share, 0 to 1")}
    write_each(folder, described_table("desc-severity_participants", severity, columns))


def _readme(simulation: Simulation) -> str:
    """Return the text for readers of the data set, which says what was simulated."""
    atlas = atlas_of(simulation.atlas).name
    disease = _DEFAULT_DISEASE
    if (simulation.regions, simulation.atlas, simulation.atrophy) != (PLANTED, "AAL", "thinning"):
        done = {"thinning": "thinned", "shrinking": "shrunken", "both": "thinned and shrunken"}[simulation.atrophy]
        disease = f"{done} in regions of {atlas} if the group is AD\n({', '.join(simulation.regions)})"
    more = ""
    if simulation.suppressor is not None:
        more += (
            f"\nEveryone, whatever the group, lost a further share of grey matter in the regions with disease and in "
            f"{simulation.suppressor},\nthe suppressor; its share is in the same table.\n"
        )
    if any(simulation.lesions):
        more += (
            "\nLesions of white matter are in `truth/sub-*_label-WMH_probseg.nii.gz`, as shares of voxels, and their "
            "volumes\nin mm^3 in the column `lesions` of that table.\n"
        )
    if simulation.artefacts:
        more += (
            f"\nThe scanner has artefacts ({', '.join(simulation.artefacts)}).\n"
            "The column `artefacts` of that table says in whose scans.\n"
        )
    return _README.format(
        template=_template(simulation),
        disease=disease,
        atlas=atlas,
        space=_space(simulation),
        more=more + (_README_TWINS if simulation.twins else ""),
    )


_DEFAULT_DISEASE = """thinned in six AAL regions if the group is AD
(hippocampus, amygdala and, 0.6 times as much, inferior temporal gyrus, both sides)"""

_README_TWINS = """
Every participant with an abnormality has twins: the same scan, noise, bias field and deformation equal bit for bit,
with all abnormalities healed (`desc-healed`), one of them healed (`desc-without...`), or all others healed
(`desc-only...`); `descriptions.tsv` lists them. `glas3d cohort` and `glas3d train` read the participants' own scans
with `--desc preproc`.
"""

_README = """# Simulated Alzheimer's disease and normal controls

Every volume is {template} T1w template, aged, {disease}, deformed smoothly, and recorded
with a bias field, noise and the scale of the site's scanner. No person was scanned. Where disease was planted is known,
and written in `truth/`:

- `desc-planted_regions.tsv`: every {atlas} region, and whether disease was planted in it
- `space-{space}_desc-planted_dseg.nii.gz`: the planted regions, by {atlas} label
- `desc-severity_participants.tsv`: the share of grey matter each participant lost in them
{more}
Made to check methods and software; nothing in it is evidence about disease.
"""
