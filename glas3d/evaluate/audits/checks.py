"""The audits, declared once.

`audit_scan`, `audit_study`, ``glas3d audit``, its help and the table of the page on audits are derived from `CHECKS`.
The table names the functions and loads none of them, so that ``--help`` does not import torch.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from glas3d.checks import whole_number
from glas3d.errors import GlasError
from glas3d.evaluate.rivals.methods import method_of
from glas3d.options import option

AUDIT = "Audit"

LITTLE, MUCH = 0.6, 1.3
"""Where regions account for less or more of the effect, the whole volume is searched for its evidence."""

LiteratureValues = Literal["high", "low", "size"]
Of = Literal["scan", "study", "results"]
# Returns the values of the regions of a scan, from the scan, the model and the target.
Explainer = Callable[[Any, Any, Any], Any]


@dataclass(frozen=True, kw_only=True)
class Check:
    """An audit, as it is declared.

    Attributes
    ----------
    purpose
        What it shows, as help and documentation have it.
    source
        The paper that it follows, or empty.
    scan, study, results
        Module and function that audit a scan with its model, a study, and results in a folder, within this package;
        empty where there is none.
    options
        Names of the options of `AuditOptions` that decide its result, besides those that all audits have.
    unmatched
        Whether the model's reference is taken as it is: one that is matched to the scan has the scan's own brightness.
    """

    purpose: str
    source: str = ""
    scan: str = ""
    study: str = ""
    results: str = ""
    options: tuple[str, ...] = ()
    unmatched: bool = False

    def applies_to(self, of: Of) -> bool:
        """Return whether it audits a scan, a study, or results."""
        return bool(getattr(self, of))


CHECKS: dict[str, Check] = {
    "accounted": Check(
        purpose="whether regions account for the effect, or something outside of them does",
        scan="accounted.audit_scan",
        study="accounted.audit_study",
    ),
    "shortcut": Check(
        purpose="whether the model reads something outside the brain, or the outline, brightness or exact position",
        source="Tinauer et al. 2022, 2025",
        scan="shortcut.audit_scan",
        unmatched=True,
    ),
    "sanity": Check(
        purpose="whether the map depends on what the network has learnt",
        source="Adebayo et al. 2018; Arun et al. 2021",
        scan="sanity.audit_scan",
        options=("methods", "randomised", "seed"),
    ),
    "reference": Check(
        purpose="whether the map depends on what stands where tissue is removed",
        source="Hiller 2025",
        scan="reference.audit_scan",
        options=("backgrounds",),
    ),
    "retrain": Check(
        purpose="whether models of other folds and seeds give the same map",
        source="Thibeau-Sutre et al. 2020; Eitel & Ritter 2019",
        study="retrain.audit_study",
        options=("runs", "top"),
    ),
    "null": Check(
        purpose="whether maps of groups differ more than with permuted labels",
        study="null.audit_study",
        options=("relabelled",),
    ),
    "leakage": Check(
        purpose="whether participants were explained by models that were trained on them",
        source="Wen et al. 2020",
        study="leakage.audit_study",
        options=("in_sample",),
    ),
    "volume": Check(
        purpose="whether scores follow the volume of regions",
        source="arXiv 2407.08546",
        study="volume.audit_study",
        options=("seed",),
    ),
    "literature": Check(
        purpose="whether the map agrees with a map from the literature more than maps that are as smooth and symmetric",
        source="Burt et al. 2020",
        scan="literature.audit_scan",
        study="literature.audit_study",
        results="literature.audit_result",
        options=("literature", "literature_values", "surrogates", "seed"),
    ),
}
"""The audits by their names."""


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """The options of audits.

    Parameters
    ----------
    methods
        For the check ``sanity``: explanation methods to audit, by the names that ``glas3d compare`` takes (in Python
        also a mapping from names to functions of a scan, a model and a target that return a value for each region).
        Default: glas_evidence.
    randomised
        For the check ``sanity``: how many networks with random weights are explained, at least 3. Default: 8.
    backgrounds
        For the check ``reference``: backgrounds to compare with that of the scan: ``auto``, a number, ``blur``, or an
        image. Default: 0 and blur.
    runs
        For the check ``retrain``: folders of other runs of the study, whose models were trained with other seeds.
        Default: none, folds are compared alone.
    top
        For the check ``retrain``: how many of the highest regions are compared. Default: 20.
    relabelled
        For the check ``null``: the folder that ``glas3d.study.relabel_cohort`` wrote. Default: none.
    in_sample
        For the check ``leakage``: folder of a run of the study by models that were trained on its participants
        (``glas3d cohort --in-sample``), to compare with. Default: none.
    literature
        For the check of this name: a 3D map from the literature in MNI space, such as a meta-analysis, a map of atrophy
        or of a tracer. Default: none.
    literature_values
        Which values of the map from the literature mean disease: high, low, or size (far from 0). Default: high.
    surrogates
        With how many random maps the map from the literature is compared, at least 99. Default: 999.
    seed
        Seed of all random numbers. Default: 0.
    batch_size
        Number of inputs in one forward pass. Default: chosen by the size of the volume.

    Raises
    ------
    GlasError
        A value outside its range, or a method that does not exist.
    """

    methods: Sequence[str] | Mapping[str, Explainer] = option(("glas_evidence",), group=AUDIT, command=tuple[str, ...])
    randomised: int = option(8, group=AUDIT)
    backgrounds: Sequence[Any] = option((0, "blur"), group=AUDIT, command=tuple[str, ...])
    runs: Sequence[str | os.PathLike[str]] = option((), group=AUDIT, command="files")
    top: int = option(20, group=AUDIT)
    relabelled: str | os.PathLike[str] | None = option(None, group=AUDIT, command="file")
    in_sample: str | os.PathLike[str] | None = option(None, group=AUDIT, command="file")
    literature: Any = option(None, group=AUDIT, command="file")
    literature_values: LiteratureValues = option("high", group=AUDIT)
    surrogates: int = option(999, group=AUDIT)
    seed: int = option(0, group=AUDIT)
    batch_size: int | None = option(None, group="Speed")

    def __post_init__(self) -> None:
        methods = (self.methods,) if isinstance(self.methods, str) else self.methods
        if not isinstance(methods, Mapping):
            object.__setattr__(self, "methods", tuple(methods))
            for name in methods:
                method_of(name)
        if not methods or len(set(methods)) != len(methods):
            raise GlasError(f"methods must be one or more, each once, got {', '.join(methods) or 'none'}")
        object.__setattr__(self, "randomised", whole_number("randomised", self.randomised, least=3))
        object.__setattr__(self, "top", whole_number("top", self.top, least=1))
        if self.literature is not None:
            from glas3d.evaluate.audits.map_agreement import read_literature  # takes a while to import

            object.__setattr__(self, "literature", read_literature(self.literature))
        if self.literature_values not in get_args(LiteratureValues):
            allowed = ", ".join(get_args(LiteratureValues))
            raise GlasError(f"literature_values must be one of {allowed}, got {self.literature_values!r}")
        object.__setattr__(self, "surrogates", whole_number("surrogates", self.surrogates, least=99))
        object.__setattr__(self, "seed", whole_number("seed", self.seed, least=0))
        if self.batch_size is not None:
            object.__setattr__(self, "batch_size", whole_number("batch_size", self.batch_size, least=1))

    def record_of(self, check: str) -> dict[str, Any]:
        """Return the options that decide the result of an audit, ready for JSON."""
        values = {name: getattr(self, name) for name in CHECKS[check].options}
        if (literature := values.get("literature")) is not None:
            values["literature"] = {"name": os.path.basename(literature.name), "sha256": literature.sha256}
        return {name: _recorded(value) for name, value in values.items() if value is not None}


def _recorded(value: Any) -> Any:
    """Return a value of an option for JSON: paths by their names alone."""
    if isinstance(value, Mapping) and "sha256" in value:
        return dict(value)
    if isinstance(value, Mapping | Sequence) and not isinstance(value, str):
        return [_recorded(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.path.basename(os.fspath(value))
    return value if isinstance(value, str | int | float) else type(value).__name__


_AUDITED: dict[Of, str] = {
    "scan": "a scan with its model",
    "study": "the folder of a study",
    "results": "results in a folder",
}
_GIVEN: dict[Of, str] = {"scan": "a scan", "study": "a study", "results": "results of glas3d explain"}


def chosen_checks(names: Iterable[str] | None, of: Of) -> list[str]:
    """Return the names of the audits of a scan, a study or results, all of them where None is given.

    Raises
    ------
    GlasError
        An audit that does not exist, is named twice, or audits something else.
    """
    if names is None:
        return [name for name, check in CHECKS.items() if check.applies_to(of)]
    chosen = [names] if isinstance(names, str) else list(names)
    if not chosen or len(set(chosen)) != len(chosen):
        raise GlasError(f"checks must be one or more, each once, got {', '.join(map(str, chosen)) or 'none'}")
    for name in chosen:
        if name not in CHECKS:
            near = difflib.get_close_matches(str(name), CHECKS, 1, 0.6)
            advice = f"did you mean {near[0]}?" if near else f"choose of {', '.join(CHECKS)}"
            raise GlasError(f"there is no check {name!r}; {advice}")
        if not CHECKS[name].applies_to(of):
            audited = " or ".join(text for kind, text in _AUDITED.items() if CHECKS[name].applies_to(kind))
            raise GlasError(f"the check {name} audits {audited}, got {_GIVEN[of]}")
    return chosen


def listed_checks() -> str:
    """Return the names of all audits with what they show, for docstrings and help."""
    return "; ".join(f"``{name}`` ({check.purpose})" for name, check in CHECKS.items())


def checks_table() -> str:
    """Return the audits as a table in Markdown, for the page on audits."""
    rows = ["| check | shows | of | after |", "|---|---|---|---|"]
    for name, check in CHECKS.items():
        of = ", ".join(kind for kind in _AUDITED if check.applies_to(kind))
        rows.append(f"| [`{name}`](#{name}) | {check.purpose} | {of} | {check.source} |")
    return "\n".join(rows) + "\n"
