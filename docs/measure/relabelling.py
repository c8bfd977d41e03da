# %% [markdown]
# # Relabelling with retraining, once for real
#
# `glas3d.study.relabel_cohort` on a small simulated cohort: networks are trained with the true labels and with permuted ones,
# everyone is explained out of fold each time, and the groups are compared. It shows that the function does what
# [null_rates.md](../null_rates.md) measures with a linear model; one run says nothing about error rates.
#
# The arguments are a path for the page, the number of relabellings, and a folder that keeps the work, in which a run that was stopped resumes.

# %%
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from glas3d.predict import Recipe
from glas3d.simulate import PLANTED, Simulation, write_dataset
from glas3d.study import read_cohort, relabel_cohort

OUT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("glas3d-examples/relabelling.md")
RELABELLINGS = int(sys.argv[2]) if len(sys.argv) > 2 else 19
PARTICIPANTS, EPOCHS = 16, 40
temporary = None if len(sys.argv) > 3 else TemporaryDirectory()
work = Path(sys.argv[3]) if temporary is None else Path(temporary.name)

# %%
data = work / "data"
if not data.exists():
    write_dataset(data, Simulation(participants=PARTICIPANTS, resolution=8, seed=5, severity=(0.7, 0.95)))
table = relabel_cohort(
    read_cohort(data),
    work / "out",
    n_perm=RELABELLINGS,
    normalise="none",
    training={
        "folds": 2,
        "resolution": 8,
        "recipe": Recipe(epochs=EPOCHS, batch_size=8),
        "validation": 0,
        "pretrain": False,
        "augment": False,
    },
    explaining={
        "search": "AAL",
        "engine": "eager",
        "fusion": "shadow",
        "kernel": "segment",
        "sigma_light": 4,
        "sigma_shadow": 4,
        "unit": "mm",
    },
    progress=lambda done, total: print(f"{done} of {total}", flush=True),
)

# %%
tested = table.dropna(subset=["p_fwe"])
first = tested.sort_values(["p_fwe", "p_uncorrected", "t"], ascending=[True, True, False]).head(10)
planted = tested[tested["name"].isin(PLANTED)]
print(first.to_string())
lines = [
    "# Relabelling with retraining, once for real",
    "",
    f"`python docs/measure/relabelling.py docs/relabelling.md {RELABELLINGS}` wrote this page. {PARTICIPANTS} simulated participants at",
    f"8 mm, half of them with AD; 2 folds, the paper's network, {EPOCHS} epochs, shadow of the regions of AAL with masks of their shape;",
    f"{RELABELLINGS} relabellings, each of which trains and explains everything again. The smallest p-value possible is",
    f"{1 / (1 + RELABELLINGS):.3g}. [null_rates.md](null_rates.md) has the error rates, measured with a linear model; one run says nothing",
    "about them.",
    "",
    f"{int((tested['p_fwe'] <= 0.05).sum())} of {len(tested)} regions differ at `p_fwe` <= 0.05, "
    f"{int((planted['p_fwe'] <= 0.05).sum())} of them among the {len(planted)} planted ones; "
    f"{int((tested['p_uncorrected'] <= 0.05).sum())} and {int((planted['p_uncorrected'] <= 0.05).sum())} at `p_uncorrected` <= 0.05. "
    "The first ten, and the planted regions:",
    "",
    "| region | | t | p_uncorrected | p_fwe |",
    "|---|---|---|---|---|",
    *(
        f"| {row.name} | {'planted' if row.name in PLANTED else ''} | {row.t:.2f} | {row.p_uncorrected:.3f} | {row.p_fwe:.3f} |"
        for row in [
            *first.itertuples(index=False),
            *planted[~planted["name"].isin(first["name"])].itertuples(index=False),
        ]
    ),
    "",
]
OUT.parent.mkdir(parents=True, exist_ok=True)
OUT.write_text("\n".join(lines), encoding="utf-8")
if temporary is not None:
    temporary.cleanup()
