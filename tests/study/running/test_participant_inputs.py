"""Inputs of a study next to the scans: covariates, coordinates, a probabilistic atlas and registration."""

import importlib.metadata
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from glas3d import Atlas, GlasError, Grid, Predictor
from glas3d.errors import GlasWarning
from glas3d.explain import explain_img
from glas3d.imaging.space import mni_grid
from glas3d.imaging.spatial_transform import Affine
from glas3d.study.group.level import summarise_groups
from glas3d.study.running.runner import explain_cohort
from tests.study import folders, studies
from tests.study.studies import SEARCH

pytestmark = pytest.mark.filterwarnings("ignore:The training participants of the model")
ASSUMED = {"search": SEARCH, "assume_space": "MNI", "preset": "paper"}
MODEL = "tests.study.running.test_participant_inputs:knows_age"
COVARIATES = {"covariates": ["age", "mmse"], "covariate_reference": {"age": 60.0, "mmse": 30.0}}


def knows_age():
    """Return a model whose P(AD) grows with age, with a lower score and with a darker scan."""

    def probabilities(batch, table):
        brightness = 0.002 * batch.mean(dim=(1, 2, 3, 4))
        p = (0.5 + 0.02 * (table[:, 0] - 60) - 0.01 * (table[:, 1] - 30) - 0.3 * brightness).sigmoid()
        return np.stack([1 - p, p], axis=1)

    return Predictor(probabilities, "none", classes=("NC", "AD"), covariates=("age", "mmse"), device="cpu")


@pytest.fixture
def bids_dir(tmp_path):
    """Return the folder of a study of four participants with a score."""
    return studies.bids(tmp_path / "data", 4, mmse=[20, 29, 22, 28])


def test_covariates_are_read_from_the_table_of_participants(bids_dir, read_regions, tmp_path):
    cohort, out = studies.cohort(bids_dir), tmp_path / "out"
    explain_cohort(cohort, out, MODEL, **ASSUMED, **COVARIATES)
    regions = read_regions(out, "sub-03")
    alone = explain_img(
        folders.scan(bids_dir, "sub-03"),
        knows_age(),
        "AD",
        Grid(SEARCH),
        assume_space="MNI",
        covariates={"age": 61.0, "mmse": 22.0},
        covariate_reference=COVARIATES["covariate_reference"],
        preset="paper",
    ).table.set_index("name")
    np.testing.assert_allclose(regions["score"], alone["score"], atol=1e-6)
    assert regions.loc["mmse", "drop"] > 0
    folders.write_people(bids_dir, folders.people(4, mmse=[20, 29, 21, 28]))  # the score of one participant changes
    again = explain_cohort(studies.cohort(bids_dir), out, MODEL, **ASSUMED, **COVARIATES).outcomes["status"]
    assert again.tolist() == ["kept", "kept", "explained", "kept"]
    with pytest.warns(GlasWarning, match="no two-sided p-value can be below 0.5"):
        result = summarise_groups(out, cohort.everyone, case="AD", control="NC", n_perm=19, n_boot=0)
    assert len(result.tables["AD"]) == 4  # four points; covariates are in the tables of participants only


@pytest.mark.parametrize(
    ("mmse", "message"),
    [([20, 29, None, 28], "mmse of sub-03 is missing"), ([20, 29, "low", 28], "mmse of sub-01 is '20'")],
)
def test_a_covariate_that_is_not_a_number_is_refused(bids_dir, tmp_path, mmse, message):
    folders.write_people(bids_dir, folders.people(4, mmse=mmse))
    with pytest.raises(GlasError, match=f"must be numbers, {message}"):
        explain_cohort(studies.cohort(bids_dir), tmp_path / "out", MODEL, **ASSUMED, **COVARIATES)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "takes the covariates age, mmse: name their columns"),
        ({"covariates": ["age"], "covariate_reference": {"age": 60.0}}, "needs a value, 'mmse' has none"),
        ({"covariates": ["age", "mmse"], "covariate_reference": {"age": 60.0}}, "reference value, 'mmse' has none"),
        (COVARIATES | {"scales": [0.5, 1.0]}, "ranked in the plain mode only, got scales too"),
    ],
)
def test_covariates_that_the_model_does_not_take_are_refused(bids_dir, tmp_path, settings, message):
    with pytest.raises(GlasError, match=message):
        explain_cohort(studies.cohort(bids_dir), tmp_path / "out", MODEL, **ASSUMED, **settings)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def models(bids_dir, tmp_path):
    """Return the folder of two folds of models of the study."""
    return studies.folds(tmp_path / "folds", studies.cohort(bids_dir))


def test_changed_coordinates_are_another_study(bids_dir, models, read_regions, tmp_path):
    path = tmp_path / "coordinates.tsv"
    coordinates = pd.DataFrame({"x": [-25.0, 26.0], "y": [-20.0, -18.0], "z": [-12.0, 0.0], "name": ["left", "right"]})
    coordinates.to_csv(path, sep="\t", index=False)
    options = {"search": path, "assume_space": "MNI"}
    cohort, out = studies.cohort(bids_dir), tmp_path / "out"
    explain_cohort(cohort, out, models, **options)
    assert read_regions(out, "sub-01").index.tolist() == ["left", "right"]
    assert explain_cohort(cohort, out, models, **options).count("kept") == 4
    coordinates.assign(z=[-12.0, 1.0]).to_csv(path, sep="\t", index=False)
    with pytest.raises(GlasError, match="made with other search: "):
        explain_cohort(cohort, out, models, **options)
    assert explain_cohort(cohort, out, models, **options, overwrite=True).count("explained") == 4


def test_a_probabilistic_atlas_is_searched(bids_dir, models, read_regions, tmp_path):
    """A voxel of overlapping balls belongs to the ball of the highest probability."""
    grid = mni_grid(8)
    x, y, z = np.moveaxis(nib.affines.apply_affine(grid.affine, np.moveaxis(np.indices(grid.shape), 0, -1)), -1, 0)
    balls = [np.exp(-((x - at) ** 2 + (y + 10) ** 2 + (z - 10) ** 2) / 800) for at in (-40, 0, 40)]
    path = tmp_path / "atlas-balls_probseg.nii.gz"
    nib.save(nib.Nifti1Image(np.stack(balls, axis=-1).astype(np.float32), grid.affine), path)
    names = pd.DataFrame({"index": [1, 2, 3], "name": ["Ball_L", "Ball", "Ball_R"]})
    names.to_csv(tmp_path / "atlas-balls_probseg.tsv", sep="\t", index=False)
    explain_cohort(studies.cohort(bids_dir), tmp_path / "out", models, search=path, assume_space="MNI")
    regions = read_regions(tmp_path / "out", "sub-01")
    assert regions.index.tolist() == ["Ball_L", "Ball", "Ball_R"]
    assert regions["hemisphere"].tolist() == ["L", "midline", "R"]
    assert Atlas.load(str(path)).table["name"].tolist() == ["Ball_L", "Ball", "Ball_R"]
    with pytest.warns(GlasWarning, match="no two-sided p-value can be below 0.5"):
        summarise_groups(
            tmp_path / "out", studies.cohort(bids_dir).everyone, case="AD", control="NC", n_perm=19, n_boot=0
        )


def test_brains_are_found_in_every_scan(bids_dir, models, tmp_path, monkeypatch):
    """The version of deepbet is a part of the key."""
    found = []

    def brain_mask_of(scan):
        found.append(Path(scan.name).name[:6])
        brain = replace(scan, data=(np.indices(scan.shape)[1] > 3).astype(np.float32))
        return brain, {"name": "deepbet", "version": "9.9", "sha256": "0" * 64}

    version = importlib.metadata.version
    monkeypatch.setattr("glas3d.explain.inputs.brain_mask_of", brain_mask_of)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.9" if name == "deepbet" else version(name))
    cohort, out = studies.cohort(bids_dir), tmp_path / "out"
    options = ASSUMED | {"brain_mask": "auto"}
    explain_cohort(cohort, out, models, **options)
    assert found == [f"sub-0{i}" for i in range(1, 5)]
    study = json.loads((out / "study.json").read_text())
    assert study["Version"].endswith(", deepbet 9.9")
    assert study["Settings"]["brain_mask"] == "auto"
    assert explain_cohort(cohort, out, models, **options).count("kept") == 4
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "10" if name == "deepbet" else version(name))
    assert explain_cohort(cohort, out, models, **options).count("explained") == 4


def test_without_deepbet_a_study_is_refused_before_anything_is_written(bids_dir, models, tmp_path, monkeypatch):
    version = importlib.metadata.version

    def version_of(name):
        if name == "deepbet":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", version_of)
    with pytest.raises(GlasError, match=r'needs deepbet: pip install "glas3d\[brain-mask\]"$'):
        explain_cohort(studies.cohort(bids_dir), tmp_path / "out", models, **ASSUMED, brain_mask="auto")
    assert not (tmp_path / "out").exists()


def test_every_scan_is_registered_and_explained_again_for_another_kind(bids_dir, models, tmp_path, monkeypatch):
    """The kind of the registration and the version of antspyx are parts of the key."""
    pytest.importorskip("ants", reason="antspyx is not installed: the extra register")
    registered = []

    def register(scan, kind):
        registered.append((scan.name, kind))
        return Affine(np.diag([1.0, 1.0, 1.0, 1.0]), "the registration", {"kind": kind})

    monkeypatch.setattr("glas3d.imaging.registration.register", register)
    cohort, out = studies.cohort(bids_dir), tmp_path / "out"
    options = ASSUMED | {"register": "affine"}
    explain_cohort(cohort, out, models, **options)
    assert [(Path(name).name[:6], kind) for name, kind in registered] == [(f"sub-0{i}", "affine") for i in range(1, 5)]
    assert "antspyx" in json.loads((out / "study.json").read_text())["Version"]
    (path,) = (out / "sub-02").rglob("*_space-MNI152NLin2009aSym_stat-saliency_statmap.nii.gz")
    assert nib.load(path).shape == studies.GRID.shape
    assert explain_cohort(cohort, out, models, **options).count("kept") == 4
    assert len(registered) == 4
    again = explain_cohort(cohort, out, models, **ASSUMED | {"register": "SyN"}, overwrite=True)
    assert again.count("explained") == 4
