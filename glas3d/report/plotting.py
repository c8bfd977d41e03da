"""Figures of results in memory: what `plot` of a result draws."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import nibabel as nib
from matplotlib.figure import Figure

from glas3d.counts import counted
from glas3d.display import shown_output
from glas3d.errors import GlasError
from glas3d.evaluate.attribution import Attribution, Comparison
from glas3d.explain.image_result import ImageExplanation
from glas3d.explain.result import ScanExplanation
from glas3d.explain.table import scales_of
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.space import template
from glas3d.progress import notebook
from glas3d.report.folder import MNI_CODE, scale_name, shown_in
from glas3d.report.kinds import Shown, check_kind, draw, kinds_of, score_label, short_name, with_anatomy
from glas3d.report.maps import BrainMap
from glas3d.study.group.group_map import GroupMap
from glas3d.study.group.group_sums import GroupSums
from glas3d.study.group.level import GroupResult


def plot(result: Any, kind: str | None = None, **options: Any) -> Figure:
    """Draw a figure of a result, see `glas3d.display.Drawn.plot`."""
    figure = draw(shown_of(result, kind, options.pop("group", None)), kind, **options)
    if notebook() is not None:
        plt.close(plt.figure())  # loads the notebook's own backend, which shows the figure that is returned
    return figure


def shown_of(result: Any, kind: str | None = None, group: str | None = None) -> Shown:
    """Return a result as figures need it.

    Parameters
    ----------
    result
        Of a scan, an image, a study's groups, or of other explanation methods.
    kind
        The kind of figure that will be drawn.
    group
        The group of a study. None (default): the first that has this figure, the case before the control.

    Raises
    ------
    GlasError
        There is no such kind of figure or group.
    """
    check_kind(kind)
    if isinstance(result, ScanExplanation):
        return _of_scan(result)
    if isinstance(result, ImageExplanation):
        title = f"{result.picture.stem}: {result.outcome}"
        units = scales_of(result.provenance)
        return Shown(result.stem, title, result.class_name, units, result.table, image=result)
    if isinstance(result, Comparison):
        first = next(iter(result.attributions.values()))
        target = str(first.provenance["Target"]["class"])
        title = f"{short_name(first.stem)}: {shown_output(target, first.provenance['Probability'])}"
        return Shown(first.stem, title, target, {}, result.table, methods=tuple(result.attributions))
    if isinstance(result, Attribution):
        return _of_attribution(result)
    if isinstance(result, GroupSums):
        return _of_group_map(result)
    if isinstance(result, GroupResult):
        return _of_group(result, kind, group)
    raise GlasError(f"figures are of results of glas3d, got {type(result).__name__}")


def _of_scan(result: ScanExplanation) -> Shown:
    provenance, search = result.provenance, result.provenance["Search"]
    is_in_mni = result.is_in_mni and provenance.get("Transform") is None
    background = template() if is_in_mni else None
    if background is None and result.scan is not None:
        background = nib.Nifti1Image(result.scan.data, result.scan.affine)
    units = scales_of(provenance)
    title = f"{short_name(result.scan.stem if result.scan is not None else result.stem)}: {result.outcome}"
    atlas = Atlas.recorded(search)
    label = score_label(units["score"])
    brain_map = BrainMap(result.saliency_img, title, label, background, is_in_mni)
    table = with_anatomy(result.table, result.is_in_mni)
    scales = {
        scale_name(name, part.provenance["Settings"]): BrainMap(part.saliency_img, title, label, background, is_in_mni)
        for name, part in result.parts.items()
        if "scales" in provenance["Settings"]
    }
    return Shown(result.stem, title, result.class_name, units, table, brain_map, atlas, scales=scales)


def _of_attribution(result: Attribution) -> Shown:
    target = str(result.provenance["Target"]["class"])
    title = f"{short_name(result.stem)}: {result.method}, {shown_output(target, result.provenance['Probability'])}"
    label = f"{result.map_units}, by {result.method}"
    brain_map = None
    if isinstance(result.map, nib.Nifti1Image):
        search = result.provenance["Search"]
        is_in_mni = Atlas.recorded(search) is not None and result.provenance.get("Transform") is None
        brain_map = BrainMap(result.map, title, label, template() if is_in_mni else None, is_in_mni)
    table = result.table.assign(rank=result.table["score"].rank(ascending=False, method="first"))
    return Shown(result.stem, title, target, {"score": label}, table, brain_map)


def _of_group_map(group: GroupSums) -> Shown:
    img, atlas = group.saliency_img(), group.atlas if isinstance(group, GroupMap) else None
    is_in_mni = (atlas is not None and atlas.space == "MNI") or int(img.header["sform_code"]) == MNI_CODE
    title = f"{group.group}, {counted(len(group), 'participant')}: explanation of {group.target}"
    label = score_label(group.units["score"])
    brain_map = BrainMap(img, title, label, template() if is_in_mni else None, is_in_mni)
    return Shown(f"group-{group.group}", title, group.target, group.units, group.table(), brain_map, atlas)


def _of_group(result: GroupResult, kind: str | None, group: str | None) -> Shown:
    shown = shown_in(result.folder.parent)
    if group is not None:
        shown = [each for each in shown if each.stem.startswith(f"group-{group}_")]
        if not shown:
            raise GlasError(f"the study has no group {group!r}, only {', '.join(result.groups)}")
    for each in shown:
        if kind is None or kind in kinds_of(each):
            return each
    has = list(dict.fromkeys(name for each in shown for name in kinds_of(each)))
    raise GlasError(f"these groups have no figure {kind!r}, only {', '.join(has)}")
