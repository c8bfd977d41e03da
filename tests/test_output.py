"""A folder that is replaced, and its content when the process is killed at any step."""

import os
import shutil

import pytest

from glas3d import GlasError, output
from glas3d.output import new_folder


class KilledError(BaseException):
    """The error that stands for a kill, after which nothing is cleaned up."""


def content_of(folder):
    return sorted(path.read_text() for path in folder.iterdir()) if folder.exists() else None


def replace(folder):
    with new_folder(folder, lambda existing: True) as scratch:
        (scratch / "a").write_text("new a")
        (scratch / "b").write_text("new b")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in "ab":
        (folder / name).write_text(f"old {name}")
    return folder


@pytest.mark.parametrize("step", range(1, 5))
def test_a_kill_leaves_the_old_folder_the_new_one_or_none_never_half(folder, monkeypatch, step):
    """The kill may come at every call that changes the disk; a removal is then half done."""
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
            replace(folder)
        except KilledError:
            assert len(calls) >= step
        else:
            assert calls == ["replace", "replace", "rmtree"]
            assert step == 4
    assert content_of(folder) in (["old a", "old b"], None, ["new a", "new b"])
    replace(folder)
    assert content_of(folder) == ["new a", "new b"]


def test_the_old_folder_comes_back_when_the_new_cannot_be_renamed(folder, monkeypatch):
    real, calls = os.replace, []

    def full(*given):
        calls.append(given)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return real(*given)

    monkeypatch.setattr(output.os, "replace", full)
    with pytest.raises(GlasError, match="No space left"):
        replace(folder)
    assert content_of(folder) == ["old a", "old b"]
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]
