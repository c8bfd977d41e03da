"""The record of the long suites, docs/trust.tsv, and its table in docs/trust.md."""

from pathlib import Path

import pandas as pd

DOCS = Path(__file__).parents[2] / "docs"
RECORD, FUZZ, PAGE = DOCS / "trust.tsv", DOCS / "fuzz.tsv", DOCS / "trust.md"
COLUMNS = ["suite", "tried", "hangs", "crashes", "lost", "other_bits", "executed", "measured"]
_COUNTED = ["hangs", "faults", "executed"]
BEGIN, END = "<!-- begin: the record -->", "<!-- end: the record -->"


def keep(row, record=RECORD):
    """Put a suite's row into the record, in place of an earlier one, and the record into the page next to it.

    What the suite does not measure is missing in its row, and empty in the record.
    """
    rows = [row]
    if record.is_file():
        earlier = pd.read_csv(record, sep="\t", keep_default_na=False)
        rows += [each for each in earlier.to_dict("records") if each["suite"] != row["suite"]]
    table = pd.DataFrame(rows, columns=COLUMNS, dtype=object).sort_values("suite")
    table.to_csv(record, sep="\t", index=False)
    page = record.with_suffix(".md")
    if page.is_file():
        page.write_text(with_table(page.read_text(encoding="utf-8"), record), encoding="utf-8")


def with_table(text, record=RECORD, fuzz=FUZZ):
    """Return the text of the page with the table of the records in it."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table(record, fuzz)}\n\n{END}{after}"


def table(record=RECORD, fuzz=FUZZ):
    """Return the records as a table in Markdown."""
    doors = pd.read_csv(fuzz, sep="\t").reindex(
        columns=["inputs", "refused", "slowest_seconds", "memory_mib", *_COUNTED]
    )
    # What not every door has counted is no number of all.
    hangs, faults, executed = (int(doors[each].sum()) if doors[each].notna().all() else "" for each in _COUNTED)
    tried = f"{doors['inputs'].sum():,} inputs of no sense, {doors['refused'].sum():,} of them refused"
    slowest = f"slowest input {doors['slowest_seconds'].max():.1f} s, memory added {doors['memory_mib'].max()} MiB"
    rows = [["fuzz", tried, hangs, faults, "", "", executed, slowest]]
    rows += pd.read_csv(record, sep="\t", keep_default_na=False)[COLUMNS].to_numpy().tolist()
    head = [name.replace("_", " ") for name in COLUMNS]
    lines = [head, ["---"] * len(head), *([f"`make {name}`", *cells] for name, *cells in sorted(rows))]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
