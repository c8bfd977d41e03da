"""Look-up tables of other viewers, read as those viewers read them."""

import configparser
import re

import numpy as np
import pytest

from glas3d.imaging.lookup_table import read_lookup_table
from glas3d.report import viewers
from glas3d.report.viewers import Scene, rank_labels

NAMES = ["Hippocampus_L", "Left Amygdala", 'the "third"', "Vermis_3", "Temporal_Inf_R", "the sixth"]
RGB = [(255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 0), (128, 0, 128), (176, 176, 176)]


@pytest.fixture
def labels():
    return rank_labels(dict(enumerate(NAMES, start=1)))


def test_ranks_have_the_colours_of_the_paper(labels):
    assert [label.rgb for label in labels] == RGB
    assert [label.index for label in labels] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("write", "ending", "names"),
    [
        (viewers.fsleyes_lut, ".lut", [f"rank{i} {name}" for i, name in enumerate(NAMES, 1)]),
        (viewers.itksnap_labels, ".label", [f"rank{i} {name}".replace('"', "'") for i, name in enumerate(NAMES, 1)]),
        (viewers.freesurfer_lut, ".txt", ["_".join(f"rank{i} {name}".split()) for i, name in enumerate(NAMES, 1)]),
        (viewers.mricron_names, ".txt", ["_".join(f"rank{i} {name}".split()) for i, name in enumerate(NAMES, 1)]),
    ],
    ids=["fsleyes", "itksnap", "freesurfer", "mricron"],
)
def test_our_own_reader_of_their_tables_reads_index_and_name(write, ending, names, labels, tmp_path):
    path = tmp_path / f"table{ending}"
    path.write_text(write(labels))
    table = read_lookup_table(path, range(1, 7))
    assert table["index"].tolist() == [1, 2, 3, 4, 5, 6]
    assert table["name"].tolist() == names


def test_colours_are_where_each_form_has_them(labels):
    rows = [line.split() for line in viewers.fsleyes_lut(labels).splitlines()]
    np.testing.assert_allclose([[float(v) for v in row[1:4]] for row in rows], np.array(RGB) / 255, atol=1e-5)
    rows = [line.split(maxsplit=7) for line in viewers.itksnap_labels(labels).splitlines() if line[0] != "#"]
    assert [tuple(map(int, row[1:4])) for row in rows] == [(0, 0, 0), *RGB]
    assert [row[4:7] for row in rows] == [["0", "0", "0"]] + [["1", "1", "1"]] * 6
    rows = [line.split() for line in viewers.freesurfer_lut(labels).splitlines()[2:]]
    assert [(*map(int, row[2:5]), int(row[5])) for row in rows] == [(*rgb, 0) for rgb in RGB]
    table = np.frombuffer(viewers.mricron_lut(labels), np.uint8).reshape(3, 256)
    np.testing.assert_array_equal(table[:, 1:7].T, RGB)
    assert not table[:, 7:].any()


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_each_label_has_its_colour_in_mricrogl(labels, n):
    """MRIcroGL draws values from 0 to n as positions from 0 to 255, with straight lines between the nodes."""
    clut = configparser.ConfigParser()
    clut.read_string(viewers.mricrogl_clut(labels[:n]))
    count = int(clut["INT"]["numnodes"])
    at = [int(clut["BYT"][f"nodeintensity{i}"]) for i in range(count)]
    rgba = np.array([[int(v) for v in clut["RGBA255"][f"nodergba{i}"].split("|")] for i in range(count)])
    assert at == sorted(at)
    assert (at[0], at[-1]) == (0, 255)
    assert float(clut["FLT"]["max"]) == n
    for value in range(n + 1):
        drawn = [np.interp(value / n * 255, at, rgba[:, channel]) for channel in range(4)]
        np.testing.assert_allclose(drawn, (0, 0, 0, 0) if value == 0 else (*RGB[value - 1], 128), atol=1)


def scene(**changes):
    kept = {"anatomy": "anatomy.nii.gz", "map": "../m.nii.gz", "ranks": "m_ranks", "lowest": 0.25, "largest": 2.0}
    return Scene(**(kept | {"last": 5, "is_signed": False} | changes))


def test_the_script_of_mricrogl_runs_and_opens_everything(tmp_path):
    """The script is run with a stand-in for MRIcroGL's module, which notes every call."""
    calls = []

    class Gl:
        def __getattr__(self, name):
            return lambda *arguments: calls.append((name, *arguments))

    import sys

    sys.modules["gl"] = Gl()
    try:
        exec(viewers.mricrogl_script(scene(is_signed=True)), {"__file__": str(tmp_path / "s.py")})
    finally:
        del sys.modules["gl"]
    loaded = [call[1] for call in calls if call[0] in ("loadimage", "overlayload")]
    assert loaded == [str(tmp_path / n) for n in ("anatomy.nii.gz", "../m.nii.gz", "../m.nii.gz", "m_ranks.nii.gz")]
    ranges = [call[1:] for call in calls if call[0] == "minmax"]
    assert ranges == [(1, 0.25, 2.0), (2, -0.25, -2.0), (3, 0, 5)]


def test_commands_without_anatomy_open_the_map_itself():
    alone = scene(anatomy=None)
    assert viewers.itksnap_command(alone)[:3] == ["itksnap", "-g", "../m.nii.gz"]
    assert viewers.mricron_command(alone) == ["mricron", "../m.nii.gz"]
    assert viewers.fsleyes_command(alone)[1] == "../m.nii.gz"
    assert re.search(r"heatscale=0.25,1.125,2$", viewers.freeview_command(alone)[2])


def test_a_signed_map_shows_both_sides_in_fsleyes():
    assert "-un" in viewers.fsleyes_command(scene(is_signed=True))
    assert "-un" not in viewers.fsleyes_command(scene())
