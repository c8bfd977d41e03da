"""Find the scans of a BIDS folder by the entities in their names."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from glas3d.errors import GlasError, reason
from glas3d.study.cohort.layout import check_description, dataset_files, unread_files
from glas3d.study.cohort.options import Selection

FILES_AT_ONCE = 500  # read by ancpbids, whose time grows with the square of their number

_ABSENT = "none"  # the label that selects files without an entity


def find_scans(root: Path, options: Selection) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Return the files that match, and those whose folder contradicts their name.

    Parameters
    ----------
    root
        A BIDS data set, or a folder whose files have BIDS names.
    options
        Which files match.

    Returns
    -------
    One row for each scan, ``participant_id session path``, and a problem for each contradiction.

    Raises
    ------
    GlasError
        The folder cannot be read, or no file matches.
    """
    key = f"{options.prefix}sub"
    files = [
        file
        for file in _images(root, options.extension, prefixed=bool(options.prefix))
        if key in getattr(file, "entities", ())
    ]
    rows: list[dict[str, Any]] = []
    problems: list[dict[str, Any]] = []
    for file in files:
        labels = {entity: str(label) for entity, label in file.entities.items()}
        if not _matches(file.suffix, labels, options):
            continue
        session = labels.get("ses", "")
        path = Path(file.get_absolute_path())
        row = {"participant_id": f"sub-{labels[key]}", "session": session and f"ses-{session}", "path": path}
        folders = path.relative_to(root).parts[:-1]
        others = {part for part in folders if part.startswith(("sub-", "ses-"))} - {*row.values()}
        if not path.name.startswith(f"{key}-{labels[key]}_") or others:
            detail = f"{path.relative_to(root)} does not lie where its name says"
            problems.append(row | {"problem": "unreadable", "detail": detail})
        else:
            rows.append(row)
    if not rows and not problems:
        wanted = {"suffix": options.suffix, **options.labels, "session": "/".join(options.session)}
        words = " ".join(f"{name} {label}" for name, label in wanted.items() if label)
        example = f", such as {min(file.name for file in files)}" if files else ""
        unread = "" if files else unread_files(root, root, tuple(options.extension))
        raise GlasError(
            f"no scan in {root} has {words}, it has {len(files)} images with {key}- in their names{example}"
            + (f"; {unread}" if unread else "")
        )
    return pd.DataFrame(rows, columns=["participant_id", "session", "path"]), problems


def _matches(suffix: str, labels: dict[str, str], options: Selection) -> bool:
    if options.suffix not in (None, suffix):
        return False
    session = labels.get("ses", "")
    if options.session and session not in options.session:
        return False
    return all(_same_label(labels.get(entity, _ABSENT), wanted) for entity, wanted in options.labels.items())


def _same_label(label: str, wanted: str) -> bool:
    """Return whether two labels are the same; an index such as that of a run is a number, ``02`` the same as ``2``."""
    return label == wanted or (label.isdecimal() and wanted.isdecimal() and int(label) == int(wanted))


def _images(root: Path, extension: Sequence[str], *, prefixed: bool) -> list[Any]:
    """Return the files of a data set with these extensions, as ancpbids parses them."""
    try:
        from ancpbids import DatasetOptions, load_dataset
    except ImportError:
        raise GlasError('reading BIDS folders needs ancpbids: pip install "glas3d[study]"') from None
    check_description(root)
    options = DatasetOptions(ignore_pickle_file=True)  # a pickle can run any code
    images: list[Any] = []
    try:
        paths = dataset_files(root, tuple(extension), prefixed=prefixed)
        while some := list(islice(paths, FILES_AT_ONCE)):
            images += load_dataset(str(root), options, paths=some).query(scope="raw", extension=list(extension))
    except Exception as error:
        raise GlasError(f"the BIDS folder {root} cannot be read: {reason(error)}") from error
    return images
