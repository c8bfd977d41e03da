"""Files of ITK and ANTs against formulas and against SciPy, and damaged files."""

import subprocess
import time

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine, from_matvec
from nibabel.eulerangles import euler2mat
from scipy.ndimage import map_coordinates

from glas3d import GlasError, GlasWarning
from glas3d.imaging import itk as own
from glas3d.imaging.itk import Deformation, apply_steps, map_points, read_step, write_matrix
from glas3d.imaging.space import VoxelGrid
from tests.imaging.cases import refused

LPS = np.array([-1.0, -1.0, 1.0])
POINTS = np.random.default_rng(3).uniform(-60, 60, (40, 3))
TURN = euler2mat(0.1, -0.2, 0.3)  # about z, y and x
# A grid of unequal axes and oblique voxels, one axis turned around
FIELD_GRID = VoxelGrid(
    (7, 8, 9), from_matvec(euler2mat(0.2, 0.1, -0.3) @ np.diag([-9.0, 8.0, 7.0]), [30.0, -25.0, -28.0])
)
SLOPE = np.array([[0.02, -0.05, 0.01], [0.03, 0.04, -0.02], [-0.01, 0.02, 0.06]])
SHIFT = np.array([2.0, -3.0, 1.5])
MOVE = from_matvec(euler2mat(0.2, -0.1, 0.15) @ np.diag([1.1, 0.9, 1.05]), [4.0, -7.0, 3.0])


def deformed(points):
    """Return where a field of linear displacements maps points: interpolation between its voxels is exact."""
    return points + points @ SLOPE.T + SHIFT


def inside(grid, count=60):
    """Return points within the grid's outer voxel centres."""
    shape = np.array(grid.shape)
    return apply_affine(grid.affine, np.random.default_rng(5).uniform(0.01, 0.99, (count, 3)) * (shape - 1))


def write_field(path, grid=FIELD_GRID):
    at = apply_affine(grid.affine, np.moveaxis(np.indices(grid.shape), 0, -1))
    img = nib.Nifti1Image(((deformed(at) - at) * LPS)[:, :, :, None].astype(np.float32), grid.affine)
    img.header.set_intent("vector")
    img.to_filename(path)
    return path


def composite(itk, path, field):
    """Write a composite that passes a point to the field first and then to the matrix; in doubles, as ITK does."""
    write_matrix(MOVE, path.with_suffix(".txt"))
    both = itk.CompositeTransform(3)
    both.AddTransform(itk.ReadTransform(str(path.with_suffix(".txt"))))
    both.AddTransform(itk.DisplacementFieldTransform(itk.ReadImage(str(field), itk.sitkVectorFloat64)))
    itk.WriteTransform(both, str(path))
    return path


CENTRE, OFFSET = np.array([5.0, -11.0, 7.0]), np.array([3.0, -4.0, 6.0])
SHEARED = np.array([[1.1, 0.2, -0.1], [0.05, 0.9, 0.1], [-0.2, 0.1, 1.2]])


def rotation(x, y, z):
    """Return Rz Rx Ry, the order of ITK's Euler angles."""
    cx, sx, cy, sy, cz, sz = np.cos(x), np.sin(x), np.cos(y), np.sin(y), np.cos(z), np.sin(z)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_x @ about_y


KINDS = {
    "affine": (lambda itk: itk.AffineTransform(SHEARED.ravel().tolist(), OFFSET.tolist(), CENTRE.tolist()), SHEARED),
    "euler": (lambda itk: itk.Euler3DTransform(CENTRE.tolist(), 0.2, -0.3, 0.4, OFFSET.tolist()),
              rotation(0.2, -0.3, 0.4)),
    "similarity": (lambda itk: itk.Similarity3DTransform(1.3, [0, 0, 1], 0.5, OFFSET.tolist(), CENTRE.tolist()),
                   1.3 * rotation(0, 0, 0.5)),
    "scale": (lambda itk: itk.ScaleTransform(3, [1.2, 0.8, 1.1]), np.diag([1.2, 0.8, 1.1])),
    "translation": (lambda itk: itk.TranslationTransform(3, OFFSET.tolist()), np.eye(3)),
}  # fmt: skip


@pytest.mark.parametrize("ending", ["mat", "txt", "tfm", "h5"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_matrix_follows_its_formula(tmp_path, itk, kind, ending):
    """In ITK's world ``y = A (x - centre) + centre + offset``."""
    make, matrix = KINDS[kind]
    path = tmp_path / f"transform.{ending}"
    itk.WriteTransform(make(itk), str(path))
    centre = CENTRE if kind in ("affine", "euler", "similarity") else np.zeros(3)
    offset = np.zeros(3) if kind == "scale" else OFFSET
    expected = (((POINTS * LPS) - centre) @ matrix.T + centre + offset) * LPS
    step = read_step(path)
    assert isinstance(step, np.ndarray)
    np.testing.assert_allclose(apply_affine(step, POINTS), expected, atol=1e-9)
    np.testing.assert_allclose(map_points(POINTS, [step]), expected, atol=1e-9)


def test_several_transforms_in_one_file_are_one_matrix(tmp_path, itk):
    """A composite passes a point to its last transform first."""
    together = itk.CompositeTransform(3)
    together.AddTransform(itk.TranslationTransform(3, [1.0, 2.0, 3.0]))
    for kind in ("affine", "euler"):
        together.AddTransform(KINDS[kind][0](itk))
    itk.WriteTransform(together, str(tmp_path / "all.h5"))
    expected = POINTS * LPS
    for kind in ("euler", "affine"):
        expected = (expected - CENTRE) @ KINDS[kind][1].T + CENTRE + OFFSET
    step = read_step(tmp_path / "all.h5")
    assert isinstance(step, np.ndarray)
    np.testing.assert_allclose(apply_affine(step, POINTS), (expected + np.array([1, 2, 3])) * LPS, atol=1e-9)


@pytest.mark.parametrize("name", ["warp.nii.gz", "warp.nii", "both.h5"])
def test_a_field_follows_its_formula(tmp_path, itk, name):
    """Points between voxels of an oblique grid, one after the other through field and matrix; 0 outside the field."""
    field = write_field(tmp_path / "warp.nii.gz" if name == "both.h5" else tmp_path / name)
    steps = [read_step(field), MOVE] if name != "both.h5" else [read_step(composite(itk, tmp_path / name, field))]
    points = inside(FIELD_GRID)
    np.testing.assert_allclose(map_points(points, steps), apply_affine(MOVE, deformed(points)), atol=1e-5)
    outside = np.array([[300.0, 0.0, 0.0], [0.0, -400.0, 10.0]])
    np.testing.assert_allclose(map_points(outside, steps), apply_affine(MOVE, outside), atol=1e-5)
    deformations = [step for step in steps if isinstance(step, Deformation)]
    (grid,) = (each.grid for step in deformations for each in step.fields)
    assert grid.same_as(FIELD_GRID)


def test_matrix_and_field_in_the_other_order_are_another_transform(tmp_path, itk):
    """``[matrix, field]`` passes a point to the matrix first."""
    field = read_step(write_field(tmp_path / "warp.nii.gz"))
    points = inside(FIELD_GRID)
    start = apply_affine(np.linalg.inv(MOVE), points)
    np.testing.assert_allclose(map_points(start, [MOVE, field]), deformed(points), atol=1e-5)


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint16, np.float64, np.float32])
def test_volumes_are_sampled_where_the_chain_leads(tmp_path, itk, kind):
    """As SciPy samples them at the positions of the formula; labels keep their type and large values."""
    field = read_step(write_field(tmp_path / "warp.nii.gz"))
    shape = (11, 13, 12)
    affine = from_matvec(euler2mat(-0.1, 0.3, 0.2) @ np.diag([8.0, -7.0, 9.0]), [-40.0, 45.0, -50.0])
    target = VoxelGrid((10, 9, 8), from_matvec(euler2mat(0.2, 0.1, -0.3) @ np.diag([-5.0, 5.5, 4.5]), [24, -20, -20]))
    values = np.random.default_rng(1).integers(1, 60_000, shape).astype(kind)
    if kind in (np.int32, np.int64, np.float64):
        values[5, 6, 6] = 2**30 + 1
    at = apply_affine(target.affine, np.moveaxis(np.indices(target.shape), 0, -1)).reshape(-1, 3)
    voxels = apply_affine(np.linalg.inv(affine), apply_affine(MOVE, deformed(at)))
    field_voxels = apply_affine(np.linalg.inv(FIELD_GRID.affine), at)
    known = ((voxels > 0) & (voxels < np.array(shape) - 1)).all(axis=1)
    known &= ((field_voxels > 0) & (field_voxels < np.array(FIELD_GRID.shape) - 1)).all(axis=1)
    assert known.mean() > 0.5
    linear = apply_steps(values, affine, target, [field, MOVE], "linear").reshape(-1)
    expected = map_coordinates(values.astype(np.float64), voxels.T, order=1)
    assert linear.dtype == np.float32
    np.testing.assert_allclose(linear[known], expected[known], rtol=2e-4)
    nearest = apply_steps(values, affine, target, [field, MOVE], "nearest").reshape(-1)
    clear = known & (np.abs(voxels - np.floor(voxels) - 0.5) > 1e-3).all(axis=1)
    assert nearest.dtype == kind
    np.testing.assert_array_equal(nearest[clear], values[tuple(np.rint(voxels[clear]).astype(int).T)])


# Damaged and foreign files


def test_a_kind_that_is_neither_matrix_nor_field_is_refused(tmp_path, itk):
    spline = itk.BSplineTransform(3, 3)
    spline.SetTransformDomainMeshSize([4, 5, 6])
    itk.WriteTransform(spline, str(tmp_path / "spline.tfm"))
    with refused("holds a BSplineTransform, and only matrices and displacement fields", tmp_path / "spline.tfm"):
        read_step(tmp_path / "spline.tfm")
    itk.WriteTransform(itk.AffineTransform(2), str(tmp_path / "flat.h5"))
    with refused("ITK reads, .* is not: it has 2 dimensions", tmp_path / "flat.h5"):
        read_step(tmp_path / "flat.h5")


def test_several_transforms_that_are_no_composite_are_refused(tmp_path, itk):
    """ITK would use the first alone."""
    for number, kind in enumerate(("affine", "euler")):
        itk.WriteTransform(KINDS[kind][0](itk), str(tmp_path / f"{number}.tfm"))
    first, second = ((tmp_path / f"{number}.tfm").read_text() for number in (0, 1))
    path = tmp_path / "both.tfm"
    path.write_text(first + second.split("\n", 1)[1].replace("#Transform 0", "#Transform 1"))
    with refused("must be one, or a composite, .* holds several", path):
        read_step(path)


def test_a_damaged_warp_is_refused(tmp_path):
    path = write_field(tmp_path / "warp.nii.gz")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with refused("a warp must be complete", path):
        read_step(path)
    img = nib.load(write_field(tmp_path / "nan.nii"))
    values = np.asarray(img.dataobj).copy()
    values[3, 4, 5] = np.nan
    nib.Nifti1Image(values, img.affine, img.header).to_filename(tmp_path / "hole.nii")
    with refused("finite displacements", tmp_path / "hole.nii"):
        read_step(tmp_path / "hole.nii")


def test_a_warp_whose_header_leaves_its_sides_open_is_warned_of(tmp_path):
    """By the rule for scans."""
    img = nib.load(write_field(tmp_path / "warp.nii"))
    for set_form in (img.set_sform, img.set_qform):
        set_form(None, code=0)
    img.to_filename(tmp_path / "open.nii")
    with pytest.warns(GlasWarning, match=r"open\.nii has neither sform nor qform"):
        read_step(tmp_path / "open.nii")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(16))
def test_damaged_bytes_are_read_or_refused_in_one_sentence(tmp_path, itk, monkeypatch, seed):
    """Some such files end the process that reads them, and some hang it."""
    monkeypatch.setattr(own, "_LIMIT_S", 20.0)
    path = composite(itk, tmp_path / "both.h5", write_field(tmp_path / "warp.nii"))
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    for position in rng.integers(0, 3000, 4):
        content[position] = rng.integers(256)
    path.write_bytes(content)
    message = ""
    try:
        read_step(path)
    except GlasError as error:
        message = str(error)
    assert not message or (str(path) in message and "\n" not in message)


@pytest.mark.parametrize(("status", "end"), [(-11, "SIGSEGV"), (-9, "SIGKILL"), (3, "status 3")])
def test_a_file_that_ends_the_process_that_reads_it_is_refused(tmp_path, itk, monkeypatch, status, end):
    path = composite(itk, tmp_path / "both.h5", write_field(tmp_path / "warp.nii"))
    done = subprocess.CompletedProcess([], status, stdout="", stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *args, **settings: done)
    with refused(f"one that ITK reads, .* is not: reading it ends with .*{end}", path):
        read_step(path)


def test_a_file_that_takes_too_long_to_read_is_refused(tmp_path, itk, monkeypatch):
    """The process that reads it is ended, here before it can have started."""
    path = composite(itk, tmp_path / "both.h5", write_field(tmp_path / "warp.nii"))
    monkeypatch.setattr(own, "_LIMIT_S", 0.01)
    start = time.monotonic()
    with refused("reading it takes longer than 0 s", path):
        read_step(path)
    assert time.monotonic() - start < 10
