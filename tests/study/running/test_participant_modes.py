"""Modes of a study, the mean of several models, files of each participant, and scans in native space."""

import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from glas3d import Atlas, GlasError, Grid
from glas3d.errors import GlasWarning
from glas3d.explain import explain_img
from glas3d.predict import load_model
from glas3d.study.group.level import summarise_groups
from glas3d.study.running.runner import explain_cohort
from tests.study import folders, studies
from tests.study.studies import SEARCH, content

pytestmark = [
    pytest.mark.filterwarnings("ignore:participants can be exchanged"),
    pytest.mark.filterwarnings("ignore:2 regions of few are too small"),
    pytest.mark.filterwarnings("ignore:the consensus has backgrounds"),
]
ASSUMED = {"search": SEARCH, "assume_space": "MNI"}
QUICK = {"case": "AD", "control": "NC", "n_perm": 19, "n_boot": 0, "overwrite": True}


@pytest.fixture(scope="module")
def bids_dir(tmp_path_factory):
    """Return the folder of a study of four participants."""
    return studies.bids(tmp_path_factory.mktemp("in") / "data", 4)


@pytest.fixture(scope="module")
def people(bids_dir):
    """Return the cohort of the study."""
    return studies.cohort(bids_dir)


@pytest.fixture(scope="module")
def other_cohort(tmp_path_factory):
    """Return a cohort of two participants of another study, which all folds explain."""
    table = folders.people(2).assign(participant_id=["sub-51", "sub-52"])
    folder = folders.derivative(tmp_path_factory.mktemp("new") / "data", table)
    for name, seed in (("sub-51", 501), ("sub-52", 502)):
        folders.save(folders.scan(folder, name), folders.brain("AD", seed))
    return studies.cohort(folder)


def explain_scan(path, models, fold, **settings):
    """Return the explanation of one scan by one fold, without a study."""
    predict = load_model(models / f"fold-{fold}", device="cpu")
    return explain_img(path, predict, "AD", Grid(SEARCH), assume_space="MNI", **settings)


MODES = {
    "recursive": {"recursive": {"threshold": 0.6, "max_iterations": 2}},
    "scales": {"scales": (0.5, 1.0)},
    "versus": {"versus": "NC"},
    "consensus": {"background": [0.0, "blur"]},
    "point": {"fusion": "light", "gamma": 1e-3},
}
LABELS = {"recursive": "gridrecursive", "scales": "gridscales", "versus": "gridversusNC_label-AD",
         "consensus": "gridconsensus", "point": "grid"}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_of_a_study_is_that_of_one_scan(people, models, read_regions, tmp_path, mode):
    options = MODES[mode]
    out = tmp_path / "out"
    assert explain_cohort(people, out, models, **ASSUMED, **options).count("explained") == 4
    alone = explain_scan(people.table["path"].iloc[0], models, 1, **MODES[mode])
    alone.save(tmp_path / "alone")
    written = {p.name for p in (out / "sub-01" / "anat").iterdir()} - {"sub-01_record.json"}
    assert written == {p.name for p in (tmp_path / "alone").iterdir()}
    regions = read_regions(out, "sub-01", LABELS[mode])
    np.testing.assert_allclose(regions["score"], alone.table.set_index("name")["score"], atol=1e-6)
    assert explain_cohort(people, out, models, **ASSUMED, **options).count("kept") == 4
    if mode != "point":
        assert explain_cohort(people, out, models, **ASSUMED, overwrite=True).count("explained") == 4


@pytest.mark.parametrize("mode", ["recursive", "scales", "versus", "consensus"])
def test_results_of_several_models_are_averaged_in_every_part(other_cohort, models, read_regions, tmp_path, mode):
    explain_cohort(other_cohort, tmp_path / "out", models, **ASSUMED, **MODES[mode])
    by_fold = [explain_scan(other_cohort.table["path"].iloc[0], models, fold, **MODES[mode]) for fold in (1, 2)]
    results = {LABELS[mode]: by_fold}
    results |= {
        part.stem.split("_desc-")[-1]: [explanation.parts[name] for explanation in by_fold]
        for name, part in by_fold[0].parts.items()
    }
    folder = tmp_path / "out" / "sub-51" / "anat"
    for label, explanations in results.items():
        regions = read_regions(tmp_path / "out", "sub-51", f"_desc-{label}")
        tables = [explanation.table.set_index("name").reindex(regions.index) for explanation in explanations]
        for column in tables[0].columns.drop(["index", "hemisphere", "x", "y", "z", "n_voxels", "rank", "direction"]):
            values = np.stack([table[column].to_numpy(dtype=float) for table in tables])
            np.testing.assert_allclose(regions[column], values.mean(axis=0), atol=1e-6)
            np.testing.assert_allclose(regions[f"{column}_sd"], values.std(axis=0, ddof=1), atol=1e-6)
        (path,) = folder.glob(f"*_desc-{label}_stat-saliency_statmap.nii.gz")
        maps = np.mean([np.asarray(explanation.saliency_img.dataobj) for explanation in explanations], axis=0)
        np.testing.assert_allclose(studies.data(path), maps, atol=1e-6)
    assert not list(folder.glob("*round*"))  # rounds differ by model and are not averaged


def test_versus_keeps_the_target_s_own_probability(people, models, tmp_path):
    """Strata need the probability of the target, not its difference from that of the other class."""
    out = tmp_path / "out"
    explain_cohort(people, out, models, **ASSUMED, **{"versus": "NC"})
    summarise_groups(out, people.everyone, **QUICK)
    (path,) = (out / "group").glob("*strata_predictions.tsv")
    probability = pd.read_csv(path, sep="\t").set_index("participant_id")["p"]
    assert probability["sub-01"] == pytest.approx(
        explain_scan(people.table["path"].iloc[0], models, 1).explanation.probability
    )


def test_participants_of_a_group_must_be_explained_with_the_same_settings(people, models, tmp_path):
    out = tmp_path / "out"
    first, second = ({"recursive": {"threshold": t, "max_iterations": 2}} for t in (0.6, 0.7))
    explain_cohort(people, out, models, **ASSUMED, **first)
    shutil.rmtree(out / "sub-02")
    kept = {name: content(out / name) for name in ("sub-01", "sub-03", "sub-04")}
    one_participant = studies.cohort(people.root, participant_label="02")
    explain_cohort(one_participant, out, models, **ASSUMED, **second, overwrite=True)
    assert kept == {name: content(out / name) for name in kept}
    with pytest.raises(GlasError, match=r"explained alike, sub-02 and sub-01 differ in Options recursive"):
        summarise_groups(out, people.everyone, **QUICK)


# Files that are each participant's own


@pytest.fixture
def masked(bids_dir, tmp_path):
    """Return a copy of the study in which each participant has a mask of their own next to the scan."""
    folder = shutil.copytree(bids_dir, tmp_path / "data")
    for number in range(1, 5):
        mask = np.ones(folders.SHAPE, np.float32)
        mask[:, :number] = 0
        folders.save(folder / f"sub-0{number}" / "anat" / f"sub-0{number}_desc-brain_mask.nii.gz", mask)
    return folder


PATTERN = "{participant_id}/anat/{participant_id}_*mask.nii.gz"


@pytest.mark.filterwarnings("ignore:not among the groups")
@pytest.mark.parametrize("setting", ["brain_mask", "mask_img"])
def test_each_participant_s_own_mask_is_used(masked, models, read_regions, tmp_path, setting):
    cohort, out = studies.cohort(masked), tmp_path / "out"
    options = {setting: PATTERN}
    assert explain_cohort(cohort, out, models, **ASSUMED, **options).count("explained") == 4
    mask = masked / "sub-03" / "anat" / "sub-03_desc-brain_mask.nii.gz"
    alone = explain_scan(cohort.table["path"].iloc[2], models, 2, **{setting: mask})
    np.testing.assert_allclose(read_regions(out, "sub-03")["score"], alone.table.set_index("name")["score"], atol=1e-6)
    (path,) = (out / "sub-03").rglob("*saliency_statmap.nii.gz")
    np.testing.assert_allclose(studies.data(path), alone.saliency_img.dataobj, atol=1e-6)
    unmasked = explain_scan(cohort.table["path"].iloc[2], models, 2)
    assert not np.allclose(studies.data(path), unmasked.saliency_img.dataobj, atol=1e-3)
    assert str(tmp_path) not in (out / "study.json").read_text()
    values = np.zeros(folders.SHAPE, np.float32)
    values[:, 4:] = 1
    folders.save(mask, values)  # only the participant whose mask has changed is explained again
    again = explain_cohort(cohort, out, models, **ASSUMED, **options).outcomes.set_index("participant_id")["status"]
    assert again.to_dict() == {f"sub-0{i}": "explained" if i == 3 else "kept" for i in range(1, 5)}
    cases = cohort.everyone[cohort.everyone["group"] == "AD"]
    with pytest.warns(GlasWarning, match="no comparison"):
        assert summarise_groups(out, cases, **QUICK).groups == {"AD": 2}  # the settings are the same, the masks are not


def test_a_participant_without_a_file_is_named_before_anything_is_written(masked, models, tmp_path):
    (masked / "sub-02" / "anat" / "sub-02_desc-brain_mask.nii.gz").unlink()
    cohort, options = studies.cohort(masked), {"brain_mask": PATTERN}
    message = r"sub-02 cannot be explained: the brain_mask .* one file, sub-02/anat/sub-02_\*mask.* matches none"
    with pytest.raises(GlasError, match=message):
        explain_cohort(cohort, tmp_path / "out", models, **ASSUMED, **options)
    assert not (tmp_path / "out").exists()
    result = explain_cohort(cohort, tmp_path / "out", models, **ASSUMED, **options, on_error="skip")
    assert (result.count("explained"), result.failed["participant_id"].tolist()) == (3, ["sub-02"])
    folders.save(masked / "sub-04" / "anat" / "sub-04_desc-other_mask.nii.gz", np.ones(folders.SHAPE, np.float32))
    with pytest.raises(
        GlasError, match=r"sub-02 cannot|sub-04 .*matches sub-04_desc-brain_mask.* and sub-04_desc-other"
    ):
        explain_cohort(cohort, tmp_path / "out", models, **ASSUMED, **options)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recursive": {"floor": 2}}, "floor must be a probability below 1"),
        ({"recursive": True, "versus": "NC"}, "explained in one mode at a time, got versus and recursive"),
        ({"versus": "FTD"}, "must be one of the model's"),
        ({"scales": (0.0, 1.0)}, "scale"),
        ({"kernel": "cube"}, "kernel"),
        ({"sigma_lihgt": 3.0}, "unexpected keyword argument 'sigma_lihgt'; did you mean 'sigma_light'"),
        ({"mask_img": "nowhere.nii"}, "no such file: nowhere.nii"),
        ({"transform": "nowhere.txt"}, "no such file: nowhere.txt"),
        ({"transform": "nowhere.txt", "register": "affine"}, "got transform and register"),
        ({"inverse": PATTERN}, "inverse holds the inverses of the warps"),
        ({"covariates": ["age"], "covariate_reference": {"age": 70.0}}, "takes no covariates, got age"),
        ({"covariate_reference": {"age": 70.0}}, "replaces covariates: give the covariates too"),
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_fit_no_participant_are_refused_first(people, models, tmp_path, settings, message):
    with pytest.raises((GlasError, TypeError), match=message):
        explain_cohort(people, tmp_path / "out", models, **ASSUMED, **settings)
    assert not (tmp_path / "out").exists()


# Scans in native space


def native_to_template(number):
    """Return the matrix from a participant's native space to the template, in mm."""
    angle = 0.1 * number
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = [3.0 * number, -5.0, 2.0]
    return matrix


@pytest.fixture
def native(bids_dir, tmp_path):
    """Return a copy of the study with scans in native spaces, and the transforms next to them."""
    folder = shutil.copytree(bids_dir, tmp_path / "native")
    for number in range(1, 5):
        name = f"sub-0{number}"
        path = folders.scan(folder, name)
        img = nib.load(path)
        values = np.asarray(img.dataobj)
        folders.save(path, values, np.linalg.inv(native_to_template(number)) @ img.affine)
        np.savetxt(path.parent / f"{name}_from-T1w_to-MNI_xfm.txt", native_to_template(number))
    return folder


@pytest.mark.parametrize("search", [SEARCH, "few"], ids=["grid", "atlas"])
def test_scans_in_native_spaces_are_compared_on_the_template(
    people, native, models, few, read_regions, tmp_path, search
):
    """Scores and groups are those of the scans at the template, and maps are on each scan's own grid."""
    options = {"search": search, "assume_space": "MNI"}
    if search == "few":
        options |= {"search": studies.atlas(tmp_path / "atlas", few), "atlas_space": "MNI"}
    transform = {"transform": "{participant_id}/anat/{participant_id}_from-T1w_to-MNI_xfm.txt"}
    cohort = studies.cohort(native, same_grid=False)
    explain_cohort(people, tmp_path / "template", models, **options)
    explain_cohort(cohort, tmp_path / "native out", models, **options, **transform)
    for name in ("sub-01", "sub-04"):
        at_template, mapped = (read_regions(tmp_path / out, name)["score"] for out in ("template", "native out"))
        np.testing.assert_allclose(mapped, at_template, rtol=2e-3, atol=1e-6)
        (path,) = (tmp_path / "native out" / name).rglob("*_desc-grid_stat-saliency_statmap.nii.gz" if search == SEARCH
                                                          else "*_seg-few_stat-saliency_statmap.nii.gz")  # fmt: skip
        np.testing.assert_allclose(nib.load(path).affine, nib.load(folders.scan(native, name)).affine, atol=1e-4)
    groups = []
    for out, everyone in (("template", people.everyone), ("native out", cohort.everyone)):
        summarise_groups(tmp_path / out, everyone, **QUICK)
        (path,) = (tmp_path / out / "group").glob("group-AD_*stat-saliency_statmap.nii.gz")
        (rows,) = (
            p
            for p in (tmp_path / out / "group").glob("group-AD_*_regions.tsv")
            if "desc-grid_regions" in p.name or "seg-few_regions" in p.name
        )
        groups.append((nib.load(path), pd.read_csv(rows, sep="\t")))
    img = groups[1][0]
    np.testing.assert_allclose(img.affine, studies.GRID.affine)
    assert img.shape == studies.GRID.shape
    np.testing.assert_allclose(groups[1][1]["score"], groups[0][1]["score"], atol=2e-3)
    path = native / "sub-02" / "anat" / "sub-02_from-T1w_to-MNI_xfm.txt"
    np.savetxt(path, native_to_template(3))
    again = explain_cohort(cohort, tmp_path / "native out", models, **options, **transform)
    assert again.outcomes["status"].tolist() == ["kept", "explained", "kept", "kept"]


def test_a_share_of_an_atlas_is_evaluated(people, models, few, read_regions, tmp_path):
    atlas_path = studies.atlas(tmp_path / "atlas", few)
    options = {"search": atlas_path, "atlas_space": "MNI", "assume_space": "MNI", "refine": 0.75}
    out = tmp_path / "out"
    assert explain_cohort(people, out, models, **options).count("explained") == 4
    regions = read_regions(out, "sub-01")
    assert 0 < regions["evaluated"].sum() < len(regions.dropna(subset="score"))
    predict, atlas = load_model(models / "fold-1", device="cpu"), Atlas.load(atlas_path, space="MNI")
    alone = explain_img(people.table["path"].iloc[0], predict, "AD", atlas, assume_space="MNI", refine=0.75)
    np.testing.assert_allclose(regions["score"], alone.table.set_index("name")["score"], atol=1e-6)
    assert explain_cohort(people, out, models, **options).count("kept") == 4
    summarise_groups(out, people.everyone, **QUICK)
    assert list((out / "group").glob("group-AD_seg-few*_regions.tsv"))
