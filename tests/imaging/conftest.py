"""ITK's files as ANTs would write them, of a known deformation and motion."""

import numpy as np
import pytest

from glas3d.imaging.itk import write_matrix
from tests.imaging.native import MOVED, bend, unbend, write_field


@pytest.fixture(scope="session")
def ants():
    return pytest.importorskip("ants", reason="antspyx is not installed: the extra register")


@pytest.fixture(scope="session")
def itk():
    return pytest.importorskip("SimpleITK", reason="SimpleITK is not installed: the extra transforms")


@pytest.fixture(scope="module")
def files(tmp_path_factory, itk):
    """Return the files that ``antsRegistration`` would write for the known deformation and motion, with its names."""
    folder = tmp_path_factory.mktemp("ants")
    write_field(folder / "sub_1Warp.nii.gz", bend)
    write_field(folder / "sub_1InverseWarp.nii.gz", unbend)
    write_matrix(np.linalg.inv(MOVED), folder / "sub_0GenericAffine.txt")
    itk.WriteTransform(
        itk.ReadTransform(str(folder / "sub_0GenericAffine.txt")), str(folder / "sub_0GenericAffine.mat")
    )
    return folder
