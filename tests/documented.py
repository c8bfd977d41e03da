"""What docs/files.md says of files, columns and keys, to be compared with what was written."""

import json
import re
from functools import cache
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "files.md"
# Names by which columns stand for others on the page.
_LIKE = {"_sd": "light_sd", "drop_": "drop_<background>", "mean_": "mean_<group>", "sd_": "sd_<group>"}


@cache
def first_cells(section=""):
    """Return the code in the first cells of the page's tables, of the parts whose title begins so."""
    text = PAGE.read_text(encoding="utf-8")
    parts = [part for part in re.split(r"^## ", text, flags=re.MULTILINE) if part.startswith(section)]
    cells = [cell for part in parts for cell in re.findall(r"^\| (`.*?) \|", part, re.MULTILINE)]
    return {code for cell in cells for code in cell.split("`")}


@cache
def patterns():
    """Return a pattern of the names of each file of the page."""
    is_file = re.compile(r"[\w>]\.\w|<\.\.\.>|/$|\.bidsignore")
    names = {name for name in first_cells() if is_file.search(name)}
    names |= {name.replace("<search>_desc-", "desc-grid") for name in names}
    return [re.compile(_pattern(name)) for name in names]


def _pattern(name):
    written = []
    for part in re.split(r"(<.*?>|\[.*?\])", name):
        if part.startswith("<") and " / " in part:
            written.append("(" + "|".join(map(re.escape, part[1:-1].split(" / "))) + ")")
        elif part.startswith("<"):
            written.append(".+")
        elif part.startswith("["):
            written.append(f"({_pattern(part[1:-1])})?")
        else:
            written.append(re.escape(part))
    return "".join(written) + (".*" if name.endswith("/") else "")


def unknown(folder):
    """Return the files below a folder, the columns and the keys that the page does not have."""
    missing = set()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if any(part.startswith(".") and part != ".bidsignore" for part in path.relative_to(folder).parts):
            continue
        ends = (".tsv", ".nii.gz", ".tif")
        is_sidecar = path.suffix == ".json" and any(path.with_suffix(end).exists() for end in ends)
        names = [name[start.end() :] for start in re.finditer("^|/", name)]
        if not is_sidecar and not any(pattern.fullmatch(each) for pattern in patterns() for each in names):
            missing.add(f"file {name}")
        table = path.with_suffix(".tsv")
        columns = table.read_text(encoding="utf-8").split("\n")[0].split("\t") if table.exists() else []
        if path.suffix == ".tsv" and "atlas" not in path.parts:
            missing |= {f"column {column} of {name}" for column in columns if not _is_column(column, path)}
        if path.suffix == ".json" and path.name not in ("manifest.json", "metadata.json", "inference.json"):
            content = json.loads(path.read_text(encoding="utf-8"))
            known = first_cells("Keys of sidecars") | set(columns) | {"check", "verdict", "statement", "numbers"}
            missing |= {f"key {key} of {name}" for key in content if key not in known}
    return missing


def _is_column(column, path):
    known = first_cells("Columns")
    if column in known or "_methods_regions" in path.name or "desc-methods_" in path.name or "severity" in path.name:
        return True
    return any(like in known and (column.endswith(part) or column.startswith(part)) for part, like in _LIKE.items())
