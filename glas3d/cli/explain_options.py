"""Options that explaining one scan and everyone of a study share: where to look, and how a model is asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from glas3d.cli.parameters import FLAG, SEVERAL, class_of, named, number
from glas3d.errors import GlasError

_RECURSION = ("threshold", "stop", "max_iterations", "floor")
_AS_GIVEN = (
    "sigma_light",
    "sigma_shadow",
    "sigma_spatial",
    "unit",
    "kernel",
    "distance",
    "fusion",
    "gamma",
    "refine",
    "cut",
    "point",
)
_FILES = {"mask": "mask_img", "brain_mask": "brain_mask", "transform": "transform", "inverse": "inverse"}


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How a model is asked.

    Parameters
    ----------
    atlas
        A shipped atlas (default: AAL), or the path of a label image, or of 4D probabilities, with its .tsv table
        beside it.
    atlas_space
        The space of such an image; unless it is said, that of the scan.
    grid
        Look at the centres of K cells an axis (one number, or three) instead of an atlas.
    coordinates
        Look at places: tab-separated text with the columns x y z in mm, and perhaps name.
    mask
        Look only inside this image, in the scan's space.
    brain_mask
        Show the model only what is inside this image, in the scan's space; default: all, or with --register the brain.
    versus
        A second class: what speaks for the target over it.
    sigma_light
        Standard deviation of the light; default: chosen with the model, else 20 mm.
    sigma_shadow
        Standard deviation of the shadow; default: chosen with the model, else 30 mm.
    sigma_spatial
        Reach of a grid point in the map.
    unit
        Of the sigmas given; default: voxel.
    kernel
        Shape of the spot; default: chosen with the model, else gaussian.
    distance
        D of Eq. 3, for grids; default: euclidean.
    fusion
        Light times shadow, or one of them alone; default: product.
    gamma
        Added to the shadow score; default: 1e-5.
    background
        What replaces tissue: auto (default: the model's reference, else 0), a number, blur, or an image. Several:
        what they agree on, and each one's own.
    scales
        Factors on both sigmas, such as 0.5 1 2: all together, and each one's own maps.
    refine
        Ask this share of the forwards, such as 0.25 of a grid's or 0.5 of an atlas's, where it matters, and estimate
        the other points.
    cut
        Take a spot to end so many sigmas from its middle, such as 5.5, and recompute only what it then changes, where
        that is right and faster; 7 cuts nothing off. Default: every forward is whole.
    covariate_reference
        What replaces each of the numbers the model takes beside the scan, as name=value.
    point
        Where a region is looked at; default: centroid.
    recursive
        Put out what was found and look again, for several pieces of evidence; the map of every round is kept.
        With two classes the paper's rule may go on after the evidence is gone: see --floor.
    threshold
        A recursion removes what is above this share of a round's highest; default: 0.8.
    stop
        A recursion ends when the mean map over the probability, its root taken, is above this; default: 5.
    max_iterations
        Most rounds of a recursion; default: 10.
    floor
        End the recursion once the probability has fallen to this, such as 0.5.
    transform
        The scan is in its native space, and this brings it to the template; maps come home. A 4 x 4 matrix as text
        (native to template, mm), or ITK or ANTs files in the order of antsApplyTransforms.
    inverse
        The way home of each warp, where its file does not lie beside it.
    register
        The scan is a raw T1 in its native space: find the way to the template, show the model the brain alone, and
        bring the maps home. Needs antspyx: pip install "glas3d[register]".
    assume_space
        The scan is in this space: do not check.
    """

    atlas: str | None = None
    atlas_space: Literal["MNI"] | None = None
    grid: Annotated[tuple[float, ...], SEVERAL] = ()
    coordinates: Path | None = None
    mask: Path | None = None
    brain_mask: Path | None = None
    versus: str | None = None
    sigma_light: float | None = None
    sigma_shadow: float | None = None
    sigma_spatial: float | None = None
    unit: Literal["mm", "voxel"] | None = None
    kernel: Literal["gaussian", "exponential", "ellipsoid", "segment"] | None = None
    distance: Literal["euclidean", "squared"] | None = None
    fusion: Literal["product", "light", "shadow"] | None = None
    gamma: float | None = None
    background: Annotated[tuple[str, ...], SEVERAL] = ()
    scales: Annotated[tuple[float, ...], SEVERAL] = ()
    refine: float | None = None
    cut: float | None = None
    covariate_reference: Annotated[tuple[str, ...], SEVERAL] = ()
    point: Literal["centroid", "medoid"] | None = None
    recursive: Annotated[bool, FLAG] = False
    threshold: float | None = None
    stop: float | None = None
    max_iterations: int | None = None
    floor: float | None = None
    transform: Annotated[tuple[Path, ...], SEVERAL] = ()
    inverse: Annotated[tuple[Path, ...], SEVERAL] = ()
    register: Literal["affine", "SyN"] | None = None
    assume_space: Literal["MNI"] | None = None

    @property
    def native(self) -> bool:
        """Whether scans are brought to the template."""
        return bool(self.transform) or self.register is not None

    def where(self, supervoxels: int | None = None) -> Any:
        """The one place to look: a `Grid`, the path of a table of places, or the name or path of an atlas.

        Parameters
        ----------
        supervoxels
            How many of a scan's own are looked at instead.
        """
        from glas3d.core.search import Grid

        ways = {
            "--atlas": self.atlas,
            "--grid": " ".join(f"{k:g}" for k in self.grid),
            "--coordinates": self.coordinates,
            "--supervoxels": supervoxels,
        }
        chosen = [f"{name} {value}" for name, value in ways.items() if value]
        if len(chosen) > 1:
            raise GlasError(f"look at an atlas, a grid, places or supervoxels, got {' and '.join(chosen)}")
        if self.grid:
            return Grid(self.grid)  # type: ignore[arg-type]  # refuses fractions
        return self.coordinates or self.atlas or "AAL"

    def settings(self) -> dict[str, Any]:
        """Of `explain_img`, as far as they were given; ``inverse`` is that of `load_transform`."""
        recursion = {name: value for name in _RECURSION if (value := getattr(self, name)) is not None}
        if recursion and not self.recursive:
            option = f"--{next(iter(recursion)).replace('_', '-')}"
            raise GlasError(f"{option} {'ends' if 'floor' in recursion else 'is of'} a recursion: say --recursive too")
        if self.inverse and not self.transform:
            raise GlasError("--inverse is the way home of a --transform: give that too")
        backgrounds = [number(one) for one in self.background]
        found = {
            **{name: getattr(self, name) for name in _AS_GIVEN},
            **{setting: getattr(self, name) or None for name, setting in _FILES.items()},
            "versus": None if self.versus is None else class_of(self.versus),
            "background": backgrounds[0] if len(backgrounds) == 1 else backgrounds or None,
            "scales": self.scales or None,
            "covariate_reference": named(self.covariate_reference, "--covariate-reference"),
            "recursive": (recursion or True) if self.recursive else None,
            "register": self.register,
        }
        return {name: value for name, value in found.items() if value is not None}
