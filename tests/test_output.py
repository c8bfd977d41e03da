"""Files and folders appear whole, whatever happens; permissions are those that the user's umask leaves."""

import errno
import os
import shutil
import stat
import subprocess
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from glas3d import GlasError, output
from glas3d.output import check_folder, new_folder, write_json, write_together
from glas3d.study.derivatives import participant_folder


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


# Permissions, links, full disks and several processes.

posix = pytest.mark.skipif(os.name == "nt", reason="permissions, groups and links are POSIX's")


def weights(path):
    save_file({"a": torch.zeros(3)}, path)  # safetensors lets the owner alone read its files


@posix
@pytest.mark.parametrize(
    ("umask", "folders", "files"), [(0o077, 0o700, 0o600), (0o022, 0o755, 0o644), (0o002, 0o775, 0o664)]
)
def test_the_umask_and_the_group_of_a_shared_folder_are_kept(tmp_path, umask, folders, files):
    shared = tmp_path / "shared"
    shared.mkdir()
    group = next((gid for gid in os.getgroups() if gid != os.getgid()), os.getgid())
    if os.getuid() == 0:
        group = 12345
    os.chown(shared, -1, group)
    shared.chmod(0o2775)
    before = os.umask(umask)
    try:
        with new_folder(shared / "new") as scratch:
            (scratch / "sub").mkdir()
            weights(scratch / "sub" / "b.safetensors")
        write_together(shared / "files", {"a.json": write_json({}), "b.safetensors": weights})
    finally:
        os.umask(before)
    found = {path: path.stat() for path in shared.rglob("*")}
    assert len(found) == 6
    for path, state in found.items():
        assert state.st_gid == group
        expected = folders | 0o2000 if path.is_dir() else files
        assert oct(stat.S_IMODE(state.st_mode)) == oct(expected), path


@posix
def test_a_link_within_results_is_not_followed(tmp_path):
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    (out / "sub-0001").symlink_to(outside)
    with pytest.raises(GlasError, match=r"must not be a link, .*sub-0001 leads to .*outside"):
        participant_folder(out, "sub-0001")
    (tmp_path / "link").symlink_to(out)
    assert participant_folder(tmp_path / "link", "sub-0002") == tmp_path / "link" / "sub-0002" / "anat"
    (outside / "kept").write_text("kept")
    (out / "kept").symlink_to(outside / "kept")
    write_together(out, {"kept": lambda path: path.write_text("new")})
    assert ((outside / "kept").read_text(), (out / "kept").read_text()) == ("kept", "new")
    (out / "nowhere").symlink_to(tmp_path / "nothing")
    with pytest.raises(GlasError, match=r"is a link to .*nothing, which does not exist"):
        check_folder(out / "nowhere")


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "No space left on device: free some, then repeat the command; earlier results are as they were"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "Read-only file system: give a folder that can be written to"),
    ],
)
def test_a_full_disk_leaves_earlier_results_and_says_what_helps(folder, monkeypatch, number, advice):
    """Also where the disk is full only when the bytes are brought to it."""

    def full(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(output.os, "fsync", full)
    if number == errno.EROFS:
        monkeypatch.setattr(output, "_made", lambda parent, prefix: full(0))

    def write_files():
        write_together(folder, {"a": lambda path: path.write_text("new")})

    for write in (lambda: replace(folder), write_files):
        with pytest.raises(GlasError, match=advice) as caught:
            write()
        assert "\n" not in str(caught.value)
        assert content_of(folder) == ["old a", "old b"]
        assert [path.name for path in folder.parent.iterdir()] == ["folder"]


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can mount a tiny disk")
def test_a_disk_that_is_truly_full_leaves_earlier_results(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        folder = disk / "folder"
        write_together(folder, {"a": lambda path: path.write_text("old a")})
        large = {"a": lambda path: path.write_bytes(bytes(2**19))}
        with pytest.raises(GlasError, match="No space left on device: free some"):
            write_together(folder, large)
        with pytest.raises(GlasError, match="No space left on device: free some"), new_folder(folder, bool) as scratch:
            large["a"](scratch / "a")
        with pytest.raises(
            GlasError, match="No space left on device: free some"
        ):  # NumPy states no number of the error
            write_together(folder, {"a": lambda path: np.zeros(2**19, np.uint8).tofile(path)})
        assert content_of(folder) == ["old a"]
        assert [path.name for path in disk.iterdir()] == ["folder"]
    finally:
        subprocess.run(["umount", disk], check=True)


@posix
def test_files_are_put_in_place_by_one_process_at_a_time(tmp_path):
    """The lock is on the folder: who holds it is waited for, here this test."""
    import fcntl

    out = tmp_path / "out"
    out.mkdir()
    descriptor = os.open(out, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    files = {name: lambda path: path.write_text("new") for name in "ab"}
    writing = threading.Thread(target=write_together, args=(out, files))
    writing.start()
    writing.join(0.5)
    assert writing.is_alive()
    assert not (out / "a").exists()
    os.close(descriptor)
    writing.join(60)
    assert content_of(out) == ["new", "new"]
