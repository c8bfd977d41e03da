"""Write what other systems need to know of glas3d from where it is declared: ``python packaging/write.py``.

``boutiques.json`` (the options of ``glas3d cohort``), ``conda-recipe.yaml`` (the dependencies of pyproject.toml) and
``.zenodo.json`` (the authors and the paper of CITATION.cff). A test compares the files with what this would write.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml

from glas3d.cli import app

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))

RECIPE = """\
# Written by packaging/write.py, for conda-forge (rattler-build). At a release, fill in the sha256 of its archive.
schema_version: 1

context:
  version: "{version}"

package:
  name: glas3d
  version: ${{{{ version }}}}

source:
  url: https://pypi.org/packages/source/g/glas3d/glas3d-${{{{ version }}}}.tar.gz
  sha256: "{zeros}"

build:
  noarch: python
  number: 0
  script: ${{{{ PYTHON }}}} -m pip install . --no-deps --no-build-isolation
  python:
    entry_points:
      - {entry_point}

requirements:
  host:
    - python ${{{{ python_min }}}}.*
    - pip
    - hatchling >=1.27
  run:
    - python {python}
{run}

tests:
  - python:
      imports:
        - glas3d
      python_version: ${{{{ python_min }}}}.*
  - script:
      - glas3d --version
      - glas3d atlas list

about:
  homepage: https://pypi.org/project/glas3d/
  summary: "{description}"
  license: {license}
  license_file:
{license_files}
"""

_CONDA_NAMES = {"torch": "pytorch"}


def conda_recipe() -> str:
    """Return the recipe, with the dependencies of the package under the names that conda-forge has for them."""
    run = []
    for requirement in PROJECT["dependencies"]:
        name, version = re.fullmatch(r"([\w-]+)(.*)", requirement).groups()
        run.append(f"    - {_CONDA_NAMES.get(name, name)} {version}".rstrip())
    ((command, target),) = PROJECT["scripts"].items()
    return RECIPE.format(
        version=PROJECT["version"],
        zeros="0" * 64,
        entry_point=f"{command} = {target}",
        python=PROJECT["requires-python"],
        run="\n".join(run),
        description=PROJECT["description"],
        license=PROJECT["license"],
        license_files="\n".join(f"    - {file}" for file in PROJECT["license-files"]),
    )


def zenodo() -> str:
    """Return the description of a release for Zenodo."""
    paper = {"identifier": CITATION["preferred-citation"]["doi"], "relation": "isDerivedFrom"}
    content = {
        "title": CITATION["title"],
        "upload_type": "software",
        "description": PROJECT["description"],
        "creators": [{"name": author["name"]} for author in CITATION["authors"]],
        "license": CITATION["license"],
        "keywords": PROJECT["keywords"],
        "related_identifiers": [paper | {"resource_type": "publication-article"}],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def boutiques() -> str:
    """Return the descriptor of ``glas3d cohort`` as a BIDS App, with all its options."""
    command = app["cohort"]
    arguments = command.assemble_argument_collection(parse_docstring=True)
    inputs = [described(argument) for argument in arguments if argument.names != ("*",)]
    keys = [each["value-key"] for each in inputs]
    content = {
        "schema-version": "0.5",
        "name": "glas3d",
        "description": PROJECT["description"],
        "tool-version": PROJECT["version"],
        "author": ", ".join(author["name"] for author in CITATION["authors"]),
        "command-line": f"glas3d cohort {' '.join(keys)}",
        "inputs": inputs,
        "output-files": [
            {
                "id": "results",
                "name": "Results",
                "description": "A BIDS derivative: maps and tables of each participant, and of the groups.",
                "path-template": "[OUT]",
            }
        ],
        "tags": {"domain": ["neuroinformatics", "mri"], "bids": ["app"]},
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def described(argument: Any) -> dict[str, Any]:
    """Return one argument or option of a command as an input of Boutiques."""
    option = next((name for name in reversed(argument.names) if name.startswith("--")), None)
    name = argument.names[0].removeprefix("--")
    content: dict[str, Any] = {
        "id": name.replace("-", "_").lower(),
        "name": name,
        "description": " ".join((argument.parameter.help or "").split()),
        "value-key": f"[{name.replace('-', '_').upper()}]",
        "optional": not argument.required,
    }
    kind, several = value_type(argument.hint)
    if kind is bool:
        return content | {"type": "Flag", "command-line-flag": option}
    content["type"] = "Number" if kind in (int, float) else "File" if kind is Path and name != "OUT" else "String"
    if get_origin(kind) is Literal:
        content["value-choices"] = list(get_args(kind))
    if several:
        content |= {"list": True, "min-list-entries": 1}
    return content | ({"command-line-flag": option} if option else {})


def value_type(hint: Any) -> tuple[Any, bool]:
    """Return the type of one value of an option, and whether it takes several."""
    parts = [part for part in get_args(hint) if part is not type(None)]
    if get_origin(hint) is Literal or not parts:
        return hint, False
    if get_origin(hint) is tuple:
        return value_type(parts[0])[0], True
    return value_type(parts[0])


FILES = {
    ROOT / "packaging" / "boutiques.json": boutiques,
    ROOT / "packaging" / "conda-recipe.yaml": conda_recipe,
    ROOT / ".zenodo.json": zenodo,
}

if __name__ == "__main__":
    for path, text in FILES.items():
        path.write_text(text(), encoding="utf-8")
