"""``glas3d cohort``: the participant level, the group level and their configuration, after ``glas3d train``."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from glas3d.study.derivatives import FAILED
from tests.study import folders, studies
from tests.study.studies import content

GRID = ("--grid", 2, 1, 2)
QUICK = ("--n-perm", 49, "--n-boot", 20, "--overwrite")


@pytest.fixture(scope="module")
def bids_dir(tmp_path_factory):
    """Return the folder of a study of eight participants of two sites."""
    return studies.bids(tmp_path_factory.mktemp("in") / "data", 8, sites=2)


@pytest.fixture
def explain(run_command, bids_dir, models, tmp_path):
    """Return a function that runs the participant level."""

    def run(*more, out="out", data=bids_dir):
        return run_command(
            "cohort", data, tmp_path / out, "participant", "--models", models, "--assume-space", "MNI", *more
        )

    return run


def test_the_group_level_follows_the_participant_level(run_command, explain, bids_dir, tmp_path):
    status, output, errors = explain(*GRID)
    assert (status, errors) == (0, "")
    rest = "other groups: none; left out: 0; in all: 8, of 8 participants in the table\n"
    written = f"Written to {tmp_path / 'out'}"
    assert output == f"{written}: 8 scans explained\nScans explained: AD 4, NC 4; finished: 0; {rest}"
    assert explain(*GRID)[1] == f"{written}: 0 scans explained, 8 kept\nScans explained: none; finished: 8; {rest}"
    status, output, errors = run_command(
        "cohort", bids_dir, tmp_path / "out", "group", *QUICK, "--covariates", "age", "--site", "site", "--seed", 3
    )
    assert status == 0
    assert "tests within 2 folds of groups so small give no corrected p-value below 1" in errors
    assert "The ten highest-scoring search points of AD, 4 participants" in output
    assert "AD against NC: " in output
    assert "AD 4, NC 4 participants\n" in output
    assert output.endswith(f"Look at {tmp_path / 'out' / 'report.html'}\n")
    provenance = json.loads((tmp_path / "out" / "group" / "provenance.json").read_text())
    assert (provenance["Covariates"], provenance["Site"], provenance["Seed"]) == (["age"], "site", 3)
    table = pd.read_csv(tmp_path / "out" / "group" / "group-ADvsNC_desc-grid_statistics.tsv", sep="\t")
    assert len(table) == 4


def test_participants_explained_in_two_runs_have_the_same_files(explain, tmp_path):
    assert explain(*GRID, "--participant-label", "01", "sub-04")[0] == 0
    assert sorted(p.name for p in (tmp_path / "out").glob("sub-*")) == ["sub-01", "sub-04"]
    assert "6 scans explained, 2 kept" in explain(*GRID)[1]
    explain(*GRID, out="at once")
    assert content(tmp_path / "out") == content(tmp_path / "at once")


def test_options_of_the_command_line_come_before_a_configuration(run_command, explain, bids_dir, tmp_path):
    path = tmp_path / "study.toml"
    lines = ["grid = [2, 1, 2]", "batch_size = 3", 'case = "NC"', 'control = "AD"']
    path.write_text("\n".join([*lines, "[group]", "n-perm = 49", "n_boot = 20", 'covariates = ["age"]']))
    assert explain("--config", path, "--batch-size", 4)[0] == 0
    study = json.loads((tmp_path / "out" / "study.json").read_text())
    assert (study["BatchSize"], study["Search"], study["Target"]) == (4, [2, 1, 2], "NC")
    assert run_command("cohort", bids_dir, tmp_path / "out", "group", "--config", path)[0] == 0
    provenance = json.loads((tmp_path / "out" / "group" / "provenance.json").read_text())
    assert (provenance["Case"], provenance["Permutations"], provenance["Covariates"]) == ("NC", 49, ["age"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n_prem = 10", "did you mean n_perm"),
        ('n_perm = "many"', "many"),
        ("n_perm = ", "must be TOML"),
        ('on_error = "hope"', "hope"),
        ("n_perm = 20\nn-perm = 30", "gives n_perm twice"),
        ('config = "other.toml"', "unknown options: config"),
    ],
)
def test_a_configuration_with_a_mistake_is_refused(error_line, bids_dir, tmp_path, text, message):
    path = tmp_path / "study.toml"
    path.write_text(text)
    assert message in error_line("cohort", bids_dir, tmp_path / "out", "group", "--config", path)


def test_one_model_explains_its_own_training_participants_only_when_allowed(run_command, bids_dir, models, tmp_path):
    status, _, errors = run_command(
        *("cohort", bids_dir, tmp_path / "out", "participant", "--model", models / "fold-1", *GRID),
        *("--assume-space", "MNI"),
    )
    assert status == 2
    assert errors.startswith(f"error: the model {models / 'fold-1'} was trained with sub-03: set --in-sample if that")
    assert not (tmp_path / "out").exists()
    status, _, errors = run_command(
        *("cohort", bids_dir, tmp_path / "out", "participant", "--model", models / "fold-1", *GRID),
        *("--assume-space", "MNI", "--in-sample"),
    )
    assert (status, errors) == (0, "")
    paths = list((tmp_path / "out").rglob("sub-03/anat/*.json"))
    assert paths
    assert all(json.loads(path.read_text())["InSample"] is True for path in paths)


def test_failed_scans_are_listed_and_set_the_exit_status(explain, bids_dir, tmp_path):
    copy = shutil.copytree(bids_dir, tmp_path / "data")
    path = folders.scan(copy, "sub-02")
    path.write_bytes(path.read_bytes()[:-500])
    status, output, errors = explain(*GRID, data=copy)
    assert status == 2
    assert "sub-02 cannot be explained" in errors
    assert "--on-error skip continues" in errors
    status, output, errors = explain(*GRID, "--on-error", "skip", data=copy)
    assert status == 2
    assert "failed: sub-02: a scan must be complete" in output
    assert errors == f"error: 1 of 8 scans could not be explained, see {tmp_path / 'out' / FAILED}\n"
    assert len(list((tmp_path / "out").glob("sub-*/anat"))) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("OUT", "participant"), "give --models DIR (from glas3d train) or --model M"),
        (("OUT", "participant", "--models", "MODELS", "--model", "x"), "got both"),
        (
            ("OUT", "participant", "--models", "MODELS", "--atlas", "AAL", "--grid", 3),
            "search an atlas, a grid, coordinates or supervoxels, got",
        ),
        (("OUT", "participant", "--models", "BIDS"), "contains no folds from glas3d train"),
        (("OUT", "participant", "--model", "nonsense"), "a model must be a shipped name"),
        (("OUT", "participant", "--models", "MODELS", "--participant-label", "../01"), "letters and digits"),
        (("OUT", "participant", "--models", "MODELS", "--participant-label", "99"), "no such participant"),
        (("OUT", "participant", "--models", "MODELS", "--target", "MCI"), "must be one of the model's"),
        (("OUT", "participant", "--models", "MODELS", "--case", "MCI"), "no participant is of group MCI"),
        (("OUT", "participant", "--models", "MODELS", "--n-workers", 0), "--n-workers must be"),
        (("OUT", "participant", "--models", "MODELS", "--grid", 0), "error"),
        (("BIDS", "participant", "--models", "MODELS"), "an earlier study's"),
        (("OUT", "somewhere"), "somewhere"),
        (("OUT", "group"), "run the participant level first"),
    ],
)
def test_every_refusal_is_one_line(error_line, bids_dir, models, tmp_path, arguments, message):
    paths = {"OUT": tmp_path / "out", "MODELS": models, "BIDS": bids_dir}
    assert message in error_line("cohort", bids_dir, *(paths.get(argument, argument) for argument in arguments))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_trained_models_explain_the_participants(run_command, bids_dir, tmp_path):
    path = tmp_path / "study.toml"
    path.write_text('assume_space = "MNI"\n[train]\nfolds = 2\nresolution = 16\nepochs = 1\nvalidation = 0\n')
    factory = ("--factory", "tests.study.folders:small_net", "--no-pretrain")
    status, output, errors = run_command("train", bids_dir, tmp_path / "models", "--config", path, *factory)
    assert status == 0
    # after one epoch on a few scans the models may be at chance, which a note says
    assert all("not better than chance" in line for line in errors.splitlines())
    assert "2 folds trained" in output
    assert "balanced_accuracy" in output
    (auc,) = [line.split() for line in output.splitlines() if line.startswith("auc ")]
    over_folds, together = (pd.read_csv(tmp_path / "models" / f"{n}.tsv", sep="\t") for n in ("summary", "pooled"))
    shown = over_folds.set_index("metric")["mean"]["auc"], together.set_index("metric")["value"]["auc"]
    assert (auc[1], auc[5]) == (f"{shown[0]:.3f}", f"{shown[1]:.3f}"), "each under its title"
    assert re.search(r"metric +mean over 2 folds +all \d+ participants together", output)
    assert (
        "0 folds trained, 2 kept" in run_command("train", bids_dir, tmp_path / "models", "--config", path, *factory)[1]
    )
    status, output, errors = run_command(
        *("cohort", bids_dir, tmp_path / "out", "participant", "--models", tmp_path / "models", *GRID),
        *("--assume-space", "MNI", "--trust"),
    )
    assert status == 0
    notes = (
        "the model does not predict AD",
        "the output is saturated",
        "the masks of the grid leave most of the brain",
    )
    assert [line for line in errors.splitlines() if not any(note in line for note in notes)] == []
    assert run_command("train", bids_dir, tmp_path / "models", "--config", path, "--folds", 3)[0] == 2


@pytest.mark.filterwarnings("ignore:the model does not predict")
def test_a_study_of_evidence(run_command, explain, bids_dir, few_path, tmp_path):
    options = ("--atlas", few_path, "--preset", "evidence", "--sigma-light", 1, "--sigma-shadow", 1, "--unit", "mm")
    status, output, _ = explain(*options)
    assert (status, "8 scans explained" in output) == (0, True)
    out = tmp_path / "out"
    assert json.loads((out / "study.json").read_text())["Settings"]["preset"] == "evidence"
    evidence, effects = [], []
    for participant in (f"sub-{number:02d}" for number in range(1, 9)):
        record = json.loads(next(out.glob(f"{participant}/**/*_record.json")).read_text())
        assert record["Method"]["Settings"]["link"] == "logit"
        if participant in _cases(bids_dir):
            table = pd.read_csv(next(out.glob(f"{participant}/**/*_regions.tsv")), sep="\t", na_values="n/a")
            evidence.append(table["evidence"].to_numpy())
            effects.append(record["Account"]["effect"])
    status, output, _ = run_command("cohort", bids_dir, out, "group", *QUICK)
    assert status == 0
    table = pd.read_csv(out / "group" / "group-AD_seg-few_regions.tsv", sep="\t", na_values="n/a")
    mean = np.mean(evidence, axis=0)
    np.testing.assert_allclose(table["score"], mean / np.nanmax(np.abs(mean)), rtol=1e-6)
    sidecar = json.loads((out / "group" / "group-AD_seg-few_regions.json").read_text())
    assert sidecar["Account"]["effect"] == pytest.approx(np.mean(effects))
    if sidecar["Account"]["accounted"] is not None:
        assert sidecar["Account"]["accounted"] == pytest.approx(np.nansum(evidence) / np.sum(effects))


def _cases(bids_dir):
    table = pd.read_csv(bids_dir / "participants.tsv", sep="\t")
    return table.loc[table["group"] == "AD", "participant_id"].tolist()
