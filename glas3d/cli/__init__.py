"""The commands. Nothing heavy is imported before a command runs, so that ``--help`` is instant."""

from __future__ import annotations

import os
import sys
import warnings

from cyclopts import App, CycloptsError

from glas3d.cli import atlases, participants
from glas3d.cli import explain as scans
from glas3d.cli.cohort import cohort
from glas3d.cli.terminal import fail, show_warning
from glas3d.cli.train import train
from glas3d.errors import GlasError, GlasWarning, SpaceWarning
from glas3d.version import __version__

app = App(
    name="glas3d",
    version=__version__,
    help="Which anatomy made a 3D classifier say so? Gaussian light and shadow explanations of brain scans. "
    "For research only; no medical device.",
    suppress_keyboard_interrupt=False,
)
app.command(scans.explain)
app.command(participants.simulate)
app.command(train)
app.command(cohort)
app.command(participants.demo)
app.command(atlases.app)


def main() -> None:
    """Run the command line: bad use ends in one ``error:`` line and status 2."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit status."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other libraries' notes are not for the user of a command
            warnings.simplefilter("always", GlasWarning)
            warnings.simplefilter("error", SpaceWarning)
            warnings.showwarning = show_warning
            app(arguments, exit_on_error=False, print_error=False, result_action="return_none")
    except SpaceWarning as problem:
        return fail(f"{problem}; if it is, say --assume-space MNI")
    except (GlasError, CycloptsError) as problem:
        return fail(str(problem))
    except KeyboardInterrupt:
        return fail("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as problem:
        if os.environ.get("GLAS3D_TRACEBACK"):
            raise
        first = str(problem).strip().splitlines()[0] if str(problem).strip() else ""
        return fail(f"unexpected {type(problem).__name__}: {first} (set GLAS3D_TRACEBACK=1 to see where)", 1)
    return 0
