# %% [markdown]
# # Train the shipped model again
#
# `models/adnc-simulated` is the paper's network. A network that learns class indices may read one region and leave the
# others: disease of all planted regions comes together, and the largest is enough. So that each of them carries a share
# of the output that can be measured, this one learns log-odds that add up: those of a scan without disease, and an equal
# share for each planted region, in proportion to the severity of its disease. Twins with disease in some of the regions
# (docs/simulation.md) tell the shares apart. Random Gaussian light and shadow towards the control mean make perturbed
# scans familiar to the network; what they hide leaves the label, too.
#
# The script trains the network for three seeds, measures each on participants that no network has seen, and what disease
# of each planted region truly does to it, and writes the bundle of the first with the model card. `make model` runs it
# (about 30 minutes on two cores). The argument is another folder to write to. `explain` before it measures the explanations
# of the network in that folder again, with the defaults of `explain_img`, and writes that part of the card alone (a minute).

# %%
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from nilearn.datasets import load_mni152_template
from scipy.stats import spearmanr

from glas3d import GlasWarning, Predictor, explain_img, load_model
from glas3d.evaluate import true_effects
from glas3d.evaluate.true_effects import mean_effects
from glas3d.explain import ScanExplanation
from glas3d.imaging.space import mni_grid
from glas3d.predict import BundleDescription, Recipe, intensity_scale, train, write_bundle
from glas3d.simulate import (
    GROUPS,
    PLANTED,
    SimulatedParticipant,
    Simulation,
    simulate_participant,
    simulate_participants,
)
from glas3d.simulate.regions import region_shares
from glas3d.study.training.performance import debiased_calibration_error

TRAINING_SEEDS = (0, 1, 2)
TRAINING_SIZE, UNSEEN_SIZE, TEST_SIZE = 400, 120, 12
TWINS = 2  # for each training participant with AD
RECIPE = Recipe(epochs=14)
# Log-odds of AD that are learned: without disease, and with that of the mean participant with AD.
NONE_ILL, ALL_ILL = -3.0, 4.0
SATURATED = 0.999
CAUTION = "the model adnc-simulated learnt simulated disease: its output for a real person's scan means nothing"
EXPLAINED = "## Evidence"  # begins the part of the card that explanations of the network give
COHORTS = {"training": 1000, "unseen": 2000, "test": 4000}  # seeds of cohorts; that of training plus the network's seed


def simulation(kind: str, size: int, seed: int = 0) -> Simulation:
    """Return a cohort."""
    return Simulation(participants=size, seed=COHORTS[kind] + seed)


def tensors(people: list[SimulatedParticipant]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return volumes ``(n, 1, *shape)`` and class indices ``(n,)``."""
    volumes = torch.as_tensor(np.stack([p.volume for p in people]))[:, None]
    return volumes, torch.as_tensor([GROUPS.index(p.group) for p in people])


def training_twins(seed: int) -> Iterator[SimulatedParticipant]:
    """Yield twins of the training participants with AD: one region's disease alone, or that of each by a coin."""
    rng = np.random.default_rng(seed)
    of_cohort = simulation("training", TRAINING_SIZE, seed)
    for number in range(0, TRAINING_SIZE, 2):  # groups alternate, AD first
        for _ in range(TWINS):
            alone = rng.random() < 0.5
            keep = [rng.choice(PLANTED)] if alone else [region for region in PLANTED if rng.random() < 0.5]
            yield simulate_participant(of_cohort, number, keep)


@dataclass(frozen=True, eq=False)
class RegionalDisease:
    """Labels whose log-odds add up over the planted regions.

    Attributes
    ----------
    gained
        ``(n, regions)``, what disease of each region adds to the log-odds of a scan.
    """

    gained: torch.Tensor

    def __call__(self, rows: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of NC and AD of scans of which masks keep a share, see `glas3d.predict.train`."""
        regions = torch.tensor(region_shares(4.0, PLANTED), dtype=torch.float32)
        visible = torch.einsum("nxyz,rxyz->nr", kept[:, 0], regions) / regions.sum(dim=(1, 2, 3))
        log_odds = NONE_ILL + (self.gained[rows] * visible).sum(dim=1)
        return torch.stack([torch.sigmoid(-log_odds), torch.sigmoid(log_odds)], dim=1)


def accuracy(predict: Predictor, volumes: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Return balanced accuracy, its parts, the calibration error, and what share of each group is saturated."""
    p = np.array([float(predict.fit(v)(v[None])[0, 1]) for v in volumes])
    truth = labels.numpy().astype(bool)
    sensitivity, specificity = float((p > 0.5)[truth].mean()), float((p <= 0.5)[~truth].mean())
    saturated = np.maximum(p, 1 - p) > SATURATED
    return {
        "balanced accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "calibration error": debiased_calibration_error(truth, p),
        f"AD beyond {SATURATED}": float(saturated[truth].mean()),
        f"NC beyond {SATURATED}": float(saturated[~truth].mean()),
    }


def one_seed(seed: int) -> dict:
    """Train and measure the network of one seed."""
    torch.set_num_threads(1)  # one process for each core: two threads each would wait for each other
    trained = trained_network(seed)
    return trained | measured(trained)


def trained_network(seed: int) -> dict:
    """Return the network of one seed, the standardisation of its inputs and the control mean."""
    participants = list(simulate_participants(simulation("training", TRAINING_SIZE, seed)))
    people = [*participants, *training_twins(seed)]
    volumes, labels = tensors(people)
    scaled = volumes / torch.tensor([intensity_scale(v) for v in volumes]).view(-1, 1, 1, 1, 1)
    reference = scaled[:TRAINING_SIZE][labels[:TRAINING_SIZE] == GROUPS.index("NC")].mean(dim=0)
    severity = torch.tensor([p.severity for p in people], dtype=torch.float32)
    of_the_mean = severity[:TRAINING_SIZE][labels[:TRAINING_SIZE] == GROUPS.index("AD")].mean(dim=0)
    gained = severity / of_the_mean * (ALL_ILL - NONE_ILL) / len(PLANTED)

    def report(stage: str, epoch: int, loss: float) -> None:
        print(f"seed {seed} {stage} epoch {epoch} loss {loss:.4f}", flush=True)

    net, standardisation = train(scaled, RegionalDisease(gained), reference, replace(RECIPE, seed=seed), report)
    return {"seed": seed, "net": net, "standardisation": standardisation, "reference": reference.numpy()}


def measured(trained: dict) -> dict:
    """Return what is measured of a trained network."""
    predict = Predictor(trained["net"], "softmax", trained["standardisation"], "cpu", classes=GROUPS)
    tables = [true_effects(predict, simulation("test", TEST_SIZE), number) for number in range(0, TEST_SIZE, 2)]
    measures = {
        "accuracy": accuracy(predict, *tensors(list(simulate_participants(simulation("unseen", UNSEEN_SIZE))))),
        "effects": mean_effects(tables).set_index("name")["effect"][list(PLANTED)].to_dict(),
    }
    print(f"seed {trained['seed']}: {measures}", flush=True)
    return measures


def evidence(img: nib.Nifti1Image, predict: Predictor, background: str = "auto") -> ScanExplanation:
    """Return the explanation of a scan by the defaults."""
    with warnings.catch_warnings():  # of regions too small for the grid, and that the network learnt simulated disease
        warnings.simplefilter("ignore", GlasWarning)
        return explain_img(img, predict, "AD", background=background, assume_space="MNI")


def agreement(predict: Predictor, background: str) -> list[tuple[float, float]]:
    """Return, of each test participant with AD, how the evidence follows the true effects, and `accounted`."""
    tested, found = simulation("test", TEST_SIZE), []
    for number in range(0, TEST_SIZE, 2):
        truth = true_effects(predict, tested, number).set_index("index")["effect"]
        img = nib.Nifti1Image(simulate_participant(tested, number).volume, tested.grid.affine)
        result = evidence(img, predict, background)
        values = result.table.dropna(subset=["evidence"]).set_index("index")["evidence"]
        found.append((float(np.corrcoef(values, truth.loc[values.index])[0, 1]), result.explanation.accounted))
    return found


def resolutions(predict: Predictor) -> dict[int, tuple[float, float]]:
    """Return P(AD) of the template at 1, 2 and 4 mm, and Spearman's correlation of its evidence with that at 1 mm."""
    results = {mm: evidence(load_mni152_template(resolution=mm), predict) for mm in (1, 2, 4)}
    first = results[1].table["evidence"]
    return {
        mm: (result.probability, float(spearmanr(first, result.table["evidence"], nan_policy="omit").statistic))
        for mm, result in results.items()
    }


# %%
def smallest_share(trained: dict) -> float:
    """Return the smallest true effect of a planted region over the largest."""
    return min(trained["effects"].values()) / max(trained["effects"].values())


def of_all(accounted: Sequence[float]) -> str:
    """Return the lowest and the highest of what regions account for, of the participants that have it."""
    finite = [value for value in accounted if np.isfinite(value)]
    return f"{min(finite):.2f} to {max(finite):.2f}" if finite else "n/a"


def card(trained: list[dict]) -> str:
    """Return the model card without what explanations of the shipped network are like."""
    lines = [
        "# adnc-simulated: the paper's network on simulated Alzheimer's disease",
        "",
        "**It learnt simulated disease.** It was trained on volumes made from the ICBM152 template in which grey matter was",
        "thinned in six regions (by 30 to 70 % in hippocampus and amygdala, 0.6 times that in the inferior temporal gyrus). Its",
        "output for a real person's scan means nothing. It is for research on methods only and is no medical device.",
        "",
        "- Network: three 3x3x3 convolutions of 10 filters with batch norm, ReLU and 2x2x2 max pooling, dense 32 and 16, two",
        "  logits (NC, AD); after Oh, Kim & Oh 2020, section IV.E. The convolutions were pre-trained as an autoencoder.",
        f"- Training: {TRAINING_SIZE} simulated participants at 4 mm (48 x 56 x 48), half AD, and {TWINS} twins of each with AD, which",
        "  keep the disease of one region or of some (docs/simulation.md); recipe",
        f"  `{RECIPE}`.",
        "  Nine in ten scans were lit or shaded by one to five random Gaussian masks towards the control mean, so that the",
        "  network is familiar with perturbed scans.",
        f"- Labels: probabilities whose log-odds add up, {NONE_ILL:g} without disease and an equal share for each planted region, in",
        f"  proportion to the grey matter that it lost and that the masks leave to see, together {ALL_ILL - NONE_ILL:g} in the mean AD",
        "  participant. A network that learns class indices instead reads the inferior temporal gyrus and little else.",
        "- Input: a T1w scan of the brain without skull in MNI space. Each scan is scaled by its own brightness and then",
        "  standardised voxel by voxel with `models/mean.nii.gz` and `models/std.nii.gz`. `models/reference.nii.gz` is the mean",
        '  of the training controls; `background="auto"` puts it in place of tissue, matched to the scan.',
        f"- The network of seed {trained[0]['seed']} is shipped, the first. `make model` trains all again.",
        "",
        f"## Accuracy on {UNSEEN_SIZE} participants no network has seen",
        "",
        "| seed | " + " | ".join(trained[0]["accuracy"]) + " |",
        "|---" * (1 + len(trained[0]["accuracy"])) + "|",
        *(f"| {t['seed']} | " + " | ".join(f"{v:.3f}" for v in t["accuracy"].values()) + " |" for t in trained),
        "",
        "The calibration error is the root mean square over ten bins, without what sampling adds.",
        "",
        f"## True effects: mean log-odds over {TEST_SIZE // 2} AD test participants, by twins (docs/simulation.md)",
        "",
        "| seed | " + " | ".join(PLANTED) + " | smallest / largest |",
        "|---|" + "---|" * (len(PLANTED) + 1),
        *(
            f"| {t['seed']} | "
            + " | ".join(f"{t['effects'][name]:.2f}" for name in PLANTED)
            + f" | {smallest_share(t):.3f} |"
            for t in trained
        ),
    ]
    return "\n".join(lines) + "\n"


def explained_card(predict: Predictor) -> str:
    """Return the part of the model card that says what explanations of the shipped network are like."""
    lines = [
        f"{EXPLAINED} of the same {TEST_SIZE // 2} participants, by the shipped network",
        "",
        "By the defaults of `explain_img`, whose reference is matched to the scan, and with the reference as it is. *r*:",
        "correlation with the participant's own true effects over 116 regions. *Accounted*: the sum of evidence over what the",
        "whole brain changes.",
        "",
        "| reference | r, median (lowest) | accounted, lowest to highest |",
        "|---|---|---|",
    ]
    for name, background in (("matched to the scan", "auto"), ("as it is", "reference")):
        r, accounted = zip(*agreement(predict, background), strict=True)
        lines.append(f"| {name} | {np.median(r):.3f} ({min(r):.3f}) | {of_all(accounted)} |")
    lines += [
        "",
        "## Resolution: the template at 1, 2 and 4 mm, by the shipped network",
        "",
        "P(AD), and Spearman's correlation of its regions' evidence, by the defaults, with that at 1 mm.",
        "",
        "| 1 mm | 2 mm | 4 mm |",
        "|---|---|---|",
        "| " + " | ".join(f"{p:.4f}, {rho:.2f}" for p, rho in resolutions(predict).values()) + " |",
    ]
    return "\n".join(lines) + "\n"


def write_explained(folder: Path) -> None:
    """Measure the explanations of the network in a folder, and write that part of its card."""
    path = folder / "docs" / "README.md"
    kept = path.read_text(encoding="utf-8").partition(EXPLAINED)[0].rstrip()
    path.write_text(f"{kept}\n\n{explained_card(load_model(folder, device='cpu'))}", encoding="utf-8")


def main(folder: Path) -> None:
    """Train all seeds, and write the bundle of the first."""
    # the C library keeps freed memory: returning and requesting it again takes half of the training time
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**32))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**34))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        trained = list(pool.map(one_seed, TRAINING_SEEDS))
    shipped, grid = trained[0], mni_grid(4)  # the first: nothing is chosen by what was measured
    write_bundle(
        folder,
        shipped["net"],
        {
            "_target_": "glas3d.predict.networks.PaperNet",
            "shape": list(grid.shape),
            "batch_norm": True,
            "dropout": RECIPE.dropout,
        },
        BundleDescription(
            name="adnc-simulated",
            description="The paper's network, trained on simulated Alzheimer's disease; says nothing about real scans",
            version="0.1.0",
            classes=GROUPS,
            grid=grid,
            standardisation=shipped["standardisation"],
            reference=shipped["reference"],
            preset={},  # it is explained by the default of scans
            card=card(trained),
            authors="the glas3d authors",
            copyright="BSD-3-Clause",
            skull_stripped=True,
            caution=CAUTION,
        ),
    )
    write_explained(folder)
    print(json.dumps({t["seed"]: t["accuracy"]["balanced accuracy"] for t in trained}), f"written: {folder}")


# %%
if __name__ == "__main__":
    explain_only = sys.argv[1:2] == ["explain"]
    folders = [Path(path) for path in sys.argv[1 + explain_only :]] or [Path("models/adnc-simulated")]
    (write_explained if explain_only else main)(folders[0])
