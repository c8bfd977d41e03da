"""The documentation site: what its pages are made from. `make docs` builds it, with every warning an error."""

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest

from glas3d.cli import app

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
pytest.importorskip("sphinx", reason='the site needs pip install "glas3d[docs]"')


@pytest.fixture(scope="module")
def site():
    """Return the modules that make pages, by their names."""
    sys.path.insert(0, str(DOCS))
    try:
        names = ("api", "commands", "docstrings", "links", "references", "written")
        yield {name: importlib.import_module(f"site_pages.{name}") for name in names}
    finally:
        sys.path.remove(str(DOCS))


def test_the_reference_lists_exactly_the_public_names(site):
    """A room is public by its stub, which lists the names that it exports."""
    stubs = sorted((ROOT / "glas3d").rglob("__init__.pyi"))
    pages = site["api"].pages()
    listed = set()
    for stub in stubs:
        room = ".".join(stub.parent.relative_to(ROOT).parts)
        exported = {line.split()[-1] for line in stub.read_text().splitlines() if line.startswith("from .")}
        page = pages.pop(f"{room}.rst")
        inner = {name for name in exported if (stub.parent / name / "__init__.pyi").exists()}
        assert set(re.findall(r":doc:`(\w+) <", page)) == exported - inner, room
        listed |= {f"{target}.rst" for target in re.findall(r":doc:`\w+ <(.+?)>`", page)}
        assert f":doc:`{room} <{room}>`" in pages["index.rst"]
    assert set(pages) - {"index.rst"} == listed


def test_values_have_a_text(site):
    pages = site["api"].pages()
    values = {name: page for name, page in pages.items() if ".. py:data::" in page}
    assert {"glas3d.simulate.PLANTED.rst", "glas3d.evaluate.rivals.METHODS.rst"} <= set(values)
    assert "The AAL regions in which disease is planted." in values["glas3d.simulate.PLANTED.rst"]
    assert [name for name, page in values.items() if not re.search(r"py:data:: .*\n\n   [A-Z]", page)] == []


def test_every_command_has_a_page_with_its_usage_and_all_its_options(site):
    pages = site["commands"].pages()
    commands = {name for name in app if not name.startswith("-")}
    assert set(pages) == {"index.md", *(f"{name}.md" for name in commands)}
    for name in commands:
        page = pages[f"{name}.md"]
        assert f"glas3d {name} {name}" not in page
        assert f"({name}.md)" in pages["index.md"]
        arguments = [] if app[name].default_command is None else app[name].assemble_argument_collection()
        for argument in arguments:
            if argument.show:
                assert argument.name in page, (name, argument.name)
    assert "glas3d audit OUT [OPTIONS]" in pages["audit.md"]


def test_the_page_on_files_is_that_of_the_code(site):
    written = (DOCS / "files.md").read_text(encoding="utf-8")
    assert written == site["written"].page(), "python docs/site_pages/written.py writes it"


def docstrings():
    for path in sorted((ROOT / "glas3d").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            # the texts under values are documentation, too
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value.value


def test_docstrings_name_pages_of_the_documentation_and_no_files_of_the_checkout(site):
    named = {}
    for where, text in docstrings():
        assert not re.search(r"\b(docs|tests|examples|benchmarks)/\w+|\b[A-Z]{3,}\.md\b", text), where
        named |= dict.fromkeys(site["docstrings"].named_pages(text), where)
    assert len(named) > 8
    assert {title: where for title, where in named.items() if title not in site["docstrings"].headings()} == {}


def test_links_of_the_checkout_become_links_of_the_site(site):
    links = site["links"]
    page = DOCS / "generated/pages/changelog.md"
    text = links.rewritten(ROOT / "CHANGELOG.md", page)
    targets = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert "../../glossary.md" in targets
    generated = {(DOCS / name).resolve() for name in links.OUTSIDE.values()}
    for target in targets:
        file = (page.parent / target).resolve()
        assert file.exists() or file in generated, target


def test_docstrings_are_changed_for_the_site(site):
    changed = site["docstrings"]
    lines = ["Parameters", "----------", "kernel", "    Shape.", "", "Returns", "-------", "The map of", "a volume."]
    lines = changed.with_types(changed.with_returns_as_one_line(lines), {"kernel": "'gaussian' | None"})
    assert lines[2] == "kernel : ``'gaussian' | None``"
    assert lines[-1] == "The map of a volume."
    types = changed.types_of(importlib.import_module("glas3d").explain_img)
    assert "Callable[" in types["progress"]
    assert types["kernel"].startswith("'gaussian'")
    assert types["overwrite"] == "bool"


def test_a_public_name_is_linked_by_each_of_its_paths(site):
    paths = site["references"]._paths()
    assert paths["explain_img"] == paths["glas3d.explain.scan.explain_img"] == "glas3d.explain_img"
    assert paths["glas3d.explain.explain_img"] == "glas3d.explain_img"
    assert paths["glas3d.statistics.two_groups.compare"] == "glas3d.statistics.compare"
    assert not site["references"]._exists("glas3d.predict.training.Recipe")
    assert site["references"]._exists("glas3d.predict.recipe.Recipe")
