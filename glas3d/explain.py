"""`explain_img`: one scan in, maps on its own grid and a ranked table of regions out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter

from glas3d.core import saliency
from glas3d.core.glas import GLAS, Explanation, Progress
from glas3d.core.rglas import RGLAS, RecursiveExplanation
from glas3d.core.score import Target
from glas3d.core.search import Grid
from glas3d.errors import GlasError, SpaceWarning
from glas3d.imaging.atlas import Atlas, Point
from glas3d.imaging.maps import Drawing
from glas3d.imaging.scan import ImageLike, Scan, load_scan
from glas3d.imaging.space import VoxelGrid, check_space, grid_of, resample_scan, world
from glas3d.output import bids_label, generated_by, write_json, write_table, write_together
from glas3d.predict import preset
from glas3d.predict.predictor import ModelInfo, Predictor

COLUMNS = [
    "index",
    "name",
    "hemisphere",
    "x",
    "y",
    "z",
    "n_voxels",
    "light",
    "shadow",
    "drop",
    "score",
    "rank",
]
STATISTICS = ("saliency", "light", "shadow")

_BLUR_MM = 10.0


@dataclass(frozen=True, eq=False)
class ScanExplanation:
    """The explanation of one scan for one class.

    Attributes
    ----------
    saliency_img, light_img, shadow_img
        Maps of score, ``f_l`` and ``f_s`` on the scan's own grid, float32.
    table
        One row a region or point, ranked: ``index name hemisphere x y z n_voxels light shadow drop score
        rank``; ``x y z`` in mm, ``n_voxels`` on the grid the model was asked on, rank 1 is highest.
    explanation
        What the core found, on the grid the model was asked on.
    provenance
        Every setting, version and hash, ready for JSON.
    stem
        Start of the files' names.
    round_imgs
        The map of each round of a recursion, normalised to [0, 1]; empty without recursion.
    """

    saliency_img: nib.Nifti1Image
    light_img: nib.Nifti1Image
    shadow_img: nib.Nifti1Image
    table: pd.DataFrame
    explanation: Explanation
    provenance: dict[str, Any]
    stem: str
    round_imgs: tuple[nib.Nifti1Image, ...] = ()

    def __repr__(self) -> str:
        best = self.table.sort_values("rank").iloc[0]
        return f"ScanExplanation({self.stem}: {self.explanation!r}, best {best['name']})"

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write the maps, the table and the sidecars; all of them or none.

        Parameters
        ----------
        folder
            Made when it is missing; files of the same names are replaced.

        Returns
        -------
        The paths written.
        """
        files: dict[str, Callable[[Path], object]] = {}
        for statistic in STATISTICS:
            name = f"{self.stem}_stat-{statistic}_statmap"
            files[f"{name}.nii.gz"] = getattr(self, f"{statistic}_img").to_filename
            files[f"{name}.json"] = write_json({"Statistic": statistic} | self.provenance)
        for number, img in enumerate(self.round_imgs, start=1):
            name = f"{self.stem.removesuffix('recursive')}round{number}_stat-saliency_statmap.nii.gz"
            files[name] = img.to_filename
        files[f"{self.stem}_regions.tsv"] = write_table(self.table)
        return write_together(Path(folder), files)


def explain_img(
    img: ImageLike,
    predict: Predictor | Callable[[torch.Tensor], Any],
    target: Target | Sequence[Target] = 1,
    search: str | Atlas | Grid | np.ndarray | Sequence[Sequence[float]] = "AAL",
    *,
    sigma_light: float | Sequence[float] | None = None,
    sigma_shadow: float | Sequence[float] | None = None,
    sigma_spatial: float | Sequence[float] | None = None,
    unit: Literal["voxel", "mm"] | None = None,
    background: Any = "auto",
    point: Point = "centroid",
    assume_space: str | None = None,
    recursive: bool = False,
    progress: Progress = False,
    **settings: Any,
) -> ScanExplanation | tuple[ScanExplanation, ...]:
    """Explain a model's answer to one scan.

    The model is asked on its own grid when it has one (the scan is resampled to it), else on the scan's,
    in the scan's own axis order. The maps come back on the scan's own grid either way.

    Parameters
    ----------
    img
        Path or nibabel image, one 3D volume, intensities before normalisation.
    predict
        A `Predictor`, or any callable ``(n, 1, x, y, z)`` to ``(n, classes)`` probabilities.
    target
        Class index or name, or a sequence of them: all are answered from the same forwards.
    search
        The name of a shipped atlas, an `Atlas`, a `Grid`, or ``(m, 3)`` voxel coordinates on the grid the
        model is asked on.
    sigma_light, sigma_shadow
        None: what was chosen with the model, else the paper's 20 and 30 mm.
    sigma_spatial
        Of Eq. 3, not used by atlases; None: the paper's 6 voxels (12 mm at its 2 mm).
    unit
        Of the sigmas given; None: voxels.
    background
        What a spot puts in place of tissue. ``"auto"``: the model's reference, else 0; a number; or an
        image, path or array on the grid the model is asked on, in the scan's intensities; ``"blur"``: the scan
        smoothed by a Gaussian of 10 mm, which keeps its brightness and loses its regions.
    point
        ``"centroid"`` of a region (the paper's), or ``"medoid"``, its voxel nearest to that.
    assume_space
        ``"MNI"``: the scan is in MNI space, do not check.
    recursive
        Put out what was found and look again (`RGLAS`): the saliency and the table's scores are those of all
        rounds fused, in [0, 1]; light, shadow and drop are the first round's. For one target.
    progress
        See `GLAS`.
    **settings
        Every other setting of `GLAS`: ``kernel``, ``distance``, ``fusion``, ``gamma``, ``batch_size``.

    Returns
    -------
    A `ScanExplanation`, or a tuple of them when ``target`` is a sequence.

    Raises
    ------
    GlasError
        Input that does not fit; the message says what was required and what came.

    Warns
    -----
    SpaceWarning
        The scan does not look like a brain in the space of the atlas or model.
    GlasWarning
        Regions that own no voxel, by name.
    """
    scan = load_scan(img)
    info = predict.info if isinstance(predict, Predictor) else ModelInfo(name=getattr(predict, "__name__", "callable"))
    if info.channels not in (None, 1):
        raise GlasError(f"the model {info.name} takes {info.channels} input channels, a scan has 1")
    atlas = Atlas.load(search) if isinstance(search, str) else search if isinstance(search, Atlas) else None
    space = None
    if assume_space not in (None, "MNI"):
        raise GlasError(f'assume_space must be "MNI" or None, got {assume_space!r}')
    if assume_space is None and (info.grid is not None or (atlas is not None and atlas.space == "MNI")):
        space = check_space(scan)
        if space.problem is not None:
            message = f"{scan.name} does not look like a brain in MNI space: {space.problem}"
            warnings.warn(message, SpaceWarning, stacklevel=2)
    grid = info.grid or grid_of(scan)
    data = scan.data if grid is not info.grid else resample_scan(scan, grid)
    if not data.any():
        raise GlasError(f"{scan.name} holds no signal on the grid of the model {info.name}, {grid.shape}")
    segments = None if atlas is None else atlas.segments(grid, point)
    given = {"sigma_light": sigma_light, "sigma_shadow": sigma_shadow, "sigma_spatial": sigma_spatial}
    chosen = preset.fill(given, unit, info.preset, grid, settings)
    reference, reference_name = _background(background, predict, info, data, grid)
    glas = GLAS(predict, background=reference, progress=progress, **chosen)
    where = segments if segments is not None else search
    recursion = None
    if recursive:
        recursion = RGLAS(glas).explain(data[None], target, where, grid.spacing)  # type: ignore[arg-type]
        first = recursion.rounds[0].explanation
        explanations: tuple[Explanation, ...] = (replace(first, score=recursion.values, saliency=recursion.saliency),)
    else:
        answer = glas.explain(data[None], target, where, spacing=grid.spacing)  # type: ignore[arg-type]
        explanations = answer if isinstance(answer, tuple) else (answer,)

    shared = {
        "Settings": {"background": reference_name, "point": point},
        "Grid": {"shape": list(grid.shape), "affine": grid.affine.tolist()},
        "Model": {
            "name": info.name,
            "sha256": info.sha256,
            "activation": getattr(predict, "activation", None),
            "classes": getattr(predict, "classes", None),
        },
        "Input": {"name": Path(scan.name).name, "sha256": scan.sha256},
        "Search": _search_record(search, atlas, explanations[0]),
        "SpaceCheck": None if space is None else space.__dict__,
        "GeneratedBy": generated_by(),
    }
    several = len(explanations) > 1
    results = [_result(one, recursion, scan, grid, atlas, search, glas, shared, several) for one in explanations]
    return results[0] if recursive or not isinstance(answer, tuple) else tuple(results)


def _result(
    explanation: Explanation,
    recursion: RecursiveExplanation | None,
    scan: Scan,
    grid: VoxelGrid,
    atlas: Atlas | None,
    search: object,
    glas: GLAS,
    shared: Mapping[str, Any],
    several: bool,
) -> ScanExplanation:
    """Maps on the scan's own grid, table and provenance of one class."""
    target, classes = explanation.target, shared["Model"]["classes"]
    provenance = {
        **shared,
        "Target": {"index": target, "class": classes[target] if classes else str(target)},
        "Probability": explanation.probability,
        "Settings": explanation.settings | shared["Settings"],
    }
    drawing = Drawing(scan, grid, atlas, explanation.segments)
    values = np.stack([explanation.light, explanation.shadow])
    if explanation.segments is None:
        volumes = glas.spread(explanation.points, values, grid.shape, grid.spacing)
        score, light, shadow = (drawing.volume(one) for one in (explanation.saliency, *volumes))
    else:
        score, light, shadow = (drawing.segments(one) for one in (explanation.score, *values))
    rounds: list[nib.Nifti1Image] = []
    if recursion is not None:
        provenance["Recursion"] = _recursion_record(recursion, explanation, atlas)
        for one in recursion.rounds:
            if explanation.segments is None:
                rounds.append(drawing.volume(one.saliency))
            else:
                rounds.append(drawing.segments(saliency.minmax(one.explanation.score), one.points))
    stem = f"{scan.stem}_{_label(explanation, atlas, search, recursion is not None)}"
    if several:
        stem = f"{stem}_label-{_entity(target, classes)}"
    table = _table(explanation, grid, atlas)
    return ScanExplanation(score, light, shadow, table, explanation, provenance, stem, tuple(rounds))


def _label(explanation: Explanation, atlas: Atlas | None, search: object, recursive: bool) -> str:
    """The entity that tells how it was searched, such as ``seg-AAL`` or ``desc-grid``."""
    if atlas is not None:
        return f"seg-{atlas.name}" + ("_desc-recursive" if recursive else "")
    kind = "grid" if isinstance(search, Grid) else "points" if explanation.segments is None else "segments"
    return f"desc-{kind}" + ("recursive" if recursive else "")


def _entity(target: int, classes: Sequence[str] | None) -> str:
    """A BIDS label of a class, alphanumeric and its own: the name where that will do, else the index."""
    names = [bids_label(name) for name in classes or ()]
    if not all(names) or len(set(names)) < len(names):  # indices for all, or an index could be another's name
        names = []
    return names[target] if names else f"class{target}"


def _background(
    background: Any, predict: object, info: ModelInfo, data: np.ndarray, grid: VoxelGrid
) -> tuple[Any, str]:
    """The background in the scan's units, and what the sidecar calls it."""
    if isinstance(background, str) and background == "auto":
        if info.reference is None:
            return 0.0, "0"
        bound = predict.fit(torch.as_tensor(data[None])) if isinstance(predict, Predictor) else predict
        to_scan_units = getattr(getattr(bound, "transform", None), "to_scan_units", lambda values: values)
        return to_scan_units(info.reference), f"reference of {info.name}"
    if isinstance(background, str) and background == "blur":
        blurred = gaussian_filter(data, [_BLUR_MM / size for size in grid.spacing])
        return blurred, f"the scan blurred by {_BLUR_MM:g} mm"
    if isinstance(background, str | os.PathLike | nib.spatialimages.SpatialImage):
        reference = load_scan(background, constant=True)
        return resample_scan(reference, grid)[None], f"{Path(reference.name).name} sha256:{reference.sha256}"
    if isinstance(background, int | float):
        return background, f"{background:g}"
    return background, "array"


def _recursion_record(recursion: RecursiveExplanation, explanation: Explanation, atlas: Atlas | None) -> dict[str, Any]:
    """Every round and why it ended, for the sidecar."""

    def names(which: np.ndarray) -> list[Any]:
        if atlas is None or explanation.segments is None:
            return list(explanation.points[which].tolist())
        named = atlas.table.set_index("index")["name"]
        return [str(named[i]) for i in explanation.segments.index[which]]

    rounds = [
        {
            "probability_before": one.explanation.probability,
            "probability_after": one.probability,
            "measure": one.measure,
            "kept": one.kept,
            "removed": names(one.removed),
        }
        for one in recursion.rounds
    ]
    return {"ended": recursion.reason, "rounds": rounds}


def _table(explanation: Explanation, grid: VoxelGrid, atlas: Atlas | None) -> pd.DataFrame:
    """One row a region or point; regions without a voxel keep their row, without values."""
    place = world(explanation.points, grid.affine)
    index = np.arange(1, len(place) + 1) if explanation.segments is None else explanation.segments.index
    found = pd.DataFrame(place, columns=["x", "y", "z"]).assign(
        index=index,
        light=explanation.light,
        shadow=explanation.shadow,
        drop=explanation.drop,
        score=explanation.score,
    )
    kind = "point" if explanation.segments is None else "segment"
    found["n_voxels"] = 1 if explanation.segments is None else explanation.segments.n_voxels
    if atlas is not None:
        table = atlas.table.merge(found, on="index", how="left", validate="one_to_one")
        table["n_voxels"] = table["n_voxels"].fillna(0).astype("int64")
    else:
        width = len(str(index.max()))
        names = [f"{kind}-{i:0{width}d}" for i in index]
        sides = np.where(found["x"] < 0, "L", np.where(found["x"] > 0, "R", "midline"))
        table = found.assign(name=names, hemisphere=sides)
    return ranked(table)


def ranked(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its ``rank`` by ``score``, 1 highest, in the contract's columns."""
    rank = table["score"].rank(ascending=False, method="first").astype("Int64")
    return table.assign(rank=rank)[COLUMNS]


def _search_record(search: Any, atlas: Atlas | None, explanation: Explanation) -> dict[str, Any]:
    if atlas is not None:
        assert explanation.segments is not None
        lost = atlas.table.loc[~atlas.table["index"].isin(explanation.segments.index), "name"]
        return {"atlas": atlas.name, "sha256": atlas.sha256, "regions_without_voxels": lost.tolist()}
    if isinstance(search, Grid):
        return {"grid": search.k}
    return {"points" if explanation.segments is None else "segments": len(explanation.points)}
