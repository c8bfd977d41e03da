import importlib.resources
from pathlib import Path

import pytest

from glas3d import resources
from glas3d.errors import GlasError


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Replace the root by a folder with two models and another file."""
    for name in ("beta", "alpha"):
        (tmp_path / "models" / name).mkdir(parents=True)
    (tmp_path / "models" / "README.md").write_text("no model")
    monkeypatch.setattr(resources, "ROOT", tmp_path)
    return tmp_path


def test_the_folder_of_the_shipped_atlas():
    assert resources.names("atlases") == ["AAL"]
    folder = resources.folder("atlases", "AAL")
    assert (folder / "atlas-AAL_dseg.nii.gz").is_file()
    assert folder.parent.parent == resources.ROOT


def test_the_root_is_next_to_the_package_in_a_checkout_and_inside_it_in_a_wheel():
    package = Path(str(importlib.resources.files("glas3d")))
    assert resources.ROOT in (package.parent, package / "_shipped")


def test_names_are_the_folders_sorted(root):
    assert resources.names("models") == ["alpha", "beta"]
    assert resources.folder("models", "beta") == root / "models" / "beta"


def test_a_kind_without_a_folder_has_no_names(root):
    assert resources.names("atlases") == []
    with pytest.raises(GlasError, match=r"'AAL' is none of the shipped atlases; there are: none"):
        resources.folder("atlases", "AAL")


@pytest.mark.parametrize("name", ["gamma", "", ".", "../models/alpha", "alpha/", "README.md"])
def test_an_unknown_name_is_refused_with_the_shipped_ones(root, name):
    with pytest.raises(GlasError) as caught:
        resources.folder("models", name)
    hint = "did you mean alpha? " if name == "alpha/" else ""
    assert str(caught.value) == f"{name!r} is none of the shipped models; {hint}there are: alpha, beta"


def test_names_are_accepted_in_any_case(root):
    assert resources.folder("models", "ALPHA") == root / "models" / "alpha"
    assert resources.shipped_name("models", "Beta") == "beta"
    assert resources.shipped_name("models", "gamma") is None
