"""Participants' own parcellations, through both levels: each has another one, and one participant lacks a region."""

import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from glas3d import Atlas, GlasError
from glas3d.errors import GlasWarning
from glas3d.explain import explain_img
from glas3d.predict import load_model
from glas3d.study import explain_cohort, summarise_groups
from glas3d.study.regions import SharedRegions
from tests.study import folders, studies
from tests.study.made_up import minmax, read

pytestmark = [
    pytest.mark.filterwarnings("ignore:participants can be exchanged"),
    pytest.mark.filterwarnings("ignore:.*the signs of .* can be flipped"),
    pytest.mark.filterwarnings("ignore:regions without a value in every participant are left out"),
]
PATTERN = "{participant_id}/anat/{participant_id}_desc-aparcaseg_dseg.nii.gz"
NAMES = {17: "Hippocampus_L", 18: "Amygdala_L", 53: "Hippocampus_R", 54: "Amygdala_R", 10: "Brainstem"}
SHAPE = (11, 13, 12)
AFFINE = np.array([[-13.0, 0, 0, 66], [0, 14, 0, -98], [0, 0, 12, -58], [0, 0, 0, 1]])
QUICK = {"case": "AD", "control": "NC", "n_perm": 19, "n_boot": 5, "k": 3, "overwrite": True}
CHOSEN = {"search": PATTERN, "assume_space": "MNI"}


def parcellation(number, labels=tuple(NAMES)):
    """Return blocks that lie elsewhere and are larger in every participant; x runs to the left."""
    volume = np.zeros(SHAPE, np.int16)
    corners = {17: (7, 3, 3), 18: (7, 7, 2), 53: (2, 3, 3), 54: (2, 7, 2), 10: (5, 3, 6)}
    for label in labels:
        x, y, z = corners[label]
        volume[x : x + 2, y : y + 2 + number % 3, z + number % 2 : z + 3] = label
    return volume


def path_of(folder, name):
    return folder / PATTERN.replace("{participant_id}", name)


def save(folder, name, volume, names=NAMES, **columns):
    nib.save(nib.Nifti1Image(volume, AFFINE), path_of(folder, name))
    table = pd.DataFrame({"index": list(names), "name": list(names.values()), **columns})
    table.to_csv(path_of(folder, name).with_name(f"{name}_desc-aparcaseg_dseg.tsv"), sep="\t", index=False)


def with_parcellations(folder):
    """Add parcellations; sub-03, of AD, lacks the left amygdala, in the image and in the table."""
    for number in range(1, 7):
        names = {label: name for label, name in NAMES.items() if (number, label) != (3, 18)}
        save(folder, f"sub-0{number}", parcellation(number, tuple(names)), names)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return with_parcellations(studies.bids(tmp_path_factory.mktemp("in") / "data"))


@pytest.fixture(scope="module")
def everyone(data):
    return studies.cohort(data)


@pytest.fixture(scope="module")
def out(everyone, models, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "study"
    assert explain_cohort(everyone, out, models, **CHOSEN).count("explained") == 6
    with pytest.warns(GlasWarning, match=r"left out: Amygdala_L \(1 of 6\)|left out: Amygdala_L \(1 of 3\)"):
        summarise_groups(out, everyone.everyone, voxelwise=True, **QUICK)
    return out


def tables(out):
    """Return each participant's table as it was written, by index."""
    found = {}
    for path in sorted(out.glob("sub-*/anat/*_regions.tsv")):
        found[path.name[:6]] = read(path.parent, path.name).set_index("index")
    return found


def test_each_participant_is_explained_on_their_own_parcellation(out, data, everyone, models):
    written = tables(out)
    path = everyone.table.set_index("participant_id")["path"]["sub-03"]
    atlas = Atlas.load(path_of(data, "sub-03"), label="aparcaseg")
    alone = explain_img(path, load_model(models / "fold-2", device="cpu"), "AD", atlas, assume_space="MNI")
    table = alone.table.set_index("index")
    for column in ("x", "y", "z", "n_voxels", "score"):
        np.testing.assert_allclose(written["sub-03"][column], table[column], rtol=1e-6)
    assert 18 not in written["sub-03"].index
    assert len({tuple(table["n_voxels"]) for table in written.values()}) > 2  # parcellations do differ
    assert len(list(out.glob("sub-*/anat/*_seg-aparcaseg_stat-saliency_statmap.nii.gz"))) == 6


def test_group_tables_are_means_over_those_who_have_the_region(out):
    of_ad = [tables(out)[name] for name in ("sub-01", "sub-03", "sub-05")]
    group = read(out / "group", "group-AD_seg-aparcaseg_regions.tsv").set_index("index")
    assert group["n_participants"].to_dict() == {10: 3, 17: 3, 18: 2, 53: 3, 54: 3}
    assert group["name"].to_dict() == NAMES
    assert group["hemisphere"].to_dict() == {10: "midline", 17: "L", 18: "L", 53: "R", 54: "R"}
    for column in ("x", "y", "z", "n_voxels", "light", "shadow", "drop"):
        for index in NAMES:
            values = [table.loc[index, column] for table in of_ad if index in table.index]
            assert group.loc[index, column] == pytest.approx(np.mean(values), rel=1e-12), (column, index)
    assert group.loc[17, "x"] < 0 < group.loc[53, "x"]
    scaled = [pd.Series(minmax(table["score"].to_numpy()), table.index) for table in of_ad]
    means = {index: np.mean([each[index] for each in scaled if index in each]) for index in NAMES}
    expected = minmax(np.array([means[index] for index in group.index]))
    np.testing.assert_allclose(group["score"], expected, atol=1e-12)
    variation = read(out / "group", "group-AD_seg-aparcaseg_desc-variation_regions.tsv").set_index("index")
    assert variation.loc[18, "n"] == 2
    assert variation.loc[18, "variance"] == pytest.approx(np.var([s[18] for s in scaled if 18 in s], ddof=1))


def test_the_map_of_a_group_is_the_mean_of_the_participants_maps(out):
    maps = []
    for name in ("sub-01", "sub-03", "sub-05"):
        (path,) = (out / name / "anat").glob("*_stat-saliency_statmap.nii.gz")
        maps.append(minmax(studies.data(path).astype(float)))
    img = nib.load(out / "group" / "group-AD_seg-aparcaseg_stat-saliency_statmap.nii.gz")
    assert img.shape == folders.SHAPE
    np.testing.assert_allclose(np.asarray(img.dataobj), minmax(np.mean(maps, axis=0)), atol=1e-6)


def test_regions_are_compared_and_sizes_are_each_participants_own(out):
    folder = out / "group"
    statistics = read(folder, "group-ADvsNC_seg-aparcaseg_statistics.tsv").set_index("index")
    assert statistics["t"].notna().to_dict() == {10: True, 17: True, 18: False, 53: True, 54: True}
    assert not list(folder.glob("group-ADvsNC_seg-aparcaseg_stat-t*"))  # no atlas to paint regions on
    assert list(folder.glob("group-ADvsNC_seg-aparcaseg_desc-voxels_stat-t*"))
    density = read(folder, "group-AD_seg-aparcaseg_desc-relativedensity_regions.tsv").set_index("index")
    shares = []
    for name in ("sub-01", "sub-03", "sub-05"):
        own = tables(out)[name].drop(index=18, errors="ignore")["n_voxels"]
        shares.append(own[17] / own.sum())
    assert density.loc[17, "volume_share"] == pytest.approx(np.mean(shares))
    assert len(set(shares)) > 1
    sides = read(folder, "group-AD_seg-aparcaseg_desc-laterality_regions.tsv").set_index("name")
    assert np.isfinite(sides.loc["Hippocampus", "laterality"])


def test_results_are_kept_until_a_parcellation_or_its_names_change(data, models, tmp_path):
    copied = shutil.copytree(data, tmp_path / "data")
    cohort, out = studies.cohort(copied), tmp_path / "out"
    explain_cohort(cohort, out, models, **CHOSEN)
    assert explain_cohort(cohort, out, models, **CHOSEN).count("kept") == 6
    save(copied, "sub-02", parcellation(5))
    names = {**NAMES, 10: "Pons"}
    for number in (1, 3, 4, 5, 6):
        own = {label: name for label, name in names.items() if (number, label) != (3, 18)}
        save(copied, f"sub-0{number}", parcellation(number, tuple(own)), own)
    with pytest.raises(GlasError, match=r"name their regions alike, 10 of sub-02 is Brainstem .* of sub-01 10 is Pons"):
        explain_cohort(cohort, out, models, **CHOSEN)
    save(copied, "sub-02", parcellation(5), names)
    assert explain_cohort(cohort, out, models, **CHOSEN).count("explained") == 6
    assert explain_cohort(cohort, out, models, **CHOSEN).count("kept") == 6


def test_one_table_names_the_regions_of_everyone(data, models, tmp_path):
    copied = shutil.copytree(data, tmp_path / "data")
    for path in copied.glob("sub-*/anat/*_dseg.tsv"):
        path.unlink()
    table = tmp_path / "FreeSurferColorLUT.txt"
    table.write_text("".join(f"{index} {name} 1 2 3 0\n" for index, name in {0: "Unknown", 99: "No", **NAMES}.items()))
    with pytest.raises(GlasError, match=r"sub-01 cannot be explained: an atlas needs a look-up table .*--atlas-table"):
        explain_cohort(studies.cohort(copied), tmp_path / "out", models, **CHOSEN)
    assert not (tmp_path / "out").exists()
    result = explain_cohort(studies.cohort(copied), tmp_path / "out", models, atlas_table=table, **CHOSEN)
    assert result.count("explained") == 6
    assert set(tables(tmp_path / "out")["sub-01"]["name"]) == set(NAMES.values())


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{participant_id}/anat/{participant_id}_desc-other_dseg.nii.gz", r"sub-01_desc-other_dseg.nii.gz in .*none"),
        ("../other/{participant_id}/anat/own.nii.gz", "the atlas of each participant must lie in the folder"),
        ("/etc/{participant_id}.nii.gz", "the atlas of each participant must lie in the folder"),
        ("{participant_id}/*/{participant_id}_*.nii.gz", r"the atlas of a participant must be one file, .* and "),
    ],
)
def test_patterns_that_name_no_file_or_lead_outside_are_refused(everyone, models, tmp_path, pattern, message):
    with pytest.raises(GlasError, match=message):
        explain_cohort(everyone, tmp_path / "out", models, search=pattern, assume_space="MNI")
    assert not (tmp_path / "out").exists()


def test_parcellations_of_scans_that_are_brought_to_the_template_must_be_there(everyone, models, tmp_path):
    with pytest.raises(GlasError, match="own parcellations must be in it, and --atlas-space MNI"):
        explain_cohort(everyone, tmp_path / "out", models, register="affine", **CHOSEN)


def test_the_group_level_refuses_another_atlas(out, everyone):
    with pytest.raises(GlasError, match=r"explained on their own parcellations, {participant_id}"):
        summarise_groups(out, everyone.everyone, atlas="AAL", **QUICK)


def test_sessions_may_lack_regions_of_each_other(models, tmp_path):
    folder = studies.bids(tmp_path / "data", 2, ("M00", "M12"))
    pattern = "{participant_id}/{session_id}/anat/own.nii.gz"
    names = {label: NAMES[label] for label in (17, 53, 10)}
    for participant in ("sub-01", "sub-02"):
        for session, labels in (("ses-M00", (17, 53)), ("ses-M12", (17, 53, 10))):
            path = folder / participant / session / "anat" / "own.nii.gz"
            nib.save(nib.Nifti1Image(parcellation(1, labels), AFFINE), path)
            rows = pd.DataFrame({"index": labels, "name": [names[label] for label in labels]})
            rows.to_csv(path.with_name("own.tsv"), sep="\t", index=False)
    cohort, out = studies.cohort(folder), tmp_path / "out"
    explain_cohort(cohort, out, models, search=pattern, assume_space="MNI")
    with pytest.warns(GlasWarning, match="no comparison"):
        result = summarise_groups(out, cohort.everyone, **QUICK)
    table = result.tables["AD"].set_index("index")
    (path,) = (out / "sub-01" / "ses-M12" / "anat").glob("*_regions.tsv")
    alone = read(path.parent, path.name).set_index("index")
    for column in ("x", "y", "z", "n_voxels", "light", "drop"):
        assert table.loc[10, column] == pytest.approx(alone.loc[10, column])


def rows(**regions):
    return pd.DataFrame(
        [[i, name, side] for name, (i, side) in regions.items()], columns=["index", "name", "hemisphere"]
    )


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (rows(B=(1, "L")), r"1 of sub-02 is B \(L\), of sub-01 1 is A \(L\)"),
        (rows(A=(1, "R")), r"1 of sub-02 is A \(R\), of sub-01 1 is A \(L\)"),
        (rows(A=(2, "L")), r"2 of sub-02 is A \(L\), of sub-01 1 is A \(L\)"),
    ],
)
def test_regions_that_are_not_the_same_are_refused(other, message):
    shared = SharedRegions()
    shared.add("sub-01", rows(A=(1, "L"), C=(3, "midline")))
    with pytest.raises(GlasError, match=message):
        shared.add("sub-02", other)
    assert shared.table()["index"].tolist() == [1, 3]
