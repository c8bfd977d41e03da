"""Figures of results in memory: which there are, what they show, and what is left transparent."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from io import BytesIO

import matplotlib as mpl
import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pytest
from matplotlib.figure import Figure

from glas3d import GlasError, Grid, explain_image, explain_img
from glas3d.evaluate import attribute, compare
from glas3d.explain import ranked
from glas3d.imaging.map_header import display_range
from glas3d.imaging.space import mni_grid, template_on
from glas3d.report import BrainMap, figure_kinds, mosaic_figure, view
from glas3d.report.ranks import highest_places, ranks_img
from glas3d.report.regions import five_regions_figure
from glas3d.study import GroupMap
from tests.imaging.cases import HEADS, head, seen

MASKS = {"sigma_light": 12.0, "sigma_shadow": 12.0, "unit": "mm"}


@pytest.fixture(autouse=True, scope="module")
def coarse_template():
    """Draw on the template at 4 mm, which is ten times as fast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("glas3d.report.plotting.template", lambda: nib.Nifti1Image(template_on(4), mni_grid(4).affine))
        yield


@pytest.fixture(scope="module")
def scan():
    return head(HEADS["LAS"])


@pytest.fixture(scope="module")
def result(scan, few):
    """Return the explanation of a scan in MNI space, whose axes are not those of MNI."""
    return explain_img(scan, seen(scan, few), 1, few, **MASKS)


@pytest.fixture(scope="module")
def points(scan, few):
    return explain_img(scan, seen(scan, few), 1, Grid((3, 4, 2)), **MASKS)


def pixels(figure):
    buffer = BytesIO()
    figure.savefig(buffer, dpi=80)
    buffer.seek(0)
    return plt.imread(buffer)[..., :3]


@pytest.mark.parametrize(
    "kind", ["regions", "mosaic", "glass", "bars", "light-shadow", pytest.param("surface", marks=pytest.mark.slow)]
)
def test_every_kind_is_drawn_and_no_figure_stays_open(result, kind):
    assert kind in figure_kinds()
    figure = result.plot(kind)
    assert isinstance(figure, Figure)
    image = pixels(figure)
    coloured = np.ptp(image, axis=-1) > 0.2
    assert coloured.sum() > 50
    assert coloured.mean() < 0.6  # most has no colour
    assert plt.get_fignums() == []
    texts = {text.get_text() for text in figure.findobj(plt.Text)}
    assert any("P(class 1) = " in text for text in texts)


def test_the_first_kind_is_the_default(result):
    assert next(iter(figure_kinds())) == "regions"
    np.testing.assert_array_equal(pixels(result.plot()), pixels(result.plot("regions")))


def test_a_kind_that_does_not_exist_or_cannot_be_drawn_is_refused(result, scan, few):
    with pytest.raises(GlasError, match="there is no figure 'pie', only regions, mosaic, "):
        result.plot("pie")
    only_light = explain_img(scan, seen(scan, few), 1, few, fusion="light", **MASKS)
    with pytest.raises(GlasError, match="has no figure 'light-shadow', only regions, mosaic, glass, surface, bars"):
        only_light.plot("light-shadow")


def test_a_scan_that_is_not_in_mni_has_no_glass_brain_but_its_own_anatomy():
    scan = nib.Nifti1Image(np.random.default_rng(0).uniform(0, 900, (7, 8, 9)), np.diag([20, 20, 20, 1]))

    def bright(batch):
        return batch.mean(dim=(1, 2, 3, 4))[:, None] / 1e4

    r = explain_img(scan, bright, 0, Grid(2), **MASKS)
    with pytest.raises(GlasError, match="has no figure 'glass', only regions, mosaic, bars, light-shadow"):
        r.plot("glass")
    assert (np.ptp(pixels(r.plot("mosaic", slices=2)), axis=-1) > 0.2).mean() > 0.01
    assert "mm, drop" in repr(r)  # no anatomy is named


def test_points_are_named_by_their_anatomy_where_the_space_is_known(points):
    first = points.table.sort_values("rank").iloc[0]
    assert f"highest-scoring {first['name']} ({first['x']:.0f}, {first['y']:.0f}, {first['z']:.0f} mm, " in repr(points)
    assert any(word in repr(points) for word in ("mm, in ", "mm from ", "outside of all regions"))
    assert "24 points, a grid of 3 x 4 x 2 cells" in repr(points)


def test_weak_values_are_transparent_and_strong_ones_are_not():
    grid = mni_grid(8)
    values = np.zeros(grid.shape)
    middle = tuple(n // 2 for n in grid.shape)
    values[middle[0], middle[1], middle[2]] = 1.0
    values[:, :, middle[2] - 2 : middle[2]] = 0.02  # everywhere, and next to nothing
    brain_map = BrainMap(nib.Nifti1Image(values, grid.affine), "t", "l", nib.Nifti1Image(template_on(8), grid.affine))
    lowest, largest = display_range(values)
    assert brain_map.opacity(np.array([lowest, -lowest, largest])).tolist() == [1, 1, 1]
    assert brain_map.opacity(np.array([0, 0.02])).tolist() == [0, 0]  # up to the median
    assert 0 < brain_map.opacity(np.array([lowest / 2])).item() < 0.2
    image = pixels(mosaic_figure(brain_map, slices=3))[:, :-80]
    assert brain_map.values is brain_map.values, "computed once"
    assert not brain_map.values.flags.writeable
    coloured = np.ptp(image, axis=-1) > 0.25
    assert 0 < coloured.mean() < 0.01


def test_signed_maps_are_blue_where_they_speak_against():
    grid = mni_grid(8)
    values = np.zeros(grid.shape)
    values[:6], values[-6:] = -1, 1
    image = pixels(mosaic_figure(BrainMap(nib.Nifti1Image(values, grid.affine), "t", "l"), slices=1))[:, :-80]
    red, blue = image[..., 0] - image[..., 2] > 0.25, image[..., 2] - image[..., 0] > 0.25
    assert np.argwhere(blue)[:, 1].max() < np.argwhere(red)[:, 1].min()  # the first voxels are on the left


def test_ranks_are_labels_where_the_regions_are(result, few):
    labels = np.asarray(ranks_img(result.saliency_img, result.table).dataobj)
    painted = np.asarray(result.saliency_img.dataobj)
    assert labels.dtype == np.uint8
    for row in result.table.sort_values("rank").head(5).to_dict("records"):
        np.testing.assert_array_equal(labels == row["rank"], painted == np.float32(row["score"]))
    assert set(np.unique(labels)) == {0, 1, 2, 3, 4, 5}


def test_ranks_of_points_are_balls_around_them(points):
    img = ranks_img(points.saliency_img, points.table, n=3)
    for row in points.table.sort_values("rank").head(3).to_dict("records"):
        at = nib.affines.apply_affine(img.affine, np.argwhere(np.asarray(img.dataobj) == row["rank"]))
        assert np.linalg.norm(at - [row["x"], row["y"], row["z"]], axis=1).max() <= 6


def test_regions_with_the_same_score_share_their_first_rank(result):
    """They do on the map, which cannot tell them apart, and in words."""
    table, painted = result.table.copy(), np.array(result.saliency_img.dataobj)
    by_rank = table.set_index("rank")["score"]
    places = [(2, 3), (5, 6)]  # the sixth is not among the five, and as high as the fifth
    for first, second in places:
        table.loc[table["rank"] == second, "score"] = by_rank[first]
        painted[painted == np.float32(by_rank[second])] = by_rank[first]
    labels = np.asarray(ranks_img(nib.Nifti1Image(painted, result.saliency_img.affine), table).dataobj)
    assert set(np.unique(labels)) == {0, 1, 2, 4, 5}
    original = np.asarray(result.saliency_img.dataobj)
    for first, second in places:
        of_both = np.isin(original, by_rank[[first, second]].astype(np.float32))
        np.testing.assert_array_equal(labels == first, of_both)
    names = table.set_index("rank")["name"]
    expected = {1: names[1], 2: f"{names[2]}, {names[3]} (equal scores)", 4: names[4]}
    expected[5] = f"{names[5]}, {names[6]} (equal scores)"
    assert {place.rank: place.names for place in highest_places(table)} == expected


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_a_flat_map_is_drawn_and_said_to_be_flat(result, value):
    """Also one that is the same in all voxels, which has no background."""
    img = nib.Nifti1Image(np.full(result.saliency_img.shape, value), result.saliency_img.affine)
    figure = five_regions_figure(BrainMap(img, "t", "l"), ranked(result.table.assign(score=value, rank=None)))
    assert "no region scores higher than the others" in [t.get_text() for t in figure.findobj(mpl.text.Text)]
    assert pixels(figure).std() > 0


def test_a_map_is_that_of_its_table(result):
    with pytest.raises(GlasError, match="a map must hold the scores of its table"):
        other = result.table.assign(score=result.table["score"] * 2)
        ranks_img(result.saliency_img, ranked(other.assign(rank=None)))


def test_an_interactive_view_has_the_map_and_the_title_as_text(result):
    page = view(result, threshold=0.1).get_standalone()
    assert "P(class 1) = " in page
    assert page.count("data:image/png;base64") >= 1


def test_a_page_needs_no_script_and_shows_names_as_text(result, tmp_path):
    name = "<img src=x onerror=alert(1)>"
    changed = result.table.replace({"name": {result.table["name"].iloc[0]: name}})
    page = replace(result, table=changed).to_html(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == page
    assert name not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "<script" not in page
    assert "data:image/png;base64," in page
    with pytest.raises(GlasError, match=r"cannot write to .*page.html"):
        result.to_html(tmp_path / "page.html" / "page.html")


def test_a_page_is_written_whole_or_not_at_all(result, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "page.html").write_text("an earlier page")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GlasError, match="No space left on device: free some"):
        result.to_html(tmp_path / "page.html")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["an earlier page"]


def test_groups_and_methods_draw_themselves_too(scan, few):
    """A group's map in memory, and several methods of one scan."""
    group = GroupMap("A&B", few)
    assert "A&amp;B" in group._repr_html_()
    for _ in range(2):
        group.add(explain_img(scan, seen(scan, few), 1, few, **MASKS))
    assert repr(group) == "GroupMap(A&B: 2 participants, 8 regions, highest Hippocampus_L)"
    assert "Hippocampus_L" in group._repr_html_()
    assert any("A&B, 2 participants" in text.get_text() for text in group.plot("bars").findobj(plt.Text))
    assert group.plot("mosaic", slices=2).axes
    methods = compare(scan, seen(scan, few), 1, ("feature_ablation", "difference"), few)
    figure = methods.plot()
    assert next(t.get_text() for t in figure.axes[0].get_xticklabels()) == "feature\nablation\nρ +1.00"
    assert "<table" in methods.to_html()
    one = attribute(scan, seen(scan, few), 1, "feature_ablation", few)
    assert one.plot("bars").axes
    assert "difference" in repr(methods)


def test_an_image_draws_itself_over_its_picture():
    picture = np.random.default_rng(0).uniform(0, 255, (24, 30)).astype(np.float32)

    def bright(batch):
        return batch.mean(dim=(1, 2, 3))[:, None] / 255

    r = explain_image(picture, bright, 0, Grid((3, 4)), sigma_light=5.0, sigma_shadow=4.0)
    assert len(r.plot().axes) == 3  # the picture, its map and the colour bar
    assert r.plot("bars").axes
    with pytest.raises(GlasError, match="has no figure 'mosaic', only overlay, bars, light-shadow"):
        r.plot("mosaic")
    with pytest.raises(GlasError, match="a view needs a map of the brain"):
        r.view()


def test_the_backend_that_a_user_has_chosen_stays():
    """A notebook's own figures are no longer shown if another backend is chosen for it."""
    code = "import matplotlib, glas3d.report.maps, glas3d.report.references; print(matplotlib.get_backend())"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | {"MPLBACKEND": "svg"}
    )
    assert run.stdout.strip() == "svg"
