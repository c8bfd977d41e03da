"""A study of two folds that trains in a moment, and the files by which it is compared."""

from dataclasses import replace

import pytest

from glas3d.predict import Recipe
from glas3d.study.training.crossvalidation import train_folds

QUICK = Recipe(epochs=2, pretraining=1, batch_size=3, sigma=(1.5, 3.0), max_gaussians=2)
ONE = replace(QUICK, epochs=1, pretraining=0)
MODELS = ("model.safetensors", "mean.nii.gz", "std.nii.gz", "reference.nii.gz")

IGNORED = (  # Dask closes sockets and loops late, and the machine may have fewer cores than workers
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore:.*share .* cores:glas3d.errors.GlasWarning",
)


def with_workers(test):
    """Mark a slow test that starts worker processes."""
    for ignored in IGNORED:
        test = pytest.mark.filterwarnings(ignored)(test)
    return pytest.mark.slow(test)


def trained(cohort, out, **settings):
    given = {"folds": 2, "resolution": None, "recipe": QUICK, "validation": 0.3, "assume_space": "MNI"}
    return train_folds(cohort, out, **given | settings)


def contents(bundle, names=MODELS):
    return {name: (bundle / "models" / name).read_bytes() for name in names}


def tree(folder):
    hidden = folder / ".cache"
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file() and hidden not in p.parents}


def weights(result, fold=1):
    return contents(result.folder / f"fold-{fold}", ["model.safetensors"])
