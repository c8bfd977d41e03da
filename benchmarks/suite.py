"""The rows: engines and their overhead, rivals, and time against points, voxels, sigma and targets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from benchmarks.contest import Entry, compete
from benchmarks.maps import whole_maps
from benchmarks.methods import RIVALS, TO_COME, Method, Ours, bare, settle
from benchmarks.recomputing import recomputed
from benchmarks.roofline import against_the_machine
from benchmarks.rows import Row, Say, row
from benchmarks.subjects import DEVICE, Subject, brain, everyday, paper, subjects
from benchmarks.witness import Seen, reacts, watch
from glas3d import GLAS, GlasError, Grid, Predictor
from glas3d.core.explanation import Explanation
from glas3d.core.score import Target
from glas3d.core.search import Search

# Regions of the rows that no rival is in.
_FEW = 24

Explain = Callable[[], "Explanation | tuple[Explanation, ...]"]


def against_rivals(subject: Subject, repeats: int) -> Iterator[Row]:
    """Every rival, stock and tuned, against ours by `auto` and by the network itself, in one interleaved run."""
    net = subject.build()
    asked_by = {
        "auto": Ours(subject, engine="auto"),
        "eager": Ours(replace(subject, regions=min(_FEW, subject.regions))),
    }
    seen = watch(asked_by["eager"], net, keep=True)
    chosen = settle(net, seen.batches[0])
    stock = [rival(subject) for rival in RIVALS]
    tuned = [rival(subject, batch=seen.largest) for rival in RIVALS]
    asked = {method: watch(method, net) for method in (*stock, *tuned)}
    inputs = {"auto": watch(replace(asked_by["auto"], engine="eager"), net).inputs, "eager": seen.inputs}
    for method in (*stock, *tuned, asked_by["eager"]):
        reacts(method)
    named: dict[str, Method] = {f"{m.name}, stock": m for m in stock} | {f"{m.name}, tuned": m for m in tuned}
    entries: dict[str, Entry] = {name: ours.bind(net) for name, ours in asked_by.items()}
    entries |= {name: m.bind(net) if m.batch is None else m.tuned(net) for name, m in named.items()}
    entries["auto"]()
    times = compete(entries, repeats)

    for engine, ours in asked_by.items():
        against = f"glas3d GLAS by {chosen} ({engine})" if engine == "auto" else "glas3d GLAS by eager"
        by = "" if engine == "auto" else ", ours by eager"
        for name, method in named.items():
            ratio = times.ratio(name, engine, asked[method].inputs, inputs[engine])
            value = times.of(name, asked[method].inputs).median * 1e3
            work = f"{asked[method].inputs} inputs in batches of up to {asked[method].largest}"
            yield row(f"per forward{by}", subject, name, against, "higher", ratio, value, work=work)
        for name, method in named.items():
            ratio = times.ratio(name, engine, method.places, ours.places)
            value, unit = times.of(name, method.places).median * 1e3, "ms a place"
            work = f"{method.places} places, {asked[method].inputs} inputs"
            yield row(f"per place{by}", subject, name, against, "higher", ratio, value, unit=unit, work=work)


def against_engines(subject: Subject, repeats: int, say: Say) -> Iterator[Row]:
    """Every engine against the network itself, and `auto` against the fastest, in one interleaved run."""
    net = subject.build()
    seen = watch(Ours(subject), net, keep=True)
    chosen = settle(net, seen.batches[0])
    entries: dict[str, Entry] = {}
    for engine in ("eager", *subject.engines, "auto"):
        entries[engine] = Ours(subject, engine=engine).bind(net)
        try:
            entries[engine]()
        except GlasError as error:  # a library that is not installed, a network that it cannot run
            say(str(error))
            del entries[engine]
    times = compete(entries, repeats)
    work = _work(subject, seen)
    engines = [name for name in entries if name != "auto"]
    for engine in engines:
        if engine != "eager":
            value = times.of(engine, seen.inputs).median * 1e3
            yield row("engines", subject, engine, "eager", "higher", times.ratio("eager", engine), value, work=work)
    best = min(engines, key=lambda name: times.of(name).median)
    value = times.of("auto", seen.inputs).median * 1e3
    yield row(
        "auto", subject, f"auto, which took {chosen}", f"{best}, the fastest", "flat", times.ratio("auto", best),
        value, work=work,
    )  # fmt: skip


def over_the_forwards(subject: Subject, repeats: int) -> Iterator[Row]:
    """The whole explanation, by the network itself and by what `auto` takes, over bare forwards."""
    net = subject.build()
    seen = watch(Ours(subject), net, keep=True)
    engines = dict.fromkeys(("eager", settle(net, seen.batches[0])))
    entries: dict[str, Entry] = {}
    again = [seen.batches[0]] * len(seen.batches)
    for engine in engines:
        asked = Predictor(net, "softmax", device=DEVICE).with_engine(engine, TO_COME)
        entries[engine] = Ours(subject, engine=engine).bind(net)
        entries[f"batches by {engine}"] = bare(asked, seen.batches)
        entries[f"again by {engine}"] = bare(asked, again)
    for warm in entries.values():
        warm()
    times = compete(entries, repeats)
    for engine in engines:
        for floor, against in (
            ("batches", "the same forwards, batches made beforehand"),
            ("again", "as many forwards of one batch"),
        ):
            ratio = times.ratio(engine, f"{floor} by {engine}")
            value = times.of(engine, seen.inputs).median * 1e3
            what, work = f"GLAS.explain by {engine}", _work(subject, seen)
            yield row("overhead", subject, what, against, "lower", ratio, value, work=work)


def _work(subject: Subject, seen: Seen) -> str:
    return f"{Ours(subject).places} regions, {seen.inputs} inputs in batches of {seen.largest}"


def _forwards(answer: Explanation | tuple[Explanation, ...]) -> int:
    """Inputs an explanation asked, the padding of its last batch included."""
    settings = (answer[0] if isinstance(answer, tuple) else answer).settings
    batch = settings["batch_size"]
    return math.ceil(settings["evaluations"] / batch) * batch


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
    predict = Predictor(subject.build(), "softmax", device=DEVICE)
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
        predict = Predictor(subject.build(), "softmax", device=DEVICE)
        call = _explain(predict, subject, subject.segments, subject.sigmas)
        entries[subject.size] = (subject, call, f"{len(subject.segments.index)} regions")
    yield from _flat("voxels", entries, next(iter(entries)), repeats, voxels=True)


def against_sigma(subject: Subject, sigmas: tuple[float, ...], base: float, repeats: int) -> Iterator[Row]:
    predict = Predictor(subject.build(), "softmax", device=DEVICE)
    work = f"{len(subject.segments.index)} regions, both sigmas in voxels"
    entries = {f"sigma {s:g}": (subject, _explain(predict, subject, subject.segments, (s, s)), work) for s in sigmas}
    yield from _flat("sigma", entries, f"sigma {base:g}", repeats)


def against_targets(subject: Subject, cells: int, classes: int, repeats: int) -> Iterator[Row]:
    """One class or all of them from the same forwards: painted regions, and maps of Eq. 3."""
    predict = Predictor(paper(subject.shape, classes), "softmax", device=DEVICE)
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


def timed(quick: bool, repeats: int, say: Say, wanted: Callable[[str], bool], net: str = "") -> Iterator[Row]:
    """Every row but memory's.

    Parameters
    ----------
    wanted
        Whether a part is measured.
    net
        Of engines, overhead and rivals, those nets alone whose name and shape hold this.
    """
    for subject in subjects(quick):
        if net not in subject.title:
            continue
        if wanted("engines"):
            say(f"{subject.name} {subject.shape}: engines")
            yield from against_engines(subject, repeats, say)
        if wanted("overhead"):
            say(f"{subject.name} {subject.shape}: overhead")
            yield from over_the_forwards(subject, repeats)
        if wanted("rivals"):
            say(f"{subject.name} {subject.shape}: rivals")
            yield from against_rivals(subject, repeats)
    if wanted("maps"):
        say("whole maps of a photograph")
        yield from whole_maps(quick, repeats)
    if wanted("recomputed"):
        yield from recomputed(quick, repeats, say)
    if wanted("roofline"):
        yield from against_the_machine(quick, repeats, say)
    if wanted("sizes"):
        yield from _sizes(quick, repeats, say)


def _sizes(quick: bool, repeats: int, say: Say) -> Iterator[Row]:
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
