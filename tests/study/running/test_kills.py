"""kill -9 at random moments: what is there in the end is what an undisturbed run leaves, bit for bit."""

import shutil
import time

import numpy as np
import pytest

from tests.study import folders, studies
from tests.study.running.killed import Run
from tests.study.studies import content

pytestmark = pytest.mark.slow

PARTICIPANTS = 16
KILLS = 20


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return studies.bids(tmp_path_factory.mktemp("in") / "data", PARTICIPANTS)


@pytest.fixture(scope="module")
def explain(scans, tmp_path_factory):
    """The participant level of this study, with two workers, as arguments."""
    models = studies.folds(tmp_path_factory.mktemp("models") / "folds", studies.cohort(scans))
    given = ("--models", models, "--assume-space", "MNI", "--grid", 4, "--engine", "eager", "--n-workers", 2)
    return lambda out: ("cohort", scans, out, "participant", *given)


@pytest.fixture(scope="module")
def undisturbed(explain, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "study"
    Run(*explain(out)).finish()
    return out


def killed(run, out, rng, kills):
    """Kill workers, and at last the client or everything; whether that was so before the run ended by itself."""
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


def test_twenty_kills_of_participants(explain, undisturbed, tmp_path):
    """As many studies as it takes; each is started again and again until it is whole."""
    rng, kills, study = np.random.default_rng(5), {"worker": 0, "client": 0, "all": 0}, 0
    while sum(kills.values()) < KILLS:
        study += 1
        out = tmp_path / f"study-{study}"
        while killed(run := Run(*explain(out)), out, rng, kills):
            pass
        run.finish()
        assert content(out) == content(undisturbed)
    assert min(kills.values()) >= 3, kills


def test_kills_of_the_group_level(scans, undisturbed, tmp_path):
    """The folder is replaced whole, also one of an earlier run."""
    rng = np.random.default_rng(6)
    out = shutil.copytree(undisturbed, tmp_path / "study")
    command = ("cohort", scans, out, "group", "--n-perm", 199, "--n-boot", 50)
    Run(*command).finish()
    whole, folder = content(out / "group"), out / "group"
    for _ in range(4):
        run = Run(*command)
        if run.changes(out):
            time.sleep(rng.exponential(0.2))
            run.kill_all()
        assert not folder.exists() or content(folder) == whole
    Run(*command).finish()
    assert content(folder) == whole
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == [".bidsignore"]


@pytest.mark.parametrize("n_workers", [0, 2])
def test_kills_of_training(tmp_path, n_workers):
    """Folds that are done are kept, the others begin again; bundles are the same, bit for bit."""
    rng = np.random.default_rng(7 + n_workers)
    data = folders.derivative(tmp_path / "data", folders.people(12))
    given = ("--folds", 3, "--resolution", 16, "--epochs", 4, "--no-pretrain", "--assume-space", "MNI")

    def train(out):
        factory = ("--factory", "tests.study.folders:small_net", "--n-workers", n_workers)
        return Run("train", data, out, *given, *factory)

    train(tmp_path / "whole").finish()
    out = tmp_path / "models"
    for kill in range(3):
        run = train(out)
        if run.changes(out):
            time.sleep(rng.exponential(0.4))
            (run.kill_client if kill % 2 else run.kill_all)()
    train(out).finish()
    assert content(out) == content(tmp_path / "whole")
