"""Write the report: one HTML file that holds everything and asks no server for anything."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from nibabel.spatialimages import SpatialImage

from glas3d.explain.dataset import find_source
from glas3d.explain.image_result import ImageExplanation
from glas3d.explain.result import ScanExplanation
from glas3d.hashing import file_sha256
from glas3d.imaging.scan import read_image
from glas3d.output import REPORT, sealed_page, write_together
from glas3d.report.webpage.content import Page, page_of
from glas3d.report.webpage.results import Result, Results, read_results
from glas3d.verify.files import damage_named
from glas3d.version import __version__

_STATIC = files("glas3d.report.webpage") / "static"

# Colour scales of the viewer, from 0 on: maps of matplotlib that are told apart with any kind of colour vision, without
# their darkest part, which would not show on black. Values above and below 0 are red to yellow and blue to green.
_SCALES = {
    "glas-score": ("inferno", 0.25, 0.97),
    "glas-for": ("YlOrRd_r", 0.1, 0.85),
    "glas-against": ("Blues_r", 0.05, 0.7),
}


def write_report(
    folder: str | os.PathLike[str], *, scans: Iterable[str | os.PathLike[str]] = (), with_scan: bool = True
) -> Path:
    """Write ``report.html`` from the results that lie in a folder.

    Parameters
    ----------
    folder
        What ``glas3d explain``, ``demo``, ``compare`` or ``cohort`` wrote, or the folder of a participant of a study.
    scans
        Files of the scans that were explained, to be shown below their maps. Scans that are recorded as sources of the
        folder are found without it.
    with_scan
        Whether the page may hold a copy of the scan, with voxels of about 2 mm or more. False: the template is shown
        in its place.

    Returns
    -------
    The path of the report.

    Raises
    ------
    GlasError
        There are no results, they are damaged, or the report cannot be written.
    """
    folder = Path(folder)
    with damage_named(folder):
        results = read_results(folder)
        images = _scans(folder, results, [Path(scan) for scan in scans]) if with_scan else {}
        (path,) = write_together(folder, {REPORT: _writer(page_of(results, images))})
    return path


def save_report(result: ScanExplanation | ImageExplanation, file: Path, *, with_scan: bool = True) -> Path:
    """Write the page of a result in memory, with its parts; see the method ``report`` of both kinds of results.

    Raises
    ------
    GlasError
        The file cannot be written.
    """
    shown = tuple(Result.of(each) for each in (result, *result.parts.values()))
    scans = {}
    if with_scan and isinstance(result, ScanExplanation) and result.scan is not None:
        scans[str(shown[0].provenance.get("Input", {}).get("sha256"))] = result.scan.img
    (path,) = write_together(file.parent, {file.name: _writer(page_of(Results(shown), scans))})
    return path


def html_of(page: Page) -> str:
    """Return a page as HTML.

    Text from files is escaped, scripts are named by their hashes in the page's Content-Security-Policy, and data for
    them stand in a block that no text can end.
    """
    template = _environment().from_string(_static("report.html"))
    style = _static("report.css")
    scripts = [_static("report.js")]
    data: dict[str, Any] = {}
    if page.volumes.encoded:
        scripts += [_static("niivue/niivue.umd.js"), _static("viewer.js")]
        data = {"views": {view.key: view.maps for view in page.views}, "volumes": page.volumes.encoded}
        data["colours"] = {name: _colours(*steps) for name, steps in _SCALES.items()}
    return template.render(
        page=page,
        style=Markup(style),
        scripts=[Markup(script) for script in scripts],
        policy=_policy(scripts, style),
        data=Markup(json_block(data)),
        licences=_static("niivue/LICENSES.txt") if page.volumes.encoded else "",
        version=__version__,
    )


def _colours(name: str, first: float, last: float) -> dict[str, list[int]]:
    """Return a part of a colour map of matplotlib in 256 steps, as NiiVue takes it."""
    colours = np.rint(matplotlib.colormaps[name](np.linspace(first, last, 256))[:, :3] * 255).astype(int)
    opaque = [0, *[255] * 255]
    return dict(zip("RGB", colours.T.tolist(), strict=True)) | {"A": opaque, "I": list(range(256))}


def json_block(content: Mapping[str, Any]) -> str:
    r"""Return JSON that can stand in a ``<script>`` element: what could end it, or begin a comment, is escaped.

    Examples
    --------
    >>> print(json_block({"name": "</script><!--"}))
    {"name":"\u003c/script\u003e\u003c!--"}
    """
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _writer(page: Page) -> Any:
    text = sealed_page(html_of(page))
    return lambda path: path.write_text(text, encoding="utf-8")


def _environment() -> Environment:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["png"] = lambda content: f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"
    environment.filters["svg"] = Markup
    return environment


def _static(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str], style: str) -> str:
    """Return the Content-Security-Policy: nothing from outside, and no script but those of the page."""

    def named(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"

    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(map(named, scripts))}",
            f"style-src {named(style)}",
            "img-src data:",
            "connect-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _scans(folder: Path, results: Results, given: Sequence[Path]) -> dict[str, SpatialImage]:
    """Return the scans of the explanations by their hash: those given, and those of the folder's recorded sources."""
    wanted = {}
    for result in results.explanations:
        record = result.provenance.get("Input", {})
        if isinstance(record, dict) and record.get("sha256"):
            wanted[str(record["sha256"])] = str(record.get("name", ""))
    images: dict[str, SpatialImage] = {}
    for path in given:
        image = read_image(path)
        if (digest := file_sha256(path)) in wanted:
            images[digest] = image
    for digest, name in wanted.items():
        if digest not in images and (source := find_source(folder, name, digest)) is not None:
            images[digest] = read_image(source)
    return images
