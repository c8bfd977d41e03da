"""Every table that a simulation, training and a study write has a sidecar that describes every column."""

import json

import numpy as np
import pandas as pd
import pytest

from glas3d import explain_img, load_model
from glas3d.errors import GlasWarning
from glas3d.evaluate import compare
from glas3d.predict import Recipe
from glas3d.simulate import Simulation, write_dataset
from glas3d.study import explain_cohort, read_cohort, summarise_groups, train_folds
from tests import bundles, documented
from tests.study import studies

pytestmark = pytest.mark.filterwarnings(f"ignore::{GlasWarning.__module__}.{GlasWarning.__qualname__}")


def check_tables(folder, least):
    """Refuse tables without a sidecar, columns without a description, numbers without a scale, and what the page lacks.

    The folder ``atlas`` of a study is a copy of a user's own files, byte for byte.
    """
    paths = sorted(path for path in folder.rglob("*.tsv") if not any(part.startswith(".") for part in path.parts))
    paths = [path for path in paths if path.parent != folder / "atlas"]
    assert len(paths) >= least
    assert documented.unknown(folder) == set()
    for path in paths:
        table = pd.read_csv(path, sep="\t", keep_default_na=False, na_values=["n/a"])
        sidecar = json.loads(path.with_suffix(".json").read_text())
        for column in table:
            described = sidecar.get(column)
            assert isinstance(described, dict), (path.name, column)
            assert len(described["Description"]) > 5, (path.name, column)
            assert described["Description"] != column, (path.name, column)
            if pd.api.types.is_numeric_dtype(table[column]) and table[column].notna().any():
                assert described.get("Units"), (path.name, column)


def check_maps(folder, least):
    """Refuse a map whose sidecar does not say on which scale it is."""
    paths = sorted(folder.rglob("*_statmap.nii.gz"))
    assert len(paths) >= least
    for path in paths:
        sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
        assert sidecar["Units"], path.name


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a simulated data set of every kind of table."""
    simulation = Simulation(
        participants=12, resolution=12, suppressor="Fusiform_L", lesions=(1, 2), artefacts=("gibbs",)
    )
    return write_dataset(tmp_path_factory.mktemp("data") / "simulated", simulation)


@pytest.mark.slow
def test_simulated_data_training_and_a_study(data, few, tmp_path):
    check_tables(data, 3)
    cohort = read_cohort(data, covariates=["age"])
    recipe = Recipe(epochs=2, pretraining=1)
    train_folds(cohort, tmp_path / "models", folds=2, resolution=12, recipe=recipe, assume_space="MNI")
    check_tables(tmp_path / "models", 8)
    out = tmp_path / "study"
    explain_cohort(cohort, out, tmp_path / "models", search=str(studies.atlas(tmp_path, few)), assume_space="MNI")
    change = pd.read_csv(next(out.rglob("sub-*_regions.tsv")), sep="\t")[["name"]].assign(change=0.0)
    people = cohort.everyone["participant_id"].unique()
    rows = [
        change.assign(participant_id=name, change=[i % 7 for i in range(k, k + 8)]) for k, name in enumerate(people)
    ]
    pd.concat(rows).to_csv(tmp_path / "change.tsv", sep="\t", index=False)
    summarise_groups(
        out,
        cohort.everyone,
        case="AD",
        control="NC",
        n_perm=19,
        n_boot=10,
        voxelwise=True,
        tfce=True,
        correlate=["age"],
        volume_change=tmp_path / "change.tsv",
        k=3,
    )
    check_tables(out, 20)
    check_maps(out, 20)


@pytest.mark.parametrize(
    ("options", "score"),
    [
        ({}, "product of two probabilities"),
        ({"fusion": "light"}, "probability"),
        ({"versus": "NC"}, "product of two probabilities"),
        ({"recursive": True}, "0 to 1, all rounds fused and normalised"),
        ({"scales": (0.5, 1)}, "standard deviations over the points, mean of the scales"),
        ({"background": [0, "blur"]}, "share, median of scores divided by the sum of their sizes"),
        ({"refine": 0.5}, "product of two probabilities"),
    ],
    ids=str,
)
def test_every_mode_says_on_which_scale_its_numbers_are(bundle, tmp_path, few, options, score):
    r = explain_img(bundles.t1(), load_model(str(bundle)), "AD", few, **options)
    r.save(tmp_path)
    check_tables(tmp_path, 1)
    check_maps(tmp_path, 2)
    sidecar = json.loads((tmp_path / f"{r.stem}_regions.json").read_text())
    assert sidecar["score"]["Units"] == score
    if "drop" in r.table:
        assert sidecar["drop"]["Units"] == ("difference of probabilities" if "versus" in options else "probability")


@pytest.mark.parametrize(
    ("options", "sign"),
    [
        ({"preset": "paper"}, "drop: for where the output falls"),
        ({"preset": "paper", "versus": "NC"}, "drop: for where the difference of the two classes' outputs falls"),
        ({"preset": "evidence"}, "evidence: for above 0"),
        ({"preset": "evidence", "versus": "NC"}, "evidence: for above 0"),
        ({"fusion": "light"}, None),
    ],
    ids=str,
)
def test_the_direction_is_the_sign_that_the_sidecar_names(bundle, tmp_path, few, options, sign):
    r = explain_img(bundles.t1(), load_model(str(bundle)), "AD", few, **options)
    r.save(tmp_path)
    text = json.loads((tmp_path / f"{r.stem}_regions.json").read_text())["direction"]["Description"]
    if sign is None:
        assert text == "n/a, because light alone has no sign"
        assert r.table["direction"].isna().all()
        return
    assert text.startswith(f"Sign of the {sign}")
    signs = np.sign(r.table[sign.split(":")[0]])
    assert (r.table["direction"].map({"for": 1, "against": -1}).fillna(0) == signs).all()
    assert (signs != 0).any()


def test_a_comparison_of_methods(bundle, tmp_path, few):
    compare(bundles.t1(), load_model(str(bundle)), "AD", ["glas", "occlusion"], few).save(tmp_path)
    check_tables(tmp_path, 1)
