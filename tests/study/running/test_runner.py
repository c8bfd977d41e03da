import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from glas3d import GlasError
from glas3d.errors import GlasWarning
from glas3d.explain import COLUMNS, explain_img
from glas3d.predict import load_model
from glas3d.study.derivatives import FAILED
from glas3d.study.running import participant as participant_level
from glas3d.study.running.runner import explain_cohort
from tests.study import folders, studies
from tests.study.studies import SEARCH, content
from tests.validator import validate

ASSUMED = {"search": SEARCH, "assume_space": "MNI"}


@pytest.fixture(scope="module")
def made(people, models, tmp_path_factory):
    """The undisturbed run."""
    out = tmp_path_factory.mktemp("out") / "study"
    ticks = []
    result = explain_cohort(people, out, models, **ASSUMED, progress=lambda done, total: ticks.append((done, total)))
    return result, ticks


@pytest.fixture
def begun(made, tmp_path):
    return shutil.copytree(made[0].folder, tmp_path / "study")


def sidecar(out, participant, ending="_stat-saliency_statmap.json"):
    (path,) = (out / participant).rglob(f"*{ending}")
    return json.loads(path.read_text())


def table(out, participant):
    (path,) = (out / participant).rglob("*_regions.tsv")
    return pd.read_csv(path, sep="\t")


def test_everyone_is_explained(made, people):
    result, ticks = made
    assert result.outcomes["participant_id"].tolist() == [f"sub-0{i}" for i in range(1, 7)]
    assert set(result.outcomes["status"]) == {"explained"}
    assert ticks == [(i, 6) for i in range(7)]
    assert sorted(p.name for p in result.folder.iterdir()) == sorted(
        [".bidsignore", "dataset_description.json", "study.json", *people.table["participant_id"]]
    )


def test_by_the_model_that_never_saw_them(made, people, models):
    """The same as asking that model by hand."""
    out = made[0].folder
    for number, row in enumerate(people.table.to_dict("records")):
        fold = number // 2 % 2 + 1
        said = sidecar(out, row["participant_id"])
        assert (said["InSample"], said["Folds"]) == (False, [fold])
        assert said["Model"]["name"] == f"AD-NC-fold-{fold}"
        predict = load_model(models / f"fold-{fold}", device="cpu")
        alone = explain_img(row["path"], predict, "AD", participant_level.load_search(SEARCH), assume_space="MNI")
        found = table(out, row["participant_id"])
        assert found.columns.tolist() == COLUMNS
        np.testing.assert_allclose(found["score"], alone.table["score"], rtol=0, atol=1e-6)


def test_it_is_a_valid_bids_derivative(made):
    assert validate(made[0].folder)[0] == []
    description = json.loads((made[0].folder / "dataset_description.json").read_text())
    assert description["GeneratedBy"][0]["Name"] == "glas3d"


def test_the_validator_would_say(begun):
    """What BIDS has no words for yet is named in ``.bidsignore``; and the test above can fail."""
    (begun / "sub-01" / "anat" / "sub-01_odd.nii.gz").write_bytes(b"")
    assert validate(begun)[0]


def test_no_place_or_time_is_written(made, people, models):
    for path in made[0].folder.rglob("*.json"):
        text = path.read_text()
        assert str(models.parent) not in text
        assert str(people.root.parent) not in text


def test_the_same_bytes_again(made, people, models, tmp_path):
    explain_cohort(people, tmp_path / "again", models, **ASSUMED)
    assert content(tmp_path / "again") == content(made[0].folder)


def test_what_is_finished_is_kept(begun, people, models):
    before = {p: p.stat().st_mtime_ns for p in begun.rglob("sub-*/anat/*")}
    result = explain_cohort(people, begun, models, **ASSUMED)
    assert result.count("kept") == 6
    assert {p: p.stat().st_mtime_ns for p in begun.rglob("sub-*/anat/*")} == before


def test_what_a_killed_run_left_beside_it_is_removed(made, begun, people, models):
    for name in (".anat-old", ".anat-new"):
        (begun / "sub-03" / name).mkdir()
        (begun / "sub-03" / name / "half.nii.gz").write_text("half")
    assert explain_cohort(people, begun, models, **ASSUMED).count("kept") == 6
    assert content(begun) == content(made[0].folder)


@pytest.mark.parametrize(
    "change",
    [
        {"sigma_light": 30.0, "unit": "mm"},
        {"target": "NC"},
        {"search": (2, 2, 2)},
        {"assume_space": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_explain_again(begun, people, models, change, monkeypatch):
    if "assume_space" in change:  # these are no brains
        monkeypatch.setattr("glas3d.imaging.space.SpaceCheck.problem", None)
    result = explain_cohort(people, begun, models, **ASSUMED | change)
    assert result.count("explained") == 6
    assert result.outcomes["error"].tolist() == [""] * 6


def test_other_models_explain_again(begun, people, tmp_path):
    other = studies.folds(tmp_path / "folds", people, seed=1)
    assert explain_cohort(people, begun, other, **ASSUMED).count("explained") == 6


def test_another_scan_explains_again(begun, six, models, tmp_path):
    copy = shutil.copytree(six, tmp_path / "data")
    folders.save(folders.scan(copy, "sub-03"), folders.brain("AD", 99))
    result = explain_cohort(studies.cohort(copy), begun, models, **ASSUMED)
    assert result.outcomes.set_index("participant_id")["status"].to_dict() == {
        f"sub-0{i}": "explained" if i == 3 else "kept" for i in range(1, 7)
    }


def test_other_versions_explain_again(begun, people, models, monkeypatch):
    monkeypatch.setattr("glas3d.study.environment.__version__", "9.9.9")
    assert explain_cohort(people, begun, models, **ASSUMED).count("explained") == 6


def test_a_background_that_changed_explains_again(people, models, tmp_path):
    path = folders.save(tmp_path / "dark.nii.gz", folders.brain(seed=7) / 2)
    given = {"background": path}
    assert explain_cohort(people, tmp_path / "out", models, **ASSUMED, **given).count("explained") == 6
    assert explain_cohort(people, tmp_path / "out", models, **ASSUMED, **given).count("kept") == 6
    assert str(tmp_path) not in (tmp_path / "out" / "study.json").read_text()
    folders.save(path, folders.brain(seed=8) / 2)
    assert explain_cohort(people, tmp_path / "out", models, **ASSUMED, **given).count("explained") == 6


@pytest.mark.parametrize("damage", ["record", "map", "folder"])
def test_what_is_damaged_is_explained_again(made, begun, people, models, damage):
    place = begun / "sub-02" / "anat"
    if damage == "folder":
        shutil.rmtree(place)
        (begun / "sub-02" / ".anat-left").mkdir()
    elif damage == "map":
        next(place.glob("*saliency_statmap.nii.gz")).write_bytes(b"half")
    else:
        (place / "sub-02_record.json").write_text("{}")
    if damage == "record":  # nothing says that the files are ours
        with pytest.raises(GlasError, match=r"sub-02 cannot be explained: .* no participant's results"):
            explain_cohort(people, begun, models, **ASSUMED)
        return
    assert explain_cohort(people, begun, models, **ASSUMED).count("explained") == 1
    assert content(begun) == content(made[0].folder)


def test_batch_threads_and_device_are_resolved_once(begun, made, people, models):
    said = json.loads((made[0].folder / "study.json").read_text())
    assert (said["Threads"], said["Device"]) == (1, "cpu" if not torch.cuda.is_available() else "cuda")
    assert said["BatchSize"] >= 1
    for change in ({"batch_size": said["BatchSize"] + 1}, {"threads": 2}):
        with pytest.raises(GlasError, match="was started with"):
            explain_cohort(people, begun, models, **ASSUMED, **change)


def test_a_study_with_its_own_batches_goes_on_with_them(people, models, tmp_path):
    explain_cohort(people, tmp_path / "out", models, **ASSUMED, batch_size=3, threads=2)
    shutil.rmtree(tmp_path / "out" / "sub-01")
    before = torch.get_num_threads()
    result = explain_cohort(people, tmp_path / "out", models, **ASSUMED)
    assert (result.count("explained"), result.count("kept")) == (1, 5)
    assert sidecar(tmp_path / "out", "sub-01")["Settings"]["batch_size"] == 3
    assert torch.get_num_threads() == before


# Who was seen.


def test_a_model_that_saw_the_participant_is_refused_by_name(people, models, tmp_path):
    with pytest.raises(GlasError, match=r"fold-1 was trained with sub-03: set in_sample"):
        explain_cohort(people, tmp_path / "out", models / "fold-1", **ASSUMED)
    assert not (tmp_path / "out").exists()


def test_and_may_be_skipped(people, models, tmp_path):
    result = explain_cohort(people, tmp_path / "out", models / "fold-1", **ASSUMED, on_error="skip")
    assert result.failed["participant_id"].tolist() == ["sub-03", "sub-04"]
    assert not (tmp_path / "out" / "sub-03").exists()
    listed = pd.read_csv(tmp_path / "out" / FAILED, sep="\t")
    assert listed["error"].str.contains("was trained with sub-0").all()


def test_or_asked_for_and_every_output_says_so(people, models, tmp_path):
    explain_cohort(people, tmp_path / "out", models, **ASSUMED, in_sample=True)
    paths = list((tmp_path / "out").rglob("sub-*/anat/*.json"))
    assert len(paths) == 6 * 4
    assert all(json.loads(p.read_text())["InSample"] is True for p in paths)
    assert sidecar(tmp_path / "out", "sub-01")["Folds"] == [2]


def test_the_same_scan_under_another_name_is_refused(six, models, tmp_path):
    """Nobody calls sub-99 a participant of the study; the file gives them away."""
    copy = shutil.copytree(six, tmp_path / "data")
    people = folders.people(6)
    people.loc[0, "participant_id"] = "sub-99"
    folders.write_people(copy, people)
    (copy / "sub-01").rename(copy / "sub-99")
    folders.scan(copy, "sub-99").parent.joinpath(folders.scan(copy, "sub-01").name).rename(folders.scan(copy, "sub-99"))
    result = explain_cohort(studies.cohort(copy), tmp_path / "out", models, **ASSUMED, on_error="skip")
    assert result.failed["participant_id"].tolist() == ["sub-99"]
    assert "is the file the model" in result.failed["error"].iloc[0]


def test_a_stranger_is_explained_by_all_folds(people, models, tmp_path):
    place = folders.derivative(tmp_path / "new", folders.people(2).assign(participant_id=["sub-51", "sub-52"]))
    for name, seed in (("sub-51", 501), ("sub-52", 502)):
        folders.save(folders.scan(place, name), folders.brain("AD", seed))
    result = explain_cohort(studies.cohort(place), tmp_path / "out", models, **ASSUMED)
    assert result.count("explained") == 2
    said, found = sidecar(tmp_path / "out", "sub-51"), table(tmp_path / "out", "sub-51")
    assert (said["InSample"], said["Folds"], len(said["Model"])) == (False, [1, 2], 2)
    each = [
        explain_img(
            folders.scan(place, "sub-51"),
            load_model(models / f"fold-{fold}", device="cpu"),
            "AD",
            participant_level.load_search(SEARCH),
            assume_space="MNI",
        )
        for fold in (1, 2)
    ]
    scores = np.stack([one.table["score"] for one in each])
    assert found.columns.tolist() == [*COLUMNS, "light_sd", "shadow_sd", "drop_sd", "score_sd", "n_models"]
    np.testing.assert_allclose(found["score"], scores.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found["score_sd"], scores.std(axis=0, ddof=1), atol=1e-6)
    assert found.loc[found["score"].idxmax(), "rank"] == 1
    (path,) = (tmp_path / "out" / "sub-51").rglob("*saliency_statmap.nii.gz")
    maps = [np.asarray(one.saliency_img.dataobj) for one in each]
    np.testing.assert_allclose(studies.data(path), np.mean(maps, axis=0), atol=1e-6)


def test_a_model_that_does_not_say_whom_it_saw(people, models, tmp_path):
    bundle = shutil.copytree(models / "fold-1", tmp_path / "model")
    (bundle / "configs" / "manifest.json").unlink()
    with pytest.warns(GlasWarning, match="not recorded which participants trained the model .*: make sure"):
        explain_cohort(people, tmp_path / "out", bundle, **ASSUMED)
    assert sidecar(tmp_path / "out", "sub-01")["InSample"] == "unknown"


# What goes wrong with one.


def spoil(source, place):
    """One scan is cut off, where only its voxels are."""
    copy = shutil.copytree(source, place)
    path = folders.scan(copy, "sub-02")
    path.write_bytes(path.read_bytes()[:-500])
    return studies.cohort(copy)


def test_one_broken_scan_ends_the_work_and_is_named(six, models, tmp_path):
    with pytest.raises(GlasError, match=r"sub-02 cannot be explained: .*damaged.*; on_error="):
        explain_cohort(spoil(six, tmp_path / "data"), tmp_path / "out", models, **ASSUMED)
    assert (tmp_path / "out" / "sub-01" / "anat").is_dir()
    assert not (tmp_path / "out" / "sub-03").exists()


def test_or_is_listed_and_mended_later(six, people, made, models, tmp_path):
    broken = spoil(six, tmp_path / "data")
    result = explain_cohort(broken, tmp_path / "out", models, **ASSUMED, on_error="skip")
    assert (result.count("explained"), result.failed["participant_id"].tolist()) == (5, ["sub-02"])
    assert (tmp_path / "out" / FAILED).is_file()
    again = explain_cohort(people, tmp_path / "out", models, **ASSUMED)
    assert (again.count("explained"), again.count("kept")) == (1, 5)
    assert content(tmp_path / "out") == content(made[0].folder)


def test_a_scan_in_another_space_is_one_of_them(people, models, tmp_path):
    result = explain_cohort(people, tmp_path / "out", models, search=SEARCH, on_error="skip")
    assert result.count("failed") == 6
    assert result.failed["error"].str.contains("does not look like a brain in MNI space").all()


def test_an_error_nobody_thought_of_is_one_of_them(people, models, tmp_path, monkeypatch):
    def odd(path, *rest, **others):
        if "sub-04" in str(path):
            raise ZeroDivisionError("by zero\nsomewhere")
        return explain_img(path, *rest, **others)

    monkeypatch.setattr(participant_level, "explain_img", odd)
    result = explain_cohort(people, tmp_path / "out", models, **ASSUMED, on_error="skip")
    assert result.failed.values.tolist() == [["sub-04", "", "unexpected ZeroDivisionError: by zero somewhere"]]


def test_who_the_cohort_left_out_is_listed_too(six, models, tmp_path):
    copy = shutil.copytree(six, tmp_path / "data")
    shutil.rmtree(copy / "sub-05")
    with pytest.warns(GlasWarning, match="1 missing"):
        left = studies.cohort(copy, on_error="skip")
    result = explain_cohort(left, tmp_path / "out", models, **ASSUMED, on_error="skip")
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
def test_what_cannot_be_is_refused_before_anything_is_written(people, models, tmp_path, change, message):
    with pytest.raises((GlasError, TypeError), match=message):
        explain_cohort(people, tmp_path / "out", models, **ASSUMED | change)
    assert not (tmp_path / "out").exists()


def test_an_id_that_leads_elsewhere_is_refused(people, models, tmp_path):
    from dataclasses import replace

    rows = people.everyone.copy()
    rows.loc[0, "participant_id"] = "sub-../../x"
    with pytest.raises(GlasError, match="letters and digits"):
        explain_cohort(replace(people, everyone=rows), tmp_path / "out", models, **ASSUMED)
    assert list(tmp_path.iterdir()) == []


def test_sessions_have_folders_of_their_own(models, tmp_path):
    place = studies.bids(tmp_path / "data", 2, ("M00", "M12"))
    explain_cohort(studies.cohort(place), tmp_path / "out", models, **ASSUMED)
    for session in ("ses-M00", "ses-M12"):
        (path,) = (tmp_path / "out" / "sub-01" / session / "anat").glob("*_regions.tsv")
        assert path.name.startswith(f"sub-01_{session}_space-MNI_desc-preproc_desc-grid_regions")
    assert validate(tmp_path / "out")[0] == []
