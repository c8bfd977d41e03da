"""Options of the commands: derived from their declarations, listed in groups, and helpful about mistakes."""

import json
import re
import subprocess
import sys

import pytest

from glas3d import cli
from glas3d.cli.derived import command_options, given_options, help_text
from glas3d.core.settings import Settings

COMMANDS = ("explain", "compare", "localise", "simulate", "train", "cohort", "convert", "demo")


@pytest.fixture
def help_of(run_command):
    """Return a function that returns the help of a command."""

    def text(command):
        status, output, _ = run_command(command, "--help")
        assert status == 0
        return output

    return text


def test_options_are_listed_in_groups(help_of):
    titles = re.findall(r"^╭─ (.+?) ─+╮$", help_of("explain"), re.MULTILINE)
    assert titles == [
        "Arguments",
        "Model",
        "Output",
        "Input",
        "Covariates",
        "Where to look",
        "Masks and scales",
        "Score and mode",
        "Recursion",
        "Saliency map",
        "Reference",
        "Native space",
        "Speed",
        "Messages",
    ]


def test_options_of_the_participant_and_the_group_level_have_their_own_groups(help_of):
    panels = dict(re.findall(r"^╭─ (.+?) ─+╮$(.*?)^╰", help_of("cohort"), re.MULTILINE | re.DOTALL))
    assert "--n-perm" in panels["Tests (group level)"]
    assert "--voxelwise" in panels["Voxelwise comparison (group level)"]
    assert "--models" in panels["Model"]
    assert "--n-perm" not in panels["Speed"]


@pytest.mark.parametrize(("command", "first"), [("explain", "SCAN"), ("train", "BIDS_DIR"), ("cohort", "BIDS_DIR")])
def test_the_usage_line_puts_arguments_first(help_of, command, first):
    assert help_of(command).splitlines()[0].startswith(f"Usage: glas3d {command} {first} ")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained_in_sentences(help_of, command):
    """Every option has a text, without the markup of docstrings and without notes for Python."""
    output = help_of(command)
    assert "``" not in output
    assert "in Python" not in output
    assert "In Python" not in output
    for row in re.findall(r"^│ \*? +?(?:--\S+.*?) {2,}(\S.*?) *│$", output, re.MULTILINE):
        assert row[0].isupper() or row[0].isdigit() or row.startswith(("auto", "participant", "package")), row


def test_help_texts_have_neither_markup_nor_notes_for_python():
    text = "Numbers in ``unit`` (in Python also a list). In Python a mapping of `X` too. Default: 5 (in Python: 6)."
    assert help_text(text) == "Numbers in unit. Default: 5."


def test_options_that_a_text_names_are_shown_as_on_the_command_line(help_of):
    text = "Needs ``n_perm``; ``none`` and n_perm stay."
    assert help_text(text, {"n_perm": "--n-perm"}) == "Needs --n-perm; none and n_perm stay."
    output = " ".join(help_of("explain").replace("│", " ").split())
    assert "Unit of --sigma-light, --sigma-shadow and --sigma-spatial when you set them" in output
    assert "With --recursive: largest number of rounds" in output


def test_only_options_that_are_given_are_passed_on():
    options = command_options("Some", Settings)
    assert given_options(options()) == {}
    assert given_options(options(sigma_light=3.0, fusion="product")) == {"sigma_light": 3.0, "fusion": "product"}


def test_every_missing_argument_is_named(error_line):
    assert error_line("explain").startswith("error: missing: SCAN, --model, --target, --out")


def test_only_missing_arguments_are_named(error_line, scan):
    assert error_line("explain", scan, "--target", "AD").startswith(
        "error: missing: --model, --out (see glas3d explain --help)"
    )


def test_missing_arguments_of_a_study_are_named(error_line):
    error = error_line("cohort")
    assert "missing: BIDS_DIR, OUT, LEVEL (participant or group) (see" in error


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("cohort", "--grid", "4", "B", "O", "participant"), "BIDS_DIR, OUT, LEVEL (participant or group)"),
        (("train", "--participant-label", "01", "02", "B", "O"), "BIDS_DIR, OUT"),
        (("train", "B", "--participant-label", "01", "02"), "OUT"),
        (("figure", "--kind", "bars", "results"), "OUT"),
    ],
)
def test_an_option_that_took_the_arguments_is_named(error_line, command, message):
    name, option = command[0], next(given for given in command if given.startswith("--"))
    error = error_line(*command)
    assert error.startswith(f"error: missing: {message} (see glas3d {name} --help); {option} takes all values that")
    assert error.endswith(" first")


def test_two_values_of_an_option_of_two_are_not_taken_for_arguments(error_line):
    assert error_line("simulate", "--severity", "0.1", "0.2").endswith("missing: BIDS_DIR (see glas3d simulate --help)")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            ("compare", "--grid", "5", "S", "--model", "m", "--target", "AD", "--out", "o", "--methods", "glas"),
            "--grid reads all following values as numbers, got 'S': put SCAN first, as in glas3d compare SCAN --grid 5",
        ),
        (("explain", "S", "--sigma-light", "abc"), "--sigma-light must be a number, got 'abc'"),
        (
            ("explain", "S", "--kernel", "box"),
            "--kernel must be one of gaussian, exponential, ellipsoid, segment",
        ),
        (
            ("explain", "--grid", "5", "S"),
            "--grid reads all following values as numbers, got 'S': put SCAN first, as in glas3d explain SCAN --grid 5",
        ),
        (("explain", "S", "--mask"), "--mask needs a value"),
        (("explain", "S", "--model"), "--model needs a value"),
        (("explain", "S", "--colour"), "unknown option: --colour (see glas3d explain --help)"),
        (("simulate", "OUT", "--severity", "1"), "--severity needs 2 values, got 1"),
        (("simulate", "OUT", "--severity", "0", "1", "2"), "not understood: 2 (see glas3d simulate --help)"),
        (("atlas", "show"), "missing: NAME (see glas3d atlas show --help)"),
        (("cohort", "B", "OUT", "all"), "LEVEL must be one of participant, group, got 'all'"),
    ],
)
def test_arguments_that_cannot_be_parsed_are_refused_in_plain_words(error_line, command, message):
    needed = ("--model", "m", "--target", "AD", "--out", "o") if command[0] == "explain" else ()
    start, *rest = command
    assert message in error_line(start, *(needed if "--model" not in rest else needed[2:]), *rest)


WHOLE = {
    "explain": ("--batch-size", "--max-iterations", "--supervoxels"),
    "compare": ("--batch-size", "--supervoxels"),
    "localise": ("--images", "--seed", "--size", "--cells", "--points", "--tables", "--rounds"),
    "cohort": ("--batch-size", "--max-iterations", "--n-workers", "--threads", "--n-perm", "--n-boot", "--seed", "--k"),
    "train": ("--folds", "--seed", "--threads", "--n-workers", "--epochs", "--patience"),
    "simulate": ("--participants", "--ad", "--seed"),
    "convert": (),
    "demo": ("--participants", "--seed"),
}
NEEDED = {
    "explain": ("S", "--model", "m", "--target", "AD", "--out", "o"),
    "compare": ("S", "--model", "m", "--target", "AD", "--methods", "lime", "--out", "o"),
    "localise": ("DATA", "--layout", "cub", "--model", "m", "--out", "o"),
    "cohort": ("B", "OUT", "group"),
    "train": ("B", "OUT"),
    "simulate": ("OUT",),
    "convert": ("WEIGHTS", "BUNDLE_DIR"),
    "demo": (),
}


@pytest.mark.parametrize(("command", "option"), [(command, option) for command in WHOLE for option in WHOLE[command]])
@pytest.mark.parametrize("value", ["2.5", "-0.5", "1e-1", "nan", "inf"])
def test_a_fraction_is_refused_where_a_whole_number_is_needed(error_line, command, option, value):
    given = (option, "5", value) if option == "--size" else (f"{option}={value}",)  # rows and columns
    error = error_line(command, *NEEDED[command], *given)
    assert error == f"error: {option} must be a whole number, got {value!r}"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_that_takes_a_whole_number_is_tested(command):
    """An option whose default, or whose type in the signature, is an int is one of those above."""
    options = {
        argument.names[0] for argument in cli.app[command].assemble_argument_collection() if "int" in str(argument.hint)
    }
    assert options == set(WHOLE[command])


def test_a_fraction_in_a_configuration_file_is_refused(error_line, tmp_path):
    (tmp_path / "study.toml").write_text("n_workers = 1.9\n")
    error = error_line("cohort", "B", "OUT", "participant", "--config", tmp_path / "study.toml")
    assert error.startswith("error: --n-workers must be a whole number, got '1.9' from ")


def test_a_whole_number_may_be_written_with_a_point(error_line):
    """The next thing that is wrong is named: the demo needs two participants."""
    assert "at least 2 participants" in error_line("demo", "--participants", "1.0")


@pytest.mark.parametrize("before", [("--background", "0"), ("--grid", "2"), ("--scales", "1")])
def test_a_scan_after_an_option_of_several_values_is_refused_with_advice(error_line, scan, bundle, tmp_path, before):
    """The scan is taken for one of the values of the option."""
    error = error_line("explain", *before, scan, "--model", bundle, "--target", "AD", "--out", tmp_path / "out")
    assert "SCAN first" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "near"),
    [("--jsonn", "--json"), ("--sigma-ligth", "--sigma-light"), ("--colour", None), ("--jso", "--json")],
)
def test_only_an_option_of_similar_spelling_is_suggested(error_line, scan, option, near):
    error = error_line("explain", scan, "--model", "m", "--target", "AD", "--out", "o", option, "1")
    assert f"unknown option: {option}" in error
    assert ("did you mean" in error) is (near is not None)
    assert near is None or f"did you mean {near}?" in error


def test_quiet_and_verbose_choose_what_is_written(run_command, scan, bundle, tmp_path):
    command = ("explain", scan, "--model", bundle, "--target", "AD", "--grid", 2, "--out", tmp_path / "out")
    assert run_command(*command, "-q") == (0, "", "")
    assert (tmp_path / "out").is_dir()
    status, _, errors = run_command(*command, "-q", "-v")
    assert (status, errors) == (2, "error: give --verbose or --quiet, got both\n")
    status, _, errors = run_command(*command, "-v")
    assert status == 0
    assert "note: glas3d " in errors


def test_quiet_writes_no_notes(run_command, scan, bundle, tmp_path):
    command = ("explain", scan, "--model", bundle, "--target", "AD", "--out", tmp_path / "out")
    assert "note: 2 regions of AAL are too small" in run_command(*command)[2]
    assert run_command(*command, "-q") == (0, "", "")


def test_quiet_still_reports_errors(run_command, tmp_path):
    status, _, errors = run_command(
        "explain", tmp_path / "no.nii", "--model", "m", "--target", "AD", "--out", tmp_path, "-q"
    )
    assert status == 2
    assert errors.startswith("error: ")


def test_the_log_file_holds_the_command_versions_messages_and_durations(run_command, scan, bundle, tmp_path):
    log = tmp_path / "logs" / "run.log"
    command = ("explain", scan, "--model", bundle, "--target", "AD", "--grid", 2, "--log-file", log)
    assert run_command(*command, "--out", tmp_path / "out")[0] == 0
    assert run_command(*command, "--out", tmp_path / "out", "--sigma-light", 0)[0] == 2
    text = log.read_text()
    assert re.search(r"INFO glas3d \d+\.\d+\.\d+, Python 3\.\d+\.\d+: glas3d explain ", text)
    assert "Written to" in text
    assert re.search(r"finished after \d+\.\d s", text)
    assert re.search(r"ended after .* s: GlasError: sigma_light must be greater than 0", text)
    assert run_command(*command[:-1], tmp_path, "--out", tmp_path / "out")[2].startswith(
        "error: the log file must be one that"
    )


NEW_SETTING = """
import json
from dataclasses import dataclass
import glas3d.core.settings as declared
from glas3d.options import option

@dataclass(frozen=True, kw_only=True)
class Settings(declared.Settings):
    '''The settings, with a new setting.

    Parameters
    ----------
    sparkle
        How much the masks sparkle. Default: 0.5.
    '''

    sparkle: float = option(0.5, group=declared.MASKS)

Settings.__module__ = declared.__name__
Settings.__annotations__["sparkle"] = "float"
declared.Settings = Settings

import inspect, io, contextlib
import numpy as np
from glas3d import GLAS, cli, explain_image, explain_img
from glas3d.study.derivatives import key_of
from glas3d.study.running.options import StudyRequest
from glas3d.study.running.runner import explain_cohort

output = io.StringIO()
helps = {}
for command in ("explain", "cohort"):
    with contextlib.redirect_stdout(output):
        cli.terminal.out.file = output
        cli.app([command, "--help"], console=cli.terminal.out, exit_on_error=False, result_action="return_none")
    helps[command] = "--sparkle" in output.getvalue() and "How much the masks sparkle." in output.getvalue()
    output.truncate(0)
volume = np.random.default_rng(0).random((1, 6, 7, 8), dtype=np.float32)
predict = lambda batch: batch.mean(dim=(1, 2, 3, 4))[:, None]
explanation = GLAS(predict, sparkle=0.25, sigma_light=2, sigma_shadow=2).explain(volume, 0, [[2, 3, 4]])
settings = [StudyRequest.of({"sparkle": value}, "test").settings for value in (0.25, 0.75)]
functions = (GLAS, explain_img, explain_image, explain_cohort)
print(json.dumps({
    "signatures": ["sparkle" in inspect.signature(f).parameters for f in functions],
    "documented": "How much the masks sparkle." in explain_img.__doc__,
    "help": helps,
    "recorded": explanation.settings["sparkle"],
    "keys": len({key_of(Settings=study) for study in settings}),
}))
"""


def test_a_new_setting_needs_one_declaration():
    """A field of the dataclass becomes a keyword, an option with help, an entry of sidecars and a part of the key."""
    completed = subprocess.run([sys.executable, "-c", NEW_SETTING], capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    result = json.loads(completed.stdout.splitlines()[-1])
    assert result == {
        "signatures": [True] * 4,
        "documented": True,
        "help": {"explain": True, "cohort": True},
        "recorded": 0.25,
        "keys": 2,
    }
