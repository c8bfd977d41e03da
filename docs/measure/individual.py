"""Measure whether the map of one participant is that participant's own: docs/individual.md.

Simulated participants that the shipped network was not trained on are scanned several times, and explained by the presets,
by feature ablation and by a control that has no model. Does a rescan find its owner? Does the score of a region follow that
participant's own disease? And which averages help? Settings are chosen on the participants of one seed and reported on those
of another.

Every map is a file in ``--cache``, so that a run that was stopped goes on (about 8 minutes of one core).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import binomtest, rankdata

from glas3d import Atlas, Predictor, explain_img, load_model
from glas3d.evaluate import attribute, true_effects
from glas3d.evaluate.metrics import repeatability
from glas3d.imaging.space import VoxelGrid
from glas3d.predict import ModelInfo, PaperNet, Recipe, Standardisation, intensity_scale, train
from glas3d.simulate import GROUPS, PLANTED, Simulation, scan_img, simulate_participant, simulate_participants

PAGE = Path(__file__).parents[1] / "individual.md"
REVISION = 2  # increase it when the code computes other numbers: nothing of an older cache is used then
MODEL, TARGET, ENGINE = "adnc-simulated", "AD", "openvino"
CHOICE_SEED, REPORT_SEED, TRAINING_SEED = 14_001, 14_002, 14_003
# A map is called the participant's own where both lower ends of the 95 % intervals, on the report half, reach these.
LEAST_IDENTIFIED, LEAST_FOLLOWS = 0.8, 0.5
DRAWS = 2000  # of the bootstrap over participants

Values = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Size:
    """How large everything is.

    Attributes
    ----------
    chosen, reported
        Participants with AD of the two halves.
    resolution
        Voxel size in mm of the scans of the shipped network.
    fold_resolution, training, folds, epochs
        Voxel size in mm, participants, folds and passes over the training scans of the small study.
    """

    chosen: int = 12
    reported: int = 20
    resolution: float = 4.0
    fold_resolution: float = 8.0
    training: int = 150
    folds: int = 5
    epochs: int = 20


# ---- statistics ---------------------------------------------------------------------------------------------------


def noisy(volume: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Return a scan with as much noise again as its scanner added."""
    added = rng.standard_normal(volume.shape) * noise * intensity_scale(torch.as_tensor(volume))
    return np.where(volume > 0, np.maximum(volume + added, 0), 0).astype(np.float32)


def identified(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return for each participant whether the second scan's map is most like the first of the same participant.

    Parameters
    ----------
    first, second
        ``(n, m)``: values of ``m`` regions of the first and of the second scan. Their likeness is Pearson's correlation.

    Returns
    -------
    ``(n,)`` booleans; among ``n`` participants chance is ``1 / n``.
    """
    n = len(first)
    alike = np.corrcoef(second, first)[:n, n:]
    return np.asarray(alike.argmax(axis=1) == np.arange(n))


def spearman(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation over participants, region by region.

    Parameters
    ----------
    scores, truth
        ``(..., n, r)``: values of ``n`` participants and ``r`` regions.

    Returns
    -------
    ``(..., r)``; 0 where all values of a region are the same, which follow nothing.
    """
    x, y = (rankdata(values, axis=-2) for values in (scores, truth))
    x, y = (ranks - ranks.mean(axis=-2, keepdims=True) for ranks in (x, y))
    spread = np.sqrt((x**2).sum(axis=-2) * (y**2).sum(axis=-2))
    return np.asarray((x * y).sum(axis=-2) / np.where(spread > 0, spread, 1))


def beyond_general(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the partial Spearman correlation of scores and truth, given the participant's mean truth over the regions.

    Disease of all regions rises together, so that one number for all of them would follow each a little. This is what a
    region's score knows of its own region beyond that. Shapes are those of `spearman`.
    """
    general = np.broadcast_to(truth.mean(axis=-1, keepdims=True), truth.shape)
    xy, xz, yz = spearman(scores, truth), spearman(scores, general), spearman(truth, general)
    left = np.sqrt(np.clip((1 - xz**2) * (1 - yz**2), 0, None))
    return np.asarray((xy - xz * yz) / np.where(left > 1e-9, left, np.inf))


Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]


def bootstrapped(scores: np.ndarray, truth: np.ndarray, statistic: Statistic = spearman) -> np.ndarray:
    """Return the statistic in bootstrap draws of participants, ``(DRAWS, r)``; the draws are the same at every call."""
    drawn = np.random.default_rng(0).integers(len(scores), size=(DRAWS, len(scores)))
    return statistic(scores[drawn], truth[drawn])


def with_interval(value: float, draws: np.ndarray) -> str:
    """Return a value with the 95 % interval of its bootstrap draws."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def share(hits: np.ndarray) -> tuple[float, float, float]:
    """Return the share of participants who were identified, with its exact 95 % interval (Clopper & Pearson 1934)."""
    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, method="exact")
    return float(hits.mean()), float(interval.low), float(interval.high)


# ---- maps ---------------------------------------------------------------------------------------------------------

EVIDENCE = {"preset": "evidence"}
MAPS: dict[str, dict[str, Any]] = {
    "evidence": EVIDENCE,
    "noise 1": EVIDENCE,  # of the scan with noise added
    "4 mm": EVIDENCE | {"sigma_light": 4.0, "sigma_shadow": 4.0, "unit": "mm"},
    "blur": EVIDENCE | {"background": "blur"},
    "unmatched": EVIDENCE | {"background": "reference"},
    "paper": {"preset": "paper"},
    "feature ablation": {"method": "feature_ablation", "link": "logit"},
    "difference": {"method": "difference"},
}


def values_of(predict: Predictor, simulation: Simulation, number: int, scan: int, name: str) -> dict[str, list[float]]:
    """Return the values of the regions of a participant's scan by one of `MAPS`: ``score``, and what else it has."""
    volume = simulate_participant(simulation, number, scan=scan).volume
    if name.startswith("noise"):
        volume = noisy(volume, simulation.noise, np.random.default_rng([number, scan, int(name[-1])]))
    img, keywords = scan_img(simulation, volume), MAPS[name]
    if "method" in keywords:
        return {"score": attribute(img, predict, TARGET, **keywords).table["score"].tolist()}
    r = explain_img(img, predict, TARGET, search=Atlas.load("AAL"), engine=ENGINE, **keywords)
    columns = {column: r.table[column].tolist() for column in ("score", "drop", "density")}
    return columns | {"effect": [r.provenance["Account"]["effect"]] * len(r.table)}


@dataclass(frozen=True)
class Cohort:
    """The participants of a half, whose values are read from the cache, or computed.

    Attributes
    ----------
    predict, network
        A network, and its name in the cache.
    seed, participants, resolution
        The seed, the number of participants with AD, and the voxel size of their scans in mm.
    cache
        Folder of the maps.
    """

    predict: Predictor
    network: str
    seed: int
    participants: int
    resolution: float
    cache: Path

    @property
    def simulation(self) -> Simulation:
        """The cohort; participants with even numbers have AD."""
        return Simulation(seed=self.seed, resolution=self.resolution)

    @property
    def numbers(self) -> range:
        """Numbers of the participants with AD."""
        return range(0, 2 * self.participants, 2)

    def column(self, name: str, scan: int = 0, column: str = "score") -> np.ndarray:
        """Return the values ``(n, m)`` of all participants by one of `MAPS`."""
        rows = [
            self._stored(
                {"map": name, "keywords": MAPS[name], "number": number, "scan": scan},
                lambda number=number: values_of(self.predict, self.simulation, number, scan, name),
            )[column]
            for number in self.numbers
        ]
        return np.array(rows, dtype=float)

    @cached_property
    def severity(self) -> np.ndarray:
        """The share of grey matter that each participant lost in each planted region, ``(n, r)``."""
        return np.array([simulate_participant(self.simulation, number).severity for number in self.numbers])

    @cached_property
    def effects(self) -> np.ndarray:
        """The true effect of each participant's own disease in each planted region on the network, ``(n, r)``."""
        rows = []
        for number in self.numbers:
            measured = self._stored(
                {"effects": number},
                lambda number=number: (
                    true_effects(self.predict, self.simulation, number, TARGET)
                    .set_index("name")["effect"][list(PLANTED)]
                    .tolist()
                ),
            )
            rows.append(measured)
        return np.array(rows)

    def _stored(self, unit: dict[str, Any], measure: Callable[[], Any]) -> Any:
        """Return the content of a unit's file, which is written when it is complete."""
        decides = unit | {
            "network": self.network,
            "simulation": self.simulation.record(),
            "engine": ENGINE,
            "revision": REVISION,
        }
        key = sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()[:16]
        path = self.cache / f"{key}.json"
        if not path.exists():
            result = measure()
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(result), encoding="utf-8")
            partial.replace(path)
            print(f"{self.network}, seed {self.seed}: {unit}", flush=True)
        return json.loads(path.read_text(encoding="utf-8"))


def consensus(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return what two backgrounds agree on: the median of their scores, each divided by the sum of their sizes."""
    scaled = [values / np.nansum(np.abs(values), axis=-1, keepdims=True) for values in (first, second)]
    return np.asarray((scaled[0] + scaled[1]) / 2)


UNMATCHED = "the reference not matched to the scan"
# What a user may read as a participant's map: the scores of one explanation, or an average of several.
READINGS: dict[str, Callable[[Callable[..., np.ndarray]], np.ndarray]] = {
    "evidence": lambda column: column("evidence"),
    "shadow alone": lambda column: column("evidence", column="drop"),
    "density": lambda column: column("evidence", column="density"),
    UNMATCHED: lambda column: column("unmatched"),
    "masks of 4 mm": lambda column: column("4 mm"),
    "mean of masks of 1 and 4 mm": lambda column: (column("evidence") + column("4 mm")) / 2,
    "mean of the scan and one with noise added": lambda column: (column("evidence") + column("noise 1")) / 2,
    "mean of 2 references": lambda column: (column("evidence") + column("blur")) / 2,
    "consensus of 2 references": lambda column: consensus(column("evidence"), column("blur")),
}
NO_MODEL = "no model: `difference`"
RIVALS: dict[str, Callable[[Callable[..., np.ndarray]], np.ndarray]] = {
    "paper": lambda column: column("paper"),
    "feature ablation": lambda column: column("feature ablation"),
    NO_MODEL: lambda column: column("difference"),
}
DEFAULT = "evidence"
TWO_SCANS, OUTPUT = "mean of 2 scans", "the output alone"


def columns_of(cohort: Cohort, scan: int) -> Callable[..., np.ndarray]:
    """Return the function that gives the columns of a scan of all participants."""
    return lambda name, column="score": cohort.column(name, scan, column)


# ---- networks of a small study ------------------------------------------------------------------------------------


def fold_networks(size: Size, cache: Path) -> list[Predictor]:
    """Return the networks of the folds of a small study, trained if the cache lacks them."""
    grid = Simulation(resolution=size.fold_resolution).grid
    paths = [
        cache / f"fold-{fold}-of-{size.folds}-{size.training}-{size.epochs}.safetensors" for fold in range(size.folds)
    ]
    if not all(path.exists() for path in paths):
        cohort = Simulation(participants=size.training, seed=TRAINING_SEED, resolution=size.fold_resolution)
        people = list(simulate_participants(cohort))
        volumes = torch.as_tensor(np.stack([p.volume / np.float32(intensity_scale(p.volume)) for p in people]))[:, None]
        labels = torch.as_tensor([GROUPS.index(p.group) for p in people])
        for fold, path in enumerate(paths):
            kept = torch.arange(len(people)) // 2 % size.folds != fold  # groups alternate
            reference = volumes[kept][labels[kept] == 0].mean(dim=0)
            sigma = (1.5 * 4 / size.fold_resolution, 5 * 4 / size.fold_resolution)
            recipe = Recipe(
                epochs=size.epochs, pretraining=0, label_smoothing=0.05, augmented=0.5, sigma=sigma, seed=fold
            )
            net, standardisation = train(volumes[kept], labels[kept], reference, recipe)
            state = {f"net.{name}": values for name, values in net.state_dict().items()}
            state |= {"mean": standardisation.mean, "std": standardisation.std, "reference": reference}
            cache.mkdir(parents=True, exist_ok=True)
            save_file({name: values.contiguous() for name, values in state.items()}, path)
            print(f"trained: {path}", flush=True)
    return [fold_network(path, grid) for path in paths]


def fold_network(path: Path, grid: VoxelGrid) -> Predictor:
    """Return the predictor of a fold's file."""
    state = load_file(path)
    net = PaperNet(grid.shape, 1, 2, batch_norm=True)
    net.load_state_dict({name.removeprefix("net."): values for name, values in state.items() if name[:4] == "net."})
    info = ModelInfo(name=path.stem, grid=grid, channels=1, reference=state["reference"].numpy())
    standardisation = Standardisation(state["mean"], state["std"])
    return Predictor(net.eval(), "softmax", standardisation, "cpu", classes=GROUPS, info=info)


# ---- what was measured --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """How far the maps of one reading are the participants' own.

    Attributes
    ----------
    maps
        ``(2, n, m)``: values of the regions of two scans of each participant.
    severity, effects
        ``(n, r)``, see `Cohort`.
    """

    maps: np.ndarray
    severity: np.ndarray
    effects: np.ndarray

    @cached_property
    def planted(self) -> np.ndarray:
        """The first scan's scores of the planted regions, ``(n, r)``."""
        names = Atlas.load("AAL").table["name"].tolist()
        return self.maps[0][:, [names.index(region) for region in PLANTED]]

    @cached_property
    def _known(self) -> tuple[np.ndarray, np.ndarray]:
        """Both scans' maps, without regions that have no voxel on the grid: raw, and less the group's mean map."""
        raw = self.maps[:, :, np.isfinite(self.maps).all(axis=(0, 1))]
        return raw, raw - raw.mean(axis=1, keepdims=True)

    def identified(self, *, own: bool) -> np.ndarray:
        """Return whether each rescan finds its owner, from whole maps or, ``own``, from what differs from the mean map."""
        return identified(*self._known[own])

    def likeness(self, *, own: bool) -> str:
        """Return the mean correlation within and between participants."""
        maps = self._known[own]
        repeated = repeatability(np.concatenate(maps), [*range(maps.shape[1])] * 2)
        return f"{repeated.within:.2f} / {repeated.between:.2f}"

    def follows(self, truth: np.ndarray, statistic: Statistic = spearman) -> tuple[float, np.ndarray]:
        """Return how scores follow a truth, a mean over the planted regions, and its bootstrap draws."""
        value = float(statistic(self.planted, truth).mean())
        return value, bootstrapped(self.planted, truth, statistic).mean(axis=-1)


def follows_row(name: str, measured: Measured, against: Measured) -> str:
    """Return the row of a reading in the table of how scores follow the participant's own disease."""
    cells = [with_interval(*measured.follows(truth)) for truth in (measured.effects, measured.severity)]
    cells.append(with_interval(*measured.follows(measured.severity, beyond_general)))
    (value, draws), (other, of_other) = measured.follows(measured.effects), against.follows(against.effects)
    cells.append("" if measured is against else with_interval(value - other, draws - of_other))
    return f"| {name} | " + " | ".join(cells) + " |"


def identity_row(name: str, measured: Measured) -> str:
    """Return the row of a reading in the table of how rescans find their owners."""
    cells = []
    for own in (False, True):
        rate, low, high = share(measured.identified(own=own))
        cells += [measured.likeness(own=own), f"{rate:.2f} [{low:.2f}, {high:.2f}]"]
    return f"| {name} | " + " | ".join(cells) + " |"


FOLLOWS_HEADER = [
    "| map | own true effect | own severity | own severity, beyond the general one | true effect, less that of evidence |",
    "|---|---|---|---|---|",
]
IDENTITY_HEADER = [
    "| map | within / between, whole map | identified | within / between, less the mean map | identified |",
    "|---|---|---|---|---|",
]


def chosen_reading(readings: Mapping[str, Measured]) -> str:
    """Return the reading that follows the participants' own true effects best."""
    return max(readings, key=lambda name: readings[name].follows(readings[name].effects)[0])


def own_map(measured: Measured) -> bool:
    """Return whether a map can be read as the participant's own, by the two bounds."""
    identified = share(measured.identified(own=True))[1]
    return identified >= LEAST_IDENTIFIED and np.quantile(measured.follows(measured.effects)[1], 0.025) >= LEAST_FOLLOWS


def measure(size: Size, cache: Path, predict: Predictor | None = None) -> dict[str, dict[str, Measured]]:
    """Return what was measured, by part (``choice``, ``report``, ``folds``) and reading."""
    shipped = predict or load_model(MODEL, device="cpu")
    choice = Cohort(shipped, MODEL, CHOICE_SEED, size.chosen, size.resolution, cache)
    report = Cohort(shipped, MODEL, REPORT_SEED, size.reported, size.resolution, cache)

    def of(cohort: Cohort, maps: Sequence[np.ndarray]) -> Measured:
        return Measured(np.stack(maps), cohort.severity, cohort.effects)

    first = columns_of(choice, 0)
    chosen = {name: of(choice, [reading(first)] * 2) for name, reading in READINGS.items()}
    best = chosen_reading(chosen)
    reported = {}
    shown = {DEFAULT, UNMATCHED, "shadow alone", "density", best}
    for name, reading in (READINGS | RIVALS).items():
        if name in shown or name in RIVALS:
            reported[name] = of(report, [reading(columns_of(report, scan)) for scan in (0, 1)])
    four = [report.column("evidence", scan) for scan in range(4)]
    reported[TWO_SCANS] = of(report, [(four[0] + four[1]) / 2, (four[2] + four[3]) / 2])
    output = of(report, [report.column("evidence", scan, "effect") for scan in (0, 1)])
    small = Cohort(shipped, "", REPORT_SEED, size.reported, size.fold_resolution, cache)
    folds = [replace(small, predict=net, network=net.info.name) for net in fold_networks(size, cache)]
    alone = {
        f"network {i + 1}": of(fold, [fold.column("evidence", scan) for scan in (0, 1)]) for i, fold in enumerate(folds)
    }
    together = Measured(
        np.mean([each.maps for each in alone.values()], axis=0),
        small.severity,
        np.mean([each.effects for each in alone.values()], axis=0),
    )
    return {
        "choice": chosen,
        "report": reported,
        "output": {OUTPUT: output},
        "folds": alone | {f"mean of {len(folds)} networks": together},
    }


# ---- the page -----------------------------------------------------------------------------------------------------


def page_of(parts: Mapping[str, Mapping[str, Measured]], size: Size) -> str:
    """Return the page."""
    choice, report, folds = parts["choice"], parts["report"], parts["folds"]
    best, default, output = chosen_reading(choice), report[DEFAULT], parts["output"][OUTPUT]
    rate, low, high = share(default.identified(own=True))
    alone, alone_low, alone_high = share(report[NO_MODEL].identified(own=True))
    lines = [
        "# Is a participant's map that participant's own?",
        "",
        *verdict(default, report["feature ablation"], output),
        "",
        f"`docs/measure/individual.py` wrote this page (`make measure`). The network is the shipped `{MODEL}` on its own grid",
        f"of {size.resolution:g} mm, the engine {ENGINE}. Participants are simulated ([simulation.md](simulation.md)), all with AD, with the",
        f"severities that the network was trained on, and no network has seen them: {size.chosen} of seed {CHOICE_SEED} by which settings were",
        f"chosen (*choice*), {size.reported} of seed {REPORT_SEED} by which they are reported (*report*). Rescans have the same anatomy and disease, and",
        "another bias field, noise and scale. Maps have the model's reference, matched to the scan, unless they say otherwise; *paper* has",
        "it as it is.",
        "",
        "**Two bounds, stated before.** A map is called a participant's own if, on the report half, the lower ends of both 95 %",
        f"intervals reach them: {LEAST_IDENTIFIED} of the rescans find their owner once the group's mean map is removed, and {LEAST_FOLLOWS} is the mean Spearman",
        "correlation of a region's score with the true effect of the participant's own disease there.",
        "",
        "## Does a region's score follow the participant's own disease?",
        "",
        "Spearman's correlation over participants of a region's score with (1) the *true effect* of that participant's own disease",
        "in the region on the network, by twins; (2) the *severity*, the share of grey matter lost there; (3) the same beyond the",
        "participant's mean severity (a partial correlation), because the disease of all regions rises together. Means over the",
        f"{len(PLANTED)} planted regions; brackets are 95 % bootstrap intervals over participants, and the last column is paired.",
        "",
        f"Choice half ({size.chosen} participants), by which the best is chosen:",
        "",
        *FOLLOWS_HEADER,
        *(
            follows_row(f"**{name}**" if name == best else name, each, choice[DEFAULT])
            for name, each in sorted(choice.items(), key=lambda item: -item[1].follows(item[1].effects)[0])
        ),
        "",
        f"Report half ({size.reported} participants):",
        "",
        *FOLLOWS_HEADER,
        *(follows_row(name, each, default) for name, each in report.items()),
        follows_row(f"{OUTPUT} (its log-odds, for every region)", output, default),
        "",
        "The mean of masks of 1 and 4 mm comes from `glas3d explain SCAN --model M --target AD --scales 1 4 --out DIR`, where the default's",
        "masks are of 1 mm: it writes a table for each (`desc-scale1` and `desc-scale4`), and the mean of their columns `evidence` is what was",
        "measured here. The joined table (`desc-scales`) has standard scores within one scan, which participants cannot be compared by.",
        "",
        "Region by region, with the true effect (report half; the spread is that of the true effects over participants):",
        "",
        *regions_table(report),
        "",
        "## Does a rescan find its owner?",
        "",
        "*Within / between*: mean correlation over regions of two scans of one participant, and of different participants.",
        f"*Identified*: how often a second scan's map is most like the first of the same participant, among {size.reported} (chance {1 / size.reported:.2f}), with",
        "exact 95 % intervals. The mean map of the group makes all maps alike; it is then removed. Report half:",
        "",
        *IDENTITY_HEADER,
        *(identity_row(name, each) for name, each in report.items()),
        "",
        f"That a rescan finds its owner ({rate:.2f} [{low:.2f}, {high:.2f}] by evidence) says that the map repeats, not that it is right: the",
        f"control without a model finds {alone:.2f} [{alone_low:.2f}, {alone_high:.2f}] by anatomy alone.",
        "",
        "## Networks of a small study",
        "",
        f"{size.training} other participants (seed {TRAINING_SEED}) at {size.fold_resolution:g} mm, {size.folds} folds: each network was trained on four fifths, plainly by the",
        "participants' groups. The report half's participants, who are in no fold, are explained by each and by their mean. In log-odds",
        "the mean evidence of networks is the evidence of their mean log-odds, whose true effects are the mean of theirs.",
        "",
        FOLLOWS_HEADER[0].rpartition(" true effect, less")[0],
        "|---|---|---|---|",
        *(follows_row(name, each, each).rpartition("  |")[0] for name, each in folds.items()),
        "",
        *IDENTITY_HEADER,
        *(identity_row(name, each) for name, each in folds.items()),
    ]
    return "\n".join(lines) + "\n"


def regions_table(report: Mapping[str, Measured]) -> list[str]:
    """Return how scores follow the true effect in each planted region."""
    shown = [DEFAULT, *RIVALS, TWO_SCANS]
    lines = ["| region | true effect, mean (SD) | " + " | ".join(shown) + " |", "|---|---|" + "---|" * len(shown)]
    each = {name: report[name] for name in shown}
    effects = report[DEFAULT].effects
    correlations = {
        name: (spearman(m.planted, m.effects), bootstrapped(m.planted, m.effects)) for name, m in each.items()
    }
    for i, region in enumerate(PLANTED):
        cells = [f"{effects[:, i].mean():.2f} ({effects[:, i].std(ddof=1):.2f})"]
        cells += [with_interval(value[i], draws[:, i]) for value, draws in correlations.values()]
        lines.append(f"| {region} | " + " | ".join(cells) + " |")
    return lines


def verdict(default: Measured, ablation: Measured, output: Measured) -> list[str]:
    """Return what follows, in words."""
    (value, draws), (severity, of_severity) = default.follows(default.effects), default.follows(default.severity)
    (beyond, of_beyond) = default.follows(default.severity, beyond_general)
    follows = (
        f"a region's score follows the true effect of the participant's own disease with {with_interval(value, draws)} (Spearman), "
        f"its severity with {with_interval(severity, of_severity)}, and {with_interval(beyond, of_beyond)} beyond the participant's general severity; "
        f"the network's output alone, one number for all regions, has {output.follows(output.effects)[0]:.2f} with the true effect, "
        f"feature ablation {ablation.follows(ablation.effects)[0]:.2f}"
    )
    if own_map(default):
        return [
            "**On these participants, yes.** By the default, both bounds below are met: " + follows + ".",
            "A region that is not among those with large effects is still to be read in groups.",
        ]
    return ["**Read groups, not single participants.** By the default, " + follows + "."]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, nargs="?", default=PAGE, help="path of the page")
    parser.add_argument("--cache", type=Path, default=Path(".individual"), help="folder of maps and networks")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    size = Size()
    options.page.write_text(page_of(measure(size, options.cache), size), encoding="utf-8")
    print(f"written: {options.page}", flush=True)


if __name__ == "__main__":
    main()
