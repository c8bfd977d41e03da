"""Train the model of one fold and write its bundle, in this process or a worker's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from glas3d.core.threads import torch_threads
from glas3d.imaging.mask import MORE_THAN_A_BRAIN, share_outside_brain
from glas3d.output import described_table, new_folder, write_each
from glas3d.predict import BundleDescription, Predictor, Recipe, train, write_bundle
from glas3d.predict.interface import Transform
from glas3d.predict.network_training import Report
from glas3d.predict.scaled_scans import mean_scan
from glas3d.study.training.importable import import_callable
from glas3d.study.training.manifest import PARTS, FoldManifest
from glas3d.study.training.performance import COLUMNS, OF_A_CASE, measure
from glas3d.study.training.stored_scans import StoredScans

PREDICTIONS = Path("results") / "predictions.tsv"
LEARNING = Path("results") / "learning.tsv"

_TAKEN = {"relative": "scaled by its own brightness", "absolute": "taken as it is (its unit means something)"}

PAPER_NETWORK = "glas3d.predict.networks:PaperNet"


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldTask:
    """Everything that training one fold needs.

    Attributes
    ----------
    folder
        Folder of the bundle to write.
    manifest
        The scans of each part, and the settings.
    table
        One row for each stored scan: ``participant_id session group sha256``.
    scans
        The stored scans, in the order of the rows.
    recipe
        How the network is trained.
    groups
        The names of the control group and of the case group.
    network
        ``package.module:name`` of the function that makes the network.
    transform
        Applied to each training scan ``(1, *shape)``; None for nothing.
    preset
        Settings of `GLAS` to store with the model.
    threads
        Number of threads of torch.
    device
        Device of torch that trains the network.
    overwrite
        Whether an existing bundle may be replaced.
    caution
        What every reader of the model's results must know; empty: nothing.
    """

    folder: Path
    manifest: FoldManifest
    table: pd.DataFrame
    scans: StoredScans
    recipe: Recipe
    groups: tuple[str, str]
    network: str
    transform: Transform | None
    preset: Mapping[str, Any]
    threads: int
    device: str
    overwrite: bool
    caution: str = ""

    @property
    def title(self) -> str:
        """The groups and the fold, for the bundle's description."""
        control, case = self.groups
        return f"{case} against {control}, fold {self.manifest.fold} of {self.manifest.folds}"

    def rows_of(self, part: str) -> list[int]:
        """Return the rows of `table` that belong to a part, ``"train"``, ``"validation"`` or ``"test"``."""
        wanted = {(scan.participant_id, scan.session) for scan in getattr(self.manifest, part)}
        keys = zip(self.table["participant_id"], self.table["session"], strict=True)
        return [row for row, key in enumerate(keys) if key in wanted]


def train_fold(task: FoldTask, report: Report = lambda stage, epoch, loss: None) -> Path:
    """Train and test the model of a fold and write its bundle, which appears when everything is done.

    Parameters
    ----------
    task
        What to train, and where to write it.
    report
        Called after every epoch, see `glas3d.predict.train`.

    Returns
    -------
    The folder of the bundle.

    Raises
    ------
    GlasError
        What `glas3d.predict.train` refuses, or a folder that cannot be written.
    """
    rows = {part: task.rows_of(part) for part in PARTS}
    labels = torch.as_tensor([task.groups.index(group) for group in task.table["group"]])
    scans = {part: task.scans.subset(rows[part]) for part in PARTS}
    labels_of = {part: labels[rows[part]] for part in PARTS}
    definition = network_definition(task.network, task.scans.grid.shape, task.recipe)
    curve: list[tuple[str, int, float]] = []

    def record(stage: str, epoch: int, loss: float) -> None:
        curve.append((stage, epoch, loss))
        report(stage, epoch, loss)

    with torch_threads(task.threads), new_folder(task.folder, lambda folder: task.overwrite) as scratch:
        reference = mean_scan(scans["train"], torch.nonzero(labels_of["train"] == 0)[:, 0])
        net, standardisation = train(
            scans["train"],
            labels_of["train"],
            reference,
            task.recipe,
            record,
            validation=(scans["validation"], labels_of["validation"]) if len(scans["validation"]) else None,
            network=None if task.network == PAPER_NETWORK else lambda: _make_network(definition),
            transform=task.transform,
            device=task.device,
            intensities=task.scans.intensities,
        )
        predict = Predictor(net, "softmax", standardisation, "cpu", classes=task.groups)
        probabilities = _case_probabilities(predict, scans["test"])
        tested = task.table.iloc[rows["test"]][["participant_id", "session", "group"]]
        tested = tested.assign(fold=task.manifest.fold, p=probabilities)
        tested["predicted"] = [task.groups[p > 0.5] for p in probabilities]
        write_bundle(
            scratch,
            net,
            definition,
            BundleDescription(
                name=f"{task.groups[1]}-{task.groups[0]}-fold-{task.manifest.fold}",
                description=task.title,
                version="0.1.0",
                classes=task.groups,
                grid=task.scans.grid,
                standardisation=standardisation,
                reference=reference.numpy(),
                preset=task.preset,
                card=_model_card(task, tested),
                skull_stripped=share_outside_brain(reference.numpy()[0], task.scans.grid) <= MORE_THAN_A_BRAIN,
                caution=task.caution,
            ),
        )
        task.manifest.write(scratch)
        (scratch / "results").mkdir()
        learning = pd.DataFrame(curve, columns=["stage", "epoch", "loss"])
        write_each(scratch / "results", described_table(PREDICTIONS.stem, blank_sessions(tested), COLUMNS | OF_A_CASE))
        write_each(scratch / "results", described_table(LEARNING.stem, learning, COLUMNS))
    return task.folder


def _case_probabilities(predict: Predictor, scans: StoredScans) -> list[float]:
    """Return each scan's probability of being a case; one scan at a time, as they are explained."""
    probabilities = []
    for row in range(len(scans)):
        volume = scans[[row]]
        probabilities.append(float(predict.fit(volume[0])(volume)[0, 1]))
    return probabilities


def blank_sessions(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table for a file, in which no session is a missing value."""
    return table.assign(session=table["session"].where(table["session"] != ""))


def network_definition(network: str, shape: Sequence[int], recipe: Recipe) -> dict[str, Any]:
    """Return what makes the network again, as a bundle states it.

    Parameters
    ----------
    network
        `PAPER_NETWORK`, or ``package.module:name`` of a factory that is given ``shape channels classes``.
    shape
        Voxels along each axis.
    recipe
        Its dropout is that of the paper's network.
    """
    definition: dict[str, Any] = {"_target_": network.replace(":", "."), "shape": [int(n) for n in shape]}
    definition |= {"channels": 1, "classes": 2}
    return definition | ({"batch_norm": True, "dropout": recipe.dropout} if network == PAPER_NETWORK else {})


def _make_network(definition: Mapping[str, Any]) -> nn.Module:
    module, _, attribute = definition["_target_"].rpartition(".")
    factory = import_callable(f"{module}:{attribute}", "factory")
    net: nn.Module = factory(**{key: value for key, value in definition.items() if key != "_target_"})
    return net


def _model_card(task: FoldTask, tested: pd.DataFrame) -> str:
    metrics = measure((tested["group"] == task.groups[1]).to_numpy(), tested["p"].to_numpy())
    n = {part: len({scan.participant_id for scan in getattr(task.manifest, part)}) for part in PARTS}
    shape = " x ".join(map(str, task.scans.grid.shape))
    lines = [
        f"# {task.title}",
        "",
        "For research; no medical device. Use it to explain only participants it has never seen:",
        "`configs/manifest.json` lists them, and all those it was trained with.",
        "",
        *([f"**Caution:** {task.caution}.", ""] if task.caution else []),
        f"- Participants: {n['train']} trained the model, {n['validation']} decided when training",
        f"  stopped, {n['test']} tested it",
        f"- Network: `{task.network}` on {shape} voxels; recipe `{task.recipe}`",
        f"- Input: each scan is {_TAKEN[task.scans.intensities]}, then standardised voxel by voxel with",
        "  `models/mean.nii.gz` and `models/std.nii.gz` of the training scans",
        f"- `models/reference.nii.gz`: mean of the training scans of {task.groups[0]}",
        "",
        "Metrics of its test scans:",
        "",
        "| " + " | ".join(metrics) + " |",
        "|" + "---|" * len(metrics),
        "| " + " | ".join(f"{value:.3f}" for value in metrics.values()) + " |",
    ]
    return "\n".join(lines) + "\n"
