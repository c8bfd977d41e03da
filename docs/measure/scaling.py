# %% [markdown]
# # Scaling: what a study of many participants takes
#
# Time and memory of the participant and the group level against participants, workers and places looked at, on made scans
# and a network that was never trained: what it answers is of no interest here, only what asking costs. Then, on paper, from
# these figures and a GPU's data sheet: a study of ADNI's size and one of UK Biobank's.
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
PLACE = Path(scratch.name)
COARSE, MIDDLE, FINE = (16, 4, 2) if FULL else (16, 16, 12)  # mm: against participants; workers and places; on paper

# %% [markdown]
# Every figure is of a process of its own, which says when what was done and how much memory it and its workers had at most.

# %%
DRIVER = """
import json, resource, sys, time, warnings
from pathlib import Path
from glas3d.study import read_cohort
from glas3d.study.group.level import summarise_groups
from glas3d.study.running.runner import explain_cohort

given, level = json.loads(sys.argv[1]), sys.argv[2]
warnings.simplefilter("ignore")
begun = time.monotonic()
cohort = read_cohort(Path(given.pop("scans")))
read = time.monotonic() - begun
ticks = []
said = {"progress": lambda done, total: ticks.append(time.monotonic() - begun)}
if level == "participant":
    if isinstance(given["search"], list):
        given["search"] = tuple(given["search"])
    explain_cohort(cohort, **given, **said, assume_space="MNI", threads=1, engine="eager")
else:
    summarise_groups(given["out"], cohort.everyone, case="AD", control="NC", n_perm=999, n_boot=200, **said)
most = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
unit = 1024**2 if sys.platform == "darwin" else 1024
whole = time.monotonic() - begun
print(json.dumps({"read": read, "ticks": ticks, "whole": whole, "own": most[0] / unit, "workers": most[1] / unit}))
"""


def took(level, **given):
    """What the driver says, and the seconds from its start to its end as ``total``."""
    begun = time.monotonic()
    done = subprocess.run(
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
    if done.returncode:
        raise SystemExit(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1]) | {"total": time.monotonic() - begun}
    print(level, {k: v for k, v in given.items() if not isinstance(v, Path)}, f"{found['total']:.1f} s", flush=True)
    return found


def scans_of(n, mm):
    """Noise in the shape of a head, as a BIDS derivative."""
    place, grid = PLACE / f"scans-{n}-{mm}", mni_grid(mm)
    if place.exists():
        return place
    rng, axes = np.random.default_rng(n), np.meshgrid(*(np.linspace(-1, 1, k) for k in grid.shape), indexing="ij")
    names = [f"sub-{i:06d}" for i in range(n)]
    for name in names:
        path = place / name / "anat" / f"{name}_space-MNI_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        volume = 1000 * (sum(axis**2 for axis in axes) < 1) * rng.normal(1, 0.1, grid.shape)
        nib.save(nib.Nifti1Image(volume.astype(np.int16), grid.affine), path)
    table = pd.DataFrame({"participant_id": names, "group": [("AD", "NC")[i % 2] for i in range(n)]})
    table.to_csv(place / "participants.tsv", sep="\t", index=False)
    return place


def model_of(mm):
    """The paper's network with random weights."""
    grid = mni_grid(mm)
    torch.manual_seed(16)
    definition = {"_target_": "glas3d.predict.networks.PaperNet", "shape": list(grid.shape)}
    blank = torch.full((1, *grid.shape), 0.3)
    write_bundle(
        PLACE / f"model-{mm}",
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
    return PLACE / f"model-{mm}"


def pace(found):
    """Seconds a participant once everything is warm."""
    ticks = found["ticks"][min(5, len(found["ticks"]) // 2) :]
    return (ticks[-1] - ticks[0]) / (len(ticks) - 1)


def markdown(header, rows):
    cells = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in cells)


models = {mm: model_of(mm) for mm in {COARSE, MIDDLE, FINE}}

# %% [markdown]
# ## Participants

# %%
counts = sorted({max(4, SIZE // share) for share in (100, 10, 1)})
people, groups, files = {}, {}, {}
for n in counts:
    place, out = scans_of(n, COARSE), PLACE / f"out-{n}"
    people[n] = took("participant", scans=place, out=out, models=models[COARSE], search=[2])
    groups[n] = took("group", scans=place, out=out)
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
growth = {name: found[many]["own"] / found[few]["own"] for name, found in (("participant", people), ("group", groups))}


def more(found, key):
    """By how much a figure grows with each participant more; 0 where chance has it fall."""
    return max(0.0, found[many][key] - found[few][key]) / (many - few)


# %% [markdown]
# ## Workers

# %%
PEOPLE, LOOK, TURNS = (120, "AAL", 1) if FULL else (6, [3], 1)
place = scans_of(PEOPLE, MIDDLE)
rounds = [
    {
        n: took(
            "participant", scans=place, out=PLACE / f"w-{n}-{turn}", models=models[MIDDLE], search=LOOK, n_workers=n
        )
        for n in ((1, 2) if turn % 2 == 0 else (2, 1))
    }
    for turn in range(TURNS)
]
by_workers = markdown(
    ["workers", "start, s", "s a participant, warm", "in all, s", "memory of the client, MB", "of a worker, MB"],
    [
        [
            n,
            f"{median(one[n]['total'] - one[n]['ticks'][-1] + one[n]['ticks'][0] for one in rounds):.1f}",
            f"{median(pace(one[n]) for one in rounds):.2f}",
            f"{median(one[n]['total'] for one in rounds):.1f}",
            f"{median(one[n]['own'] for one in rounds):.0f}",
            f"{median(one[n]['workers'] for one in rounds):.0f}" if n > 1 else "",
        ]
        for n in (1, 2)
    ],
)
warm, work, whole = (
    median(ratio(one) for one in rounds)
    for ratio in (
        lambda one: pace(one[1]) / pace(one[2]),
        lambda one: (one[1]["ticks"][-1] - one[1]["ticks"][0]) / (one[2]["ticks"][-1] - one[2]["ticks"][0]),
        lambda one: one[1]["total"] / one[2]["total"],
    )
)

# %% [markdown]
# ## Places: a forward for each light and each shadow, and one for the intact scan

# %%
place = scans_of(5 if FULL else 3, MIDDLE)
by_places = []
for name, search in {"grid 2": [2], "grid 3": [3], "grid 4": [4], "AAL": "AAL", "grid 6": [6]}.items():
    if FULL or name in ("grid 2", "AAL"):
        found = took("participant", scans=place, out=PLACE / f"places-{name}", models=models[MIDDLE], search=search)
        looked = pd.read_csv(next((PLACE / f"places-{name}").rglob("*_regions.tsv")), sep="\t")["score"].notna().sum()
        by_places.append((name, int(looked), pace(found), found["own"]))
least = min(by_places, key=lambda row: row[1])
most = max(by_places, key=lambda row: row[1])
forward = (most[2] - least[2]) / (2 * (most[1] - least[1]))  # s; what is beside the forwards drops out
beside = least[2] - (2 * least[1] + 1) * forward
places_table = markdown(
    ["", "places", "forwards", "s a participant", "ms a forward", "memory, MB"],
    [[n, m, 2 * m + 1, f"{s:.2f}", f"{1000 * s / (2 * m + 1):.1f}", f"{mb:.0f}"] for n, m, s, mb in by_places],
)

# %% [markdown]
# ## On paper
#
# The paper's network at 2 mm, without anything but shapes: what its layers multiply, and what they read and write.

# %%
GPU = "NVIDIA A100 40 GB SXM4"
PEAK, TF32, BANDWIDTH = 19.5e12, 156e12, 1555e9  # its data sheet: FLOP/s in float32 and in TF32, byte/s
SHAPE = (91, 109, 91)
with torch.device("meta"):
    net, volume = PaperNet(SHAPE).eval(), torch.empty(1, 1, *SHAPE)


def asked(net, volume):
    """FLOPs of a forward, and bytes its layers read and write, weights read once a batch not counted."""
    moved = []
    for layer in net.modules():
        if not list(layer.children()):
            layer.register_forward_hook(lambda _, given, out: moved.append(4 * (given[0].numel() + out.numel())))
    with FlopCounterMode(display=False) as counter:
        net(volume)
    return counter.get_total_flops(), sum(moved)


flops, moved = asked(net, volume)
with torch.device("meta"):
    middle_flops, _ = asked(PaperNet(mni_grid(MIDDLE).shape).eval(), torch.empty(1, 1, *mni_grid(MIDDLE).shape))
place = scans_of(3 if FULL else 2, FINE)
one = took("participant", scans=place, out=PLACE / "fine", models=models[FINE], search="AAL" if FULL else [2])
own = list(next((PLACE / "fine").glob("sub-*/anat")).iterdir())
megabytes = sum(path.stat().st_size for path in own) / 1e6
spots = moved + 3 * 4 * float(np.prod(SHAPE))  # the spot, the reference and the lit scan pass memory as well
roof = max(flops / PEAK, spots / BANDWIDTH)
cpu = pace(one) if FULL else forward * 233 * flops / middle_flops


def paper(name, n):
    hours = n * 233 * roof / 3600
    return [
        name,
        f"{n:,}",
        f"{n * 233:,}",
        f"{n * cpu / 3600:,.0f}",
        f"{hours:.2g} to {10 * hours:.2g}",
        f"{n * megabytes / 1000:.2g}",
        f"{n * (len(own) + 2):,}",
        f"{n * more(groups, 'whole') / 60:.1f}",
        f"{(groups[many]['own'] + max(0, n - many) * more(groups, 'own')) / 1000:.1f}",
    ]


on_paper = markdown(
    [
        "",
        "participants",
        "forwards",
        "hours of one core",
        f"hours of one {GPU}",
        "disk, GB",
        "files and folders",
        "group level, minutes",
        "its memory, GB",
    ],
    [paper("the paper, ADNI", 429), paper("UK Biobank", 50_000)],
)

# %%
versions = ", ".join(f"{name} {version(name)}" for name in ("glas3d", "torch", "numpy", "nilearn", "distributed"))
cpuinfo = Path("/proc/cpuinfo")
named = (
    [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
    if cpuinfo.exists()
    else []
)
load = f", load {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
PAGE.write_text(
    f"""# Scaling

`python docs/measure/scaling.py docs/scaling.md 1000` writes this page; this one is of size {SIZE}.
{named[0] if named else platform.machine()}, {os.cpu_count()} cores, one thread a process{load}. Python {platform.python_version()}, {versions}.
The network is the paper's with random weights, run by itself (`--engine eager`; docs/engines.md has faster ones), scans are noise in the shape of a head. Look at the ratios first: seconds are
this machine's.

## Participants

Scans and model of {" x ".join(map(str, mni_grid(COARSE).shape))} voxels, 8 points, one process; the group level with 999
permutations and 200 resamples. *ms each*: once everything is warm.

{table}

Memory at {many} participants is {growth["participant"]:.2f} times that at {few} at the participant level, and
{growth["group"]:.2f} times at the group level, which keeps a participant's scores and what its record says
({1000 * more(groups, "own"):.0f} kB each), never its maps. Most of the memory is that of torch and the other libraries.

## Workers

{len(rounds[0][1]["ticks"]) - 1} participants at {MIDDLE} mm, {"the 116 regions of AAL" if LOOK == "AAL" else "27 points"}. *start*: until the first participant is begun, and from the last
one's end to the process's.

{by_workers}

Two workers are {warm:.2f} times as fast as one once they are warm, {work:.2f} times over all participants (each worker
imports torch and loads the model before its first), {whole:.2f} times with start and end. Tasks are handed out one a free
worker: the scheduler never holds more of them than there are workers.

## Places

{least[1]} to {most[1]} places at {MIDDLE} mm: {1000 * forward:.2f} ms a forward, and {1000 * beside:.0f} ms a participant
beside the forwards (reading, spots, maps, files).

{places_table}

## On paper: ADNI and UK Biobank

The paper's network at {" x ".join(map(str, SHAPE))}: {flops / 1e9:.2f} GFLOP a forward (torch's `FlopCounterMode`), and
{spots / 1e6:.0f} MB that its layers, the spot and the lit scan read and write in float32. By the data sheet of one {GPU}
({PEAK / 1e12:g} TFLOP/s in float32, {TF32 / 1e12:g} in TF32, {BANDWIDTH / 1e9:.0f} GB/s) a forward takes
{1e6 * flops / PEAK:.0f} us of arithmetic (TF32: {1e6 * flops / TF32:.0f} us) and {1e6 * spots / BANDWIDTH:.0f} us of memory: memory decides, and
TF32 gains nothing. Nobody reaches a data sheet; the table gives that time and ten times it, and counts no reading of scans.
AAL, 233 forwards each; training comes on top. Hours of a core are {"measured at 2 mm" if FULL else "scaled by FLOPs from a tiny run"}; disk, files and the group level are scaled from the studies above.

{on_paper}

What would break first, in this order:

1. **Files.** {len(own)} files and two folders a participant, in a folder of their own; the study's folder then has 50,000 entries,
   which ext4 and XFS hold without trouble, but a cluster's quota of inodes is often lower than {50_000 * (len(own) + 2):,}. Several studies of
   some thousands, one `OUT` each, are the way out.
2. **Reading the BIDS folder** takes {1000 * more(people, "read"):.1f} ms a participant here, {50_000 * more(people, "read") / 60:.1f} minutes for 50,000, once for every run; each job
   of an array (`--participant-label`) would pay it again. Few jobs with many workers pay it once.
3. **Memory of the group level** grows by {1000 * more(groups, "own"):.0f} kB a participant: {50 * more(groups, "own"):.1f} GB for 50,000. Comparing voxels needs
   participants x voxels: at 2 mm 50,000 would be {50_000 * np.prod(SHAPE) * 4 / 1e12:.2f} TB, so regions it must be, or coarser maps.
4. **The manifest**: each fold's bundle names everyone and the hash of every file, about 9 MB for 50,000, which every worker
   reads once. Dealing 50,000 participants into folds takes a minute, once.

The scheduler's graph, `participants.tsv` and permutations of regions ({50_000 * 116 * 8 / 1e6:.0f} MB) do not come near a limit.
""",
    encoding="utf-8",
)
print(table, by_workers, places_table, on_paper, f"written: {PAGE}", sep="\n\n")
scratch.cleanup()
