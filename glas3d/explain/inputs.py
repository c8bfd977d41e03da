"""Scans to the channels of one grid, and what a spot puts in their place."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nibabel.spatialimages import SpatialImage
from scipy.ndimage import gaussian_filter

from glas3d.errors import GlasError
from glas3d.imaging.registration import template_brain_home, without_skull
from glas3d.imaging.scan import ImageLike, Scan, load_scan
from glas3d.imaging.space import VoxelGrid, grid_of, mni_grid, resample_scan
from glas3d.imaging.transform import Transform
from glas3d.output import have_labels
from glas3d.predict.predictor import ModelInfo, Predictor

_BLUR_MM = 10.0
TEMPLATE_MM = 2.0  # of the grid a model without one is asked on, when scans are brought to the template

Images = ImageLike | Sequence[ImageLike] | Mapping[str, ImageLike]


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a model is asked about: the channels of one participant on one grid.

    Attributes
    ----------
    scans
        One a channel, as they were recorded; maps go home to the first.
    names
        Of the channels.
    grid
        The model's, where it has one, else the first scan's.
    data
        ``(c, *grid.shape)`` float32, intensities before normalisation.
    transform
        Between the scans' native space and the template, where the grid is the template's; None: they are one.
    brain_mask
        Name and hash of the image outside of which the model sees nothing; None: no image was given.
    """

    scans: tuple[Scan, ...]
    names: tuple[str, ...]
    grid: VoxelGrid
    data: np.ndarray
    transform: Transform | None = None
    brain_mask: dict[str, Any] | None = None

    @property
    def scan(self) -> Scan:
        """The scan whose grid is home."""
        return self.scans[0]

    @classmethod
    def read(
        cls,
        img: Images,
        info: ModelInfo,
        bring: Callable[[Scan], Transform] | None = None,
        *,
        brain_mask: ImageLike | None = None,
        strip: bool = False,
    ) -> Inputs:
        """Read every scan and bring it to the model's grid.

        Parameters
        ----------
        bring
            From the first scan's native space to the template; the others share it.
        brain_mask
            Keep what is inside, in the first scan's space.
        strip
            Keep the brain alone, without a mask by the template's brain brought home.

        Raises
        ------
        GlasError
            As many scans as the model has no channels, one without signal on the grid, or a mask that is elsewhere.
        """
        if isinstance(img, Mapping):
            names, images = tuple(map(str, img)), list(img.values())
        elif isinstance(img, list | tuple):
            names, images = tuple(f"channel{i}" for i in range(len(img))), list(img)
        else:
            names, images = ("channel0",), [img]  # type: ignore[list-item]
        if not images:
            raise GlasError("there must be at least one scan, got an empty sequence")
        if not have_labels(names):
            raise GlasError(f"every channel needs a name of letters and digits of its own, got {', '.join(names)}")
        if info.channels not in (None, len(images)):
            came = "a scan has 1" if len(images) == 1 else f"got {len(images)} scans"
            raise GlasError(f"the model {info.name} takes {info.channels} input channels, {came}")
        scans = tuple(load_scan(one) for one in images)
        given = None if brain_mask is None else load_scan(brain_mask, constant=True)
        shown = scans if given is None else tuple(without_skull(scan, given) for scan in scans)
        if bring is None:
            transform, grid = None, info.grid or grid_of(scans[0])
            data = np.stack([resample_scan(scan, grid) for scan in shown])
        else:
            transform, grid = bring(scans[0]), info.grid or mni_grid(TEMPLATE_MM)
            if strip and given is None:
                mask = template_brain_home(scans[0], transform)
                shown = tuple(without_skull(scan, mask) for scan in scans)
            data = np.stack([transform.to_template(scan, grid).data for scan in shown])
        for scan, channel in zip(scans, data, strict=True):
            if not channel.any():
                of = f"the model {info.name}" if info.grid is not None else scans[0].name
                raise GlasError(f"{scan.name} holds no signal on the grid of {of}, {grid.shape}")
        return cls(scans, names, grid, data, transform, None if given is None else _file_record(given))

    def record(self) -> dict[str, Any]:
        """Names and hashes for the sidecar."""
        files = [_file_record(scan) for scan in self.scans]
        return files[0] if len(files) == 1 else {"channels": dict(zip(self.names, files, strict=True))}


def _file_record(scan: Scan) -> dict[str, Any]:
    return {"name": Path(scan.name).name, "sha256": scan.sha256}


def model_record(predict: object, info: ModelInfo) -> dict[str, Any]:
    """The model for the sidecar."""
    return {
        "name": info.name,
        "sha256": info.sha256,
        "activation": getattr(predict, "activation", None),
        "classes": getattr(predict, "classes", None),
    }


@dataclass(frozen=True, eq=False)
class Reference:
    """What a spot puts in place of tissue.

    Attributes
    ----------
    value
        A number or ``(c, *spatial)``, in the scans' units.
    name
        What the sidecar calls it.
    """

    value: Any
    name: str

    @classmethod
    def of(cls, background: Any, predict: object, info: ModelInfo, inputs: Inputs) -> Reference:
        """From what `explain_img` takes for one background."""
        grid, data = inputs.grid, inputs.data
        if isinstance(background, str) and background == "auto":
            return cls.of_model(predict, info, data)
        if isinstance(background, str) and background == "blur":
            sigma = [0.0, *(_BLUR_MM / size for size in grid.spacing)]
            return cls(gaussian_filter(data, sigma), f"the scan blurred by {_BLUR_MM:g} mm")
        if isinstance(background, str | os.PathLike | SpatialImage):
            if len(data) > 1:
                raise GlasError(
                    f"a background image is one channel, the model takes {len(data)}: "
                    "give an array (c, *spatial) on the grid the model is asked on"
                )
            scan = load_scan(background, constant=True)
            return cls(resample_scan(scan, grid)[None], f"{Path(scan.name).name} sha256:{scan.sha256}")
        if isinstance(background, int | float):
            return cls(background, f"{background:g}")
        return cls(background, "array")

    @classmethod
    def of_model(cls, predict: object, info: ModelInfo, data: np.ndarray) -> Reference:
        """The model's own, in the units of ``data`` ``(c, *spatial)``; 0 where it brings none."""
        if info.reference is None:
            return cls(0.0, "0")
        bound = predict.fit(torch.as_tensor(data)) if isinstance(predict, Predictor) else predict
        to_own_units = getattr(getattr(bound, "transform", None), "to_scan_units", lambda values: values)
        return cls(to_own_units(info.reference), f"reference of {info.name}")

    @classmethod
    def several(cls, backgrounds: Any, predict: object, info: ModelInfo, inputs: Inputs) -> dict[str, Reference]:
        """From a sequence of backgrounds, or one a name.

        Raises
        ------
        GlasError
            Fewer than two, or names that are not their own as BIDS labels.
        """
        named = dict(backgrounds) if isinstance(backgrounds, Mapping) else {}
        if not named:
            for number, one in enumerate(backgrounds):
                plain = isinstance(one, str | int | float) and not os.path.exists(str(one))
                named[f"{one:g}" if isinstance(one, int | float) else one if plain else f"reference{number}"] = one
        if len(named) < 2:
            raise GlasError(f"several backgrounds must be two or more, each its own, got {list(named)}")
        if not have_labels(list(named)):
            raise GlasError(f"every background needs a name of letters and digits of its own, got {', '.join(named)}")
        return {name: cls.of(one, predict, info, inputs) for name, one in named.items()}
