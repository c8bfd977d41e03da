"""Results for other viewers: the highest-scoring regions as labels in five colours, and how to open them with the map.

Each viewer reads names and colours of labels in a form of its own. Every form is written by one function here, and for
each viewer there is a command or a script that opens anatomy, map and labels with the display range of the map.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from matplotlib.colors import to_rgb

from glas3d.errors import GlasError
from glas3d.imaging.map_header import display_range
from glas3d.imaging.space import template
from glas3d.output import Writer
from glas3d.report.kinds import Shown
from glas3d.report.ranks import COLOURS, highest_places, ranks_img
from glas3d.report.viewer_names import VIEWERS

_OTHER_RANKS = "#b0b0b0"
_MOST_LABELS = 255
ANATOMY = "anatomy.nii.gz"


@dataclass(frozen=True)
class Label:
    """One label of an image: its number, its name, and its colour as red, green and blue from 0 to 255."""

    index: int
    name: str
    rgb: tuple[int, int, int]


def rank_labels(names: Mapping[int, str]) -> list[Label]:
    """Return the labels of the ranks, in the paper's five colours; further ranks are grey.

    Parameters
    ----------
    names
        The regions by their ranks, the highest-scoring one first.
    """
    labels = []
    for rank, name in names.items():
        red, green, blue = to_rgb(COLOURS[rank - 1] if rank <= len(COLOURS) else _OTHER_RANKS)
        labels.append(Label(rank, f"rank{rank} {name}", (round(255 * red), round(255 * green), round(255 * blue))))
    return labels


def fsleyes_lut(labels: Sequence[Label]) -> str:
    """Return a look-up table of FSLeyes: label, red, green and blue from 0 to 1, and the name."""
    return "".join(
        f"{label.index} {' '.join(f'{value / 255:.5f}' for value in label.rgb)} {label.name}\n" for label in labels
    )


def itksnap_labels(labels: Sequence[Label]) -> str:
    """Return the label descriptions of ITK-SNAP: label, colour, opacity, visibility in slices and in 3D, name."""
    rule = "#" * 48
    head = f"{rule}\n# ITK-SnAP Label Description File\n# IDX  -R-  -G-  -B-  -A--  VIS MSH  LABEL\n{rule}\n"
    lines = [f'{0:5d} {0:5d} {0:4d} {0:4d} {0:8d} {0:3d} {0:3d}    "Clear Label"']
    for label in labels:
        red, green, blue = label.rgb
        name = label.name.replace('"', "'")
        lines.append(f'{label.index:5d} {red:5d} {green:4d} {blue:4d} {1:8d} {1:3d} {1:3d}    "{name}"')
    return head + "\n".join(lines) + "\n"


def freesurfer_lut(labels: Sequence[Label]) -> str:
    """Return a colour table of FreeSurfer: label, name without spaces, and colour with a transparency of 0."""
    lines = ["#No. Label_Name: R G B A", "0 Unknown 0 0 0 0"]
    lines += [f"{label.index} {'_'.join(label.name.split())} {' '.join(map(str, label.rgb))} 0" for label in labels]
    return "\n".join(lines) + "\n"


def mricrogl_clut(labels: Sequence[Label]) -> str:
    """Return a colour table of MRIcroGL for intensities from 0 to the last label, with steps between labels."""
    last = _last(labels)
    nodes = [(0, (0, 0, 0), 0)]
    for label in labels:
        first = round((label.index - 0.5) / last * 255)
        nodes += [(first - 1, nodes[-1][1], nodes[-1][2]), (first, label.rgb, 128)]
    nodes.append((255, nodes[-1][1], nodes[-1][2]))
    positions = "".join(f"nodeintensity{i}={at}\n" for i, (at, _, _) in enumerate(nodes))
    colours = "".join(f"nodergba{i}={'|'.join(map(str, rgb))}|{opacity}\n" for i, (_, rgb, opacity) in enumerate(nodes))
    return f"[FLT]\nmin=0\nmax={last}\n[INT]\nnumnodes={len(nodes)}\n[BYT]\n{positions}[RGBA255]\n{colours}"


def _last(labels: Sequence[Label]) -> int:
    """Return the highest label."""
    return max([1, *(label.index for label in labels)])


def mricron_lut(labels: Sequence[Label]) -> bytes:
    """Return a colour table of MRIcron: 256 bytes of red, of green and of blue."""
    table = np.zeros((3, 256), dtype=np.uint8)
    for label in labels:
        table[:, label.index] = label.rgb
    return table.tobytes()


def mricron_names(labels: Sequence[Label]) -> str:
    """Return the names of MRIcron: label, name and a number, on lines that end as on Windows."""
    return "".join(f"{label.index}\t{'_'.join(label.name.split())}\t{label.index}\r\n" for label in labels)


@dataclass(frozen=True)
class Scene:
    """What a viewer opens: paths as its command takes them, and the display range of the map.

    Attributes
    ----------
    anatomy
        The anatomy; None: not known.
    map
        The map of the scores.
    ranks
        Start of the names of the label image's files.
    lowest, largest
        The display range of the map.
    last
        The last label.
    is_signed
        Whether the map has values below 0, too.
    """

    anatomy: str | None
    map: str
    ranks: str
    lowest: float
    largest: float
    last: int
    is_signed: bool

    @property
    def range_text(self) -> tuple[str, str]:
        """The display range as text."""
        return f"{self.lowest:.6g}", f"{self.largest:.6g}"


def fsleyes_command(scene: Scene) -> list[str]:
    """Return the command that opens a scene in FSLeyes."""
    low, high = scene.range_text
    anatomy = [] if scene.anatomy is None else [scene.anatomy]
    signed = ["-un", "-nc", "blue-lightblue"] if scene.is_signed else []
    return [
        *("fsleyes", *anatomy, scene.map, "-n", "score", "-cm", "red-yellow", *signed, "-dr", low, high),
        *(f"{scene.ranks}.nii.gz", "-n", "ranks", "-ot", "label", "-l", f"{scene.ranks}.lut", "-o", "-w", "2"),
    ]


def itksnap_command(scene: Scene) -> list[str]:
    """Return the command that opens a scene in ITK-SNAP; the range of the map is chosen there (Tools, Contrast)."""
    grey = scene.map if scene.anatomy is None else scene.anatomy
    overlay = [] if scene.anatomy is None else ["-o", scene.map]
    return ["itksnap", "-g", grey, *overlay, "-s", f"{scene.ranks}.nii.gz", "-l", f"{scene.ranks}.label"]


def freeview_command(scene: Scene) -> list[str]:
    """Return the command that opens a scene in FreeSurfer's freeview."""
    low, high = scene.range_text
    middle = f"{(scene.lowest + scene.largest) / 2:.6g}"
    anatomy = [] if scene.anatomy is None else [scene.anatomy]
    table = f"{scene.ranks}_FreeSurferColorLUT.txt"
    return [
        *("freeview", "-v", *anatomy, f"{scene.map}:colormap=heat:heatscale={low},{middle},{high}"),
        f"{scene.ranks}.nii.gz:colormap=lut:lut={table}:opacity=0.5:visible=0",
    ]


def mricron_command(scene: Scene) -> list[str]:
    """Return the command that opens a scene in MRIcron, which finds names and colours of labels by the image's name."""
    low, high = scene.range_text
    grey = scene.map if scene.anatomy is None else scene.anatomy
    overlay = [] if scene.anatomy is None else ["-b", "20", "-o", scene.map, "-c", "-1", "-l", low, "-h", high]
    return ["mricron", grey, *overlay]


def mricrogl_script(scene: Scene) -> str:
    """Return the script that opens a scene in MRIcroGL."""
    lines = [
        '"""Open this file in MRIcroGL (Scripting, Open), or run: MRIcroGL <this file>"""',
        "import os",
        "import gl",
        "try:",
        "    here = os.path.dirname(os.path.abspath(__file__))",
        "except NameError:  # MRIcroGL does not tell a script where it lies",
        "    here = os.getcwd()",
        "gl.resetdefaults()",
    ]
    base = scene.map if scene.anatomy is None else scene.anatomy
    lines.append(f"gl.loadimage(os.path.join(here, {base!r}))")
    layer = 0
    if scene.anatomy is not None:
        lines += _mricrogl_layer(1, scene.map, "8redyell", scene.lowest, scene.largest)
        layer = 1
        if scene.is_signed:
            lines += _mricrogl_layer(2, scene.map, "9blue2green", -scene.lowest, -scene.largest)
            layer = 2
    lines += [
        f"gl.overlayload(os.path.join(here, {f'{scene.ranks}.nii.gz'!r}))",
        f"gl.minmax({layer + 1}, 0, {scene.last})",
        f"gl.colorname({layer + 1}, os.path.join(here, {f'{scene.ranks}.clut'!r}))",
        f"gl.opacity({layer + 1}, 0)  # move the slider to see the ranks",
    ]
    return "\n".join(lines) + "\n"


def _mricrogl_layer(number: int, path: str, colours: str, low: float, high: float) -> list[str]:
    return [
        f"gl.overlayload(os.path.join(here, {path!r}))",
        f"gl.minmax({number}, {low:.6g}, {high:.6g})",
        f'gl.colorname({number}, "{colours}")',
        f"gl.opacity({number}, 80)",
    ]


_COMMANDS: dict[str, Callable[[Scene], list[str]]] = {
    "fsleyes": fsleyes_command,
    "itksnap": itksnap_command,
    "freeview": freeview_command,
    "mricron": mricron_command,
}


def viewer_files(
    shown: Sequence[Shown], folder: Path, viewers: Sequence[str] = VIEWERS, *, top: int = len(COLOURS)
) -> dict[str, Writer]:
    """Return what writes the files for other viewers, by their names in ``folder``.

    Parameters
    ----------
    shown
        The results; those without a map are left out.
    folder
        Where the files will be, from which paths in commands are relative.
    viewers
        Names of viewers.
    top
        How many ranks the label image has.

    Raises
    ------
    GlasError
        None of the results has a map; an unknown viewer; no rank or more than 255.
    """
    unknown = [name for name in viewers if name not in VIEWERS]
    if unknown:
        raise GlasError(f"viewers are {', '.join(VIEWERS)}, got {unknown[0]!r}")
    if not 1 <= top <= _MOST_LABELS:
        raise GlasError(f"a label image must have 1 to {_MOST_LABELS} ranks, got {top}")
    with_map = [each for each in shown if each.brain_map is not None]
    if not with_map:
        raise GlasError("other viewers need a map of the brain, these results have none")
    files: dict[str, Writer] = {}
    for each in with_map:
        files |= _files_of(each, folder, viewers, top)
    return files


def _files_of(shown: Shown, folder: Path, viewers: Sequence[str], top: int) -> dict[str, Writer]:
    brain_map = shown.brain_map
    assert brain_map is not None
    path = brain_map.img.get_filename()
    if path is None:
        raise GlasError(f"results must be saved before they are exported, {shown.stem} is not")
    files: dict[str, Writer] = {}
    labels = rank_labels({place.rank: place.names for place in highest_places(shown.table, top)})
    ranks = f"{shown.stem}_ranks"
    files[f"{ranks}.nii.gz"] = ranks_img(brain_map.img, shown.table, top).to_filename
    anatomy = None
    if brain_map.is_in_mni:
        anatomy = ANATOMY
        files[ANATOMY] = _anatomy().to_filename
    elif brain_map.background is not None and (scan := brain_map.background.get_filename()):
        anatomy = os.path.relpath(scan, folder)
    lowest, largest = display_range(brain_map.values)
    own = os.path.relpath(path, folder)
    scene = Scene(anatomy, own, ranks, lowest, largest, _last(labels), brain_map.is_signed)
    for viewer in viewers:
        files |= {name: _writer(content) for name, content in _tables(viewer, ranks, labels).items()}
        if viewer == "mricrogl":
            files[f"{shown.stem}_mricrogl.py"] = _writer(mricrogl_script(scene))
        else:
            lines = ["#!/bin/sh", 'cd "$(dirname "$0")" || exit', shlex.join(_COMMANDS[viewer](scene))]
            if viewer == "mricron":
                labels_in_place = shlex.join(["mricron", scene.anatomy or scene.map, "-o", f"{ranks}.nii.gz"])
                lines += ["# The ranks in place of the map:", f"# {labels_in_place}"]
            files[f"{shown.stem}_{viewer}.sh"] = _writer("\n".join([*lines, ""]))
    return files


def _tables(viewer: str, ranks: str, labels: Sequence[Label]) -> dict[str, str | bytes]:
    """Return the look-up tables of a viewer, by their names."""
    if viewer == "fsleyes":
        return {f"{ranks}.lut": fsleyes_lut(labels)}
    if viewer == "itksnap":
        return {f"{ranks}.label": itksnap_labels(labels)}
    if viewer == "freeview":
        return {f"{ranks}_FreeSurferColorLUT.txt": freesurfer_lut(labels)}
    if viewer == "mricrogl":
        return {f"{ranks}.clut": mricrogl_clut(labels)}
    return {f"{ranks}.nii.lut": mricron_lut(labels), f"{ranks}.nii.txt": mricron_names(labels)}


def _anatomy() -> nib.Nifti1Image:
    """Return the template as 8-bit image, which is small."""
    img = template()
    values = np.rint(255 * np.asarray(img.dataobj)).astype(np.uint8)
    anatomy = nib.Nifti1Image(values, img.affine)
    anatomy.set_sform(img.affine, code=4)
    anatomy.set_qform(img.affine, code=4)
    anatomy.header.set_xyzt_units("mm")
    return anatomy


def _writer(content: str | bytes) -> Writer:
    data = content.encode("utf-8") if isinstance(content, str) else content
    return lambda path: path.write_bytes(data)
