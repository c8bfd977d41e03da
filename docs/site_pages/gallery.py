"""The gallery: the scripts of examples/ as pages, with the pictures that they save."""

import shutil
import time
from pathlib import Path

from sphinx_gallery.scrapers import figure_rst

EXAMPLES = Path(__file__).parents[2] / "examples"
# Examples that are shown and not executed: their data are behind an agreement, or they need a package of their own.
SHOWN_ONLY = ("11_real_participants", "12_brain_age", "13_brain_extraction")
_STARTED = time.time()
_collected: set[Path] = set()


def saved_pictures(block, block_vars, gallery_conf):
    """Return the pictures that an example has saved, as ``glas3d-examples/<example>*.png``, for its page."""
    source = Path(block_vars["src_file"])
    paths = sorted((source.parent / "glas3d-examples").glob(f"{source.stem}*.png"))
    new = [path for path in paths if path not in _collected and path.stat().st_mtime > _STARTED]
    _collected.update(new)
    copies = [shutil.copy(path, block_vars["image_path_iterator"].next()) for path in new]
    return figure_rst(copies, gallery_conf["src_dir"])


def configuration() -> dict:
    """Return the configuration of sphinx-gallery."""
    return {
        "examples_dirs": str(EXAMPLES),
        "gallery_dirs": "generated/gallery",
        "filename_pattern": rf"/(?!{'|'.join(SHOWN_ONLY)})[^/]+\.py$",
        "image_scrapers": ("site_pages.gallery.saved_pictures",),
        "ignore_repr_types": "matplotlib",
        "within_subsection_order": "FileNameSortKey",
        "download_all_examples": False,
        "remove_config_comments": True,
        "show_memory": False,
        "min_reported_time": 1e9,
        "write_computation_times": False,
        "show_signature": False,
        "plot_gallery": "True",
    }
