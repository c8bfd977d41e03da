import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glas3d.imaging import space
from glas3d.imaging.scan import load_scan
from glas3d.imaging.space import (
    SpaceCheck,
    VoxelGrid,
    check_space,
    grid_of,
    mni_grid,
    resample,
    template,
    template_values,
    voxel_to_world,
)
from tests.imaging.cases import HEADS, POSES, SHAPE, affine, around, data, head, head_grid, refused


@pytest.mark.parametrize(
    ("resolution", "shape"),
    [(1, (181, 217, 181)), (2, (91, 109, 91)), (4, (48, 56, 48)), (1.5, (121, 145, 121)), (8, (24, 32, 24))],
)
def test_the_mni_grid_has_the_shapes_everyone_uses(resolution, shape):
    grid = mni_grid(resolution)
    assert grid.shape == shape
    assert "".join(nib.aff2axcodes(grid.affine)) == "RAS"
    assert grid.spacing == (resolution,) * 3


@given(st.floats(0.5, 16))
def test_the_mni_grid_covers_the_field_of_view(resolution):
    grid = mni_grid(resolution)
    corners = voxel_to_world(np.array([[0, 0, 0], np.array(grid.shape) - 1]), grid.affine)
    assert (corners[0] <= np.array([-90, -126, -72]) + resolution / 2 + 1).all()
    assert (corners[1] >= np.array([90, 90, 108]) - resolution / 2 - 1).all()
    assert resolution <= 2 or all(n % 8 == 0 for n in grid.shape)


@pytest.mark.parametrize("resolution", [0, -2, 0.4, 16.5, np.inf, np.nan])
def test_the_mni_grid_refuses_other_resolutions(resolution):
    with refused("resolution must be from 0.5 to 16 mm", resolution):
        mni_grid(resolution)


def test_grids_are_the_same_when_their_voxels_are():
    grid = VoxelGrid(SHAPE, POSES["oblique"])
    dust, moved = POSES["oblique"].copy(), POSES["oblique"].copy()
    dust[:3, 3] += 1e-5
    moved[:3, 3] += 0.5
    assert grid.same_as(VoxelGrid(SHAPE, dust))
    assert not grid.same_as(VoxelGrid(SHAPE, moved))
    assert not grid.same_as(VoxelGrid((7, 9, 8), POSES["oblique"]))
    assert not grid.same_as(VoxelGrid(SHAPE, POSES["RAS"]))
    np.testing.assert_allclose(grid.spacing, (2, 3, 4))
    assert grid_of(load_scan(nib.Nifti1Image(data(), POSES["oblique"]))).same_as(grid)


# resample


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
@pytest.mark.parametrize("pose", POSES)
def test_resampling_to_its_own_grid_changes_nothing(pose, interpolation):
    img = nib.Nifti1Image(data(), POSES[pose])
    assert np.array_equal(resample(img, VoxelGrid(SHAPE, POSES[pose]), interpolation), data())


TARGETS = {
    "finer": VoxelGrid((6, 8, 9), affine("RAS", (1.0, 1.5, 2.0), (0.1, 0.2, -0.1), (-2.07, -5.03, 25.11))),
    "finer, other axes": VoxelGrid((6, 7, 8), affine("ILA", (1.3, 1.1, 1.7), (0, 0.1, 0), (3.05, -4.04, 35.13))),
    "coarser": VoxelGrid((5, 6, 7), affine("RAS", (5.0, 6.0, 7.0), (0.0, 0.1, 0.0), (-6.07, -7.03, 19.11))),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("pose", POSES)
def test_linear_resampling_keeps_a_linear_field(pose, target):
    shape = (31, 32, 33)  # roomy, so that the target is far from the edges
    grid = TARGETS[target]
    placed = around(pose, shape, grid)

    def field(affine, shape):
        xyz = voxel_to_world(np.argwhere(np.ones(shape)), affine)
        return (100 + xyz @ [2.0, -3.0, 5.0]).reshape(shape)

    inside = voxel_to_world(np.argwhere(np.ones(grid.shape)), np.linalg.inv(placed) @ grid.affine)
    margin = 7.5 / np.array(VoxelGrid(shape, placed).spacing)
    far = ((inside > margin) & (inside < np.array(shape) - 1 - margin)).all(axis=1).reshape(grid.shape)
    assert far.sum() > 20
    moved = resample(nib.Nifti1Image(field(placed, shape).astype(np.float32), placed), grid)
    assert moved.dtype == np.float32
    assert moved.shape == grid.shape
    np.testing.assert_allclose(moved[far], field(grid.affine, grid.shape)[far], atol=0.02)


def sampled(labels, source, grid):
    """Return the nearest neighbour in a loop; 0 outside the outer voxels' faces."""
    where = voxel_to_world(np.argwhere(np.ones(grid.shape)), np.linalg.inv(source) @ grid.affine)
    inside = ((where >= -0.5) & (where <= np.array(labels.shape) - 0.5)).all(axis=1)
    nearest = np.zeros(len(where), dtype=labels.dtype)
    nearest[inside] = labels[tuple(np.rint(where[inside]).clip(0, np.array(labels.shape) - 1).astype(int).T)]
    return nearest.reshape(grid.shape)


@pytest.mark.parametrize(
    ("dtype", "values", "back"),
    [
        ("uint8", (1, 127, 128, 255), "int32"),
        ("int16", (1, 128, 300, 32767), "int16"),
        ("uint16", (128, 256, 40000, 65535), "uint16"),
        ("int32", (127, 255, 2001, 100_003, 2**31 - 1), "int32"),
        ("float32", (127, 255, 2001, 100_003), "float32"),
    ],
)
@pytest.mark.parametrize("pose", POSES)
def test_nearest_neighbour_keeps_labels(pose, dtype, values, back):
    labels = np.random.default_rng(3).choice(np.array((0, *values)), SHAPE).astype(dtype)
    for grid in TARGETS.values():
        placed = around(pose, SHAPE, grid) + np.array([[0, 0, 0, 0.1]] * 3 + [[0] * 4])  # no ties
        moved = resample(nib.Nifti1Image(labels, placed), grid, "nearest")
        assert moved.dtype == np.dtype(back)
        assert np.array_equal(moved, sampled(labels, placed, grid))
        assert np.count_nonzero(moved) > 5


def test_nearest_neighbour_keeps_labels_of_64_bits(tmp_path):
    labels = np.random.default_rng(3).choice([0, 7, 300], SHAPE)
    nib.save(nib.Nifti1Image(labels, POSES["RAS"], dtype="int64"), tmp_path / "labels.nii")
    moved = resample(nib.load(tmp_path / "labels.nii"), TARGETS["finer"], "nearest")
    assert moved.dtype == np.int32
    assert np.array_equal(moved, sampled(labels, POSES["RAS"], TARGETS["finer"]))


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
@pytest.mark.parametrize("pose", POSES)
def test_the_same_voxels_in_another_axis_order_keep_their_values(pose, interpolation):
    img = nib.Nifti1Image(data(), POSES[pose])
    for axes in ("RAS", "LAS", "PSR", "LIP", "SRA"):
        ornt = nib.orientations.axcodes2ornt(axes)
        other = img.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(img.affine), ornt))
        moved = resample(img, VoxelGrid(other.shape, other.affine), interpolation)
        np.testing.assert_allclose(moved, np.asarray(other.dataobj), rtol=1e-5)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 1.0, 5.0)])
@pytest.mark.parametrize("mm", [2.0, 4.0])
def test_down_sampling_averages(spacing, mm):
    board = (np.indices((61, 62, 63)).sum(axis=0) % 2 * 100).astype(np.float32)
    grid = VoxelGrid((10, 11, 12), affine(spacing=(mm, mm, mm), origin=(9.0, 10.0, 11.0)))
    moved = resample(nib.Nifti1Image(board, affine(spacing=spacing, origin=(0, 0, 0))), grid)
    np.testing.assert_allclose(moved, 50, atol=2)


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
@pytest.mark.parametrize("mm", [1.5, 6.0])
def test_outside_the_field_of_view_is_zero(interpolation, mm):
    placed = affine(spacing=(2, 2, 2), origin=(0, 0, 0))
    grid = VoxelGrid((12, 13, 14), affine(spacing=(mm, mm, mm), origin=(-3 * mm,) * 3))
    moved = resample(nib.Nifti1Image(np.full(SHAPE, 5.0, np.float32), placed), grid, interpolation)
    where = voxel_to_world(np.argwhere(np.ones(grid.shape)), np.linalg.inv(placed) @ grid.affine)
    outside = ((where < -0.5) | (where > np.array(SHAPE) - 0.5)).any(axis=1).reshape(grid.shape)
    assert (moved[outside] == 0).all()
    assert (moved[~outside] > 0).all()
    assert moved[~outside].max() > 4


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
@pytest.mark.parametrize("mm", [-500.0, 500.0])
def test_a_grid_off_the_image_is_all_zero(interpolation, mm):
    grid = VoxelGrid((8, 9, 7), affine(origin=(mm, mm, mm)))
    assert not resample(nib.Nifti1Image(data(), POSES["RAS"]), grid, interpolation).any()


def test_the_image_given_is_not_changed():
    values = data()
    img = nib.Nifti1Image(values, POSES["RAS"])
    for grid in TARGETS.values():
        resample(img, grid)
    assert np.array_equal(values, data())


def test_the_template_is_a_head_in_mni_space():
    img = template()
    values = np.asarray(img.dataobj)
    assert values.min() == 0
    assert 0.9 < values.max() <= 1
    assert "".join(nib.aff2axcodes(img.affine)) == "RAS"
    inner = tuple(np.rint(np.linalg.inv(img.affine) @ [30, -30, 30, 1]).astype(int)[:3])
    assert values[inner] > 0.5
    with pytest.raises(ValueError, match="read-only"):
        space.template_on(8)[0, 0, 0] = 1  # cached: one caller must not change another's


# check_space


@pytest.mark.parametrize("tissue", ["t1", "gm", "wm"])
@pytest.mark.parametrize("pose", HEADS)
def test_a_head_in_mni_space_passes(pose, tissue):
    assert check_space(load_scan(head(HEADS[pose], tissue=tissue))).problem is None


def test_a_head_of_thick_slices_or_another_contrast_passes():
    thick = head(head_grid(mm=(2.0, 2.5, 5.0)))
    values = np.asarray(thick.dataobj)
    noisy = values + np.random.default_rng(0).normal(0, 30, values.shape).astype(np.float32)
    inverted = 700 - values  # in bright air
    for contrast in (values, noisy, inverted):
        assert check_space(load_scan(nib.Nifti1Image(contrast, thick.affine))).problem is None


@pytest.mark.parametrize("angle", [0.1, 0.0])
def test_a_head_in_air_far_below_zero_passes(angle):
    img = head(head_grid(angles=(angle, angle, angle)))  # turned grids are wider than the head's box
    values = np.asarray(img.dataobj)
    hounsfield = np.where(values > 50, values / 10, -1000).astype(np.float32)
    assert check_space(load_scan(nib.Nifti1Image(hounsfield, img.affine))).problem is None


def shifted(mm):
    def change(values, placed):
        placed[:3, 3] += mm
        return values, placed

    return change


WRONG = {
    "30 mm right": shifted((30, 0, 0)),
    "30 mm back": shifted((0, -30, 0)),
    "30 mm up": shifted((0, 0, 30)),
    "500 mm ahead": shifted((0, 500, 0)),
    "500 mm back": shifted((0, -500, 0)),
    "scanner corner": lambda v, a: (v, np.diag([6.0, 6.0, 6.0, 1.0])),
    "identity affine": lambda v, a: (v, np.eye(4)),
    "x and y swapped": lambda v, a: (v.transpose(1, 0, 2), a),
    "y and z swapped": lambda v, a: (v.transpose(0, 2, 1), a),
    "upside down": lambda v, a: (v[:, :, ::-1], a),
    "front to back": lambda v, a: (v[:, ::-1], a),
    "noise": lambda v, a: (np.random.default_rng(0).normal(100, 20, v.shape).astype(np.float32), a),
    "upper half only": lambda v, a: (v[:, :, 15:], a @ nib.affines.from_matvec(np.eye(3), (0, 0, 15))),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_in_mni_space_has_a_problem_in_one_phrase(name):
    img = head(HEADS["RAS"])
    values, placed = WRONG[name](np.asarray(img.dataobj), img.affine.copy())
    problem = check_space(load_scan(nib.Nifti1Image(np.ascontiguousarray(values), placed))).problem
    assert problem is not None
    assert "\n" not in problem
    assert 20 < len(problem) < 250
    assert "needed" in problem or "allowed" in problem
    assert "nan" not in problem


def tissue_map(tissue):
    """Return a map of the template's tissue as a participant's is: nearly 0 or 1, and unequal voxels."""
    grid = VoxelGrid((61, 55, 65), affine("RAS", (3.0, 4.0, 2.9), (0, 0, 0), (-90, -126, -80)))
    probability = resample(template(tissue), grid)
    return 1 / (1 + np.exp(-14 * (probability - 0.65))) * (probability > 0.02), grid.affine


@pytest.mark.parametrize("tissue", ["gm", "wm"])
def test_a_map_of_one_tissue_is_a_brain_in_mni_space(tissue):
    values, placed = tissue_map(tissue)
    assert check_space(load_scan(nib.Nifti1Image(values, placed))).problem is None
    for name in ("30 mm right", "30 mm back", "30 mm up", "x and y swapped", "upside down", "front to back"):
        other, moved = WRONG[name](values, placed.copy())
        assert check_space(load_scan(nib.Nifti1Image(np.ascontiguousarray(other), moved))).problem is not None, name


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("coverage", 0.5, "field of view holds 50% of the brain"),
        ("distance", 40.0, "centre of mass is 40 mm off"),
        ("overlap", 0.2, "bright in 20% of the brain"),
        ("correlation", 0.1, "correlates 0.10 with the template"),
    ],
)
def test_each_measure_has_its_own_message(field, value, words):
    good = {"coverage": 1.0, "distance": 3.0, "overlap": 0.95, "correlation": 0.9}
    assert SpaceCheck(**good).problem is None
    assert words in SpaceCheck(**good | {field: value}).problem


def test_a_template_on_a_grid_is_kept_between_runs(tmp_path, monkeypatch):
    """A damaged file, and one that was made in another way, is made anew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    grid = head_grid()
    right = resample(template("gm"), grid)
    for _ in range(2):
        values = template_values(grid, "gm")
        np.testing.assert_array_equal(values, right)
        assert not values.flags.writeable
    (kept,) = (path for path in tmp_path.rglob("*") if path.is_file())
    monkeypatch.setattr(space, "resample", lambda img, grid: right + 1)
    np.testing.assert_array_equal(template_values(grid, "gm"), right)
    kept.write_bytes(kept.read_bytes()[:-4] + b"abcd")
    np.testing.assert_array_equal(template_values(grid, "gm"), right + 1)
    monkeypatch.setattr(space, "_MOST_KEPT", 10)
    monkeypatch.setattr(space, "_RESAMPLED_BY", ("nilearn",))
    assert template_values(grid, "gm").shape == grid.shape
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [kept]
