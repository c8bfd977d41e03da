"""Short versions of the long suites (``make kills``, ``make soak``, ``make scale``), and their record."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.endurance.disks import can_be_mounted
from tests.endurance.many import explain_many
from tests.endurance.record import PAGE, keep, with_table

ROOT = Path(__file__).parents[2]
# Dask closes sockets and event loops after the test has ended.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.slow
def test_studies_resume_after_signals(tmp_path):
    """Participant level, training and group level: no hang, no traceback, nothing lost, the same bits.

    The suite runs in a process of its own, because only one without other threads may be copied.
    """
    command = [sys.executable, "-m", "tests.endurance", "kills", "8", "--each", "2", "--participants", "6"]
    places = ("--folder", tmp_path, "--record", tmp_path / "trust.tsv")
    done = subprocess.run([*command, *places], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    row = pd.read_csv(tmp_path / "trust.tsv", sep="\t").iloc[0]
    assert row[["hangs", "crashes", "lost", "other_bits"]].tolist() == [0, 0, 0, 0]
    assert re.match(r"8 signals \(\d+ group level, \d+ participant level, \d+ training; ", row["tried"]), row["tried"]


@pytest.mark.slow
def test_full_disks_leave_what_was_there_and_are_resumed_from(tmp_path):
    if not can_be_mounted(tmp_path / "disk"):
        pytest.skip("only root can mount a disk")
    command = [sys.executable, "-m", "tests.endurance", "disks", "4", "--commands", "explain", "participant level"]
    places = ("--folder", tmp_path, "--record", tmp_path / "trust.tsv")
    done = subprocess.run([*command, *places], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    row = pd.read_csv(tmp_path / "trust.tsv", sep="\t").iloc[0]
    assert row[["hangs", "crashes", "lost", "other_bits"]].tolist() == [0, 0, 0, 0]
    assert re.match(r"\d full disks \(\d explain, \d participant level\), ", row["tried"]), row["tried"]


@pytest.mark.slow
def test_memory_and_open_files_stay_as_they_are(tmp_path):
    """From the first participants of a study to its last."""
    run = explain_many(tmp_path, 80, after=20)
    assert (run.explained, run.kept) == (80, 0)
    assert run.same_processes
    assert len(run.growth) == 3, "the client and two workers"
    assert max(run.growth) < 1.1
    assert max(run.more_files) <= 2, "a scan may be open at the moment"
    again = explain_many(tmp_path, 80, after=20)
    assert (again.explained, again.kept) == (0, 80)


def test_a_record_replaces_that_of_the_same_suite(tmp_path):
    row = {"suite": "soak", "tried": "2 participants", "hangs": 0, "crashes": 0, "lost": 0, "other_bits": 0}
    for suite, tried in (("soak", "2"), ("kills", "3"), ("soak", "4")):
        keep(row | {"suite": suite, "tried": tried}, tmp_path / "trust.tsv")
    kept = pd.read_csv(tmp_path / "trust.tsv", sep="\t", dtype=str, keep_default_na=False)
    assert kept[["suite", "tried", "lost", "measured"]].to_numpy().tolist() == [
        ["kills", "3", "0", ""],
        ["soak", "4", "0", ""],
    ]


def test_the_page_has_the_record():
    text = PAGE.read_text(encoding="utf-8")
    assert with_table(text) == text
