"""Measure which explanation methods follow what a model truly uses: docs/truth.md and its record docs/truth.tsv.

``make truth`` runs this script. Networks are trained on simulated participants with planted disease, participants whom
none has seen are explained by every method, and the values of the regions are compared with the true effects that twins
measure (docs/simulation.md). Settings of light and shadow are chosen on one half of the networks and reported on the
other half, whose participants are others, too.

Everything is cached in ``--cache``: a folder for each network, and a file for each network, method, participant and scan.
A run that was stopped goes on where it was. Work is ordered so that a part of it is already balanced. The record keeps
what earlier runs measured, so that the page can be written again without the cache (``--page``). ``--short`` is a trial
of the same design on a coarse grid, in at most five minutes; it writes next to its cache.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import sha256
from importlib import import_module
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# the C library keeps freed memory: returning and requesting it again takes half of the training time
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**32))
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**34))

import numpy as np
import pandas as pd
import torch
from scipy.stats import bootstrap
from torch import nn

from glas3d import Predictor, load_model
from glas3d.counts import counted
from glas3d.evaluate import true_effects
from glas3d.evaluate.rivals.methods import METHODS
from glas3d.evaluate.truth import Truth, method_values
from glas3d.explain.preset import DEFAULT, EVIDENCE_PRESET
from glas3d.output import new_folder
from glas3d.predict import BundleDescription, Recipe, intensity_scale, train, write_bundle
from glas3d.simulate import GROUPS, PLANTED, Simulation, simulate_participant, simulate_participants

DOCS = Path(__file__).parents[1]
REVISION = 1  # increase it when the code computes other numbers: nothing of an older cache is used then

# What is planted: one region, three small and large ones with a suppressor, the six of the demo, ten. The fewer regions
# there are, the more of each is lost, so that networks learn the disease; that of one hippocampus alone they do not.
SETS: dict[str, dict[str, Any]] = {
    "one": {"regions": ("Temporal_Mid_L",), "severity": (0.6, 0.95)},
    "three": {
        "regions": ("Amygdala_R", "Precuneus_L", "Temporal_Mid_R"),
        "suppressor": "Insula_L",
        "severity": (0.6, 0.95),
    },
    "six": {"regions": PLANTED, "severity": (0.5, 0.9)},
    "ten": {
        "regions": (*PLANTED, "ParaHippocampal_L", "ParaHippocampal_R", "Precuneus_L", "Precuneus_R"),
        "severity": (0.4, 0.8),
    },
}
CHOICE_SEEDS = (0, 2)  # settings are chosen on the networks of these seeds, and reported on those of all others
PAPER, DENSENET, RESNET = "paper", "DenseNet121", "ResNet10"
MONAI: dict[str, dict[str, Any]] = {
    DENSENET: {"_target_": "monai.networks.nets.DenseNet121", "spatial_dims": 3, "in_channels": 1, "out_channels": 2},
    RESNET: {"_target_": "monai.networks.nets.resnet10", "spatial_dims": 3, "n_input_channels": 1, "num_classes": 2},
}

# ---- the methods --------------------------------------------------------------------------------------------------

BOTH_ENDS: dict[str, dict[str, Any]] = {"method": "glas", "engine": "eager", "unit": "mm"}


def evidence(sigma: float, **more: Any) -> dict[str, Any]:
    """Return the keywords of evidence in log-odds, by masks of the regions' own shape with this blur in mm."""
    masks = {"kernel": "segment", "sigma_light": float(sigma), "sigma_shadow": float(sigma)}
    return BOTH_ENDS | masks | {"fusion": "mean", "link": "logit"} | more


def round_masks(light: float, shadow: float, **more: Any) -> dict[str, Any]:
    """Return the keywords of round masks with these sigmas in mm."""
    return BOTH_ENDS | {"kernel": "gaussian", "sigma_light": light, "sigma_shadow": shadow} | more


SIGMAS = (1, 2, 4, 8)  # mm, from edges that are sharp on a grid of 4 mm to masks that overlap
PRESET_SIGMA = EVIDENCE_PRESET["sigma_light"]
MATCHED = {"background": "matched"}  # the model's reference, matched to the scan
# The settings that could become a preset, and the rivals that they are measured against.
DECIDING: dict[str, dict[str, Any]] = {
    "glas_paper": {"method": "glas_paper", "engine": "eager"},
    "glas_evidence": evidence(PRESET_SIGMA, **MATCHED),  # in full, so that the cache knows the preset's values
    "feature_ablation": {"method": "feature_ablation", "link": "logit"},
    **{f"evidence {sigma} mm": evidence(sigma) for sigma in SIGMAS},
    **{f"shadow {sigma} mm": evidence(sigma, fusion="shadow") for sigma in SIGMAS[:-1]},
    "integrated_gradients": {"method": "integrated_gradients"},
    "shadow, matched": evidence(PRESET_SIGMA, fusion="shadow", **MATCHED),
    "feature_ablation, matched": {"method": "feature_ablation", "link": "logit", **MATCHED},
    "integrated_gradients, matched": {"method": "integrated_gradients", **MATCHED},
}
# Slow by default; each also with as many evaluations as light and shadow take.
SLOW = {"lime": {"n_samples": 233}, "rise": {"n_masks": 233}, "mask": {}}
OTHERS: dict[str, dict[str, Any]] = {
    "product 8/12 mm, round": round_masks(8, 12, fusion="product", link="probability"),
    "product 4 mm": evidence(4, fusion="product", link="probability"),
    "feature_ablation, probability": {"method": "feature_ablation", "link": "probability"},
    f"evidence {PRESET_SIGMA:g} mm, probability": evidence(PRESET_SIGMA, link="probability"),
    "evidence 8/12 mm, round": round_masks(8, 12, fusion="mean", link="logit"),
    "shadow 8 mm": evidence(8, fusion="shadow"),
    "light 4 mm": evidence(4, fusion="light"),
    "glas_paper, darkness": {"method": "glas_paper", "engine": "eager", "background": 0.0},
    "glas_evidence, darkness": evidence(PRESET_SIGMA, background=0.0),
    "feature_ablation, darkness": {"method": "feature_ablation", "link": "logit", "background": 0.0},
    **{
        name: {"method": name}
        for name in METHODS
        if name not in ("glas", *SLOW, *DECIDING)  # `glas` is one of the presets
    },
    **{f"{name}, 233 evaluations": {"method": name} | equal for name, equal in SLOW.items() if equal},
    **{f"{name}, matched": {"method": name, **MATCHED} for name in ("input_x_gradient", "shapley_sampling")},
    "glas_evidence, refine 0.5": evidence(PRESET_SIGMA, refine=0.5, **MATCHED),  # as many as feature ablation takes
    "glas_evidence, refine 0.4": evidence(PRESET_SIGMA, refine=0.4, **MATCHED),
    "shadow, matched, refine 0.5": evidence(PRESET_SIGMA, fusion="shadow", refine=0.5, **MATCHED),
    "shadow, matched, refine 0.4": evidence(PRESET_SIGMA, fusion="shadow", refine=0.4, **MATCHED),
}
METHODS_RUN = DECIDING | OTHERS | {name: {"method": name} for name in SLOW}
_SAME = 5e-4  # differences below this are none
DEFAULTS = ("glas_paper", "glas_evidence")
BASELINE = "feature_ablation"


def candidate(method: str, ends: int) -> bool:
    """Return whether a method is light and shadow with this number of ends: 2 take 2 m + 2 evaluations, 1 m + 1.

    Those that mask regions together take fewer.
    """
    keywords = METHODS_RUN[method]
    if not keywords["method"].startswith("glas") or keywords.get("background") == 0.0 or "refine" in keywords:
        return False
    return (1 if keywords.get("fusion") in ("light", "shadow") else 2) == ends


# ---- the design ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    """A network of the design.

    Attributes
    ----------
    architecture
        ``"paper"``, or one of MONAI's.
    augmented
        Whether it was trained with light and shadow.
    planted
        The name of its set of planted regions.
    seed
        Seed of its weights and of its training cohort.
    """

    architecture: str
    augmented: bool
    planted: str
    seed: int

    @property
    def half(self) -> str:
        """Whether settings are chosen or reported on it."""
        return "choice" if self.seed in CHOICE_SEEDS else "report"

    @property
    def label(self) -> str:
        """Its name in messages."""
        return f"{self.architecture}{'' if self.augmented else ', plain'}, {self.planted}, seed {self.seed}"


@dataclass(frozen=True)
class Size:
    """How large everything is.

    Attributes
    ----------
    resolution
        Voxel size in mm.
    training, unseen
        Participants who train a network, and who measure its accuracy.
    epochs, monai_epochs
        Passes over the training cohort.
    explained
        Participants with AD who are explained by every method.
    least_accuracy
        A network below this balanced accuracy has not learnt the disease: it is counted, and nothing else.
    """

    resolution: float = 4.0
    training: int = 160
    unseen: int = 80
    epochs: int = 14
    monai_epochs: int = 10
    explained: int = 3
    least_accuracy: float = 0.8


@dataclass(frozen=True)
class Stage:
    """A part of the work: methods on networks, in an order in which any part of it is balanced."""

    networks: Sequence[Network]
    methods: Sequence[str]


def networks(
    seeds: Sequence[int],
    sets: Sequence[str] = ("six", "ten", "three", "one"),
    *,
    augmented: bool = True,
    by: str = PAPER,
) -> list[Network]:
    """Return networks, set by set, so that both halves have each."""
    return [Network(by, augmented, planted, seed) for planted in sets for seed in seeds]


FIRST, LATER = networks((0, 1)), networks((2, 3, 4))
PLAIN = networks(range(5), augmented=False)
DEEP = [net for by in (RESNET, DENSENET) for net in networks((0, 1), ("six",), by=by)]
# What decides the defaults comes first on all networks, then each rival on the first of them.
FULL = (
    Stage(FIRST, tuple(DECIDING)),
    Stage(LATER, tuple(DECIDING)),
    Stage(FIRST, tuple(OTHERS)),
    Stage(PLAIN, tuple(DECIDING)),
    Stage(DEEP, tuple(DECIDING)),
    Stage(FIRST, tuple(SLOW)),
    Stage([*LATER, *PLAIN, *DEEP], tuple(METHODS_RUN)),
)
SHORT = (Stage(networks((0, 1), ("six",)), (*DECIDING, "difference")),)
SHORT_SIZE = Size(resolution=8.0, training=200, unseen=20, epochs=40, explained=2, least_accuracy=0)


@dataclass(frozen=True)
class Bench:
    """Where the parts of the benchmark are computed, or read if they have been."""

    folder: Path
    size: Size = field(default_factory=Size)

    def simulation(self, network: Network, purpose: str, participants: int = 2) -> Simulation:
        """Return the cohort of a purpose; participants who are explained are the same for all networks of a half."""
        own = network.seed if purpose in ("training", "unseen") else int(network.half == "report")
        number = {"training": 0, "unseen": 1, "explained": 2}[purpose]
        seed = 10_000 + 1_000 * number + 10 * own + list(SETS).index(network.planted)
        planted = SETS[network.planted]
        return Simulation(participants=participants, seed=seed, resolution=self.size.resolution, **planted)

    def key(self, network: Network, **unit: Any) -> str:
        """Return the hash of everything that decides a network, or a unit of its work."""
        simulations = {
            purpose: self.simulation(network, purpose).record() for purpose in ("training", "unseen", "explained")
        }
        decides = {
            "network": asdict(network),
            "recipe": asdict(self.recipe(network)),
            "training": self.size.training,
            "simulations": {name: str(record) for name, record in simulations.items()},
            "revision": REVISION,
            "versions": {name: version(name) for name in ("torch", "captum", "monai")},
            "unit": unit,
        }
        return sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def recipe(self, network: Network) -> Recipe:
        """Return how a network is trained: in few epochs, with half of the scans as they are so that these suffice."""
        epochs = self.size.epochs if network.architecture == PAPER else self.size.monai_epochs
        pretraining = 1 if network.architecture == PAPER else 0
        augmented = 0.5 if network.augmented else 0.0
        return Recipe(epochs=epochs, pretraining=pretraining, augmented=augmented, seed=network.seed)

    def cohort(self, network: Network, purpose: str, participants: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return simulated volumes ``(n, 1, *shape)`` and class indices ``(n,)``."""
        people = list(simulate_participants(self.simulation(network, purpose, participants)))
        volumes = torch.as_tensor(np.stack([p.volume for p in people]))[:, None]
        return volumes, torch.as_tensor([GROUPS.index(p.group) for p in people])

    def trained(self, network: Network) -> Predictor:
        """Return a network, trained if it has not been."""
        folder = self.folder / "networks" / self.key(network)
        if not folder.exists():
            with new_folder(folder) as scratch:
                self._train(network, scratch)
        return loaded(folder)

    def _train(self, network: Network, folder: Path) -> None:
        volumes, labels = self.cohort(network, "training", self.size.training)
        scaled = volumes / torch.tensor([intensity_scale(v) for v in volumes]).view(-1, 1, 1, 1, 1)
        reference = scaled[labels == GROUPS.index("NC")].mean(dim=0)
        recipe, grid = self.recipe(network), self.simulation(network, "training").grid
        definition = MONAI.get(
            network.architecture,
            {"_target_": "glas3d.predict.networks.PaperNet", "shape": list(grid.shape), "batch_norm": True},
        )
        made = None if network.architecture == PAPER else lambda: monai_network(network.architecture)
        net, standardisation = train(scaled, labels, reference, recipe, network=made)
        description = BundleDescription(
            name=network.label,
            description="A network of the benchmark of true effects",
            version="0.1.0",
            classes=GROUPS,
            grid=grid,
            standardisation=standardisation,
            reference=reference.numpy(),
            preset={},
            card=f"# {network.label}\n",
            skull_stripped=True,
        )
        write_bundle(folder, net, definition, description)

    def accuracy(self, network: Network) -> dict[str, float]:
        """Return balanced accuracy on participants whom the network has not seen, and the share of certain answers."""

        def measured() -> dict[str, float]:
            predict = self.trained(network)
            volumes, labels = self.cohort(network, "unseen", self.size.unseen)
            p = np.array([float(predict.fit(v)(v[None])[0, 1]) for v in volumes])
            ill = labels.numpy() == GROUPS.index("AD")
            balanced = ((p > 0.5)[ill].mean() + (p <= 0.5)[~ill].mean()) / 2
            return {"accuracy": float(balanced), "certain": float((np.maximum(p, 1 - p) > 0.999).mean())}

        return self._stored(network, measured, purpose="accuracy", unseen=self.size.unseen)

    def effects(self, network: Network, number: int) -> pd.DataFrame:
        """Return the true effects of a participant."""

        def measured() -> dict[str, Any]:
            simulation = self.simulation(network, "explained")
            return true_effects(self.trained(network), simulation, number).to_dict("list")

        stored = self._stored(network, measured, purpose="effects", number=number)
        return pd.DataFrame(stored).assign(participant=number)

    def values(self, network: Network, method: str, number: int) -> pd.DataFrame:
        """Return the values of the regions of a participant by a method."""

        def measured() -> dict[str, Any]:
            simulation, predict = self.simulation(network, "explained"), self.trained(network)
            volume = simulate_participant(simulation, number).volume
            keywords = {"background": "reference", **METHODS_RUN[method]}
            return method_values(predict, simulation, volume, keywords).to_dict("list")

        stored = self._stored(network, measured, **self._unit(method, number))
        return pd.DataFrame(stored).assign(method=method, participant=number)

    def has(self, network: Network, method: str, number: int) -> bool:
        """Return whether these values have been computed."""
        return self._path(network, **self._unit(method, number)).exists()

    @staticmethod
    def _unit(method: str, number: int) -> dict[str, Any]:
        # each participant has one scan; its number stays in the key, so that what was measured before is still used
        return {"purpose": "values", "keywords": METHODS_RUN[method], "number": number, "scan": 0}

    def _path(self, network: Network, **unit: Any) -> Path:
        return self.folder / "units" / self.key(network) / f"{self.key(network, **unit)}.json"

    def _stored(self, network: Network, measure: Any, **unit: Any) -> Any:
        """Return the content of a unit's file, which is written when it is complete."""
        path = self._path(network, **unit)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            content = json.dumps({"unit": unit, "result": measure()}, default=str)
            partial = path.with_suffix(f".{os.getpid()}.partial")
            partial.write_text(content, encoding="utf-8")
            partial.replace(path)
        return json.loads(path.read_text(encoding="utf-8"))["result"]


@cache
def loaded(folder: Path) -> Predictor:
    """Return the network of a folder."""
    return load_model(folder, device="cpu")


def monai_network(architecture: str) -> nn.Module:
    """Return an untrained network of MONAI."""
    module, _, name = MONAI[architecture]["_target_"].rpartition(".")
    arguments = {key: value for key, value in MONAI[architecture].items() if key != "_target_"}
    made: nn.Module = getattr(import_module(module), name)(**arguments)
    return made


# ---- the run ------------------------------------------------------------------------------------------------------


def units_of(bench: Bench, stage: Stage) -> list[tuple[str, int]]:
    """Return the method and participant of every unit of a network in a stage; numbers of AD are even."""
    return [(method, 2 * i) for i in range(bench.size.explained) for method in stage.methods]


def work(bench: Bench, stage: Stage, network: Network, until: float) -> Iterator[str]:
    """Compute what a network lacks in a stage, unit by unit; a network that has not learnt is left alone."""
    missing = [unit for unit in units_of(bench, stage) if not bench.has(network, *unit)]
    if not missing or time.time() > until:
        return
    accuracy = bench.accuracy(network)["accuracy"]
    yield f"{network.label}: balanced accuracy {accuracy:.3f}"
    if accuracy < bench.size.least_accuracy:
        return
    for number in sorted({number for _, number in units_of(bench, stage)}):
        if time.time() < until:
            bench.effects(network, number)
    for method, number in missing:
        if time.time() > until:
            return
        bench.values(network, method, number)
        yield f"{network.label}: {method}, participant {number + 1}"


def run(bench: Bench, stages: Sequence[Stage], workers: int, until: float) -> None:
    """Compute all that is missing, and print a line for each unit with what is left."""
    pending = [(stage, network) for stage in stages for network in stage.networks]
    units = {(network, *unit) for stage, network in pending for unit in units_of(bench, stage)}
    total, begin, done = sum(not bench.has(*unit) for unit in units), time.time(), 0
    print(f"{total} explanations are to be computed in {bench.folder}", flush=True)
    for stage in stages:
        for line in lines_of(bench, stage, workers, until):
            done += "participant" in line
            pace = (time.time() - begin) / max(done, 1)
            print(f"[{done} of {total}, about {pace * (total - done) / 3600:.1f} h left] {line}", flush=True)


def lines_of(bench: Bench, stage: Stage, workers: int, until: float) -> Iterator[str]:
    """Yield the messages of a stage, whose networks are divided among processes."""
    if workers == 1:
        for network in stage.networks:
            yield from work(bench, stage, network, until)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        each = [pool.submit(messages, bench, stage, network, until) for network in stage.networks]
        for future in each:
            yield from future.result()


def messages(bench: Bench, stage: Stage, network: Network, until: float) -> list[str]:
    """Return the messages of a network in a stage, computed in a process of its own."""
    torch.set_num_threads(1)
    return list(work(bench, stage, network, until))


# ---- the record ---------------------------------------------------------------------------------------------------

OF_NETWORK = ("architecture", "augmented", "planted", "seed", "half", "accuracy", "certain")


def record_of(bench: Bench, stages: Sequence[Stage]) -> pd.DataFrame:
    """Return what the cache holds: how methods follow the truth.

    A network counts once all of its deciding methods have been computed for all participants, and a further method once
    it has been, too.
    """
    numbers = range(0, 2 * bench.size.explained, 2)
    rows = []
    for network in dict.fromkeys(network for stage in stages for network in stage.networks):
        done = [name for name in METHODS_RUN if all(bench.has(network, name, number) for number in numbers)]
        if not set(DECIDING) <= set(done):
            continue
        truth = Truth(
            pd.concat([bench.values(network, name, number) for name in done for number in numbers], ignore_index=True),
            pd.concat([bench.effects(network, number) for number in numbers], ignore_index=True),
        )
        by_group = truth.by_group().assign(participant="group")
        by_participant = truth.by_participant()
        by_participant["participant"] = [f"{number + 1:04d}" for number in by_participant["participant"]]
        both = pd.concat([by_participant, by_group], ignore_index=True)
        rows.append(both.assign(**asdict(network), half=network.half, **bench.accuracy(network)))
    columns = [*OF_NETWORK, "method", "participant"]
    values = ["evaluations", "seconds", "r", "spearman", "ap", "ap_density", "ap_used"]
    return pd.concat(rows, ignore_index=True)[columns + values] if rows else pd.DataFrame(columns=columns + values)


def merged(path: Path, new: pd.DataFrame) -> pd.DataFrame:
    """Return the record of a file with the networks and methods that were measured anew."""
    if not path.exists() or new.empty:
        return pd.read_csv(path, sep="\t") if path.exists() else new
    old = pd.read_csv(path, sep="\t")
    keys = ["architecture", "augmented", "planted", "seed", "method"]
    again = pd.MultiIndex.from_frame(new[keys])
    kept = old[~pd.MultiIndex.from_frame(old[keys]).isin(again)]
    return pd.concat([kept, new], ignore_index=True) if len(kept) else new


# ---- the page -----------------------------------------------------------------------------------------------------

REASONS = {
    "integrated_gradients": "It follows the network's own gradient from the reference to the scan, so that it knows what a "
    "part of a region does; masks remove a region as a whole. It needs gradients, which ONNX files and services lack.",
    "input_x_gradient": "Near the reference these small networks are nearly linear, and for a linear network the gradient "
    "times the difference from the reference is exact. It needs gradients, and deep networks are less linear.",
    "feature_ablation": "It is the shadow of masks with sharp edges. Where a network uses few regions that do not interact, "
    "the second end adds nothing but what light does to a network that sees nearly no tissue.",
    "difference": "It is no explanation: it knows the control mean and no network, and so finds what was planted, used by the "
    "network or not, while its r is low.",
    "integrated_gradients_mean": "A mean over voxels prefers small regions, of which many were planted; by r it is far behind.",
    "feature_ablation, probability": "Where the output is not certain, the probability falls as the log-odds do.",
    "lime": "It takes four times as many evaluations, and averages over what the other regions may be.",
    "shapley_sampling": "It averages over what the other regions may be, which matters where regions interact.",
}

SHADOW_ALONE = """Shadow alone scores the absolute drop (Eq. 2): a region whose removal *raises* the log-odds ranks as high as one whose
removal lowers them by as much. True effects are hardly ever that large below zero, so that the correlation gains, but in
the order of the regions such a one stands before small regions that were planted, and average precision loses. Where the
order matters, read the signed `drop` in the same table: it is what feature ablation gives."""

RULE = """The default is evidence with the matched reference (`glas_evidence`). On the choice half it ties with shadow alone by mean r.
It is the default because each region has a sign, for the class or against it, and small regions that were planted rank higher
(average precision by density); it takes twice the evaluations. Shadow alone follows networks as closely on the report half, or
more so."""

DENSENET_DID_NOT_LEARN = """DenseNet121 of MONAI has not learnt the disease from so few participants: its balanced accuracy was 0.55 and 0.61 with the
settings of the others, 0.75 to 0.76 with 16 to 30 epochs, half of the learning rate and larger batches, with and without light and
shadow, and 0.44 with group norms in place of batch norms. With the set *three* it was 0.78, where it knew all of the
participants who trained it. It is in the design and not in the record."""

FEWER = """Where a network uses few regions, most groups do nothing, and what little noise they have is not measured: maps follow the
network better than with all evaluations. Where it uses many that lie side by side, some of them share what their group does,
and small regions that were planted cannot be distinguished from their neighbours: correlation and average precision lose."""


def baseline_of(method: str) -> str:
    """Return the feature ablation with the same link and reference."""
    keywords = METHODS_RUN[method]
    if "background" in keywords:
        return "feature_ablation, matched" if keywords["background"] == "matched" else "feature_ablation, darkness"
    paper = keywords["method"] == "glas_paper" or keywords.get("link") == "probability"
    return "feature_ablation, probability" if paper else BASELINE


def two_digits(value: float) -> str:
    """Return a number with two digits; empty where it was not measured."""
    return f"{value:.2f}" if np.isfinite(value) else ""


def interval(values: np.ndarray, statistic: Any = np.mean) -> str:
    """Return a statistic over networks with its 95 % bootstrap interval."""
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if not len(values):
        return ""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    low, high = bounds(values, statistic)
    return f"{statistic(values):.3f} [{low:.3f}, {high:.3f}]"


def bounds(values: np.ndarray, statistic: Any) -> tuple[float, float]:
    """Return the ends of the 95 % bootstrap interval of a statistic over networks; NaN for one network alone."""
    if len(values) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(0)
    found = bootstrap((values,), statistic, n_resamples=9999, method="percentile", vectorized=True, rng=rng)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


class Family:
    """The networks of one kind in one half: of each the mean over participants, and the group's values.

    Parameters
    ----------
    record
        Rows of one architecture and training.
    half
        ``"choice"`` or ``"report"``.
    """

    def __init__(self, record: pd.DataFrame, half: str) -> None:
        rows = record[record["half"] == half]
        self.rows, self.half, keys = rows, half, ["planted", "seed"]
        single = rows[rows["participant"] != "group"].groupby(["method", *keys])
        self.means = single[["evaluations", "seconds", "r", "spearman"]].mean()
        self.group = rows[rows["participant"] == "group"].set_index(["method", *keys])[
            ["r", "ap", "ap_density", "ap_used"]
        ]
        self.n_networks = len(rows[keys].drop_duplicates())

    def with_rivals(self) -> Family:
        """Return the networks for which all rivals were computed, but for those that are slow."""
        networks = self.rows.groupby(["planted", "seed"])
        return Family(networks.filter(lambda rows: set(OTHERS) <= set(rows["method"])), self.half)

    def parts(self) -> list[Family]:
        """Return the family, then those of its networks for which all rivals were computed, if these are some only."""
        wide = self.with_rivals()
        return [self, wide] if 0 < wide.n_networks < self.n_networks else [self] if self.n_networks else []

    @property
    def methods(self) -> list[str]:
        """Methods that every network of the family has."""
        counts = self.means.groupby("method").size()
        return [name for name in METHODS_RUN if counts.get(name, 0) == self.n_networks]

    def of(self, method: str, column: str) -> pd.Series:
        """Return the values of the networks by a method."""
        table = self.group if column.startswith("ap") else self.means
        return table.loc[method][column]

    def difference(self, method: str, other: str, column: str = "r") -> np.ndarray:
        """Return by how much a method is ahead of another, network by network."""
        return (self.of(method, column) - self.of(other, column)).to_numpy()

    def ahead(self, method: str) -> np.ndarray:
        """Return by how much a method is ahead of the matched feature ablation; empty where there is none."""
        against = baseline_of(method)
        known = against in self.methods and method not in (against, BASELINE)
        return self.difference(method, against) if known else np.array([])

    def best(self, ends: int) -> str:
        """Return the candidate setting with this number of ends that has the highest mean r."""
        return max((m for m in self.methods if candidate(m, ends)), key=lambda m: self.of(m, "r").mean())

    def table(self, order: Sequence[str]) -> list[str]:
        """Return one row for each method, as a table in Markdown."""
        lines = [
            "| method | evaluations | s | median r | r - r of feature ablation | Spearman | AP | AP, density | AP, used |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for method in order:
            cells = [
                f"`{method}`" if method in METHODS else method,
                f"{self.of(method, 'evaluations').median():.0f}",
                f"{self.of(method, 'seconds').median():.1f}",
                interval(self.of(method, "r").to_numpy(), np.median),
                interval(self.ahead(method)),
                f"{self.of(method, 'spearman').mean():.2f}",
                *(two_digits(self.of(method, column).mean()) for column in ("ap", "ap_density", "ap_used")),
            ]
            lines.append("| " + " | ".join(cells) + " |")
        return lines


def families(record: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of each kind of network, by its title."""
    titles = {
        (PAPER, True): "The paper's network, trained with light and shadow",
        (PAPER, False): "The paper's network, trained without them",
        (RESNET, True): "ResNet10 of MONAI",
        (DENSENET, True): "DenseNet121 of MONAI",
    }
    by_kind = dict(list(record.groupby(["architecture", "augmented"])))
    return {title: by_kind[kind] for kind, title in titles.items() if kind in by_kind}


def page_of(record: pd.DataFrame, bench: Bench) -> str:
    """Return the page of a record."""
    first = next(iter(families(record).values()))
    choice, report = Family(first, "choice"), Family(first, "report")
    lines = [*introduction(record, bench), *chosen(choice, report), *reported(record, report)]
    lines += [*expected(report, choice.best(2), choice.best(1)), *fewer(report), *losses(record), *sets(report)]
    return "\n".join(lines) + "\n"


def introduction(record: pd.DataFrame, bench: Bench) -> list[str]:
    """Return what was measured, and the networks."""
    kept = record.drop_duplicates(["architecture", "augmented", "planted", "seed"])
    lines = [
        "# Which methods follow the model?",
        "",
        "Where disease was planted is not what a network uses, so that a map can look right and be wrong about the model. Here",
        "every method's values of the 116 AAL regions are compared with the *true effect* of each region: what its disease changes",
        "in the network's log-odds, measured with twins ([simulation.md](simulation.md)). `make truth` wrote this page from",
        "[truth.tsv](truth.tsv); `make truth-short` is a trial of five minutes. What maps of single participants are worth",
        "is measured apart ([individual.md](individual.md)).",
        "",
        f"**{len(kept)} networks stand in the record**; the full design has {n_networks(FULL)}. A network is",
        f"trained on {bench.size.training} simulated participants at {bench.size.resolution:g} mm for {bench.size.epochs} epochs, and counts if its balanced accuracy is at least",
        f"{bench.size.least_accuracy} on {bench.size.unseen} others. {bench.size.explained} AD participants of a third cohort are explained. Four sets of regions are planted: "
        + "; ".join(
            f"*{name}*: {', '.join(each['regions'])}"
            + (f" (suppressor {each['suppressor']})" if "suppressor" in each else "")
            for name, each in SETS.items()
        )
        + ".",
        "",
        DENSENET_DID_NOT_LEARN,
        "",
        "| networks | half | planted: number, balanced accuracy | certain (P beyond 0.999) |",
        "|---|---|---|---|",
    ]
    for title, rows in families(kept).items():
        for half, of_half in rows.groupby("half"):
            by_set = [f"{s} {len(g)}, {g['accuracy'].mean():.2f}" for s, g in of_half.groupby("planted", sort=False)]
            lines.append(f"| {title} | {half} | {'; '.join(by_set)} | {of_half['certain'].mean():.0%} |")
    return [
        *lines,
        "",
        f"**Two halves.** Settings of light and shadow were chosen on the networks of seeds {' and '.join(map(str, CHOICE_SEEDS))} (*choice*) and are reported on",
        "those of the other seeds (*report*), whose training cohorts and explained participants are others.",
        "",
        "**Columns.** *r*: Pearson's correlation of the values with the true effects over all regions, a mean over a network's",
        "participants; *Spearman*: over the regions with an effect. *AP*: average precision of the planted regions in the group's table,",
        "in the order of the scores and of the scores for one voxel (density); *used*: of the regions that the network uses, whose mean",
        "effect is at least a twentieth of the largest, by density. What was planted and is hardly used cannot rank high in a map that",
        "follows the network. Brackets are 95 % bootstrap intervals over networks, with few networks too narrow",
        "rather than too wide. The difference is paired: the same networks and participants, and feature ablation with the same",
        "explained number (log-odds or probability) and reference. *Evaluations*: of the network for one scan, a backward pass counted",
        "as two. *s*: seconds of one processor for one scan, the eager network; those of the networks without light and shadow were",
        "taken on a busy machine, and are twice as long. The reference is the control mean, darkness where the",
        "name says so, and for `glas_evidence` and where it says *matched* the control mean scaled to the scan around each region",
        "([method.md](method.md)). *evidence*, *shadow*, *light* and *product* are masks of the regions' own shape unless they are",
        "round, in log-odds unless they are of a probability. *AP* of light by density is empty where it was measured before light in",
        "log-odds was counted from the background.",
        "",
    ]


def n_networks(stages: Sequence[Stage]) -> int:
    """Return the number of networks of a design."""
    return len({network for stage in stages for network in stage.networks})


def chosen(choice: Family, report: Family) -> list[str]:
    """Return the settings that were chosen, with their numbers on both halves."""
    lines = [
        "## The settings of light and shadow",
        "",
        f"Chosen on {choice.n_networks} networks by mean r, the best with both ends (2 m + 2 evaluations) and with one (m + 1).",
        "",
        f"| setting | evaluations | mean r, choice ({choice.n_networks}) | mean r, report ({report.n_networks}) |",
        "|---|---|---|---|",
    ]
    best = {choice.best(ends) for ends in (2, 1)}
    for method in choice.methods:
        if candidate(method, 2) or candidate(method, 1):
            cells = [f"**{method}**" if method in best else method, f"{choice.of(method, 'evaluations').median():.0f}"]
            cells.append(interval(choice.of(method, "r").to_numpy()))
            cells.append(interval(report.of(method, "r").to_numpy()) if method in report.methods else "")
            lines.append("| " + " | ".join(cells) + " |")
    return [*lines, "", RULE, ""]


def reported(record: pd.DataFrame, report: Family) -> list[str]:
    """Return the tables of all methods, a kind of network each, ordered by r on the first."""
    lines = []
    for title, rows in families(record).items():
        for number, family in enumerate(Family(rows, "report").parts()):
            n = family.n_networks
            heading = f"## {title}: {counted(n, 'network')} of the report half"
            lines += [f"### Every method, on {n} of these networks" if number else heading, ""]
            lines += [*ordered_table(family), ""]
    return lines


def ordered_table(family: Family) -> list[str]:
    """Return the table of all methods of a family, by their median r."""
    return family.table(sorted(family.methods, key=lambda m: -family.of(m, "r").median()))


def expected(report: Family, both_ended: str, one_ended: str) -> list[str]:
    """Return whether the default, and the best settings of the choice half, do what is expected of them."""
    lines = [
        "## What is expected, on the report half",
        "",
        "| | median r, at least 0.94 | lower end of r - r of feature ablation, at least -0.02 | AP by density, at least 0.90 | AP of used regions |",
        "|---|---|---|---|---|",
    ]
    roles = {f"glas_{DEFAULT}": "the default", both_ended: "chosen, both ends", one_ended: "chosen, one end"}
    roles[f"glas_{DEFAULT}"] = "the default"  # also where it was chosen
    for method, role in roles.items():
        low = bounds(report.ahead(method), np.mean)[0]
        found = (
            report.of(method, "r").median(),
            low,
            *(report.of(method, ap).mean() for ap in ("ap_density", "ap_used")),
        )
        least = (0.94, -0.02, 0.90, 0.90)
        cells = [
            f"{value:.3f}, {'yes' if value >= bound else 'no'}" if np.isfinite(value) else "n/a"
            for value, bound in zip(found, least, strict=True)
        ]
        lines.append(f"| {role}: {method} | " + " | ".join(cells) + " |")
    if METHODS_RUN[one_ended].get("fusion") == "shadow":
        lines += ["", SHADOW_ALONE]
    return [*lines, ""]


def fewer(report: Family) -> list[str]:
    """Return what masking regions together costs and gains, by planted set."""
    wide = report.with_rivals()
    shown = [m for m in wide.methods if "refine" in METHODS_RUN[m]]
    if not shown:
        return []
    order = [m for whole in ("glas_evidence", "shadow, matched") for m in (whole, *(s for s in shown if whole in s))]
    lines = [
        "## Fewer evaluations: regions masked together",
        "",
        f"`refine` masks neighbouring regions together, and divides the groups that do most ([speed.md](speed.md)); {wide.n_networks} networks of",
        "the report half.",
        "",
        "| method | evaluations | median r | " + " | ".join(f"mean r, {name}" for name in SETS) + " | AP, density |",
        "|---|---|---|" + "---|" * (len(SETS) + 1),
    ]
    for method in order:
        means = wide.of(method, "r")
        cells = [method, f"{wide.of(method, 'evaluations').median():.0f}", f"{means.median():.3f}"]
        of_sets = means.groupby("planted").mean()
        cells += [f"{of_sets[name]:.3f}" if name in of_sets else "" for name in SETS]
        lines.append("| " + " | ".join([*cells, f"{wide.of(method, 'ap_density').mean():.2f}"]) + " |")
    return [*lines, "", FEWER, ""]


def losses(record: pd.DataFrame) -> list[str]:
    """Return which rivals are ahead of the default by any measure, in each kind of network, and why."""
    default, measures = f"glas_{DEFAULT}", ("r", "ap", "ap_density")
    lines = [
        f"## Where rivals are ahead of the default (`{default}`)",
        "",
        "By mean r, or by average precision in the order of scores or densities; means over the networks, less those of the",
        "default.",
        "",
        "| networks of the report half | method | r | AP | AP, density |",
        "|---|---|---|---|---|",
    ]
    reasons: dict[str, None] = {}
    parts = [(title, part) for title, rows in families(record).items() for part in Family(rows, "report").parts()]
    shown: set[tuple[str, str]] = set()
    for title, family in parts:
        methods = [m for m in family.methods if (title, m) not in shown]
        shown |= {(title, m) for m in methods}
        rivals = [m for m in methods if not METHODS_RUN[m]["method"].startswith("glas")]
        means = {m: [family.difference(m, default, measure).mean() for measure in measures] for m in rivals}
        ahead = [m for m in rivals if max(means[m]) > _SAME]
        for method in sorted(ahead, key=lambda m: -means[m][0]):
            cells = [f"**{value:+z.3f}**" if value > _SAME else f"{value:+z.3f}" for value in means[method]]
            lines.append(f"| {title} ({family.n_networks}) | {method} | " + " | ".join(cells) + " |")
            reasons[method.removesuffix(", matched")] = None
    return [*lines, "", *(f"- `{method}`: {REASONS[method]}" for method in reasons if method in REASONS), ""]


def sets(report: Family) -> list[str]:
    """Return the mean r by planted set."""
    shown = [
        m
        for m in (*DEFAULTS, "shadow, matched", "feature_ablation, matched", BASELINE, "integrated_gradients")
        if m in report.methods
    ]
    lines = ["## By planted set", "", "| planted | " + " | ".join(shown) + " |", "|---|" + "---|" * len(shown)]
    for name in SETS:
        means = (
            report.means.xs(name, level="planted") if name in report.means.index.get_level_values("planted") else None
        )
        if means is not None:
            lines.append(f"| {name} | " + " | ".join(f"{means.loc[m]['r'].mean():.3f}" for m in shown) + " |")
    return [*lines, ""]


def main() -> None:
    """Run the benchmark, and write its record and page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path(".truth"), help="folder of networks and units")
    parser.add_argument("--hours", type=float, default=8.0, help="stop after so many hours")
    parser.add_argument("--workers", type=int, default=2, help="processes; each takes a core")
    parser.add_argument("--short", action="store_true", help="a trial on a coarse grid")
    parser.add_argument("--page", action="store_true", help="compute nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    bench, stages, out = Bench(options.cache), FULL, DOCS
    if options.short:
        bench, stages, out = Bench(options.cache / "short", SHORT_SIZE), SHORT, options.cache / "short"
    if not options.page:
        run(bench, stages, options.workers, time.time() + 3600 * options.hours)
    write(bench, stages, out)


def write(bench: Bench, stages: Sequence[Stage], folder: Path) -> None:
    """Write the record and the page of what has been measured."""
    record = merged(folder / "truth.tsv", record_of(bench, stages))
    if len(record):
        record.to_csv(folder / "truth.tsv", sep="\t", index=False, float_format="%.5g")
    if set(record["half"]) == {"choice", "report"}:
        (folder / "truth.md").write_text(page_of(record, bench), encoding="utf-8")
        print(f"written: {folder / 'truth.md'}", flush=True)


if __name__ == "__main__":
    main()
