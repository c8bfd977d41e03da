# %% [markdown]
# # The paper's experiment, from three commands
#
# Oh, Kim & Oh (2020, IV.E) trained their network on 199 people with Alzheimer's disease and 230 controls by five folds,
# explained the patients, and looked at the regions of the group map. The same on a simulated cohort of that size and shape,
# where it is known which six regions are ill: train by folds, explain everyone out of fold, compare the groups.
#
# Give a path for the page, and a number of participants; 429 wrote `docs/experiment.md`. Further arguments: `both` trains
# without light and shadow as augmentation, too; a folder keeps the work, and a run that was stopped goes on in it.

# %%
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from glas3d import Atlas
from glas3d.simulate import PLANTED

OUT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("glas3d-examples/experiment.md")
PARTICIPANTS = int(sys.argv[2]) if len(sys.argv) > 2 else 43
BOTH = "both" in sys.argv[3:]
KEPT = [one for one in sys.argv[3:] if one != "both"]
AD = round(PARTICIPANTS * 199 / 429)
EPOCHS = 30 if PARTICIPANTS > 100 else 6
PAPER = 85.24  # % of test scans, mean of five folds

place = None if KEPT else TemporaryDirectory()
work = Path(KEPT[0]) if place is None else Path(place.name)
work.mkdir(parents=True, exist_ok=True)
timed = work / "minutes.json"
took = json.loads(timed.read_text()) if timed.exists() else {}


def glas3d(*arguments):
    """Run a command as a user would, and show it."""
    words = [str(one) for one in arguments]
    print("$ glas3d", *words, flush=True)
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", "from glas3d.cli import main; main()", *words], cwd=work, check=True)
    command = " ".join(["glas3d", *words])
    took[command] = took.get(command, 0) + (time.monotonic() - begun) / 60
    timed.write_text(json.dumps(took))


# %% [markdown]
# The data set stands for one's own BIDS folder. Options that all three commands share lie in a file.

# %%
if not (work / "data").exists():
    glas3d("simulate", "data", "--participants", PARTICIPANTS, "--ad", AD, "--seed", 429)
(work / "study.toml").write_text('case = "AD"\ncontrol = "NC"\nn-workers = 2\n')
people = pd.read_csv(work / "data" / "participants.tsv", sep="\t")
print(people["group"].value_counts().to_dict())

# %% [markdown]
# ## Three commands

# %%
SIGMAS = ("--sigma-light", 8, "--sigma-shadow", 12, "--unit", "mm")  # those of the shipped model of these data


def three(name, *training):
    """Train, explain, compare."""
    models, out = f"models{name}", f"out{name}"
    glas3d("train", "data", models, "--config", "study.toml", "--epochs", EPOCHS, *training)
    glas3d("cohort", "data", out, "participant", "--models", models, "--config", "study.toml", "--everyone", *SIGMAS)
    glas3d("cohort", "data", out, "group", "--covariates", "age", "--site", "site", "--config", "study.toml")
    return work / models, work / out


runs = {"with light and shadow": three("")}
times = {command: minutes for command, minutes in took.items() if "simulate" not in command and "plain" not in command}
if BOTH:
    runs["without"] = three("-plain", "--no-augment")

# %% [markdown]
# ## What came out
#
# Which regions touch a planted one: voxels of the two share a face in the 1 mm atlas.

# %%
aal = Atlas.load("AAL")
labels = np.asarray(aal.labels_img.dataobj)
names = aal.table.set_index("index")["name"]
planted = set(aal.table.loc[aal.table["name"].isin(PLANTED), "index"])
touching = set()
for axis in range(3):
    a, b = (np.moveaxis(labels, axis, 0)[side] for side in (slice(None, -1), slice(1, None)))
    for one, other in ((a, b), (b, a)):
        touching |= set(np.unique(other[np.isin(one, list(planted)) & (other > 0)]).tolist()) - planted
neighbours = set(names[sorted(touching)])


def kind(name):
    """Of a region."""
    return "planted" if name in PLANTED else "touches" if name in neighbours else "elsewhere"


def found(models, out):
    """The figures of one run."""
    metrics = pd.read_csv(models / "metrics.tsv", sep="\t")
    group = pd.read_csv(out / "group" / "group-AD_seg-AAL_regions.tsv", sep="\t")
    ranked = group.dropna(subset=["score"]).sort_values("rank")
    compared = pd.read_csv(out / "group" / "group-ADvsNC_seg-AAL_statistics.tsv", sep="\t").set_index("name")
    return metrics, ranked, compared


# %%
lines = [
    "# The paper's experiment on a simulated cohort",
    "",
    f"`python docs/measure/experiment.py docs/experiment.md {PARTICIPANTS}{' both' if BOTH else ''}` wrote this page. "
    f"{AD} simulated participants with",
    f"Alzheimer's disease and {PARTICIPANTS - AD} controls at 4 mm; the paper's network, its convolutions pre-trained as an "
    "autoencoder; 5 folds; everyone explained by",
    "the model that never saw them; two cores. What is simulated is a caricature of disease (see `glas3d simulate --help`).",
    "",
    "```",
    *times,
    "```",
    "",
    f"Minutes: {', '.join(f'{minutes:.1f}' for minutes in times.values())}; together {sum(times.values()):.0f}.",
    "",
]
for name, (models, out) in runs.items():
    metrics, ranked, compared = found(models, out)
    summary = pd.read_csv(models / "summary.tsv", sep="\t").set_index("metric")
    accuracy = 100 * metrics["accuracy"]
    first = ranked.head(8)["name"].tolist()
    significant = compared[compared["p_fwe"] <= 0.05]
    ill = significant[significant["difference"] > 0].index
    print(f"{name}: accuracy {accuracy.mean():.1f} % by fold {accuracy.round(1).tolist()}, the paper's {PAPER} %")
    print(f"first eight: {[f'{one} ({kind(one)})' for one in first]}")
    print(f"significant planted: {sorted(set(PLANTED) & set(significant.index))}; all: {len(significant)}")
    lines += [
        f"## {name.capitalize()} in training",
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
            f"{summary.loc[one, 'mean']:.3f}"
            for one in ("balanced_accuracy", "auc", "sensitivity", "specificity", "ece")
        )
        + " |",
        "",
        f"The AD group's first eight of {len(ranked)} regions by score, and the comparison with controls (permutations within "
        "site, age held fixed, of shares of evidence, corrected over regions):",
        "",
        "| rank | region | | score | t | p corrected |",
        "|---|---|---|---|---|---|",
        *(
            f"| {i} | {one} | {kind(one)} | {ranked['score'].iloc[i - 1]:.3f} | {compared.loc[one, 't']:.2f} | "
            f"{compared.loc[one, 'p_fwe']:.4f} |"
            for i, one in enumerate(first, 1)
        ),
        "",
        f"{sum(one in PLANTED for one in first)} of the six planted regions are among the first eight, "
        f"{sum(one in PLANTED for one in first[:6])} among the first six; of the first six "
        f"{sum(kind(one) == 'elsewhere' for one in first[:6])} are neither planted nor touch a planted one. Planted regions "
        "and the comparison:",
        "",
        "| region | rank | t | p corrected |",
        "|---|---|---|---|",
        *(
            f"| {one} | {int(ranked.set_index('name').loc[one, 'rank'])} | {compared.loc[one, 't']:.2f} | "
            f"{compared.loc[one, 'p_fwe']:.4f} |"
            for one in PLANTED
        ),
        "",
        f"{len(significant)} of {len(compared)} regions differ at p <= 0.05 corrected, {len(ill)} of them higher in AD: "
        f"{sum(kind(one) == 'planted' for one in ill)} planted, {sum(kind(one) == 'touches' for one in ill)} that touch, "
        f"{sum(kind(one) == 'elsewhere' for one in ill)} elsewhere.",
        "",
    ]
OUT.parent.mkdir(parents=True, exist_ok=True)
OUT.write_text("\n".join(lines), encoding="utf-8")
versions = json.loads((runs["with light and shadow"][1] / "group" / "provenance.json").read_text())
print(f"written: {OUT}, by {versions.get('GeneratedBy', [{}])[0].get('Version', '')}")
if place is not None:
    place.cleanup()
