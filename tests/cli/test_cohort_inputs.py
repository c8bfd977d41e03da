"""A study's inputs by the command line: options reach every participant, and what is wrong with one is one sentence."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from tests.study import folders, studies

GRID = ("--grid", 2, 1, 2)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return studies.bids(tmp_path_factory.mktemp("in") / "data", 4)


@pytest.fixture(scope="module")
def models(source, tmp_path_factory):
    return studies.folds(tmp_path_factory.mktemp("models") / "folds", studies.cohort(source))


@pytest.fixture
def place(source, tmp_path):
    return shutil.copytree(source, tmp_path / "data")


@pytest.fixture
def explain(go, models, tmp_path):
    def command(place, *more):
        given = ("--models", models, "--assume-space", "MNI", *GRID, *more)
        return go("cohort", place, tmp_path / "out", "participant", *given)

    return command


# What is wrong with one participant: a sentence, status 2, and nothing written.


def leads_elsewhere(place):
    folders.write_people(
        place, folders.people(4).assign(participant_id=["sub-01", "sub-../../etc", "sub-03", "sub-04"])
    )


def no_groups(place):
    folders.write_people(place, folders.people(4).drop(columns="group"))


def no_such_column(place):
    folders.write_people(place, folders.people(4).rename(columns={"group": "diagnosis"}))


def two_files(place):
    shutil.copy(folders.scan(place, "sub-02"), folders.scan(place, "sub-02", space="other"))


def other_grid(place):
    folders.save(folders.scan(place, "sub-02"), folders.brain(shape=(16, 20, 18)))


def no_scan(place):
    shutil.rmtree(place / "sub-02")


def no_image(place):
    folders.scan(place, "sub-02").write_text("no image")


def twice_in_the_table(place):
    folders.write_people(place, pd.concat([folders.people(4), folders.people(2)]))


def trained_on(place):
    """The scan of a participant whom the models saw, under a name they never heard."""
    table = folders.people(4)
    folders.write_people(place, table.assign(participant_id=["sub-99", *table["participant_id"][1:]]))
    (place / "sub-01").rename(place / "sub-99")
    folders.scan(place, "sub-99").with_name(folders.scan(place, "sub-01").name).rename(folders.scan(place, "sub-99"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (leads_elsewhere, "a participant_id must be sub- with letters and digits after it, got 'sub-../../etc' in "),
        (no_groups, "participants need a column group, "),
        (no_such_column, "has participant_id, diagnosis, age"),
        (two_files, "got 1 duplicated (sub-02: sub-02_space-MNI_desc-preproc_T1w.nii.gz and sub-02_space-other"),
        (other_grid, "got 1 grid (sub-02: scans must share one grid, its is 16 x 20 x 18 of "),
        (no_scan, "got 1 missing (sub-02)"),
        (no_image, "got 1 unreadable (sub-02: "),
        (twice_in_the_table, "every participant needs one row, sub-01 has two in "),
    ],
)
def test_a_cohort_that_cannot_be_is_refused(explain, place, tmp_path, spoil, message):
    spoil(place)
    status, said, notes = explain(place)
    assert (status, said) == (2, "")
    assert notes.startswith("error: ")
    assert message in notes
    assert notes.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("spoil", [two_files, other_grid, no_scan, no_image])
def test_or_goes_on_without_and_says_so(explain, place, tmp_path, spoil):
    spoil(place)
    status, said, notes = explain(place, "--on-error", "skip")
    assert status == 2
    assert notes.startswith("note: left out: 1 ")
    assert "error: 1 of 4 scans could not be explained, see" in notes
    assert "failed: sub-02: " in said
    failed = pd.read_csv(tmp_path / "out" / "participants_failed.tsv", sep="\t")
    assert failed["participant_id"].tolist() == ["sub-02"]
    assert sorted(p.name for p in (tmp_path / "out").glob("sub-*")) == ["sub-01", "sub-03", "sub-04"]


def test_a_leaked_participant_is_refused_by_name(go, explain, place, models, tmp_path):
    given = ("--model", models / "fold-1", "--assume-space", "MNI", *GRID)
    status, said, notes = go("cohort", place, tmp_path / "out", "participant", *given)
    assert (status, said, notes.count("\n")) == (2, "", 1)
    assert notes.startswith(f"error: the model {models / 'fold-1'} was trained with sub-03: give --in-sample if that")
    assert not (tmp_path / "out").exists()
    trained_on(place)
    status, said, notes = explain(place)
    assert (status, said, notes.count("\n")) == (2, "", 1)
    assert "error: sub-99 cannot be explained: the scan of sub-99 is the file the model " in notes
    assert "was trained with as sub-01: give --in-sample if that is intended; --on-error skip continues" in notes
    assert not list((tmp_path / "out").glob("sub-99/anat"))


# The options.


def settings(tmp_path):
    return json.loads((tmp_path / "out" / "study.json").read_text())["Settings"]


OPTIONS = {
    "recursive": (("--recursive", "--threshold", 0.5, "--max-iterations", 2, "--floor", 0.1, "--stop", 6),
                  {"recursive": {"threshold": 0.5, "stop": 6.0, "max_iterations": 2, "floor": 0.1}}),
    "plainly recursive": (("--recursive",), {"recursive": True}),
    "scales": (("--scales", 0.5, 1), {"scales": [0.5, 1.0]}),
    "versus": (("--versus", "NC"), {"versus": "NC"}),
    "backgrounds": (("--background", 0, "blur"), {"background": [0.0, "blur"]}),
    "background": (("--background", 12.5), {"background": 12.5}),
    "distance": (("--distance", "squared", "--gamma", 0.01), {"distance": "squared", "gamma": 0.01}),
}  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS)
def test_options_reach_everyone(explain, source, tmp_path, option):
    given, expected = OPTIONS[option]
    status, said, notes = explain(source, "--participant-label", "01", "02", *given)
    assert (status, notes) == (0, "")
    assert "2 scans explained" in said
    assert settings(tmp_path) == expected


def test_files_of_their_own_and_of_everyone(explain, place, tmp_path):
    for number in range(1, 5):
        anat = place / f"sub-0{number}" / "anat"
        folders.save(anat / "mask.nii.gz", np.ones(folders.SHAPE, np.float32))
        np.savetxt(anat / "way.txt", np.eye(4))
    folders.save(tmp_path / "dark.nii.gz", folders.brain(seed=7) / 2)
    folders.save(folders.scan(place, "sub-02"), folders.brain(shape=(16, 20, 18)))  # native grids may differ
    folders.save(place / "sub-02" / "anat" / "mask.nii.gz", np.ones((16, 20, 18), np.float32))
    folder = "{participant_id}/anat"
    files = ("--brain-mask", f"{folder}/mask.nii.gz", "--transform", f"{folder}/way.txt")
    status, said, notes = explain(place, *files, "--background", tmp_path / "dark.nii.gz")
    assert (status, notes) == (0, "")
    assert "4 scans explained" in said
    found = settings(tmp_path)
    assert found["transform"] == [f"{folder}/way.txt"]
    assert found["background"].startswith("dark.nii.gz sha256:")
    assert str(tmp_path) not in json.dumps(found)


def test_a_configuration_has_the_same_options(go, source, models, tmp_path):
    path = tmp_path / "study.toml"
    lines = ["[asking]", "grid = [2, 1, 2]", "scales = [0.5, 1]", 'assume-space = "MNI"', 'entity = ["desc=preproc"]']
    path.write_text("\n".join(lines))
    status, _, notes = go(
        *("cohort", source, tmp_path / "out", "participant", "--models", models, "--config", path),
        *("--participant-label", "01"),
    )
    assert (status, notes) == (0, "")
    assert settings(tmp_path) == {"scales": [0.5, 1.0]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--threshold", 0.5), "--threshold is an option of a recursion: give --recursive too"),
        (("--recursive", "--floor", 2), "floor must be a probability below 1"),
        (("--recursive", "--versus", "NC"), "explained in one mode at a time"),
        (("--versus", "FTD"), "must be one of the model's"),
        (("--brain-mask", "nowhere.nii"), "no such file: nowhere.nii"),
        (("--brain-mask", "{participant_id}/nowhere.nii"), "sub-01 cannot be explained: the brain_mask of"),
        (("--inverse", "x.nii"), "inverse holds the inverses of the warps of a transform"),
        (("--model-covariates", "age"), "states no covariates, got age"),
        (("--model-covariates", "iq"), "participants need a column iq"),
        (("--covariate-reference", "age=old"), "--covariate-reference takes name=number"),
        (("--entity", "run"), "entities must be name=value, each name once, got 'run'"),
        (("--entity", "run=3"), "has suffix T1w run 3"),
        (("--space", "none"), "has suffix T1w space none"),
        (("--grid", 1.5), "grid"),
    ],
    ids=str,
)  # fmt: skip
def test_options_that_do_not_fit_end_in_one_line(explain, source, tmp_path, options, message):
    status, said, notes = explain(source, *options)
    assert (status, said) == (2, "")
    assert notes.startswith("error: ")
    assert message in notes
    assert notes.count("\n") == 1
    assert not (tmp_path / "out").exists()
