"""The options of the participant level, declared here and only here.

A study also takes the settings of the method and the options of `explain_img`, which their own rooms declare.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from glas3d.checks import is_number, whole_number
from glas3d.core.settings import SPEED
from glas3d.errors import GlasError
from glas3d.explain.options import SEARCH, ExplainOptions, UnsetSettings
from glas3d.options import given, option, parse

if TYPE_CHECKING:
    from glas3d.core.search import Grid

MODEL, PARTICIPANTS = "Model", "Participants"

# Settings that are resolved once for all participants, and that have entries of their own in study.json.
RESOLVED = ("batch_size", "engine", "assume_space")


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """The options of `explain_cohort`, besides the options of `explain_img`.

    Parameters
    ----------
    target
        Class to explain in every participant. Default: the case.
    search
        Name of a shipped atlas; path of a label image, or of 4D probabilities, with its table next to it, or with
        ``{participant_id}`` or ``{session_id}`` in it, of each participant's own parcellation; path of a .tsv table of
        coordinates (see `Coordinates`); or a `Grid`.
    atlas_table
        Look-up table of an atlas that is a file, for all participants: .tsv or .csv with the columns index and name,
        or a .txt, .lut, .label, .ctbl or .xml of FreeSurfer, FSL, ITK-SNAP, MRtrix, CAT12, MRIcron or SPM. Default: the
        file of the same name next to the image.
    atlas_space
        ``MNI``: the regions of an atlas that is a file are in MNI space. Needed for such an atlas where scans are
        brought to the template. Default: it is in the space of the scans.
    everyone
        Explain the participants of other groups too. Default: case and control only.
    in_sample
        Explain participants also with models that were trained on them; every output then records "InSample": true.
        Such maps may show what the model memorised. Default: refuse.
    activation
        What turns the outputs of a model into probabilities: softmax, sigmoid or none; for a .pt2 or .onnx file, and
        for a bundle that does not state it.
    value_range
        Lowest and highest intensity that the network takes, as two numbers; for a .pt2 or .onnx file, and for a bundle
        that does not state it. Scans of other intensities are noted. Default: not known, which is noted.
    trust
        Allow the configuration of a bundle to run any code of its author: calls of functions, expressions and imports.
        Without it a bundle may be made of networks and layers of torch.nn, monai.networks and glas3d. Needed for models
        that were trained with a network of your own.
    n_workers
        Number of processes that explain scans in parallel; 1: this process alone. With CUDA one for each GPU is best.
        In Python a script that uses more than 1 needs an ``if __name__ == "__main__":`` block. Default: 1.
    scheduler
        Address of a running Dask scheduler, in place of ``n_workers``, such as tcp://10.0.0.1:8786; its workers have
        one thread each. Default: none.
    time_limit
        Seconds after which the process that explains a scan is ended, and the scan counts as failed, for a model that
        may hang. With it a single worker, too, is a process of its own, which needs Dask. Default: no limit.
    threads
        Number of threads of each process; results of another number differ in rounding. Default: 1, or that of an
        earlier run.
    device
        Where the models run: ``auto`` (CUDA where it is available, or that of an earlier run), cpu, or cuda, with a
        number for one GPU of several, such as cuda:1.
    overwrite
        Replace the results of a study with another target, models, search or settings in the folder, at the group level
        those of other options. Default: refuse, before a model is evaluated.
    on_error
        What happens when a participant cannot be explained: ``fail`` ends the work, ``skip`` continues with the
        others. The failed ones are listed in ``participants_failed.tsv`` either way.

    Raises
    ------
    GlasError
        A value that is none of the choices, or outside its range.
    """

    target: int | str | None = option(None)
    search: str | os.PathLike[str] | Grid | int | tuple[int, ...] = option("AAL")
    atlas_table: Path | None = option(None, group=SEARCH)
    atlas_space: Literal["MNI"] | None = option(None, group=SEARCH)
    everyone: bool = option(False, group=PARTICIPANTS)
    in_sample: bool = option(False, group=MODEL)
    activation: Literal["softmax", "sigmoid", "none"] | None = option(None, group=MODEL)
    value_range: tuple[float, float] | None = option(None, group=MODEL)
    trust: bool = option(False, group=MODEL)
    n_workers: int = option(1, group=SPEED)
    scheduler: str | None = option(None, group=SPEED)
    time_limit: float | None = option(None, group=SPEED)
    threads: int | None = option(None, group=SPEED)
    device: str = option("auto", group=SPEED)
    overwrite: bool = option(False, group="Output")
    on_error: Literal["fail", "skip"] = option("fail")

    def __post_init__(self) -> None:
        if self.on_error not in ("fail", "skip"):
            raise GlasError(f'on_error must be "fail" or "skip", got {self.on_error!r}')
        if self.value_range is not None:
            object.__setattr__(self, "value_range", tuple(self.value_range))
        if self.atlas_table is not None:
            object.__setattr__(self, "atlas_table", Path(self.atlas_table))
        if self.time_limit is not None and not (is_number(self.time_limit) and self.time_limit > 0):
            raise GlasError(f"time_limit must be a number of seconds greater than 0, got {self.time_limit!r}")
        if self.threads is not None:
            object.__setattr__(self, "threads", whole_number("threads", self.threads, 1))


@dataclass(frozen=True, kw_only=True)
class StudyRequest:
    """The options of a study as they were given, checked and sorted.

    Attributes
    ----------
    study
        The options of the participant level.
    explain
        The options of `explain_img`.
    settings
        The options of `explain_img` and settings of the method that were given, except those resolved once for all
        participants.
    batch_size, engine
        The settings of the method where they were given; else None and ``"auto"``.
    """

    study: StudyOptions
    explain: ExplainOptions
    settings: Mapping[str, Any]
    batch_size: int | None
    engine: str

    @classmethod
    def of(cls, options: Mapping[str, Any], caller: str) -> StudyRequest:
        """Return the request of the keywords of `explain_cohort`.

        Raises
        ------
        GlasError
            A value that is none of the choices, outside its range, or that excludes another.
        TypeError
            A keyword that is no option of a study.
        """
        study, method, explain = parse(options, StudyOptions, UnsetSettings, ExplainOptions, caller=caller)
        named = {name: value for name, value in options.items() if name not in study.__dataclass_fields__}
        settings = {name: value for name, value in named.items() if value is not None and name not in RESOLVED}
        batch_size = method.batch_size
        if batch_size is not None:
            batch_size = whole_number("batch_size", batch_size, 1)
        return cls(
            study=study,
            explain=explain,
            settings=settings,
            batch_size=batch_size,
            engine=given(method).get("engine", "auto"),
        )
