"""Built networks that are kept between runs and shared by workers, in the user's cache folder."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from glas3d.hashing import text_sha256


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
        if self._folder is not None:
            return self._folder
        from platformdirs import user_cache_path

        return user_cache_path("glas3d", appauthor=False) / "engines"

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
        """Return what was written, or None."""
        try:
            content = self.path.read_bytes()
            os.utime(self.path)
        except OSError:
            return None
        return content

    def write(self, content: bytes) -> None:
        """Write the file as a whole or not at all; a folder that cannot be written to keeps nothing."""
        with suppress(OSError):
            folder = self._cache.folder
            folder.mkdir(parents=True, exist_ok=True)
            handle, scratch = tempfile.mkstemp(dir=folder, prefix=".")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                os.replace(scratch, self.path)
            except BaseException:
                os.unlink(scratch)
                raise
            self._cache.drop_oldest()
