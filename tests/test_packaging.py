"""What containers, conda, Boutiques, Zenodo and continuous integration are given agrees with the package."""

import ast
import json
import re
import shlex
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
import yaml
from boutiques import validator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from glas3d.cli import app
from tests.scripts import load_script

ROOT = Path(__file__).parent.parent
PACKAGING = ROOT / "packaging"
DEPENDENCIES = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]


@pytest.mark.parametrize("path", [PACKAGING / "boutiques.json", PACKAGING / "conda-recipe.yaml", ROOT / ".zenodo.json"])
def test_files_for_other_systems_are_as_written(path):
    """``python packaging/write.py`` writes them again; what the help of an option says may have changed since."""

    def without_help(text):
        return re.sub(r'("description": )".*"', r'\1""', text)

    assert without_help(path.read_text(encoding="utf-8")) == without_help(
        load_script(PACKAGING / "write.py").FILES[path]()
    )


def test_the_descriptor_calls_the_command_with_all_its_options():
    descriptor = json.loads((PACKAGING / "boutiques.json").read_text(encoding="utf-8"))
    keys = re.findall(r"\[[A-Z0-9_]+\]", descriptor["command-line"])
    assert keys == [each["value-key"] for each in descriptor["inputs"]]
    assert len(set(keys)) == len(keys)
    assert all(each["description"] for each in descriptor["inputs"])
    given = {"bids_dir": "data", "out": "results", "level": "participant", "models": "models", "trust": True}
    given |= {"participant_label": ["01", "02"], "session": ["M00"], "skip_bids_validation": True, "n_workers": 2}
    line = descriptor["command-line"]
    for each in descriptor["inputs"]:
        value = given.get(each["id"], "")
        words = [] if value in ("", True) else value if isinstance(value, list) else [str(value)]
        flag = [each["command-line-flag"]] if value and "command-line-flag" in each else []
        line = line.replace(each["value-key"], " ".join([*flag, *words]))
    _, *arguments = shlex.split(line)
    _, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    assert bound.args == (Path("data"), Path("results"), "participant")
    chosen = bound.arguments
    assert (chosen["models"], chosen["skip_bids_validation"]) == (Path("models"), True)
    assert (chosen["scans"].participant_label, chosen["scans"].session) == (("01", "02"), ("M00",))
    assert (chosen["study"].n_workers, chosen["study"].trust) == (2, True)


def test_the_descriptor_meets_the_schema_of_boutiques():
    validator.validate_descriptor(json.loads((PACKAGING / "boutiques.json").read_text(encoding="utf-8")))


def test_the_lowest_versions_are_those_that_the_package_allows():
    lines = (ROOT / "tests" / "versions" / "lowest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    allowed = dict(requirement.split(">=") for requirement in DEPENDENCIES)
    assert set(pinned) == set(allowed)
    assert all(version.startswith(allowed[name]) for name, version in pinned.items())
    assert all(set(version.removeprefix(allowed[name])) <= {".", "0"} for name, version in pinned.items())


def test_what_is_imported_is_installed_with_the_package_or_belongs_to_an_extra():
    """A library that only an extra, or the environment of the tests, brings is missing after a plain installation."""
    installed, waiting = set(), [Requirement(requirement) for requirement in DEPENDENCIES]
    while waiting:
        name = canonicalize_name(waiting.pop().name)
        if name not in installed:
            installed.add(name)
            needed = map(Requirement, requires(name) or ())
            waiting += [each for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    distributions, missing = packages_distributions(), set()
    for path in (ROOT / "glas3d").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            for module in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"glas3d"}:
                if installed.isdisjoint(map(canonicalize_name, distributions.get(module, ()))):
                    missing.add(module)
    extras = {"ancpbids", "captum", "cryptography", "dask", "distributed", "onnxruntime", "openvino", "skimage"}
    assert missing <= extras


@pytest.mark.parametrize("name", ["Dockerfile", "glas3d.def"])
def test_containers_install_by_the_script_that_continuous_integration_runs(name):
    recipe = (PACKAGING / name).read_text(encoding="utf-8")
    assert re.search(r"sh /opt/glas3d/packaging/install\.sh /usr/local/bin/python /wheels/glas3d-\*\.whl", recipe)
    assert "sh packaging/install.sh" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    copied = re.findall(r"^(?:COPY|   ) ([\w/]+\.\w+) /opt/glas3d/", recipe, re.MULTILINE)
    assert {"constraints.txt", "packaging/install.sh"} <= set(copied)
    assert all((ROOT / path).exists() for path in copied)


def test_the_build_of_the_container_is_given_what_the_wheel_is_made_of():
    kept = (PACKAGING / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line[1:] for line in kept if line.startswith("!")}
    assert {"glas3d", "atlases", "models", "pyproject.toml", "README.md", "LICENSE", "constraints.txt"} <= kept
    assert all((ROOT / path).exists() for path in kept)


def test_workflows_run_the_commands_of_the_project():
    folder = ROOT / ".github" / "workflows"
    workflows = {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in folder.glob("*.yml")}
    steps = {name: [step for job in flow["jobs"].values() for step in job["steps"]] for name, flow in workflows.items()}
    for name in ("ci.yml", "release.yml"):
        assert "bash .ci/run" in [step.get("run") for step in steps[name]]
        assert workflows[name]["permissions"] == {"contents": "read"}
    matrix = workflows["ci.yml"]["jobs"]["versions"]["strategy"]["matrix"]["include"]
    files = {entry["constraints"] for entry in matrix} - {"/dev/null"}
    assert files
    assert all((ROOT / file).is_file() for file in files)
    assert {entry["python"] for entry in matrix} == {"3.11", "3.12", "3.13", "3.14"}
