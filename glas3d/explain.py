"""`explain_img`: one scan in, maps on its own grid and a ranked table of regions out."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import pandas as pd
import torch

import glas3d
from glas3d.core.glas import GLAS, Explanation, Progress
from glas3d.core.score import Target
from glas3d.core.search import Grid, paint
from glas3d.errors import GlasError, SpaceWarning
from glas3d.imaging.atlas import Atlas, Point
from glas3d.imaging.scan import ImageLike, Scan, load_scan
from glas3d.imaging.space import VoxelGrid, check_space, grid_of, resample, resample_scan, world
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

# The paper's sigmas, 10 and 15 voxels, read on a 2 mm grid. Its sigma_spatial of 6 voxels divides a distance by
# sigma^2, so in mm it is 6 * sqrt(2): 2 d / 72 = d / 36.
PAPER_PRESET = {"sigma_light": 20.0, "sigma_shadow": 30.0, "unit": "mm"}
_SPATIAL_MM = {"euclidean": 6 * 2**0.5, "squared": 12.0}


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
    """

    saliency_img: nib.Nifti1Image
    light_img: nib.Nifti1Image
    shadow_img: nib.Nifti1Image
    table: pd.DataFrame
    explanation: Explanation
    provenance: dict[str, Any]
    stem: str

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
        image, path or array on the grid the model is asked on, in the scan's intensities.
    point
        ``"centroid"`` of a region (the paper's), or ``"medoid"``, its voxel nearest to that.
    assume_space
        ``"MNI"``: the scan is in MNI space, do not check.
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
    chosen = _scale(info, grid, sigma_light, sigma_shadow, sigma_spatial, unit, settings.get("distance", "euclidean"))
    reference, reference_name = _background(background, predict, info, data, grid)
    glas = GLAS(predict, background=reference, progress=progress, **chosen, **settings)
    targets = [target] if isinstance(target, str | int) else list(target)
    where = segments if segments is not None else search
    explanations = glas.explain(data[None], targets, where, spacing=grid.spacing)  # type: ignore[arg-type]
    assert isinstance(explanations, tuple)

    label = f"seg-{atlas.name}" if atlas is not None else f"desc-{'grid' if isinstance(search, Grid) else 'points'}"
    classes = predict.classes if isinstance(predict, Predictor) else None
    results = []
    for explanation in explanations:
        name = classes[explanation.target] if classes else str(explanation.target)
        provenance = {
            "Target": {"index": explanation.target, "class": name},
            "Probability": explanation.probability,
            "Settings": explanation.settings | {"background": reference_name, "point": point},
            "Grid": {"shape": list(grid.shape), "affine": grid.affine.tolist()},
            "Model": {"name": info.name, "sha256": info.sha256},
            "Input": {"name": Path(scan.name).name, "sha256": scan.sha256},
            "Search": _search_record(search, atlas, explanation),
            "SpaceCheck": None if space is None else space.__dict__,
            "GeneratedBy": generated_by(),
        }
        entity = label if len(explanations) == 1 else f"{label}_label-{''.join(c for c in name if c.isalnum())}"
        maps = _maps(explanation, scan, grid, atlas, glas)
        table = _table(explanation, grid, atlas)
        results.append(ScanExplanation(*maps, table, explanation, provenance, f"{scan.stem}_{entity}"))
    return results[0] if isinstance(target, str | int) else tuple(results)


def _scale(
    info: ModelInfo,
    grid: VoxelGrid,
    light: float | Sequence[float] | None,
    shadow: float | Sequence[float] | None,
    spatial: float | Sequence[float] | None,
    unit: str | None,
    distance: str,
) -> dict[str, Any]:
    """Sigmas and unit: those given, filled up from the preset."""
    preset = PAPER_PRESET | dict(info.preset)
    given = {"sigma_light": light, "sigma_shadow": shadow, "sigma_spatial": spatial}
    if unit is None:
        unit = "mm" if all(v is None for v in given.values()) else "voxel"
    per_mm = np.ones(3) if unit == "mm" else 1 / np.array(grid.spacing)
    if preset["unit"] == "voxel":
        per_mm = per_mm * np.array(grid.spacing)
    filled: dict[str, Any] = {"unit": unit}
    for name, value in given.items():
        if value is not None:
            filled[name] = value
        elif name == "sigma_spatial":
            filled[name] = 6.0 if unit == "voxel" else _SPATIAL_MM.get(distance, 12.0)
        else:
            voxels = tuple(float(preset[name] * f) for f in per_mm)
            filled[name] = voxels[0] if len(set(voxels)) == 1 else voxels
    return filled


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
    if isinstance(background, str | os.PathLike | nib.spatialimages.SpatialImage):
        reference = load_scan(background)
        return resample_scan(reference, grid)[None], f"{Path(reference.name).name} sha256:{reference.sha256}"
    if isinstance(background, int | float):
        return background, f"{background:g}"
    return background, "array"


def _maps(
    explanation: Explanation, scan: Scan, grid: VoxelGrid, atlas: Atlas | None, glas: GLAS
) -> tuple[nib.Nifti1Image, nib.Nifti1Image, nib.Nifti1Image]:
    """Maps of score, light and shadow on the scan's own grid."""
    values = np.stack([explanation.score, explanation.light, explanation.shadow])
    own = grid_of(scan)
    if atlas is not None and explanation.segments is not None:
        labels = explanation.segments.labels if own.same_as(grid) else atlas.on(own)
        drawn = paint(labels, explanation.segments.index, values)
    else:
        drawn = glas.spread(explanation.points, values, grid.shape, grid.spacing)
        if not own.same_as(grid):
            drawn = np.stack([resample(nib.Nifti1Image(one, grid.affine), own) for one in drawn])
    score, light, shadow = (scan.like(one) for one in drawn)
    return score, light, shadow


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
    if atlas is not None and explanation.segments is not None:
        found["n_voxels"] = explanation.segments.n_voxels
        table = atlas.table.merge(found, on="index", how="left", validate="one_to_one")
        table["n_voxels"] = table["n_voxels"].fillna(0).astype("int64")
    else:
        width = len(str(len(found)))
        names = [f"point-{i:0{width}d}" for i in index]
        sides = np.where(found["x"] < 0, "L", np.where(found["x"] > 0, "R", "midline"))
        table = found.assign(name=names, hemisphere=sides, n_voxels=1)
    return ranked(table)


def ranked(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its ``rank`` by ``score``, 1 highest, in the contract's columns."""
    rank = table["score"].rank(ascending=False, method="first").astype("Int64")
    return table.assign(rank=rank)[COLUMNS]


def _search_record(search: Any, atlas: Atlas | None, explanation: Explanation) -> dict[str, Any]:
    if atlas is not None and explanation.segments is not None:
        lost = atlas.table.loc[~atlas.table["index"].isin(explanation.segments.index), "name"]
        return {"atlas": atlas.name, "sha256": atlas.sha256, "regions_without_voxels": lost.tolist()}
    if isinstance(search, Grid):
        return {"grid": search.k}
    return {"points": len(explanation.points)}


def generated_by() -> list[dict[str, Any]]:
    """Software and versions, as BIDS wants them."""
    versions = {"torch": torch.__version__, "numpy": np.__version__, "nibabel": nib.__version__}
    return [{"Name": "glas3d", "Version": glas3d.__version__, "Python": platform.python_version(), **versions}]


def write_json(content: dict[str, Any]) -> Callable[[Path], object]:
    """A writer for `write_together`; what JSON cannot say (infinity, NumPy's numbers) becomes text or a number."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(k): plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        if isinstance(value, np.generic):
            value = value.item()
        return str(value) if isinstance(value, float) and not np.isfinite(value) else value

    return lambda path: path.write_text(json.dumps(plain(content), indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_table(table: pd.DataFrame) -> Callable[[Path], object]:
    """A writer for `write_together`: BIDS's tab-separated text, every digit, ``n/a`` for what is missing."""
    return lambda path: table.to_csv(path, sep="\t", index=False, na_rep="n/a", lineterminator="\n")


def write_together(folder: Path, files: dict[str, Callable[[Path], object]]) -> list[Path]:
    """Write several files so that all of them appear, or none.

    Parameters
    ----------
    folder
        Made when it is missing.
    files
        Name, and what writes it to the path it is given.

    Raises
    ------
    GlasError
        The folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as scratch:
            for name, write in files.items():
                write(Path(scratch) / name)
            for name in files:
                os.replace(Path(scratch) / name, folder / name)
    except OSError as error:
        raise GlasError(f"cannot write to {folder}: {error.strerror or error}") from None
    return [folder / name for name in files]
