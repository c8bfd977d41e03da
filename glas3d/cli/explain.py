"""``glas3d explain``: one participant's scan."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from glas3d.cli import terminal
from glas3d.cli.derived import in_group
from glas3d.cli.explain_options import ScanCommandOptions, explain_keywords, search_on_scan
from glas3d.cli.interruption import if_interrupted
from glas3d.cli.messages import Messages
from glas3d.cli.parameters import LoadingOptions, class_of
from glas3d.cli.report import look_at, written_report
from glas3d.counts import counted
from glas3d.display import shown_output
from glas3d.errors import GlasError, GlasWarning
from glas3d.explain.options import SEARCH

if TYPE_CHECKING:
    from glas3d.explain.result import ScanExplanation

explain = App(
    name="explain",
    usage="Usage: glas3d explain SCAN --model M --target T --out DIR [OPTIONS]",
    help_epilogue="An option that takes several values takes everything up to the next option: give SCAN first.",
)


@explain.default
def explain_scan(
    *scan: Path,
    model: Annotated[str, in_group("Model")],
    target: Annotated[str, in_group("Model")],
    out: Annotated[Path, in_group("Output")],
    options: Annotated[ScanCommandOptions, Parameter(name="*")] = ScanCommandOptions(),  # noqa: B008 (frozen)
    supervoxels: Annotated[int | None, in_group(SEARCH)] = None,
    loading: Annotated[LoadingOptions, Parameter(name="*")] = LoadingOptions(),  # noqa: B008 (frozen)
    keep_memory: Annotated[bool, in_group("Speed")] = False,
    overwrite: Annotated[bool, in_group("Output")] = False,
    no_report: Annotated[bool, in_group("Output")] = False,
    dry_run: Annotated[bool, in_group("Output")] = False,
    json: Annotated[bool, in_group("Output")] = False,
    messages: Annotated[Messages, Parameter(name="*")] = Messages(),  # noqa: B008 (frozen)
) -> None:
    """Explain the output of a model for one scan: maps on the scan's grid and a ranked table.

    Parameters
    ----------
    scan
        A 3D volume that nibabel can read (NIfTI, mgz), in MNI space unless the atlas is in the scan's own space. For
        a model of several inputs give as many scans, in the order of its channels; the maps are on the grid of the
        first.
    model
        Name of a shipped model, a MONAI bundle folder, a .pt2 or .onnx file, or package.module:factory, which is
        code.
    target
        Class to explain, by its name or its index from 0.
    out
        Folder for the results.
    supervoxels
        Search about this many supervoxels of similar brightness, into which the scan is cut (SLIC), in place of an
        atlas. Default: an atlas.
    keep_memory
        Keep the memory that the network frees until the end, instead of returning it to the system after every layer.
        This is up to twice as fast with --engine eager, but the process keeps its largest size. Linux only.
    overwrite
        Replace results of another input, target or settings that have the same names. Default: refuse.
    no_report
        Do not write report.html, which shows the results of the folder, with a copy of the scan.
    dry_run
        Report the time and memory that the explanation would take, estimated from its first model evaluations, and
        write nothing.
    json
        Write the result to standard output as JSON, for other programs.
    """
    if_interrupted("nothing was written")
    from glas3d.explain.cost import estimate_cost
    from glas3d.explain.dataset import describe_dataset
    from glas3d.explain.scan import resolve_scan
    from glas3d.output import check_folder
    from glas3d.predict.engine.memory import keep_memory as memory_is_kept

    if not scan:
        raise GlasError(
            "SCAN is missing; an option that takes several values takes everything that follows it: "
            "give SCAN first, as in glas3d explain SCAN --background 0"
        )
    keywords = explain_keywords(options)
    predict = loading.load(model)
    images = list(scan) if len(scan) > 1 else scan[0]
    search, explained = search_on_scan(options, supervoxels, scan[0]), class_of(target, predict.classes)
    if "versus" in keywords:
        keywords["versus"] = class_of(keywords["versus"], predict.classes)
    request = resolve_scan(images, predict, explained, search, keywords)
    check_folder(out)
    if not overwrite:
        request.refuse_other_results(out)
    with memory_is_kept() if keep_memory else nullcontext(True) as supported:
        if not supported:
            warnings.warn("--keep-memory does nothing here: it needs Linux with glibc", GlasWarning, stacklevel=2)
        if dry_run:
            cost = estimate_cost(request.explain, keywords.get("recursive", False))
            if json:
                terminal.write_json(vars(cost))
            else:
                terminal.write(terminal.cost_text(cost))
                terminal.write("Nothing was written.")
            return
        with terminal.progress("model evaluations") as progress:
            result: Any = request.explain(progress)
    written = result.save(out, overwrite=overwrite)
    if_interrupted(f"the results are in {out}")
    describe_dataset(out, scan)
    shown = None if no_report else written_report(out, scan)
    terminal.show_notes(result.notes)
    if json:
        terminal.write_json(_json(result, [*written, *([shown] if shown else [])]))
    else:
        _report(result, written, scan[0].name, out, shown)


def _report(result: ScanExplanation, written: list[Path], name: str, out: Path, shown: Path | None) -> None:
    """Write the highest-scoring regions, the rounds of a recursion, and which files were written."""
    from glas3d.explain.table import table_columns

    target, against = (result.provenance.get(key, {}).get("class") for key in ("Target", "Against"))
    probability = shown_output(str(target), result.probability, against)
    if against is not None:
        probability = f"{target} over {against}: {probability}"
    rows = "region" if "atlas" in result.provenance["Search"] else "search point"
    if result.table["rank"].notna().any():
        columns, preset = table_columns(result.table.columns, result.provenance), result.provenance["Preset"]
        title = f"{name}: {probability}, the highest-scoring {rows}s"
        terminal.write_table(result.table, title, columns, start=f"Preset {preset}. ")
    else:
        terminal.write(f"{name}: {probability}; no {rows} stands out, because all have the same score")
    for number, record in enumerate(result.provenance.get("Recursion", {}).get("rounds", []), start=1):
        removed = ", ".join(map(str, record["removed"][:6])) + (" ..." if len(record["removed"]) > 6 else "")
        before = shown_output(str(target), record["probability_before"], against)
        after = f"{record['probability_after']:.3f}"
        terminal.write(f"round {number}: {before} -> {after}, masked out and removed: {removed}")
    start = f"{result.stem}_stat-"
    maps = [path.name[len(start) :].partition("_")[0] for path in written if path.name.startswith(start)]
    written_maps = f"maps of {', '.join(dict.fromkeys(maps))}"
    rounds = [f"the maps of {counted(len(result.round_imgs), 'round')}"] if result.round_imgs else []
    parts = [f"those of {', '.join(result.parts)}"] if result.parts else []
    terminal.write(f"Written to {out}: {'; '.join([f'{result.stem}_regions.tsv', written_maps, *rounds, *parts])}")
    account = result.provenance.get("Account")
    last = "" if account is None else terminal.account_text(account, result.table, f"{rows}s")
    if last := f"{last}{look_at(shown, out)}".strip():
        terminal.write(last)


def _json(result: ScanExplanation, written: list[Path]) -> dict[str, Any]:
    """Return the content of the result for other programs."""
    table = result.table.astype(object).where(result.table.notna(), None)
    return {
        "target": result.provenance["Target"],
        "against": result.provenance.get("Against"),
        "probability": result.probability,
        "account": result.provenance.get("Account"),
        "regions": table.to_dict("records"),
        "files": [str(path) for path in written],
    }
