"""What is built is kept where no other user can plant anything."""

import os
import stat
import subprocess
import sys

import pytest

from glas3d import GlasError
from glas3d.predict.engine import builders
from glas3d.user_cache import UserCache, make_private

posix = pytest.mark.skipif(not hasattr(os, "getuid"), reason="owners and modes are POSIX's")


@posix
def test_a_cache_is_its_owner_s_alone(tmp_path, monkeypatch):
    folder = tmp_path / "cache" / "engines"
    cache = UserCache(folder)
    cache.entry("a").write(b"built")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o755)  # as earlier versions made it
    assert cache.entry("a").read() == b"built"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@posix
@pytest.mark.parametrize("how", ["others can write", "a link", "another's"])
def test_a_planted_cache_is_neither_read_nor_written(tmp_path, monkeypatch, how):
    folder = tmp_path / "engines"
    cache = UserCache(folder)
    planted = tmp_path / "planted"
    planted.mkdir()
    if how == "a link":
        folder.symlink_to(planted)
    else:
        folder.mkdir()
    (folder / cache.entry("a").path.name).write_bytes(b"planted")
    if how == "others can write":
        folder.chmod(0o777)
    if how == "another's":
        monkeypatch.setattr(os, "getuid", lambda: os.stat(tmp_path).st_uid + 1)
    assert cache.entry("a").read() is None
    cache.entry("b").write(b"built")
    assert [path.read_bytes() for path in folder.iterdir()] == [b"planted"]
    with pytest.raises(GlasError, match=f"must be a folder that you own and no other can write to: {folder}"):
        make_private(folder)


@posix
@pytest.mark.slow
def test_the_compiler_does_not_use_the_folder_that_all_users_share(tmp_path):
    """In a process of its own: torch chooses the folder when it is imported."""
    script = (
        "import os, torch, torch._dynamo\n"
        "from glas3d.predict.engine.builders import build_compiled\n"
        "net = torch.nn.Linear(3, 2).eval()\n"
        "print(build_compiled(net, (torch.ones(1, 3),), None)(torch.ones(1, 3)).shape)\n"
        "print(os.environ['TORCHINDUCTOR_CACHE_DIR'])\n"
    )
    shared, home = tmp_path / "tmp", tmp_path / "home"
    shared.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    environment |= {"TMPDIR": str(shared), "XDG_CACHE_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    shape, folder = done.stdout.splitlines()
    assert shape == "torch.Size([1, 2])"
    assert folder == str(home / "glas3d" / "compiled")
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert not [path for path in shared.rglob("*") if path.is_file()], "nothing is kept in the shared folder"


@posix
def test_a_compile_cache_that_others_can_write_to_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    tmp_path.chmod(0o777)
    with pytest.raises(GlasError, match="no other can write to"):
        builders.use_private_compile_cache()
