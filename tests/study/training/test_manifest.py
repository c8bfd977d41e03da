import json
import shutil
from dataclasses import replace

import pytest

from glas3d import GlasError
from glas3d.study.training.manifest import MANIFEST, FoldManifest, FoldScan, Manifest, fold_folders

SETTINGS = {"recipe": {"epochs": 3, "sigma": [1.5, 3.0]}, "network": "x:y"}


def seen(*numbers, sessions=("",)):
    return tuple(FoldScan(f"sub-{n}", s, "AD" if n % 2 else "NC", f"hash{n}{s}") for n in numbers for s in sessions)


def manifest(fold, train, validation, test, **changed):
    parts = {"train": seen(*train), "validation": seen(*validation), "test": seen(*test)}
    return FoldManifest(**{"fold": fold, "folds": 3, "seed": 7 + fold, "settings": SETTINGS, **parts} | changed)


FOLDS = (
    manifest(1, (3, 4), (5, 6), (1, 2)),
    manifest(2, (1, 2, 5), (6,), (3, 4)),
    manifest(3, (1, 2, 3), (4,), (5, 6)),
)


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "models", FOLDS)


def write(folder, folds):
    for fold in folds:
        bundle = folder / f"fold-{fold.fold}"
        (bundle / "configs").mkdir(parents=True)
        fold.write(bundle)
    return folder


def test_a_manifest_is_read_as_it_was_written(folder):
    assert fold_folders(folder) == [folder / f"fold-{i}" for i in (1, 2, 3)]
    for bundle, fold in zip(fold_folders(folder), FOLDS, strict=True):
        assert FoldManifest.read(bundle).difference(fold) is None
        assert FoldManifest.read(bundle).train == fold.train


@pytest.mark.parametrize("number", range(1, 7))
def test_a_participant_is_explained_by_the_fold_that_never_saw_them(folder, number):
    study, name = Manifest.load(folder), f"sub-{number}"
    bundle = study.fold_of(name)
    assert bundle == folder / f"fold-{(number + 1) // 2}"
    assert study.models_for(name, f"hash{number}") == [bundle]
    others = [other for other in fold_folders(folder) if other != bundle]
    assert study.models_for(name, in_sample=True) == others
    assert not study.saw(bundle, name)
    study.check(bundle, name, f"hash{number}")
    for other in others:
        assert study.saw(other, name)
        with pytest.raises(GlasError, match=f"the model {other} was trained with {name}: set in_sample"):
            study.check(other, name)
        study.check(other, name, in_sample=True)


def test_a_participant_of_no_fold_is_explained_by_all(folder):
    study = Manifest.load(folder)
    assert study.models_for("sub-99", "other") == fold_folders(folder)
    assert not any(study.saw(bundle, "sub-99") for bundle in fold_folders(folder))
    with pytest.raises(GlasError, match=f"no participant sub-99 in the study of {folder}"):
        study.fold_of("sub-99")


def test_a_known_scan_under_another_name_is_refused(folder):
    study = Manifest.load(folder)
    with pytest.raises(
        GlasError, match=r"the scan of sub-99 is the file the model .*fold-1 was trained with as sub-3:"
    ):
        study.models_for("sub-99", "hash3")
    with pytest.raises(GlasError, match="fold-2 was trained with as sub-1:"):
        study.models_for("sub-99", "hash1")
    assert study.models_for("sub-99", "hash3", in_sample=True) == fold_folders(folder)
    with pytest.raises(GlasError, match=r"the scan of sub-1 is the file .* trained with as sub-3"):
        study.models_for("sub-1", "hash3")
    study.check(folder / "fold-1", "sub-99", "hash1")  # which it never saw
    with pytest.raises(GlasError, match="with as sub-5"):
        study.check(folder / "fold-1", "sub-99", "hash5")  # in validation


def test_a_session_is_named(tmp_path):
    fold = replace(FOLDS[0], train=seen(3, sessions=("ses-a", "ses-b")))
    study = Manifest.load(write(tmp_path, [fold]) / "fold-1")
    with pytest.raises(GlasError, match="with as sub-3 ses-b"):
        study.check(tmp_path / "fold-1", "sub-99", "hash3ses-b")


def test_one_bundle_alone(folder):
    bundle = folder / "fold-1"
    study = Manifest.load(bundle)
    assert study.models_for("sub-1") == [bundle]
    assert study.models_for("sub-99") == [bundle]
    for name in ("sub-3", "sub-5"):
        with pytest.raises(GlasError, match=f"trained with {name}"):
            study.models_for(name)
        with pytest.raises(GlasError, match=f"every model in {bundle} was trained with {name}"):
            study.fold_of(name)
        assert study.models_for(name, in_sample=True) == [bundle]


def test_a_bundle_by_another_path(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert Manifest.load(folder).saw("fold-1", "sub-3")
    with pytest.raises(GlasError, match=f"the model elsewhere is none of those in {folder}"):
        Manifest.load(folder).saw("elsewhere", "sub-3")


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        (FOLDS[:2], "a study must be whole, .* lacks fold 3"),
        ([FOLDS[0], replace(FOLDS[1], settings={}), FOLDS[2]], "trained alike, .*fold-2 differs from the first"),
        ([FOLDS[0], replace(FOLDS[1], folds=4), FOLDS[2]], "trained alike, .*fold-2"),
        ([FOLDS[0], replace(FOLDS[1], test=seen(3, 1)), FOLDS[2]], "sub-1 must be tested by one fold .* .*fold-2"),
        ([FOLDS[0], FOLDS[1], replace(FOLDS[2], train=seen(1), test=seen(3, 5))], "sub-3 must be tested by one fold"),
    ],
)
def test_folds_of_no_one_study_are_refused(tmp_path, folds, message):
    with pytest.raises(GlasError, match=message):
        Manifest.load(write(tmp_path, folds))


def test_a_fold_under_another_name(folder):
    shutil.move(folder / "fold-3", folder / "fold-7")
    with pytest.raises(GlasError, match=r"a fold must keep its name, .*fold-7 is fold 3"):
        Manifest.load(folder)


def test_folders_without_models_are_refused(folder, tmp_path):
    with pytest.raises(GlasError, match=r"models must be a folder that glas3d train wrote, .* does not exist"):
        Manifest.load(tmp_path / "no")
    (tmp_path / "empty").mkdir()
    with pytest.raises(GlasError, match=r"empty contains no folds from glas3d train: "):
        Manifest.load(tmp_path / "empty")
    (folder / "fold-2" / MANIFEST).unlink()
    with pytest.raises(GlasError, match=r"not recorded which participants trained the model .*fold-2: "):
        Manifest.load(folder)


def change(content, **changed):
    return json.dumps(json.loads(content) | changed)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "{",
        lambda text: "[]",
        lambda text: change(text, settings={"network": "z"}),
        lambda text: change(text, train=[{"participant_id": "sub-1"}]),
        lambda text: change(text, fold="x"),
        lambda text: change(text, settings=3),
    ],
)
def test_damaged_manifests_are_refused(folder, spoil):
    path = folder / "fold-2" / MANIFEST
    path.write_text(spoil(path.read_text()))
    with pytest.raises(GlasError, match=f"{path} (is damaged|is not: Expecting|holds a list)"):
        Manifest.load(folder)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 1}, "seed"),
        ({"folds": 4}, "folds"),
        ({"settings": SETTINGS | {"network": "z", "new": 1}}, "network, new"),
        ({"train": seen(3)}, "the scans to train with"),
        ({"validation": seen(5, 6, 7)}, "the scans to train with"),
        ({"test": tuple(replace(scan, sha256="x") for scan in seen(1, 2))}, "the scans to test with"),
        ({"train": tuple(replace(scan, group="MCI") for scan in seen(3, 4))}, "the scans to train with"),
        ({"train": seen(4, 3)}, None),
    ],
    ids=str,
)
def test_differences_are_named(changed, message):
    assert FOLDS[0].difference(replace(FOLDS[0], **changed)) == message


def with_voxels(fold):
    parts = {
        part: tuple(replace(scan, voxels_sha256=f"voxels of {scan.participant_id}") for scan in getattr(fold, part))
        for part in ("train", "validation", "test")
    }
    return replace(fold, **parts)


def test_a_training_scan_is_recognised_by_its_voxels(tmp_path):
    study = Manifest.load(write(tmp_path / "models", map(with_voxels, FOLDS)))
    assert study.records_voxels
    for stranger in ("sub-9", "sub-1"):  # not of the study, and tested by the first fold
        with pytest.raises(GlasError, match=f"the scan of {stranger} has the voxels of the scan the model .* as sub-3"):
            study.models_for(stranger, "another file", voxels_sha256="voxels of sub-3")
    assert study.models_for("sub-1", "another file", voxels_sha256="voxels of sub-1") == [
        tmp_path / "models" / "fold-1"
    ]
    assert len(study.models_for("sub-9", "another file", voxels_sha256="voxels of sub-9")) == 3
    assert study.models_for("sub-9", "a file", voxels_sha256="voxels of sub-3", in_sample=True)
    assert study.knows("sub-1", "hash1")
    assert not study.knows("sub-9", "hash1")


def test_a_manifest_without_hashes_of_voxels_is_read(folder):
    for path in folder.rglob("manifest.json"):
        content = json.loads(path.read_text())
        for part in ("train", "validation", "test"):
            for scan in content[part]:
                del scan["voxels_sha256"]
        path.write_text(json.dumps(content))
    study = Manifest.load(folder)
    assert not study.records_voxels
    for bundle, fold in zip(fold_folders(folder), FOLDS, strict=True):
        assert FoldManifest.read(bundle).difference(with_voxels(fold)) is None  # hence it is not trained again
    assert len(study.models_for("sub-9", "another file", voxels_sha256="voxels of sub-3")) == 3
