import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from glas3d import GlasError, Predictor, explain_img
from glas3d.explain import COLUMNS
from glas3d.study.group.group_map import GroupMap
from tests import bundles
from tests.study.group.explanations import AFFINE, ATLAS, INDEX, LABELS, explanation, group_of, minmax


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_table_is_the_plain_formula(n):
    people = [explanation(i) for i in range(n)]
    table = group_of(*people).table()
    score = minmax(sum(minmax(each.table["score"].to_numpy()) for each in people))
    np.testing.assert_allclose(table["score"], score, rtol=1e-12, equal_nan=True)
    for column in ("light", "shadow", "drop"):
        np.testing.assert_allclose(table[column], np.mean([each.table[column] for each in people], axis=0), rtol=1e-12)
    order = np.argsort(-score[:4]) + 0
    assert table["rank"].tolist()[:4] == [int(np.flatnonzero(order == i)[0]) + 1 for i in range(4)]
    assert table.columns.tolist() == COLUMNS
    for column in ("index", "name", "hemisphere", "n_voxels"):
        assert table[column].tolist() == people[0].table[column].tolist()
    assert (np.nanmin(table["score"]), np.nanmax(table["score"])) == (0, 1)


def test_a_confident_prediction_does_not_outvote_the_others():
    loud, quiet = explanation(0, score=[100.0, 1, 1, 1, np.nan]), explanation(1, score=[1e-6, 3e-6, 2e-6, 0, np.nan])
    table = group_of(loud, quiet, quiet).table()
    assert table.sort_values("rank")["name"].iloc[0] == "b"


def test_the_order_of_participants_does_not_matter():
    people = [explanation(i) for i in range(4)]
    one, other = (group_of(*order).table().drop(columns=["x", "y", "z"]) for order in (people, people[::-1]))
    pd.testing.assert_frame_equal(one, other, rtol=1e-12)


def test_regions_without_values_keep_their_row():
    table = group_of(explanation(0), explanation(1)).table()
    assert table["name"].tolist() == list("abcde")
    last = table.iloc[-1]
    assert last[["light", "shadow", "drop", "score", "rank"]].isna().all()
    assert last["n_voxels"] == 0
    assert sorted(table["rank"].dropna()) == [1, 2, 3, 4]


def test_a_participant_whose_scores_are_all_equal_adds_nothing():
    flat = explanation(1, score=[0.5, 0.5, 0.5, 0.5, np.nan])
    np.testing.assert_array_equal(
        group_of(explanation(0), flat).table()["score"], group_of(explanation(0)).table()["score"]
    )


def test_the_map_holds_the_tables_scores():
    group = group_of(explanation(0), explanation(1))
    img, table = group.saliency_img(), group.table().set_index("index")
    values = np.asarray(img.dataobj)
    assert values.dtype == np.float32
    for index in INDEX[:4]:
        np.testing.assert_array_equal(values[index == LABELS], np.float32(table["score"][index]))
    assert (values[LABELS == 0] == 0).all()
    assert values.max() == 1
    np.testing.assert_array_equal(img.affine, AFFINE)
    assert (int(img.header["sform_code"]), int(img.header["qform_code"])) == (4, 2)


def test_inputs_and_results_do_not_share_memory():
    each = explanation(0)
    before = each.table.copy(deep=True)
    group = group_of(each, explanation(1))
    table = group.table()
    table.loc[:, "score"] = 5.0
    group.saliency_img().get_fdata()[:] = 5
    pd.testing.assert_frame_equal(each.table, before)
    assert group.table()["score"].max() == 1
    assert np.asarray(each.saliency_img.dataobj).max() == 0


OTHERS = {
    "shape": {"shape": (8, 7, 9)},
    "affine": {"affine": np.diag([2.0, 3.0, 4.1, 1.0])},
    "side": {"affine": np.diag([-2.0, 3.0, 4.0, 1.0])},
    "regions": {"index": [300, 7, 41, 3, 99]},
    "order": {"index": [7, 300, 41, 2, 99]},
}


@pytest.mark.parametrize("changed", OTHERS.values(), ids=OTHERS)
def test_another_grid_or_other_regions_are_refused_and_change_nothing(changed):
    group = group_of(explanation(0))
    before = group.table()
    with pytest.raises(GlasError, match="must share grid and regions: sub-1_seg-few is on"):
        group.add(explanation(1, **changed))
    pd.testing.assert_frame_equal(group.table(), before)
    assert len(group) == 1


@pytest.mark.parametrize("part", ["Target", "Settings", "Model"])
def test_participants_explained_differently_are_refused_and_change_nothing(part):
    group, other = group_of(explanation(0)), explanation(1)
    before = group.table()
    other.provenance[part] = dict.fromkeys(other.provenance[part], "another")
    with pytest.raises(GlasError, match="must be explained alike, sub-1_seg-few differs in target, settings or model"):
        group.add(other)
    pd.testing.assert_frame_equal(group.table(), before)
    assert len(group) == 1


def test_networks_of_folds_in_memory_make_a_group():
    """They have one name and other weights."""
    first, second = explanation(0), explanation(1)
    first.provenance["Model"] = {"name": "brain-age", "weights_sha256": "0"}
    second.provenance["Model"] = {"name": "brain-age", "weights_sha256": "1"}
    assert len(group_of(first, second)) == 2


def test_options_of_a_study_are_recorded_and_must_be_the_same(tmp_path):
    first, second = explanation(0), explanation(1)
    first.provenance["Options"] = {"recursive": True}
    group = group_of(first)
    sidecar = json.loads(group.save(tmp_path)[1].read_text())
    assert sidecar["Options"] == {"recursive": True}
    with pytest.raises(GlasError, match="must be explained alike"):
        group.add(second)


def test_an_empty_group_is_refused(tmp_path):
    group = GroupMap("NC", ATLAS)
    assert len(group) == 0
    for read in (group.table, group.saliency_img, lambda: group.save(tmp_path / "group")):
        with pytest.raises(GlasError, match="at least one participant, NC has none"):
            read()
    assert list(tmp_path.iterdir()) == []


def test_files_are_written(tmp_path):
    group = group_of(explanation(0), explanation(1))
    paths = group.save(tmp_path / "group")
    names = [
        f"group-AD_seg-few_{end}"
        for end in ("stat-saliency_statmap.nii.gz", "stat-saliency_statmap.json", "regions.tsv", "regions.json")
    ]
    assert sorted(p.name for p in (tmp_path / "group").iterdir()) == sorted(names)
    assert [p.name for p in paths] == names
    np.testing.assert_array_equal(nib.load(paths[0]).get_fdata(), group.saliency_img().get_fdata())
    read = pd.read_csv(paths[2], sep="\t", na_values="n/a")
    assert read.columns.tolist() == COLUMNS
    np.testing.assert_array_equal(read["score"], group.table()["score"])
    sidecar = json.loads(paths[1].read_text())
    assert [p["name"] for p in sidecar["Participants"]] == ["sub-0.nii.gz", "sub-1.nii.gz"]
    assert [p["probability"] for p in sidecar["Participants"]] == [0.5, 0.51]
    assert {"Group", "Statistic", "Settings", "Model", "Target", "Search", "GeneratedBy"} <= set(sidecar)
    again = {p.name: p.read_bytes() for p in paths}
    group.save(tmp_path / "group")
    assert {p.name: p.read_bytes() for p in paths} == again


def test_explanations_of_scans_make_a_group(few, tmp_path):
    predict = Predictor(bundles.network(), "softmax", lambda batch: batch / 200 - 1, "cpu")
    people = []
    for seed in range(2):
        img = bundles.t1()
        noisy = nib.Nifti1Image(bundles.scan(seed)[0].numpy(), img.affine, img.header)
        people.append(explain_img(noisy, predict, 1, few, preset="paper"))
    group = GroupMap("AD", few)
    for each in people:
        group.add(each)
    expected = minmax(sum(minmax(each.table["score"].to_numpy()) for each in people))
    np.testing.assert_allclose(group.table()["score"], expected, rtol=1e-9)
    values, labels = np.asarray(group.saliency_img().dataobj), few.on(bundles.GRID)
    highest = group.table().sort_values("rank").iloc[0]
    np.testing.assert_array_equal(values == 1, labels == highest["index"])
