import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from glas3d.errors import GlasWarning
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.lookup_table import read_lookup_table, unique_names
from glas3d.imaging.space import VoxelGrid
from tests.imaging.bunches import AFFINE, label_img
from tests.imaging.cases import SHAPE, refused

LABELS = [17, 53, 1003, 2030]
NAMES = ["Left-Hippocampus", "Right-Hippocampus", "ctx-lh-caudalmiddlefrontal", "ctx-rh-superiortemporal"]

FREESURFER = """#$Id: FreeSurferColorLUT.txt
#No. Label Name:                            R   G   B   A

0   Unknown                                 0   0   0   0
16  Brain-Stem                              119 159 176 0
17  Left-Hippocampus                        220 216 20  0
53  Right-Hippocampus                       220 216 20  0

1003    ctx-lh-caudalmiddlefrontal          100 25  0   0
2030\tctx-rh-superiortemporal\t140 220 220 0
"""
ITKSNAP = """################################################
# ITK-SnAP Label Description File
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
################################################
    0     0    0    0        0  0  0    "Clear Label"
   17   255    0    0        1  1  1    "Left-Hippocampus"
   53     0  255    0        1  1  1    "Right-Hippocampus"
 1003     0    0  255        1  1  1    "ctx-lh-caudalmiddlefrontal"
 2030     0    0  255      0.5  1  1    "ctx-rh-superiortemporal"
"""
MRICRON = "".join(f"{i} {n} {i + 2000}\r\n" for i, n in zip(LABELS, NAMES, strict=True))
ROWS = list(zip(LABELS, NAMES, strict=True))
FSLEYES = "".join(f"{i} {i / 4000:.5f} 0.5 1.0 {n}\n" for i, n in ROWS)
MRTRIX = "# ID short name R G B A\n" + "".join(f"{i}  S.{i}  {n}  25 5 {i % 256} 255\n" for i, n in ROWS)
CAT12 = "ROIid;ROIabbr;ROIname;ROIbaseidname\n" + "".join(f"{i};x{i};{n};{i}\n" for i, n in ROWS)
FSL_XML = (
    "<?xml version='1.0'?><atlas version='1.0'><header><name>A</name><type>{}</type></header><data>{}</data></atlas>"
)
XML_LABELS = FSL_XML.format("Label", "".join(f'<label index="{i}" x="1" y="2" z="3">{n}</label>' for i, n in ROWS))
XML_MAPS = FSL_XML.format("Probabilistic", "".join(f'<label index="{i - 1}">{n}</label>' for i, n in ROWS))
BIDS = "index\tname\tcolor\n" + "".join(f"{i}\t{n}\t#ff0000\n" for i, n in zip(LABELS, NAMES, strict=True))
TABLES = {
    "FreeSurferColorLUT.txt": FREESURFER,
    "labels.label": ITKSNAP,
    "labels.txt": ITKSNAP,
    "aal.nii.txt": MRICRON,
    "lut.ctbl": FREESURFER,
    "x_dseg.tsv": BIDS,
    "bids.txt": BIDS,
    "fsleyes.lut": FSLEYES,
    "exponents.lut": FSLEYES.replace("1.0", "1.00e+00"),
    "mrtrix.txt": MRTRIX,
    "slicer.ctbl": FREESURFER.replace("-Stem", " Stem"),
    "rgb.txt": "".join(f"{i} {n} 1 22 255\n" for i, n in ROWS),
    "spm.txt": "".join(f"S{i}\t{n}\t{i}\n" for i, n in ROWS),
    "plain.txt": "".join(f"{i}\t{n}\n" for i, n in ROWS),
    "comma.txt": "".join(f"{i}, {n}\n" for i, n in ROWS),
    "labels.xml": XML_LABELS,
    "maps.xml": XML_MAPS,
    "Cased_dseg.tsv": BIDS.replace("index", "Index").replace("name", "NAME"),
    "Cased.txt": BIDS.replace("index", "INDEX").replace("name", "Name"),
    "cat12.csv": CAT12,
    "semicolon.csv": BIDS.replace("\t", ";"),
    "x.csv": BIDS.replace("\t", ","),
    "excel.csv": "\ufeff" + BIDS.replace("\t", ","),
}


def own(tmp_path, name, text, values=LABELS, **settings):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    return Atlas.from_files(label_img(values), tmp_path / name, **settings)


@pytest.mark.parametrize("name", TABLES)
def test_every_kind_of_table_names_the_labels(tmp_path, name):
    atlas = own(tmp_path, name, TABLES[name])
    assert atlas.table.to_dict("list") == {"index": LABELS, "name": NAMES, "hemisphere": ["L", "R", "L", "R"]}


def test_a_dataframe_is_a_table():
    table = pd.DataFrame({"index": LABELS, "name": NAMES})
    for each in (table, table.set_index("index"), table.assign(index=[str(i) for i in LABELS])):
        assert Atlas.from_files(label_img(LABELS), each).table["name"].tolist() == NAMES
    assert list(table.columns) == ["index", "name"]  # as it was


def test_a_colour_table_may_name_more_labels_than_the_image_has(tmp_path):
    atlas = own(tmp_path, "lut.txt", FREESURFER, LABELS[:2])
    assert atlas.table["index"].tolist() == LABELS[:2]
    atlas = own(tmp_path, "lut.tsv", BIDS, LABELS[:2])
    assert atlas.table["index"].tolist() == LABELS
    with refused("must have a row in .*, these have none: 99", "lut.txt"):
        own(tmp_path, "lut.txt", FREESURFER, [17, 99])


NAMES_OF_WORDS = {
    "a.lut": "3 0.1 0 1 left hippocampus, head\n4 1 0.25 0 area 4\n",
    "b.lut": "3 left hippocampus, head 1 2 3 0\n4 area 4 10 20 30 0\n",
    "c.txt": "3\tleft hippocampus, head\n4\tarea 4\n",
    "d.txt": "3\tleft hippocampus, head\t2001\n4\tarea 4\t2002\n",
    "e.label": '3 255 0 0 1 1 1 "left hippocampus, head"\n4 0 255 0 1 0 0 "area 4"\n',
    "f.tsv": "Index\tName\n3\tleft hippocampus, head\n4\tarea 4\n",
}


@pytest.mark.parametrize("name", NAMES_OF_WORDS)
def test_names_of_several_words_are_whole(tmp_path, name):
    atlas = own(tmp_path, name, NAMES_OF_WORDS[name], [3, 4])
    assert atlas.table["name"].tolist() == ["left hippocampus, head", "area 4"]


def test_two_words_of_freesurfer_are_no_short_name(tmp_path):
    atlas = own(tmp_path, "a.txt", "3 Left Hippocampus 1 2 3 0\n4 Left Amygdala 4 5 6 0\n", [3, 4])
    assert atlas.table["name"].tolist() == ["Left Hippocampus", "Left Amygdala"]


@pytest.mark.parametrize("text", ["3 Left 1\n4 Left 2\n9 Left 3\n", "9 b\n3 a\n4 a\n", "x\ta\t3\ny\ta\t4\n"])
def test_a_name_of_two_labels_may_be_a_part_of_a_name(tmp_path, text):
    """Where nothing but the name follows the label, it may be one of another dialect's columns."""
    with refused("label must have a name of its own, .*names 3 and 4 '(Left|a)'.*another dialect", "a.txt"):
        own(tmp_path, "a.txt", text, [3, 4])
    assert own(tmp_path, "a.txt", text, [3]).table["index"].tolist() == [3]


def test_quoted_names_keep_their_spaces(tmp_path):
    atlas = own(tmp_path, "a.label", '3 255 0 0 1 1 1 "left hippocampus, head"\n', [3])
    assert atlas.table["name"].tolist() == ["left hippocampus, head"]


def test_sides_are_given_or_taken_from_the_name_or_the_voxels(tmp_path):
    rows = [("a", "R"), ("b", "left"), ("c", "bilateral"), ("d_L", "n/a"), ("e", ""), ("f", "lateral"), ("g_L", "RH")]
    table = "index\tname\themisphere\n" + "".join(f"{i}\t{n}\t{h}\n" for i, (n, h) in enumerate(rows, 1))
    atlas = own(tmp_path, "a.tsv", table, range(1, 8))  # odd labels lie on the left, even on the right
    assert atlas.table["hemisphere"].tolist() == ["R", "L", "midline", "L", "L", "R", "R"]


def test_sides_are_not_checked_in_a_scans_own_space(tmp_path):
    """A name on the other side of x = 0 is a mistake in MNI space only."""
    assert own(tmp_path, "lut.txt", FREESURFER, [53, 17]).table["hemisphere"].tolist() == ["L", "R"]
    with pytest.warns(GlasWarning, match="2 regions do not lie on the side .*: Left-Hippocampus, Right-Hippocampus"):
        own(tmp_path, "lut.txt", FREESURFER, [53, 17], space="MNI")


@pytest.mark.parametrize("space", [None, "MNI"])
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("mirrored", [True, False])
def test_a_mirrored_atlas_is_warned_of_in_any_space(aal, space, given, mirrored):
    """Its image is turned around, its names are swapped, or both, which is right again."""
    labels, affine = np.asarray(aal.labels_img.dataobj), aal.labels_img.affine.copy()
    affine[0, 3] += 40 if space is None else 0  # a space of its own has its middle anywhere
    table = aal.table.copy()
    turned = labels[::-1] if mirrored else labels
    names = (
        table
        if mirrored
        else table.assign(
            name=table["name"]
            .str.replace("_L$", "_X", regex=True)
            .str.replace("_R$", "_L", regex=True)
            .str.replace("_X$", "_R", regex=True),
            hemisphere=table["hemisphere"].map({"L": "R", "R": "L", "midline": "midline"}),
        )
    )
    names = names if given else names.drop(columns="hemisphere")
    with pytest.warns(GlasWarning, match="mirrored, or are names swapped") as caught:
        Atlas.from_files(nib.Nifti1Image(turned, affine), names, space=space)
    assert len(caught) == 1
    right = table if given else table.drop(columns="hemisphere")
    Atlas.from_files(nib.Nifti1Image(labels, affine), right, space=space)  # no warning, which would be an error


def test_names_are_unique():
    assert unique_names(["a", "b", "a", "a"], [1, 2, 30, 4]) == ["a 1", "b", "a 30", "a 4"]
    # a name made so may be there already
    assert unique_names(["a", "a", "a 2"], [1, 2, 3]) == ["a 1", "a 2 2", "a 2 3"]


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("a.tsv", "index\tname\n3\t\n", "every region of an atlas must have a name, index 3 of .* has none"),
        ("a.tsv", "index\tname\n3\t  \n", "must have a name"),
        ("a.tsv", "index\tname\n\ta\n", "index of an atlas table must hold whole numbers"),
        ("a.tsv", "index\tname\ninf\ta\n", "index of an atlas table must hold whole numbers"),
        ("a.csv", "index\tname\n3\ta\n", "must have the columns index and name"),
        ("a.csv", 'index,name\n3,"a\n', "must be comma-separated text"),
        ("a.txt", "3\n", "line 1 of .* must be a label and its name, it is '3'"),
        ("a.txt", "# a comment\n\nthree red\n", "line 3 of .* must be a label and its name, it is 'three red'"),
        ("a.txt", '3 0 0 0 1 1 1 ""\n', "must have a name, index 3"),
        ("a.txt", "3 a\n3 b\n", "must occur once, .* has 3 twice"),
        ("a.lut", "%!VEST-LUT\n0 0 1\n", "line 1 of .* must be a label and its name.*FSL, ITK-SNAP.*are read"),
        ("a.lut", "3 0.5 0.5 0.5\n", "line 1 of .* must be a label and its name"),
        ("a.tsv", "index\tIndex\tname\n3\t4\ta\n", "must have one column index, .* has several"),
        ("a.csv", "ROIid;ROIabbr\n3;a\n", "must have the columns index and name"),
        ("a.xml", "<atlas><data><label index='3'>a</label></data></atlas>", "must be FSL's, .* its type is ''"),
        ("a.xml", "<atlas", "must be FSL's"),
        ("a.xml", "<!DOCTYPE a [<!ENTITY b 'c'>]><atlas/>", "must be FSL's.*declares entities"),
        ("a.txt", "", "these have none: 3"),
    ],
)
def test_a_bad_table_is_refused_in_one_line(tmp_path, name, text, match):
    with refused(match, name):
        own(tmp_path, name, text, [3])


@pytest.mark.parametrize(
    ("table", "match"),
    [
        (pd.DataFrame({"index": [1.5], "name": ["a"]}), "must hold whole numbers, the table does not"),
        (pd.DataFrame({"index": [1.5], "name": ["a"]}, dtype=object), "must hold whole numbers, the table does not"),
        (pd.DataFrame({"index": [1], "name": [None]}), "must have a name, index 1 of the table has none"),
        (pd.DataFrame({"index": [1], "name": [float("nan")]}), "must have a name"),
        (pd.DataFrame({"index": [1], "name": [pd.NA]}), "must have a name"),
        (pd.DataFrame({"label": [1]}), "columns index and name, the table has label"),
    ],
)
def test_a_bad_dataframe_is_refused(table, match):
    with refused(match):
        read_lookup_table(table)


def test_labels_without_a_name_are_reported_with_the_image(tmp_path):
    nib.save(label_img([1, 2, 3, 4, 5, 6, 7]), tmp_path / "seg.nii.gz")
    with refused("every label of .* must have a row in the table, these have none: 2, 3, 4, 5, 6 ...", "seg.nii.gz"):
        Atlas.from_files(tmp_path / "seg.nii.gz", pd.DataFrame({"index": [1], "name": ["a"]}))


def test_an_empty_atlas_is_refused_and_a_constant_one_is_not(tmp_path):
    table = pd.DataFrame({"index": [1], "name": ["all"]})
    with refused("must hold labels above 0, the image holds none"):
        Atlas.from_files(nib.Nifti1Image(np.zeros(SHAPE, np.int16), AFFINE), table)
    atlas = Atlas.from_files(nib.Nifti1Image(np.ones(SHAPE, np.int16), AFFINE), table)
    assert atlas.segments(VoxelGrid(SHAPE, AFFINE)).n_voxels.tolist() == [np.prod(SHAPE)]
