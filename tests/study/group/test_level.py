import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from glas3d import GlasError
from glas3d.errors import GlasWarning
from glas3d.explain import COLUMNS
from glas3d.imaging.map_header import display_range
from glas3d.imaging.space import VoxelGrid, mni_grid, resample
from glas3d.statistics.regions import region_values
from glas3d.statistics.stability import bootstrap_ranks, run_stability
from glas3d.statistics.two_groups import compare
from glas3d.study.derivatives import read_records, start_study
from glas3d.study.group import level
from glas3d.study.group.level import summarise_groups
from glas3d.study.group.sessions import average_sessions
from glas3d.study.running.runner import explain_cohort
from tests.study import studies
from tests.study.made_up import AFFINE, FEW, SHAPE, Study, filled, minmax, read
from tests.study.studies import content
from tests.validator import validate


def test_maps_and_tables_of_groups(study, eight):
    made = filled(study, eight)
    result = summarise_groups(study.out, eight, **FEW)
    assert result.groups == {"AD": 4, "NC": 4}
    for group in ("AD", "NC"):
        names = eight.loc[eight["group"] == group, "participant_id"]
        score = minmax(sum(minmax(made[name][0]["score"].to_numpy()) for name in names))
        table = read(result.folder, f"group-{group}_seg-few_regions.tsv")
        assert table.columns.tolist() == COLUMNS
        np.testing.assert_allclose(table["score"], score)
        np.testing.assert_allclose(table["light"], np.mean([made[name][0]["light"] for name in names], axis=0))
        img = nib.load(result.folder / f"group-{group}_seg-few_stat-saliency_statmap.nii.gz")
        labels = study.atlas.on(VoxelGrid(SHAPE, AFFINE))
        for index, value in zip(table["index"], table["score"], strict=True):
            np.testing.assert_allclose(np.asarray(img.dataobj)[labels == index], value, rtol=1e-6)
        assert (np.asarray(img.dataobj)[labels == 0] == 0).all()
    for path in sorted(result.folder.glob("*.nii.gz")):  # headers are not those of a participant's map
        img = nib.load(path)
        statistic = path.name.split("stat-")[1].split("_")[0]
        groups = path.name.split("_")[0].removeprefix("group-")
        assert img.header["descrip"].tobytes().startswith(f"glas3d {statistic} for {groups}".encode())
        lowest, largest = display_range(np.asarray(img.dataobj))
        expected = (-np.log10(0.05), -2 * np.log10(0.05)) if statistic.startswith("neglog10p") else (lowest, largest)
        np.testing.assert_allclose([img.header["cal_min"], img.header["cal_max"]], expected, rtol=1e-6)


def test_notes_on_participants_are_counted_by_group(study, eight):
    """A note with the same numbers for everyone is repeated; others are counted, once a participant."""
    everyone = "sigma_light is in voxels: of 4 mm"
    for i, row in enumerate(eight.to_dict("records")):
        own = [f"the model does not predict AD: P(AD) = 0.{i}"] if row["group"] == "NC" or i == 0 else []
        for session in ("ses-M00", "ses-M12"):
            study.add(row["participant_id"], session, seed=i, notes=[everyone, *own])
    result = summarise_groups(study.out, eight, **FEW)
    expected = [everyone, "the model does not predict AD: 1 of 4 participants of AD, 4 of 4 of NC"]
    assert list(result.notes) == expected
    assert json.loads((result.folder / "group-ADvsNC_seg-few_statistics.json").read_text())["Notes"] == expected
    own_group = json.loads((result.folder / "group-AD_seg-few_regions.json").read_text())["Notes"]
    assert own_group[0] == everyone
    assert own_group[1].startswith("the model does not predict AD: 1 of 4 participants, such as that of sub-01")


SCALES = {
    "share": lambda scores: scores / scores.sum(),
    "minmax": minmax,
    "none": lambda scores: scores,
}


@pytest.mark.parametrize("normalise", SCALES)
def test_the_comparison_is_that_of_normalised_scores(study, eight, normalise):
    made = filled(study, eight)
    options = {} if normalise == "share" else {"normalise": normalise}
    result = summarise_groups(study.out, eight, **FEW, covariates=["age"], seed=4, **options)
    tables = [made[name][0].assign(participant_id=name) for name in eight["participant_id"]]
    values = region_values(pd.concat(tables)).apply(SCALES[normalise], axis=1)
    sidecar = json.loads((result.folder / "group-ADvsNC_seg-few_statistics.json").read_text())
    assert sidecar["Normalise"] == normalise
    expected = compare(values, eight, "AD", "NC", covariates=["age"], n_perm=49, n_boot=20, seed=4)
    table = read(result.folder, "group-ADvsNC_seg-few_statistics.tsv")
    assert table["index"].tolist() == study.atlas.table["index"].tolist()
    for column in ("t", "p_fwe", "cohen_d", "mean_case"):
        np.testing.assert_allclose(table[column], expected[column], atol=1e-12)
    highest = table.loc[table["t"].idxmax()]
    assert highest["name"] == "Amygdala_L"
    labels = study.atlas.on(VoxelGrid(SHAPE, AFFINE))
    for column, name in (("t", "t"), ("neglog10p_fwe", "neglog10pfwe")):
        volume = studies.data(result.folder / f"group-ADvsNC_seg-few_stat-{name}_statmap.nii.gz")
        np.testing.assert_allclose(volume[labels == highest["index"]], highest[column], rtol=1e-5)
        assert (volume[labels == 0] == 0).all()


@pytest.mark.filterwarnings("ignore:tests within 2 folds of groups so small")
def test_ranks_laterality_density_strata_and_stability(study, eight):
    made = filled(study, eight, n_folds=2)
    folder = summarise_groups(study.out, eight, **FEW, k=3, seed=4).folder
    cases = eight.loc[eight["group"] == "AD", "participant_id"].tolist()
    values = region_values(pd.concat([made[name][0].assign(participant_id=name) for name in cases]), normalise="minmax")
    ranks = read(folder, "group-AD_seg-few_desc-ranks_regions.tsv")
    pd.testing.assert_frame_equal(ranks, bootstrap_ranks(values, 20, 4), check_dtype=False)
    sides = read(folder, "group-AD_seg-few_desc-laterality_regions.tsv")
    assert sides["name"].tolist() == ["Hippocampus", "Amygdala", "Precuneus", "Putamen"]
    raw = region_values(pd.concat([made[name][0].assign(participant_id=name) for name in cases]))
    leaning = (raw["Amygdala_L"] - raw["Amygdala_R"]) / (raw["Amygdala_L"] + raw["Amygdala_R"])
    assert sides.set_index("name").loc["Amygdala", "laterality"] == pytest.approx(leaning.mean())
    assert {"low", "high", "p_fwe"} <= set(sides)
    shares = read(folder, "group-AD_seg-few_desc-relativedensity_regions.tsv").set_index("name")
    voxels = np.arange(1, 9)
    density = raw.div(raw.sum(axis=1), axis=0) / (voxels / voxels.sum())
    np.testing.assert_allclose(shares["relative_density"], np.exp(np.log(density).mean()))
    assert shares["n_voxels"].tolist() == voxels.tolist()
    sidecar = json.loads((folder / "group-AD_seg-few_desc-laterality_regions.json").read_text())
    assert sidecar["SmallestP"] == 1 / 8
    assert (sidecar["DegreesOfFreedom"], sidecar["Statistic"]) == (3, "Student's t of the mean")
    assert sidecar["Exchangeable"].startswith("the signs of the participants")
    variation = read(folder, "group-AD_seg-few_desc-variation_regions.tsv")
    np.testing.assert_allclose(variation["mean"], values.mean())
    np.testing.assert_allclose(variation["variance"], values.var())
    predictions = read(folder, "group-ADvsNC_seg-few_desc-strata_predictions.tsv").set_index("participant_id")
    assert predictions["p"].to_dict() == pytest.approx({f"sub-0{i + 1}": 0.2 + 0.1 * i for i in range(8)})
    assert predictions["stratum"].tolist() == ["fn", "tn", "fn", "tn", "tp", "fp", "tp", "fp"]
    strata = read(folder, "group-ADvsNC_seg-few_desc-strata_regions.tsv")
    assert strata.groupby("stratum", sort=False)["n"].first().to_dict() == {"tp": 2, "fp": 2, "tn": 2, "fn": 2}
    pairs = read(folder, "group-AD_seg-few_desc-foldpairs_stability.tsv")
    runs = pd.DataFrame({"fold-1": values.iloc[[0, 2]].mean(), "fold-2": values.iloc[[1, 3]].mean()}).T
    pd.testing.assert_frame_equal(pairs, run_stability(runs, 3).pairs)
    assert read(folder, "group-AD_seg-few_desc-folds_stability.tsv")["measure"].tolist() == ["spearman", "jaccard_top3"]


def test_a_participant_counts_once(study, eight):
    """One participant of four has two sessions, and must not count twice."""
    made = filled(study, eight)
    shutil.rmtree(study.out / "sub-01")
    both = [study.add("sub-01", f"ses-{s}", seed=50 + i, p=p) for i, (s, p) in enumerate([("a", 0.2), ("b", 0.9)])]
    folder = summarise_groups(study.out, eight, **FEW).folder
    joined = pd.concat([each[0].assign(participant_id="sub-01", session_id=i) for i, each in enumerate(both)])
    mean = average_sessions(joined)["score"].to_numpy()
    others = [minmax(made[name][0]["score"].to_numpy()) for name in ("sub-03", "sub-05", "sub-07")]
    table = read(folder, "group-AD_seg-few_regions.tsv")
    np.testing.assert_allclose(table["score"], minmax(minmax(mean) + sum(others)))
    predictions = read(folder, "group-ADvsNC_seg-few_desc-strata_predictions.tsv").set_index("participant_id")
    assert predictions.loc["sub-01", ["p", "predicted", "n_sessions"]].tolist() == [pytest.approx(0.55), "AD", 2]
    assert read(folder, "group-ADvsNC_seg-few_statistics.tsv")["n_case"].tolist() == [4] * 8


def test_a_participant_of_two_groups_is_refused(study, eight):
    filled(study, eight)
    shutil.rmtree(study.out / "sub-01")
    for session in ("ses-a", "ses-b"):
        study.add("sub-01", session)
    twice = pd.concat([eight.assign(session="ses-a"), eight.assign(session="ses-b").replace("AD", "NC")])
    with pytest.raises(GlasError, match="must be of one group, sub-01 is AD and NC"), pytest.warns(GlasWarning):
        summarise_groups(study.out, twice, **FEW)


def test_sessions_have_groups_and_covariates_of_their_own(study, eight):
    for i, row in enumerate(eight.to_dict("records")):
        for session in ("ses-a", "ses-b"):
            study.add(row["participant_id"], session, seed=i)
    both = pd.concat([eight.assign(session="ses-a"), eight.assign(session="ses-b", age=eight["age"] + 2)])
    folder = summarise_groups(study.out, both, **FEW, covariates=["age"]).folder
    values = region_values(
        pd.concat([each.table().assign(participant_id=each.participant_id) for each in read_records(study.out)[::2]]),
        normalise="share",
    )
    expected = compare(values, eight.assign(age=eight["age"] + 1), "AD", "NC", covariates=["age"], n_perm=49, n_boot=0)
    table = read(folder, "group-ADvsNC_seg-few_statistics.tsv")
    np.testing.assert_allclose(table["t"], expected["t"], atol=1e-9)


def test_a_grid_has_maps_summed_voxel_by_voxel(tmp_path, atlas_path, atlas, eight):
    study = Study(tmp_path / "study", atlas_path, atlas, grid=True)
    made = filled(study, eight)
    folder = summarise_groups(study.out, eight, **FEW).folder
    cases = eight.loc[eight["group"] == "AD", "participant_id"]
    volumes = np.stack([minmax(made[name][1].astype(float)) for name in cases])
    maps = {
        s: studies.data(folder / f"group-AD_desc-grid_stat-{s}_statmap.nii.gz")
        for s in ("saliency", "mean", "variance")
    }
    np.testing.assert_allclose(maps["saliency"], minmax(volumes.sum(axis=0)), atol=1e-6)
    np.testing.assert_allclose(maps["mean"], volumes.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(maps["variance"], volumes.var(axis=0, ddof=1), atol=1e-6)
    table = read(folder, "group-AD_desc-grid_regions.tsv")
    assert table.columns.tolist() == COLUMNS
    np.testing.assert_allclose(table["score"], minmax(sum(minmax(made[name][0]["score"].to_numpy()) for name in cases)))
    assert read(folder, "group-ADvsNC_desc-grid_statistics.tsv")["name"].tolist() == [f"point-{i}" for i in range(1, 5)]
    assert not list(folder.glob("*laterality*"))


# What does not fit.


def group_maps(out):
    paths = sorted((out / "group").glob("*saliency_statmap.nii.gz"))
    assert len(paths) == 2
    return [nib.load(path) for path in paths]


@pytest.mark.parametrize("grid", [False, True])
def test_maps_with_other_orders_of_their_axes_are_turned(tmp_path, atlas_path, atlas, eight, grid):
    """The values of the groups are those of maps that all have one order, bit by bit."""
    plain = Study(tmp_path / "plain", atlas_path, atlas, grid=grid)
    made = filled(plain, eight)
    turned = Study(tmp_path / "turned", atlas_path, atlas, grid=grid)
    for i, row in enumerate(eight.to_dict("records")):
        name = row["participant_id"]
        img = nib.Nifti1Image(made[name][1], AFFINE)
        img = img.as_reoriented([[2, 1], [0, -1], [1, -1]]) if i % 3 == 1 else img
        boost = 3.0 * (row["group"] == "AD")
        turned.add(
            name,
            seed=i,
            fold=i // 2 % 2 + 1,
            p=0.2 + 0.1 * i,
            boost=boost,
            volume=np.asarray(img.dataobj),
            affine=img.affine,
        )
    for each in (plain, turned):
        summarise_groups(each.out, eight, **FEW)
    for expected, img in zip(group_maps(plain.out), group_maps(turned.out), strict=True):
        assert img.shape == SHAPE
        np.testing.assert_array_equal(img.affine, expected.affine)
        np.testing.assert_array_equal(np.asarray(img.dataobj), np.asarray(expected.dataobj))


@pytest.mark.parametrize("grid", [False, True])
def test_maps_on_other_grids_are_brought_to_the_template(tmp_path, atlas_path, atlas, eight, grid):
    """Of one participant the shape differs, of another the affine; one more has two sessions on two grids."""
    study = Study(tmp_path / "study", atlas_path, atlas, grid=grid)
    made = filled(study, eight)
    for name in ("sub-03", "sub-04", "sub-05"):
        shutil.rmtree(study.out / name)
    moved = AFFINE + 7 * np.eye(4)[[3, 0, 1, 2]] * (np.arange(4) == 3)
    volumes = {name: [(volume, AFFINE)] for name, (_, volume) in made.items()}
    volumes["sub-03"] = [(study.add("sub-03", shape=(8, 8, 9))[1], AFFINE)]
    volumes["sub-04"] = [(study.add("sub-04", affine=moved)[1], moved)]
    sessions = [study.add("sub-05", "ses-a")[1], study.add("sub-05", "ses-b", shape=(8, 7, 9))[1]]
    volumes["sub-05"] = [(volume, AFFINE) for volume in sessions]
    with pytest.warns(GlasWarning, match="maps lie on 4 different voxel grids, they are resampled to the template's"):
        summarise_groups(study.out, eight, **FEW)
    for group, img in zip(("AD", "NC"), group_maps(study.out), strict=True):
        assert VoxelGrid(img.shape, img.affine).same_as(mni_grid(2))
        if not grid:
            continue
        names = eight.loc[eight["group"] == group, "participant_id"]
        resampled = [
            minmax(sum(resample(nib.Nifti1Image(*each), mni_grid(2)).astype(float) for each in volumes[name]))
            for name in names
        ]
        np.testing.assert_allclose(np.asarray(img.dataobj), minmax(sum(resampled)), atol=1e-6)


def test_results_explained_differently_are_refused(study, eight):
    filled(study, eight)
    shutil.rmtree(study.out / "sub-05")
    study.add("sub-05", sigma_light=30.0)
    with pytest.raises(GlasError, match=r"sub-05 and sub-01 differ in Settings sigma_light: run participants again"):
        summarise_groups(study.out, eight, **FEW)


def test_an_atlas_that_was_moved_is_given_again(study, eight, atlas_path, tmp_path):
    filled(study, eight)
    start_study(study.out, "made up", {"Search": str(tmp_path / "gone.nii.gz")})
    with pytest.raises(GlasError, match="gone"):
        summarise_groups(study.out, eight, **FEW)
    assert len(summarise_groups(study.out, eight, **FEW, atlas=str(atlas_path)).tables["AD"]) == 8
    with pytest.raises(GlasError, match="AAL is not the one sub-01 was explained with"):
        summarise_groups(study.out, eight, **FEW, atlas="AAL")


def test_damaged_results_are_refused(study, eight):
    filled(study, eight)
    next((study.out / "sub-03" / "anat").glob("*_regions.tsv")).write_text("index\n1\n")
    with pytest.raises(GlasError, match=r"_regions.tsv is damaged or does not exist: explain sub-03 again"):
        summarise_groups(study.out, eight, **FEW)


def test_missing_results_and_missing_groups_give_warnings(study, eight):
    filled(study, eight)
    study.add("sub-77")
    shutil.rmtree(study.out / "sub-08")
    with pytest.warns(GlasWarning) as caught:
        assert summarise_groups(study.out, eight, **FEW).groups == {"AD": 4, "NC": 3}
    messages = " ".join(str(each.message) for each in caught)
    assert "1 with no results, see participants_failed.tsv: sub-08" in messages
    assert "1 with results but no group: sub-77" in messages


def test_a_group_of_one_has_a_map_and_no_comparison(study, eight):
    filled(study, eight)
    few = eight[eight["participant_id"].isin(["sub-01", "sub-02", "sub-04"])]
    with pytest.warns(GlasWarning, match="AD 1 and NC 2|AD 1|results but no group"):
        result = summarise_groups(study.out, few, **FEW)
    assert result.statistics is None
    assert (result.folder / "group-AD_seg-few_regions.tsv").is_file()
    assert not list(result.folder.glob("*variance*AD*"))


def test_in_sample_results_give_a_warning(study, eight):
    filled(study, eight)
    path = study.out / "sub-01" / "anat" / "sub-01_record.json"
    record = json.loads(path.read_text())
    del record["Sha256"]  # with it, another record is none
    path.write_text(json.dumps(record | {"InSample": True}))
    with pytest.warns(GlasWarning, match="explained by models trained on them: 1, such as that of sub-01"):
        folder = summarise_groups(study.out, eight, **FEW).folder
    assert json.loads((folder / "provenance.json").read_text())["InSample"] is True


@pytest.mark.filterwarnings("ignore:tests within 2 folds", "ignore:with 3 participants against 4")
def test_the_second_run_replaces_the_first_and_gives_the_same_bytes(study, eight):
    filled(study, eight)
    folder = summarise_groups(study.out, eight, **FEW).folder
    before = content(folder)
    (study.out / ".group-killed").mkdir()
    summarise_groups(study.out, eight, **FEW)
    assert content(folder) == before
    assert not (study.out / ".group-killed").exists()
    shutil.rmtree(study.out / "sub-07")
    with pytest.warns(GlasWarning, match="sub-07"):
        summarise_groups(study.out, eight, **FEW)
    assert content(folder).keys() == before.keys()
    assert content(folder) != before


OTHER_QUESTIONS = {
    "options": ({"seed": 5, "covariates": ["age"]}, "other covariates and seed"),
    "case": ({"case": "NC", "control": "AD"}, "other case and control"),
    "participants": ({}, "other participants"),
    "explained": ({}, "other target and settings"),
}


@pytest.mark.parametrize("question", OTHER_QUESTIONS)
@pytest.mark.filterwarnings("ignore:not among the groups", "ignore:with 3 participants against 4")
def test_results_of_another_question_are_replaced_with_overwrite_alone(study, eight, question):
    options, message = OTHER_QUESTIONS[question]
    careful = FEW | {"overwrite": False}
    filled(study, eight)
    folder = summarise_groups(study.out, eight, **careful).folder
    before = content(folder)
    more = pd.concat([eight, pd.DataFrame({"participant_id": ["sub-09"], "group": ["AD"], "age": [70.0]})])
    study.add("sub-09", seed=9)
    summarise_groups(study.out, more, **careful)  # participants who joined are the same question
    summarise_groups(study.out, eight, **FEW)
    assert content(folder) == before
    people = eight[:-1] if question == "participants" else eight
    if question == "explained":
        stored = json.loads((study.out / "study.json").read_text())
        start_study(study.out, "made up", stored | {"Target": "NC", "Settings": {"sigma_light": 3}})
        (folder / "provenance.json").write_text(
            (folder / "provenance.json").read_text().replace('"Study": {', '"Study": {"Target": "AD", "Settings": {},')
        )
        before = content(folder)
    with pytest.raises(GlasError, match=rf"were made with {message}: move them, or give --overwrite"):
        summarise_groups(study.out, people, **careful | options)
    assert content(folder) == before
    summarise_groups(study.out, people, **FEW | options)
    assert content(folder) != before


REFUSED_BEFORE_WORK = {
    "volume change": ({"volume_change": "nowhere.tsv"}, "no such file: nowhere.tsv"),
    "other run": ({"other_run": ["nowhere"]}, "no results of participants in nowhere"),
    "flat column": ({"correlate": ["flat"]}, "nothing can be correlated with flat in any group"),
    "empty column": ({"correlate": ["none"]}, "nothing can be correlated with none in any group"),
    "voxel mask": ({"voxelwise": True, "voxel_mask": "nowhere.nii"}, "no such file: nowhere.nii"),
    "covariate": ({"covariates": ["iq"]}, "participants need a column iq, the table has participant_id, group, age"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED_BEFORE_WORK.values(), ids=REFUSED_BEFORE_WORK)
def test_options_are_refused_before_any_map_is_made(study, eight, monkeypatch, options, message):
    filled(study, eight)
    monkeypatch.setattr(level, "_map_groups", None)
    people = eight.assign(flat=1.0, none=np.nan, session="", path="x", in_sessions_tsv=False)
    with pytest.raises(GlasError, match=message):
        summarise_groups(study.out, people, **FEW, **options)


def test_a_group_folder_of_other_content_is_not_replaced(study, eight):
    filled(study, eight)
    (study.out / "group").mkdir()
    (study.out / "group" / "thesis").write_text("years of work")
    with pytest.raises(GlasError, match="has content"):
        summarise_groups(study.out, eight, **FEW)


def test_a_folder_without_results_is_refused(tmp_path, eight):
    with pytest.raises(GlasError, match="run the participant level first"):
        summarise_groups(tmp_path, eight, **FEW)


@pytest.mark.filterwarnings("ignore:tests within 2 folds", "ignore:with 3 participants against 4")
def test_a_study_from_scans_to_groups(tmp_path, atlas_path):
    folder = studies.bids(tmp_path / "data", 8)
    eight = studies.cohort(folder)
    models = studies.folds(tmp_path / "models", eight)
    with pytest.warns(GlasWarning, match="are too small for the voxel grid"):
        explain_cohort(eight, tmp_path / "out", models, search=atlas_path, assume_space="MNI")
    steps = []
    result = summarise_groups(tmp_path / "out", eight.everyone, **FEW, progress=lambda *t: steps.append(t))
    assert steps[-1][0] == steps[-1][1]
    assert len(result.tables["AD"]) == 8
    sidecar = json.loads((result.folder / "group-AD_seg-few_stat-saliency_statmap.json").read_text())
    assert len(sidecar["Participants"]) == 4
    assert sidecar["Model"]["name"] == "2 folds"
    provenance = json.loads((result.folder / "provenance.json").read_text())
    assert provenance["Groups"]["AD"] == ["sub-01", "sub-03", "sub-05", "sub-07"]
    assert validate(tmp_path / "out")[0] == []
