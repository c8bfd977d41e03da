"""Results in a folder as figures need them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.spatialimages import SpatialImage
from scipy import stats

from glas3d.counts import counted
from glas3d.display import shown_output
from glas3d.explain.result import searched_in_mni
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.scan import load_scan
from glas3d.imaging.space import template
from glas3d.report.kinds import Shown, score_label, short_name, with_anatomy
from glas3d.report.maps import BrainMap
from glas3d.report.webpage.results import Result, Results, read_results
from glas3d.verify.files import damage_named

MNI_CODE = 4  # of sform and qform in NIfTI
_CONFIDENCE = 0.95


def shown_in(folder: Path, scans: Sequence[Path] = ()) -> list[Shown]:
    """Read the results in a folder, as `glas3d.report.read_results` does, for figures.

    Parameters
    ----------
    folder
        What ``glas3d explain``, ``demo``, ``compare`` or ``cohort`` wrote, or the folder of a participant.
    scans
        The scans that were explained, as anatomy under maps that are in their native space; recognised by their hash.

    Returns
    -------
    The explanations of scans, or the groups with the case first and then their comparisons; then comparisons of
    methods. The results of single scales belong to the result of all.

    Raises
    ------
    GlasError
        The folder has no results, or results that are damaged.
    """
    with damage_named(folder):
        return _shown(read_results(folder), _Anatomy(scans))


def _shown(results: Results, anatomy: _Anatomy) -> list[Shown]:
    parts = [each for each in results.explanations if re.search(r"_desc-\w*scale\d", each.stem)]
    whole = [each for each in results.explanations if each not in parts]
    shown = [_of_explanation(each, [p for p in parts if _is_part(p, each)], anatomy) for each in whole or parts]
    shown += [_of_group(each, results) for each in results.groups]
    shown += [_of_test(each, results.provenance) for each in results.tests if "hedges_g" in each.table]
    return shown + [_of_methods(each) for each in results.comparisons]


class _Anatomy:
    """What is drawn under maps: the template in MNI space, else the scan itself, where it is known.

    Parameters
    ----------
    scans
        Scans in native space.
    """

    def __init__(self, scans: Sequence[Path]) -> None:
        self._scans = {scan.sha256: scan for scan in map(load_scan, scans)}

    def under(self, provenance: Mapping[str, Any], is_in_mni: bool) -> SpatialImage | None:
        if is_in_mni:
            return template()
        record = provenance.get("Input", {})
        record = next(iter(record["channels"].values())) if "channels" in record else record
        scan = self._scans.get(record.get("sha256"))
        return None if scan is None else scan.img


def _of_explanation(result: Result, parts: Sequence[Result], anatomy: _Anatomy) -> Shown:
    provenance = result.provenance
    target, has_other = _class_of(provenance, "Target"), provenance.get("Against") is not None
    against = _class_of(provenance, "Against") if has_other else None
    title = f"{short_name(result.stem)}: {shown_output(target, provenance['Probability'], against)}"
    scales = {
        scale_name(part.stem.rpartition("_desc-")[2], part.provenance["Settings"]): brain_map
        for part in parts
        if (brain_map := _map_of(part, title, anatomy)) is not None
    }
    brain_map = _map_of(result, title, anatomy)
    return Shown(
        result.stem,
        title,
        target,
        _units(result),
        with_anatomy(result.table, searched_in_mni(provenance)),
        brain_map,
        _atlas_of(provenance),
        scales=scales,
    )


def _of_group(result: Result, results: Results) -> Shown:
    provenance = result.provenance
    target, group = _class_of(provenance, "Target"), str(provenance.get("Group", ""))
    variation = next(
        (t for name, t in results.tables.items() if name.startswith(f"{result.stem}_desc-variation")), None
    )
    n = "" if variation is None else f", {counted(int(variation.table['n'].max()), 'participant')}"
    title = f"{group}{n}: explanation of {target}"
    stability = {}
    for kind in ("fold", "run"):
        pairs, whole = (
            results.tables.get(f"{_with_desc(result.stem, kind + end)}_stability.tsv") for end in ("pairs", "s")
        )
        if pairs is not None and whole is not None:
            stability[f"{kind}s"] = pairs.table, whole.table
    return Shown(
        result.stem,
        title,
        target,
        _units(result) | ({} if variation is None else {"mean": variation.columns["mean"][1]}),
        result.table,
        _map_of(result, title, _Anatomy(())),
        _atlas_of(provenance),
        stability=stability,
        intervals=None if variation is None else _with_intervals(variation.table),
    )


def _with_desc(stem: str, desc: str) -> str:
    """Return the stem of a further table of a group; that of a grid has a description already."""
    return f"{stem}{desc}" if "_desc-" in stem else f"{stem}_desc-{desc}"


def _with_intervals(variation: pd.DataFrame) -> pd.DataFrame | None:
    """Return mean and 95 % interval (Student's t) of each region over participants; None for one participant."""
    n = variation["n"].to_numpy(dtype=float)
    if n.max() < 2:
        return None
    half = stats.t.ppf((1 + _CONFIDENCE) / 2, n - 1) * np.sqrt(variation["variance"].to_numpy(dtype=float) / n)
    return variation[["name", "mean"]].assign(low=variation["mean"] - half, high=variation["mean"] + half)


def _of_test(result: Result, study: Mapping[str, Any]) -> Shown:
    names = result.stem.partition("_")[0].removeprefix("group-").split("vs")
    case, control = (names[0], names[-1]) if len(names) == 2 else (str(study["Case"]), str(study["Control"]))
    title = str(result.provenance.get("Description", f"{case} against {control}"))
    target = _class_of(result.provenance, "Target")
    return Shown(result.stem, title, target, _units(result), result.table, groups=(case, control))


def _of_methods(result: Result) -> Shown:
    provenance = result.provenance
    target = _class_of(provenance, "Target")
    title = f"{short_name(result.stem)}: {shown_output(target, provenance['Probability'])}"
    methods = tuple(str(name) for name in result.table if name not in ("index", "name"))
    return Shown(result.stem, title, target, _units(result), result.table, methods=methods)


def _is_part(part: Result, whole: Result) -> bool:
    """Return whether a result is that of one scale of another."""
    start, _, desc = part.stem.rpartition("_desc-")
    return whole.stem.startswith(start) and "scales" in whole.provenance["Settings"] and "scale" in desc


def _map_of(result: Result, title: str, anatomy: _Anatomy) -> BrainMap | None:
    if "saliency" not in result.maps:
        return None
    img, provenance = result.maps["saliency"].img, result.provenance
    code = int(img.header.get("sform_code", 0)) if isinstance(img.header, nib.Nifti1Header) else 0
    is_in_mni = provenance.get("Transform") is None and (code == MNI_CODE or searched_in_mni(provenance))
    label = score_label(result.maps["saliency"].units or _units(result).get("score", ""))
    return BrainMap(img, title, label, anatomy.under(provenance, is_in_mni), is_in_mni)


def _units(result: Result) -> dict[str, str]:
    return {name: units for name, (_, units) in result.columns.items()}


def _class_of(provenance: Mapping[str, Any], key: str) -> str:
    model = provenance.get("Model", {})
    first = model[0] if isinstance(model, list) else model
    name = str(provenance.get(key, {}).get("class", "the target"))
    return name if first.get("classes") or not name.isdigit() else f"class {name}"


def _atlas_of(provenance: Mapping[str, Any]) -> Atlas | None:
    return Atlas.recorded(provenance.get("Search", {}))


def scale_name(part: str, settings: Mapping[str, Any]) -> str:
    """Return the name of one scale's result: the scale, and the sigmas of its masks.

    Parameters
    ----------
    part
        The name of the part, as ``scale0p5``.
    settings
        Its settings.

    Examples
    --------
    >>> print(scale_name("scale0p5", {"sigma_light": 4.0, "sigma_shadow": 6.0, "unit": "mm"}))
    scale 0.5:
    sigma 4 / 6 mm
    """
    factor = part.removeprefix("scale").replace("p", ".")
    light, shadow = (_sigma(settings[name]) for name in ("sigma_light", "sigma_shadow"))
    return f"scale {factor}:\nsigma {light} / {shadow} {'mm' if settings.get('unit') == 'mm' else 'voxels'}"


def _sigma(sigma: float | list[float]) -> str:
    return " x ".join(f"{each:g}" for each in sigma) if isinstance(sigma, list | tuple) else f"{sigma:g}"
