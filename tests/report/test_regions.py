"""The figure of the highest-scoring regions: what is drawn, and in which colours and order."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from nibabel import Nifti1Image

from glas3d import Atlas
from glas3d.core.search import paint
from glas3d.explain import ranked
from glas3d.imaging.space import mni_grid, template_on
from glas3d.report import regions, regions_figure
from glas3d.report.regions import COLOURS
from glas3d.simulate import PLANTED


def drawn(atlas, names, tmp_path, values=None, **settings):
    """Return the path and the RGB pixels of a figure in which ``names`` have the highest scores, in this order."""
    table = atlas.centroids()
    score = {name: 1 - 0.1 * i for i, name in enumerate(names)}
    table["score"] = table["name"].map(score)
    if values is None:
        table["score"] = table["score"].fillna(0.01)
    table = ranked(table.assign(light=0.5, shadow=0.5, drop=0.1))
    scored = table.dropna(subset=["score"])
    grid = mni_grid(4)
    painted = paint(atlas.on(grid), scored["index"].to_numpy(), scored["score"].to_numpy())
    save = regions_figure(Nifti1Image(painted, grid.affine), table, atlas, title="made up", **settings)
    path = tmp_path / "figure.png"
    save(path)
    return path, plt.imread(path)[..., :3]


@pytest.fixture
def coarse(aal, monkeypatch):
    """Atlas and template at 4 mm, which are drawn ten times faster."""
    grid = mni_grid(4)
    monkeypatch.setattr(regions, "template", lambda: Nifti1Image(template_on(4), grid.affine))
    return Atlas("AAL", Nifti1Image(aal.on(grid), grid.affine), aal.table, aal.sha256, "MNI")


@pytest.fixture(scope="module")
def five(aal, tmp_path_factory):
    return drawn(aal, PLANTED[:5], tmp_path_factory.mktemp("figure"))


def pure(image, colour):
    """Return which pixels have a colour."""
    return (np.abs(image - to_rgb(colour)) < 0.02).all(axis=-1)


def legend(image):
    """Return the part of the figure with the names, right of the template."""
    return image[: image.shape[0] // 2, int(0.8 * image.shape[1]) :]


def test_it_is_a_png_of_a_size_to_print(five):
    path, image = five
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert path.stat().st_size > 50_000
    assert image.shape[0] > 700
    assert image.shape[1] > 1400
    assert 0.2 < (image.mean(axis=-1) > 0.99).mean() < 0.9


def test_the_five_colours_are_in_the_order_of_the_ranks(five):
    assert COLOURS == ("red", "green", "blue", "yellow", "purple")
    heights = []
    for colour in COLOURS:
        rows = np.flatnonzero(pure(legend(five[1]), colour).any(axis=1))
        assert rows.size > 3
        heights.append(rows.mean())
    assert heights == sorted(heights)


def test_all_text_is_written(coarse, tmp_path, monkeypatch):
    """Legend by rank, title, slices' heights, left and right marks, colour bar."""
    closed = []
    monkeypatch.setattr(plt, "close", closed.append)
    drawn(coarse, PLANTED[:5], tmp_path, cuts=5)
    figure = closed[-1]
    monkeypatch.undo()
    texts = [t.get_text() for t in figure.findobj(mpl.text.Text) if t.get_text()]
    plt.close(figure)
    names = [f"{rank}  {name}" for rank, name in enumerate(PLANTED[:5], start=1)]
    assert [t for t in texts if t in names] == names
    assert "made up" in texts
    assert texts.count("L") == texts.count("R") >= 3
    assert sum(t.startswith("z=") for t in texts) == 1 + 5  # the template's, and five slices


def test_a_region_is_drawn_where_it_is(coarse, tmp_path):
    """Left is on the left, as its mark says: the first region is cut through its centroid."""
    centres = {}
    for name in ("Hippocampus_L", "Hippocampus_R"):
        _, image = drawn(coarse, [name], tmp_path, values="only this")
        height, width = image.shape[:2]
        coronal = image[int(0.1 * height) : height // 2, int(0.34 * width) : int(0.55 * width)]
        red = (coronal[..., 0] > 0.6) & (coronal[..., 1] < 0.45) & (coronal[..., 2] < 0.45)
        assert 20 < red.sum() < 0.1 * red.size
        centres[name] = np.argwhere(red).mean(axis=0)[1] / red.shape[1]
    assert centres["Hippocampus_L"] + 0.1 < centres["Hippocampus_R"]


def test_the_highest_are_chosen_by_rank_whatever_their_order(coarse, tmp_path):
    rows = coarse.table.sample(frac=1, random_state=0)
    shuffled = Atlas("AAL", coarse.labels_img, rows, coarse.sha256, "MNI")
    image, other = (drawn(atlas, PLANTED[:5], tmp_path)[1] for atlas in (coarse, shuffled))
    np.testing.assert_array_equal(image, other)
    assert (drawn(coarse, PLANTED[4::-1], tmp_path)[1] != image).any()


@pytest.mark.parametrize("names", [PLANTED[:1], PLANTED[:2], PLANTED[:3]], ids=len)
def test_fewer_regions_than_colours(coarse, tmp_path, names):
    _, image = drawn(coarse, names, tmp_path, values="only these")
    present = [pure(legend(image), colour).sum() > 20 for colour in COLOURS]
    assert present == [i < len(names) for i in range(5)]


def test_no_figure_stays_open(coarse, tmp_path, monkeypatch):
    assert plt.get_fignums() == []
    drawn(coarse, PLANTED[:5], tmp_path)
    assert plt.get_fignums() == []

    def failing(*args, **kwargs):
        raise RuntimeError("no slices")

    monkeypatch.setattr(regions, "draw_slices", failing)
    with pytest.raises(RuntimeError, match="no slices"):
        drawn(coarse, PLANTED[:5], tmp_path)
    assert plt.get_fignums() == []


def test_no_figure_stays_open_when_it_cannot_be_written(coarse, tmp_path):
    with pytest.raises(FileNotFoundError):
        drawn(coarse, PLANTED[:5], tmp_path / "nowhere")
    assert plt.get_fignums() == []


def test_equal_input_gives_equal_bytes(coarse, tmp_path):
    assert len({drawn(coarse, PLANTED[:5], tmp_path)[0].read_bytes() for _ in range(2)}) == 1
