"""The options of training by folds, declared once for Python, the command and configuration files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from glas3d.checks import whole_number
from glas3d.errors import GlasError
from glas3d.options import option
from glas3d.study.training.importable import name_of

# Options that do not decide the models, or that the manifest records in another form: the number of the folds and
# their strata, the grid, the recipe and the name of the network.
_NOT_RECORDED = (
    *("folds", "site", "resolution", "intensities", "pretrain", "augment", "factory"),
    *("assume_space", "cache", "n_workers", "device", "overwrite"),
)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a study is divided into folds, and how the model of each fold is trained.

    Parameters
    ----------
    folds
        Number of folds; each participant is tested by one of them. Default: 5.
    seed
        Seed of everything random; each fold derives its own from it. Default: 0.
    validation
        Share, from 0 to 0.5, of the participants outside the tested fold that is held back: it does not train the
        model, but decides when training stops. 0: none. Default: 0.15.
    site
        Column of the participants' table whose values are spread evenly over the folds, if it exists and each fold can
        have all of them. Default: site.
    resolution
        Voxel size in mm of the MNI grid on which the models work (in Python None means the grid of the scans).
        Default: 4.
    intensities
        Whether each scan is divided by its own brightness (relative: a scanner's unit means nothing), or taken as it is
        (absolute: as in a map of grey matter, whose brightness is the amount of tissue). auto: absolute if all scans
        are maps of tissue by their names (suffix probseg or probability, or a prefix such as mwp1 of CAT12 and mwc1 of
        SPM), else relative. Default: auto.
    pretrain
        Whether an autoencoder is trained first, as in the paper. Default: yes.
    augment
        Whether some training scans are perturbed by light and shadow masks towards the control mean, so that the model
        has seen such scans before it is explained. Default: yes.
    factory
        Makes another network than the paper's, as package.module:function (in Python also a function that can be
        imported). It is called with ``shape`` (voxels along each axis), ``channels`` and ``classes``. Default: the
        network of the paper.
    intensity_transform
        Applied to the intensities of each scaled training scan ``(1, *shape)``, as package.module:function (in Python
        also any callable, such as a transform of MONAI). It is recorded by its name only. Default: none.
    preset
        Settings of `GLAS` to store with the models, such as ``{"sigma_light": 20, "sigma_shadow": 30, "unit": "mm"}``.
        Default: none.
    assume_space
        MNI: do not check that the scans are in MNI space. Give it only if you know that they are. Default: check.
    cache
        Folder for the scans on the grid of the models. Default: .cache in the folder of the models.
    threads
        Number of threads of torch that train each fold. Another number rounds differently. On shared cores one is
        best: with two, these small convolutions wait for each other, and are up to eight times slower. Default: 1.
    n_workers
        Number of processes that train folds in parallel; 1: this process alone. In Python a script that uses more than
        1 needs an ``if __name__ == "__main__":`` block. Default: 1.
    device
        auto (CUDA if it is available), cpu, or cuda, with a number for one of several GPUs, such as cuda:1.
        Default: auto.
    overwrite
        Whether folds that were trained with other settings or scans are replaced. Default: no.

    Raises
    ------
    GlasError
        A number outside its range.
    """

    folds: int = option(5, group="Folds")
    seed: int = option(0, group="Folds")
    validation: float = option(0.15, group="Folds")
    site: str = option("site", group="Folds")
    resolution: float | None = option(4.0, group="Model", command=float)
    intensities: Literal["auto", "relative", "absolute"] = option("auto", group="Model")
    pretrain: bool = option(True, group="Model")
    augment: bool = option(True, group="Model")
    factory: str | Callable[..., Any] | None = option(None, group="Model", command=str)
    intensity_transform: str | Callable[..., Any] | None = option(None, group="Model", command=str)
    preset: Mapping[str, Any] | None = option(None)
    assume_space: Literal["MNI"] | None = option(None, group="Input")
    cache: str | os.PathLike[str] | None = option(None, group="Output", command=Path)
    threads: int = option(1, group="Speed")
    n_workers: int = option(1, group="Speed")
    device: str = option("auto", group="Speed")
    overwrite: bool = option(False, group="Output")

    def __post_init__(self) -> None:
        for name, least in (("folds", 2), ("seed", 0), ("threads", 1), ("n_workers", 1)):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least))
        if self.intensities not in ("auto", "relative", "absolute"):
            raise GlasError(f"intensities must be auto, relative or absolute, got {self.intensities!r}")
        if not 0 <= self.validation <= 0.5:
            raise GlasError(f"validation must be a share from 0 to 0.5, got {self.validation}")

    def recorded(self) -> dict[str, Any]:
        """Return the options that the manifest of every fold records under their own names."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in _NOT_RECORDED}
        return values | {"intensity_transform": name_of(self.intensity_transform), "preset": dict(self.preset or {})}
