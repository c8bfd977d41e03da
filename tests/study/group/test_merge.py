import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from glas3d import GlasError
from glas3d.study.group.group_map import GroupMap, group_t
from tests.study.group.test_group_map import AFFINE, ATLAS, INDEX, LABELS, OTHERS, group_of, minmax, person

SCORES = np.stack([minmax(person(i).table["score"].to_numpy()) for i in range(6)])


def test_participants_vary():
    found = group_of(*(person(i) for i in range(6))).variation()
    assert found.columns.tolist() == ["index", "name", "hemisphere", "n", "mean", "variance", "overlap"]
    assert found["index"].tolist() == INDEX
    assert set(found["n"]) == {6}
    np.testing.assert_allclose(found["mean"], SCORES.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found["variance"], SCORES.var(axis=0, ddof=1), rtol=1e-12)
    # 66 voxels of 28, 16, 6 and 16: the top 5 %, 4 voxels, is the best region
    best = np.eye(4)[np.nanargmax(SCORES, axis=1)].mean(axis=0)
    np.testing.assert_allclose(found["overlap"], [*best, np.nan])


def test_overlap_counts_voxels():
    """The top 30 % of 66 voxels, 20: the best region, and the next when the best has fewer."""
    group = GroupMap("AD", ATLAS, top=30)
    for score in ([0.5, 0.9, 1.0, 0.1, np.nan], [1.0, 0.9, 0.8, 0.7, np.nan]):
        group.add(person(0, score=score))
    np.testing.assert_allclose(group.variation()["overlap"], [0.5, 0.5, 0.5, 0, np.nan])


def test_variation_is_painted():
    group = group_of(person(0), person(1), person(2))
    for statistic in ("mean", "variance", "overlap"):
        img = group.statistic_img(statistic)
        values = np.asarray(img.dataobj)
        assert values.dtype == np.float32
        np.testing.assert_array_equal(img.affine, AFFINE)
        for row in group.variation().itertuples():
            np.testing.assert_array_equal(values[row.index == LABELS], np.float32(getattr(row, statistic)))
        assert (values[LABELS == 0] == 0).all()


def test_parts_merge_to_the_whole_in_any_order():
    people = [person(i) for i in range(6)]
    whole = group_of(*people)
    parts = [group_of(*people[:1]), group_of(*people[1:4]), GroupMap("AD", ATLAS), group_of(*people[4:])]
    parts = [pickle.loads(pickle.dumps(part)) for part in parts]
    for order in (parts, parts[::-1], [parts[i] for i in (2, 0, 3, 1)]):
        both = order[0]
        for part in order[1:]:
            both = both.merge(part)
        assert len(both) == 6
        for one, other in ((both.table(), whole.table()), (both.variation(), whole.variation())):
            places = ["x", "y", "z"] if "x" in one else []  # made up, and the first participant's
            one, other = one.drop(columns=places), other.drop(columns=places)
            pd.testing.assert_frame_equal(one, other, rtol=1e-10, atol=1e-10)
        assert sorted(p["name"] for p in both._inputs) == [f"sub-{i}.nii.gz" for i in range(6)]
    assert [len(part) for part in parts] == [1, 3, 0, 2]
    assert len(GroupMap("AD", ATLAS).merge(GroupMap("AD", ATLAS))) == 0


def test_a_merged_group_shares_nothing_with_its_parts():
    one = group_of(person(0), person(1))
    before = one.table(), one.variation()
    both = one.merge(GroupMap("AD", ATLAS))
    both.add(person(2))
    pd.testing.assert_frame_equal(one.table(), before[0])
    pd.testing.assert_frame_equal(one.variation(), before[1])
    assert (len(one), len(both)) == (2, 3)


@pytest.mark.parametrize("changed", OTHERS.values(), ids=OTHERS)
def test_parts_of_other_grids_or_regions_are_refused(changed):
    with pytest.raises(GlasError, match="must share grid and regions: another part of AD is on"):
        group_of(person(0)).merge(group_of(person(1, **changed)))


def test_parts_of_another_group_or_explained_otherwise_are_refused():
    one, other = group_of(person(0)), person(1)
    with pytest.raises(GlasError, match="must share name, atlas and top: AD, few, 5 % and NC, few, 5 %"):
        one.merge(group_of(person(1), name="NC"))
    with pytest.raises(GlasError, match="AD, few, 5 % and AD, few, 10 %"):
        one.merge(GroupMap("AD", ATLAS, top=10))
    other.provenance["Settings"] = {"sigma_light": 7}
    with pytest.raises(GlasError, match="another part of AD differs in target, settings or model"):
        one.merge(group_of(other))


def test_t_of_two_groups_is_students():
    case, control = group_of(*(person(i) for i in range(4))), group_of(person(4), person(5), name="NC")
    table, img = group_t(case, control)
    expected = stats.ttest_ind(SCORES[:4], SCORES[4:]).statistic
    np.testing.assert_allclose(table["t"], expected, rtol=1e-9)
    assert table.columns.tolist() == ["index", "name", "hemisphere", "t", "dof"]
    assert set(table["dof"]) == {4}
    values = np.asarray(img.dataobj)
    for index, t in zip(INDEX[:4], expected[:4], strict=True):
        np.testing.assert_array_equal(values[index == LABELS], np.float32(t))
    turned, _ = group_t(control, case)
    np.testing.assert_allclose(turned["t"], -table["t"])


def test_maps_that_say_nothing_are_refused():
    one = group_of(person(0))
    with pytest.raises(GlasError, match=r"a variance map needs a region with a value, AD \(1\) has none"):
        one.statistic_img("variance")
    with pytest.raises(GlasError, match="at least 2 maps a group, got 1 and 1"):
        group_t(one, group_of(person(1), name="NC"))
    with pytest.raises(GlasError, match="at least one participant, NC has none"):
        group_t(one, GroupMap("NC", ATLAS))
    with pytest.raises(GlasError, match="at least one participant, NC has none"):
        GroupMap("NC", ATLAS).variation()
    same = group_of(person(0), person(0))
    with pytest.raises(GlasError, match="a t map needs a region with a value"):
        group_t(same, same)
    with pytest.raises(GlasError, match="must share grid and regions: NC is on"):
        group_t(same, group_of(person(1, **OTHERS["shape"]), name="NC"))
