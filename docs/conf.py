"""Configuration of the documentation site; `make docs` builds it into docs/_build/html."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

from site_pages import api, commands, docstrings, equations, gallery, links, references

from glas3d.version import __version__

project = "glas3d"
author = "the glas3d authors"
copyright = "the glas3d authors"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = [
    "_build",
    "measure",
    "site_pages",
    "generated/gallery/*.md5",
    "generated/gallery/GALLERY_HEADER.rst",
]
templates_path = []
nitpicky = True
toc_object_entries_show_parents = "hide"

# Markdown, as GitHub shows it.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
myst_dmath_double_inline = True

# Docstrings: a name in single backticks is a link where it is a public name, and code where it is not.
default_role = "py:obj"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

sphinx_gallery_conf = gallery.configuration()

html_theme = "pydata_sphinx_theme"
html_title = "glas3d"
html_static_path = ["site_pages/static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "glas3d"},
    "show_nav_level": 1,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 7,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "icon_links": [],
    "show_prev_next": False,
}
html_sidebars = {"index": [], "quickstart": [], "pitfalls": []}


def setup(app):
    """Write the pages that are made from the code, before Sphinx looks for pages."""
    equations.setup(app)
    docstrings.setup(app)
    references.setup(app)
    links.setup(app)
    generated = DOCS / "generated"
    api.write(generated / "api")
    commands.write(generated / "commands")
    links.write(generated / "pages")
