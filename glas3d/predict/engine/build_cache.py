"""Built networks kept between runs and shared by workers, in the user's cache folder."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from glas3d.hashing import text_sha256

_MOST = 32  # files, of which the ones used longest ago go first


class Stored:
    """One built network.

    Parameters
    ----------
    parts
        Everything that it depends on.
    """

    def __init__(self, *parts: object) -> None:
        self._name = text_sha256("\n".join(map(str, parts)))

    def read(self) -> bytes | None:
        """What was written, or None."""
        path = _folder() / self._name
        try:
            found = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        return found

    def write(self, content: bytes) -> None:
        """Keep it, whole or not at all; a folder that cannot be written keeps nothing."""
        with suppress(OSError):
            folder = _folder()
            folder.mkdir(parents=True, exist_ok=True)
            handle, scratch = tempfile.mkstemp(dir=folder, prefix=".")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                os.replace(scratch, folder / self._name)
            except BaseException:
                os.unlink(scratch)
                raise
            kept = sorted(folder.glob("[!.]*"), key=lambda path: path.stat().st_mtime, reverse=True)
            for path in kept[_MOST:]:
                path.unlink()


def _folder() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("glas3d", appauthor=False) / "engines"
