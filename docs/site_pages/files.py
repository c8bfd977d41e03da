"""Writing of generated pages: a file is touched only where its content changed, so that Sphinx rebuilds only that."""

from pathlib import Path


def write_pages(folder: Path, pages: dict[str, str]) -> None:
    """Write pages into a folder that holds nothing else.

    Parameters
    ----------
    folder
        The folder, created if it does not exist; files of it that are not among ``pages`` are removed.
    pages
        Content by the name of the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in pages:
            path.unlink()
    for name, content in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            path.write_text(content, encoding="utf-8")
