"""The commands. Nothing heavy is imported before a command runs, so that ``--help`` is instant."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

from glas3d.cli import atlases, fetch, simulated, terminal
from glas3d.cli.audit import audit
from glas3d.cli.bad_use import file_problem, message_of
from glas3d.cli.cohort import cohort
from glas3d.cli.compare import compare
from glas3d.cli.config import from_file, no_nul, whole_numbers
from glas3d.cli.convert import convert
from glas3d.cli.explain import explain
from glas3d.cli.export import export
from glas3d.cli.figure import figure
from glas3d.cli.interruption import exits_are_noticed, if_interrupted, message_and_status, signals_end_the_command
from glas3d.cli.localise import localise
from glas3d.cli.messages import Messages
from glas3d.cli.option_names import option_names
from glas3d.cli.report import report
from glas3d.cli.terminal import fail, warnings_shown_once
from glas3d.cli.train import train
from glas3d.cli.verify import verify
from glas3d.errors import GlasError, GlasWarning, SkullWarning, SpaceWarning
from glas3d.version import __version__

app = App(
    name="glas3d",
    version=__version__,
    help="Show which brain regions a 3D classifier used for its decision, by Gaussian light and shadow. "
    "For research use only; this is not a medical device.",
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(json_list=False, json_dict=False),  # the name of a file may begin with a bracket
    config=(from_file, no_nul, whole_numbers),
)
_IN_ORDER_OF_WORK = (
    *(simulated.demo, explain, compare, audit),
    *(simulated.simulate, fetch.app, train, cohort),
    *(report, figure, export, verify),
    *(convert, atlases.app, localise),
)
for position, command in enumerate(_IN_ORDER_OF_WORK):
    command.sort_key = position
    app.command(command)
app.register_install_completion_command(help="Install completion of commands and options for the current shell.")


def main() -> None:
    """Run the command line: bad use ends in one ``error:`` line and status 2."""
    os.environ.setdefault("MPLBACKEND", "agg")  # commands write figures and open no window
    with signals_end_the_command(), exits_are_noticed():
        status = run(sys.argv[1:])
    sys.exit(status)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit status."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of other libraries do not help the user of a command
            warnings.simplefilter("always", GlasWarning)
            warnings.simplefilter("error", SpaceWarning)
            warnings.simplefilter("error", SkullWarning)
            warnings.showwarning = warnings_shown_once()
            terminal.use_option_names({})
            if_interrupted(None)
            function, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
            terminal.use_option_names(option_names(function))
            messages = next((value for value in bound.arguments.values() if isinstance(value, Messages)), Messages())
            with messages.active(arguments):
                status = function(*bound.args, **bound.kwargs)
    except SpaceWarning as problem:
        return fail(f"{problem}. {_space_advice(arguments)}")
    except SkullWarning as problem:
        return fail(str(problem))
    except CycloptsError as problem:
        return fail(message_of(problem, app, arguments))
    except GlasError as problem:
        return fail(str(problem))
    except KeyboardInterrupt as interruption:
        return fail(*message_and_status(interruption))
    except SystemExit as exit_request:
        if isinstance(
            exit_request.__context__, BrokenPipeError
        ):  # rich exits so when its reader has closed the pipe, as in glas3d --help | head
            return 0
        return fail(f"the model, or code that it runs, ended the program with exit status {exit_request.code}")
    except GeneratorExit:
        return fail("the model, or code that it runs, ended the program by raising GeneratorExit")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as problem:
        return fail(*file_problem(problem))
    except Exception as problem:
        if isinstance(problem, RuntimeError) and str(problem).startswith(
            "Symlink loop"
        ):  # pathlib's, up to Python 3.12
            return fail(f"a path must not be a link that leads to itself: {str(problem).partition('from ')[2]}")
        if os.environ.get("GLAS3D_TRACEBACK"):
            raise
        first_line = str(problem).strip().splitlines()[0] if str(problem).strip() else ""
        return fail(f"unexpected {type(problem).__name__}: {first_line} (set GLAS3D_TRACEBACK=1 to see where)", 1)
    return status if isinstance(status, int) else 0


def _space_advice(arguments: Sequence[str]) -> str:
    """Return what can be done about a scan that does not look like a brain in MNI space."""
    given = next((name for name in ("--transform", "--register") if any(a.startswith(name) for a in arguments)), None)
    first = "If the scan is in native space, give --register affine or --transform FILE."
    if given is not None:
        first = f"Check that {given} is right for this scan."
    return f"{first} Give --assume-space MNI only if you know that the scan is in MNI space."
