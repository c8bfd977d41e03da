import os
import shutil
from dataclasses import replace

import pytest
import torch

from glas3d import GlasError
from glas3d.study import read_cohort
from glas3d.study.training import one_fold
from glas3d.study.training.manifest import FoldManifest, Manifest
from tests.study.folders import brain, people, save, scan, write_people
from tests.study.training.trained import ONE, QUICK, trained, tree, weights, with_workers


def test_a_seed_determines_the_study_bit_for_bit(made, source, tmp_path):
    torch.manual_seed(3)
    again = trained(read_cohort(source), tmp_path / "again", cache=tmp_path / "elsewhere")
    assert tree(again.folder) == tree(made.folder)
    assert not (again.folder / ".cache").exists()
    other = trained(read_cohort(source), tmp_path / "other", seed=1, cache=tmp_path / "elsewhere")
    assert weights(other) != weights(made)
    seeds = {FoldManifest.read(bundle).seed for result in (made, other) for bundle in result.folds}
    assert len(seeds) == 4


def test_a_finished_study_is_left_alone(cohort, copy):
    before, times = tree(copy), {p: p.stat().st_mtime_ns for p in copy.glob("fold-*/models/*")}
    again = trained(cohort, copy)
    assert again.trained == ()
    assert tree(copy) == before
    assert {p: p.stat().st_mtime_ns for p in copy.glob("fold-*/models/*")} == times


def test_a_missing_fold_alone_is_trained_again(cohort, made, copy):
    shutil.rmtree(copy / "fold-2")
    again = trained(cohort, copy)
    assert again.trained == (2,)
    assert tree(copy) == tree(made.folder)


def test_an_interrupted_study_is_resumed(cohort, made, tmp_path, monkeypatch):
    def failing(*given, **settings):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(given)
        return train(*given, **settings)

    calls, train = [], one_fold.train
    monkeypatch.setattr(one_fold, "train", failing)
    with pytest.raises(KeyboardInterrupt):
        trained(cohort, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [".cache", "fold-1"]
    with pytest.raises(GlasError, match="lacks fold 2"):
        Manifest.load(tmp_path / "out")
    monkeypatch.undo()
    assert trained(cohort, tmp_path / "out").trained == (2,)
    assert tree(tmp_path / "out") == tree(made.folder)


@with_workers
def test_a_killed_worker_gives_one_clear_error(cohort, tmp_path):
    with pytest.raises(
        GlasError,
        match=r"fold \d was not trained, its worker died: too little memory, .*; .* folds are kept",
    ):
        trained(cohort, tmp_path / "out", n_workers=2, factory="tests.study.running.killed_workers:dies_as_network")
    assert not list((tmp_path / "out").glob("fold-*"))


def test_leftovers_of_killed_runs_are_removed(cohort, made, copy):
    for name in (".fold-1-x", ".unfinished-x"):
        (copy / name).mkdir()
        (copy / name / "half").write_text("half")
    trained(cohort, copy)
    assert tree(copy) == tree(made.folder)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"recipe": replace(QUICK, epochs=3)}, "recipe"),
        ({"augment": False}, "recipe"),
        ({"pretrain": False}, "recipe"),
        ({"seed": 5}, "seed"),
        ({"folds": 3}, "folds"),
        ({"validation": 0.5}, "validation"),
        ({"preset": {"sigma_light": 9}}, "preset"),
        ({"factory": "tests.study.folders:small_net"}, "network"),
        ({"threads": 2}, "threads"),
        ({"intensity_transform": "tests.study.folders:people"}, "intensity_transform"),
    ],
    ids=str,
)
def test_folds_of_other_settings_are_refused(cohort, copy, changed, message):
    before = tree(copy)
    with pytest.raises(GlasError, match=rf"fold-1 was trained otherwise \(.*{message}"):
        trained(cohort, copy, **changed)
    assert tree(copy) == before


def test_folds_of_other_inputs_are_refused(source, copy, tmp_path):
    folder = shutil.copytree(source, tmp_path / "in")
    table = people(12)
    table.loc[[0, 1], "group"] = ["NC", "AD"]
    write_people(folder, table)
    with pytest.raises(GlasError, match=r"fold-. was trained otherwise"):
        trained(read_cohort(folder), copy)
    write_people(folder, people(12))
    save(scan(folder, "sub-05"), brain("AD", 999))
    with pytest.raises(GlasError, match=r"fold-1 was trained otherwise \(the scans to t.* with\)"):
        trained(read_cohort(folder), copy)


def test_surplus_folds_are_refused(cohort, tmp_path):
    trained(cohort, tmp_path, folds=3, recipe=ONE)
    for fold in (1, 2):
        shutil.rmtree(tmp_path / f"fold-{fold}")
    with pytest.raises(GlasError, match=r"fold-3 was trained otherwise \(one of 3 folds\)"):
        trained(cohort, tmp_path, recipe=ONE)
    result = trained(cohort, tmp_path, recipe=ONE, overwrite=True)
    assert sorted(p.name for p in tmp_path.glob("fold-*")) == ["fold-1", "fold-2"]
    assert Manifest.load(tmp_path).folds.keys() == set(result.folds)


def test_other_folds_are_overwritten_on_request(cohort, copy, tmp_path):
    result = trained(cohort, copy, recipe=ONE, overwrite=True)
    assert result.trained == (1, 2)
    assert weights(result) == weights(trained(cohort, tmp_path / "new", recipe=ONE))


@pytest.mark.skipif(os.name == "nt", reason="links are POSIX's")
@pytest.mark.parametrize("fold", [1, 3], ids=["wanted", "surplus"])
def test_a_fold_that_is_a_link_is_refused(cohort, copy, tmp_path, fold):
    outside = (copy / "fold-1").rename(tmp_path / "outside")
    (copy / f"fold-{fold}").symlink_to(outside)
    before = tree(outside)
    with pytest.raises(GlasError, match=rf"must not be a link, .*fold-{fold} leads to .*outside"):
        trained(cohort, copy, recipe=ONE, overwrite=True)
    assert tree(outside) == before


def test_a_fold_without_predictions_is_not_whole(cohort, copy):
    (copy / "fold-2" / "results" / "predictions.tsv").unlink()
    with pytest.raises(GlasError, match=r"fold-2 was trained otherwise \(not whole\)"):
        trained(cohort, copy)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_fold_is_never_removed(cohort, tmp_path, overwrite):
    kept = tmp_path / "fold-1" / "thesis.txt"
    kept.parent.mkdir()
    kept.write_text("years of work")
    with pytest.raises(GlasError, match="fold-1 is in the way"):
        trained(cohort, tmp_path, overwrite=overwrite)
    assert kept.read_text() == "years of work"
