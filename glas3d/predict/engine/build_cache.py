"""Built networks that are kept between runs and shared by workers, in the user's cache folder.

What is built is code: it is only read from folders that no other user of the machine can write to.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from glas3d.errors import GlasError
from glas3d.hashing import text_sha256


def cache_folder(name: str) -> Path:
    """Return a folder for what is built, within the user's cache folder."""
    from platformdirs import user_cache_path

    return user_cache_path("glas3d", appauthor=False) / name


def make_private(folder: Path) -> None:
    """Make a folder that only its owner can enter, or check one that exists.

    Raises
    ------
    GlasError
        It is another user's, a link, or others can write to it: what lies in it may be anyone's.
    OSError
        It cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not hasattr(os, "getuid"):  # Windows: within the user's profile
        return
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise GlasError(f"a cache of built networks must be a folder that you own and no other can write to: {folder}")
    if found.st_mode & 0o077:
        folder.chmod(0o700)


class BuildCache:
    """A folder of built networks.

    Parameters
    ----------
    folder
        Where they are stored; None: in the user's cache folder.
    most_files
        How many are kept; those that were used longest ago are deleted first.
    """

    def __init__(self, folder: Path | None = None, most_files: int = 32) -> None:
        self._folder, self._most_files = folder, most_files

    @property
    def folder(self) -> Path:
        """The folder in which the networks are stored."""
        return self._folder or cache_folder("engines")

    def entry(self, *parts: object) -> CacheEntry:
        """Return the entry of one built network, named by everything that the network depends on."""
        return CacheEntry(self, text_sha256("\n".join(map(str, parts))))

    def drop_oldest(self) -> None:
        """Delete the files that were used longest ago, until few enough are left."""
        kept = sorted(self.folder.glob("[!.]*"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in kept[self._most_files :]:
            path.unlink()


class CacheEntry:
    """One built network in a `BuildCache`."""

    def __init__(self, cache: BuildCache, name: str) -> None:
        self._cache, self._name = cache, name

    @property
    def path(self) -> Path:
        """The file of this network."""
        return self._cache.folder / self._name

    def read(self) -> bytes | None:
        """Return what was written, or None; so too for a folder that is not private (see `make_private`)."""
        try:
            make_private(self._cache.folder)
            content = self.path.read_bytes()
            os.utime(self.path)
        except (OSError, GlasError):
            return None
        return content

    def write(self, content: bytes) -> None:
        """Write the file as a whole or not at all; a folder that is not private or not writable keeps nothing."""
        with suppress(OSError, GlasError):
            folder = self._cache.folder
            make_private(folder)
            handle, scratch = tempfile.mkstemp(dir=folder, prefix=".")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                os.replace(scratch, self.path)
            except BaseException:
                os.unlink(scratch)
                raise
            self._cache.drop_oldest()
