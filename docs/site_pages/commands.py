"""The reference of the command line: a page for each command, as ``--help`` shows it."""

import re
from pathlib import Path

from glas3d.cli import app
from site_pages.files import write_pages

HEAD = """# Command line

`glas3d COMMAND --help` shows the same in a terminal. Bad use ends in one line that begins with `error:` and exit status 2,
and leaves nothing half-written.

"""


def pages() -> dict[str, str]:
    """Return the pages: ``index.md``, and one for each command."""
    text = app.generate_docs(output_format="markdown", recursive=True)
    _, *sections = re.split(r"^## (?=glas3d )", text, flags=re.MULTILINE)
    written, rows, names = {}, [], []
    for section in sections:
        title, _, body = section.partition("\n")
        name = title.split()[1]
        if name.startswith("-"):
            continue
        body = _own_usage(name, body).replace("### ", "## ")
        written[f"{name}.md"] = f"# {title}\n" + re.sub(r"^\*\*(.+)\*\*:$", r"## \1", body, flags=re.MULTILINE)
        names.append(name)
        rows.append(f"| [`{title}`]({name}.md) | {_summary(app[name])} |\n")
    listing = "".join(["| command | what it does |\n|---|---|\n", *rows])
    toctree = "".join(["\n```{toctree}\n:hidden:\n\n", *(f"{name} <{name}>\n" for name in names), "```\n"])
    return {"index.md": HEAD + listing + toctree, **written}


def write(folder: Path) -> None:
    """Write the pages into a folder."""
    write_pages(folder, pages())


def _summary(command) -> str:
    return " ".join(command.help.strip().split("\n\n")[0].split())


def _own_usage(name: str, body: str) -> str:
    """Return the text of a command with the usage that the command states itself, where it does.

    cyclopts takes the first word of such a usage for the name of the program, and repeats the command.
    """
    usage = app[name].usage
    if not isinstance(usage, str):
        return body
    lines = "\n".join(line.strip() for line in usage.removeprefix("Usage:").strip().splitlines())
    return re.sub(r"(?<=```console\n).*?(?=\n```)", lambda _: lines, body, count=1, flags=re.DOTALL)
