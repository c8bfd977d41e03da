"""Links of the Markdown pages, which lead to files of the checkout, lead to pages of the site; texts from outside docs/.

The pages are read in the repository too, so that their links stay as they are there.
"""

import os
import re
from pathlib import Path

from site_pages.files import write_pages

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = "generated/pages"
# Texts of the checkout that are pages of the site, and the names of those pages.
OUTSIDE = {
    "CHANGELOG.md": f"{PAGES}/changelog.md",
    "CONTRIBUTING.md": f"{PAGES}/contributing.md",
    "SECURITY.md": f"{PAGES}/security.md",
    "packaging/README.md": f"{PAGES}/packaging.md",
    "benchmarks/README.md": f"{PAGES}/benchmarks.md",
    "benchmarks/gpu.md": f"{PAGES}/gpu.md",
    "models/adnc-simulated/docs/README.md": f"{PAGES}/adnc-simulated.md",
    "atlases/AAL/LICENSES.md": f"{PAGES}/aal.md",
}
# What a link to such a file or folder leads to.
INSTEAD = {
    "README.md": "index.md",
    "CITATION.cff": "citing.md",
    "docs/decisions": "decisions/README.md",
    "examples": "generated/gallery/index.rst",
    "glas3d": "generated/api/index.rst",
    "glas3d/cli": "generated/commands/index.md",
}
# A link whose text is the name of a file, which a page of the site gives the title of that page.
_FILE_NAME = re.compile(r"\[(?:[\w./-]+/)?[\w-]+\.md\]\((?![a-z]+://)(?=[^)]*\.md(?:#[^)]*)?\))")
_LINK = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")


def setup(app):
    """Rewrite the links of every Markdown page when it is read."""
    app.connect("source-read", _on_read)


def write(folder: Path) -> None:
    """Write the texts from outside of docs/ as pages into a folder of docs/."""
    pages = {Path(page).name: rewritten(ROOT / source, DOCS / page) for source, page in OUTSIDE.items()}
    write_pages(folder, pages)


def rewritten(source: Path, page: Path) -> str:
    """Return the text of a file of the checkout with the links of a page of the site."""
    text = _FILE_NAME.sub("[](", source.read_text(encoding="utf-8"))
    return _LINK.sub(lambda match: _target(match[1], source, page) + (match[2] or ""), text)


def _on_read(app, docname, content):
    page = Path(app.env.doc2path(docname))
    if page.suffix == ".md" and "generated" not in page.relative_to(DOCS).parts:
        content[0] = rewritten(page, page)


def _target(link: str, source: Path, page: Path) -> str:
    if "://" in link or link.startswith("mailto:"):
        return link
    file = Path(os.path.normpath(source.parent / link))
    name = file.relative_to(ROOT).as_posix()
    example = DOCS / "generated/gallery" / f"{file.stem}.rst"
    if file.parent.name == "examples" and example.exists():
        target = example
    elif name in OUTSIDE or name in INSTEAD:
        target = DOCS / (OUTSIDE | INSTEAD)[name]
    else:
        target = file
    return os.path.relpath(target, page.parent)
