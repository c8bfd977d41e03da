# %% [markdown]
# # The paper's experiment, from three commands
#
# Oh, Kim & Oh (2020, IV.E) trained their network on 199 people with Alzheimer's disease and 230 controls by five folds,
# explained the patients, and looked at the regions of the group map. The same on a simulated cohort of that size and shape,
# where it is known which six regions are ill: train by folds, explain everyone out of fold, compare the groups.
#
# The arguments are a path for the page and a number of participants; 429 wrote `docs/experiment.md`. Further arguments:
# `both` also trains without light and shadow as augmentation; a folder keeps the work, and a run that was stopped resumes in
# it.

# %%
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from glas3d import Atlas
from glas3d.simulate import PLANTED

OUT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("glas3d-examples/experiment.md")
PARTICIPANTS = int(sys.argv[2]) if len(sys.argv) > 2 else 43
BOTH = "both" in sys.argv[3:]
KEPT = [argument for argument in sys.argv[3:] if argument != "both"]
AD = round(PARTICIPANTS * 199 / 429)
EPOCHS, MM = (30, 4) if PARTICIPANTS > 100 else (2, 8)  # few participants only try the script
PAPER = 85.24  # % of test scans, mean of five folds

temporary = None if KEPT else TemporaryDirectory()
work = Path(KEPT[0]) if temporary is None else Path(temporary.name)
work.mkdir(parents=True, exist_ok=True)
commands = []


def glas3d(*arguments):
    """Run a command as a user would, and record it for the page."""
    words = [str(argument) for argument in arguments]
    commands.append(" ".join(["glas3d", *words]))
    print("$", commands[-1], flush=True)
    subprocess.run([sys.executable, "-c", "from glas3d.cli import main; main()", *words], cwd=work, check=True)


# %% [markdown]
# The data set takes the place of your own BIDS folder. A file holds the options that all three commands share.

# %%
if not (work / "data").exists():
    glas3d("simulate", "data", "--participants", PARTICIPANTS, "--ad", AD, "--seed", 429)
n_workers = 2 if PARTICIPANTS > 100 else 1
(work / "study.toml").write_text(f'case = "AD"\ncontrol = "NC"\nn-workers = {n_workers}\n')
people = pd.read_csv(work / "data" / "participants.tsv", sep="\t")
print(people["group"].value_counts().to_dict())

# %% [markdown]
# ## Three commands

# %%
SIGMAS = ("--sigma-light", 8, "--sigma-shadow", 12, "--unit", "mm")  # the preset of the shipped model, for such data


def three(name, *training):
    """Train, explain and compare; return the folders of the models and of the results."""
    models, out = f"models{name}", f"out{name}"
    resolution = () if MM == 4 else ("--resolution", MM)  # 4 mm is the default
    glas3d("train", "data", models, "--config", "study.toml", "--epochs", EPOCHS, *resolution, *training)
    glas3d("cohort", "data", out, "participant", "--models", models, "--config", "study.toml", "--everyone", *SIGMAS)
    glas3d("cohort", "data", out, "group", "--covariates", "age", "--site", "site", "--config", "study.toml")
    return work / models, work / out


runs = {"with light and shadow": three("")}
listed = [command for command in commands if "simulate" not in command]
if BOTH:
    runs["without light and shadow"] = three("-plain", "--no-augment")

# %% [markdown]
# ## Results
#
# A region touches a planted one if voxels of the two share a face in the 1 mm atlas.

# %%
aal = Atlas.load("AAL")
labels = np.asarray(aal.labels_img.dataobj)
names = aal.table.set_index("index")["name"]
planted = set(aal.table.loc[aal.table["name"].isin(PLANTED), "index"])
touching = set()
for axis in range(3):
    a, b = (np.moveaxis(labels, axis, 0)[side] for side in (slice(None, -1), slice(1, None)))
    for here, there in ((a, b), (b, a)):
        touching |= set(np.unique(there[np.isin(here, list(planted)) & (there > 0)]).tolist()) - planted
neighbours = set(names[sorted(touching)])


def kind(name):
    """Return whether a region is planted, touches a planted one, or is elsewhere."""
    return "planted" if name in PLANTED else "touches" if name in neighbours else "elsewhere"


def results_of(models, out):
    """Return the metrics of the folds, the ranked regions and the comparison of one run."""
    metrics = pd.read_csv(models / "metrics.tsv", sep="\t")
    group = pd.read_csv(out / "group" / "group-AD_seg-AAL_regions.tsv", sep="\t")
    ranked = group.dropna(subset=["score"]).sort_values("rank")
    comparison = pd.read_csv(out / "group" / "group-ADvsNC_seg-AAL_statistics.tsv", sep="\t").set_index("name")
    return metrics, ranked, comparison


# %%
lines = [
    "# The paper's experiment on a simulated cohort",
    "",
    f"`python docs/measure/experiment.py docs/experiment.md {PARTICIPANTS}{' both' if BOTH else ''}` wrote this page. "
    f"{AD} simulated participants with",
    f"Alzheimer's disease and {PARTICIPANTS - AD} controls at {MM} mm; the paper's network, its convolutions pre-trained as an "
    "autoencoder; 5 folds; everyone is explained by",
    "the model that was trained without them. The simulated disease is a caricature (see `glas3d simulate --help`).",
    "",
    "```",
    *listed,
    "```",
    "",
]
for run, (models, out) in runs.items():
    metrics, ranked, comparison = results_of(models, out)
    summary = pd.read_csv(models / "summary.tsv", sep="\t").set_index("metric")
    accuracy = 100 * metrics["accuracy"]
    first = ranked.head(8)["name"].tolist()
    significant = comparison[comparison["p_fwe"] <= 0.05]
    higher = significant[significant["difference"] > 0].index
    print(f"{run}: accuracy {accuracy.mean():.1f} % by fold {accuracy.round(1).tolist()}, the paper's {PAPER} %")
    print(f"first eight: {[f'{name} ({kind(name)})' for name in first]}")
    print(f"significant planted: {sorted(set(PLANTED) & set(significant.index))}; all: {len(significant)}")
    lines += [
        f"## {run.capitalize()} in training",
        "",
        "| fold | accuracy, % | balanced | AUC | sensitivity | specificity | calibration error |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {row.fold} | {100 * row.accuracy:.1f} | {row.balanced_accuracy:.3f} | {row.auc:.3f} | {row.sensitivity:.3f} | "
            f"{row.specificity:.3f} | {row.ece:.3f} |"
            for row in metrics.itertuples()
        ),
        f"| mean (the paper's: {PAPER}) | {accuracy.mean():.1f} | "
        + " | ".join(
            f"{summary.loc[metric, 'mean']:.3f}"
            for metric in ("balanced_accuracy", "auc", "sensitivity", "specificity", "ece")
        )
        + " |",
        "",
        f"The AD group's first eight of {len(ranked)} regions by score, and the comparison with controls (Welch-type t of "
        "shares of evidence, age and site held fixed; sign flips within each fold, the smallest p of a fold times their number, "
        "corrected over regions):",
        "",
        "| rank | region | | score | t | p corrected |",
        "|---|---|---|---|---|---|",
        *(
            f"| {i} | {name} | {kind(name)} | {ranked['score'].iloc[i - 1]:.3f} | {comparison.loc[name, 't']:.2f} | "
            f"{comparison.loc[name, 'p_fwe']:.4f} |"
            for i, name in enumerate(first, 1)
        ),
        "",
        f"{sum(name in PLANTED for name in first)} of the six planted regions are among the eight highest-scoring, "
        f"{sum(name in PLANTED for name in first[:6])} among the six highest; of these six "
        f"{sum(kind(name) == 'elsewhere' for name in first[:6])} are neither planted nor touch a planted one. Planted regions "
        "and the comparison:",
        "",
        "| region | rank | t | p corrected |",
        "|---|---|---|---|",
        *(
            f"| {name} | {int(ranked.set_index('name').loc[name, 'rank'])} | {comparison.loc[name, 't']:.2f} | "
            f"{comparison.loc[name, 'p_fwe']:.4f} |"
            for name in PLANTED
        ),
        "",
        f"{len(significant)} of {len(comparison)} regions differ at p <= 0.05 corrected, {len(higher)} of them higher in AD: "
        f"{sum(kind(name) == 'planted' for name in higher)} planted, {sum(kind(name) == 'touches' for name in higher)} that touch one, "
        f"{sum(kind(name) == 'elsewhere' for name in higher)} elsewhere. A share also falls where another rises, which most lower ones do.",
        "",
    ]
OUT.parent.mkdir(parents=True, exist_ok=True)
OUT.write_text("\n".join(lines), encoding="utf-8")
versions = json.loads((runs["with light and shadow"][1] / "group" / "provenance.json").read_text())
print(f"written: {OUT}, by {versions.get('GeneratedBy', [{}])[0].get('Version', '')}")
if temporary is not None:
    temporary.cleanup()
