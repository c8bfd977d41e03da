"""How much a command reports, and where: options that every command has."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from glas3d.cli import terminal
from glas3d.cli.derived import in_group
from glas3d.errors import GlasError
from glas3d.version import __version__

_MESSAGES = "Messages"
_log = logging.getLogger("glas3d")


@dataclass(frozen=True, kw_only=True)
class Messages:
    """How much a command reports.

    Parameters
    ----------
    verbose
        Write versions, the full command and the duration too.
    quiet
        Report errors only: no progress, notes or tables.
    log_file
        Append messages, versions and durations to this file.
    """

    verbose: Annotated[bool, in_group(_MESSAGES, name=("--verbose", "-v"))] = False
    quiet: Annotated[bool, in_group(_MESSAGES, name=("--quiet", "-q"))] = False
    log_file: Annotated[Path | None, in_group(_MESSAGES)] = None

    @contextmanager
    def active(self, arguments: Sequence[str]) -> Iterator[None]:
        """Apply these options for as long as the block lasts.

        Raises
        ------
        GlasError
            Both verbose and quiet, or a log file that cannot be written.
        """
        if self.verbose and self.quiet:
            raise GlasError("give --verbose or --quiet, got both")
        handlers: list[logging.Handler] = [logging.NullHandler()]  # without any, logging writes warnings itself
        if not self.quiet:
            handlers.append(terminal.LogHandler(logging.DEBUG if self.verbose else logging.WARNING))
        if self.log_file is not None:
            handlers.append(_file_handler(self.log_file))
        level, propagates = _log.level, _log.propagate
        _log.setLevel(logging.DEBUG)
        _log.propagate = False
        for handler in handlers:
            _log.addHandler(handler)
        start = time.monotonic()
        _log.info("glas3d %s, Python %s: glas3d %s", __version__, platform.python_version(), " ".join(arguments))
        try:
            with terminal.reporting(quiet=self.quiet):
                yield
            _log.info("finished after %.1f s", time.monotonic() - start)
        except BaseException as problem:
            _log.info("ended after %.1f s: %s: %s", time.monotonic() - start, type(problem).__name__, problem)
            raise
        finally:
            _log.setLevel(level)
            _log.propagate = propagates
            for handler in handlers:
                _log.removeHandler(handler)
                handler.close()


def _file_handler(path: Path) -> logging.Handler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise GlasError(f"the log file must be one that can be written, {path} is not: {error.strerror}") from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    return handler
