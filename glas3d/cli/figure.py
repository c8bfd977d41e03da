"""``glas3d figure``: figures of results in a folder, for papers and slides."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from glas3d.cli import terminal
from glas3d.cli.derived import in_group
from glas3d.cli.messages import Messages
from glas3d.errors import GlasError
from glas3d.report.kind_names import KIND_TEXTS

_ALL = "all"
Kind: Any = Literal[(*KIND_TEXTS, _ALL)]
_HELP = (
    "What to draw: "
    + "; ".join(f"{name}: {text}" for name, text in KIND_TEXTS.items())
    + f"; {_ALL}: every kind that the results have. Default: regions, or the first kind that there is."
)

figure = App(
    name="figure",
    usage="Usage: glas3d figure OUT [--kind KIND ...] [OPTIONS]",
    help_epilogue="An option that takes several values takes everything up to the next option: give OUT first.",
)


@figure.default
def figures_of_folder(
    out: Path,
    /,
    *,
    kind: Annotated[tuple[Kind, ...], in_group("Output", consume_multiple=1, help=_HELP)] = (),
    format: Annotated[tuple[Literal["png", "pdf", "svg"], ...], in_group("Output", consume_multiple=1)] = ("png",),
    dpi: Annotated[int, in_group("Output")] = 300,
    group: Annotated[str | None, in_group("Input")] = None,
    scan: Annotated[tuple[Path, ...], in_group("Input", consume_multiple=1)] = (),
    messages: Annotated[Messages, Parameter(name="*")] = Messages(),  # noqa: B008 (frozen)
) -> None:
    """Draw figures of the results in OUT and write them to OUT/figures.

    Parameters
    ----------
    out
        What glas3d explain, demo, compare or cohort wrote, or the folder of one participant of a study.
    kind
        See ``--help``.
    format
        png for screens; pdf and svg for print, with letters and lines of any size. Default: png.
    dpi
        Pixels in an inch, of PNG and of the images within pdf and svg, from 30 to 1200. Default: 300.
    group
        Draw this group of a study alone. Default: every group.
    scan
        The scans that were explained, to be drawn under maps in their native space; they are recognised by their hash.
        Default: maps in MNI space are drawn over the template, others over nothing.
    """
    if not 30 <= dpi <= 1200:
        raise GlasError(f"--dpi must be from 30 to 1200, got {dpi}")
    from glas3d.output import refuse_links, write_with_hashes
    from glas3d.report.figure_files import figure_writer
    from glas3d.report.folder import shown_in
    from glas3d.report.kinds import draw, kinds_of
    from glas3d.verify.files import damage_named

    folder = out / "figures"
    refuse_links(out, folder)
    shown = shown_in(out, scan)
    if group is not None:
        shown = [each for each in shown if each.stem.startswith(f"group-{group}_")]
        if not shown:
            raise GlasError(f"--group must be one of the study's groups, there is no {group} in {out}")
    has = [name for name in KIND_TEXTS if any(name in kinds_of(each) for each in shown)]
    for name in kind:
        if name != _ALL and name not in has:
            raise GlasError(f"the results in {out} have no figure {name}, only {', '.join(has)}")
    chosen = has if _ALL in kind else kind or has[:1]
    wanted = [(each, name) for each in shown for name in kinds_of(each) if name in chosen]
    files: dict[str, Any] = {}
    with terminal.progress("figures") as progress, damage_named(out):
        for done, (each, name) in enumerate(wanted):
            progress(done, len(wanted))
            drawn = draw(each, name)
            for ending in dict.fromkeys(format):
                files[f"{each.stem}_{name}.{ending}"] = figure_writer(drawn, ending, dpi)
        written = write_with_hashes(folder, files)
    for path in written:
        terminal.write(f"Written: {path}")
