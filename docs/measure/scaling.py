# %% [markdown]
# # Scaling: what a study of many participants takes
#
# Time and memory of the participant and the group level are measured against the number of participants, workers and points,
# with made-up scans and an untrained network: only the cost matters here, not the result. From these figures and the data
# sheet of a GPU, a study of the size of ADNI and one of UK Biobank are estimated.
#
# `python docs/measure/scaling.py docs/scaling.md 1000` writes the page in ten minutes; without arguments, a tiny one.

# %%
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from glas3d.imaging.space import mni_grid
from glas3d.predict import BundleDescription, PaperNet, Standardisation, write_bundle

PAGE = Path(sys.argv[1] if len(sys.argv) > 1 else "glas3d-examples/scaling.md")
SIZE = int(sys.argv[2]) if len(sys.argv) > 2 else 6
FULL = SIZE >= 1000
PAGE.parent.mkdir(exist_ok=True, parents=True)
scratch = TemporaryDirectory()
SCRATCH = Path(scratch.name)
COARSE, MIDDLE, FINE = (16, 4, 2) if FULL else (16, 16, 12)  # mm: against participants; workers and places; on paper

# %% [markdown]
# Every figure comes from a process of its own, which prints its times and the peak memory of itself and of its workers.

# %%
DRIVER = """
import json, resource, sys, time, warnings
from pathlib import Path
from glas3d.study import read_cohort
from glas3d.study.group.level import summarise_groups
from glas3d.study.running.runner import explain_cohort

given, level = json.loads(sys.argv[1]), sys.argv[2]
warnings.simplefilter("ignore")
start = time.monotonic()
cohort = read_cohort(Path(given.pop("scans")))
read = time.monotonic() - start
ticks = []
reported = {"progress": lambda done, total: ticks.append(time.monotonic() - start)}
if level == "participant":
    if isinstance(given["search"], list):
        given["search"] = tuple(given["search"])
    explain_cohort(cohort, **given, **reported, assume_space="MNI", threads=1, engine="eager")
else:
    summarise_groups(given["out"], cohort.everyone, case="AD", control="NC", n_perm=999, n_boot=200, **reported)
peak = [resource.getrusage(process).ru_maxrss for process in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
unit = 1024**2 if sys.platform == "darwin" else 1024
whole = time.monotonic() - start
print(json.dumps({"read": read, "ticks": ticks, "whole": whole, "own": peak[0] / unit, "workers": peak[1] / unit}))
"""


def measure(level, **given):
    """Return what the driver prints, and the seconds from its start to its end as ``total``."""
    start = time.monotonic()
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            DRIVER,
            json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in given.items()}),
            level,
        ],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    if process.returncode:
        raise SystemExit(process.stderr)
    figures = json.loads(process.stdout.splitlines()[-1]) | {"total": time.monotonic() - start}
    print(level, {k: v for k, v in given.items() if not isinstance(v, Path)}, f"{figures['total']:.1f} s", flush=True)
    return figures


def scans_of(n, mm):
    """Write noise in the shape of a head as a BIDS derivative, unless it exists, and return the folder."""
    folder, grid = SCRATCH / f"scans-{n}-{mm}", mni_grid(mm)
    if folder.exists():
        return folder
    rng, axes = np.random.default_rng(n), np.meshgrid(*(np.linspace(-1, 1, k) for k in grid.shape), indexing="ij")
    names = [f"sub-{i:06d}" for i in range(n)]
    for name in names:
        path = folder / name / "anat" / f"{name}_space-MNI_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        volume = 1000 * (sum(axis**2 for axis in axes) < 1) * rng.normal(1, 0.1, grid.shape)
        nib.save(nib.Nifti1Image(volume.astype(np.int16), grid.affine), path)
    table = pd.DataFrame({"participant_id": names, "group": [("AD", "NC")[i % 2] for i in range(n)]})
    table.to_csv(folder / "participants.tsv", sep="\t", index=False)
    return folder


def model_of(mm):
    """Write the paper's network with random weights as a bundle and return the folder."""
    grid = mni_grid(mm)
    torch.manual_seed(16)
    definition = {"_target_": "glas3d.predict.networks.PaperNet", "shape": list(grid.shape)}
    blank = torch.full((1, *grid.shape), 0.3)
    write_bundle(
        SCRATCH / f"model-{mm}",
        PaperNet(grid.shape).eval(),
        definition,
        BundleDescription(
            name="untrained",
            description="Random weights",
            version="0.0.1",
            classes=("NC", "AD"),
            grid=grid,
            standardisation=Standardisation(blank, blank + 0.1),
            reference=blank.numpy(),
            preset={"sigma_light": 20.0, "sigma_shadow": 30.0, "unit": "mm"},
            card="# untrained\n",
        ),
    )
    return SCRATCH / f"model-{mm}"


def pace(figures):
    """Return the seconds for a participant after the first ones."""
    ticks = figures["ticks"][min(5, len(figures["ticks"]) // 2) :]
    return (ticks[-1] - ticks[0]) / (len(ticks) - 1)


def markdown(header, rows):
    cells = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in cells)


models = {mm: model_of(mm) for mm in {COARSE, MIDDLE, FINE}}

# %% [markdown]
# ## Participants

# %%
counts = sorted({max(4, SIZE // share) for share in (100, 10, 1)})
people, groups = {}, {}
for n in counts:
    scans, out = scans_of(n, COARSE), SCRATCH / f"out-{n}"
    people[n] = measure("participant", scans=scans, out=out, models=models[COARSE], search=[2])
    groups[n] = measure("group", scans=scans, out=out)
few, many = counts[-2:]
table = markdown(
    [
        "participants",
        "reading the folder, s",
        "participant level, s",
        "ms each",
        "memory, MB",
        "group level, s",
        "memory, MB",
    ],
    [
        [
            n,
            f"{people[n]['read']:.2f}",
            f"{people[n]['whole']:.1f}",
            f"{1000 * pace(people[n]):.0f}",
            f"{people[n]['own']:.0f}",
            f"{groups[n]['whole']:.1f}",
            f"{groups[n]['own']:.0f}",
        ]
        for n in counts
    ],
)
growth = {
    name: figures[many]["own"] / figures[few]["own"] for name, figures in (("participant", people), ("group", groups))
}


def more(figures, key):
    """Return how much a figure grows with each additional participant; 0 if it falls by chance."""
    return max(0.0, figures[many][key] - figures[few][key]) / (many - few)


# %% [markdown]
# ## Workers

# %%
N_PEOPLE, SEARCH, REPEATS = (120, "AAL", 1) if FULL else (6, [3], 1)
scans = scans_of(N_PEOPLE, MIDDLE)
rounds = [
    {
        n: measure(
            "participant",
            scans=scans,
            out=SCRATCH / f"w-{n}-{repeat}",
            models=models[MIDDLE],
            search=SEARCH,
            n_workers=n,
        )
        for n in ((1, 2) if repeat % 2 == 0 else (2, 1))
    }
    for repeat in range(REPEATS)
]
by_workers = markdown(
    ["workers", "start, s", "s for a participant, warm", "in all, s", "memory of the client, MB", "of a worker, MB"],
    [
        [
            n,
            f"{median(each[n]['total'] - each[n]['ticks'][-1] + each[n]['ticks'][0] for each in rounds):.1f}",
            f"{median(pace(each[n]) for each in rounds):.2f}",
            f"{median(each[n]['total'] for each in rounds):.1f}",
            f"{median(each[n]['own'] for each in rounds):.0f}",
            f"{median(each[n]['workers'] for each in rounds):.0f}" if n > 1 else "",
        ]
        for n in (1, 2)
    ],
)
warm, work, whole = (
    median(ratio(each) for each in rounds)
    for ratio in (
        lambda each: pace(each[1]) / pace(each[2]),
        lambda each: (each[1]["ticks"][-1] - each[1]["ticks"][0]) / (each[2]["ticks"][-1] - each[2]["ticks"][0]),
        lambda each: each[1]["total"] / each[2]["total"],
    )
)

# %% [markdown]
# ## Points: an evaluation for each light and each shadow, and one for the intact scan

# %%
scans = scans_of(5 if FULL else 3, MIDDLE)
by_points = []
for name, search in {"grid 2": [2], "grid 3": [3], "grid 4": [4], "AAL": "AAL", "grid 6": [6]}.items():
    if FULL or name in ("grid 2", "AAL"):
        figures = measure(
            "participant", scans=scans, out=SCRATCH / f"points-{name}", models=models[MIDDLE], search=search
        )
        n_points = (
            pd.read_csv(next((SCRATCH / f"points-{name}").rglob("*_regions.tsv")), sep="\t")["score"].notna().sum()
        )
        by_points.append((name, int(n_points), pace(figures), figures["own"]))
least = min(by_points, key=lambda row: row[1])
most = max(by_points, key=lambda row: row[1])
evaluation = (most[2] - least[2]) / (2 * (most[1] - least[1]))  # s; what takes the same time for all points cancels
rest = least[2] - (2 * least[1] + 1) * evaluation
points_table = markdown(
    ["", "points", "evaluations", "s for a participant", "ms for an evaluation", "memory, MB"],
    [[n, m, 2 * m + 1, f"{s:.2f}", f"{1000 * s / (2 * m + 1):.1f}", f"{mb:.0f}"] for n, m, s, mb in by_points],
)

# %% [markdown]
# ## On paper
#
# The paper's network at 2 mm, from shapes alone: how much its layers multiply, and how much they read and write.

# %%
GPU = "NVIDIA A100 40 GB SXM4"
PEAK, TF32, BANDWIDTH = 19.5e12, 156e12, 1555e9  # its data sheet: FLOP/s in float32 and in TF32, byte/s
SHAPE = (91, 109, 91)
with torch.device("meta"):
    net, volume = PaperNet(SHAPE).eval(), torch.empty(1, 1, *SHAPE)


def cost(net, volume):
    """Return the FLOPs of a forward pass, and the bytes that its layers read and write, without the weights."""
    moved = []
    for layer in net.modules():
        if not list(layer.children()):
            layer.register_forward_hook(lambda _, inputs, out: moved.append(4 * (inputs[0].numel() + out.numel())))
    with FlopCounterMode(display=False) as counter:
        net(volume)
    return counter.get_total_flops(), sum(moved)


flops, moved = cost(net, volume)
with torch.device("meta"):
    middle_flops, _ = cost(PaperNet(mni_grid(MIDDLE).shape).eval(), torch.empty(1, 1, *mni_grid(MIDDLE).shape))
scans = scans_of(3 if FULL else 2, FINE)
fine = measure("participant", scans=scans, out=SCRATCH / "fine", models=models[FINE], search="AAL" if FULL else [2])
files_of_one = list(next((SCRATCH / "fine").glob("sub-*/anat")).iterdir())
megabytes = sum(path.stat().st_size for path in files_of_one) / 1e6
traffic = moved + 3 * 4 * float(np.prod(SHAPE))  # with the mask, the reference and the lit scan
roof = max(flops / PEAK, traffic / BANDWIDTH)
AAL = 2 * 116 + 2  # evaluations: each region kept alone and removed, the scan, and the background
cpu = pace(fine) if FULL else evaluation * AAL * flops / middle_flops


def estimate(name, n):
    hours = n * AAL * roof / 3600
    return [
        name,
        f"{n:,}",
        f"{n * AAL:,}",
        f"{n * cpu / 3600:,.0f}",
        f"{hours:.2g} to {10 * hours:.2g}",
        f"{n * megabytes / 1000:.2g}",
        f"{n * (len(files_of_one) + 2):,}",
        f"{n * more(groups, 'whole') / 60:.1f}",
        f"{(groups[many]['own'] + max(0, n - many) * more(groups, 'own')) / 1000:.1f}",
    ]


on_paper = markdown(
    [
        "",
        "participants",
        "evaluations",
        "hours of one core",
        f"hours of one {GPU}",
        "disk, GB",
        "files and folders",
        "group level, minutes",
        "its memory, GB",
    ],
    [estimate("the paper, ADNI", 429), estimate("UK Biobank", 50_000)],
)

# %%
versions = ", ".join(f"{name} {version(name)}" for name in ("glas3d", "torch", "numpy", "nilearn", "distributed"))
cpuinfo = Path("/proc/cpuinfo")
processor = (
    [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
    if cpuinfo.exists()
    else []
)
load = f", load {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
PAGE.write_text(
    f"""# Scaling

`python docs/measure/scaling.py docs/scaling.md 1000` writes this page; this one is of size {SIZE}.
{processor[0] if processor else platform.machine()}, {os.cpu_count()} cores, one thread a process{load}. Python {platform.python_version()}, {versions}.
The network is the paper's with random weights, run by torch itself (`--engine eager`; docs/engines.md has faster engines). Scans are noise in the shape of a head. Look at the ratios first: the seconds
are those of this machine.

## Participants

Scans and model of {" x ".join(map(str, mni_grid(COARSE).shape))} voxels, 8 points, one process; the group level with 999
permutations and 200 resamples. *ms each*: after the first ones.

{table}

Memory at {many} participants is {growth["participant"]:.2f} times that at {few} at the participant level, and
{growth["group"]:.2f} times at the group level, which keeps the scores and the record of each participant
({1000 * more(groups, "own"):.0f} kB each), never its maps. Most of the memory is that of torch and other libraries.

## Workers

{len(rounds[0][1]["ticks"]) - 1} participants at {MIDDLE} mm, {"the 116 regions of AAL" if SEARCH == "AAL" else "27 points"}. *start*: until the first participant begins, and from the end of the
last one to the end of the process.

{by_workers}

Two workers are {warm:.2f} times as fast as one once they are warm, {work:.2f} times over all participants (each worker
imports torch and loads the model before its first), {whole:.2f} times with start and end. Each free
worker gets one task: the scheduler never holds more tasks than there are workers.

## Points

{least[1]} to {most[1]} points at {MIDDLE} mm: {1000 * evaluation:.2f} ms for an evaluation, and {1000 * rest:.0f} ms for each participant
in addition to the evaluations (reading, masks, maps, files).

{points_table}

## On paper: ADNI and UK Biobank

The paper's network at {" x ".join(map(str, SHAPE))}: {flops / 1e9:.2f} GFLOP for a forward pass (torch's `FlopCounterMode`), and
{traffic / 1e6:.0f} MB that its layers, the mask and the lit scan read and write in float32. By the data sheet of one {GPU}
({PEAK / 1e12:g} TFLOP/s in float32, {TF32 / 1e12:g} in TF32, {BANDWIDTH / 1e9:.0f} GB/s) a forward pass takes
{1e6 * flops / PEAK:.0f} us of arithmetic (TF32: {1e6 * flops / TF32:.0f} us) and {1e6 * traffic / BANDWIDTH:.0f} us of memory: memory decides, and
TF32 gains nothing. No program reaches a data sheet; the table gives that time and ten times it, without reading scans.
AAL takes {AAL} evaluations for each participant; training is not included. Hours of a core are {"measured at 2 mm" if FULL else "scaled by FLOPs from a tiny run"}; disk, files and the group level are scaled from the studies above.

{on_paper}

What would reach a limit first, in this order:

1. **Files.** {len(files_of_one)} files and two folders for each participant, in a folder of their own; the study's folder then has 50,000
   entries, which ext4 and XFS hold without trouble, but a cluster's quota of inodes is often lower than {50_000 * (len(files_of_one) + 2):,}. Several
   studies of some thousands, each with its own `OUT`, solve this.
2. **Reading the BIDS folder** takes {1000 * more(people, "read"):.1f} ms for each participant here, {50_000 * more(people, "read") / 60:.1f} minutes for 50,000, once for every run; each
   job of an array (`--participant-label`) would take it again. A few jobs with many workers take it once.
3. **Memory of the group level** grows by {1000 * more(groups, "own"):.0f} kB for each participant: {50 * more(groups, "own"):.1f} GB for 50,000. Comparing voxels needs
   participants x voxels: 50,000 at 2 mm would be {50_000 * np.prod(SHAPE) * 4 / 1e12:.2f} TB, so compare regions or coarser maps.
4. **The manifest**: the bundle of each fold has the name of everyone and the hash of every file, about 9 MB for 50,000, which every worker
   reads once. Assigning 50,000 participants to folds takes a minute, once.

The scheduler's graph, `participants.tsv` and permutations of regions ({50_000 * 116 * 8 / 1e6:.0f} MB) do not come near a limit.
""",
    encoding="utf-8",
)
print(table, by_workers, points_table, on_paper, f"written: {PAGE}", sep="\n\n")
scratch.cleanup()
