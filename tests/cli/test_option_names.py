"""Messages name the options that the user typed, not the arguments of Python."""

import pytest

from glas3d.cli import app
from glas3d.cli.option_names import as_typed, option_names

NAMES = {
    "on_error": "--on-error",
    "in_sample": "--in-sample",
    "register": "--register",
    "transform": "--transform",
    "same_grid": "--any-grid",
    "pretrain": "--no-pretrain",
    "normalise": "--normalise",
    "n_workers": "--n-workers",
    "k": "--k",
}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("n_workers must be 1 or more, got 0", "--n-workers must be 1 or more, got 0"),
        ("give n_workers or a scheduler", "give --n-workers or a scheduler"),
        ("k must be 1 or more, got 0", "--k must be 1 or more, got 0"),
        ("the k highest", "the k highest"),
        ('on_error="skip" leaves them out', "--on-error skip leaves them out"),
        ("null='x', normalise='clr' (--normalise clr) tells", "null='x', --normalise clr tells"),
        ("set in_sample=True if so", "set --in-sample if so"),
        ("in_sample=False is set", "in_sample=False is set"),
        ("needs same_grid=False or pretrain=False", "needs --any-grid or --no-pretrain"),
        ('give register="affine" or transform=FILE', "give --register affine or --transform FILE"),
        ("no such file: /data/on_error/n_workers.tsv", "no such file: /data/on_error/n_workers.tsv"),
        ("no such file: /data/n_workers", "no such file: /data/n_workers"),
        ("got 'n_workers'", "got 'n_workers'"),
        ("n_workers.", "--n-workers."),
    ],
)
def test_arguments_become_options(message, expected):
    assert as_typed(message, NAMES) == expected


def test_every_option_of_a_command_is_known():
    """The names that the command line parses are those that messages use."""
    for command, required in (
        ("explain", ["s", "--model", "m", "--target", "t", "--out", "o"]),
        ("cohort", ["d", "o", "group"]),
        ("train", ["d", "o"]),
        ("simulate", ["d"]),
        ("demo", []),
    ):
        function, _, _ = app.parse_args([command, *required], exit_on_error=False, print_error=False)
        arguments = app[command].assemble_argument_collection()
        parsed = {name for argument in arguments for name in argument.names if name.startswith("--")}
        named = {option for option in option_names(function).values() if option.startswith("--")}
        assert named <= parsed
        other_names = {"--same-grid", "--session-label"}
        assert {name for name in parsed - named - other_names if f"--no-{name[2:]}" not in named} == set()
