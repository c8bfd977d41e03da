"""The commands. Nothing heavy is imported before a command runs, so that ``--help`` is instant."""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from collections.abc import Sequence
from itertools import chain
from typing import Any

from cyclopts import App, CoercionError, CycloptsError, MissingArgumentError, UnknownOptionError

from glas3d.cli import atlases, simulated
from glas3d.cli.cohort import cohort
from glas3d.cli.explain import explain
from glas3d.cli.messages import Messages
from glas3d.cli.terminal import fail, show_warning
from glas3d.cli.train import train
from glas3d.errors import GlasError, GlasWarning, SkullWarning, SpaceWarning
from glas3d.version import __version__

app = App(
    name="glas3d",
    version=__version__,
    help="Which anatomy made a 3D classifier say so? Gaussian light and shadow explanations of brain scans. "
    "For research use only; this is not a medical device.",
    suppress_keyboard_interrupt=False,
)
for command in (explain, simulated.simulate, train, cohort, simulated.demo, atlases.app):
    app.command(command)
app.register_install_completion_command(help="Install completion of commands and options for the current shell.")


def main() -> None:
    """Run the command line: bad use ends in one ``error:`` line and status 2."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit status."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of other libraries do not help the user of a command
            warnings.simplefilter("always", GlasWarning)
            warnings.simplefilter("error", SpaceWarning)
            warnings.simplefilter("error", SkullWarning)
            warnings.showwarning = show_warning
            function, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
            messages = next((value for value in bound.arguments.values() if isinstance(value, Messages)), Messages())
            with messages.active(arguments):
                function(*bound.args, **bound.kwargs)
    except SpaceWarning as problem:
        return fail(f"{problem}; if it is, give --assume-space MNI")
    except SkullWarning as problem:
        return fail(str(problem))
    except MissingArgumentError as problem:
        return fail(_all_missing(arguments, problem))
    except UnknownOptionError as problem:
        return fail(_unknown(problem))
    except CoercionError as problem:
        return fail(_not_converted(problem))
    except (GlasError, CycloptsError) as problem:
        return fail(str(problem))
    except KeyboardInterrupt:
        return fail("interrupted", 130)
    except SystemExit as exit_request:
        return fail(f"the model, or code that it runs, ended the program with exit status {exit_request.code}")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as problem:
        if os.environ.get("GLAS3D_TRACEBACK"):
            raise
        first_line = str(problem).strip().splitlines()[0] if str(problem).strip() else ""
        return fail(f"unexpected {type(problem).__name__}: {first_line} (set GLAS3D_TRACEBACK=1 to see where)", 1)
    return 0


def _all_missing(arguments: Sequence[str], problem: MissingArgumentError) -> str:
    """Return a message that names everything that is missing, not only the first."""
    if problem.tokens_so_far or problem.argument is None:
        return str(problem)
    missing: list[str] = []
    tried, error = list(arguments), problem
    while len(missing) < 20:
        argument = error.argument
        if argument is None or argument.name in tried:  # given, but without a value
            return str(error)
        missing.append(_name(argument))
        tried += [argument.name, _placeholder(argument)]
        try:
            _, bound, _ = app.parse_args(tried, exit_on_error=False, print_error=False)
        except MissingArgumentError as another:
            error = another
        except CycloptsError:
            break
        else:
            if bound.arguments.get("scan", None) == () or ("scan" in bound.signature.parameters and not bound.args):
                missing.insert(0, "SCAN")
            break
    return f"missing: {', '.join(missing)} (glas3d {' '.join(problem.command_chain or ())} --help lists all options)"


def _name(argument: Any) -> str:
    """Return the name of an argument as usage lines show it: BIDS_DIR if it is positional, else --model."""
    name: str = argument.name
    return name if argument.index is None else name.lstrip("-").upper().replace("-", "_")


def _placeholder(argument: Any) -> str:
    """Return a value that an argument accepts."""
    choices = argument.get_choices()
    return str(choices[0]) if choices else "0"


def _not_converted(problem: CoercionError) -> str:
    """Return the message about a value of the wrong type, with advice if it may belong to another one."""
    argument = problem.argument
    if argument is None or not argument.parameter.consume_multiple:
        return str(problem)
    return f"{problem} It takes everything that follows it: give arguments such as SCAN first."


def _unknown(problem: UnknownOptionError) -> str:
    """Return the message about an option that does not exist; it suggests an option spelt nearly the same."""
    name = (problem.token.keyword or problem.token.value).split("=", 1)[0]
    source = "" if problem.token.source in ("", "cli") else f" from {problem.token.source}"
    names = set(chain.from_iterable(argument.names for argument in problem.argument_collection if argument.parse))
    near = difflib.get_close_matches(name, names, 1, 0.8)
    return f"unknown option: {name}{source}" + (f" (did you mean {near[0]}?)" if near else "")
