"""Processes killed at random moments: the files of the resumed runs equal those of an undisturbed run, bit for bit."""

import shutil
import time

import numpy as np
import pytest

from tests.study import folders, studies
from tests.study.running.command_process import CommandProcess
from tests.study.studies import content

pytestmark = pytest.mark.slow

PARTICIPANTS = 16
KILLS = 20


@pytest.fixture(scope="module")
def bids_dir(tmp_path_factory):
    return studies.bids(tmp_path_factory.mktemp("in") / "data", PARTICIPANTS)


@pytest.fixture(scope="module")
def explain(bids_dir, tmp_path_factory):
    """Return a function from a folder to the arguments of the participant level with two workers."""
    models = studies.folds(tmp_path_factory.mktemp("models") / "folds", studies.cohort(bids_dir))
    options = ("--models", models, "--assume-space", "MNI", "--grid", 4, "--engine", "eager", "--n-workers", 2)
    return lambda out: ("cohort", bids_dir, out, "participant", *options)


@pytest.fixture(scope="module")
def undisturbed(explain, tmp_path_factory):
    """Return the folder of an undisturbed run."""
    out = tmp_path_factory.mktemp("out") / "study"
    CommandProcess(*explain(out)).finish()
    return out


def is_killed(run, out, rng, kills):
    """Kill workers, then the command or all processes; return whether that was before the run ended by itself."""
    while sum(kills.values()) < KILLS and run.alive():
        run.changes(out)
        time.sleep(rng.exponential(0.3))
        if not run.alive():
            return False
        victim = ("worker", "client", "all")[rng.integers(3)]
        if victim == "worker":
            kills[victim] += run.kill_worker(rng)
            continue
        getattr(run, f"kill_{victim}")()
        kills[victim] += 1
        return True
    return False


def test_the_participant_level_resumes_after_kills(explain, undisturbed, tmp_path):
    """Kill processes of several studies, each of which is started again until it is complete."""
    rng, kills, study = np.random.default_rng(5), {"worker": 0, "client": 0, "all": 0}, 0
    while sum(kills.values()) < KILLS:
        study += 1
        out = tmp_path / f"study-{study}"
        while is_killed(run := CommandProcess(*explain(out)), out, rng, kills):
            pass
        run.finish()
        assert content(out) == content(undisturbed)
    assert min(kills.values()) >= 3, kills


def test_the_group_level_is_complete_or_absent_after_kills(bids_dir, undisturbed, tmp_path):
    """The folder of the group level is replaced as a whole, also that of an earlier run."""
    rng = np.random.default_rng(6)
    out = shutil.copytree(undisturbed, tmp_path / "study")
    command = ("cohort", bids_dir, out, "group", "--n-perm", 199, "--n-boot", 50)
    CommandProcess(*command).finish()
    complete, folder = content(out / "group"), out / "group"
    for _ in range(4):
        run = CommandProcess(*command)
        if run.changes(out):
            time.sleep(rng.exponential(0.2))
            run.kill_all()
        assert not folder.exists() or content(folder) == complete
    CommandProcess(*command).finish()
    assert content(folder) == complete
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == [".bidsignore"]


@pytest.mark.parametrize("n_workers", [1, 2])
def test_training_resumes_after_kills(tmp_path, n_workers):
    """Finished folds are kept and the others start again; the bundles are the same, bit for bit."""
    rng = np.random.default_rng(7 + n_workers)
    data = folders.derivative(tmp_path / "data", folders.people(12))
    options = ("--folds", 3, "--resolution", 16, "--epochs", 4, "--no-pretrain", "--assume-space", "MNI")

    def train(out):
        factory = ("--factory", "tests.study.folders:small_net", "--n-workers", n_workers)
        return CommandProcess("train", data, out, *options, *factory)

    train(tmp_path / "whole").finish()
    out = tmp_path / "models"
    for kill in range(3):
        run = train(out)
        if run.changes(out):
            time.sleep(rng.exponential(0.4))
            (run.kill_client if kill % 2 else run.kill_all)()
    train(out).finish()
    assert content(out) == content(tmp_path / "whole")
