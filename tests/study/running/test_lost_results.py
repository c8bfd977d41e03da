"""Results that are lost while a study runs are reported, and a study is known by its records alone."""

import os
import shutil
import sys

import pytest

from glas3d import GlasError
from glas3d.study import explain_cohort
from glas3d.study.derivatives import read_records, read_study
from glas3d.study.running import participant, runner
from tests.study.running.test_runner import ASSUMED

pytestmark = pytest.mark.filterwarnings("ignore:the model does not predict")


@pytest.fixture(scope="module")
def complete(people, models, tmp_path_factory):
    return explain_cohort(people, tmp_path_factory.mktemp("out") / "study", models, **ASSUMED).folder


@pytest.fixture
def study(complete, tmp_path):
    return shutil.copytree(complete, tmp_path / "study")


def after_each(monkeypatch, change):
    """Call ``change(task)`` when a scan was explained."""
    explain = runner.explain_participant

    def explained(plan, task):
        outcome = explain(plan, task)
        change(task)
        return outcome

    monkeypatch.setattr(runner, "explain_participant", explained)


def test_a_folder_that_is_removed_during_the_run_is_no_success(people, models, tmp_path, monkeypatch):
    out = tmp_path / "out"
    after_each(monkeypatch, lambda task: shutil.rmtree(out) if task.participant_id == "sub-03" else None)
    result = explain_cohort(people, out, models, **ASSUMED, on_error="skip")
    assert result.failed["participant_id"].tolist() == ["sub-01", "sub-02", "sub-03"]
    assert set(result.failed["error"].str.replace(r"sub-0\d", "ID", regex=True)) == {
        f"its results in {out / 'ID' / 'anat'} were removed meanwhile"
    }
    assert read_study(out)["Target"] == "AD"
    assert len(read_records(out)) == 3
    with pytest.raises(GlasError, match=r"sub-01 cannot be explained: its results in .* were removed meanwhile"):
        shutil.rmtree(out)
        explain_cohort(people, out, models, **ASSUMED, on_error="fail")


def test_one_lost_file_counts_as_lost_results(people, models, study, monkeypatch):
    after_each(
        monkeypatch,
        lambda task: next(study.glob("sub-02/**/*_regions.tsv")).unlink() if task.participant_id == "sub-06" else None,
    )
    result = explain_cohort(people, study, models, **ASSUMED, on_error="skip")
    assert result.failed["participant_id"].tolist() == ["sub-02"]
    assert result.count("kept") == 5


def test_a_study_without_its_study_json_goes_on_and_has_it_again(people, models, study, complete):
    for name in ("study.json", "dataset_description.json", ".bidsignore"):  # a purge takes what is oldest
        (study / name).unlink()
    assert len(read_records(study)) == 6
    with pytest.raises(GlasError, match="made with other search and settings"):
        explain_cohort(people, study, models, **{**ASSUMED, "search": (2, 2, 2), "sigma_light": 3})
    result = explain_cohort(people, study, models, **ASSUMED)
    assert result.count("kept") == 6
    assert (study / "study.json").read_bytes() == (complete / "study.json").read_bytes()


def test_another_study_in_the_same_folder_is_noticed(people, models, study, monkeypatch):
    def other(task):
        path = study / "study.json"
        path.write_text(path.read_text().replace('"Target": "AD"', '"Target": "NC"'))

    after_each(monkeypatch, other)
    with pytest.raises(
        GlasError, match=r"another run with other target wrote to .* meanwhile: give each study its own"
    ):
        explain_cohort(people, study, models, **ASSUMED)


@pytest.mark.parametrize("leave", [lambda: sys.exit(0), lambda: (_ for _ in ()).throw(GeneratorExit)])
def test_code_that_ends_the_program_is_a_failure_of_its_scan(people, models, tmp_path, monkeypatch, leave):
    """Zero is no success."""
    average = participant.ScanExplanation.save

    def leaves(self, folder, **options):
        if self.stem.startswith("sub-02"):
            leave()
        return average(self, folder, **options)

    monkeypatch.setattr(participant.ScanExplanation, "save", leaves)
    result = explain_cohort(people, tmp_path / "out", models, **ASSUMED, on_error="skip")
    assert result.failed["participant_id"].tolist() == ["sub-02"]
    assert "\n" not in result.failed["error"][0]
    assert result.count("explained") == 5


@pytest.mark.skipif(os.name == "nt", reason="links are POSIX's")
def test_a_participant_s_folder_that_is_a_link_is_not_followed(people, models, tmp_path):
    out, outside = tmp_path / "out", tmp_path / "outside"
    outside.mkdir()
    out.mkdir()
    (out / "study.json").write_text("{}")
    (out / "sub-02").symlink_to(outside)
    with pytest.raises(GlasError, match=r"must not be a link, .*sub-02 leads to "):
        explain_cohort(people, out, models, **ASSUMED)
    assert list(outside.iterdir()) == []
