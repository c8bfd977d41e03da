"""The rows: overhead over the bare forwards, rivals, and time against points, voxels, sigma and targets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from benchmarks.contest import Entry, Spread, compete
from benchmarks.methods import RIVALS, Method, Ours
from benchmarks.subjects import Subject, brain, everyday, paper, subjects
from benchmarks.witness import reacts, watch
from glas3d import GLAS, Grid, Predictor
from glas3d.core.explanation import Explanation
from glas3d.core.score import Target
from glas3d.core.search import Search

# Those that are no matter of taste; compile takes minutes to build some of the nets.
ENGINES = ("eager", "openvino", "onnx", "channels_last")

Say = Callable[[str], None]
Explain = Callable[[], "Explanation | tuple[Explanation, ...]"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure.

    Attributes
    ----------
    kind
        Which question it answers, a heading of the table.
    net, shape
        What was explained.
    what, against
        The two things whose ratio this is.
    better
        `"lower"`: the ratio is a cost, 1 is free. `"higher"`: above 1 we are ahead, below 1 we lose.
        `"flat"`: 1 means that it makes no difference.
    ratio, low, high, repeats
        Median, lowest and highest over the repeats.
    value, unit
        The median of the thing in question itself.
    work
        How much of it was done, in words.
    """

    kind: str
    net: str
    shape: str
    what: str
    against: str
    better: str
    ratio: float
    low: float
    high: float
    repeats: int
    value: float
    unit: str
    work: str


def row(
    kind: str, subject: Subject, what: str, against: str, better: str, ratio: Spread, value: float, **rest: str
) -> Row:
    spread = asdict(ratio)
    return Row(
        kind=kind, net=subject.name, shape="x".join(map(str, subject.shape)), what=what, against=against,
        better=better, ratio=spread["median"], low=spread["low"], high=spread["high"], repeats=spread["repeats"],
        value=value, unit=rest.get("unit", "ms a forward"), work=rest["work"],
    )  # fmt: skip


def against_rivals(subject: Subject, repeats: int) -> Iterator[Row]:
    """Overhead and every rival, stock and with our batch size, of one net, in one interleaved run."""
    net = subject.build()
    ours = Ours(subject)
    seen = watch(ours, net, keep=True)
    predict = Predictor(net, device="cpu")

    def bare() -> None:
        for batch in seen.batches:
            predict(batch)

    methods: dict[str, Method] = {"ours": ours}
    for rival in RIVALS:
        methods[f"{rival.name}, stock"] = rival(subject)
        methods[f"{rival.name}, our batch"] = rival(subject, batch=seen.largest)
    asked = {name: watch(method, net) for name, method in methods.items()}
    for method in methods.values():
        reacts(method)
    bare()
    entries: dict[str, Entry] = {"bare": bare} | {name: method.bind(net) for name, method in methods.items()}
    times = compete(entries, repeats)

    value = times.of("ours", seen.inputs).median * 1e3
    yield row(
        "overhead", subject, "glas3d GLAS.explain", "the same bare forwards", "lower",
        times.ratio("ours", "bare"), value,
        work=f"{ours.places} regions, {seen.inputs} inputs in batches of {seen.largest}",
    )  # fmt: skip
    rivals = {name: method for name, method in methods.items() if method is not ours}
    for name in rivals:
        ratio = times.ratio(name, "ours", asked[name].inputs, seen.inputs)
        value = times.of(name, asked[name].inputs).median * 1e3
        work = f"{asked[name].inputs} inputs in batches of up to {asked[name].largest}"
        yield row("per forward", subject, name, "glas3d GLAS.explain", "higher", ratio, value, work=work)
    for name, method in rivals.items():
        ratio = times.ratio(name, "ours", method.places, ours.places)
        value, unit = times.of(name, method.places).median * 1e3, "ms a place"
        work = f"{method.places} places, {asked[name].inputs} inputs"
        yield row("per place", subject, name, "glas3d GLAS.explain", "higher", ratio, value, unit=unit, work=work)


def against_engines(subject: Subject, repeats: int, engines: tuple[str, ...]) -> Iterator[Row]:
    """Every engine against the network itself, and against its own bare forwards, in one interleaved run."""
    net = subject.build()
    seen = watch(Ours(subject), net, keep=True)
    entries: dict[str, Entry] = {}
    for engine in engines:
        predict = Predictor(net, device="cpu").with_engine(engine, len(seen.batches))
        entries[f"bare by {engine}"] = lambda predict=predict: [predict(batch) for batch in seen.batches]
        entries[engine] = Ours(subject, engine=engine).bind(net)
    for warm in entries.values():
        warm()
    times = compete(entries, repeats)
    work = f"{Ours(subject).places} regions, {seen.inputs} inputs in batches of {seen.largest}"
    for engine in engines:
        value = times.of(engine, seen.inputs).median * 1e3
        if engine != "eager":
            yield row("engines", subject, engine, "eager", "higher", times.ratio("eager", engine), value, work=work)
        ratio = times.ratio(engine, f"bare by {engine}")
        against = "the same bare forwards"
        yield row("engine overhead", subject, f"GLAS.explain by {engine}", against, "lower", ratio, value, work=work)


def _forwards(answer: Explanation | tuple[Explanation, ...]) -> int:
    """Inputs an explanation asked, the padding of its last batch included."""
    settings = (answer[0] if isinstance(answer, tuple) else answer).settings
    batch = settings["batch_size"]
    return math.ceil(settings["forwards"] / batch) * batch


def _flat(
    kind: str, entries: dict[str, tuple[Subject, Explain, str]], base: str, repeats: int, *, voxels: bool = False
) -> Iterator[Row]:
    """Rows of one interleaved run: every entry's time a forward (a forward and a voxel) over the base's."""
    forwards = {name: _forwards(call()) for name, (_, call, _) in entries.items()}
    times = compete({name: call for name, (_, call, _) in entries.items()}, repeats)
    units = {name: n * (math.prod(entries[name][0].shape) if voxels else 1) for name, n in forwards.items()}
    for name, (subject, _, work) in entries.items():
        if name != base:
            ratio = times.ratio(name, base, units[name], units[base])
            value = times.of(name, forwards[name]).median * 1e3
            per = "voxel" if voxels else "forward"
            yield row(
                kind, subject, name, f"{base} (per {per})", "flat", ratio, value,
                work=f"{work}; {times.of(base, forwards[base]).median * 1e3:.4g} ms a forward at {base}",
            )  # fmt: skip


def _explain(
    predict: Predictor, subject: Subject, search: Search, sigmas: tuple[float, float], target: Target | list[Target] = 1
) -> Explain:
    glas = GLAS(predict, sigma_light=sigmas[0], sigma_shadow=sigmas[1], engine="eager")
    return lambda: glas.explain(subject.volume, target, search)


def against_points(subject: Subject, cells: tuple[int, ...], repeats: int) -> Iterator[Row]:
    predict = Predictor(subject.build(), device="cpu")
    entries = {
        f"{k ** len(subject.shape)} points": (
            subject, _explain(predict, subject, Grid(k), subject.sigmas),
            f"grid of {k} cells an axis, map of Eq. 3 included",
        )
        for k in cells
    }  # fmt: skip
    yield from _flat("points", entries, next(iter(entries)), repeats)


def against_voxels(ladder: list[Subject], repeats: int) -> Iterator[Row]:
    """The larger the volume the fewer its regions, so that none takes much longer."""
    entries = {}
    for subject in ladder:
        predict = Predictor(subject.build(), device="cpu")
        call = _explain(predict, subject, subject.segments, subject.sigmas)
        entries["x".join(map(str, subject.shape))] = (subject, call, f"{len(subject.segments.index)} regions")
    yield from _flat("voxels", entries, next(iter(entries)), repeats, voxels=True)


def against_sigma(subject: Subject, sigmas: tuple[float, ...], base: float, repeats: int) -> Iterator[Row]:
    predict = Predictor(subject.build(), device="cpu")
    work = f"{len(subject.segments.index)} regions, both sigmas in voxels"
    entries = {f"sigma {s:g}": (subject, _explain(predict, subject, subject.segments, (s, s)), work) for s in sigmas}
    yield from _flat("sigma", entries, f"sigma {base:g}", repeats)


def against_targets(subject: Subject, cells: int, classes: int, repeats: int) -> Iterator[Row]:
    """One class or all of them from the same forwards: painted regions, and maps of Eq. 3."""
    predict = Predictor(paper(subject.shape, classes), device="cpu")
    everything: list[Target] = list(range(classes))
    searches: tuple[tuple[Search, str], ...] = (
        (subject.segments, f"{len(subject.segments.index)} regions, painted"),
        (Grid(cells), f"{cells ** len(subject.shape)} points of a grid, maps of Eq. 3"),
    )
    for search, work in searches:
        one = _explain(predict, subject, search, subject.sigmas)
        every = _explain(predict, subject, search, subject.sigmas, everything)
        entries = {"1 target": (subject, one, work), f"{classes} targets": (subject, every, work)}
        yield from _flat("targets", entries, "1 target", repeats)


def timed(quick: bool, repeats: int, say: Say) -> Iterator[Row]:
    """Every row but memory's."""
    for subject in subjects(quick):
        say(f"{subject.name} {subject.shape}: floor and rivals")
        yield from against_rivals(subject, repeats)
        say(f"{subject.name} {subject.shape}: engines")
        yield from against_engines(subject, repeats, ENGINES[: 2 if quick else None])
    one = everyday(quick)
    two = brain((91, 109, 91), 2.0, (2, 3, 4), 12)
    say("points")
    yield from against_points(one, (2, 3) if quick else (3, 5, 8), repeats)
    say("voxels")
    if quick:
        ladder = [one, brain((24, 32, 24), 9.0, (2, 2, 1), 4)]
    else:
        ladder = [one, two, brain((181, 217, 181), 1.0, (2, 3, 4), 3)]
    yield from against_voxels(ladder, repeats)
    say("sigma")
    for subject in [one] if quick else [one, two]:
        yield from against_sigma(subject, (1.0, 10.0) if quick else (1.0, 3.0, 10.0, 30.0), 10.0, repeats)
    say("targets")
    yield from against_targets(one, 2 if quick else 5, 20 if quick else 200, repeats)
