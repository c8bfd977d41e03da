"""``glas3d localise``: do maps of images find what people marked? The paper's tables 1 to 4 for any such data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from glas3d.cli import terminal
from glas3d.cli.derived import command_options, given_options, in_group
from glas3d.cli.messages import Messages
from glas3d.cli.parameters import LoadingOptions, named_values
from glas3d.counts import counted
from glas3d.evaluate.localisation.options import LocalisationOptions

if TYPE_CHECKING:
    from glas3d.evaluate.localisation import Localisation

LocaliseOptions: Any = command_options("LocaliseOptions", LocalisationOptions)
_TITLES = {
    1: "distance to the landmark, in pixels of the model's input",
    2: "pointing game by search points",
    3: "pointing game by method",
    4: "overlap of boxes and maps above thresholds, by rounds of the recursion",
}

localise = App(name="localise", usage="Usage: glas3d localise DATA --layout L --model M --out DIR [OPTIONS]")


@localise.default
def localise_data(
    data: Path,
    /,
    *,
    layout: Annotated[Literal["cub", "cars", "aircraft", "ilsvrc"], in_group("Input")],
    model: Annotated[str, in_group("Model")],
    out: Annotated[Path, in_group("Output")],
    part: Annotated[Literal["test", "train"], in_group("Input")] = "test",
    options: Annotated[LocaliseOptions, Parameter(name="*")] = LocaliseOptions(),  # noqa: B008 (frozen)
    activation: Annotated[Literal["softmax", "sigmoid", "none"] | None, in_group("Model")] = None,
    device: Annotated[str, in_group("Speed")] = "auto",
    messages: Annotated[Messages, Parameter(name="*")] = Messages(),  # noqa: B008 (frozen)
) -> None:
    """Measure whether maps of images find what people marked in them: tables 1 to 4 of the paper, for your model.

    Parameters
    ----------
    data
        Folder of the data set, as it was unpacked.
    layout
        Its layout: cub (CUB-200-2011), cars (Stanford Cars), aircraft (FGVC-Aircraft) or ilsvrc (ILSVRC with the boxes
        of its validation images; as on Kaggle, or ILSVRC2012's devkit, images and boxes unpacked into one folder).
    model
        A .pt2 or .onnx file, or package.module:factory, which is code. It takes images of --size with values from 0 to
        255 and has the classes of the data set in its order.
    out
        New folder for the tables.
    part
        Images of the test (of ILSVRC the validation) or of the training.
    activation
        What turns the model's outputs into probabilities; for .pt2 and .onnx files.
    device
        Where the model runs: auto (CUDA where it is available), cpu, mps, or cuda, with a number for one GPU of
        several, such as cuda:1.
    """
    from glas3d.evaluate.localisation import localise as measure
    from glas3d.evaluate.localisation import read_layout
    from glas3d.output import new_folder, write_each

    given = given_options(options)
    if "landmarks" in given:
        named = named_values(given["landmarks"], "--landmarks")
        given["landmarks"] = {name: tuple(parts.split("+")) for name, parts in named.items()}
    LocalisationOptions(**given)
    with new_folder(out) as unfinished:
        images = read_layout(data, layout, part)
        predict = LoadingOptions(activation=activation, device=device).load(model)
        with terminal.progress("images") as progress:
            measured = measure(images, predict, progress=progress, **given)
        write_each(unfinished, measured.files())
    _report(measured, data.name)
    terminal.write(f"Written to {out}: {', '.join(name for name in measured.files() if name.endswith('.tsv'))}")


def _report(measured: Localisation, name: str) -> None:
    """Write all tables."""
    n = measured.record["Data"]["images"]
    terminal.write(f"{name}: {counted(n, 'image')}, the model is right about {measured.top1:z.1%} of them")
    for number, table in measured.tables.items():
        first = table.columns[0]
        rows = [[_cell(str(column), value) for column, value in row.items()] for row in table.to_dict("records")]
        terminal.write_rows(
            [_short(str(column)) for column in table], rows, f"Table {number}: {_TITLES[number]}", left=(first,)
        )


def _short(column: str) -> str:
    """Return the title of a column, short."""
    renamed = {"accuracy": "PT", "accuracy_small": "PT-small"}
    return renamed.get(column, column.replace("iou_", "> ").replace("glas_", ""))


def _cell(column: str, value: Any) -> str:
    """Return a value of a column as it is shown."""
    if isinstance(value, str):
        return value
    if value != value:
        return "n/a"
    if column in ("n", "n_small", "points", "evaluations"):
        return f"{value:z.0f}"
    digits = 3 if column.startswith(("accuracy", "drop")) else 2
    return f"{value:.{digits}f}"
