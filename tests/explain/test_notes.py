"""What a reader of a map is told: flat maps, saturated outputs, direction, ranges and columns."""

import json
import warnings

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from glas3d import GlasError, GlasWarning, Grid, Predictor, explain_image, explain_img
from glas3d.explain.notes import account_sentence, statement_of
from glas3d.explain.table import ranks
from glas3d.imaging.map_header import display_range
from glas3d.imaging.mask import bright_voxels
from glas3d.imaging.scan import load_scan
from tests.imaging.cases import HEADS, head, seen, with_info

RAS = HEADS["RAS"]
MASKS = {"sigma_light": 12.0, "sigma_shadow": 12.0, "unit": "mm"}


@pytest.fixture(scope="module")
def scan():
    return head(RAS)


@pytest.fixture(scope="module")
def result(scan, few):
    return explain_img(scan, seen(scan, few), 1, few, **MASKS)


def test_a_flat_map_is_reported_and_has_no_ranks(scan, few):
    with pytest.warns(GlasWarning, match="the map is flat: all 8 scores are the same"):
        r = explain_img(scan, lambda batch: torch.full((len(batch), 2), 0.5), 1, few, **MASKS)
    assert r.table["rank"].isna().all()
    assert r.table["direction"].isna().all()
    assert r.provenance["Notes"] == [
        "the map is flat: all 8 scores are the same, so no region stands out and ranks have no meaning"
    ]


def test_a_saturated_output_is_reported(scan, few):
    def light_only(batch):
        kept = (batch != 0).flatten(1).float().mean(dim=1)
        p = torch.where(kept > 0.5, 1.0, 0.3 + 0.1 * kept)
        return torch.stack([1 - p, p], dim=1)

    with pytest.warns(GlasWarning, match=r"the output is saturated: P = 1, removing any region changes it by at"):
        r = explain_img(scan, light_only, 1, few, **MASKS)
    assert r.table["rank"].notna().all()
    assert "Notes" in r.provenance


def test_an_ordinary_result_has_no_notes(scan, few):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        r = explain_img(scan, seen(scan, few), 1, few, **MASKS)
    assert "Notes" not in r.provenance


def test_a_grid_whose_masks_leave_much_unseen_is_noted(scan, few):
    """Far apart, as many voxels are reached as lie within the radius at which a mask has a tenth of its weight."""
    model = seen(scan, few)
    narrow = {"sigma_light": 4.0, "sigma_shadow": 9.0, "unit": "mm"}
    (note,) = explain_img(scan, model, 1, Grid(3), **narrow).notes
    spacing, shape = scan.header.get_zooms(), scan.shape
    centres = Grid(3).points(shape)
    position = np.indices(shape).reshape(3, -1).T
    distance = np.linalg.norm((position[:, None] - centres[None]) * spacing, axis=2)
    reached = np.exp(-(distance**2) / (2 * 4.0**2)).sum(axis=1).reshape(shape) >= 0.1
    share = reached[bright_voxels(load_scan(scan))].mean()
    assert 0.001 < share < 0.5
    assert note.startswith(f"the masks of the grid leave most of the head unseen: they reach {share:.0%} of it, ")
    assert "sigmas of 4 and 9 mm" in note
    assert explain_img(scan, model, 1, few, **narrow).notes == ()
    assert explain_img(scan, model, 1, Grid(3), sigma_light=40.0, sigma_shadow=40.0, unit="mm").notes == ()


def test_what_the_author_of_a_model_states_is_noted(scan, few):
    caution = "the model toy learnt noise: its output means nothing"
    assert explain_img(scan, with_info(seen(scan, few), caution=caution), 1, few, **MASKS).notes == (caution,)


def test_nothing_for_the_target_is_reported(scan, few):
    def opposed(batch):
        p = 0.4 * torch.tanh(batch.flatten(1).mean(dim=1) / 1e3)
        return torch.stack([0.5 + p, 0.5 - p], dim=1)

    with pytest.warns(GlasWarning, match="nothing speaks for class 1 over class 0: no score is above 0"):
        explain_img(scan, opposed, 1, few, versus=0, **MASKS)


def fixed(*outputs):
    """Return a model whose outputs hardly depend on the scan, but are not flat."""

    def predict(batch):
        shift = 0.05 * torch.tanh(batch.flatten(1).mean(dim=1, keepdim=True) / 300)
        return torch.tensor(outputs) + shift * torch.tensor([1.0, *[-1 / (len(outputs) - 1)] * (len(outputs) - 1)])

    return predict


@pytest.mark.parametrize(
    ("outputs", "activation", "target", "versus", "expected"),
    [
        ([0.8, 0.2], "none", "AD", None, "the model does not predict AD: P(AD) = 0."),
        ([0.8, 0.2], "none", "NC", None, None),
        ([0.2, 0.5, 0.3], "none", "C", None, "the model does not predict C: P(C) = 0."),
        ([0.2, 0.5, 0.3], "none", "C", "NC", None),
        ([0.2, 0.5, 0.3], "none", "NC", "C", "the model does not predict NC over C: P(NC) = 0."),
        ([0.4, 1.2], "none", "NC", "AD", "the model does not predict NC over AD: output for NC = 0."),
        ([0.4, 0.2], "none", "AD", None, None),  # outputs of unknown kind: a regression, or a readout
        ([0.4, 0.2, 0.7], "sigmoid", "AD", None, "the model does not predict AD: P(AD) = 0."),
        ([0.4, 0.2, 0.7], "sigmoid", "C", None, None),
    ],
)
@pytest.mark.filterwarnings("ignore:nothing speaks for .* over")
def test_a_target_that_is_not_predicted_is_noted(scan, few, tmp_path, outputs, activation, target, versus, expected):
    values = torch.logit(torch.tensor(outputs)).tolist() if activation == "sigmoid" else outputs
    classes = ("NC", "AD", "C")[: len(outputs)]
    predict = Predictor(fixed(*values), activation, classes=classes, device="cpu")
    r = explain_img(scan, predict, target, few, versus=versus, sigma_light=12.0, sigma_shadow=12.0, unit="mm")
    about = [note for note in r.notes if statement_of(note).startswith("the model does not predict")]
    assert len(about) == (expected is not None), r.notes
    if expected is not None:
        assert about[0].startswith(expected)
        assert f"\nnote: {expected}" in repr(r)
    r.save(tmp_path)
    for sidecar in tmp_path.glob("*seg-few*regions.json"):
        content = json.loads(sidecar.read_text())
        if "Against" in content or versus is None:
            assert content.get("Notes", []) == list(r.notes)


def test_an_image_has_the_same_note():
    values = np.random.default_rng(0).uniform(0, 255, (14, 18, 3)).astype(np.float32)
    predict = Predictor(fixed(0.8, 0.2), "none", classes=("cat", "dog"), device="cpu")
    r = explain_image(values, predict, "dog", Grid(2), sigma_light=4.0, sigma_shadow=4.0)
    assert [statement_of(note) for note in r.notes] == ["the model does not predict dog"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"sigma_light": 3.0}, "sigma_light is in voxels: no unit was given, and a voxel of the model's grid has "),
        ({"sigma_light": 3.0, "sigma_shadow": 3.0}, "sigma_light and sigma_shadow are in voxels: "),
        ({"sigma_light": 3.0, "unit": "voxel"}, None),
        ({}, None),
    ],
)
def test_a_sigma_without_unit_is_noted_without_a_warning(scan, few, given, expected):
    r = explain_img(scan, seen(scan, few), 1, few, **given)  # warnings are errors
    about = [note for note in r.provenance.get("Notes", ()) if "in voxels" in note]
    assert len(about) == (expected is not None)
    if expected is not None:
        size = " x ".join(f"{mm:.4g}" for mm in nib.affines.voxel_sizes(scan.affine))
        assert about[0].startswith(expected)
        assert about[0].endswith(f"has {size} mm")


def test_the_direction_is_the_sign_of_the_drop(result):
    table = result.table
    assert set(table["direction"]) <= {"for", "against"}
    assert (table.loc[table["direction"] == "for", "drop"] > 0).all()
    assert (table.loc[table["direction"] == "against", "drop"] < 0).all()


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([3.0, 1.0, 2.0], [1, 3, 2]),
        ([2.0, 2.0, 1.0, 0.0], [1, 2, 3, 4]),
        ([5.0, 0.0, 0.0, 0.0], [1, None, None, None]),
        ([1.0, 1.0], [None, None]),
        ([1.0], [1]),
        ([2.0, np.nan, 1.0], [1, None, 2]),
    ],
)
def test_scores_that_most_regions_share_have_no_rank(scores, expected):
    assert [None if pd.isna(rank) else rank for rank in ranks(pd.Series(scores))] == expected


def test_headers_hold_the_statistic_the_target_and_the_range(result):
    for statistic in ("saliency", "light", "shadow", "drop"):
        img = getattr(result, f"{statistic}_img")
        values = np.asarray(img.dataobj)
        assert (img.header["cal_min"], img.header["cal_max"]) == tuple(np.float32(display_range(values)))
        assert 0 < img.header["cal_min"] <= img.header["cal_max"]
        assert img.header["descrip"].tobytes().startswith(f"glas3d {statistic} for ".encode())
        assert img.header.get_intent()[::2] == ("estimate", statistic)


def test_the_drop_map_is_signed(result, few):
    np.testing.assert_array_equal(
        np.unique(np.asarray(result.drop_img.dataobj)),
        np.unique(np.append(result.table["drop"].to_numpy(dtype=np.float32), np.float32(0))),
    )


def test_every_column_has_a_description_in_the_sidecar(result, tmp_path):
    result.save(tmp_path)
    (path,) = tmp_path.glob("*_regions.json")
    sidecar = json.loads(path.read_text())
    columns = (tmp_path / path.name.replace(".json", ".tsv")).read_text().splitlines()[0].split("\t")
    assert all(len(sidecar[column]["Description"]) > 5 for column in columns)
    assert sidecar["x"]["Units"] == "mm"
    assert sidecar["Input"] == result.provenance["Input"]


@pytest.mark.parametrize(
    ("account", "text"),
    [
        (
            {"accounted": 0.724, "largest": 0.21, "effect": 5.0, "partition": True},
            "The regions account for 72% of the effect (the model's output less that of the background alone), "
            "B alone for 21%.",
        ),
        (
            {"accounted": 1.3, "largest": 0.9, "effect": -5.0, "partition": True},
            "The regions account for 130% of the effect (the model's output less that of the background alone), "
            "A alone for 90%.",
        ),
        (
            {"accounted": None, "largest": None, "effect": 5.0, "partition": False},
            "What the regions account for is not available: evidence adds up only where it comes straight from one set "
            "of masks that nearly partition what is searched.",
        ),
        (
            {"accounted": None, "largest": None, "effect": 0.1, "partition": True},
            "What the regions account for is not available: the effect, the model's output less that of the background "
            "alone, is below 1 in log-odds.",
        ),
    ],
)
def test_what_the_regions_account_for(account, text):
    table = pd.DataFrame({"name": ["A", "B", "C"], "evidence": [-2.0, 1.0, np.nan]})
    assert account_sentence(account, table) == text


def test_names_tell_scans_of_one_participant_apart(scan, few, tmp_path):
    for suffix in ("T1w", "T2w"):
        nib.save(head(RAS), tmp_path / f"sub-01_{suffix}.nii.gz")  # saving names an image
        explain_img(tmp_path / f"sub-01_{suffix}.nii.gz", seen(scan, few), 1, few, **MASKS).save(tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").glob("*.tsv")}
    assert names == {"sub-01_T1w_seg-few_regions.tsv", "sub-01_T2w_seg-few_regions.tsv"}


@pytest.mark.parametrize(
    ("change", "what"),
    [({"target": 0}, "target"), ({"sigma_light": 9.0}, "sigma_light"), ({"background": 10.0}, "background")],
)
def test_results_of_another_question_are_not_replaced(result, scan, few, tmp_path, change, what):
    result.save(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    given = {"target": 1, "search": few, **MASKS} | change
    other = explain_img(scan, seen(scan, few), given.pop("target"), **given)
    with pytest.raises(
        GlasError, match=f"already has scan_seg-few_stat-saliency_statmap.json, made with another .*{what}.*--overwrite"
    ):
        other.save(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    result.save(tmp_path)  # the same question again
    other.save(tmp_path, overwrite=True)
