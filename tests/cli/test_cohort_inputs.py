"""Inputs of ``glas3d cohort``: options reach every participant, and a mistake ends in one sentence."""

import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from tests.study import folders, studies

GRID = ("--grid", 2, 1, 2)


@pytest.fixture(scope="module")
def bids_dir(tmp_path_factory):
    """Return the folder of a study of four participants."""
    return studies.bids(tmp_path_factory.mktemp("in") / "data", 4)


@pytest.fixture
def bids_copy(bids_dir, tmp_path):
    """Return the folder of a copy of the study, which a test may change."""
    return shutil.copytree(bids_dir, tmp_path / "data")


@pytest.fixture
def explain(run_command, models, tmp_path):
    """Return a function that runs the participant level."""

    def run(folder, *more):
        options = ("--models", models, "--assume-space", "MNI", *GRID, *more)
        return run_command("cohort", folder, tmp_path / "out", "participant", *options)

    return run


# Damage to the study that the command must refuse in one sentence, with nothing written


def id_with_a_path(folder):
    folders.write_people(
        folder, folders.people(4).assign(participant_id=["sub-01", "sub-../../etc", "sub-03", "sub-04"])
    )


def no_group_column(folder):
    folders.write_people(folder, folders.people(4).drop(columns="group"))


def group_column_of_another_name(folder):
    folders.write_people(folder, folders.people(4).rename(columns={"group": "diagnosis"}))


def two_scans(folder):
    shutil.copy(folders.scan(folder, "sub-02"), folders.scan(folder, "sub-02", space="other"))


def other_grid(folder):
    folders.save(folders.scan(folder, "sub-02"), folders.brain(shape=(16, 20, 18)))


def no_scan(folder):
    shutil.rmtree(folder / "sub-02")


def damaged_scan(folder):
    folders.scan(folder, "sub-02").write_text("no image")


def participant_in_two_rows(folder):
    folders.write_people(folder, pd.concat([folders.people(4), folders.people(2)]))


def rename_a_training_participant(folder):
    """Give a scan that trained a model to a participant of another id."""
    table = folders.people(4)
    folders.write_people(folder, table.assign(participant_id=["sub-99", *table["participant_id"][1:]]))
    (folder / "sub-01").rename(folder / "sub-99")
    folders.scan(folder, "sub-99").with_name(folders.scan(folder, "sub-01").name).rename(folders.scan(folder, "sub-99"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (id_with_a_path, "a participant_id must be sub- with letters and digits after it, got 'sub-../../etc' in "),
        (no_group_column, "participants need a column group, "),
        (group_column_of_another_name, "has participant_id, diagnosis, age"),
        (
            two_scans,
            "got 1 duplicated (sub-02: sub-02/anat/sub-02_space-MNI_desc-preproc_T1w.nii.gz and sub-02/anat/sub-02_",
        ),
        (other_grid, "got 1 grid (sub-02: scans must share one grid, its is 16 x 20 x 18 of "),
        (no_scan, "got 1 missing (sub-02)"),
        (damaged_scan, "got 1 unreadable (sub-02: "),
        (participant_in_two_rows, "every participant needs one row, sub-01 has two in "),
    ],
)
def test_a_damaged_study_is_refused(explain, bids_copy, tmp_path, damage, message):
    damage(bids_copy)
    status, output, errors = explain(bids_copy)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert errors.startswith("error: ")
    assert message in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", [two_scans, other_grid, no_scan, damaged_scan])
def test_a_damaged_scan_can_be_skipped_and_is_listed(explain, bids_copy, tmp_path, damage):
    damage(bids_copy)
    status, output, errors = explain(bids_copy, "--on-error", "skip")
    assert status == 2
    assert errors.startswith("note: left out: 1 ")
    assert "error: 1 of 4 scans could not be explained, see" in errors
    assert "failed: sub-02: " in output
    failed = pd.read_csv(tmp_path / "out" / "participants_failed.tsv", sep="\t")
    assert failed["participant_id"].tolist() == ["sub-02"]
    assert sorted(p.name for p in (tmp_path / "out").glob("sub-*")) == ["sub-01", "sub-03", "sub-04"]


def test_a_training_participant_is_refused_by_id_or_by_file(run_command, explain, bids_copy, models, tmp_path):
    options = ("--model", models / "fold-1", "--assume-space", "MNI", *GRID)
    status, output, errors = run_command("cohort", bids_copy, tmp_path / "out", "participant", *options)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert errors.startswith(f"error: the model {models / 'fold-1'} was trained with sub-03: set --in-sample if that")
    assert not (tmp_path / "out").exists()
    rename_a_training_participant(bids_copy)
    status, output, errors = explain(bids_copy)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert "error: sub-99 cannot be explained: the scan of sub-99 is the file the model " in errors
    assert "was trained with as sub-01: set --in-sample if that is intended; --on-error skip continues" in errors
    assert not list((tmp_path / "out").glob("sub-99/anat"))


# Options of the participant level


def recorded_settings(tmp_path):
    """Return the settings that the study recorded."""
    return json.loads((tmp_path / "out" / "study.json").read_text())["Settings"]


OPTIONS = {
    "recursive": (("--recursive", "--threshold", 0.5, "--max-iterations", 2, "--floor", 0.1, "--stop", 6),
                  {"recursive": {"threshold": 0.5, "stop": 6.0, "max_iterations": 2, "floor": 0.1}}),
    "recursive with defaults": (("--recursive",), {"recursive": True}),
    "scales": (("--scales", 0.5, 1), {"scales": [0.5, 1.0]}),
    "versus": (("--versus", "NC"), {"versus": "NC"}),
    "backgrounds": (("--background", 0, "blur"), {"background": [0.0, "blur"]}),
    "background": (("--background", 12.5), {"background": 12.5}),
    "distance": (("--distance", "squared", "--gamma", 0.01), {"distance": "squared", "gamma": 0.01}),
}  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS)
def test_options_are_recorded_for_all_participants(explain, bids_dir, tmp_path, option):
    arguments, expected = OPTIONS[option]
    status, output, errors = explain(bids_dir, "--participant-label", "01", "02", *arguments)
    notes = "note: the consensus has backgrounds that cannot show evidence for AD: 2 of 2 scans\n"
    assert (status, errors) == (0, notes if option == "backgrounds" else "")
    assert "2 scans explained" in output
    assert recorded_settings(tmp_path) == expected


def test_files_of_each_participant_and_of_all_participants(explain, bids_copy, tmp_path):
    for number in range(1, 5):
        anat = bids_copy / f"sub-0{number}" / "anat"
        folders.save(anat / "mask.nii.gz", np.ones(folders.SHAPE, np.float32))
        np.savetxt(anat / "matrix.txt", np.eye(4))
    folders.save(tmp_path / "dark.nii.gz", folders.brain(seed=7) / 2)
    folders.save(folders.scan(bids_copy, "sub-02"), folders.brain(shape=(16, 20, 18)))  # native grids may differ
    folders.save(bids_copy / "sub-02" / "anat" / "mask.nii.gz", np.ones((16, 20, 18), np.float32))
    folder = "{participant_id}/anat"
    files = ("--brain-mask", f"{folder}/mask.nii.gz", "--transform", f"{folder}/matrix.txt")
    status, output, errors = explain(bids_copy, *files, "--background", tmp_path / "dark.nii.gz")
    assert (status, errors) == (0, "")
    assert "4 scans explained" in output
    recorded = recorded_settings(tmp_path)
    assert recorded["transform"] == [f"{folder}/matrix.txt"]
    assert recorded["background"].startswith("dark.nii.gz sha256:")
    assert str(tmp_path) not in json.dumps(recorded)


def test_parcellations_of_each_participant_at_both_levels(run_command, bids_copy, models, few, tmp_path):
    for number in range(1, 5):
        studies.atlas(bids_copy / f"sub-0{number}" / "anat", few)
    pattern = "{participant_id}/anat/atlas-few_dseg.nii.gz"
    start = ("cohort", bids_copy, tmp_path / "out")
    explaining = ("participant", "--models", models, "--atlas", pattern, "--assume-space", "MNI")
    assert run_command(*start, *explaining)[0] == 0
    status, output, _ = run_command(*start, "group", "--atlas", pattern, "--n-perm", 19, "--n-boot", 0)
    assert status == 0
    assert "The ten highest-scoring regions of AD, 2 participants" in output
    sidecar = json.loads((tmp_path / "out" / "group" / "group-AD_seg-few_regions.json").read_text())
    assert sidecar["Search"] == {"atlas": "few", "parcellations": pattern}
    assert sidecar["n_participants"]["Units"] == "count"
    assert sidecar["x"]["Description"].startswith("Mean over participants that have the region of")


def test_a_configuration_takes_the_same_options(run_command, bids_dir, models, tmp_path):
    path = tmp_path / "study.toml"
    lines = ["[explain]", "grid = [2, 1, 2]", "scales = [0.5, 1]", 'assume-space = "MNI"', 'entity = ["desc=preproc"]']
    path.write_text("\n".join(lines))
    status, _, errors = run_command(
        *("cohort", bids_dir, tmp_path / "out", "participant", "--models", models, "--config", path),
        *("--participant-label", "01"),
    )
    assert (status, errors) == (0, "")
    assert recorded_settings(tmp_path) == {"scales": [0.5, 1.0]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--threshold", 0.5), "--threshold is an option of a recursion: give --recursive too"),
        (("--recursive", "--floor", 2), "floor must be a probability below 1"),
        (("--recursive", "--versus", "NC"), "explained in one mode at a time"),
        (("--versus", "FTD"), "must be one of the model's"),
        (("--brain-mask", "nowhere.nii"), "no such file: nowhere.nii"),
        (("--brain-mask", "{participant_id}/nowhere.nii"), "sub-01 cannot be explained: the --brain-mask of"),
        (("--inverse", "x.nii"), "inverse holds the inverses of the warps of a transform"),
        (("--model-covariates", "age"), "takes no covariates, got age"),
        (("--model-covariates", "iq"), "participants need a column iq"),
        (("--covariate-reference", "age=old"), "--covariate-reference takes name=number"),
        (("--entity", "run"), "--entity must be name=value, each name once, got 'run'"),
        (("--entity", "run=3"), "has suffix T1w run 3"),
        (("--space", "none"), "has suffix T1w space none"),
        (("--grid", 1.5), "grid"),
    ],
    ids=str,
)  # fmt: skip
def test_options_that_do_not_fit_end_in_one_line(explain, bids_dir, tmp_path, options, message):
    status, output, errors = explain(bids_dir, *options)
    assert (status, output) == (2, "")
    assert errors.startswith("error: ")
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_scans_on_several_grids_are_explained_and_summarised(run_command, explain, bids_copy, tmp_path):
    """One scan has other directions of its axes, and one lies elsewhere; the group level follows."""
    path = folders.scan(bids_copy, "sub-02")
    img = nib.load(path)
    img.as_reoriented([[0, -1], [2, 1], [1, 1]]).to_filename(path)
    assert "got 1 grid (sub-02: " in explain(bids_copy)[2]
    status, output, errors = explain(bids_copy, "--any-grid")
    assert (status, errors) == (0, "")
    group = ("cohort", bids_copy, tmp_path / "out", "group", "--any-grid", "--n-perm", 49, "--n-boot", 20)
    status, output, errors = run_command(*group)
    assert status == 0
    assert "voxel grids" not in errors
    assert "AD 2, NC 2 participants\n" in output
    path = folders.scan(bids_copy, "sub-03")
    values = np.asarray(nib.load(path).dataobj)
    folders.save(path, values, folders.AFFINE + np.array([[0, 0, 0, 4.0]] + [[0.0] * 4] * 3))
    assert explain(bids_copy, "--any-grid")[0] == 0
    status, output, errors = run_command(*group)
    assert status == 0
    assert "note: maps lie on 3 different voxel grids, they are resampled to the template's of 2 mm\n" in errors
