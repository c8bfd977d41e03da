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
def place(tmp_path):
    return write(tmp_path / "models", FOLDS)


def write(place, folds):
    for one in folds:
        bundle = place / f"fold-{one.fold}"
        (bundle / "configs").mkdir(parents=True)
        one.write(bundle)
    return place


def test_what_is_written_is_read(place):
    assert fold_folders(place) == [place / f"fold-{i}" for i in (1, 2, 3)]
    for bundle, one in zip(fold_folders(place), FOLDS, strict=True):
        assert FoldManifest.read(bundle).difference(one) is None
        assert FoldManifest.read(bundle).train == one.train


@pytest.mark.parametrize("number", range(1, 7))
def test_a_participant_is_explained_by_the_fold_that_never_saw_them(place, number):
    found, name = Manifest.load(place), f"sub-{number}"
    bundle = found.fold_of(name)
    assert bundle == place / f"fold-{(number + 1) // 2}"
    assert found.models_for(name, f"hash{number}") == [bundle]
    others = [one for one in fold_folders(place) if one != bundle]
    assert found.models_for(name, in_sample=True) == others
    assert not found.saw(bundle, name)
    found.check(bundle, name, f"hash{number}")
    for other in others:
        assert found.saw(other, name)
        with pytest.raises(GlasError, match=f"the model {other} was trained with {name}: set in_sample"):
            found.check(other, name)
        found.check(other, name, in_sample=True)


def test_an_outsider_is_explained_by_all(place):
    found = Manifest.load(place)
    assert found.models_for("sub-99", "other") == fold_folders(place)
    assert not any(found.saw(bundle, "sub-99") for bundle in fold_folders(place))
    with pytest.raises(GlasError, match=f"no participant sub-99 in the study of {place}"):
        found.fold_of("sub-99")


def test_a_known_scan_under_another_name_is_found(place):
    found = Manifest.load(place)
    with pytest.raises(
        GlasError, match=r"the scan of sub-99 is the file the model .*fold-1 was trained with as sub-3:"
    ):
        found.models_for("sub-99", "hash3")
    with pytest.raises(GlasError, match="fold-2 was trained with as sub-1:"):
        found.models_for("sub-99", "hash1")
    assert found.models_for("sub-99", "hash3", in_sample=True) == fold_folders(place)
    with pytest.raises(GlasError, match=r"the scan of sub-1 is the file .* trained with as sub-3"):
        found.models_for("sub-1", "hash3")
    found.check(place / "fold-1", "sub-99", "hash1")  # which it never saw
    with pytest.raises(GlasError, match="with as sub-5"):
        found.check(place / "fold-1", "sub-99", "hash5")  # in validation


def test_a_session_is_named(tmp_path):
    one = replace(FOLDS[0], train=seen(3, sessions=("ses-a", "ses-b")))
    found = Manifest.load(write(tmp_path, [one]) / "fold-1")
    with pytest.raises(GlasError, match="with as sub-3 ses-b"):
        found.check(tmp_path / "fold-1", "sub-99", "hash3ses-b")


def test_one_bundle_alone(place):
    bundle = place / "fold-1"
    found = Manifest.load(bundle)
    assert found.models_for("sub-1") == [bundle]
    assert found.models_for("sub-99") == [bundle]
    for name in ("sub-3", "sub-5"):
        with pytest.raises(GlasError, match=f"trained with {name}"):
            found.models_for(name)
        with pytest.raises(GlasError, match=f"every model in {bundle} was trained with {name}"):
            found.fold_of(name)
        assert found.models_for(name, in_sample=True) == [bundle]


def test_a_bundle_by_another_path(place, monkeypatch):
    monkeypatch.chdir(place)
    assert Manifest.load(place).saw("fold-1", "sub-3")
    with pytest.raises(GlasError, match=f"the model elsewhere is none of those in {place}"):
        Manifest.load(place).saw("elsewhere", "sub-3")


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
def test_studies_that_are_none(tmp_path, folds, message):
    with pytest.raises(GlasError, match=message):
        Manifest.load(write(tmp_path, folds))


def test_a_fold_under_another_name(place):
    shutil.move(place / "fold-3", place / "fold-7")
    with pytest.raises(GlasError, match=r"a fold must keep its name, .*fold-7 is fold 3"):
        Manifest.load(place)


def test_folders_that_are_none(place, tmp_path):
    with pytest.raises(GlasError, match=r"models must lie in a folder, .* does not exist"):
        Manifest.load(tmp_path / "no")
    (tmp_path / "empty").mkdir()
    with pytest.raises(GlasError, match=r"not recorded which participants trained the models in .*empty: "):
        Manifest.load(tmp_path / "empty")
    (place / "fold-2" / MANIFEST).unlink()
    with pytest.raises(GlasError, match=r"not recorded which participants trained the model .*fold-2: "):
        Manifest.load(place)


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
def test_damaged_manifests(place, spoil):
    path = place / "fold-2" / MANIFEST
    path.write_text(spoil(path.read_text()))
    with pytest.raises(GlasError, match=f"{path} is damaged"):
        Manifest.load(place)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 1}, "seed"),
        ({"folds": 4}, "folds"),
        ({"settings": SETTINGS | {"network": "z", "new": 1}}, "network, new"),
        ({"train": seen(3)}, "the scans to train with"),
        ({"validation": seen(5, 6, 7)}, "the scans to train with"),
        ({"test": tuple(replace(one, sha256="x") for one in seen(1, 2))}, "the scans to test with"),
        ({"train": tuple(replace(one, group="MCI") for one in seen(3, 4))}, "the scans to train with"),
        ({"train": seen(4, 3)}, None),
    ],
    ids=str,
)
def test_what_differs_is_named(changed, message):
    assert FOLDS[0].difference(replace(FOLDS[0], **changed)) == message
