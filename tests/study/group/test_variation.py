import numpy as np
import pytest

from glas3d import GlasError
from glas3d.study.group.group_map import GroupMap
from tests.study.group.explanations import AFFINE, ATLAS, INDEX, LABELS, explanation, group_of, minmax

SCORES = np.stack([minmax(explanation(i).table["score"].to_numpy()) for i in range(6)])


def test_variation_is_that_of_the_normalised_scores():
    table = group_of(*(explanation(i) for i in range(6))).variation()
    assert table.columns.tolist() == ["index", "name", "hemisphere", "n", "mean", "variance", "overlap"]
    assert table["index"].tolist() == INDEX
    assert set(table["n"]) == {6}
    np.testing.assert_allclose(table["mean"], SCORES.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(table["variance"], SCORES.var(axis=0, ddof=1), rtol=1e-12)
    # 66 voxels of 28, 16, 6 and 16: the top 5 %, 4 voxels, is the highest region
    highest = np.eye(4)[np.nanargmax(SCORES, axis=1)].mean(axis=0)
    np.testing.assert_allclose(table["overlap"], [*highest, np.nan])


def test_overlap_counts_voxels():
    """The top 30 % of 66 voxels, 20: the highest region, and the next where the highest has fewer."""
    group = GroupMap("AD", ATLAS, top=30)
    for score in ([0.5, 0.9, 1.0, 0.1, np.nan], [1.0, 0.9, 0.8, 0.7, np.nan]):
        group.add(explanation(0, score=score))
    np.testing.assert_allclose(group.variation()["overlap"], [0.5, 0.5, 0.5, 0, np.nan])


def test_variation_maps_hold_the_tables_values():
    group = group_of(explanation(0), explanation(1), explanation(2))
    for statistic in ("mean", "variance", "overlap"):
        img = group.statistic_img(statistic)
        values = np.asarray(img.dataobj)
        assert values.dtype == np.float32
        np.testing.assert_array_equal(img.affine, AFFINE)
        for row in group.variation().itertuples():
            np.testing.assert_array_equal(values[row.index == LABELS], np.float32(getattr(row, statistic)))
        assert (values[LABELS == 0] == 0).all()


def test_maps_without_values_are_refused():
    group = group_of(explanation(0))
    with pytest.raises(GlasError, match=r"a variance map needs a region with a value, AD \(1\) has none"):
        group.statistic_img("variance")
    with pytest.raises(GlasError, match="at least one participant, NC has none"):
        GroupMap("NC", ATLAS).variation()
