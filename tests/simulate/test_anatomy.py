"""Templates that participants can be made from."""

import nibabel as nib
import numpy as np
import pytest

from glas3d import GlasError
from glas3d.imaging.space import mni_grid, resample, template, template_on
from glas3d.simulate import Simulation, simulate_participant
from glas3d.simulate import anatomy as anatomies
from glas3d.simulate.anatomy import COLIN27_PATH, anatomy


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The T1 template at 2 mm in other units, on a grid of its own with unequal axes."""
    affine = np.diag([-2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = [88, -122, -74]
    grid = type(mni_grid(2))((90, 106, 94), affine)
    path = tmp_path_factory.mktemp("template") / "mybrain.nii.gz"
    nib.Nifti1Image(resample(template(), grid) * np.float32(3000), affine).to_filename(path)
    return path


def test_the_tissues_of_a_template_of_one_s_own_are_those_of_its_intensities(own):
    made = anatomy(str(own), 4)
    inside = template_on(4) > 0.3
    assert np.corrcoef(made.t1[inside], template_on(4)[inside])[0, 1] > 0.98
    white = template_on(4, "wm") > 0.98
    assert made.t1[white].mean() == pytest.approx(template_on(4)[white].mean(), rel=0.05)
    for found, tissue in ((made.grey, "gm"), (made.white, "wm")):
        assert np.corrcoef(found[inside], template_on(4, tissue)[inside])[0, 1] > 0.7
        assert 0 <= found.min() <= found.max() <= 1.0001
    assert (made.brain[template_on(4) > 0.3] > 0.5).mean() > 0.99
    assert (made.brain[template_on(4) == 0] < 0.5).all()


def test_participants_are_made_from_a_template_of_one_s_own(own):
    settings = {"participants": 2, "resolution": 4, "seed": 3}
    of_own, usual = (simulate_participant(Simulation(**settings, template=t), 0) for t in (own, "ICBM152"))
    assert (of_own.age, of_own.severity) == (usual.age, usual.severity)
    brain = template_on(4) > 0.3
    assert np.corrcoef(of_own.volume[brain], usual.volume[brain])[0, 1] > 0.9
    healed = simulate_participant(Simulation(**settings, template=own), 0, ()).volume
    assert (healed - of_own.volume)[healed > 0].mean() > 0


def test_a_head_or_a_native_scan_is_no_template(tmp_path):
    head = template_on(4) + 0.0
    head[2:-2, 2:-2, 2:-2] += 0.4  # tissue all around
    affine = mni_grid(4).affine
    nib.Nifti1Image(head.astype(np.float32), affine).to_filename(tmp_path / "head.nii.gz")
    with pytest.raises(
        GlasError, match=r"a brain without skull in MNI space, .*head.nii.gz is not: it holds more than"
    ):
        anatomy(str(tmp_path / "head.nii.gz"), 8)
    moved = affine.copy()
    moved[:3, 3] += 60
    nib.Nifti1Image(template_on(4), moved).to_filename(tmp_path / "native.nii.gz")
    with pytest.raises(GlasError, match=r"in MNI space, .*native.nii.gz is not: its field of view"):
        anatomy(str(tmp_path / "native.nii.gz"), 8)
    with pytest.raises(GlasError, match="no such file: nowhere"):
        simulate_participant(Simulation(template="nowhere.nii", resolution=8), 0)


def test_colin27_is_read_where_debian_puts_it(tmp_path, monkeypatch):
    monkeypatch.setattr(anatomies, "COLIN27_PATH", tmp_path / "ch2bet.nii.gz")
    with pytest.raises(GlasError, match=r"Colin27 must be at .*ch2bet.nii.gz, where Debian's package mricron-data"):
        simulate_participant(Simulation(template="Colin27", resolution=8), 0)


@pytest.mark.skipif(not COLIN27_PATH.is_file(), reason="Debian's package mricron-data is not installed")
def test_participants_are_made_from_colin27():
    made = anatomy("Colin27", 4)
    inside = template_on(4) > 0.3
    assert np.corrcoef(made.grey[inside], template_on(4, "gm")[inside])[0, 1] > 0.3
    ill, well = (simulate_participant(Simulation(template="Colin27"), 0, keep).volume for keep in (None, ()))
    assert 0 < (ill != well).sum() < 0.1 * ill.size
    assert not np.array_equal(well, simulate_participant(Simulation(), 0, ()).volume)
