"""A page of one result that needs no other file and no script: its summary, a figure, and the table of all regions."""

from __future__ import annotations

import base64
import io
import os
from html import escape
from pathlib import Path
from typing import Any

from glas3d.output import write_together
from glas3d.report.kinds import draw
from glas3d.report.plotting import shown_of

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font-family: system-ui, sans-serif; margin: 1.5rem auto; max-width: 70rem; padding: 0 1rem; color: #1a1a1a }}
img {{ max-width: 100%; height: auto }}
table.all {{ border-collapse: collapse; font-size: 85%; font-variant-numeric: tabular-nums }}
table.all th, table.all td {{ padding: .15em .6em; border-top: 1px solid #ddd; text-align: right }}
table.all th:nth-child(2), table.all td:nth-child(2) {{ text-align: left }}
.wide {{ overflow-x: auto }}
</style></head>
<body>
{summary}
<p><img src="data:image/png;base64,{image}" alt="{alt}"></p>
<h2>All regions and points</h2>
<div class="wide">{table}</div>
</body></html>
"""


def to_html(result: Any, file: str | os.PathLike[str] | None = None) -> str:
    """Return the page of a result, see `glas3d.display.Drawn.to_html`."""
    shown = shown_of(result)
    buffer = io.BytesIO()
    draw(shown).savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    ranked = shown.table.sort_values("rank") if "rank" in shown.table else shown.table
    table = ranked.to_html(index=False, classes="all", border=0, float_format=lambda v: f"{v:.4g}", na_rep="n/a")
    page = _PAGE.format(
        title=escape(shown.title),
        summary=result._repr_html_(),
        image=base64.b64encode(buffer.getvalue()).decode(),
        alt=escape(f"Figure: {shown.title}"),
        table=table,
    )
    if file is not None:
        path = Path(file)
        write_together(path.parent, {path.name: lambda scratch: scratch.write_text(page, encoding="utf-8")})
    return page
