"""Scans become the channels of one grid, and backgrounds become the reference that replaces tissue."""

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
from torch import nn

from glas3d.bids_names import have_distinct_labels
from glas3d.core.model import HasActivation, HasClasses
from glas3d.counts import counted
from glas3d.errors import GlasError
from glas3d.imaging.brain_extraction import brain_mask_of, is_automatic
from glas3d.imaging.matching import can_match, match_reference
from glas3d.imaging.registration import template_brain_in_native, without_skull
from glas3d.imaging.scan import ImageLike, Scan, load_scan
from glas3d.imaging.space import VoxelGrid, grid_of, mni_grid, resample_scan
from glas3d.imaging.spatial_transform import SpatialTransform
from glas3d.predict import ModelInfo, Predictor, Standardisation
from glas3d.predict.engine.fingerprint import weights_digest
from glas3d.predict.interface import Invertible

_BLUR_MM = 10.0
# Backgrounds by their words: the model's reference as it is, and matched to the scan.
OWN, MATCHED = "reference", "matched"
TEMPLATE_MM = 2.0  # voxel size of the grid for a model without one, when scans are brought to the template

Images = ImageLike | Sequence[ImageLike] | Mapping[str, ImageLike]


@dataclass(frozen=True, eq=False)
class Inputs:
    """The scans of one participant as the model sees them: its channels, on one grid.

    Attributes
    ----------
    scans
        One scan for each channel, as recorded; maps are mapped back to the grid of the first.
    names
        Names of the channels.
    grid
        The model's grid, where it has one, else that of the first scan.
    data
        ``(c, *grid.shape)`` float32, intensities before normalisation.
    transform
        The transform between the scans' native space and the template's; None: the scans are in the template's space.
    brain_mask
        Name and hash of the image outside of which the model sees nothing, or library, version and hash of a mask
        that was made; None: neither.
    """

    scans: tuple[Scan, ...]
    names: tuple[str, ...]
    grid: VoxelGrid
    data: np.ndarray
    transform: SpatialTransform | None = None
    brain_mask: dict[str, Any] | None = None

    @property
    def scan(self) -> Scan:
        """The first scan, whose grid the maps are on."""
        return self.scans[0]

    @classmethod
    def read(
        cls,
        img: Images,
        info: ModelInfo,
        transform_of: Callable[[Scan], SpatialTransform] | None = None,
        *,
        brain_mask: ImageLike | None = None,
        strip: bool = False,
    ) -> Inputs:
        """Read every scan and resample it to the model's grid.

        Parameters
        ----------
        img
            One scan, a sequence of them, or a mapping from names of channels, which are brought to the order that the
            model states.
        info
            The model's grid and number of channels.
        transform_of
            Returns the transform of the first scan to the template; the others share it. None: no transform.
        brain_mask
            Keep what is inside this image, in the first scan's space; ``"auto"``: the brain that deepbet finds in it.
        strip
            Keep the brain alone: without a mask, inside the template's brain mapped to the scan.

        Raises
        ------
        GlasError
            Another number of scans than the model has channels, a scan without signal on the grid, or a mask that
            does not overlap it.
        """
        names, images = _named_images(img)
        if info.channels is not None and info.channels != len(images):
            received = "a scan has 1" if len(images) == 1 else f"got {len(images)} scans"
            which = f" ({', '.join(info.channel_names)})" if info.channel_names else ""
            takes = counted(info.channels, "input channel", "input channels")
            raise GlasError(f"the model {info.name} takes {takes}{which}, {received}")
        if info.channel_names and isinstance(img, Mapping):
            if set(names) != set(info.channel_names):
                wanted = ", ".join(info.channel_names)
                raise GlasError(f"the model {info.name} takes the channels {wanted}, got {', '.join(names)}")
            names, images = info.channel_names, [img[name] for name in info.channel_names]
        scans = tuple(load_scan(image) for image in images)
        mask, mask_record = None, None
        if is_automatic(brain_mask):
            mask, mask_record = brain_mask_of(scans[0])
        elif brain_mask is not None:
            mask = load_scan(brain_mask, constant=True)
            mask_record = file_record(mask)
        shown = scans if mask is None else tuple(without_skull(scan, mask) for scan in scans)
        if transform_of is None:
            transform, grid = None, info.grid_for(grid_of(scans[0]))
            own = grid_of(scans[0])  # a scan of another grid is brought to the same one
            data = np.stack([info.resampled(s) if grid_of(s).same_as(own) else resample_scan(s, grid) for s in shown])
        else:
            transform, grid = transform_of(scans[0]), info.grid_for(mni_grid(TEMPLATE_MM))
            if strip and mask is None:
                brain = template_brain_in_native(scans[0], transform)
                shown = tuple(without_skull(scan, brain) for scan in scans)
            data = np.stack([transform.to_template(scan, grid).data for scan in shown])
        for scan, channel in zip(scans, data, strict=True):
            if not channel.any():
                grid_owner = f"the model {info.name}" if info.grid is not None else scans[0].name
                raise GlasError(f"{scan.name} holds no signal on the grid of {grid_owner}, {grid.shape}")
        return cls(scans, names, grid, data, transform, mask_record)

    def record(self) -> dict[str, Any]:
        """Return names and hashes of the files, for the sidecar."""
        files = [file_record(scan) for scan in self.scans]
        return files[0] if len(files) == 1 else {"channels": dict(zip(self.names, files, strict=True))}


def _named_images(img: Images) -> tuple[tuple[str, ...], list[ImageLike]]:
    """Return the names of the channels and their images."""
    if isinstance(img, Mapping):
        names, images = tuple(map(str, img)), list(img.values())
    elif isinstance(img, list | tuple):
        names, images = tuple(f"channel{i}" for i in range(len(img))), list(img)
    else:
        names, images = ("channel0",), [img]  # type: ignore[list-item]
    if not images:
        raise GlasError("there must be at least one scan, got an empty sequence")
    if not have_distinct_labels(names):
        raise GlasError(f"every channel needs a name of letters and digits of its own, got {', '.join(names)}")
    return names, images


def file_record(scan: Scan) -> dict[str, Any]:
    """Return the name and the hash of a scan's file, for sidecars."""
    return {"name": Path(scan.name).name, "sha256": scan.sha256}


def model_record(predict: object, info: ModelInfo) -> dict[str, Any]:
    """Return what sidecars record of the model; of a torch network made in Python also the hash of its weights."""
    network = predict.net if isinstance(predict, Predictor) and info.sha256 is None else None
    return {
        "name": info.name,
        "sha256": info.sha256,
        **({"weights_sha256": weights_digest(network)} if isinstance(network, nn.Module) else {}),
        "activation": predict.activation if isinstance(predict, HasActivation) else None,
        "classes": predict.classes if isinstance(predict, HasClasses) else None,
        **({"preprocessing": list(info.preprocessing)} if info.preprocessing else {}),
    }


_MATCHED_TO_SCAN = ", matched to the scan"


def matched_name(reference: str) -> str:
    """Return the name in sidecars of a reference that was matched to a scan."""
    return f"{reference}{_MATCHED_TO_SCAN}"


def is_matched(name: str) -> bool:
    """Return whether a reference of this name was matched to a scan."""
    return name.endswith(_MATCHED_TO_SCAN)


@dataclass(frozen=True, eq=False)
class Reference:
    """What replaces tissue where a mask removes it.

    Attributes
    ----------
    value
        A number, or ``(c, *spatial)``, in the scans' units.
    name
        Its name in sidecars.
    """

    value: Any
    name: str

    @classmethod
    def of_model(cls, predict: object, info: ModelInfo, data: np.ndarray) -> Reference:
        """Return the model's own reference in the units of ``data``, ``(c, *spatial)``; darkness where it has none.

        Darkness is 0; for a model that subtracts the intensity of air, it is that of the scan's air.
        """
        if info.reference is None:
            own = predict.transform if isinstance(predict, Predictor) else None
            air = own.fit(torch.as_tensor(data)).air if isinstance(own, Standardisation) else 0.0
            return cls(air, f"{air:g}")
        fitted = predict.fit(torch.as_tensor(data)) if isinstance(predict, Predictor) else predict
        transform = fitted.transform if isinstance(fitted, Predictor) else None
        reference = transform.to_scan_units(info.reference) if isinstance(transform, Invertible) else info.reference
        return cls(reference, f"reference of {info.name}")


@dataclass(frozen=True, eq=False)
class References:
    """What may replace the tissue of one participant's scans.

    Attributes
    ----------
    predict, info
        The model, which may have a reference of its own.
    inputs
        The scans.
    labels
        ``(*spatial)``, the region of each voxel; None: no regions are searched.
    by_region
        Whether masks have the shape of the regions, whose own reference is then a matched one.
    """

    predict: object
    info: ModelInfo
    inputs: Inputs
    labels: np.ndarray | None = None
    by_region: bool = False

    def resolve(self, background: Any, several: bool) -> dict[str, Reference]:
        """Return the references by their names; the name of a single reference is empty.

        Parameters
        ----------
        background
            The option ``background`` of `explain_img`.
        several
            Whether ``background`` holds several references.

        Raises
        ------
        GlasError
            Fewer than two references in a collection, names that are not different BIDS labels, or an image that does
            not fit.
        """
        if not several:
            return {"": self.of(background)}
        named = dict(background) if isinstance(background, Mapping) else {}
        if not named:
            for number, value in enumerate(background):
                is_own_name = isinstance(value, str | int | float) and not os.path.exists(str(value))
                name = (
                    f"{value:g}" if isinstance(value, int | float) else value if is_own_name else f"reference{number}"
                )
                named[name] = value
        if len(named) < 2:
            raise GlasError(f"several backgrounds must be two or more, each its own, got {list(named)}")
        if not have_distinct_labels(list(named)):
            raise GlasError(f"every background needs a name of letters and digits of its own, got {', '.join(named)}")
        return {name: self.of(value) for name, value in named.items()}

    def of(self, background: Any) -> Reference:
        """Return the reference for one background of `explain_img`."""
        grid, data = self.inputs.grid, self.inputs.data
        if isinstance(background, str) and background in ("auto", OWN, MATCHED):
            return self._of_model(background)
        if isinstance(background, str) and background == "blur":
            sigma = [0.0, *(_BLUR_MM / size for size in grid.spacing)]
            return Reference(gaussian_filter(data, sigma), f"the scan blurred by {_BLUR_MM:g} mm")
        if isinstance(background, str | os.PathLike | SpatialImage):
            if len(data) > 1:
                raise GlasError(
                    f"a background image is one channel, the model takes {len(data)}: "
                    "give an array (c, *spatial) on the model's grid"
                )
            if not isinstance(background, SpatialImage) and not Path(background).exists():
                raise GlasError(
                    "background must be auto, matched, reference, blur, a number or an existing image, "
                    f"no such file: {background}"
                )
            scan = load_scan(background, constant=True)
            return Reference(resample_scan(scan, grid)[None], f"{Path(scan.name).name} sha256:{scan.sha256}")
        if isinstance(background, int | float):
            return Reference(background, f"{background:g}")
        return Reference(background, "array")

    def _of_model(self, background: str) -> Reference:
        """Return the model's own reference, as it is or matched to each channel of the scan (`match_reference`).

        Raises
        ------
        GlasError
            The background names the reference of a model that has none; or a matched one where no regions are
            searched, or intensities are negative.
        """
        data, has_own = self.inputs.data, self.info.reference is not None
        own = Reference.of_model(self.predict, self.info, data)
        if background == "auto" and not (self.by_region and has_own):
            return own
        if not has_own:
            raise GlasError(f'background="{background}" takes the reference of the model, {self.info.name} has none')
        if background == OWN:
            return own
        if self.labels is None:
            raise GlasError(
                f'background="{MATCHED}" scales each region by what surrounds it: search an '
                f'atlas, or give background="{OWN}"'
            )
        means = np.broadcast_to(np.asarray(own.value, np.float32), data.shape)
        if not can_match(means, data):
            if background == "auto":
                return own
            raise GlasError(
                f'background="{MATCHED}" takes the ratio of intensities, {self.inputs.scan.name} or the {own.name} has '
                f'negative ones: give background="{OWN}"'
            )
        value = np.stack([
            match_reference(mean, channel, self.inputs.grid, self.labels)
            for mean, channel in zip(means, data, strict=True)
        ])  # fmt: skip
        return Reference(value, matched_name(own.name))
