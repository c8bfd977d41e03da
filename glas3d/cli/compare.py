"""``glas3d compare``: one participant's scan by several explanation methods."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from glas3d.cli import terminal
from glas3d.cli.derived import command_options, help_text, in_group
from glas3d.cli.explain_options import SearchOptions, explain_keywords, search_on_scan
from glas3d.cli.messages import Messages
from glas3d.cli.parameters import LoadingOptions, class_of
from glas3d.cli.report import look_at
from glas3d.counts import counted
from glas3d.display import shown_output
from glas3d.errors import GlasError
from glas3d.evaluate.rivals.methods import AttributionOptions, listed_methods
from glas3d.explain.options import SEARCH, ExplainOptions, ModeOptions

if TYPE_CHECKING:
    from glas3d.evaluate.attribution import Comparison

# Methods are compared in the plain mode; a preset is that of the method glas.
_MODES = {mode.name for mode in fields(ModeOptions)} - {"preset"}
CompareCommandOptions: Any = command_options(
    "CompareCommandOptions",
    SearchOptions,
    AttributionOptions,
    ExplainOptions,
    without=tuple(_MODES),
)
_METHODS = help_text(f"Methods to compare, by name: {listed_methods()}.")

compare = App(
    name="compare",
    usage="Usage: glas3d compare SCAN --model M --target T --methods NAME ... --out DIR [OPTIONS]",
    help_epilogue="An option that takes several values takes everything up to the next option: give SCAN first.",
)


@compare.default
def compare_methods(
    *scan: Path,
    model: Annotated[str, in_group("Model")],
    target: Annotated[str, in_group("Model")],
    methods: Annotated[tuple[str, ...], in_group("Score and mode", consume_multiple=1, help=_METHODS)],
    out: Annotated[Path, in_group("Output")],
    options: Annotated[CompareCommandOptions, Parameter(name="*")] = CompareCommandOptions(),  # noqa: B008 (frozen)
    supervoxels: Annotated[int | None, in_group(SEARCH)] = None,
    loading: Annotated[LoadingOptions, Parameter(name="*")] = LoadingOptions(),  # noqa: B008 (frozen)
    overwrite: Annotated[bool, in_group("Output")] = False,
    json: Annotated[bool, in_group("Output")] = False,
    messages: Annotated[Messages, Parameter(name="*")] = Messages(),  # noqa: B008 (frozen)
) -> None:
    """Explain the output of a model for one scan by several methods: a map of each, and a table with a column of each.

    Parameters
    ----------
    scan
        A 3D volume that nibabel can read (NIfTI, mgz), in MNI space unless the atlas is in the scan's own space. For
        a model of several inputs give as many scans, in the order of its channels; the maps are on the grid of the
        first.
    model
        Name of a shipped model, a MONAI bundle folder, a .pt2 or .onnx file, or package.module:factory, which is
        code. Methods that need gradients need a torch network.
    target
        Class to explain, by its name or its index from 0.
    methods
        Methods to compare.
    out
        Folder for the results.
    supervoxels
        Search about this many supervoxels of similar brightness, into which the scan is cut (SLIC), in place of an
        atlas. Default: an atlas.
    overwrite
        Replace a comparison of another input, target, methods or settings that has the same names. Default: refuse.
    json
        Write the result to standard output as JSON, for other programs.
    """
    from glas3d.evaluate.attribution import compare as compare_on

    if not scan:
        raise GlasError(
            "SCAN is missing; an option that takes several values takes everything that follows it: "
            "give SCAN first, as in glas3d compare SCAN --methods glas lime"
        )
    predict = loading.load(model)
    with terminal.progress("methods") as progress:
        comparison = compare_on(
            list(scan) if len(scan) > 1 else scan[0],
            predict,
            class_of(target, predict.classes),
            methods,
            search_on_scan(options, supervoxels, scan[0]),
            progress=progress,
            folder=out,
            overwrite=overwrite,
            **explain_keywords(options),
        )
    terminal.show_notes(comparison.provenance.get("Notes", ()))
    if json:
        terminal.write_json(_json(comparison))
        return
    _report(comparison, scan[0].name, out)


def _report(comparison: Comparison, name: str, out: Path) -> None:
    """Write the cost and the highest-scoring region of each method, and which files were written."""
    first, *others = comparison.attributions.values()
    provenance = first.provenance
    probability = shown_output(provenance["Target"]["class"], provenance["Probability"])
    correlations = comparison.correlations()
    rows = []
    for attribution in (first, *others):
        correlation = correlations[attribution.method]
        scored = attribution.table.dropna(subset=["score"])
        highest = scored.nlargest(1, "score")["name"].iloc[0] if scored["score"].nunique() > 1 else "none"
        rows.append(
            (
                attribution.method,
                f"{attribution.evaluations}",
                f"{attribution.seconds:.1f}",
                "n/a" if correlation != correlation else f"{correlation:+z.2f}",
                str(highest),
            )
        )
    columns = ("method", "evaluations", "seconds", "rho", "highest-scoring region")
    title = f"{name}: {probability}, {counted(len(rows), 'method')}"
    terminal.write_rows(columns, rows, title, left=("method", columns[-1]), optional=("seconds", "evaluations", "rho"))
    if others:
        terminal.write(f"rho: Spearman's rank correlation of the regions' values with those of {first.method}")
    terminal.write(
        f"Written to {out}: {first.stem}_{first.search_label}methods_regions.tsv and {counted(len(rows), 'map')}"
    )
    terminal.write(look_at(None, out).strip() or f"To see it in a browser: glas3d report {shlex.quote(str(out))}")


def _json(comparison: Comparison) -> dict[str, Any]:
    """Return the content of the result for other programs."""
    table = comparison.table.astype(object).where(comparison.table.notna(), None)
    return {
        "target": comparison.provenance["Target"],
        "probability": comparison.provenance["Probability"],
        "evaluations": comparison.provenance["Evaluations"],
        "regions": table.to_dict("records"),
    }
