"""The gallery: the scripts of examples/ as pages, those that sphinx-gallery can read."""

import ast
import re
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def has_title(script: Path) -> bool:
    """Return whether a script begins with a docstring, which is the title and the first text of its page."""
    return ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) is not None


def configuration() -> dict:
    """Return the configuration of sphinx-gallery."""
    untitled = [script.name for script in EXAMPLES.glob("*.py") if not has_title(script)]
    return {
        "examples_dirs": str(EXAMPLES),
        "gallery_dirs": "generated/gallery",
        "filename_pattern": r"\.py$",
        "ignore_pattern": "|".join([r"__init__\.py", *map(re.escape, untitled)]),
        "within_subsection_order": "FileNameSortKey",
        "download_all_examples": False,
        "remove_config_comments": True,
        "show_memory": False,
        "min_reported_time": 1e9,
        "write_computation_times": False,
        "show_signature": False,
        "plot_gallery": "True",
        "abort_on_example_error": False,
    }
