"""Write OASIS-1, maps of grey matter of real participants, as a BIDS derivative data set."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from glas3d.display import fields_repr
from glas3d.errors import GlasError, reason
from glas3d.options import accepts, parse
from glas3d.output import generated_by, new_folder, write_json
from glas3d.study.oasis.options import OasisOptions
from glas3d.tables import write_table

Progress = Callable[[int, int], None]

SPACE = "MNI152Lin"
CASE, CONTROL, YOUNGER = "AD", "NC", "younger"

_SOURCE = "https://www.nitrc.org/projects/oasis"
_TERMS_URL = "https://sites.wustl.edu/oasisbrains/"
_ARTICLE = "https://doi.org/10.1162/jocn.2007.19.9.1498"

# What nilearn calls the columns of OASIS's table, and what they are called here.
_RENAMED = {"mf": "sex", "educ": "education", "ses": "socioeconomic_status", "mmse": "mmse", "cdr": "cdr"}
_RENAMED |= {"age": "age", "etiv": "etiv", "nwbv": "nwbv"}
_COLUMNS: dict[str, dict[str, Any]] = {
    "participant_id": {"Description": "Identifier: that of OASIS, OAS1_0001_MR1, is sub-OAS10001"},
    "group": {
        "Description": "Group by the Clinical Dementia Rating (CDR) and the age",
        "Levels": {
            CASE: "CDR above 0 (very mild to moderate dementia), of the least age or older",
            CONTROL: "CDR 0, of the least age or older",
            YOUNGER: "younger than the least age, no CDR above 0",
        },
    },
    "age": {"Description": "Age at the scan", "Units": "year"},
    "sex": {"Description": "Sex", "Levels": {"F": "female", "M": "male"}},
    "education": {"Description": "Education as OASIS codes it, from 1 (less than high school) to 5 (beyond college)"},
    "socioeconomic_status": {"Description": "Hollingshead's index of social position, 1 (highest) to 5 (lowest)"},
    "mmse": {"Description": "Mini-Mental State Examination, 0 to 30"},
    "cdr": {"Description": "Clinical Dementia Rating: 0, 0.5, 1 or 2; n/a where it was not rated, in the young"},
    "etiv": {"Description": "Estimated total intracranial volume", "Units": "cm^3"},
    "nwbv": {"Description": "Whole-brain volume as a share of the intracranial volume"},
}


@dataclass(frozen=True, eq=False)
class OasisDataset:
    """The result of `fetch_oasis`.

    Attributes
    ----------
    folder
        The data set.
    participants
        The content of its participants.tsv.
    left_out
        Number of participants who belong to no group: with dementia and younger, or older and without CDR.
    """

    folder: Path
    participants: pd.DataFrame
    left_out: int

    __repr__ = fields_repr

    @property
    def summary(self) -> pd.DataFrame:
        """One row for each group: ``group n women`` and mean, deviation, least and greatest age, and mean eTIV."""
        rows = []
        for group in (CASE, CONTROL, YOUNGER):
            members = self.participants[self.participants["group"] == group]
            age = members["age"]
            rows.append(
                {
                    "group": group,
                    "n": len(members),
                    "women": int((members["sex"] == "F").sum()),
                    "age": float(age.mean()),
                    "age_sd": float(age.std()),
                    "youngest": float(age.min()),
                    "oldest": float(age.max()),
                    "etiv": float(members["etiv"].mean()),
                }
            )
        return pd.DataFrame(rows)


def oasis_terms() -> str:
    """Return what OASIS-1 is, and on what terms it may be used, as nilearn states it; nothing is downloaded."""
    from nilearn.datasets._utils import get_dataset_descr

    return (
        f"{get_dataset_descr('oasis1').strip()}\n\n"
        f"Using OASIS requires agreeing with its data use agreement: {_TERMS_URL}\n"
        "Its text is downloaded together with the data, and becomes the file LICENSE of the data set."
    )


@accepts(OasisOptions)
def fetch_oasis(
    bids_dir: str | os.PathLike[str],
    *,
    agree: bool = False,
    progress: Progress = lambda done, total: None,
    **options: Any,
) -> OasisDataset:
    """Download OASIS-1 with nilearn, and write its maps of grey matter as a BIDS derivative data set.

    The maps are modulated, so that they hold amounts of grey matter, and were brought to MNI space with DARTEL (see
    ``nilearn.datasets.fetch_oasis_vbm``). They are copied, not linked: the data set stays whole when it is moved, or
    when nilearn's folder is removed.

    Parameters
    ----------
    bids_dir
        New or empty folder of the data set; it appears when everything is written.
    agree
        Whether you agree with the data use agreement of OASIS, see `oasis_terms`. Nothing is downloaded without.
    progress
        Called with the number of maps copied and of all maps.
    **options
        The fields of `OasisOptions`.

    Returns
    -------
    The folder, the table of its participants, and a summary of the groups.

    Raises
    ------
    GlasError
        The agreement is missing, the data cannot be downloaded or are not as nilearn describes them, a group has no
        participants, or the folder has content.

    References
    ----------
    Marcus et al. (2007), Open Access Series of Imaging Studies, doi:10.1162/jocn.2007.19.9.1498.
    """
    (given,) = parse(options, OasisOptions, caller="fetch_oasis")
    if not agree:
        raise GlasError(
            f"OASIS is downloaded only for those who agree with its data use agreement, {_TERMS_URL}: "
            "read it, then give agree=True (--agree)"
        )
    with new_folder(Path(bids_dir)) as scratch:
        bunch = _download(given)
        maps = {_oasis_id(path): Path(path) for path in bunch["gray_matter_maps"]}
        table = _participants(bunch["ext_vars"], maps, given.least_age)
        grouped = table[table["group"].notna()].reset_index(drop=True)
        for group in (CASE, CONTROL):
            if group not in set(grouped["group"]):
                raise GlasError(f"no participant of {given.least_age:g} years or more is of group {group}")
        for done, row in enumerate(grouped.to_dict("records"), 1):
            _copy(maps[row["oasis_id"]], scratch / map_path(row["participant_id"]))
            progress(done, len(grouped))
        participants = grouped.drop(columns="oasis_id")
        _write_description(scratch, participants, Path(bunch["data_usage_agreement"]), given)
    return OasisDataset(Path(bids_dir), participants, len(table) - len(grouped))


def map_path(participant_id: str) -> Path:
    """Return the path of a participant's map within the data set; the id begins with ``sub-``."""
    return Path(participant_id) / "anat" / f"{participant_id}_space-{SPACE}_label-GM_probseg.nii.gz"


def _download(options: OasisOptions) -> Mapping[str, Any]:
    """Return what nilearn returns; it downloads what is missing in its folder."""
    from nilearn.datasets import fetch_oasis_vbm

    folder = None if options.data_dir is None else str(options.data_dir)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bunch: Mapping[str, Any] = fetch_oasis_vbm(n_subjects=options.participants, data_dir=folder, verbose=0)
    except Exception as error:  # of requests, of archives and of tables
        raise GlasError(
            f"OASIS cannot be had from {_SOURCE} by nilearn ({reason(error)}): this needs the internet, or the folder "
            "of an earlier download as data_dir (--data-dir)"
        ) from error
    return bunch


def _oasis_id(path: str) -> str:
    """Return the id of a map's participant, such as OAS1_0001_MR1, which is the name of its folder."""
    return Path(path).parent.name


def _participants(table: pd.DataFrame, maps: Mapping[str, Path], least_age: float) -> pd.DataFrame:
    """Return one row for each map, with the participant's group; it is missing if they belong to none."""
    needed = {"id", *_RENAMED}
    if absent := sorted(needed - set(table)):
        raise GlasError(f"the table of OASIS must have the columns {', '.join(sorted(needed))}, it lacks {absent[0]}")
    rows = table.set_index("id")
    if absent := sorted(set(maps) - set(rows.index)):
        raise GlasError(f"the table of OASIS must have a row for each map, it has none for {absent[0]}")
    rows = rows.loc[list(maps)].rename(columns=_RENAMED)
    old = rows["age"] >= least_age
    group = pd.Series(pd.NA, rows.index, dtype=object)
    group[old & (rows["cdr"] > 0)] = CASE
    group[old & (rows["cdr"] == 0)] = CONTROL
    group[~old & ~(rows["cdr"] > 0)] = YOUNGER
    ids = [f"sub-{name.rsplit('_', 1)[0].replace('_', '')}" for name in maps]
    rows = rows[list(_RENAMED.values())].reset_index(drop=True)
    rows.insert(0, "participant_id", ids)
    rows.insert(1, "group", group.to_numpy())
    rows = rows[list(_COLUMNS)].assign(oasis_id=list(maps))
    return rows


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _write_description(folder: Path, participants: pd.DataFrame, agreement: Path, options: OasisOptions) -> None:
    """Write the files of the data set's top folder."""
    import nilearn

    write_table(participants)(folder / "participants.tsv")
    write_json(_COLUMNS)(folder / "participants.json")
    shutil.copyfile(agreement, folder / "LICENSE")
    nilearn_record = {
        "Name": "nilearn",
        "Version": nilearn.__version__,
        "Description": "fetch_oasis_vbm downloaded the maps, which were made with SPM8 and DARTEL",
    }
    write_json(
        {
            "Name": "OASIS-1: maps of grey matter",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "License": "Data use agreement of OASIS, see LICENSE",
            "HowToAcknowledge": f"Cite Marcus et al. (2007), {_ARTICLE}, and what LICENSE requires.",
            "ReferencesAndLinks": [_ARTICLE, _TERMS_URL],
            "SourceDatasets": [{"URL": _SOURCE}],
            "GeneratedBy": [
                generated_by()[0] | {"Description": f"fetch_oasis, least age {options.least_age:g} years"},
                nilearn_record,
            ],
        }
    )(folder / "dataset_description.json")
    write_json(
        {
            "Description": "Modulated grey matter: the amount in each voxel, which may exceed 1, in the space of the "
            "template of DARTEL and SPM8",
            "SpatialReference": SPACE,
            "SkullStripped": True,
            "Manual": False,
        }
    )(folder / f"space-{SPACE}_label-GM_probseg.json")
    (folder / "README.md").write_text(_README.format(source=_SOURCE, age=f"{options.least_age:g}"), encoding="utf-8")


_README = """# OASIS-1: maps of grey matter

Real participants of the Open Access Series of Imaging Studies, cross-sectional, from {source}, as
`nilearn.datasets.fetch_oasis_vbm` returns them. Use is subject to the data use agreement in `LICENSE`.

Each map is of grey matter in MNI space (SPM8, DARTEL), modulated: it holds the amount of grey matter in each voxel. The
maps are copies, byte for byte. Group AD has a Clinical Dementia Rating above 0, NC of 0, both from {age} years;
`younger` are below that age and have none above 0. Participants who belong to no group are left out.
"""
