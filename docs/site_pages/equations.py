"""Equations as MathML, which browsers draw themselves: pages with equations need no script and no internet."""

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number


def setup(app):
    """Make this the renderer of equations."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.config.html_math_renderer = "mathml"


def _mathml(node, *, block):
    try:
        return tex2mathml(node.astext(), as_block=block)
    except MathError as error:
        logging.getLogger(__name__).warning("equation %r: %s", node.astext(), error, location=node)
        return ""


def _inline(writer, node):
    writer.body.append(_mathml(node, block=False))
    raise nodes.SkipNode


def _block(writer, node):
    writer.body.append(writer.starttag(node, "div", CLASS="math"))
    if node["number"]:
        writer.body.append(f'<span class="eqno">({get_node_equation_number(writer, node)})</span>')
    writer.body.append(_mathml(node, block=True) + "</div>\n")
    raise nodes.SkipNode
