"""Settings of all tests: one thread, because cores are shared, and property tests that are quick and repeatable."""

import hypothesis
import pytest
import torch

from glas3d.predict import use_clock

torch.set_num_threads(1)
hypothesis.settings.register_profile("glas3d", max_examples=20, deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("glas3d")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Run files with slow tests first: with several workers none is left alone with a long file at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def still_clock():
    """Stop the clock that compares engines, so that ``engine="auto"`` is always the network itself."""
    with use_clock(lambda: 0.0):
        yield


@pytest.fixture(scope="session")
def aal():
    """Return the shipped atlas."""
    from glas3d.imaging.atlas import Atlas

    return Atlas.load("AAL")


@pytest.fixture(scope="session")
def few(aal):
    """Return eight regions of AAL, for tests that do not need a whole atlas."""
    import nibabel as nib
    import numpy as np

    from glas3d.imaging.atlas import Atlas

    table = aal.table[aal.table["name"].str.fullmatch("(Hippocampus|Amygdala|Putamen|Precuneus)_[LR]")]
    labels = np.asarray(aal.labels_img.dataobj)
    chosen = nib.Nifti1Image(np.where(np.isin(labels, table["index"]), labels, 0), aal.labels_img.affine)
    return Atlas("few", chosen, table.reset_index(drop=True), "0" * 64, "MNI")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Return the folder of a tiny model."""
    from tests import bundles

    return bundles.write(tmp_path_factory.mktemp("models") / "tiny")
