"""The rules of the house: names, imports, words, links, and what belongs into the wheel."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

import glas3d

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "glas3d"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def sources(*folders):
    """Return the Python files and stubs of folders, given relative to the checkout."""
    files = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py*")))
    return [path for path in files if path.suffix in (".py", ".pyi")]


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


# Names.


def test_the_package_shows_few_names_all_of_them_public():
    assert len(glas3d.__all__) == len(set(glas3d.__all__)) <= 12
    for name in glas3d.__all__:
        assert getattr(glas3d, name).__module__.startswith("glas3d.")
    assert set(dir(glas3d)) == {*glas3d.__all__, "__version__"}
    with pytest.raises(AttributeError, match="Nonsense"):
        _ = glas3d.Nonsense
    assert {"GLAS", "RGLAS", "Grid", "Atlas", "Predictor", "explain_img"} <= set(glas3d.__all__)


def test_no_file_is_called_utils():
    places = ("glas3d", "tests", "examples", "benchmarks", "docs")
    assert [path.name for path in sources(*places) if path.name.startswith("util")] == []


# Numbers.


def formats():
    """Return the file, line and format of each number that texts of the package round."""
    for path in sources("glas3d"):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FormattedValue) and isinstance(node.format_spec, ast.JoinedStr):
                parts = [part.value for part in node.format_spec.values if isinstance(part, ast.Constant)]
                yield f"{path.relative_to(ROOT)}:{node.lineno}", "".join(map(str, parts))


def test_no_text_has_a_negative_zero():
    """A small number below 0 must not be shown as -0%, -0.00 or -0: the format of what may be one has a ``z``."""
    found = list(formats())
    assert f"{-0.001:z.0%}" == "0%"
    assert len(found) > 100
    rounded = re.compile(r"\+(\.\d+)?[fg%]|\.\d+%|\.[02]f")
    assert [place for place, spec in found if rounded.fullmatch(spec)] == []


# Imports.


def test_importing_the_package_is_quick_and_imports_no_numeric_library():
    code = (
        "import sys, time; start = time.process_time(); import glas3d; took = time.process_time() - start; "
        "print(took, *{'torch', 'numpy', 'nibabel', 'nilearn', 'pandas'} & set(sys.modules))"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    took, *heavy = min((run.stdout.split() for run in runs), key=lambda words: float(words[0]))
    assert heavy == []
    assert float(took) < 0.05


def module_of(path):
    """Return the dotted name of a file of the package; a stub has the name of the file it describes."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path, modules):
    """Return the modules of the package that a file imports, anywhere in it and on whatever condition."""
    package = module_of(path) if path.stem == "__init__" else module_of(path).rpartition(".")[0]
    targets = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            targets += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1])
                base = f"{parent}.{base}".strip(".")
            # what is imported from a package is one of its modules, or else a name of the package's own file
            targets += [name if (name := f"{base}.{alias.name}") in modules else base for alias in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module":
            targets += [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return {target for target in targets if target in modules}


def circles(graph):
    """Return the groups of modules each of which imports, over any number of steps, all others of its group."""

    def reached(start):
        seen, queue = set(), [start]
        while queue:
            for target in graph[queue.pop()] - seen:
                seen.add(target)
                queue.append(target)
        return seen

    reach = {module: reached(module) for module in graph}
    groups = {frozenset(other for other in reach[module] if module in reach[other]) for module in graph}
    return sorted(sorted(group) for group in groups if group)


def test_circles_are_seen():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"e"}}
    assert circles(graph) == [["a", "b", "c"], ["e"]]


def test_every_kind_of_import_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    file = tmp_path / "glas3d" / "room" / "file.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "from typing import TYPE_CHECKING\nimport numpy\nfrom . import sibling\nfrom ..other import deep\n"
        "from glas3d import a, NAME\nif TYPE_CHECKING:\n    from glas3d.b import B\n"
        "def f():\n    import glas3d.c\n    return import_module('glas3d.d')\n"
    )
    modules = {"glas3d", "glas3d.room", "glas3d.room.sibling", "glas3d.other", "glas3d.other.deep"}
    modules |= {f"glas3d.{name}" for name in "abcd"}
    assert imports_of(file, modules) == modules - {"glas3d.room", "glas3d.other"}


def test_no_circle_of_imports():
    """Imports inside functions, under ``TYPE_CHECKING`` and in stubs count."""
    files = sources("glas3d")
    modules = {module_of(path) for path in files}
    graph = {module: set() for module in modules}
    for path in files:
        graph[module_of(path)] |= imports_of(path, modules) - {module_of(path)}
    assert circles(graph) == []


# Words.

# A docstring that begins so is a fragment, such as "Of one worker." or "As the predictor."
FRAGMENT = re.compile(
    "(Of|By|As|With|Without|From|Who|Whom|Whose|That|Those|These|For|To|In|On|At|Where|When|While|If|Because|Since|Until|"
    "After|Before|Besides?|Between|Among|Than|Then|So|Such|And|Or|But|Not|Nor|Only|Also|Else|Is|Are|Was|Were|Has|Have)"
    r"\b|[a-z]"
)
# A function's docstring begins with a verb, such as "Return the map of one volume."; it does not name what it returns.
NOUN = re.compile(
    "(What|How|Which|Why|Whether|The|A|An|One|Each|Every|Some|All|It|This|Its|Their|No|Nothing|Two|Several|Same)" r"\b"
)


def fragments():
    """Return the docstrings of the package that do not begin with a capitalised full clause."""
    found = []
    for path in sources("glas3d"):
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            docstring = ast.get_docstring(node) or ""
            decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
            is_noun = isinstance(node, ast.ClassDef) or decorators & {"property", "cached_property"}
            if FRAGMENT.match(docstring) or (NOUN.match(docstring) and not is_noun):
                found.append(f"{module_of(path)}:{node.lineno} {node.name}: {docstring.splitlines()[0]}")
    return found


def test_every_docstring_begins_with_a_full_clause():
    found = fragments()
    assert found == [], Counter(line.split(".")[1].split(":")[0] for line in found)


# Words that only this project used, in place of a term of docs/glossary.md.
PRIVATE_WORDS = re.compile(
    r"\b(ask(s|ed|ing)?|questions?|answer(s|ed|ing)?|forwards|forwards? (?!pass)|spots?|puts? out|"
    r"(come|way) home|said|told|whom|beside|begun|settled?|goes? on|gone on|went on|there is none|best regions?|"
    r"looked for|is there already)\b",
    re.IGNORECASE,
)


@cache
def help_of(*command):
    """Return the text that a command shows on ``--help``, on lines that are wide enough for whole sentences."""
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    run = [sys.executable, "-c", "from glas3d.cli import main; main()", *command, "--help"]
    return subprocess.run(run, capture_output=True, text=True, check=True, env=environment).stdout


def commands():
    """Yield every command, and every command of a command."""
    yield ()
    for name in re.findall(r"^│ (\w+) ", help_of(), re.MULTILINE):
        yield (name,)
        yield from ((name, part) for part in re.findall(r"^│ (\w+) ", help_of(name), re.MULTILINE) if part.islower())


@pytest.mark.slow
def test_help_is_in_the_words_of_the_glossary():
    shown = {" ".join(command): help_of(*command) for command in commands()}
    assert {"", "demo", "explain", "simulate", "train", "cohort", "atlas", "atlas list"} <= set(shown)
    private = {command: [match[0] for match in PRIVATE_WORDS.finditer(text)] for command, text in shown.items()}
    assert {command: words for command, words in private.items() if words} == {}


# Documents.


def pages():
    folders = ("docs", "benchmarks", "examples", "atlases", "models", ".github")
    found = [*ROOT.glob("*.md"), *(page for folder in folders for page in (ROOT / folder).rglob("*.md"))]
    made = (ROOT / "docs" / "generated", ROOT / "docs" / "_build")  # by make docs
    return sorted(page for page in found if not any(page.is_relative_to(folder) for folder in made))


def anchors(page):
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)", text):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = page if not name else page.parent / name
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


def test_every_link_between_the_pages_leads_somewhere():
    broken = {str(page.relative_to(ROOT)): list(broken_links(page)) for page in pages()}
    assert {page: links for page, links in broken.items() if links} == {}


# Pages that tell of earlier names.
HISTORY = {"CHANGELOG.md", "docs/decisions"}


def unknown_names(page):
    """Yield what a page calls by a path or a dotted name and the checkout does not have."""
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:[\w-]+/)+[\w-]+\.(?:pyi?|md)|(?:glas3d|tests|docs|benchmarks)/[\w/]+/)`", text):
        # a path stands for a file of the checkout or, in the pages on the code, of the package
        if not any((root / path).exists() for root in (ROOT, PACKAGE, page.parent)):
            yield path
    for name in re.findall(r"\bglas3d(?:\.[A-Za-z_]\w*)+", text):
        *parents, last = name.split(".")
        if not module_file(name) and not ((file := module_file(".".join(parents))) and last in names_in(file)):
            yield name


def module_file(name):
    """Return the file of a module: for a package that loads its names when they are used, its stub."""
    folder = ROOT.joinpath(*name.split("."))
    files = (folder / "__init__.pyi", folder / "__init__.py", folder.with_suffix(".py"))
    return next((file for file in files if file.is_file()), None)


def names_in(file):
    return set(re.findall(r"\w+", file.read_text(encoding="utf-8")))


def test_the_pages_name_files_and_modules_that_exist():
    described = [page for page in pages() if not any(str(page.relative_to(ROOT)).startswith(old) for old in HISTORY)]
    unknown = {str(page.relative_to(ROOT)): list(unknown_names(page)) for page in described}
    assert {page: names for page, names in unknown.items() if names} == {}


def test_the_pages_are_in_the_words_of_the_glossary():
    left_out = {"CHANGELOG.md", "atlases/AAL/LICENSES.md"}
    private = {}
    for page in pages():
        if (name := str(page.relative_to(ROOT))) not in left_out:
            prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
            private[name] = [match[0] for match in PRIVATE_WORDS.finditer(prose)]
    assert len(private) > 15
    assert {page: words for page, words in private.items() if words} == {}


# Options of pip, mypy and dask that the pages mention.
OTHERS_OPTIONS = {"--index-url", "--strict", "--nthreads"}


@pytest.mark.slow
def test_the_pages_name_options_that_exist():
    known = {option for command in commands() for option in re.findall(r"--[a-z][a-z-]+", help_of(*command))}
    written = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    unknown = {
        page.name: set(re.findall(r"(?<!\S)[`(]?(--[a-z][a-z-]+)", page.read_text())) - known for page in written
    }
    assert {page: options - OTHERS_OPTIONS for page, options in unknown.items() if options - OTHERS_OPTIONS} == {}


def test_the_readme_says_what_it_is_not():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split()).lower()
    assert re.search(r"(for )?research( use)? only", text)
    assert re.search(r"(no|not a) medical device", text)
    assert "simulated disease" in text


def test_the_version_is_one():
    version = PYPROJECT["project"]["version"]
    assert glas3d.__version__ == version
    changelog, citation = (ROOT / name for name in ("CHANGELOG.md", "CITATION.cff"))
    assert re.search(rf"^## {re.escape(version)}\b", changelog.read_text(encoding="utf-8"), re.MULTILINE)
    assert re.search(rf"^version: {re.escape(version)}$", citation.read_text(encoding="utf-8"), re.MULTILINE)


# The wheel.


@pytest.mark.parametrize("folder", ["models", "atlases"])
def test_no_code_lies_among_data(folder):
    """A Python file there would break the editable install."""
    assert (ROOT / folder).is_dir()
    assert sources(folder) == []


def test_what_is_not_python_is_in_the_wheel():
    """`.gitignore` rules about volumes and weights would drop it in silence."""
    build = PYPROJECT["tool"]["hatch"]["build"]
    assert {"/atlases/**", "/models/**"} <= set(build["artifacts"])
    assert build["targets"]["wheel"]["sources"] == {name: f"glas3d/_shipped/{name}" for name in ("atlases", "models")}
