import json
import shutil

import pandas as pd
import pytest

from glas3d.study.derivatives import FAILED
from tests.study import folders, studies
from tests.study.studies import content

GRID = ("--grid", 2, 1, 2)
QUICK = ("--n-perm", 49, "--n-boot", 20)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return studies.bids(tmp_path_factory.mktemp("in") / "data", 8, sites=2)


@pytest.fixture(scope="module")
def models(source, tmp_path_factory):
    return studies.folds(tmp_path_factory.mktemp("models") / "folds", studies.cohort(source))


@pytest.fixture
def explain(go, source, models, tmp_path):
    def command(*more, out="out", data=source):
        return go("cohort", data, tmp_path / out, "participant", "--models", models, "--assume-space", "MNI", *more)

    return command


def test_participants_then_groups(go, explain, source, tmp_path):
    status, said, notes = explain(*GRID)
    assert (status, notes) == (0, "")
    assert said == f"Written to {tmp_path / 'out'}: 8 scans explained\n"
    assert explain(*GRID)[1] == f"Written to {tmp_path / 'out'}: 0 scans explained, 8 kept\n"
    status, said, notes = go(
        "cohort", source, tmp_path / "out", "group", *QUICK, "--covariates", "age", "--site", "site", "--seed", 3
    )
    assert (status, notes) == (0, "")
    assert "The ten highest-scoring regions of AD, 4 participants" in said
    assert "AD against NC: " in said
    assert said.endswith("AD 4, NC 4 participants\n")
    provenance = json.loads((tmp_path / "out" / "group" / "provenance.json").read_text())
    assert (provenance["Covariates"], provenance["Site"], provenance["Seed"]) == (["age"], "site", 3)
    table = pd.read_csv(tmp_path / "out" / "group" / "group-ADvsNC_desc-grid_statistics.tsv", sep="\t")
    assert len(table) == 4


def test_some_participants_first_and_the_others_later(explain, tmp_path):
    assert explain(*GRID, "--participant-label", "01", "sub-04")[0] == 0
    assert sorted(p.name for p in (tmp_path / "out").glob("sub-*")) == ["sub-01", "sub-04"]
    assert "6 scans explained, 2 kept" in explain(*GRID)[1]
    explain(*GRID, out="at once")
    assert content(tmp_path / "out") == content(tmp_path / "at once")


def test_a_configuration_and_what_is_given_beside_it(go, explain, source, tmp_path):
    path = tmp_path / "study.toml"
    lines = ["grid = [2, 1, 2]", "batch_size = 3", 'case = "NC"', 'control = "AD"']
    path.write_text("\n".join([*lines, "[group]", "n-perm = 49", "n_boot = 20", 'covariates = ["age"]']))
    assert explain("--config", path, "--batch-size", 4)[0] == 0
    said = json.loads((tmp_path / "out" / "study.json").read_text())
    assert (said["BatchSize"], said["Search"], said["Target"]) == (4, [2, 1, 2], "NC")
    assert go("cohort", source, tmp_path / "out", "group", "--config", path)[0] == 0
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
def test_a_configuration_that_cannot_be_is_refused(go, source, tmp_path, text, message):
    path = tmp_path / "study.toml"
    path.write_text(text)
    status, said, notes = go("cohort", source, tmp_path / "out", "group", "--config", path)
    assert (status, said) == (2, "")
    assert notes.startswith("error: ")
    assert message in notes
    assert notes.count("\n") == 1


def test_one_model_for_everyone(go, source, models, tmp_path):
    status, _, notes = go(
        *("cohort", source, tmp_path / "out", "participant", "--model", models / "fold-1", *GRID),
        *("--assume-space", "MNI"),
    )
    assert status == 2
    assert notes.startswith(f"error: the model {models / 'fold-1'} was trained with sub-03: give --in-sample if that")
    assert not (tmp_path / "out").exists()
    status, _, notes = go(
        *("cohort", source, tmp_path / "out", "participant", "--model", models / "fold-1", *GRID),
        *("--assume-space", "MNI", "--in-sample"),
    )
    assert (status, notes) == (0, "")
    paths = list((tmp_path / "out").rglob("sub-03/anat/*.json"))
    assert paths
    assert all(json.loads(path.read_text())["InSample"] is True for path in paths)


def test_what_failed_is_listed_and_the_status_says_so(explain, source, tmp_path):
    copy = shutil.copytree(source, tmp_path / "data")
    path = folders.scan(copy, "sub-02")
    path.write_bytes(path.read_bytes()[:-500])
    status, said, notes = explain(*GRID, data=copy)
    assert status == 2
    assert "sub-02 cannot be explained" in notes
    assert "--on-error skip continues" in notes
    status, said, notes = explain(*GRID, "--on-error", "skip", data=copy)
    assert status == 2
    assert "failed: sub-02: a scan must be complete" in said
    assert notes == f"error: 1 of 8 scans could not be explained, see {tmp_path / 'out' / FAILED}\n"
    assert len(list((tmp_path / "out").glob("sub-*/anat"))) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("OUT", "participant"), "need --models DIR or --model M, got none"),
        (("OUT", "participant", "--models", "MODELS", "--model", "x"), "got both"),
        (
            ("OUT", "participant", "--models", "MODELS", "--atlas", "AAL", "--grid", 3),
            "search an atlas, a grid, coordinates or supervoxels, got",
        ),
        (("OUT", "participant", "--models", "BIDS"), "it is not recorded which participants trained the models"),
        (("OUT", "participant", "--model", "nonsense"), "a model must be a shipped name"),
        (("OUT", "participant", "--models", "MODELS", "--participant-label", "../01"), "letters and digits"),
        (("OUT", "participant", "--models", "MODELS", "--participant-label", "99"), "no such participant"),
        (("OUT", "participant", "--models", "MODELS", "--target", "MCI"), "must be one of the model's"),
        (("OUT", "participant", "--models", "MODELS", "--case", "MCI"), "no participant is of group MCI"),
        (("OUT", "participant", "--models", "MODELS", "--n-workers", 0), "n_workers must be"),
        (("OUT", "participant", "--models", "MODELS", "--grid", 0), "error"),
        (("BIDS", "participant", "--models", "MODELS"), "an earlier study's"),
        (("OUT", "somewhere"), "somewhere"),
        (("OUT", "group"), "run the participant level first"),
    ],
)
def test_every_refusal_is_one_line(go, source, models, tmp_path, arguments, message):
    names = {"OUT": tmp_path / "out", "MODELS": models, "BIDS": source}
    status, said, notes = go("cohort", source, *(names.get(one, one) for one in arguments))
    assert (status, said) == (2, "")
    assert notes.startswith("error: ")
    assert message in notes
    assert notes.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_train_then_explain(go, source, tmp_path):
    path = tmp_path / "study.toml"
    path.write_text('assume_space = "MNI"\n[train]\nfolds = 2\nresolution = 16\nepochs = 1\nvalidation = 0\n')
    factory = ("--factory", "tests.study.folders:small_net", "--no-pretrain")
    status, said, notes = go("train", source, tmp_path / "models", "--config", path, *factory)
    assert (status, notes) == (0, "")
    assert "2 folds trained" in said
    assert "balanced_accuracy" in said
    assert "0 folds trained, 2 kept" in go("train", source, tmp_path / "models", "--config", path, *factory)[1]
    status, said, notes = go(
        *("cohort", source, tmp_path / "out", "participant", "--models", tmp_path / "models", *GRID),
        *("--assume-space", "MNI"),
    )
    assert (status, notes) == (0, "")
    assert go("train", source, tmp_path / "models", "--config", path, "--folds", 3)[0] == 2
