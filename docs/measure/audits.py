# %% [markdown]
# # Do audits find a network that cheats, and leave one alone that does not?
#
# Three networks are trained on the same 80 simulated participants of a seed, and differ in one thing each:
#
# - `clean`: the disease is all there is to learn.
# - `blob`: 95 % of participants with AD, and 5 % of controls, have a bright blob outside the brain, elsewhere in each seed.
# - `brightness`: intensities are absolute, and 95 % of participants with AD, and 5 % of controls, are 15 % brighter.
#
# They are trained for 12 epochs, after which many clean ones know too little of the disease to be judged, and for 40.
#
# Each is audited on one participant with AD who was not trained on: the first to whom the network gives P(AD) above 0.9, else the
# one with the highest. Thresholds were chosen on four seeds and are tested on ten others. `docs/audits.tsv` has a row for each
# network; `docs/audits.md` says what follows.
# The arguments are the path of the table, a folder that keeps the networks, in which a run that was stopped resumes, and some
# of the seeds (all take about half an hour of one core).

# %%
import sys
import warnings
from functools import lru_cache
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from scipy.ndimage import distance_transform_edt

from glas3d import Predictor
from glas3d.evaluate.audits import audit_scan
from glas3d.imaging.space import mni_grid, template_on, voxel_to_world
from glas3d.predict import ModelInfo, PaperNet, Recipe, Standardisation, intensity_scale, train
from glas3d.simulate import GROUPS, Simulation, simulate_participant

CHOICE_SEEDS, TEST_SEEDS = (100, 0, 1, 2), range(3, 13)
KINDS = ("clean", "blob", "brightness")
CHECKS = ("accounted", "shortcut")
EPOCHS = (12, 40)
TRAINED, UNSEEN = range(80), range(200, 224)
MM = 8
SURE = 0.9
GRID = mni_grid(MM)
SHORTCUT, BRIGHTER, SPREAD = 0.95, 0.15, 0.03  # share of AD with the shortcut; gain of the brighter; gain's deviation
BLOB_MM, NEAR_MM, FAR_MM = 7.0, 16.0, 40.0  # size of the blob, and its least and largest distance from the brain


def recipe(seed, epochs):
    """Return the settings of training, which takes seconds."""
    return Recipe(
        epochs=epochs, pretraining=0, seed=seed, batch_size=4, label_smoothing=0.05, augmented=0.5, sigma=(0.75, 2.5)
    )


# %% [markdown]
# ## Participants with a shortcut


# %%
def blob_at(seed):
    """Return the voxel of a seed's blob: outside the brain, 16 mm from the edge of the volume at least."""
    distance = distance_transform_edt(~(template_on(MM) > 0.1), sampling=MM)
    inner = np.zeros(GRID.shape, dtype=bool)
    inner[2:-2, 2:-2, 2:-2] = True
    candidates = np.argwhere((distance > NEAR_MM) & (distance < FAR_MM) & inner)
    return candidates[np.random.default_rng([seed, 77]).integers(len(candidates))]


@lru_cache(maxsize=200)
def scaled_participant(seed, number):
    """Return a participant's scan, scaled to the brightness of its tissue, and whether the group is AD."""
    cohort = Simulation(seed=5000 + seed, participants=1000, resolution=MM, severity=(0.5, 0.8))
    participant = simulate_participant(cohort, number)
    volume = participant.volume.astype(np.float32)
    return volume / np.float32(intensity_scale(volume)), participant.group == "AD"


def scans(kind, seed, numbers):
    """Return scans ``(n, 1, *shape)`` with the shortcut of a kind, and their class indices ``(n,)``."""
    rng = np.random.default_rng([seed, 78])
    chance, gain = rng.uniform(size=1000), rng.normal(1, SPREAD, 1000)
    squared_mm = ((np.indices(GRID.shape) - blob_at(seed).reshape(3, 1, 1, 1)) ** 2 * MM**2).sum(axis=0)
    blob = np.exp(-squared_mm / (2 * BLOB_MM**2)).astype(np.float32)
    volumes, labels = [], []
    for number in numbers:
        volume, ad = scaled_participant(seed, number)
        usual = chance[number] < SHORTCUT
        if kind == "blob" and usual == ad:
            volume = np.maximum(volume, blob)
        if kind == "brightness":
            volume = volume * np.float32(gain[number] + (BRIGHTER if ad and usual else 0))
        volumes.append(volume)
        labels.append(int(ad))
    return torch.as_tensor(np.stack(volumes))[:, None], torch.tensor(labels)


# %% [markdown]
# ## Networks


# %%
def network(kind, seed, epochs, kept):
    """Return the predictor of a kind, a seed and a length of training, trained unless the folder holds it."""
    path = kept / f"{seed}-{kind}-{epochs}.safetensors"
    intensities = "absolute" if kind == "brightness" else "relative"
    if not path.exists():
        volumes, labels = scans(kind, seed, TRAINED)
        reference = volumes[labels == 0].mean(0)
        net, standardisation = train(volumes, labels, reference, recipe(seed, epochs), intensities=intensities)
        state = {f"net.{name}": values for name, values in net.state_dict().items()}
        state |= {"mean": standardisation.mean, "std": standardisation.std, "reference": reference}
        save_file({name: values.contiguous() for name, values in state.items()}, path)
    state = load_file(path)
    net = PaperNet(GRID.shape, 1, 2, batch_norm=True)
    net.load_state_dict({name.removeprefix("net."): values for name, values in state.items() if name[:4] == "net."})
    standardisation = Standardisation(state["mean"], state["std"], intensities)
    info = ModelInfo(name=f"{kind}-{seed}", grid=GRID, channels=1, reference=state["reference"].numpy())
    return Predictor(net.eval(), "softmax", standardisation, "cpu", classes=GROUPS, info=info)


# %% [markdown]
# ## Audits


# %%
def row_of(kind, seed, epochs, kept, checks=CHECKS):
    """Return the audits of a network, as a row of the table."""
    predict = network(kind, seed, epochs, kept)
    volumes, labels = scans(kind, seed, UNSEEN)
    p = np.array([float(predict.fit(volume)(volume[None])[0, 1]) for volume in volumes])
    row = {"seed": seed, "part": "test" if seed in TEST_SEEDS else "choice", "kind": kind, "epochs": epochs}
    row["accuracy"] = float(((p > 0.5) == (labels.numpy() == 1)).mean())
    candidates = labels.numpy() == 1
    if kind == "blob":  # the blob must be there to be read
        candidates &= np.random.default_rng([seed, 78]).uniform(size=1000)[list(UNSEEN)] < SHORTCUT
    chosen = next((i for i in np.flatnonzero(candidates) if p[i] > SURE), int((p * candidates).argmax()))
    row["participant"], row["probability"] = UNSEEN[chosen], float(p[chosen])
    img = nib.Nifti1Image(volumes[chosen, 0].numpy(), GRID.affine)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="2 regions of AAL are too small for the voxel grid")
        audits = audit_scan(img, predict, "AD", checks, assume_space="MNI")
    for audit in audits:
        row[audit.check] = audit.verdict
        row |= {
            f"{audit.check}_{number.name}": number.value
            for number in audit.numbers
            if not number.name.endswith(("_allowed", "_below", "_above"))
        }
    if kind == "blob" and "accounted_x" in row:
        truth = voxel_to_world(blob_at(seed)[None], GRID.affine)[0]
        row["blob_mm"] = float(np.linalg.norm(truth - [row[f"accounted_{axis}"] for axis in "xyz"]))
    return row


def main(out, kept, seeds=(*CHOICE_SEEDS, *TEST_SEEDS), kinds=KINDS, lengths=EPOCHS):
    """Audit the networks of some seeds, and return and write the table."""
    kept.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    rows = []
    for epochs, seed, kind in product(lengths, seeds, kinds):
        rows.append(row_of(kind, seed, epochs, kept))
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
        write(pd.DataFrame(rows), out)
    return pd.DataFrame(rows)


def write(table, out):
    """Write the table."""
    out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(out, sep="\t", index=False, float_format="%.4g", na_rep="n/a")


def judged(table, check):
    """Return on how many networks of the table a check gave a verdict."""
    return int((table[check].notna() & (table[check] != "n/a")).sum())


def summary(table):
    """Return what the page says of the table, in Markdown."""
    lines = [
        "| seeds | epochs | network | accounted: fail of judged | shortcut: fail of judged | accounted | outside | of_brightness "
        "| gain_evenness |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for part, epochs, kind in product(("choice", "test"), EPOCHS, KINDS):
        own = table[(table["part"] == part) & (table["epochs"] == epochs) & (table["kind"] == kind)]
        if own.empty:
            continue
        names = ("accounted_accounted", "shortcut_outside", "shortcut_of_brightness", "shortcut_gain_evenness")
        ranges = [f"{own[name].min():.2f} to {own[name].max():.2f}" for name in names]
        failed = [f"{int((own[check] == 'fail').sum())} of {judged(own, check)}" for check in CHECKS]
        lines.append(f"| {part} | {epochs} | {kind} | " + " | ".join([*failed, *ranges]) + " |")
    found = table.dropna(subset=["blob_mm"]) if "blob_mm" in table else table[:0]
    test = found[found["part"] == "test"]
    if len(test):
        lines += [
            "",
            f"The position that *accounted* names is {test['blob_mm'].median():.1f} mm from the blob's (median of {len(test)} "
            f"networks of the test, at most {test['blob_mm'].max():.1f} mm; voxels are 8 mm).",
        ]
    return "\n".join(lines) + "\n"


# %%
if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("glas3d-examples/audits.tsv")
    kept = Path(sys.argv[2]) if len(sys.argv) > 2 else path.with_suffix("")
    chosen = [int(seed) for seed in sys.argv[3:]] or (*CHOICE_SEEDS, *TEST_SEEDS)
    print(summary(main(path, kept, chosen)))
