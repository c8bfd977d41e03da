import importlib.resources
from pathlib import Path

import pytest

from glas3d import resources
from glas3d.errors import GlasError


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A place with two models and a stray file instead of what is shipped."""
    for name in ("beta", "alpha"):
        (tmp_path / "models" / name).mkdir(parents=True)
    (tmp_path / "models" / "README.md").write_text("no model")
    monkeypatch.setattr(resources, "ROOT", tmp_path)
    return tmp_path


def test_the_shipped_atlases_are_found():
    assert resources.names("atlases") == ["AAL"]
    place = resources.folder("atlases", "AAL")
    assert (place / "atlas-AAL_dseg.nii.gz").is_file()
    assert place.parent.parent == resources.ROOT


def test_a_checkout_finds_them_beside_the_package_and_a_wheel_inside_it():
    package = Path(str(importlib.resources.files("glas3d")))
    assert resources.ROOT in (package.parent, package / "_shipped")


def test_names_are_the_folders_sorted(shelf):
    assert resources.names("models") == ["alpha", "beta"]
    assert resources.folder("models", "beta") == shelf / "models" / "beta"


def test_a_kind_without_a_folder_has_no_names(shelf):
    assert resources.names("atlases") == []
    with pytest.raises(GlasError, match=r"'AAL' is none of the shipped atlases; there are: none"):
        resources.folder("atlases", "AAL")


@pytest.mark.parametrize("name", ["gamma", "", ".", "../models/alpha", "alpha/", "README.md"])
def test_another_name_is_refused_with_those_there_are(shelf, name):
    with pytest.raises(GlasError) as caught:
        resources.folder("models", name)
    hint = "did you mean alpha? " if name == "alpha/" else ""
    assert str(caught.value) == f"{name!r} is none of the shipped models; {hint}there are: alpha, beta"


def test_names_are_accepted_in_any_case(shelf):
    assert resources.folder("models", "ALPHA") == shelf / "models" / "alpha"
    assert resources.has_resource("models", "Beta")
    assert not resources.has_resource("models", "gamma")
