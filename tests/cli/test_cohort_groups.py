"""``glas3d cohort ... group``: the comparisons, correlations and stability of groups."""

import re

import pandas as pd
import pytest

from glas3d.study.derivatives import read_records
from glas3d.study.group.participants import read_participants, score_matrix
from glas3d.study.running.plan import load_search
from tests.study import folders, studies
from tests.study.made_up import Study

QUICK = ("--n-perm", 49, "--n-boot", 20, "--overwrite")


@pytest.fixture(scope="module")
def bids_dir(tmp_path_factory):
    """Return the folder of a study of twelve participants of three groups and two sites."""
    folder = studies.bids(tmp_path_factory.mktemp("in") / "data", 12, sites=2)
    table = folders.people(12, sites=2)
    table["group"] = ["AD", "MCI", "NC"] * 4
    table["MMSE"] = [20.0, 25, 29, 22, 24, 30, 19, 27, 28, 23, 26, 27]
    folders.write_people(folder, table)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory, few):
    """Return two runs of the study, by different models."""
    folder = tmp_path_factory.mktemp("runs")
    path = studies.atlas(folder / "atlas", few)
    studies_of_seeds = [Study(folder / f"seed{seed}", path, load_search(str(path))) for seed in (1, 2)]
    for seed, study in enumerate(studies_of_seeds):
        for i in range(12):
            study.add(f"sub-{i + 1:02d}", seed=20 * seed + i, model=f"models {seed}", p=0.6)
    return studies_of_seeds


def test_every_option_of_the_group_level_has_results(run_command, bids_dir, runs, tmp_path):
    change = tmp_path / "change.tsv"
    participants = pd.read_csv(bids_dir / "participants.tsv", sep="\t")
    results = list(read_participants(read_records(runs[1].out), participants, "AD", "NC"))
    score_matrix(results).reset_index().to_csv(change, sep="\t", index=False)
    status, output, errors = run_command(
        *("cohort", bids_dir, runs[0].out, "group", *QUICK, "--all-pairs", "--voxelwise", "--tfce"),
        *("--correlate", "MMSE", "age", "--correlation", "spearman", "--volume-change", change),
        *("--other-run", runs[1].out, "--site", "site"),
    )
    notes = ["note: participants can be permuted in 4 ways only, so that no p-value can reach 0.05"]
    assert (status, errors.splitlines()) == (0, notes)  # once, although many tests are made
    for comparison in (
        "AD against MCI",
        "AD against NC",
        "MCI against NC",
        "MMSE in AD",
        "age in NC",
        "volume change in MCI",
    ):
        assert f"{comparison}: " in output
    assert output.count(" (corrected p <= 0.05); ") == 15
    assert output.count(" against ") == 6
    assert re.search(r"MCI against NC: \d+ of \d+ voxels differ \(corrected", output)
    *_, written, last = output.splitlines()
    assert written.endswith("AD 4, MCI 4, NC 4 participants")
    assert last == f"Look at {runs[0].out / 'report.html'}"
    assert (runs[0].out / "report.html").is_file()
    folder = runs[0].out / "group"
    assert len(list(folder.glob("group-*_seg-few_desc-voxels_stat-*_statmap.nii.gz"))) == 12
    assert len(list(folder.glob("group-*_seg-few_desc-runpairs_stability.tsv"))) == 3


def test_three_groups_are_tested_together(run_command, bids_dir, runs):
    status, output, errors = run_command("cohort", bids_dir, runs[0].out, "group", *QUICK, "--omnibus")
    assert (status, errors) == (0, "")
    assert re.search(r"AD against MCI against NC: \d+ of 8 regions differ \(corrected p <= 0.05\)", output)
    assert output.count(" against ") == 5
    assert (runs[0].out / "group" / "group-ADvsMCIvsNC_seg-few_statistics.tsv").is_file()


def test_slopes_over_sessions_are_reported(run_command, few, tmp_path):
    """The time of a session is in sessions.tsv."""
    folder = studies.bids(tmp_path / "data", 8, ("a", "b"))
    study = Study(tmp_path / "out", path := studies.atlas(tmp_path / "atlas", few), load_search(str(path)))
    for i in range(8):
        name = f"sub-{i + 1:02d}"
        (folder / name / f"{name}_sessions.tsv").write_text(f"session_id\tyears\nses-a\t0\nses-b\t{1 + i / 10}\n")
        for k, session in enumerate(("ses-a", "ses-b")):
            study.add(name, session, seed=i, p=0.6, boost=k * (1 - i % 2) * (1 + i / 50))
    status, output, errors = run_command("cohort", folder, study.out, "group", *QUICK, "--slope-over", "years")
    assert status == 0
    assert "note: the signs of 4 participants can be flipped in 8 ways" in errors
    assert "slope over years in AD: 0 of 8 regions change (corrected p <= 0.05)" in output
    assert re.search(r"slope over years, AD against NC: \d of 8 regions differ \(corrected p", output)
    status, output, errors = run_command("cohort", folder, study.out, "group", *QUICK, "--slope-over", "months")
    assert (status, output) == (2, "")
    assert "participants need a column months" in errors


def test_options_of_the_group_level_may_be_in_a_configuration(run_command, bids_dir, runs, tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(
        f'n_perm = 49\nn_boot = 0\n[group]\nall-pairs = true\ncorrelate = ["MMSE"]\nother_run = ["{runs[1].out}"]\n'
    )
    given = ("cohort", bids_dir, runs[0].out, "group", "--config", path)
    assert run_command(*given, "--overwrite")[0] == 0
    status, output, errors = run_command(*given)
    assert (status, errors) == (0, "")
    assert "MMSE in MCI: " in output


def test_results_of_other_options_are_replaced_with_overwrite_alone(run_command, bids_dir, runs):
    given = ("cohort", bids_dir, runs[0].out, "group", *QUICK)
    assert run_command(*given)[0] == 0
    status, output, errors = run_command(*given[:4], "--n-boot", 20, "--seed", 7, "--n-perm", 59)
    assert (status, output) == (2, "")
    folder = runs[0].out / "group"
    expected = f"error: the results in {folder} were made with other --n-perm and seed: move them, or give --overwrite "
    assert errors == f"{expected}to replace them\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tfce",), "tfce is for a voxelwise comparison"),
        (("--voxelwise", "--voxel-mask", "missing.nii.gz"), "missing.nii.gz"),
        (("--correlate", "iq"), "need a column iq"),
        (("--correlate", "site"), "must hold numbers, site of sub-01 is 's0'"),
        (("--correlation", "kendall"), "kendall"),
        (("--volume-change", "missing.tsv"), "no such file: missing.tsv"),
        (("--other-run", "nowhere"), "no results of participants in nowhere"),
        (("--top", "0"), "top must be a percentage"),
    ],
)
def test_every_refusal_is_one_line(error_line, bids_dir, runs, arguments, message):
    before = sorted(runs[1].out.rglob("*"))
    assert message in error_line("cohort", bids_dir, runs[1].out, "group", *QUICK, *arguments)
    assert sorted(runs[1].out.rglob("*")) == before


@pytest.mark.parametrize("level", ["participant", "group"])
def test_a_column_held_fixed_and_correlated_with_is_refused_before_any_work(error_line, bids_dir, tmp_path, level):
    """On the participant level, too, whose scans would take hours before the group level could refuse."""
    arguments = ("--models", tmp_path) if level == "participant" else ()
    line = error_line(
        "cohort", bids_dir, tmp_path / "out", level, *arguments, "--covariates", "age", "--correlate", "age"
    )
    assert "a column cannot be held fixed and correlated with, got age" in line
    assert not (tmp_path / "out").exists()


def test_participants_without_a_covariate_or_site_are_left_out_by_name(run_command, bids_dir, runs, tmp_path):
    table = pd.read_csv(bids_dir / "participants.tsv", sep="\t")
    table["age"], table["site"] = table["age"].astype(object), table["site"].astype(object)
    table.loc[0, "age"], table.loc[5, "site"] = "n/a", "n/a"
    table.to_csv(tmp_path / "gaps.tsv", sep="\t", index=False)
    given = ("cohort", bids_dir, runs[0].out, "group", *QUICK, "--participants-tsv", tmp_path / "gaps.tsv")
    given += ("--covariates", "age", "--site", "site")
    status, output, errors = run_command(*given)
    assert (status, output) == (2, "")
    assert "every participant needs a value of site, these have none: sub-06" in errors
    status, output, errors = run_command(*given, "--on-error", "skip")
    assert status == 0
    assert "without age or site, and left out of the tests: sub-01" in errors
    assert "sub-06" in errors
    sizes = pd.read_csv(runs[0].out / "group" / "group-ADvsNC_seg-few_statistics.tsv", sep="\t")
    assert set(sizes["n_case"]) == {3}


def test_tiny_groups_are_told_the_smallest_p_value(run_command, bids_dir, runs):
    names = [f"{i:02d}" for i in (1, 3, 4, 6, 7, 9)]
    status, _, errors = run_command("cohort", bids_dir, runs[0].out, "group", *QUICK, "--participant-label", *names)
    assert status == 0
    assert "with 3 participants against 3 no two-sided p-value can be below 0.25, so that none can reach 0.05" in errors
