# %% [markdown]
# # Does the audit *literature* tell a map that describes the disease from one that does not?
#
# Each study is the mean evidence of two simulated participants with AD, by the shipped network. Its map is compared with
#
# - `planted`: the regions in which disease was planted, smoothed, as a meta-analysis would have found them;
# - `elsewhere`: three other pairs of regions, drawn at random and smoothed in the same way, several times.
#
# `|scan - reference|`, a map without any model, is compared with the planted regions, too. Which number decides was chosen on
# four studies; six others are reported. `docs/literature.tsv` has a row for each comparison; `docs/audits.md` says
# what follows. The arguments are the path of the table and some of the seeds (all take about four minutes of one core).

# %%
import sys
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter

from glas3d import Atlas, GlasWarning, load_model
from glas3d.evaluate import attribute
from glas3d.evaluate.audits.map_agreement import ComparedMap, measure_agreement
from glas3d.imaging.scan import load_scan
from glas3d.imaging.space import mni_grid
from glas3d.simulate import PLANTED, Simulation, scan_img, simulate_participant

CHOICE_SEEDS, TEST_SEEDS = (200, 201, 202, 203), range(210, 216)
PARTICIPANTS, ELSEWHERE, SURROGATES = 2, 3, 99
SMOOTHED_MM, MM = 6.0, 2  # standard deviation, and size of the literature's voxels
METHODS = {"evidence": {"method": "glas_evidence"}, "no model": {"method": "difference"}}
NUMBERS = ("ap_regions", "spearman_regions", "ap_voxels", "spearman_voxels", "dice_10")
ATLAS = Atlas.load("AAL")


# %%
def literature(regions):
    """Return a map of smoothed regions, as it could come from the literature."""
    inside = np.isin(ATLAS.on(mni_grid(MM)), ATLAS.table.loc[ATLAS.table["name"].isin(regions), "index"])
    values = gaussian_filter(inside.astype(np.float32), SMOOTHED_MM / MM)
    return load_scan(nib.Nifti1Image(values, mni_grid(MM).affine))


def elsewhere(rng):
    """Return three pairs of regions in which nothing was planted."""
    pairs = sorted({name[:-2] for name in ATLAS.table["name"] if name.endswith("_L") and name not in PLANTED})
    return [f"{name}_{side}" for name in rng.choice(pairs, len(PLANTED) // 2, replace=False) for side in "LR"]


def study(seed, method):
    """Return the map of a study: the mean over participants of a method's values of regions."""
    simulation, predict = Simulation(seed=seed), load_model("adnc-simulated", device="cpu")
    tables = []
    for number in range(0, 2 * PARTICIPANTS, 2):  # every other participant has AD
        volume = simulate_participant(simulation, number).volume
        img = scan_img(simulation, volume)
        tables.append(attribute(img, predict, "AD", search="AAL", **METHODS[method]).table)
    table = pd.concat(tables)
    score = table["score"] if method == "evidence" else table["score"].abs()
    mean = score.groupby(table["index"]).mean()
    return ComparedMap.of_regions(mean.index, mean, ATLAS)


# %%
def rows_of(seed):
    """Return the comparisons of a seed, as rows of the table."""
    rng = np.random.default_rng(seed)
    maps = {"planted 1": literature(PLANTED)}
    maps |= {f"elsewhere {i + 1}": literature(elsewhere(rng)) for i in range(ELSEWHERE)}
    for method in METHODS:
        compared = study(seed, method)
        for name, scan in maps.items() if method == "evidence" else [*maps.items()][:1]:
            agreements, _ = measure_agreement(compared, compared.literature(scan, "high"), SURROGATES, seed)
            row = {
                "seed": seed,
                "part": "test" if seed in TEST_SEEDS else "choice",
                "method": method,
                "literature": name,
            }
            for each in agreements:
                if each.name in NUMBERS:
                    row |= {each.name: each.value, f"{each.name}_null": each.null, f"{each.name}_p": each.p}
            yield row


def summary(table):
    """Return how often each number says that maps agree (p of at most 0.05), in Markdown."""
    lines = ["| studies | map | literature | " + " | ".join(NUMBERS) + " |", "|" + "---|" * (3 + len(NUMBERS))]
    kinds = table["literature"].str.partition(" ")[0]
    for (part, method, kind), own in table.groupby(["part", "method", kinds], sort=False):
        agree = [f"{int((own[f'{name}_p'] <= 0.05).sum())} of {len(own)}" for name in NUMBERS]
        lines.append(f"| {part} | {method} | {kind} | " + " | ".join(agree) + " |")
    return "\n".join(lines) + "\n"


def main(out, seeds):
    """Compare the maps of some seeds, and return and write the table."""
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    rows = []
    for seed in seeds:
        for row in rows_of(seed):
            rows.append(row)
            print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
        pd.DataFrame(rows).to_csv(out, sep="\t", index=False, float_format="%.4g", na_rep="n/a")
    return pd.DataFrame(rows)


# %%
if __name__ == "__main__":
    warnings.simplefilter("ignore", GlasWarning)
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("glas3d-examples/literature.tsv")
    print(summary(main(path, [int(seed) for seed in sys.argv[2:]] or [*CHOICE_SEEDS, *TEST_SEEDS])))
