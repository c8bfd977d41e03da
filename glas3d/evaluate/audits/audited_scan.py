"""A scan, its model and its class as audits meet them: the explained number of any volume, and the parts of a head."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from scipy.ndimage import binary_closing, binary_fill_holes, distance_transform_edt

from glas3d.core.account import LEAST_EFFECT, effect_in_log_odds
from glas3d.core.explanation import Explanation
from glas3d.evaluate.attribution import attribute
from glas3d.evaluate.audits.audit import Audited
from glas3d.evaluate.audits.checks import CHECKS, AuditOptions
from glas3d.evaluate.rivals.methods import METHODS
from glas3d.evaluate.rivals.value import ExplainedValue
from glas3d.evaluate.subject import ScanSubject, resolve_subject
from glas3d.explain.inputs import OWN, is_matched
from glas3d.explain.result import ScanMaps
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.mask import template_brain
from glas3d.imaging.space import VoxelGrid
from glas3d.imaging.tissue import air_level
from glas3d.predict import Predictor
from glas3d.predict.predictor import model_info

OUTSIDE = 0.2
"""The largest share of the effect that evidence outside the brain and its shell may have."""

_SHELL_MM = 3.0
_CLOSED_MM = 10.0  # gaps between the regions of an atlas that belong to the brain


@dataclass(frozen=True, eq=False)
class AuditedScan(Audited):
    """A scan with its model, on the grid of the model.

    Attributes
    ----------
    subject
        The scan, the class, the reference and the regions, resolved.
    options
        The options of audits.
    img, search, keywords
        The scan, the regions and the options of the input as they were given.
    """

    subject: ScanSubject
    options: AuditOptions
    img: Any = None
    search: Any = None
    keywords: Mapping[str, Any] = field(default_factory=dict)

    @property
    def maps(self) -> ScanMaps:
        """What maps results back; it holds the scan, its grid and the atlas."""
        return cast(ScanMaps, self.subject.request.maps)

    @property
    def reference_name(self) -> str:
        """The name of the reference in sidecars."""
        return str(self.maps.record["Settings"]["background"])

    @property
    def grid(self) -> VoxelGrid:
        """The grid of the model."""
        return self.maps.inputs.grid

    @property
    def atlas(self) -> Atlas | None:
        """The atlas whose regions are searched, if it is an atlas."""
        return self.maps.search.atlas

    @property
    def regions_name(self) -> str:
        """What messages call the regions."""
        return "the regions searched" if self.atlas is None else f"the regions of {self.atlas.name}"

    @cached_property
    def value(self) -> ExplainedValue:
        """The explained number: log-odds of the class where the model has them, else its output."""
        return self.subject.value("auto")

    @cached_property
    def volume(self) -> np.ndarray:
        """``(c, *spatial)`` float32, the intact scan."""
        return np.asarray(self.subject.request.task.volume, dtype=np.float32)

    @cached_property
    def reference(self) -> np.ndarray:
        """``(c, *spatial)`` float32, what stands where the scan is removed."""
        return np.broadcast_to(self.value.reference.cpu().numpy(), self.volume.shape).astype(np.float32)

    @cached_property
    def air(self) -> np.ndarray:
        """``(c, 1, 1, 1)`` float32, the intensity of air in each channel."""
        return np.array([air_level(channel) for channel in self.volume], dtype=np.float32)[:, None, None, None]

    @cached_property
    def tissue(self) -> np.ndarray:
        """``(*spatial)`` booleans: the scan or the reference is brighter than air by a tenth of the brightest."""
        contrast = np.maximum(np.abs(self.volume - self.air), np.abs(self.reference - self.air))
        bright = np.percentile(np.abs(self.volume - self.air), 99, axis=(1, 2, 3), keepdims=True)
        return np.asarray((contrast > 0.1 * bright).any(axis=0))

    @property
    def effect(self) -> float:
        """How far the explained number of the scan is above that of the reference."""
        return self.value.intact - self.value.removed

    @property
    def has_effect(self) -> bool:
        """Whether the effect is large enough to be divided among parts."""
        return abs(effect_in_log_odds(self.value.intact, self.effect, self.value.link)) >= LEAST_EFFECT

    @property
    def scale(self) -> str:
        """The scale of the explained number."""
        return "log-odds" if self.value.link == "logit" else "output"

    def outputs(self, volumes: Iterable[np.ndarray]) -> np.ndarray:
        """Return the explained number of volumes ``(c, *spatial)`` each, ``(n,)`` float64.

        The preprocessing stays fitted to the intact scan.
        """
        batches: list[np.ndarray] = []
        with torch.no_grad(), self.value.prepared():
            for batch in _batches(volumes, self.value.batch_size):
                tensor = torch.as_tensor(batch, dtype=torch.float32, device=self.value.difference.device)
                batches.append(self.value(tensor - self.value.reference)[:, 0].double().cpu().numpy())
        return np.concatenate(batches)

    def share(self, change: float) -> float:
        """Return a change of the explained number as a share of the effect."""
        return change / self.effect

    def evidence_of(self, parts: Iterable[np.ndarray]) -> np.ndarray:
        """Return the evidence of parts of the volume, each ``(*spatial)`` booleans, ``(n,)`` float64.

        It is the mean of what a part adds to the reference alone and of what the scan loses without it.
        """

        def ends() -> Iterator[np.ndarray]:
            for part in parts:
                yield np.where(part, self.volume, self.reference)
                yield np.where(part, self.reference, self.volume)

        kept, removed = self.outputs(ends()).reshape(-1, 2).T
        return np.asarray((kept - self.value.removed + self.value.intact - removed) / 2)

    @cached_property
    def explanation(self) -> Explanation:
        """Signed evidence of the regions, with the preset ``evidence``."""
        return self.subject.explain({}, "evidence")

    def attributed(self, method: str, predict: Predictor) -> np.ndarray:
        """Return the values of all regions by an explanation method of the options, with another model, ``(m,)``."""
        methods = self.options.methods
        if isinstance(methods, Mapping):
            return np.asarray(methods[method](self.img, predict, self.subject.target), dtype=np.float64)
        own: dict[str, Any] = {"engine": "eager"} if METHODS[method].rival == "Glas" else {}
        attribution = attribute(
            self.img,
            predict,
            self.subject.target,
            method,
            self.search,
            batch_size=self.options.batch_size,
            **self.keywords,
            **own,
        )
        return attribution.table["score"].to_numpy(dtype=np.float64)

    def with_background(self, background: Any) -> AuditedScan:
        """Return the same scan with another reference."""
        keywords = {**self.keywords, "background": background}
        predict, target = self.subject.request.glas.predict, self.subject.target
        subject = resolve_subject(self.img, predict, target, self.search, keywords, self.options.batch_size)
        assert isinstance(subject, ScanSubject)
        return replace(self, subject=subject, keywords=keywords)

    def for_check(self, check: str) -> AuditedScan:
        """Return the scan as an audit takes it; see `Audited.for_check`."""
        return self._unmatched if CHECKS[check].unmatched else self

    @cached_property
    def _unmatched(self) -> AuditedScan:
        """The same scan with the model's reference as it is, where that is matched to the scan."""
        return self.with_background(OWN) if is_matched(self.reference_name) else self

    def explain_points(self, points: np.ndarray, sigma_mm: float) -> Explanation:
        """Return the evidence of Gaussian masks around points ``(m, 3)`` in voxels."""
        request, task = self.subject.request, self.subject.request.task
        glas = request.glas.replace(
            sigma_light=sigma_mm,
            sigma_shadow=sigma_mm,
            sigma_spatial=sigma_mm,
            unit="mm",
            kernel="gaussian",
            fusion="mean",
            link="auto",
            density=False,
            batch_size=self.options.batch_size,
        )
        explanation = glas.with_link(
            lambda own: own.explain(task.volume, self.subject.target, points, task.spacing, covariates=task.covariates)
        )
        assert isinstance(explanation, Explanation)
        return explanation

    @cached_property
    def brain(self) -> np.ndarray:
        """``(*spatial)`` booleans: the template's brain, or elsewhere the regions of the atlas with their gaps filled.

        A scan is taken to be in the template's space where the model has a grid of its own, the atlas is in MNI space,
        or the scan was brought to the template.
        """
        inputs, search = self.maps.inputs, self.maps.search
        has_grid = model_info(self.subject.request.glas.predict).grid is not None
        if has_grid or inputs.transform is not None or search.space == "MNI":
            return template_brain(self.grid)
        steps = max(1, round(_CLOSED_MM / max(self.grid.spacing)))
        padded = np.pad(self.subject.labels > 0, steps)
        closed = binary_fill_holes(binary_closing(padded, iterations=steps))
        inner = tuple(slice(steps, -steps) for _ in range(3))
        return np.asarray(closed[inner], dtype=bool)

    @cached_property
    def parts(self) -> dict[str, np.ndarray]:
        """Three parts of the volume by their names, ``(*spatial)`` booleans: inside, shell and outside.

        The shell is what is outside the brain and within 3 mm of it, or one voxel where voxels are larger.
        """
        brain = self.brain
        distance = distance_transform_edt(~brain, sampling=self.grid.spacing)
        shell = ~brain & (distance <= max(_SHELL_MM, *self.grid.spacing) + 1e-6)
        return {"inside": brain, "shell": shell, "outside": ~brain & ~shell}

    @cached_property
    def shares_of_parts(self) -> dict[str, float]:
        """The evidence of each part as a whole, as a share of the effect."""
        evidence = self.evidence_of(self.parts.values())
        return {name: self.share(float(value)) for name, value in zip(self.parts, evidence, strict=True)}

    def region_at(self, voxel: np.ndarray) -> str:
        """Return the name of the region at voxel coordinates ``(3,)``; empty where there is none."""
        index = tuple(np.clip(np.rint(voxel).astype(int), 0, np.array(self.grid.shape) - 1))
        number = int(self.subject.labels[index])
        return "" if number == 0 else str(self.names[number - 1])

    def part_at(self, voxel: np.ndarray) -> str:
        """Return the part of the head at voxel coordinates ``(3,)``: inside, shell or outside."""
        index = tuple(np.clip(np.rint(voxel).astype(int), 0, np.array(self.grid.shape) - 1))
        return next(name for name, part in self.parts.items() if part[index])

    @cached_property
    def names(self) -> list[str]:
        """``(m,)`` names of the regions that have voxels, in the order of the explanation."""
        table = self.subject.regions().set_index("index")["name"]
        return [str(table[i]) for i in self.subject.index]

    def file(self, check: str) -> str:
        """Return the name of the file of an audit."""
        return f"{self.subject.stem}_{self.subject.search_label}{check}_audit.json"

    def provenance_of(self, check: str) -> dict[str, Any]:
        """Return what tells audits apart, and all that was used, ready for JSON; known before the audit is made."""
        record = self.subject.record(self.value.target)
        settings = {"link": self.value.link, **self.options.record_of(check)}
        return record | {"Settings": record["Settings"] | settings}

    @property
    def measured(self) -> dict[str, Any]:
        """The probability of the class for the scan."""
        return {"Probability": self.value.probability}


def _batches(volumes: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Yield volumes in batches, so that never more of them are in memory."""
    batch: list[np.ndarray] = []
    for volume in volumes:
        batch.append(volume)
        if len(batch) == size:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)
