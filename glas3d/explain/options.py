"""The options of `explain_img` and `explain_image`: each is declared here, and only here.

The settings of the method itself are declared in `glas3d.core.settings`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from glas3d.core.settings import MASKS, RECURSION, SCORE, SPEED, Point, Settings
from glas3d.errors import GlasError
from glas3d.options import option, optional

INPUT, SEARCH, REFERENCE, NATIVE = "Input", "Where to look", "Reference", "Native space"
COVARIATES = "Covariates"

Preset = Literal["paper", "evidence"]
Overlap = Literal["ridge", "nonnegative"]

# A setting that is not given (None) comes from a preset or the model's bundle (glas3d.explain.preset).
UnsetSettings: Any = optional(Settings, "UnsetSettings")


@dataclass(frozen=True, kw_only=True)
class ModeOptions:
    """The options that choose a mode: how the model is evaluated. At most one of them is given, besides a preset.

    Parameters
    ----------
    preset
        Settings by one word, for those that are not given: ``paper`` (the equations and sigmas of the paper), or
        ``evidence`` (signed evidence in log-odds, by masks of the regions' own shape; on points or a grid by round
        masks). Default: paper if you give a sigma, kernel, fusion or link; else the settings that were chosen with the
        model; else evidence for a scan, which follows models and says for or against the target (documentation: "Which
        methods follow the model?"), and paper for an image.
    versus
        A second class, by its name or its index from 0: the score is the evidence for the target over this class, with
        its sign, and both classes' own maps are kept too. Default: none.
    recursive
        Mask out the evidence of each round and evaluate again, to find several pieces of evidence (Algorithm 1). The
        saliency and the scores are those of all rounds fused, in [0, 1]; light, shadow and drop are those of the first
        round, and the map of every round is kept. For one target. In Python a mapping holds settings of `RGLAS`: with
        ``{"floor": 0.5}`` the recursion ends once two classes are equally likely. Default: one round.
    scales
        Factors on ``sigma_light`` and ``sigma_shadow``, such as 0.5 1 2: the result joins all scales, the maps of every
        scale are kept too, and the table names the scale of each region or point. Default: one scale.
    refine
        Spend only this share of the model evaluations, such as 0.25 for a grid or 0.4 for an atlas, where they matter.
        With masks of the regions' own shape (preset evidence), neighbouring regions are masked together, and the groups
        that do most are divided. With round masks, points whose score is large or may be, for the target or against
        it, are evaluated, and the others are estimated. The table says what was evaluated by itself. For one target.
        In Python a mapping holds settings of `CoarseToFine`. Default: evaluate every point.
    overlap
        Undo the overlap of round masks with the regions around theirs, by a regression of the evidence on what the
        masks cover of each region: ``ridge``, or ``nonnegative`` for evidence that is for the target alone. Needs an
        atlas and ``fusion`` mean. Default: do not.
    channels
        For a model of several input channels: ``together`` masks all channels, ``each`` also masks each channel alone.
        Default: together.

    Raises
    ------
    GlasError
        A value that is none of the choices.
    """

    preset: Preset | None = option(None, group=SCORE)
    versus: int | str | None = option(None, group=SCORE, command=str)
    recursive: bool | Mapping[str, Any] = option(False, group=RECURSION, command=bool)
    scales: Sequence[float] | None = option(None, group=MASKS, command=tuple[float, ...])
    refine: float | Mapping[str, Any] | None = option(None, group=SPEED, command=float)
    overlap: Overlap | None = option(None, group=SCORE)
    channels: Literal["together", "each"] = option("together", group=SCORE)

    def __post_init__(self) -> None:
        if self.preset not in (None, *get_args(Preset)):
            raise GlasError(f"preset must be one of {', '.join(get_args(Preset))}, got {self.preset!r}")
        if self.overlap not in (None, *get_args(Overlap)):
            raise GlasError(f"overlap must be one of {', '.join(get_args(Overlap))}, got {self.overlap!r}")
        if self.channels not in ("together", "each"):
            raise GlasError(f'channels must be "together" or "each", got {self.channels!r}')


@dataclass(frozen=True, kw_only=True)
class ExplainOptions(ModeOptions):
    """The options of `explain_img`, besides the settings of the method.

    Parameters
    ----------
    background
        What replaces tissue where a mask removes it: ``reference`` (the reference image of the model), ``matched``
        (that image, scaled to the scan around each region of an atlas), ``auto`` (``matched`` where masks have the
        shape of regions and ``reference`` elsewhere, or 0 if the model has no reference image), a number, ``blur``
        (the scan smoothed by a Gaussian of 10 mm, which keeps its brightness and loses its regions), or an image on
        any grid in the scan's intensities. With several (in Python a list, or a mapping from names) the result is
        their consensus, the median of their normalised scores, and the result of each is kept too. Default: auto.
    point
        Search point of an atlas region: its ``centroid`` (the paper's), or ``medoid``, its voxel nearest to the
        centroid. Default: centroid.
    mask_img
        Image, in the scan's space: search only where it is above 0.5. Points elsewhere are left out, and regions are
        cut to it. Default: search everywhere.
    brain_mask
        Image, in the scan's space: set the scan to 0 where it is not above 0.5, for a model that expects scans without
        a skull. ``auto``: the brain that deepbet finds in a T1-weighted scan, which needs
        pip install "glas3d[brain-mask]". Default: the whole scan, or with ``register`` the template's brain mapped to
        the scan.
    covariates
        Numbers that the model takes next to the scan, such as age=74; they are ranked next to the regions. In Python a
        mapping, and the model is evaluated with ``(batch, (n, q))``. Default: none.
    covariate_reference
        Number that replaces each covariate where it is removed, such as age=70. In Python a mapping. Each covariate
        needs one.
    transform
        Transform that brings a scan in its native space to the template: a 4 x 4 matrix as text (native to
        template, in mm), or ITK or ANTs files in the order of antsApplyTransforms, which need SimpleITK:
        pip install "glas3d[transforms]". The model sees the scan in the
        template's space, the maps are mapped back to native space, and ``x y z`` of the table are the template's.
        Default: the scan is in the template's space.
    inverse
        The inverse of each warp of ``transform``, in the same order. Default: the file next to the warp that has
        the name that ANTs or fMRIPrep give to its inverse.
    register
        The scan is a raw T1 image in its native space: register it to the template, ``affine`` or with a deformation
        (``SyN``). The model sees the brain alone, and the maps are mapped back. Needs antspyx:
        pip install "glas3d[register]". Default: do not register.
    assume_space
        ``MNI``: do not check that the scan is in MNI space. Give it only if you know that it is. Default: check.

    Raises
    ------
    GlasError
        A value that is none of the choices, or options that exclude each other.
    """

    background: Any = option("auto", group=REFERENCE, command=tuple[str, ...])
    point: Point = option("centroid", group=SEARCH)
    mask_img: Any = option(None, group=SEARCH, command="file", name="mask")
    brain_mask: Any = option(None, group=INPUT, command="file")
    covariates: Any = option(None, group=COVARIATES, command=tuple[str, ...], name="covariate")
    covariate_reference: Mapping[str, float] | None = option(None, group=COVARIATES, command=tuple[str, ...])
    transform: Any = option(None, group=NATIVE, command="files")
    inverse: Any = option(None, group=NATIVE, command="files")
    register: Literal["affine", "SyN"] | None = option(None, group=NATIVE)
    assume_space: Literal["MNI"] | None = option(None, group=INPUT)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.point not in get_args(Point):
            raise GlasError(f"point must be one of {', '.join(get_args(Point))}, got {self.point!r}")
        if self.assume_space not in (None, "MNI"):
            raise GlasError(f'assume_space must be "MNI" or None, got {self.assume_space!r}')
        if self.transform is not None and self.register is not None:
            raise GlasError(
                "a scan is brought to the template by a given transform or by registration, got transform and register"
            )
        if self.inverse is not None and self.transform is None:
            raise GlasError("inverse holds the inverses of the warps of a transform: give the transform too")
        if self.covariate_reference is not None and self.covariates is None:
            raise GlasError("covariate_reference replaces covariates: give the covariates too")

    @property
    def several_backgrounds(self) -> bool:
        """Whether the model is evaluated with several references."""
        return isinstance(self.background, list | tuple | Mapping)


@dataclass(frozen=True, kw_only=True)
class ImageOptions(ModeOptions):
    """The options of `explain_image`, besides the settings of the method.

    Parameters
    ----------
    size
        Rows and columns that the model takes: the image is stretched to them (crop it first where that matters), and
        the maps are mapped back to its own pixels. Default: the image's own size.
    colour
        ``"RGB"`` or ``"grey"``: convert the image. Default: keep its channels.
    background
        What replaces the image where a mask removes it: ``"auto"`` (the model's reference, else 0, black), a number in
        the image's values, ``"blur"`` (the image smoothed by a Gaussian of 10 pixels of 224), or an image. A mapping
        of several from their names gives what they agree on, and the result of each.
    mask
        Booleans ``(rows, cols)``: search only where it is true. Default: search everywhere.
    """

    size: tuple[int, int] | None = option(None)
    colour: Literal["RGB", "grey"] | None = option(None)
    background: Any = option("auto")
    mask: Any = option(None)

    @property
    def several_backgrounds(self) -> bool:
        """Whether the model is evaluated with several references."""
        return isinstance(self.background, Mapping)
