"""Targets made from one region of unaltered scans, against NumPy."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from glas3d import GlasError
from glas3d.imaging.space import mni_grid, template_on
from glas3d.predict import intensity_scale
from glas3d.simulate import Simulation, region_targets, scan_img, simulate_participants, write_dataset
from glas3d.study import read_cohort

SIMULATION = Simulation(participants=9, ad=0, seed=4, resolution=8)
IDS = [f"{i:02d}" for i in range(1, 10)]


@pytest.fixture(scope="module")
def volumes():
    return [np.rint(p.volume) for p in simulate_participants(SIMULATION)]


@pytest.fixture(scope="module")
def imgs(volumes):
    return [scan_img(SIMULATION, volume) for volume in volumes]


def means_of(aal, volumes):
    labels = aal.on(mni_grid(8))
    values = [v / intensity_scale(v) for v in volumes]
    return np.array(
        [[v[labels == i].mean() if (labels == i).any() else np.nan for i in aal.table["index"]] for v in values]
    )


def test_the_target_is_the_residual_of_the_region_s_mean_intensity(aal, volumes, imgs):
    made = region_targets(IDS, imgs, "Insula_R")
    means = means_of(aal, volumes)
    column = aal.table["name"].tolist().index("Insula_R")
    own, others = means[:, column], np.nanmean(np.delete(means, column, axis=1), axis=1)
    np.testing.assert_allclose(made.participants["value"], own, rtol=1e-5)
    design = np.stack([np.ones(9), others], axis=1)
    residual = own - design @ np.linalg.lstsq(design, own, rcond=None)[0]
    np.testing.assert_allclose(made.participants["target"], residual, atol=1e-6)
    assert abs(np.corrcoef(made.participants["target"], others)[0, 1]) < 1e-3
    plain = region_targets(IDS, imgs, "Insula_R", adjusted=False).participants
    np.testing.assert_allclose(plain["target"], plain["value"])


def test_groups_are_the_ends_of_the_targets(imgs):
    people = region_targets(IDS, imgs, "Insula_R").participants
    assert people["participant_id"].tolist() == [f"sub-{i}" for i in IDS]
    assert people["group"].value_counts().to_dict() == {"high": 4, "low": 4, "middle": 1}
    by_group = people.groupby("group")["target"]
    middle = people.loc[people["group"] == "middle", "target"].item()
    assert by_group.max()["low"] < middle < by_group.min()["high"]
    ends = region_targets(IDS, imgs, "Insula_R", share=0.25).participants
    assert ends["group"].value_counts().to_dict() == {"middle": 5, "high": 2, "low": 2}


def test_the_truth_names_the_region_and_what_correlates_with_it(aal, volumes, imgs):
    made = region_targets(IDS, imgs, "Precuneus_L", adjusted=False)
    assert made.regions["name"].tolist() == aal.table["name"].tolist()
    assert made.regions.loc[made.regions["planted"] == 1, "name"].tolist() == ["Precuneus_L"]
    expected = [np.corrcoef(values, made.participants["target"])[0, 1] for values in means_of(aal, volumes).T]
    np.testing.assert_allclose(made.regions["correlation"], expected, atol=1e-4)
    assert made.regions.set_index("name")["correlation"]["Precuneus_L"] == pytest.approx(1)


def test_volumes_are_sums_of_tissue_in_millilitres(aal):
    grid = mni_grid(8)
    grey = [nib.Nifti1Image(template_on(8, "gm") * np.float32(f), grid.affine) for f in (0.8, 0.9, 1.0, 1.1)]
    values = region_targets(IDS[:4], grey, "Insula_R", measure="volume", adjusted=False).participants["value"]
    inside = aal.on(grid) == aal.table.set_index("name")["index"]["Insula_R"]
    expected = template_on(8, "gm")[inside].sum() * np.array([0.8, 0.9, 1.0, 1.1]) * 0.8**3
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_scans_may_have_different_grids(imgs):
    finer = replace(SIMULATION, resolution=5.5)
    people = list(simulate_participants(finer))
    mixed = [scan_img(finer, people[i].volume) if i % 2 else img for i, img in enumerate(imgs)]
    values = [region_targets(IDS, s, "Frontal_Mid_R", adjusted=False).participants["value"] for s in (imgs, mixed)]
    np.testing.assert_allclose(values[0][::2], values[1][::2])
    np.testing.assert_allclose(values[0], values[1], rtol=0.1)


def test_a_cohort_is_read_with_the_targets_as_groups(tmp_path):
    data = write_dataset(tmp_path / "data", replace(SIMULATION, ad=4))
    before = {path: path.read_bytes() for path in data.rglob("*.nii.gz")}
    scans = read_cohort(data).everyone
    made = region_targets(scans["participant_id"], scans["path"], "Putamen_L")
    paths = made.save(tmp_path / "putamen")
    expected = {f"{name}.{end}" for name in ("desc-planted_regions", "participants") for end in ("json", "tsv")}
    assert {path.name for path in paths} == expected
    cohort = read_cohort(data, participants_tsv=tmp_path / "putamen" / "participants.tsv", case="high", control="low")
    assert cohort.groups == {"high": 4, "low": 4, "middle": 1}
    assert len(cohort) == 8
    described = json.loads((tmp_path / "putamen" / "participants.json").read_text())
    assert set(described) == set(made.participants.columns)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"participant_ids": IDS[:3]}, "at least 4 participants with one scan each, got 3 participants and 9 scans"),
        ({"region": "Putamen"}, "must be names of the atlas AAL, which has no 'Putamen'; did you mean Putamen_"),
        ({"measure": "shape"}, "measure must be one of intensity, volume, got 'shape'"),
        ({"share": 0.6}, "share must be above 0 and at most 0.5, got 0.6"),
        ({"measure": "volume"}, "volumes need maps of tissue, whose values are shares of voxels, .* reaches"),
    ],
    ids=str,
)
def test_bad_use_is_refused(imgs, changed, message):
    given = {"participant_ids": IDS, "scans": imgs, "region": "Putamen_L"} | changed
    with pytest.raises(GlasError, match=message):
        region_targets(**given)


def test_equal_scans_have_no_target(imgs):
    with pytest.raises(GlasError, match="must differ between participants, Putamen_L has the same intensity in all"):
        region_targets(IDS, [imgs[0]] * 9, "Putamen_L", adjusted=False)
    half = imgs[0].slicer[:8]
    with pytest.raises(GlasError, match="Putamen_R must have voxels in every scan, it has none in that of sub-02"):
        region_targets(IDS, [imgs[0], half, *imgs[2:]], "Putamen_R")
