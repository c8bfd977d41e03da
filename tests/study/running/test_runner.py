"""`explain_cohort`: results, resuming, the models that explain each participant, and participants that fail."""

import gzip
import itertools
import json
import os
import shutil
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from glas3d import GlasError
from glas3d.errors import GlasWarning
from glas3d.explain import COLUMNS, EVIDENCE, explain_img
from glas3d.predict import load_model
from glas3d.study.derivatives import FAILED
from glas3d.study.running import participant as participant_level
from glas3d.study.running.forecast import estimate_cohort
from glas3d.study.running.runner import explain_cohort
from tests.study import folders, studies
from tests.study.studies import SEARCH, content
from tests.validator import validate

ASSUMED = {"search": SEARCH, "assume_space": "MNI"}


@pytest.fixture(scope="module")
def complete(people, models, tmp_path_factory):
    """Return the result of an undisturbed run, and its progress."""
    out = tmp_path_factory.mktemp("out") / "study"
    steps = []
    result = explain_cohort(people, out, models, **ASSUMED, progress=lambda done, total: steps.append((done, total)))
    return result, steps


@pytest.fixture
def earlier(complete, tmp_path):
    """Return the folder of a copy of the undisturbed run, which a test may damage or resume."""
    return shutil.copytree(complete[0].folder, tmp_path / "study")


def test_all_participants_are_explained(complete, people):
    result, steps = complete
    assert result.outcomes["participant_id"].tolist() == [f"sub-0{i}" for i in range(1, 7)]
    assert set(result.outcomes["status"]) == {"explained"}
    assert steps == [(i, 6) for i in range(7)]
    assert sorted(p.name for p in result.folder.iterdir()) == sorted(
        [".bidsignore", "dataset_description.json", "hashes.json", "study.json", *people.table["participant_id"]]
    )


def test_participants_are_explained_by_the_fold_not_trained_on_them(
    complete, people, models, read_regions, read_sidecar
):
    """The scores are those of `explain_img` with the model of that fold."""
    out = complete[0].folder
    for number, row in enumerate(people.table.to_dict("records")):
        fold = number // 2 % 2 + 1
        sidecar = read_sidecar(out, row["participant_id"])
        assert (sidecar["InSample"], sidecar["Folds"]) == (False, [fold])
        assert sidecar["Model"]["name"] == f"AD-NC-fold-{fold}"
        predict = load_model(models / f"fold-{fold}", device="cpu")
        alone = explain_img(row["path"], predict, "AD", participant_level.load_search(SEARCH), assume_space="MNI")
        regions = read_regions(out, row["participant_id"], index=None)
        assert regions.columns.tolist() == [*COLUMNS, *EVIDENCE]
        np.testing.assert_allclose(regions["score"], alone.table["score"], rtol=0, atol=1e-6)


def test_the_folder_is_a_valid_bids_derivative(complete):
    assert validate(complete[0].folder)[0] == []
    description = json.loads((complete[0].folder / "dataset_description.json").read_text())
    assert description["GeneratedBy"][0]["Name"] == "glas3d"


def test_the_validator_refuses_an_unknown_file(earlier):
    """The files that BIDS does not define yet are listed in ``.bidsignore``; others are refused."""
    (earlier / "sub-01" / "anat" / "sub-01_odd.nii.gz").write_bytes(b"")
    assert validate(earlier)[0]


def test_no_path_of_this_machine_is_written(complete, people, models):
    for path in complete[0].folder.rglob("*.json"):
        text = path.read_text()
        assert str(models.parent) not in text
        assert str(people.root.parent) not in text


def test_scans_whose_target_is_not_predicted_are_counted(complete, people, models, read_sidecar, tmp_path):
    """The note is in each participant's sidecars, and is counted again for results that are kept."""
    assert complete[0].notes == ()
    out = tmp_path / "study"
    result = explain_cohort(people, out, models, target="NC", **ASSUMED)
    for name in people.table["participant_id"]:
        sidecar = read_sidecar(out, name)
        (note,) = sidecar["Notes"]
        assert note.startswith(f"the model does not predict NC: P(NC) = {sidecar['Probability']:.3g}, P(AD) = ")
    assert result.notes == ("the model does not predict NC: 6 of 6 scans",)
    assert explain_cohort(people, out, models, target="NC", **ASSUMED).notes == result.notes


def test_a_second_run_has_the_same_bytes(complete, people, models, tmp_path):
    explain_cohort(people, tmp_path / "again", models, **ASSUMED)
    assert content(tmp_path / "again") == content(complete[0].folder)


def test_finished_results_are_kept(earlier, people, models):
    before = {p: p.stat().st_mtime_ns for p in earlier.rglob("sub-*/anat/*")}
    result = explain_cohort(people, earlier, models, **ASSUMED)
    assert result.count("kept") == 6
    assert {p: p.stat().st_mtime_ns for p in earlier.rglob("sub-*/anat/*")} == before


def test_folders_that_a_killed_run_left_are_removed(complete, earlier, people, models):
    for name in (".anat-old", ".anat-new"):
        (earlier / "sub-03" / name).mkdir()
        (earlier / "sub-03" / name / "half.nii.gz").write_text("half")
    assert explain_cohort(people, earlier, models, **ASSUMED).count("kept") == 6
    assert content(earlier) == content(complete[0].folder)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"sigma_light": 30.0, "unit": "mm"}, "settings"),
        ({"target": "NC"}, "target"),
        ({"search": (2, 2, 2)}, "search"),
        ({"search": (2, 2, 2), "fusion": "light"}, "search and settings"),
    ],
    ids=lambda change: next(iter(change)),
)
def test_results_of_another_study_are_replaced_only_on_demand(earlier, people, models, change, what, monkeypatch):
    """They are refused before a model is evaluated, also by an estimate and for some of the participants."""
    before = content(earlier)
    one = studies.cohort(people.root, participant_label="02")
    with monkeypatch.context() as patched:
        patched.setattr("glas3d.core.glas.GLAS.explain", lambda *arguments, **settings: pytest.fail("evaluated"))
        for cohort, run in ((people, explain_cohort), (one, explain_cohort), (people, estimate_cohort)):
            with pytest.raises(GlasError, match=f"the results in {earlier} were made with other {what}: .*--overwrite"):
                run(cohort, earlier, models, **ASSUMED | change)
    assert content(earlier) == before
    result = explain_cohort(people, earlier, models, **ASSUMED | change, overwrite=True)
    assert result.count("explained") == 6
    assert result.outcomes["error"].tolist() == [""] * 6
    assert explain_cohort(people, earlier, models, **ASSUMED | change).count("kept") == 6


def test_a_study_without_results_may_be_started_with_other_settings(earlier, people, models):
    """As after a first run in which nobody could be explained."""
    for folder in earlier.glob("sub-*"):
        shutil.rmtree(folder)
    assert explain_cohort(people, earlier, models, **ASSUMED, sigma_light=3.0).count("explained") == 6


def test_a_check_of_the_space_is_no_other_study(earlier, people, models, monkeypatch):
    monkeypatch.setattr("glas3d.imaging.space.SpaceCheck.problem", None)  # the scans are not brains
    assert explain_cohort(people, earlier, models, **ASSUMED | {"assume_space": None}).count("explained") == 6


def test_results_of_other_models_are_replaced_only_on_demand(earlier, people, tmp_path):
    other = studies.folds(tmp_path / "folds", people, seed=1)
    with pytest.raises(GlasError, match="made with other models: "):
        explain_cohort(people, earlier, other, **ASSUMED)
    assert explain_cohort(people, earlier, other, **ASSUMED, overwrite=True).count("explained") == 6


def test_a_changed_scan_is_explained_again(earlier, six, models, tmp_path):
    copy = shutil.copytree(six, tmp_path / "data")
    folders.save(folders.scan(copy, "sub-03"), folders.brain("AD", 99))
    result = explain_cohort(studies.cohort(copy), earlier, models, **ASSUMED)
    assert result.outcomes.set_index("participant_id")["status"].to_dict() == {
        f"sub-0{i}": "explained" if i == 3 else "kept" for i in range(1, 7)
    }


def test_results_of_other_versions_are_replaced(earlier, people, models, monkeypatch):
    monkeypatch.setattr("glas3d.study.environment.__version__", "9.9.9")
    assert explain_cohort(people, earlier, models, **ASSUMED).count("explained") == 6


def test_a_worker_of_another_version_changes_no_results(complete, earlier, people, models, monkeypatch):
    shutil.rmtree(earlier / "sub-02")
    with monkeypatch.context() as patch:
        patch.setattr(participant_level, "software_versions", lambda engine, settings: "glas3d 9.9.9")
        result = explain_cohort(people, earlier, models, **ASSUMED, on_error="skip")
    assert set(result.outcomes["status"]) == {"failed"}
    assert result.outcomes["error"].str.match("every worker needs the same versions: .*this one glas3d 9.9.9$").all()
    assert not (earlier / "sub-02").exists()
    assert explain_cohort(people, earlier, models, **ASSUMED).count("kept") == 5
    assert content(earlier) == content(complete[0].folder)


def test_a_clock_that_goes_back_changes_nothing(complete, people, models, tmp_path, monkeypatch):
    """Each look at it is an hour earlier, and results of before are of the future."""
    out, hours = tmp_path / "study", itertools.count(2_000_000_000, -3600)
    monkeypatch.setattr(time, "time", lambda: float(next(hours)))
    monkeypatch.setattr(time, "time_ns", lambda: next(hours) * 10**9)
    first = replace(people, everyone=people.everyone[:3])
    assert explain_cohort(first, out, models, **ASSUMED).count("explained") == 3
    for path in out.rglob("*"):
        os.utime(path, (4_000_000_000, 4_000_000_000))
    result = explain_cohort(people, out, models, **ASSUMED)
    assert (result.count("kept"), result.count("explained")) == (3, 3)
    assert content(out) == content(complete[0].folder)


@pytest.mark.parametrize("exhaust", [lambda: torch.empty(2**50), lambda: bytearray(2**60)], ids=["torch", "Python"])
def test_memory_that_does_not_suffice_is_a_failure_of_its_scan(
    complete, people, models, tmp_path, monkeypatch, exhaust
):
    prepare = participant_level.prepare

    def prepared(plan, task):
        return exhaust() if task.participant_id == "sub-02" else prepare(plan, task)

    with monkeypatch.context() as patch:
        patch.setattr(participant_level, "prepare", prepared)
        result = explain_cohort(people, tmp_path / "study", models, **ASSUMED, on_error="skip")
    (failed,) = result.failed.to_dict("records")
    assert failed["participant_id"] == "sub-02"
    assert failed["error"].startswith("memory does not suffice ("), failed["error"]
    assert failed["error"].endswith("): give it fewer workers, or a smaller batch size")
    result = explain_cohort(people, tmp_path / "study", models, **ASSUMED)
    assert (result.count("kept"), result.count("explained")) == (5, 1)
    assert content(tmp_path / "study") == content(complete[0].folder)


def test_a_changed_background_is_another_study(people, models, tmp_path):
    path = folders.save(tmp_path / "dark.nii.gz", folders.brain(seed=7) / 2)
    options = {"background": path}
    assert explain_cohort(people, tmp_path / "out", models, **ASSUMED, **options).count("explained") == 6
    assert explain_cohort(people, tmp_path / "out", models, **ASSUMED, **options).count("kept") == 6
    assert str(tmp_path) not in (tmp_path / "out" / "study.json").read_text()
    folders.save(path, folders.brain(seed=8) / 2)
    with pytest.raises(GlasError, match="made with other settings: "):
        explain_cohort(people, tmp_path / "out", models, **ASSUMED, **options)
    assert explain_cohort(people, tmp_path / "out", models, **ASSUMED, **options, overwrite=True).count("kept") == 0


@pytest.mark.parametrize("damage", ["record", "map", "folder"])
def test_damaged_results_are_explained_again(complete, earlier, people, models, damage):
    folder = earlier / "sub-02" / "anat"
    if damage == "folder":
        shutil.rmtree(folder)
        (earlier / "sub-02" / ".anat-left").mkdir()
    elif damage == "map":
        next(folder.glob("*saliency_statmap.nii.gz")).write_bytes(b"half")
    else:
        (folder / "sub-02_record.json").write_text("{}")
    if damage == "record":  # without a record the files may be the user's own
        with pytest.raises(GlasError, match=r"sub-02 cannot be explained: .* no participant's results"):
            explain_cohort(people, earlier, models, **ASSUMED)
        return
    assert explain_cohort(people, earlier, models, **ASSUMED).count("explained") == 1
    assert content(earlier) == content(complete[0].folder)


def test_batch_threads_and_device_are_resolved_once(earlier, complete, people, models):
    study = json.loads((complete[0].folder / "study.json").read_text())
    assert (study["Threads"], study["Device"]) == (1, "cpu" if not torch.cuda.is_available() else "cuda")
    assert study["BatchSize"] >= 1
    for change in ({"batch_size": study["BatchSize"] + 1}, {"threads": 2}):
        with pytest.raises(GlasError, match="was started with"):
            explain_cohort(people, earlier, models, **ASSUMED, **change)


def test_a_study_resumes_with_its_own_batch_size_and_threads(people, models, read_sidecar, tmp_path):
    explain_cohort(people, tmp_path / "out", models, **ASSUMED, batch_size=3, threads=2)
    shutil.rmtree(tmp_path / "out" / "sub-01")
    before = torch.get_num_threads()
    result = explain_cohort(people, tmp_path / "out", models, **ASSUMED)
    assert (result.count("explained"), result.count("kept")) == (1, 5)
    assert read_sidecar(tmp_path / "out", "sub-01")["Settings"]["batch_size"] == 3
    assert torch.get_num_threads() == before


# Participants that trained the models


def test_a_participant_that_trained_the_model_is_refused_by_name(people, models, tmp_path):
    with pytest.raises(GlasError, match=r"fold-1 was trained with sub-03: set in_sample"):
        explain_cohort(people, tmp_path / "out", models / "fold-1", **ASSUMED)
    assert not (tmp_path / "out").exists()


def test_participants_that_trained_the_model_may_be_skipped(people, models, tmp_path):
    result = explain_cohort(people, tmp_path / "out", models / "fold-1", **ASSUMED, on_error="skip")
    assert result.failed["participant_id"].tolist() == ["sub-03", "sub-04"]
    assert not (tmp_path / "out" / "sub-03").exists()
    listed = pd.read_csv(tmp_path / "out" / FAILED, sep="\t")
    assert listed["error"].str.contains("was trained with sub-0").all()


def test_explanations_of_training_participants_are_marked_in_every_output(people, models, read_sidecar, tmp_path):
    explain_cohort(people, tmp_path / "out", models, **ASSUMED, in_sample=True)
    paths = list((tmp_path / "out").rglob("sub-*/anat/*.json"))
    assert len(paths) == 6 * 6
    assert all(json.loads(p.read_text())["InSample"] is True for p in paths)
    assert read_sidecar(tmp_path / "out", "sub-01")["Folds"] == [2]


def test_a_training_scan_under_another_id_is_refused(six, models, tmp_path):
    """The hash of the file shows that it trained a model, although the id sub-99 did not."""
    copy = shutil.copytree(six, tmp_path / "data")
    table = folders.people(6)
    table.loc[0, "participant_id"] = "sub-99"
    folders.write_people(copy, table)
    (copy / "sub-01").rename(copy / "sub-99")
    folders.scan(copy, "sub-99").parent.joinpath(folders.scan(copy, "sub-01").name).rename(folders.scan(copy, "sub-99"))
    result = explain_cohort(studies.cohort(copy), tmp_path / "out", models, **ASSUMED, on_error="skip")
    assert result.failed["participant_id"].tolist() == ["sub-99"]
    assert "is the file the model" in result.failed["error"].iloc[0]


def test_a_participant_of_another_study_is_explained_by_all_folds(models, read_regions, read_sidecar, tmp_path):
    folder = folders.derivative(tmp_path / "new", folders.people(2).assign(participant_id=["sub-51", "sub-52"]))
    for name, seed in (("sub-51", 501), ("sub-52", 502)):
        folders.save(folders.scan(folder, name), folders.brain("AD", seed))
    result = explain_cohort(studies.cohort(folder), tmp_path / "out", models, **ASSUMED)
    assert result.count("explained") == 2
    sidecar, regions = read_sidecar(tmp_path / "out", "sub-51"), read_regions(tmp_path / "out", "sub-51", index=None)
    assert (sidecar["InSample"], sidecar["Folds"], len(sidecar["Model"])) == (False, [1, 2], 2)
    by_fold = [
        explain_img(
            folders.scan(folder, "sub-51"),
            load_model(models / f"fold-{fold}", device="cpu"),
            "AD",
            participant_level.load_search(SEARCH),
            assume_space="MNI",
        )
        for fold in (1, 2)
    ]
    scores = np.stack([explanation.table["score"] for explanation in by_fold])
    spread = [f"{name}_sd" for name in ("light", "shadow", "drop", "score", *EVIDENCE)]
    assert regions.columns.tolist() == [*COLUMNS, *EVIDENCE, *spread, "n_models"]
    np.testing.assert_allclose(regions["score"], scores.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(regions["score_sd"], scores.std(axis=0, ddof=1), atol=1e-6)
    assert regions.loc[regions["score"].idxmax(), "rank"] == 1
    (path,) = (tmp_path / "out" / "sub-51").rglob("*saliency_statmap.nii.gz")
    maps = [np.asarray(explanation.saliency_img.dataobj) for explanation in by_fold]
    np.testing.assert_allclose(studies.data(path), np.mean(maps, axis=0), atol=1e-6)


def test_a_model_without_a_record_of_its_training_is_warned_of(people, models, read_sidecar, tmp_path):
    bundle = shutil.copytree(models / "fold-1", tmp_path / "model")
    (bundle / "configs" / "manifest.json").unlink()
    with pytest.warns(GlasWarning, match="training participants of the model .* are not recorded: check"):
        explain_cohort(people, tmp_path / "out", bundle, **ASSUMED)
    assert read_sidecar(tmp_path / "out", "sub-01")["InSample"] == "unknown"


# Participants that fail


def truncate_a_scan(bids_dir, folder):
    """Return the cohort of a copy of a study in which the voxels of one scan are truncated."""
    copy = shutil.copytree(bids_dir, folder)
    path = folders.scan(copy, "sub-02")
    path.write_bytes(path.read_bytes()[:-500])
    return studies.cohort(copy)


def test_a_damaged_scan_ends_the_run_and_is_named(six, models, tmp_path):
    with pytest.raises(GlasError, match=r"sub-02 cannot be explained: .*damaged.*; on_error="):
        explain_cohort(truncate_a_scan(six, tmp_path / "data"), tmp_path / "out", models, **ASSUMED)
    assert (tmp_path / "out" / "sub-01" / "anat").is_dir()
    assert not (tmp_path / "out" / "sub-03").exists()


def test_a_damaged_scan_may_be_skipped_and_explained_later(six, people, complete, models, tmp_path):
    damaged = truncate_a_scan(six, tmp_path / "data")
    result = explain_cohort(damaged, tmp_path / "out", models, **ASSUMED, on_error="skip")
    assert (result.count("explained"), result.failed["participant_id"].tolist()) == (5, ["sub-02"])
    assert (tmp_path / "out" / FAILED).is_file()
    again = explain_cohort(people, tmp_path / "out", models, **ASSUMED)
    assert (again.count("explained"), again.count("kept")) == (1, 5)
    assert content(tmp_path / "out") == content(complete[0].folder)


def test_scans_in_another_space_fail(people, models, tmp_path):
    result = explain_cohort(people, tmp_path / "out", models, search=SEARCH, on_error="skip")
    assert result.count("failed") == 6
    assert result.failed["error"].str.contains("does not look like a brain in MNI space").all()


def test_an_unexpected_error_is_listed_on_one_line(people, models, tmp_path, monkeypatch):
    def fail_on_sub_04(path, *arguments, **keywords):
        if "sub-04" in str(path):
            raise ZeroDivisionError("by zero\nsomewhere")
        return explain_img(path, *arguments, **keywords)

    monkeypatch.setattr(participant_level, "explain_img", fail_on_sub_04)
    result = explain_cohort(people, tmp_path / "out", models, **ASSUMED, on_error="skip")
    assert result.failed.values.tolist() == [["sub-04", "", "unexpected ZeroDivisionError: by zero somewhere"]]


def test_participants_left_out_of_the_cohort_are_listed(six, models, tmp_path):
    copy = shutil.copytree(six, tmp_path / "data")
    shutil.rmtree(copy / "sub-05")
    with pytest.warns(GlasWarning, match="1 missing"):
        cohort = studies.cohort(copy, on_error="skip")
    result = explain_cohort(cohort, tmp_path / "out", models, **ASSUMED, on_error="skip")
    assert result.failed.values.tolist() == [["sub-05", "", "missing"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "MCI"}, "must be one of the model's"),
        ({"search": "ABC"}, "none of the shipped atlases"),
        ({"search": (0,)}, "cells|from 1|at least 1"),
        ({"n_workers": 0}, "n_workers must be a whole number of at least 1"),
        ({"n_workers": 2, "scheduler": "tcp://x:1"}, "n_workers or a scheduler"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"on_error": "hope"}, "on_error must be"),
        ({"device": "abacus"}, "abacus"),
        ({"background": np.zeros(3)}, "background is a ndarray"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_written(people, models, tmp_path, change, message):
    with pytest.raises((GlasError, TypeError), match=message):
        explain_cohort(people, tmp_path / "out", models, **ASSUMED | change)
    assert not (tmp_path / "out").exists()


def test_an_id_with_a_path_is_refused(people, models, tmp_path):
    rows = people.everyone.copy()
    rows.loc[0, "participant_id"] = "sub-../../x"
    with pytest.raises(GlasError, match="letters and digits"):
        explain_cohort(replace(people, everyone=rows), tmp_path / "out", models, **ASSUMED)
    assert list(tmp_path.iterdir()) == []


def test_sessions_have_folders_of_their_own(models, tmp_path):
    folder = studies.bids(tmp_path / "data", 2, ("M00", "M12"))
    explain_cohort(studies.cohort(folder), tmp_path / "out", models, **ASSUMED)
    for session in ("ses-M00", "ses-M12"):
        (path,) = (tmp_path / "out" / "sub-01" / session / "anat").glob("*_regions.tsv")
        assert path.name.startswith(f"sub-01_{session}_space-MNI_desc-preproc_T1w_desc-grid_regions")
    assert validate(tmp_path / "out")[0] == []


def test_a_training_scan_under_another_name_is_recognised_by_its_voxels(models, six, tmp_path):
    """The scan of a training participant, compressed anew, is refused for a participant from elsewhere."""
    root = folders.derivative(tmp_path / "new", folders.people(2).assign(participant_id=["sub-51", "sub-52"]))
    folders.save(folders.scan(root, "sub-52"), folders.brain("NC", 7))
    content = gzip.decompress(folders.scan(six, "sub-03").read_bytes())
    folders.scan(root, "sub-51").write_bytes(gzip.compress(content, compresslevel=1, mtime=7))
    with pytest.raises(GlasError, match=r"the scan of sub-51 has the voxels of the scan the model .* with as sub-03"):
        explain_cohort(studies.cohort(root), tmp_path / "out", models, **ASSUMED)
    result = explain_cohort(studies.cohort(root), tmp_path / "skipping", models, **ASSUMED, on_error="skip")
    assert result.failed["participant_id"].tolist() == ["sub-51"]
    assert explain_cohort(studies.cohort(root), tmp_path / "in", models, **ASSUMED, in_sample=True).failed.empty
