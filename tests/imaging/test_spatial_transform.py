"""Matrices and warps in both directions, against a known formula."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nibabel.affines import apply_affine, from_matvec
from nibabel.eulerangles import euler2mat
from scipy.ndimage import binary_erosion

from glas3d.imaging.atlas import Atlas
from glas3d.imaging.itk import apply_steps, map_points, read_step, write_matrix
from glas3d.imaging.native_mapper import NativeMapper
from glas3d.imaging.scan import load_scan
from glas3d.imaging.space import VoxelGrid, mni_grid, resample, template, template_on
from glas3d.imaging.spatial_transform import Affine, SpatialTransform, Warp, load_transform
from tests.imaging import native
from tests.imaging.cases import POSES, SHAPE, around, data, refused
from tests.imaging.native import MOVED, to_native, to_template, write_field

HOME = np.linalg.inv(MOVED)
GRIDS = {
    "oblique": native.native_grid(),
    "LAS": native.native_grid((-1, 1, 1)),
    "PSR-like": native.native_grid((1, -1, -1)),
}


@pytest.fixture(scope="module")
def points():
    return np.random.default_rng(1).uniform([-60, -95, -45], [60, 65, 70], (50, 3))


@pytest.fixture(scope="module")
def warp(files):
    return load_transform([files / "sub_1Warp.nii.gz", files / "sub_0GenericAffine.mat"])


# Matrices


@pytest.mark.parametrize("pose", POSES)
def test_a_matrix_moves_the_affine_and_nothing_else(pose):
    grid = mni_grid(8)
    scan = load_scan(nib.Nifti1Image(data((40, 50, 45)), HOME @ around(pose, (40, 50, 45), grid)))
    there = load_transform(MOVED).to_template(scan, grid)
    expected = resample(nib.Nifti1Image(scan.data, MOVED @ scan.affine), grid)
    np.testing.assert_array_equal(there.data, expected)
    assert there.data.any()
    np.testing.assert_array_equal(there.affine, grid.affine)
    assert there.sha256 == scan.sha256


def test_a_matrix_maps_back_what_it_mapped():
    """On a template grid that lies on the native voxels nothing is interpolated, either way."""
    img = nib.Nifti1Image(data(), POSES["oblique-LPS"])
    scan, transform = load_scan(img), load_transform(MOVED)
    grid = VoxelGrid(SHAPE, MOVED @ img.affine)
    there = transform.to_template(scan, grid)
    np.testing.assert_array_equal(there.data, scan.data)
    for interpolation in ("linear", "nearest"):
        mapped = transform.to_native(nib.Nifti1Image(there.data, grid.affine), scan, interpolation)
        np.testing.assert_array_equal(mapped, scan.data)


@pytest.mark.parametrize("pose", GRIDS)
def test_labels_are_mapped_to_native_space_by_a_matrix(pose):
    """They equal the labels sampled at every native voxel, with left on the left in any order of the axes."""
    scan = native.head(GRIDS[pose])
    mapped = load_transform(MOVED).to_native(Atlas.load("AAL").labels_img, scan, "nearest")
    truth = native.labels(GRIDS[pose])
    assert mapped.dtype == np.int32
    assert (mapped == truth)[truth > 0].mean() > 0.999
    left, right = (native.centre(mapped, label, scan.affine) for label in (37, 38))
    assert left[0] < right[0] - 40


def test_points_map_in_both_directions(points):
    transform = load_transform(MOVED)
    np.testing.assert_allclose(transform.points_to_native(points), to_native(points), atol=1e-9)
    np.testing.assert_allclose(transform.points_to_template(points), to_template(points), atol=1e-9)


def test_the_sources_of_a_matrix_agree(tmp_path, points, itk):
    np.savetxt(tmp_path / "plain.txt", MOVED)
    write_matrix(HOME, tmp_path / "itk.txt")
    for name in ("itk.tfm", "itk.mat", "itk.h5"):
        itk.WriteTransform(itk.ReadTransform(str(tmp_path / "itk.txt")), str(tmp_path / name))
    first = from_matvec(euler2mat(0.3, 0.2, 0.1), [4, 5, 6])
    write_matrix(first, tmp_path / "first.txt")
    write_matrix(HOME @ np.linalg.inv(first), tmp_path / "second.txt")
    sources = [
        MOVED,
        MOVED.tolist(),
        Affine(MOVED),
        tmp_path / "plain.txt",
        str(tmp_path / "itk.txt"),
        tmp_path / "itk.tfm",
        tmp_path / "itk.mat",
        tmp_path / "itk.h5",
        [tmp_path / "first.txt", tmp_path / "second.txt"],
    ]
    for source in sources:
        transform = load_transform(source)
        assert isinstance(transform, Affine), source
        np.testing.assert_allclose(
            transform.points_to_native(points), to_native(points), atol=1e-4, err_msg=str(source)
        )


def test_an_itk_rotation_is_a_matrix(tmp_path, points, itk):
    """An Euler3DTransform has six parameters, not twelve."""
    path = tmp_path / "rigid.tfm"
    text = "#Insight Transform File V1.0\n#Transform 0\nTransform: Euler3DTransform_double_3_3\n"
    path.write_text(text + "Parameters: 0 0 0.3 5 -6 7\nFixedParameters: 0 0 0 0\n")
    # 0.3 about z and the shift (5, -6, 7), both in LPS: the points of the template to native ones
    expected = apply_affine(from_matvec(euler2mat(0.3), [-5, 6, 7]), points)
    np.testing.assert_allclose(load_transform(path).points_to_native(points), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["matrix", "warp"])
def test_a_saved_transform_is_read_again(tmp_path, points, warp, kind):
    made = {"kind": "affine", "seed": 3}
    transform: SpatialTransform = Affine(MOVED, "mine", made) if kind == "matrix" else warp
    written = transform.save(tmp_path / "new")
    again = load_transform(tmp_path / "new")
    assert set(written) == set((tmp_path / "new").iterdir())
    np.testing.assert_allclose(again.points_to_native(points), transform.points_to_native(points), atol=1e-9)
    np.testing.assert_allclose(again.points_to_template(points), transform.points_to_template(points), atol=1e-9)
    assert (again.name, again.settings) == (transform.name, transform.settings)
    if kind == "matrix":
        assert again.record() == {"name": "mine", "matrix": MOVED.tolist(), **made}
    assert again.save(tmp_path / "new")  # onto its own files
    load_transform(tmp_path / "new")
    # ITK reads it as antsApplyTransforms wants it
    names = [str(path) for path in written if path.name.startswith("from-native_to-template_")]
    by_files = load_transform(names, _inverses(tmp_path / "new"))
    np.testing.assert_allclose(by_files.points_to_native(points), transform.points_to_native(points), atol=1e-4)


def _inverses(folder):
    return sorted(folder.glob("from-template_to-native_*.nii.gz")) or None


# Warps


def test_points_of_a_warp_follow_its_formula(warp, points):
    assert isinstance(warp, Warp)
    native_points = to_native(points, bent=True)
    np.testing.assert_allclose(warp.points_to_native(points), native_points, atol=0.05)
    np.testing.assert_allclose(warp.points_to_template(native_points), points, atol=0.05)


@pytest.mark.parametrize("pose", GRIDS)
def test_a_warp_maps_the_scan_to_the_template_and_labels_back(warp, pose):
    grid, t1 = GRIDS[pose], template_on(4)
    scan = native.head(grid, bent=True)
    there = warp.to_template(scan, mni_grid(4))
    brain = t1 > 0.1
    assert np.corrcoef(there.data[brain], t1[brain])[0, 1] > 0.98
    straight = load_transform(MOVED).to_template(scan, mni_grid(4))
    assert np.corrcoef(straight.data[brain], t1[brain])[0, 1] < 0.95
    mapped = warp.to_native(Atlas.load("AAL").labels_img, scan, "nearest")
    truth = native.labels(grid, bent=True)
    assert mapped.dtype == np.int32
    assert (mapped == truth)[truth > 0].mean() > 0.97
    for label in (37, 38):
        gap = native.centre(mapped, label, scan.affine) - native.centre(truth, label, scan.affine)
        assert np.linalg.norm(gap) < 0.3


def test_a_map_is_mapped_to_native_space_by_a_warp(warp):
    """The maximum of a blob at the left hippocampus is where the formula maps it."""
    grid, point = GRIDS["LAS"], np.array([-26.0, -20.0, -14.0])
    distance = np.linalg.norm(native.voxels(mni_grid(4)) - point, axis=-1)
    mapped = warp.to_native(
        nib.Nifti1Image(np.exp(-(distance**2) / 128), mni_grid(4).affine), native.head(grid, bent=True)
    )
    assert mapped.shape == grid.shape
    assert mapped.dtype == np.float32
    centre = apply_affine(grid.affine, (np.argwhere(mapped > 0).T * mapped[mapped > 0]).sum(axis=1) / mapped.sum())
    assert np.linalg.norm(centre - to_native(point, bent=True)) < 1


def test_a_warp_without_deformation_is_its_matrix(tmp_path, itk):
    """It gives the values of `resample`, with its smoothing, field of view and types; shears included."""
    for name in ("1Warp.nii.gz", "1InverseWarp.nii.gz"):
        write_field(tmp_path / name, lambda points: points)
    write_matrix(HOME, tmp_path / "0GenericAffine.txt")
    still = load_transform([tmp_path / "1Warp.nii.gz", tmp_path / "0GenericAffine.txt"])
    plain = load_transform(MOVED)
    shear = from_matvec(
        np.diag([2.0, 1.6, 2.5]) + np.array([[0, 0.3, 0.1], [0, 0, 0.2], [0.1, 0, 0]]), [-80, -100, -70]
    )
    grid = VoxelGrid((75, 110, 65), shear)
    scan = load_scan(nib.Nifti1Image(native.seen_from(grid, template()) * 500 + 30, grid.affine))
    ones = load_scan(nib.Nifti1Image(np.ones(grid.shape, np.float32), grid.affine), constant=True)
    for mm, tolerance in ((8.0, 12), (2.0, 10)):
        warped, moved = (transform.to_template(scan, mni_grid(mm)).data for transform in (still, plain))
        # at the border of the field of view the dark outside is smoothed in, by each in its own way
        inner = binary_erosion(plain.to_template(ones, mni_grid(mm)).data > 0.99)
        assert inner.mean() > 0.15
        np.testing.assert_allclose(warped[inner], moved[inner], atol=tolerance)
    labels = nib.Nifti1Image(np.asarray(Atlas.load("AAL").labels_img.dataobj), Atlas.load("AAL").labels_img.affine)
    warped, moved = (transform.to_native(labels, scan, "nearest") for transform in (still, plain))
    assert warped.dtype == moved.dtype
    assert (warped == moved).mean() > 0.9999
    big = nib.Nifti1Image(np.where(np.asarray(labels.dataobj) == 37, 2**30 + 1, 0).astype(np.int32), labels.affine)
    assert set(np.unique(still.to_native(big, scan, "nearest"))) == {0, 2**30 + 1}
    check, expected = still.check(scan), plain.check(scan)
    assert abs(check.coverage - expected.coverage) < 0.01
    assert abs(check.correlation - expected.correlation) < 0.02


def composed(files, folder, names, itk):
    """Return one composite for each direction, of a matrix and a field, written by ITK; the last is passed first."""
    write_matrix(MOVED, folder / "back.txt")
    ways = (("sub_0GenericAffine.mat", "sub_1Warp.nii.gz"), ("sub_1InverseWarp.nii.gz", "back.txt"))
    for name, way in zip(names, ways, strict=True):
        composite = itk.CompositeTransform(3)
        for file in way:
            path = str((folder if file == "back.txt" else files) / file)
            if file.endswith(".nii.gz"):
                composite.AddTransform(itk.DisplacementFieldTransform(itk.ReadImage(path, itk.sitkVectorFloat64)))
            else:
                composite.AddTransform(itk.ReadTransform(path))
        itk.WriteTransform(composite, str(folder / name))
    return folder / names[0], folder / names[1]


@pytest.mark.parametrize(
    "names",
    [
        ("from-T1w_to-MNI152NLin2009cAsym_mode-image_xfm.h5", "from-MNI152NLin2009cAsym_to-T1w_mode-image_xfm.h5"),
        ("sub_Composite.h5", "sub_InverseComposite.h5"),
    ],
    ids=["fMRIPrep", "ANTs"],
)
def test_a_composite_and_its_inverse_lie_side_by_side(tmp_path, files, warp, points, itk, names):
    """The inverse has a known name, or is given."""
    path, inverse = composed(files, tmp_path, names, itk)
    composite = load_transform(path)
    assert isinstance(composite, Warp)
    np.testing.assert_allclose(composite.points_to_native(points), warp.points_to_native(points), atol=1e-4)
    there = to_native(points, bent=True)
    np.testing.assert_allclose(composite.points_to_template(there), warp.points_to_template(there), atol=1e-4)
    inverse.rename(tmp_path / "elsewhere.h5")
    with refused(f"give the inverse of .*such as {names[1]}", path):
        load_transform(path)
    given = load_transform(path, tmp_path / "elsewhere.h5")
    np.testing.assert_array_equal(given.points_to_native(points), composite.points_to_native(points))
    assert given.record()["from-native_to-template"][0]["name"] == names[0]


def of_ants(ants, data, affine):
    """Return a volume as an image of ANTs."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return ants.from_numpy(np.asarray(data, np.float32), lps[:3, 3].tolist(), spacing.tolist(), lps[:3, :3] / spacing)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_a_warp_is_applied_as_ants_applies_it(files, warp, points, ants, direction):
    """Volumes and points, by the same files in the same order."""
    table = pd.DataFrame(points * [-1, -1, 1], columns=["x", "y", "z"])
    names = [str(files / name) for name in ("sub_1Warp.nii.gz", "sub_0GenericAffine.mat")]
    inverted, steps = [False, False], warp.forward
    if direction == "inverse":
        names = [names[1], str(files / "sub_1InverseWarp.nii.gz")]
        inverted, steps = [True, False], warp.inverse
    mapped = ants.apply_transforms_to_points(3, table, names, whichtoinvert=inverted)[["x", "y", "z"]].to_numpy()
    np.testing.assert_allclose(map_points(points, steps), mapped * [-1, -1, 1], atol=1e-4)
    scan, grid = native.head(GRIDS["oblique"], bent=True), GRIDS["LAS"]
    moved = ants.apply_transforms(
        of_ants(ants, np.zeros(grid.shape), grid.affine),
        of_ants(ants, scan.data, scan.affine),
        names,
        "linear",
        whichtoinvert=inverted,
    ).numpy()
    own = apply_steps(scan.data, scan.affine, grid, steps, "linear")
    assert own.dtype == np.float32
    inside = (moved != 0) & (own != 0)  # which voxels lie on the border is decided by rounding
    assert inside.mean() > 0.2
    np.testing.assert_allclose(own[inside], moved[inside], atol=0.02)


def test_composites_of_ants_registration(tmp_path, points, ants, itk):
    """A file with affine and field is a warp with the field's grid; a file with matrices alone is a matrix."""
    fixed, grid = of_ants(ants, template_on(4), mni_grid(4).affine), mni_grid(4)
    settings = {"outprefix": f"{tmp_path}/c_", "write_composite_transform": True, "initial_transform": "Identity"}
    coarse = {"aff_iterations": (1,), "aff_shrink_factors": (4,), "aff_smoothing_sigmas": (1,)}
    bent = of_ants(ants, native.head(native.native_grid(spacing=(4.0, 3.9, 4.1))).data, grid.affine)
    ants.registration(fixed, bent, "SyN", **settings, **coarse, reg_iterations=(2, 0, 0))
    both = load_transform(tmp_path / "c_Composite.h5")
    assert isinstance(both, Warp)
    for name in ("c_Composite.h5", "c_InverseComposite.h5"):
        (field,) = read_step(tmp_path / name).fields
        assert field.grid.same_as(grid)
    np.testing.assert_allclose(both.points_to_native(both.points_to_template(points)), points, atol=1)
    ants.registration(fixed, bent, "Affine", **settings, **coarse)
    assert isinstance(load_transform(tmp_path / "c_Composite.h5"), Affine)


def test_the_transform_of_another_scan_fails_the_check(warp):
    scan = native.head(GRIDS["oblique"], bent=True)
    assert warp.check(scan).problem is None
    assert load_transform(MOVED).check(scan).problem is None
    for other in (np.eye(4), np.linalg.inv(MOVED)):
        assert "correlates" in load_transform(other).check(scan).problem
    elsewhere = load_scan(nib.Nifti1Image(scan.data, from_matvec(np.eye(3), [40, 0, 0]) @ scan.affine))
    assert "correlates" in warp.check(elsewhere).problem
    cut = load_scan(nib.Nifti1Image(scan.data[:, :, : scan.shape[2] // 2], scan.affine))
    assert "field of view" in warp.check(cut).problem


# NativeMapper


@pytest.mark.parametrize("kind", ["matrix", "warp"])
def test_segments_and_volumes_are_mapped_to_native_space(request, kind):
    bent = kind == "warp"
    transform = request.getfixturevalue("warp") if bent else load_transform(MOVED)
    grid, scan = mni_grid(6), native.head(GRIDS["oblique"], bent)
    atlas = Atlas.load("AAL")
    segments = atlas.segments(grid)
    drawing = NativeMapper(scan, grid, atlas, segments, transform)
    painted = np.asarray(drawing.segments(segments.index.astype(float)).dataobj)
    truth = native.labels(GRIDS["oblique"], bent)
    assert (painted == truth)[truth > 0].mean() > 0.97
    own = NativeMapper(scan, grid, None, segments, transform).segments(segments.index.astype(float))
    assert (np.asarray(own.dataobj) == truth)[truth > 0].mean() > 0.5  # at 6 mm
    volume = np.asarray(drawing.volume(template_on(6)).dataobj)
    assert np.corrcoef(volume.ravel(), scan.data.ravel())[0, 1] > 0.85
    np.testing.assert_allclose(drawing.volume(template_on(6)).affine, scan.affine, atol=1e-5)
