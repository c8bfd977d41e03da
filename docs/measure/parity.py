# %% [markdown]
# # Do engines, threads, batch sizes and versions give the same numbers?
#
# The shipped network, which is the paper's at 4 mm, explains one volume by every engine that is installed, on one thread
# and on two, in batches of several sizes. The volume is the model's reference with a smooth hole, so that it depends on no
# random number. The scores of each environment lie in a JSON file next to the page; in another environment, the word
# "environment" after the arguments adds its scores there and its row to the page, and measures nothing else.
#
# `python docs/measure/parity.py docs/parity.md 24` writes the page in about two minutes, by 24 regions of the atlas; without
# arguments 6 regions, and without the engine that takes longest to build.

# %%
import importlib.metadata
import json
import platform
import sys
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from glas3d import Atlas, GlasWarning, explain_img, load_model
from glas3d.predict.engine.engines import ENGINES

PAGE = Path(sys.argv[1] if len(sys.argv) > 1 else "glas3d-examples/parity.md")
REGIONS = int(sys.argv[2]) if len(sys.argv) > 2 else 6
ENGINES_TOO = sys.argv[3:] != ["environment"]
KEPT = PAGE.with_suffix(".json")
PAGE.parent.mkdir(exist_ok=True, parents=True)
PRESETS = ("evidence", "paper")
BATCHES = (1, 3, 16)
LIBRARIES = ("torch", "numpy", "scipy", "nibabel", "nilearn", "monai")

# %%
predict = load_model("adnc-simulated", device="cpu")
grid, reference = predict.info.grid, np.asarray(predict.info.reference)[0].astype(np.float64)
place = nib.affines.apply_affine(grid.affine, np.moveaxis(np.indices(grid.shape), 0, -1))
hole = np.exp(-((place - [-25.0, -20.0, -15.0]) ** 2).sum(axis=-1) / (2 * 18.0**2))  # at the left hippocampus
scan = nib.Nifti1Image((1000 * reference * (1 - 0.4 * hole)).astype(np.float32), grid.affine)

aal = Atlas.load("AAL")
table = aal.table.iloc[np.linspace(0, len(aal.table) - 1, REGIONS).round().astype(int)].reset_index(drop=True)
labels = np.asarray(aal.labels_img.dataobj)
chosen = nib.Nifti1Image(np.where(np.isin(labels, table["index"]), labels, 0), aal.labels_img.affine)
atlas = Atlas("AAL", chosen, table, "0" * 64, "MNI")


# %%
def scores(preset, engine="eager", threads=1, batch_size=4):
    """Return the scores of the regions for AD."""
    torch.set_num_threads(threads)
    settings = {"engine": engine, "batch_size": batch_size, "preset": preset}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GlasWarning)  # an engine that is too far from the network is a row
        # the reference as it is, so that engines and versions are compared, and not how SciPy matches it to a scan
        given = {"background": "reference", "assume_space": "MNI"} | settings
        explanation = explain_img(scan, predict, "AD", atlas, **given).explanation
    return explanation.score if explanation.settings["engine"] == engine else None  # None: the engine was refused


def difference(now, first):
    """Return how far scores are apart, as a share of the range of the first, and how many places a rank moves."""
    ranks = [np.argsort(np.argsort(-values, kind="stable")) for values in (now, first)]
    return np.abs(now - first).max() / np.ptp(first), int(np.abs(ranks[0] - ranks[1]).max())


def row(name, now, first):
    cells = []
    for preset in PRESETS:
        if now[preset] is None:
            cells += ["refused: too far", "n/a"]
            continue
        apart, moved = difference(now[preset], first[preset])
        cells += ["same bits" if np.array_equal(now[preset], first[preset]) else f"{apart:.1e}", str(moved)]
    return f"| {name} | {' | '.join(cells)} |"


# %%
usual = {preset: scores(preset) for preset in PRESETS}
rows = []
if ENGINES_TOO:
    again = {preset: scores(preset) for preset in PRESETS}
    rows.append(row("eager, 1 thread, batches of 4: a second time", again, usual))
of_engine = {"eager": usual}
for engine in ENGINES.values() if ENGINES_TOO else ():
    if engine.name != "eager" and "cpu" in engine.devices and (engine.library == "torch" or engine.version):
        if engine.name == "compile" and REGIONS < 20:
            continue  # it takes longest to build
        of_engine[engine.name] = {preset: scores(preset, engine.name) for preset in PRESETS}
        rounded = "" if engine.exact else " (bfloat16; never chosen by auto)"
        rows.append(row(f"{engine.name}{rounded}", of_engine[engine.name], usual))
for engine in (name for name in ("eager", "openvino") if name in of_engine and ENGINES_TOO):
    for batch_size in BATCHES if REGIONS > 6 else BATCHES[:1]:
        now = {preset: scores(preset, engine, batch_size=batch_size) for preset in PRESETS}
        rows.append(row(f"{engine}, batches of {batch_size} instead of 4", now, of_engine[engine]))
    now = {preset: scores(preset, engine, threads=2) for preset in PRESETS}
    rows.append(row(f"{engine}, 2 threads instead of 1", now, of_engine[engine]))
torch.set_num_threads(1)

# %% [markdown]
# The environments of which scores are kept; this one replaces its own. All are compared with the first.

# %%
versions = ", ".join(f"{name} {importlib.metadata.version(name).partition('+')[0]}" for name in LIBRARIES)
here = f"Python {platform.python_version()}, {versions}"
kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {"scores": {}}
if ENGINES_TOO:
    kept |= {"rows": rows, "measured": f"{here}, {platform.system()} {platform.machine()}"}
kept["scores"][here] = {preset: values.tolist() for preset, values in usual.items()}
KEPT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
environments = {name: {p: np.array(values) for p, values in each.items()} for name, each in kept["scores"].items()}
first = next(iter(environments))
by_version = [row(name, each, environments[first]) for name, each in environments.items() if name != first]

HEAD = """| {title} | evidence: difference | rank moves by | paper: difference | rank moves by |
|---|---|---|---|---|"""
text = f"""# Do engines, threads, batch sizes and versions give the same numbers?

<!-- Written by docs/measure/parity.py. -->

The shipped network (the paper's, at 4 mm) explains one volume with {REGIONS} regions, by the presets `evidence` (log-odds)
and `paper` (probabilities), with the model's reference as it is. A difference is the largest of any region's score, as a
share of the range of the scores; next to it is by how many places the rank of a region moves at most. "Same bits" means
that every number is equal.

The same engine, batch shape and number of threads must give the same bits, other batch sizes and threads differ by at most
1e-5, and engines by at most 1e-4 of a probability ([decision 7](decisions/0007-tolerance.md)). A study keeps one engine and
batch size for all its participants, and its records name the versions.

## Engines, threads and batch sizes

{kept["measured"]}.

The engine eager is the network itself, on one thread, in batches of 4; the rows of other engines are compared with it, all
others with the same engine on one thread and in batches of 4.

{HEAD.format(title="what")}
{chr(10).join(kept["rows"])}

## Versions

The network itself, compared with

{first}.

{HEAD.format(title="environment") if by_version else "Only one environment has been measured."}
{chr(10).join(by_version)}
"""
PAGE.write_text(text.rstrip() + "\n", encoding="utf-8")
print("\n".join([*rows, *by_version]))
