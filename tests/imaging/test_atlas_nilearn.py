"""Atlases as nilearn's own fetchers return them, run here on small files, and as older versions did."""

import hashlib
import warnings
from functools import partial

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn import datasets
from nilearn.image import index_img
from sklearn.utils import Bunch

from glas3d.errors import GlasWarning
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.space import VoxelGrid
from tests.imaging import bunches
from tests.imaging.bunches import AFFINE, block, label_img, map_img
from tests.imaging.cases import SHAPE, affine, refused

THREE = ["Frontal Pole", "Insular Cortex", "Planum Polare"]


def at(atlas, i):
    """Return the row of the region that fills the ``i``-th block."""
    labels = np.asarray(atlas.labels_img.dataobj)[block(i)]
    assert labels.min() == labels.max() > 0
    return atlas.table.set_index("index").loc[labels.flat[0]]


def named(atlas):
    """Return the names of the blocks."""
    labels = np.asarray(atlas.labels_img.dataobj)
    return [at(atlas, i)["name"] for i in range(32) if labels[block(i)].any()]


FETCHED = {
    "aal": (partial(bunches.aal, names=THREE, indices=[2001, 2002, 9110], values=[2001, 2002, 9110]), THREE),
    "destrieux": (
        partial(bunches.destrieux, rows=[(0, "Background"), (1, "L G_a"), (2, "R G_a"), (3, "L M_w")], values=[1, 2]),
        ["L G_a", "R G_a"],
    ),
    "harvard-oxford": (
        partial(
            bunches.fsl,
            source="HarvardOxford",
            kind="cort-maxprob-thr25-2mm",
            names=THREE,
            img=label_img([1, 2, 3], np.uint8),
        ),
        THREE,
    ),
    "harvard-oxford probabilistic": (
        partial(
            bunches.fsl,
            source="HarvardOxford",
            kind="cort-prob-2mm",
            names=THREE,
            img=map_img(3, (100, 60, 30), np.uint8),
        ),
        THREE,
    ),
    "juelich": (
        partial(
            bunches.fsl,
            source="Juelich",
            kind="maxprob-thr25-2mm",
            names=["GM B L", "GM B R", "GM A", "WM C"],
            img=label_img([1, 2, 3, 4], np.uint8),
        ),
        ["GM B", "GM B", "GM A", "WM C"],
    ),
    "juelich probabilistic": (
        partial(
            bunches.fsl,
            source="Juelich",
            kind="prob-2mm",
            names=["GM B L", "GM B R", "GM A", "WM C"],
            img=map_img(4, (90, 40), np.uint8),
        ),
        ["GM B", "GM B", "GM A", "WM C"],
    ),
    "schaefer": (
        partial(bunches.schaefer, names=["7Networks_LH_Vis_1", "7Networks_RH_Vis_1"], values=[1, 2]),
        ["7Networks_LH_Vis_1", "7Networks_RH_Vis_1"],
    ),
    "yeo": (bunches.yeo, [f"7Networks_{i}" for i in range(1, 8)]),
    "yeo 17": (partial(bunches.yeo, n_networks=17), [f"17Networks_{i}" for i in range(1, 18)]),
    "basc": (bunches.basc, [str(i) for i in range(1, 8)]),
    "pauli": (
        partial(bunches.pauli, names=["Pu", "Ca", "NAC"], img=label_img([1, 2, 3]), kind="deterministic"),
        ["Pu", "Ca", "NAC"],
    ),
    "pauli probabilistic": (
        partial(bunches.pauli, names=["Pu", "Ca", "NAC"], img=map_img(3), kind="probabilistic"),
        ["Pu", "Ca", "NAC"],
    ),
    "difumo": (partial(bunches.difumo, names=THREE, img=map_img(3, (0.01, 3.0))), THREE),
    "msdl": (partial(bunches.msdl, names=["L Aud", "R Aud", "Striate"], img=map_img(3)), ["L Aud", "R Aud", "Striate"]),
    "smith": (partial(bunches.smith, img=map_img(10, (5.5,))), [f"component-{i:02d}" for i in range(1, 11)]),
    "allen": (
        partial(bunches.allen, img=map_img(5, (5.5,)), rsn28=map_img(28)),
        [f"component-{i}" for i in range(1, 6)],
    ),
}


@pytest.mark.parametrize("fetcher", FETCHED)
def test_every_fetchers_regions_keep_their_names(tmp_path, fetcher):
    fetched, expected = FETCHED[fetcher]
    atlas = Atlas.from_nilearn(fetched(tmp_path))
    assert named(atlas) == expected
    assert atlas.space == "MNI"
    assert list(atlas.table.columns) == ["index", "name", "hemisphere"]
    assert "Background" not in set(atlas.table["name"])
    assert atlas.table["name"].is_unique
    assert atlas.labels_img.get_data_dtype() == np.int32
    assert atlas.name.isalnum()
    assert atlas.name != "scan"


def test_an_atlas_has_the_name_of_its_file_or_the_name_given(tmp_path):
    fetched = FETCHED["harvard-oxford"][0](tmp_path)  # an image in memory
    assert Atlas.from_nilearn(fetched).name == "HarvardOxfordcortmaxprobthr252mm"
    assert Atlas.from_nilearn(fetched, name="HO cort").name == "HOcort"
    del fetched["filename"]
    assert Atlas.from_nilearn(fetched).name == "atlas"


def test_talairach_space_is_not_mistaken_for_mni(tmp_path):
    fetched = bunches.talairach(tmp_path, ["Left Cerebrum", "Right Cerebrum", "*"], [1, 2, 3])
    old = Bunch(maps=fetched.maps, labels=fetched.labels, description=fetched.description)
    for bunch in (fetched, old):
        with pytest.warns(GlasWarning, match="lobe is in Talairach space") as caught:
            atlas = Atlas.from_nilearn(bunch)
        assert caught[0].filename == __file__
        assert atlas.space == "Talairach"
        assert named(atlas) == ["Left Cerebrum", "Right Cerebrum", "*"]


def test_the_files_hash_is_kept(tmp_path):
    fetched = FETCHED["schaefer"][0](tmp_path)
    with open(fetched.maps, "rb") as file:
        assert Atlas.from_nilearn(fetched).sha256 == hashlib.sha256(file.read()).hexdigest()
    maps = FETCHED["difumo"][0](tmp_path)
    low, high = Atlas.from_nilearn(maps), Atlas.from_nilearn(maps, threshold=0.02)
    assert low.sha256 == Atlas.from_nilearn(maps).sha256 != high.sha256


# Names and labels that do not count together


def test_aals_labels_have_their_own_names_in_any_order(tmp_path):
    """nilearn sorts the labels of its look-up table and not the names."""
    names, indices = ["Precentral_L", "Precentral_R", "Vermis_3"], ["9110", "2001", "2002"]
    fetched = bunches.aal(tmp_path, names, indices, [9110, 2001, 2002])
    assert dict(zip(fetched.lut["index"], fetched.lut["name"], strict=True))[2001] == "Precentral_L"  # it is not
    assert named(Atlas.from_nilearn(fetched)) == names
    without = Bunch(maps=fetched.maps, labels=names, indices=indices, description="")  # up to 0.11
    assert named(Atlas.from_nilearn(without)) == names


@pytest.mark.parametrize("legacy", [False, True])
def test_destrieux_of_older_versions(tmp_path, legacy):
    fetched = FETCHED["destrieux"][0](tmp_path)
    labels = pd.DataFrame({"index": [0, 2, 1], "name": ["Background", "R G_a", "L G_a"]}).set_index("index")
    old = Bunch(maps=fetched.maps, labels=labels.to_records() if legacy else labels, description="")
    assert named(Atlas.from_nilearn(old)) == ["L G_a", "R G_a"]


def test_difumo_of_older_versions(tmp_path):
    fetched = FETCHED["difumo"][0](tmp_path)
    old = Bunch(maps=fetched.maps, labels=fetched.labels.to_records(index=False), description="")
    assert named(Atlas.from_nilearn(old)) == THREE


@pytest.mark.parametrize("labels", [np.array(THREE, dtype="S"), THREE, ["Background", *THREE], tuple(THREE)])
def test_names_with_and_without_background(labels):
    """Schaefer's were bytes without background."""
    assert named(Atlas.from_nilearn({"maps": label_img([1, 2, 3]), "labels": labels})) == THREE
    assert named(Atlas.from_nilearn({"maps": map_img(3), "labels": labels})) == THREE


def test_regions_that_are_not_in_the_image_keep_their_row_and_no_other_name():
    names = ["Background", "a", "b", "c", "d"]
    atlas = Atlas.from_nilearn({"maps": label_img([1, 4]), "labels": names, "description": ""})
    assert named(atlas) == ["a", "d"]
    assert atlas.table["name"].tolist() == ["a", "b", "c", "d"]
    with pytest.warns(GlasWarning, match="2 regions of atlas are too small .*: b, c"):
        assert atlas.segments(VoxelGrid(SHAPE, AFFINE)).index.tolist() == [1, 4]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([1, 2, 3], ["Unknown", "a", "b", "c"]),  # is "Unknown" that of 0?
        ([1, 2, 4], ["a", "b", "c"]),
        ([2001, 2002], ["a", "b"]),
        ([1, 2, 3], ["a", "b", "c", "d"]),  # or is the fourth missing from the image?
    ],
)
def test_names_are_not_guessed(values, names):
    with refused(rf"which of the labels \(up to {max(values)}\) has which of the {len(names)} names is unknown"):
        Atlas.from_nilearn({"maps": label_img(values), "labels": names})


@pytest.mark.parametrize("as_path", [False, True])
def test_a_look_up_table_comes_before_counting(tmp_path, as_path):
    lut = pd.DataFrame({"index": [0.0, 7.0, 3.0], "name": ["Background", "seven", "three"]})
    if as_path:
        lut.to_csv(tmp_path / "lut.tsv", sep="\t", index=False)
    bunch = {"maps": label_img([3, 7]), "labels": lut["name"].tolist(), "lut": tmp_path / "lut.tsv" if as_path else lut}
    assert named(Atlas.from_nilearn(bunch)) == ["three", "seven"]
    with refused("every label of the image must have a row in its look-up table, these have none: 9", "the image"):
        Atlas.from_nilearn(bunch | {"maps": label_img([3, 7, 9])})


def test_names_that_occur_twice_get_their_label_appended():
    bunch = {"maps": label_img([1, 2, 3]), "labels": ["Background", "pole", "insula", "pole"]}
    assert Atlas.from_nilearn(bunch).table["name"].tolist() == ["pole 1", "insula", "pole 3"]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("int8", 127), ("uint8", 200), ("int16", 32767), ("uint16", 40000), ("uint16", 65535), ("int32", 100003)],
)
def test_large_labels_keep_their_names(dtype, value):
    indices = ["1", str(value), "3"]
    atlas = Atlas.from_nilearn({"maps": label_img([1, value, 3], dtype), "labels": THREE, "indices": indices})
    assert named(atlas) == THREE
    other = VoxelGrid((9, 14, 12), affine(spacing=(1.7, 1.4, 3.3), angles=(0.1, 0, 0.1), origin=(-7, -13, -21)))
    assert set(atlas.segments(other).index) == {1, value, 3} == set(np.unique(atlas.on(other))) - {0}


# The side of the head


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("Hippocampus_L", "L"),
        ("Hippocampus_R", "R"),
        ("Left Pallidum", "L"),
        ("Right-Thalamus-Proper", "R"),
        ("ctx-lh-insula", "L"),
        ("7Networks_RH_Vis_1", "R"),
        ("Fusiform gyrus LH", "L"),
        ("L G_and_S_frontomargin", "L"),
        ("GM Amygdala_laterobasal group R", "R"),
        ("R Aud", "R"),
        ("rh.insula", "R"),
        ("Brain-Stem", "midline"),
        ("Lingual", "midline"),
        ("Left and right insula", "midline"),
        ("Crus L II", "midline"),
        ("Rectus", "midline"),
    ],
)
def test_a_name_states_the_side(name, side):
    labels = np.zeros(SHAPE, np.int16)
    labels[:, 2, 2:4] = 1  # on both sides
    labels[0, 5, 5] = 2
    bunch = {"maps": nib.Nifti1Image(labels, AFFINE), "labels": ["Background", name, "elsewhere"]}
    assert Atlas.from_nilearn(bunch).table["hemisphere"].tolist() == [side, "L"]


def test_names_on_the_wrong_side_are_reported():
    bunch = {"maps": label_img([1, 2, 3]), "labels": ["Background", "Right a", "Left a", "b"]}
    with pytest.warns(
        GlasWarning, match="2 regions do not lie on the side their name says .*: Right a, Left a"
    ) as caught:
        atlas = Atlas.from_nilearn(bunch)
    assert caught[0].filename == __file__
    assert atlas.table["hemisphere"].tolist() == ["R", "L", "L"]


# Probabilistic atlases; their thresholds are in test_probability_maps.py


def test_the_threshold_of_maps_is_passed_on(tmp_path):
    fetched = FETCHED["harvard-oxford probabilistic"][0](tmp_path)  # peaks of 100, 60 and 30 %
    assert named(Atlas.from_nilearn(fetched, threshold=50)) == THREE[:2]
    with refused("no voxel of the 3 maps .* reaches the threshold 101, the highest is 100"):
        Atlas.from_nilearn(fetched, threshold=101)


def test_another_number_of_names_than_of_maps_is_refused():
    with refused("an atlas of 3 maps must have 3 names, the one fetched has 2"):
        Atlas.from_nilearn({"maps": map_img(3), "labels": THREE[:2]})
    with refused("an atlas of 3 maps must have 3 names, the one fetched has 4"):
        Atlas.from_nilearn({"maps": map_img(3), "labels": ["Unknown", *THREE]})


def test_a_stack_of_parcellations_is_not_mistaken_for_probabilities(tmp_path):
    stack = np.stack([np.asarray(label_img([1, 2]).dataobj), np.asarray(label_img([3, 1, 2]).dataobj)], axis=-1)
    fetched = bunches.craddock(tmp_path, nib.Nifti1Image(stack, AFFINE))
    with refused("each of the 2 volumes of .* is an atlas of its own: choose one", fetched.maps):
        Atlas.from_nilearn(fetched)
    chosen = Atlas.from_nilearn({"maps": index_img(fetched.maps, 1)})
    assert named(chosen) == ["region-3", "region-1", "region-2"]


# Several images in a bunch, as older versions had, and what is no volume at all


def test_one_of_several_images_is_chosen(tmp_path):
    bunches.yeo(tmp_path)
    yeo = tmp_path / "yeo_2011/Yeo_JNeurophysiol11_MNI152"
    stem = "Networks_MNI152_FreeSurferConformed1mm"
    old = Bunch(
        description="",
        thin_7=str(yeo / f"Yeo2011_7{stem}.nii.gz"),
        thick_17=str(yeo / f"Yeo2011_17{stem}_LiberalMask.nii.gz"),
        colors_7=str(yeo / "Yeo2011_7Networks_ColorLUT.txt"),
        colors_17=str(yeo / "Yeo2011_17Networks_ColorLUT.txt"),
    )
    with refused("one of several images must be chosen, as in maps='thin_7': there are thin_7, thick_17"):
        Atlas.from_nilearn(old)
    assert named(Atlas.from_nilearn(old, maps="thick_17")) == [f"17Networks_{i}" for i in range(1, 18)]
    assert named(Atlas.from_nilearn(old, maps="thin_7")) == [f"7Networks_{i}" for i in range(1, 8)]
    basc = Bunch(description="", scale007=str(yeo / f"Yeo2011_7{stem}.nii.gz"))
    assert named(Atlas.from_nilearn(basc, maps="scale007")) == [f"region-{i}" for i in range(1, 8)]


def test_allens_networks_name_their_28_maps(tmp_path):
    fetched = FETCHED["allen"][0](tmp_path)
    names = named(Atlas.from_nilearn(fetched, maps="rsn28"))
    assert names[:4] == ["Basal Ganglia 21", "Auditory 17", "Sensorimotor 7", "Sensorimotor 23"]
    assert len(names) == 28


@pytest.mark.parametrize(
    ("fetched", "match"),
    [
        (datasets.fetch_coords_power_2011(), r"use glas3d.imaging.Coordinates.from_nilearn\(fetched\)"),
        (Bunch(labels=["a"], map_left=np.zeros(5), map_right=np.zeros(5)), "must be a volume, .* on a surface"),
        (
            Bunch(maps=Bunch(mesh=None, data=None), labels=["a"]),
            "one volume, 'maps' of the one fetched is on a surface",
        ),
        (Bunch(maps=["a.nii", "b.nii"]), "one volume, 'maps' of the one fetched is a list"),
        (Bunch(description="text", labels=["a"]), "image in 'maps', the one fetched has description, labels"),
        ("AAL", "fetch_atlas_.* function returned, got str"),
        (None, "got NoneType"),
        (Bunch(maps=label_img([1]), labels=pd.DataFrame({"colour": ["red"]})), "a column name, they have colour"),
        (Bunch(maps=nib.Nifti1Image(np.zeros((*SHAPE, 2, 2)), AFFINE)), r"3D, or 4D .* has shape \(7, 8, 9, 2, 2\)"),
        (Bunch(maps=label_img([1.5, 2], np.float32), labels=["a", "b"]), "must hold whole numbers"),
        (Bunch(maps=label_img([]), labels=["a"]), "must hold labels above 0"),
    ],
)
def test_a_fetched_result_without_a_volume_is_refused(fetched, match):
    with refused(match):
        Atlas.from_nilearn(fetched)


def test_a_missing_file_is_refused(tmp_path):
    with refused("no such file", tmp_path / "gone.nii.gz"):
        Atlas.from_nilearn({"maps": str(tmp_path / "gone.nii.gz"), "labels": ["a"]})


def test_a_fetched_atlas_has_segments_on_any_grid(tmp_path):
    """Its segments are those of any atlas."""
    atlas = Atlas.from_nilearn(FETCHED["aal"][0](tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        segments = atlas.segments(VoxelGrid(SHAPE, AFFINE))
    for i, (value, point) in enumerate(zip(segments.index, segments.points, strict=True)):
        where = np.argwhere(np.asarray(atlas.labels_img.dataobj) == value)
        np.testing.assert_allclose(point, where.mean(axis=0))
        assert at(atlas, i)["name"] == THREE[i]
