import json
import shutil
import sys
import warnings
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from monai.transforms import Compose, RandFlip, RandGaussianNoise

from glas3d import GlasError
from glas3d.errors import GlasWarning
from glas3d.hashing import file_sha256
from glas3d.imaging.scan import load_scan
from glas3d.predict import Recipe, Standardisation, intensity_scale, load_model
from glas3d.study import read_cohort
from glas3d.study.training.importable import import_callable
from glas3d.study.training.manifest import FoldManifest, Manifest
from glas3d.study.training.performance import METRICS, chance_warning, measure, pooled_performance
from tests.study.folders import AFFINE, SHAPE, brain, derivative, people, save, scan, write_people
from tests.study.training.trained import MODELS, ONE, contents, trained, tree, weights, with_workers

# files


def test_each_participant_is_tested_once_by_a_fold_that_never_saw_them(made, cohort):
    predictions = made.predictions
    assert list(predictions) == ["participant_id", "session", "group", "fold", "p", "predicted"]
    assert predictions["participant_id"].tolist() == cohort.table["participant_id"].tolist()
    assert predictions["group"].tolist() == cohort.table["group"].tolist()
    assert (predictions["predicted"] == np.where(predictions["p"] > 0.5, "AD", "NC")).all()
    manifest = Manifest.load(made.folder)
    for row in predictions.to_dict("records"):
        assert manifest.fold_of(row["participant_id"]) == made.folder / f"fold-{row['fold']}"
    assert made.trained == (1, 2)
    assert made.folds == (made.folder / "fold-1", made.folder / "fold-2")


def test_predictions_are_those_of_the_bundles(made, cohort):
    paths = cohort.table.set_index("participant_id")["path"]
    for fold in (1, 2):
        predict = load_model(made.folder / f"fold-{fold}", device="cpu")
        assert predict.classes == ("NC", "AD")
        for row in made.predictions.query("fold == @fold").to_dict("records"):
            volume = torch.as_tensor(load_scan(paths[row["participant_id"]]).data)[None]
            assert float(predict.fit(volume)(volume[None])[0, 1]) == pytest.approx(row["p"], abs=1e-5)


def test_the_tables_of_the_study(made):
    for name in ("metrics", "summary", "predictions"):
        table = pd.read_csv(made.folder / f"{name}.tsv", sep="\t")
        expected = getattr(made, name)
        assert list(table) == list(expected)
        numbers = [column for column in table if column != "session" and table[column].dtype.kind in "if"]
        np.testing.assert_allclose(table[numbers], expected[numbers], rtol=1e-14)
    assert made.predictions["session"].tolist() == [""] * 12
    assert list(made.metrics) == ["fold", "n_train", "n_validation", "n_test", *METRICS]
    assert made.metrics[["n_train", "n_validation", "n_test"]].sum(axis=1).tolist() == [12, 12]
    for row in made.metrics.to_dict("records"):
        own = made.predictions[made.predictions["fold"] == row["fold"]]
        expected = measure((own["group"] == "AD").to_numpy(), own["p"].to_numpy())
        assert {name: row[name] for name in METRICS} == pytest.approx(expected, nan_ok=True)
    assert made.summary["metric"].tolist() == list(METRICS)
    assert made.summary["mean"].tolist() == pytest.approx([made.metrics[name].mean() for name in METRICS])


def test_learning_curves(made):
    for bundle in made.folds:
        table = pd.read_csv(bundle / "results" / "learning.tsv", sep="\t")
        stages = [("autoencoder", 1), ("classifier", 1), ("validation", 1), ("classifier", 2), ("validation", 2)]
        assert list(zip(table["stage"], table["epoch"], strict=True)) == stages
        assert np.isfinite(table["loss"]).all()
        assert (table["loss"] > 0).all()


def test_the_manifest_lists_all_participants_and_files(made, cohort):
    rows = cohort.table.set_index("participant_id")
    for fold, bundle in enumerate(made.folds, 1):
        manifest = FoldManifest.read(bundle)
        assert (manifest.fold, manifest.folds) == (fold, 2)
        scans = [*manifest.train, *manifest.validation, *manifest.test]
        assert sorted(item.participant_id for item in scans) == sorted(rows.index)
        assert len(manifest.validation) >= 2
        for item in scans:
            assert item.sha256 == file_sha256(rows["path"][item.participant_id])
            assert item.group == rows["group"][item.participant_id]
        assert manifest.settings["recipe"]["epochs"] == 2
        assert manifest.settings["stratified_by"] == ["group"]
        assert manifest.settings["threads"] == 1
    assert FoldManifest.read(made.folds[0]).seed != FoldManifest.read(made.folds[1]).seed


def test_standardisation_and_reference_come_from_the_training_part(made, cohort):
    rows = cohort.table.set_index("participant_id")
    for bundle in made.folds:
        train = [item.participant_id for item in FoldManifest.read(bundle).train]
        volumes = {name: load_scan(rows["path"][name]).data for name in train}
        scaled = {name: torch.as_tensor(v / np.float32(intensity_scale(v)))[None] for name, v in volumes.items()}
        expected = Standardisation.of(torch.stack(list(scaled.values())))
        control = torch.stack([scaled[name] for name in train if rows["group"][name] == "NC"]).mean(dim=0)
        images = {
            k: np.asarray(nib.load(bundle / "models" / f"{k}.nii.gz").dataobj) for k in ("mean", "std", "reference")
        }
        for name, volume in (("mean", expected.mean), ("std", expected.std), ("reference", control)):
            np.testing.assert_allclose(images[name], volume[0], atol=1e-5)
        np.testing.assert_array_equal(nib.load(bundle / "models" / "mean.nii.gz").affine, AFFINE)


# leakage


def test_held_out_scans_do_not_change_a_model(made, source, tmp_path):
    """If all scans that the first fold tests are exchanged, its bundle stays the same, bit for bit."""
    folder = shutil.copytree(source, tmp_path / "in")
    for item in FoldManifest.read(made.folds[0]).test:
        save(
            scan(folder, item.participant_id),
            brain(item.group, 1000 + int(item.participant_id[-2:]), severity=0.2) * 3,
        )
    other = trained(read_cohort(folder), tmp_path / "out")
    assert contents(other.folds[0]) == contents(made.folds[0])
    learning = [fold.joinpath("results", "learning.tsv").read_bytes() for fold in (made.folds[0], other.folds[0])]
    assert learning[0] == learning[1]
    mine, theirs = (result.predictions.query("fold == 1")["p"].to_numpy() for result in (made, other))
    assert (mine != theirs).all()
    for name in MODELS:  # the test can fail: the second fold was trained with them
        assert contents(other.folds[1], [name]) != contents(made.folds[1], [name])


def test_validation_scans_do_not_reach_standardisation_and_reference(made, source, tmp_path):
    folder = shutil.copytree(source, tmp_path / "in")
    for item in FoldManifest.read(made.folds[0]).validation:
        save(
            scan(folder, item.participant_id),
            brain(item.group, 2000, severity=0.2) * int(item.participant_id[-2:]),
        )
    other = trained(read_cohort(folder), tmp_path / "out")
    assert contents(other.folds[0], MODELS[1:]) == contents(made.folds[0], MODELS[1:])


def test_sessions_of_a_participant_stay_together(tmp_path):
    folder = derivative(tmp_path / "in", people(8), ("M00", "M12"))
    result = trained(read_cohort(folder), tmp_path / "out", recipe=ONE)
    assert len(result.predictions) == 16
    assert (result.predictions.groupby("participant_id")["fold"].nunique() == 1).all()
    for bundle in result.folds:
        manifest = FoldManifest.read(bundle)
        assert not {item.participant_id for item in manifest.test} & manifest.seen
    again = trained(read_cohort(folder), tmp_path / "out", recipe=ONE)
    assert again.trained == ()
    assert set(again.predictions["session"]) == {"ses-M00", "ses-M12"}


# options


def test_the_grid_of_the_models(cohort, tmp_path):
    result = trained(cohort, tmp_path, resolution=12, recipe=ONE)
    predict = load_model(result.folds[0], device="cpu", trust=True)
    assert predict.info.grid.shape == (16, 24, 16)


def test_a_preset_is_stored_with_the_models(cohort, tmp_path):
    preset = {"sigma_light": 18, "sigma_shadow": 27, "unit": "mm"}
    result = trained(cohort, tmp_path, recipe=ONE, preset=preset)
    assert load_model(result.folds[1], device="cpu").info.preset == preset


@pytest.mark.parametrize("given", ["name", "callable"])
def test_another_network(cohort, tmp_path, given):
    from tests.study.folders import small_net

    factory = small_net if given == "callable" else "tests.study.folders:small_net"
    with pytest.warns(GlasWarning, match="Sequential is not pre-trained"):
        result = trained(cohort, tmp_path, factory=factory, recipe=replace(ONE, pretraining=1))
    predict = load_model(result.folds[0], device="cpu", trust=True)
    assert len(predict.net) == 5
    definition = json.loads((result.folds[0] / "configs" / "inference.json").read_text())["network_def"]
    assert definition == {"_target_": "tests.study.folders.small_net", "shape": [*SHAPE], "channels": 1, "classes": 2}


def test_a_network_with_the_papers_encoder_is_pre_trained(cohort, tmp_path):
    factory = "tests.study.folders:deep_net"
    results = [trained(cohort, tmp_path / str(n), factory=factory, recipe=replace(ONE, pretraining=n)) for n in (0, 1)]
    assert weights(results[0]) != weights(results[1])


@pytest.mark.parametrize(
    "transform", [RandFlip(1.0, 0), Compose([RandGaussianNoise(1.0, std=0.3)])], ids=["flip", "noise"]
)
def test_transforms_of_monai(cohort, tmp_path, transform):
    plain = trained(cohort, tmp_path / "plain", recipe=ONE)
    one, two = (trained(cohort, tmp_path / name, recipe=ONE, intensity_transform=transform) for name in "ab")
    assert weights(one) != weights(plain)
    assert weights(one) == weights(two)
    assert contents(one.folds[0], MODELS[1:]) == contents(plain.folds[0], MODELS[1:])


def test_augmentation_and_pre_training_can_be_left_out(cohort, made, tmp_path):
    for name, settings in (("augment", {"augment": False}), ("pretrain", {"pretrain": False})):
        assert weights(trained(cohort, tmp_path / name, **settings)) != weights(made)


def test_without_a_validation_part(cohort, tmp_path):
    result = trained(cohort, tmp_path, validation=0, recipe=ONE)
    assert result.metrics["n_validation"].tolist() == [0, 0]


def test_progress(cohort, tmp_path):
    ticks = []
    trained(cohort, tmp_path, progress=lambda *t: ticks.append(t))
    assert ticks[:12] == [(i, 12) for i in range(1, 13)]
    assert ticks[12:] == [(i, 6) for i in (1, 2, 3, 3, 4, 5, 6, 6)]


def test_predictions_of_all_folds_are_measured_together_and_models_at_chance_are_named(cohort, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = trained(cohort, tmp_path, recipe=ONE)
    is_case, p = (made.predictions["group"] == "AD").to_numpy(), made.predictions["p"].to_numpy(dtype=float)
    expected = pooled_performance(is_case, p)
    table = pd.read_csv(made.folder / "pooled.tsv", sep="\t")
    np.testing.assert_allclose(table.iloc[:, 1:], expected.iloc[:, 1:])
    named = any("not better than chance" in str(each.message) for each in caught)
    assert named == (chance_warning(expected) is not None)


@pytest.mark.parametrize(
    ("name", "cautious"), [("Simulated Alzheimer's disease", True), ("Dissimulated disease", False)]
)
def test_models_of_simulated_scans_say_so(source, tmp_path, name, cautious):
    data = shutil.copytree(source, tmp_path / "data")
    (data / "dataset_description.json").write_text(json.dumps({"Name": name, "BIDSVersion": "1.10.0"}))
    bundle = trained(read_cohort(data), tmp_path / "models", recipe=ONE).folds[0]
    caution = "the model was trained on simulated scans: its output for a real person's scan means nothing"
    assert load_model(bundle).info.caution == caution * cautious
    assert (caution in (bundle / "docs" / "README.md").read_text()) is cautious


def test_absolute_intensities_reach_the_models(cohort, tmp_path):
    made = trained(cohort, tmp_path, recipe=ONE, intensities="absolute")
    rows = cohort.table.set_index("participant_id")
    for bundle in made.folds:
        manifest = FoldManifest.read(bundle)
        assert manifest.settings["intensities"] == "absolute"
        expected = np.mean([load_scan(rows["path"][item.participant_id]).data for item in manifest.train], axis=0)
        model = load_model(bundle, device="cpu")
        np.testing.assert_allclose(model.transform.mean[0], expected, rtol=1e-4)
        assert model.transform.intensities == "absolute"
        assert "taken as it is" in (bundle / "docs" / "README.md").read_text()
        for item in manifest.test:  # as the fold tested it, so is it when it is explained
            volume = torch.as_tensor(load_scan(rows["path"][item.participant_id]).data)[None]
            p = model.fit(volume)(volume[None])[0, 1]
            tested = made.predictions.set_index("participant_id")["p"][item.participant_id]
            assert float(p) == pytest.approx(tested, abs=1e-5)
    with pytest.raises(GlasError, match=r"was trained otherwise \(intensities\)"):
        trained(cohort, tmp_path, recipe=ONE)


def test_threads_are_set_and_restored(cohort, tmp_path):
    before, during = torch.get_num_threads(), set()
    trained(cohort, tmp_path, recipe=ONE, threads=before + 1, progress=lambda *t: during.add(torch.get_num_threads()))
    assert during == {before, before + 1}  # scans are read first
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threads": 0}, "threads must be a whole number of at least 1, got 0"),
        ({"n_workers": 0}, "n_workers must be a whole number of at least 1, got 0"),
        ({"folds": 7}, "7 folds need two groups of at least 7 participants, got AD 6, NC 6"),
        ({"intensities": "mine"}, "intensities must be auto, relative or absolute, got 'mine'"),
        ({"resolution": 99}, "resolution must be from 0.5 to 16 mm"),
        ({"factory": "tests.study.folders:nothing"}, "factory must be importable as .*folders:nothing is not"),
        ({"factory": "no.such:thing"}, "factory must be importable"),
        ({"factory": "x"}, "factory must be importable"),
        ({"factory": lambda **_: None}, "factory must be importable as package.module:name, .*lambda"),
        ({"factory": "tests.study.folders:SHAPE"}, "factory must be callable, .* is a tuple"),
        ({"factory": "tests.study.folders:one_logit"}, r"must return \(2, 2\) logits for a batch of 2, got \(2, 1\)"),
        ({"factory": "tests.study.folders:flat_net"}, r"does not take a batch of \(2, 1, 16, 18, 20\): "),
        ({"factory": "tests.study.folders:no_net"}, "must be a torch module, got str"),
        ({"intensity_transform": "tests.study.folders:nothing"}, "intensity_transform must be importable"),
        (
            {"intensity_transform": lambda x: x, "n_workers": 2},
            "intensity_transform must be sent to other processes, .*lambda.* cannot",
        ),
        ({"assume_space": None}, "does not look like a brain in MNI space"),
    ],
    ids=lambda given: ", ".join(given) if isinstance(given, dict) else given,
)
def test_impossible_settings_are_refused(cohort, tmp_path, settings, message):
    with pytest.raises(GlasError, match=message):
        trained(cohort, tmp_path / "out", **settings)
    assert not list(tmp_path.glob("out/fold-*"))


def test_several_workers_need_dask(cohort, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(GlasError, match=r'several workers need Dask and cryptography: pip install "glas3d\[study\]"'):
        trained(cohort, tmp_path / "out", n_workers=2)
    assert not (tmp_path / "out").exists()


# slow


@with_workers
def test_workers_train_the_same(cohort, made, tmp_path):
    ticks = []
    result = trained(cohort, tmp_path, n_workers=2, progress=lambda *t: ticks.append(t))
    assert tree(result.folder) == tree(made.folder)
    assert ticks[-2:] == [(3, 6), (6, 6)]


@pytest.mark.slow
def test_a_trained_network_classifies(tmp_path):
    folder = derivative(tmp_path / "in", people(60, sites=2))
    shutil.rmtree(folder / "sub-60")
    with pytest.warns(GlasWarning, match="left out: 1 missing"):
        cohort = read_cohort(folder, on_error="skip")
    recipe = Recipe(epochs=15, learning_rate=3e-3, sigma=(1.5, 3.0), max_gaussians=1, patience=10)
    result = trained(cohort, tmp_path / "out", folds=2, recipe=recipe, validation=0.2)
    row = result.summary.set_index("metric")["mean"]
    assert row["balanced_accuracy"] > 0.9
    assert row["auc"] > 0.95
    assert row["brier"] < 0.15
    assert result.metrics["n_test"].sum() == 59


def test_groups_may_be_numbers(tmp_path):
    """Names such as 1 and 0 are read back as text, so that cases are cases when the folds are measured."""
    table = people(12)
    source = derivative(tmp_path / "in", table)
    write_people(source, table.assign(group=table["group"].map({"AD": "1", "NC": "0"})))
    for _ in range(2):  # trained now, and kept from before
        result = trained(read_cohort(source, case="1", control="0"), tmp_path / "out")
        assert result.predictions["group"].value_counts().to_dict() == {"1": 6, "0": 6}
        for row in result.metrics.to_dict("records"):
            own = result.predictions[result.predictions["fold"] == row["fold"]]
            expected = measure(own["participant_id"].isin(table["participant_id"][::2]).to_numpy(), own["p"].to_numpy())
            assert {name: row[name] for name in METRICS} == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("end", ["GeneratorExit", "SystemExit(0)", "KeyError(3)"])
def test_a_module_that_leaves_when_it_is_imported_is_an_error(tmp_path, monkeypatch, end):
    monkeypatch.syspath_prepend(tmp_path)
    name = f"leaves_{end[:5].lower()}"
    (tmp_path / f"{name}.py").write_text(f"raise {end}")
    with pytest.raises(GlasError, match=f"the module of factory {name}:f cannot be imported: {end[:8]}.*, line 1"):
        import_callable(f"{name}:f", "factory")
