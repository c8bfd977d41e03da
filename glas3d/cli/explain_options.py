"""The options of ``glas3d explain`` and ``glas3d cohort`` that choose what is explained and how."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from glas3d.cli.derived import command_options, given_options
from glas3d.cli.parameters import class_of, named_numbers, number
from glas3d.core.settings import RecursionSettings, Settings
from glas3d.errors import GlasError
from glas3d.explain.options import SEARCH, ExplainOptions
from glas3d.options import option

_RECURSION = tuple(declared.name for declared in fields(RecursionSettings))


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """The places to search: an atlas, a grid or coordinates.

    Parameters
    ----------
    atlas
        Name of a shipped atlas, or path of a label image, or of 4D probabilities, with its table next to it.
        Default: AAL.
    atlas_table
        Look-up table of the file given as ``atlas``: .tsv or .csv with the columns index and name, or a .txt, .lut,
        .label, .ctbl or .xml of FreeSurfer, FSL, ITK-SNAP, MRtrix, CAT12, MRIcron or SPM. Default: the file of the same
        name next to the image.
    atlas_space
        ``MNI``: the regions of the file given as ``atlas`` are in MNI space. Needed for such an atlas where scans are
        brought to the template. Default: it is in the space of the scan.
    grid
        Search the centres of the K x K x K cells of a grid, in place of an atlas: one number K, or three for the cells
        along each axis. Default: an atlas.
    coordinates
        Search the coordinates in this table, in place of an atlas: tab-separated text with the columns x y z in mm,
        and name if they have names. Default: an atlas.
    """

    atlas: str | None = option(None, group=SEARCH)
    atlas_table: Path | None = option(None, group=SEARCH)
    atlas_space: Literal["MNI"] | None = option(None, group=SEARCH)
    grid: tuple[float, ...] = option((), group=SEARCH)
    coordinates: Path | None = option(None, group=SEARCH)


def search_of(
    options: Any, supervoxels: int | None = None, atlas_space: str | None = None, atlas_table: Path | None = None
) -> Any:
    """Return the one search that was given: a `Grid`, the path of a table of coordinates, or an atlas.

    Parameters
    ----------
    options
        The options of `SearchOptions`.
    supervoxels
        Number of supervoxels of the scan that are searched instead.
    atlas_space, atlas_table
        Space and look-up table of an atlas that is a file.

    Raises
    ------
    GlasError
        Several searches were given, or the space or the table of an atlas without the file of one.
    """
    from glas3d.core.search import Grid
    from glas3d.resources import shipped_name

    searches = {
        "--atlas": options.atlas,
        "--grid": " ".join(f"{k:g}" for k in options.grid),
        "--coordinates": options.coordinates,
        "--supervoxels": supervoxels,
    }
    given = [f"{name} {value}" for name, value in searches.items() if value]
    if len(given) > 1:
        raise GlasError(f"search an atlas, a grid, coordinates or supervoxels, got {' and '.join(given)}")
    for name, value in (("--atlas-space", atlas_space), ("--atlas-table", atlas_table)):
        if value is not None and (options.atlas is None or shipped_name("atlases", options.atlas)):
            raise GlasError(f"{name} is for an atlas that is a file, got {' '.join(given) or 'the atlas AAL'}")
    if options.grid:
        return Grid(options.grid)  # Grid refuses fractions
    return options.coordinates or options.atlas or "AAL"


def search_on_scan(options: Any, supervoxels: int | None, scan: Path) -> Any:
    """Return what to search on a scan: an atlas, a grid, coordinates or supervoxels."""
    from glas3d.imaging import slic
    from glas3d.imaging.atlas import Atlas
    from glas3d.imaging.coordinates import Coordinates

    search = search_of(options, supervoxels, options.atlas_space, options.atlas_table)
    if supervoxels is not None:
        return slic.supervoxels(scan, supervoxels, mask_img=options.mask_img)
    if isinstance(search, Path):
        return Coordinates.from_file(search, space="MNI")
    if isinstance(search, str):
        return Atlas.load(search, table=options.atlas_table, space=options.atlas_space)
    return search


def explain_keywords(options: Any) -> dict[str, Any]:
    """Return the keywords of `explain_img` that were given, but for the search.

    Parameters
    ----------
    options
        The options of `SearchOptions`, of the method, of a recursion and of `explain_img`.

    Raises
    ------
    GlasError
        Settings of a recursion without --recursive, or a value that is not a number where a number is needed.
    """
    keywords = given_options(options, [declared.name for declared in fields(SearchOptions)])
    recursion = {name: keywords.pop(name) for name in _RECURSION if name in keywords}
    if recursion and not keywords.get("recursive"):
        name = next(iter(recursion)).replace("_", "-")
        raise GlasError(f"--{name} is an option of a recursion: give --recursive too")
    if recursion:
        keywords["recursive"] = recursion
    if "versus" in keywords:
        keywords["versus"] = class_of(keywords["versus"])
    if "background" in keywords:
        backgrounds = [number(text) for text in keywords["background"]]
        keywords["background"] = backgrounds[0] if len(backgrounds) == 1 else backgrounds
    if "covariates" in keywords:
        keywords["covariates"] = named_numbers(keywords["covariates"], "--covariate")
    if "covariate_reference" in keywords:
        keywords["covariate_reference"] = named_numbers(keywords["covariate_reference"], "--covariate-reference")
    return keywords


_DECLARATIONS = (SearchOptions, Settings, ExplainOptions, RecursionSettings)

ScanCommandOptions: Any = command_options("ScanCommandOptions", *_DECLARATIONS)
# The covariates of a study are columns and its scans have one channel; `StudyOptions` declares the atlas's space and
# table itself.
CohortCommandOptions: Any = command_options(
    "CohortCommandOptions", *_DECLARATIONS, without=("covariates", "channels", "atlas_space", "atlas_table")
)
