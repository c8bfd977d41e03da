"""The methods that can be compared, declared once.

`glas3d.evaluate.attribute`, ``glas3d compare``, their help and the page on other methods are derived from `METHODS`.
The table names the classes and loads none of them, so that ``--help`` does not import torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from glas3d.checks import whole_number
from glas3d.errors import GlasError
from glas3d.options import option

Link = Literal["probability", "logit"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method of `attribute`.

    Attributes
    ----------
    summary
        What its map holds, as the help shows it.
    rival
        The class of `glas3d.evaluate.rivals` that computes it.
    source
        The paper that defines it; empty for a control.
    library
        Whose implementation is used.
    settings
        Settings of the class that make it this method.
    region
        How voxels of a region become its value: their ``"mean"``, or their ``"sum"`` where values add up to a
        difference of the explained number. A method that is about whole regions uses neither.
    units
        Units of a region's value; ``{output}`` stands for the explained number, the probability or the log-odds. Empty
        for light and shadow, whose settings decide.
    higher
        What a higher value means. Empty for light and shadow.
    """

    summary: str
    rival: str
    source: str = ""
    library: str = "glas3d"
    settings: Mapping[str, Any] = field(default_factory=dict)
    region: Literal["mean", "sum"] = "mean"
    units: str = "{output}"
    higher: str = "more evidence for the target"


METHODS: dict[str, Method] = {
    "glas": Method(
        summary="Gaussian light and shadow, with the settings of the model or the defaults",
        rival="Glas",
        source="Oh, Kim & Oh 2020",
        units="",
        higher="",
    ),
    "glas_paper": Method(
        summary="Gaussian light and shadow, with the preset paper",
        rival="Glas",
        source="Oh, Kim & Oh 2020",
        settings={"preset": "paper"},
        units="",
        higher="",
    ),
    "glas_evidence": Method(
        summary="signed evidence of light and shadow, in log-odds where the model has them",
        rival="Glas",
        source="Oh, Kim & Oh 2020",
        settings={"preset": "evidence"},
        units="",
        higher="",
    ),
    "feature_ablation": Method(
        summary="drop when one region at a time is removed",
        rival="FeatureAblation",
        source="Kokhlikyan et al. 2020",
        library="Captum",
    ),
    "shapley_sampling": Method(
        summary="Shapley values of the regions, from random orders",
        rival="ShapleySampling",
        source="Castro et al. 2009",
        library="Captum",
    ),
    "kernel_shap": Method(
        summary="Shapley values of the regions, by regression on random sets of regions",
        rival="KernelShap",
        source="Lundberg & Lee 2017",
        library="Captum",
    ),
    "lime": Method(
        summary="weights of a ridge regression on random sets of regions",
        rival="Lime",
        source="Ribeiro et al. 2016",
        library="Captum",
    ),
    "occlusion": Method(
        summary="mean drop by a sliding box", rival="Occlusion", source="Zeiler & Fergus 2014", library="Captum"
    ),
    "gaussian_occlusion": Method(
        summary="drop by a sliding Gaussian window", rival="GaussianOcclusion", source="MONAI", library="MONAI"
    ),
    "rise": Method(
        summary="mean of random masks, weighted by the probability that each leaves",
        rival="Rise",
        source="Petsiuk et al. 2018",
        higher="a higher probability of the target where the region is kept",
    ),
    "mask": Method(
        summary="smallest smooth mask that removes the class, learnt by gradients",
        rival="Mask",
        source="Fong & Vedaldi 2017",
        units="share removed, 0 to 1",
        higher="more of the region is removed to lower the probability of the target",
    ),
    "gradient": Method(
        summary="size of the gradient",
        rival="Gradient",
        source="Simonyan et al. 2014",
        library="Captum",
        units="{output} per unit of intensity",
        higher="a stronger reaction to the region's intensities, for or against the target",
    ),
    "input_x_gradient": Method(
        summary="gradient times the difference from the reference",
        rival="InputXGradient",
        source="Shrikumar et al. 2016",
        library="Captum",
        region="sum",
    ),
    "deconvolution": Method(
        summary="gradient by which ReLUs pass positive gradients only",
        rival="Deconvolution",
        source="Zeiler & Fergus 2014",
        library="Captum",
        units="{output} per unit of intensity, by a changed gradient",
        higher="more output for the target with more intensity",
    ),
    "guided_backprop": Method(
        summary="gradient by which active ReLUs pass positive gradients only",
        rival="GuidedBackprop",
        source="Springenberg et al. 2015",
        library="Captum",
        units="{output} per unit of intensity, by a changed gradient",
        higher="more output for the target with more intensity",
    ),
    "smooth_grad": Method(
        summary="size of the mean gradient of noisy copies",
        rival="SmoothGrad",
        source="Smilkov et al. 2017",
        library="Captum",
        units="{output} per unit of intensity",
        higher="a stronger reaction to the region's intensities, for or against the target",
    ),
    "integrated_gradients": Method(
        summary="gradient integrated from the reference, summed over a region",
        rival="IntegratedGradients",
        source="Sundararajan et al. 2017",
        library="Captum",
        region="sum",
    ),
    "integrated_gradients_mean": Method(
        summary="gradient integrated from the reference, mean over a region",
        rival="IntegratedGradients",
        source="Sundararajan et al. 2017",
        library="Captum",
        units="{output} per voxel",
    ),
    "grad_cam": Method(
        summary="channels of the last convolution, weighted by their gradients",
        rival="GradCam",
        source="Selvaraju et al. 2017",
        library="Captum",
        units="{output} for each position of the layer",
    ),
    "random": Method(
        summary="control without the model: random numbers",
        rival="Random",
        units="standard deviations",
        higher="nothing, because the numbers are random",
    ),
    "edges": Method(
        summary="control without the model: edges of the scan",
        rival="Edges",
        library="SciPy",
        units="intensity per voxel",
        higher="sharper edges of the scan, whatever the model computes",
    ),
    "difference": Method(
        summary="control without the model: size of scan minus reference",
        rival="Difference",
        units="intensity",
        higher="further from the reference, whatever the model computes",
    ),
}
"""The methods that can be compared, by the names that they have in calls and on the command line."""


@dataclass(frozen=True, kw_only=True)
class AttributionOptions:
    """The options of `glas3d.evaluate.attribute` that all methods share.

    Parameters
    ----------
    link
        The number that is explained: the ``probability`` of the target, or its ``logit``, the log-odds against all
        other classes. A method that is made of one of them alone keeps to it. Default: log-odds where the model has
        logits or its outputs are probabilities and the method can be made of them, else the probability.
    batch_size
        Number of inputs in one forward pass. Default: chosen by the size of the volume.

    Raises
    ------
    GlasError
        A value that is none of the choices, or outside its range.
    """

    link: Link | None = option(None, group="Score and mode")
    batch_size: int | None = option(None, group="Speed")

    def __post_init__(self) -> None:
        if self.link not in (None, *get_args(Link)):
            raise GlasError(f"link must be one of {', '.join(get_args(Link))}, got {self.link!r}")
        if self.batch_size is not None:
            object.__setattr__(self, "batch_size", whole_number("batch_size", self.batch_size, least=1))


def method_of(name: str) -> Method:
    """Return a method by its name.

    Raises
    ------
    GlasError
        There is no such method; a similar one is named.

    Examples
    --------
    >>> method_of("grad_cam").library
    'Captum'
    >>> method_of("gradcam")
    Traceback (most recent call last):
    glas3d.errors.GlasError: there is no method 'gradcam'; did you mean grad_cam?
    """
    if name in METHODS:
        return METHODS[name]
    near = difflib.get_close_matches(str(name), METHODS, 1, 0.6)
    advice = f"did you mean {near[0]}?" if near else f"choose of {', '.join(METHODS)}"
    raise GlasError(f"there is no method {name!r}; {advice}")


def listed_methods() -> str:
    """Return the names of all methods with what each map holds, for docstrings and help."""
    return "; ".join(f"``{name}`` ({method.summary})" for name, method in METHODS.items())


def methods_table() -> str:
    """Return the methods as a table in Markdown, for the page on other methods."""
    rows = [
        "| method | what its map holds | value of a region | units | after | computed by |",
        "|---|---|---|---|---|---|",
    ]
    own = ("Glas", "FeatureAblation", "ShapleySampling", "KernelShap", "Lime", "Random")
    for name, method in METHODS.items():
        region = "its own" if method.rival in own else method.region
        units = method.units.format(output="output") or "as its settings say"
        summary = method.summary.replace("|", "\\|")
        rows.append(f"| `{name}` | {summary} | {region} | {units} | {method.source} | {method.library} |")
    return "\n".join(rows) + "\n"
