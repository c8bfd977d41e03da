"""Train one fold and write its bundle, in this process or another."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from glas3d.core.threads import torch_threads
from glas3d.errors import GlasError
from glas3d.output import new_folder
from glas3d.predict.bundle import write_bundle
from glas3d.predict.predictor import Predictor
from glas3d.predict.training import Change, Recipe, Report, mean_of, train
from glas3d.study.training.manifest import PARTS, FoldManifest
from glas3d.study.training.performance import measure
from glas3d.study.training.stored_scans import StoredScans
from glas3d.tables import write_table

PREDICTIONS = Path("results") / "predictions.tsv"
LEARNING = Path("results") / "learning.tsv"

PAPER = "glas3d.predict.networks:PaperNet"


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldTask:
    """All that one fold needs.

    Attributes
    ----------
    place
        Folder of the bundle to write.
    manifest
        Who trains and who is tested.
    table
        A row a stored scan: ``participant_id session group sha256``.
    scans
        Of every row.
    groups
        Control and case, in this order.
    network, change
        ``package.module:name`` of what makes the network; what is done to training scans.
    """

    place: Path
    manifest: FoldManifest
    table: pd.DataFrame
    scans: StoredScans
    recipe: Recipe
    groups: tuple[str, str]
    network: str
    change: Change | None
    preset: Mapping[str, Any]
    threads: int
    device: str
    overwrite: bool


def train_fold(task: FoldTask, report: Report = lambda stage, epoch, loss: None) -> Path:
    """Train, test and write; the folder appears when everything is done.

    Raises
    ------
    GlasError
        See `glas3d.predict.training.train`, or the folder cannot be written.
    """
    rows = {part: _rows(task, part) for part in PARTS}
    labels = torch.as_tensor([task.groups.index(group) for group in task.table["group"]])
    scans = {part: _some(task.scans, rows[part]) for part in PARTS}
    known = {part: labels[rows[part]] for part in PARTS}
    definition = network_def(task.network, task.scans.grid.shape, task.recipe)
    curve: list[tuple[str, int, float]] = []

    def keep(stage: str, epoch: int, loss: float) -> None:
        curve.append((stage, epoch, loss))
        report(stage, epoch, loss)

    with torch_threads(task.threads), new_folder(task.place, lambda place: task.overwrite) as scratch:
        reference = mean_of(scans["train"], torch.nonzero(known["train"] == 0)[:, 0])
        net, standardisation = train(
            scans["train"],
            known["train"],
            reference,
            task.recipe,
            keep,
            validation=(scans["validation"], known["validation"]) if len(scans["validation"]) else None,
            network=None if task.network == PAPER else lambda: _make(definition),
            change=task.change,
            device=task.device,
        )
        predict = Predictor(net, "softmax", standardisation, "cpu", classes=task.groups)
        answers = []
        for row in range(len(scans["test"])):
            volume = scans["test"][[row]]
            answers.append(float(predict.fit(volume[0])(volume)[0, 1]))
        tested = task.table.iloc[rows["test"]][["participant_id", "session", "group"]]
        tested = tested.assign(fold=task.manifest.fold, p=answers)
        tested["predicted"] = [task.groups[p > 0.5] for p in answers]
        write_bundle(
            scratch,
            net,
            definition,
            name=f"{task.groups[1]}-{task.groups[0]}-fold-{task.manifest.fold}",
            description=_title(task),
            version="0.1.0",
            classes=task.groups,
            grid=task.scans.grid,
            standardisation=standardisation,
            reference=reference.numpy(),
            preset=task.preset,
            card=_card(task, tested),
        )
        task.manifest.write(scratch)
        (scratch / "results").mkdir()
        write_table(blank_sessions(tested))(scratch / PREDICTIONS)
        write_table(pd.DataFrame(curve, columns=["stage", "epoch", "loss"]))(scratch / LEARNING)
    return task.place


def blank_sessions(table: pd.DataFrame) -> pd.DataFrame:
    """For a file: no session is no value."""
    return table.assign(session=table["session"].where(table["session"] != ""))


def named(thing: str | Callable[..., Any], what: str) -> str:
    """``package.module:name`` of a callable that can be imported again.

    Raises
    ------
    GlasError
        It cannot: a lambda, a function made in a function, or a name of nothing.
    """
    spec = thing if isinstance(thing, str) else f"{thing.__module__}:{getattr(thing, '__qualname__', '')}"
    found = resolve(spec, what)
    if not isinstance(thing, str) and found is not thing:
        raise GlasError(f"a {what} must be importable as package.module:name, {spec} is something else")
    return spec


def resolve(spec: str, what: str) -> Any:
    """What ``package.module:name`` names.

    Raises
    ------
    GlasError
        Nothing, or nothing that can be called.
    """
    module, _, attribute = spec.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise GlasError(f"a {what} must be importable as package.module:name, {spec} is not: {error}") from None
    if not callable(found):
        raise GlasError(f"a {what} must be callable, {spec} is a {type(found).__name__}")
    return found


def network_def(network: str, shape: Sequence[int], recipe: Recipe) -> dict[str, Any]:
    """What makes the network again, for a bundle: `PAPER`, or a factory given ``shape channels classes``."""
    made: dict[str, Any] = {"_target_": network.replace(":", "."), "shape": [int(n) for n in shape]}
    made |= {"channels": 1, "classes": 2}
    return made | ({"batch_norm": True, "dropout": recipe.dropout} if network == PAPER else {})


def _make(definition: Mapping[str, Any]) -> nn.Module:
    module, _, attribute = definition["_target_"].rpartition(".")
    factory = resolve(f"{module}:{attribute}", "factory")
    made: nn.Module = factory(**{key: value for key, value in definition.items() if key != "_target_"})
    return made


def _rows(task: FoldTask, part: str) -> list[int]:
    wanted = {(one.participant_id, one.session) for one in getattr(task.manifest, part)}
    keys = zip(task.table["participant_id"], task.table["session"], strict=True)
    return [row for row, key in enumerate(keys) if key in wanted]


def _some(scans: StoredScans, rows: Sequence[int]) -> StoredScans:
    return StoredScans(tuple(scans.files[row] for row in rows), scans.grid)


def _title(task: FoldTask) -> str:
    return f"{task.groups[1]} against {task.groups[0]}, fold {task.manifest.fold} of {task.manifest.folds}"


def _card(task: FoldTask, tested: pd.DataFrame) -> str:
    found = measure((tested["group"] == task.groups[1]).to_numpy(), tested["p"].to_numpy())
    people = {part: len({one.participant_id for one in getattr(task.manifest, part)}) for part in PARTS}
    shape = " x ".join(map(str, task.scans.grid.shape))
    lines = [
        f"# {_title(task)}",
        "",
        "For research; no medical device. Explain with it only participants it never saw: `configs/manifest.json`",
        "lists them and everyone it was trained on.",
        "",
        f"- Participants: {people['train']} to train, {people['validation']} to say when to stop,",
        f"  {people['test']} to test",
        f"- Network: `{task.network}` on {shape} voxels; recipe `{task.recipe}`",
        "- Input: each scan is scaled by its own brightness, then standardised voxel by voxel with",
        "  `models/mean.nii.gz` and `models/std.nii.gz` of the training scans",
        f"- `models/reference.nii.gz`: mean of the training scans of {task.groups[0]}",
        "",
        "Its test scans:",
        "",
        "| " + " | ".join(found) + " |",
        "|" + "---|" * len(found),
        "| " + " | ".join(f"{value:.3f}" for value in found.values()) + " |",
    ]
    return "\n".join(lines) + "\n"
