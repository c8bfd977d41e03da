"""The user's cache folder: built networks and resampled templates, kept between runs and shared by workers.

Built networks are code: a file is only read from folders that no other user of the machine can write to.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from glas3d.errors import GlasError
from glas3d.hashing import bytes_sha256, text_sha256

_DIGEST = 64  # bytes of a hash


def cache_folder(name: str) -> Path:
    """Return a folder within the user's cache folder."""
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
        raise GlasError(f"a cache must be a folder that you own and no other can write to: {folder}")
    if found.st_mode & 0o077:
        folder.chmod(0o700)


class UserCache:
    """A folder of files that are kept between runs.

    Parameters
    ----------
    folder
        A name within the user's cache folder, or a path.
    most_files
        How many are kept; those that were used longest ago are deleted first.
    """

    def __init__(self, folder: str | Path, most_files: int = 32) -> None:
        self.folder = folder if isinstance(folder, Path) else cache_folder(folder)
        self._most_files = most_files

    def entry(self, *parts: object) -> CacheEntry:
        """Return the entry that is named by everything that its content depends on."""
        return CacheEntry(self, text_sha256("\n".join(map(str, parts))))

    def drop_oldest(self) -> None:
        """Delete the files that were used longest ago, until few enough are left."""
        kept = sorted(self.folder.glob("[!.]*"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in kept[self._most_files :]:
            path.unlink()


class CacheEntry:
    """One file in a `UserCache`; it begins with the hash of its content."""

    def __init__(self, cache: UserCache, name: str) -> None:
        self._cache, self._name = cache, name

    @property
    def path(self) -> Path:
        """The file."""
        return self._cache.folder / self._name

    def read(self) -> bytes | None:
        """Return what was written; None if it is damaged, or its folder is not private (see `make_private`)."""
        try:
            make_private(self._cache.folder)
            stored = self.path.read_bytes()
            os.utime(self.path)
        except (OSError, GlasError):
            return None
        digest, content = stored[:_DIGEST], stored[_DIGEST:]
        return content if digest == bytes_sha256([content]).encode() else None

    def write(self, content: bytes) -> None:
        """Write the file as a whole or not at all; a folder that is not private or not writable keeps nothing."""
        with suppress(OSError, GlasError):
            folder = self._cache.folder
            make_private(folder)
            handle, scratch = tempfile.mkstemp(dir=folder, prefix=".")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(bytes_sha256([content]).encode() + content)
                os.replace(scratch, self.path)
            except BaseException:
                os.unlink(scratch)
                raise
            self._cache.drop_oldest()
