"""A folder that is replaced, and what is there when the work ends at any step of it."""

import os
import shutil

import pytest

from glas3d import GlasError, output
from glas3d.output import new_folder


class KilledError(BaseException):
    """After it nothing is cleaned up."""


def state(place):
    return sorted(path.read_text() for path in place.iterdir()) if place.exists() else None


def replace_it(place):
    with new_folder(place, lambda there: True) as scratch:
        (scratch / "a").write_text("new a")
        (scratch / "b").write_text("new b")


@pytest.fixture
def place(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    for name in "ab":
        (place / name).write_text(f"old {name}")
    return place


@pytest.mark.parametrize("step", range(1, 5))
def test_a_kill_leaves_the_old_or_the_new_or_none_never_half(place, monkeypatch, step):
    """Every call that changes the disk is one where the kill may come; removing is then half done."""
    calls = []

    def dying(name, real):
        def call(*given, **settings):
            calls.append(name)
            if len(calls) < step:
                return real(*given, **settings)
            if len(calls) == step and name == "rmtree":
                next(path for path in sorted(given[0].rglob("*")) if path.is_file()).unlink()
            if len(calls) == step:
                raise KilledError
            return None

        return call

    with monkeypatch.context() as patched:
        patched.setattr(output.os, "replace", dying("replace", os.replace))
        patched.setattr(output.shutil, "rmtree", dying("rmtree", shutil.rmtree))
        try:
            replace_it(place)
        except KilledError:
            assert len(calls) >= step
        else:
            assert calls == ["replace", "replace", "rmtree"]
            assert step == 4
    assert state(place) in (["old a", "old b"], None, ["new a", "new b"])
    replace_it(place)
    assert state(place) == ["new a", "new b"]


def test_what_was_there_comes_back_when_the_new_cannot_be_put(place, monkeypatch):
    real, calls = os.replace, []

    def full(*given):
        calls.append(given)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return real(*given)

    monkeypatch.setattr(output.os, "replace", full)
    with pytest.raises(GlasError, match="No space left"):
        replace_it(place)
    assert state(place) == ["old a", "old b"]
    assert [path.name for path in place.parent.iterdir()] == ["place"]
