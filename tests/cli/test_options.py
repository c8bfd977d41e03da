"""Options of the commands: derived from their declarations, grouped, and forgiving in what is said about mistakes."""

import json
import re
import subprocess
import sys

import nibabel as nib
import pytest

from glas3d.cli.derived import command_options, given_options, help_text
from glas3d.core.settings import Settings
from tests import bundles

COMMANDS = ("explain", "simulate", "train", "cohort", "demo")


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "sub-01_T1w.nii.gz"
    nib.save(bundles.t1(6), path)
    return path


@pytest.fixture
def help_of(go):
    def text(command):
        status, out, _ = go(command, "--help")
        assert status == 0
        return out

    return text


def test_options_are_listed_in_groups(help_of):
    titles = re.findall(r"^╭─ (.+?) ─+╮$", help_of("explain"), re.MULTILINE)
    assert titles == [
        "Arguments",
        "Input",
        "Where to look",
        "Masks and scales",
        "Score and mode",
        "Reference",
        "Model",
        "Native space",
        "Output",
        "Speed",
        "Messages",
    ]


def test_participant_and_group_options_of_a_cohort_are_apart(help_of):
    panels = dict(re.findall(r"^╭─ (.+?) ─+╮$(.*?)^╰", help_of("cohort"), re.MULTILINE | re.DOTALL))
    assert "--n-perm" in panels["Tests"]
    assert "--voxelwise" in panels["Voxelwise comparison"]
    assert "--models" in panels["Model"]
    assert "--n-perm" not in panels["Speed"]


@pytest.mark.parametrize(("command", "first"), [("explain", "SCAN"), ("train", "BIDS_DIR"), ("cohort", "BIDS_DIR")])
def test_the_usage_line_puts_arguments_first(help_of, command, first):
    assert help_of(command).splitlines()[0].startswith(f"Usage: glas3d {command} {first} ")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained_in_sentences(help_of, command):
    """No option without a text, no markup of docstrings, no talk of Python."""
    out = help_of(command)
    assert "``" not in out
    assert "in Python" not in out
    assert "In Python" not in out
    for row in re.findall(r"^│ \*? +?(?:--\S+.*?) {2,}(\S.*?) *│$", out, re.MULTILINE):
        assert row[0].isupper() or row[0].isdigit() or row.startswith(("auto", "participant", "package")), row


def test_help_texts_have_neither_markup_nor_notes_for_python():
    text = "Numbers in ``unit`` (in Python also a list). In Python a mapping of `X` too. Default: 5 (in Python: 6)."
    assert help_text(text) == "Numbers in unit. Default: 5."


def test_only_what_is_given_is_passed_on():
    options = command_options("Some", Settings)
    assert given_options(options()) == {}
    assert given_options(options(sigma_light=3.0, fusion="product")) == {"sigma_light": 3.0, "fusion": "product"}


def test_everything_that_is_missing_is_named(go):
    status, _, err = go("explain")
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith("error: missing: SCAN, --model, --target, --out")


def test_only_what_is_missing_is_named(go, scan):
    status, _, err = go("explain", scan, "--target", "AD")
    assert status == 2
    assert err.startswith("error: missing: --model, --out (glas3d explain --help")


def test_arguments_of_a_study_that_are_missing_are_named(go):
    status, _, err = go("cohort")
    assert status == 2
    assert all(name in err for name in ("BIDS_DIR", "OUT", "LEVEL"))


@pytest.mark.parametrize("before", [("--background", "0"), ("--grid", "2"), ("--scales", "1")])
def test_a_scan_behind_an_option_of_several_values(go, scan, bundle, tmp_path, before):
    """It is taken for one of the values; the message says what to do."""
    status, _, err = go("explain", *before, scan, "--model", bundle, "--target", "AD", "--out", tmp_path / "out")
    assert (status, err.count("\n")) == (2, 1)
    assert re.search("SCAN first", err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "near"),
    [("--jsonn", "--json"), ("--sigma-ligth", "--sigma-light"), ("--colour", None), ("--jso", "--json")],
)
def test_only_near_options_are_suggested(go, scan, option, near):
    status, _, err = go("explain", scan, "--model", "m", "--target", "AD", "--out", "o", option, "1")
    assert status == 2
    assert f"unknown option: {option}" in err
    assert ("did you mean" in err) is (near is not None)
    assert near is None or f"did you mean {near}?" in err


def test_the_result_as_json(go, scan, bundle, tmp_path):
    status, out, err = go(
        "explain", scan, "--model", bundle, "--target", "AD", "--grid", 2, "--out", tmp_path / "out", "--json"
    )
    assert (status, err) == (0, "")
    content = json.loads(out)
    assert content["target"] == {"index": 1, "class": "AD"}
    assert 0 <= content["probability"] <= 1
    assert len(content["regions"]) == 8
    assert {"name", "score", "drop", "rank"} <= set(content["regions"][0])
    assert all((tmp_path / "out" / name.rsplit("/", 1)[1]).is_file() for name in content["files"])


def test_atlases_as_json(go):
    status, out, _ = go("atlas", "list", "--json")
    assert status == 0
    assert {"name": "AAL", "regions": 116, "space": "MNI"} in json.loads(out)["atlases"]


@pytest.mark.parametrize("name", ["AAL", "aal", "Aal"])
def test_names_of_atlases_in_any_case(go, scan, bundle, tmp_path, name):
    status, _, err = go(
        *("explain", scan, "--model", bundle, "--target", "AD", "--atlas", name, "--out", tmp_path / "out", "--dry-run")
    )
    assert status == 0
    assert "error" not in err


def test_quiet_and_verbose(go, scan, bundle, tmp_path):
    given = ("explain", scan, "--model", bundle, "--target", "AD", "--grid", 2, "--out", tmp_path / "out")
    assert go(*given, "-q") == (0, "", "")
    assert (tmp_path / "out").is_dir()
    status, _, err = go(*given, "-q", "-v")
    assert (status, err) == (2, "error: give --verbose or --quiet, got both\n")
    status, _, err = go(*given, "-v")
    assert status == 0
    assert "note: glas3d " in err


def test_quiet_still_reports_errors(go, tmp_path):
    status, _, err = go("explain", tmp_path / "no.nii", "--model", "m", "--target", "AD", "--out", tmp_path, "-q")
    assert status == 2
    assert err.startswith("error: ")


def test_a_log_file_holds_the_command_versions_messages_and_durations(go, scan, bundle, tmp_path):
    log = tmp_path / "logs" / "run.log"
    given = ("explain", scan, "--model", bundle, "--target", "AD", "--grid", 2, "--log-file", log)
    assert go(*given, "--out", tmp_path / "out")[0] == 0
    assert go(*given, "--out", tmp_path / "out", "--sigma-light", 0)[0] == 2
    text = log.read_text()
    assert re.search(r"INFO glas3d \d+\.\d+\.\d+, Python 3\.\d+\.\d+: glas3d explain ", text)
    assert "Written to" in text
    assert re.search(r"finished after \d+\.\d s", text)
    assert re.search(r"ended after .* s: GlasError: sigma_light must be greater than 0", text)
    assert go(*given[:-1], tmp_path, "--out", tmp_path / "out")[2].startswith("error: the log file must be one that")


def test_the_device_can_be_chosen(go, scan, bundle, tmp_path):
    given = ("explain", scan, "--model", bundle, "--target", "AD", "--grid", 2, "--out", tmp_path / "out")
    assert go(*given, "--device", "cpu")[0] == 0
    assert "abacus" in go(*given, "--device", "abacus")[2]


NEW_SETTING = """
import json, sys
from dataclasses import dataclass
import glas3d.core.settings as declared
from glas3d.options import option

@dataclass(frozen=True, kw_only=True)
class Settings(declared.Settings):
    '''The settings, and one more.

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
from pathlib import Path
from glas3d import GLAS, cli, explain_image, explain_img
from glas3d.study.config import read_config
from glas3d.study.derivatives import key_of
from glas3d.study.running.options import StudyRequest
from glas3d.study.running.runner import explain_cohort

folder = Path(sys.argv[1])
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
doors = (GLAS, explain_img, explain_image, explain_cohort)
print(json.dumps({
    "signatures": ["sparkle" in inspect.signature(f).parameters for f in doors],
    "documented": "How much the masks sparkle." in explain_img.__doc__,
    "help": helps,
    "recorded": explanation.settings["sparkle"],
    "keys": len({key_of(Settings=one) for one in settings}),
}))
"""


def test_a_new_setting_is_declared_in_one_place(tmp_path):
    """A field of the dataclass is a keyword, an option with help, a sidecar's entry and a part of the key."""
    done = subprocess.run(
        [sys.executable, "-c", NEW_SETTING, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result == {
        "signatures": [True] * 4,
        "documented": True,
        "help": {"explain": True, "cohort": True},
        "recorded": 0.25,
        "keys": 2,
    }
