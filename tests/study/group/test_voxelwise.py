"""Comparison of groups voxel by voxel."""

import json
from itertools import combinations, product

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage, stats

from glas3d import Atlas, GlasError
from glas3d.imaging.space import VoxelGrid
from glas3d.statistics.clusters import cluster_tables
from glas3d.statistics.omnibus import compare_all
from glas3d.statistics.two_groups import compare
from glas3d.study.derivatives import read_records
from glas3d.study.group import memory, voxelwise
from glas3d.study.group.level import summarise_groups
from glas3d.study.group.participants import read_participants, score_matrix
from tests.study.folders import people as everyone
from tests.study.made_up import AFFINE, FEW, SHAPE, Study
from tests.study.studies import data

BLOB = (slice(2, 5), slice(3, 6), slice(2, 6))


@pytest.fixture
def grid(tmp_path, atlas_path, atlas):
    return Study(tmp_path / "study", atlas_path, atlas, grid=True)


def volumes(n, effect=0.0, seed=0):
    """Return smooth noise; AD, the first and every other, has a brighter blob."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(n, *SHAPE)), (0, 0.7, 0.7, 0.7)) + 2
    noise[(slice(0, None, 2), *BLOB)] += effect
    return noise.astype(np.float32)


def fill(study, made):
    table = everyone(len(made), sites=2)
    for i, (name, each) in enumerate(zip(table["participant_id"], made, strict=True)):
        study.add(name, seed=i, volume=each)
    return table


def mask(path, where):
    inside = np.zeros(SHAPE, np.uint8)
    inside[where] = 1
    nib.Nifti1Image(inside, AFFINE).to_filename(path)
    return path


def maps(place, where="desc-gridvoxels"):
    return {
        path.name.split("_stat-")[1].split("_")[0]: data(path) for path in place.glob(f"group-ADvsNC_{where}_*.nii.gz")
    }


def share(volume):
    return volume.astype(float) / volume.sum(dtype=float)


def student(y, case, nuisance=()):
    """Return the textbook's t of ``case``, for columns of ``y``."""
    design = np.column_stack([case, np.ones(len(case)), *nuisance]).astype(float)
    beta, *_ = np.linalg.lstsq(design, y, rcond=None)
    left = y - design @ beta
    variance = np.linalg.inv(design.T @ design)[0, 0] * (left**2).sum(axis=0) / (len(y) - design.shape[1])
    return beta[0] / np.sqrt(variance)


def test_three_groups_are_tested_together_voxel_by_voxel(grid, tmp_path):
    made = volumes(18, seed=2)
    made[(slice(0, 18, 3), *BLOB)] += 1.5
    table = fill(grid, made).assign(group=["AD", "MCI", "NC"] * 6)
    path = mask(tmp_path / "mask.nii.gz", (slice(1, 6), slice(1, 7), slice(1, 8)))
    result = summarise_groups(
        grid.out, table, **FEW, omnibus=True, voxelwise=True, tfce=True, voxel_mask=path, normalise="none"
    )
    inside = data(path) > 0
    y = np.stack([each[inside] for each in made]).astype(float)
    expected = compare_all(y, table, ["AD", "MCI", "NC"], n_perm=49, tfce_mask=inside)
    images = {
        name: data(result.folder / f"group-ADvsMCIvsNC_desc-gridvoxels_stat-{name}_statmap.nii.gz")
        for name in ("F", "neglog10pfwe", "tfce", "neglog10ptfcefwe")
    }
    np.testing.assert_allclose(images["F"][inside], expected["f"], rtol=1e-5)
    np.testing.assert_allclose(images["neglog10ptfcefwe"][inside], expected["neglog10p_tfce_fwe"], rtol=1e-5)
    peak = pd.read_csv(result.folder / "group-ADvsMCIvsNC_desc-gridvoxels_clusters.tsv", sep="\t").iloc[0]
    assert peak["p_tfce_fwe"] <= 0.05
    voxels = result.voxels["AD against MCI against NC"]
    assert voxels.n_below == (expected["p_tfce_fwe"] <= 0.05).sum() > 20


@pytest.mark.filterwarnings("ignore:with 4 participants against 4 no two-sided")
@pytest.mark.parametrize("site", [None, "site"])
def test_t_is_the_textbooks_and_p_that_of_all_arrangements(grid, tmp_path, site):
    """Four against four, with and without two sites, by a loop over all arrangements."""
    made = volumes(8, effect=0.6)
    table = fill(grid, made)
    path = mask(tmp_path / "mask.nii.gz", (slice(1, 6), slice(1, 7), slice(1, 8)))
    result = summarise_groups(
        grid.out,
        table,
        **FEW | {"n_perm": 2000},
        null="permutation",
        voxelwise=True,
        voxel_mask=path,
        site=site,
        covariates=[],
    )
    inside = data(path) > 0
    y = np.stack([share(each)[inside] for each in made])
    selected = (table["site"] == "s1").to_numpy()
    nuisance = [selected] if site else []
    t = student(y, (table["group"] == "AD").to_numpy(), nuisance)
    sites = [np.flatnonzero(~selected), np.flatnonzero(selected)] if site else [np.arange(8)]
    largest = []
    for chosen in product(*(combinations(rows, len(rows) // 2) for rows in sites)):
        case = np.isin(np.arange(8), np.concatenate(chosen))
        largest.append(np.abs(student(y, case, nuisance)).max())
    assert len(largest) == (36 if site else 70)
    exact = (np.array(largest)[:, None] >= np.abs(t) * (1 - 1e-9)).mean(axis=0)
    images = maps(result.folder)
    assert images.keys() == {"t", "neglog10pfwe"}
    np.testing.assert_allclose(images["t"][inside], t, rtol=1e-5)
    error = 4.5 * np.sqrt(exact * (1 - exact) / 2000) + 1 / 2000
    assert (np.abs(10.0 ** -images["neglog10pfwe"][inside] - exact) <= error).all()
    assert (images["t"][~inside] == 0).all()
    voxels = result.voxels["AD against NC"]
    assert voxels.n_voxels == inside.sum()
    peak = np.argmax(np.where(inside, np.abs(images["t"]), 0))
    np.testing.assert_allclose(voxels.peak, nib.affines.apply_affine(AFFINE, np.unravel_index(peak, SHAPE)))


def test_covariates_are_held_fixed_and_the_brain_is_the_mask(grid):
    made = volumes(12, seed=3)
    table = fill(grid, made).assign(age=np.random.default_rng(2).normal(size=12))
    options = {"voxelwise": True, "covariates": ["age"], "null": "permutation"}
    folder = summarise_groups(grid.out, table, **FEW, **options).folder
    t = maps(folder)["t"]
    y = np.stack([share(each).ravel() for each in made])
    expected = student(y, (table["group"] == "AD").to_numpy(), [table["age"]]).reshape(SHAPE)
    inside = t != 0
    np.testing.assert_allclose(t[inside], expected[inside], rtol=1e-5)
    assert 20 < inside.sum() < t.size / 2
    centre = np.round(np.linalg.inv(AFFINE) @ [0, -20, 10, 1]).astype(int)[:3]
    assert inside[tuple(centre)]
    assert not inside[0, 0, 0]
    sidecar = json.loads((folder / "group-ADvsNC_desc-gridvoxels_stat-t_statmap.json").read_text())
    assert sidecar["Mask"] == "the template's brain"
    assert sidecar["Voxels"] == inside.sum()
    assert (sidecar["Normalise"], sidecar["NormalisedOver"]) == ("share", "the map")
    assert (sidecar["Case"], sidecar["Control"], sidecar["Covariates"], sidecar["Permutations"]) == (
        "AD",
        "NC",
        ["age"],
        49,
    )


def enhanced(t):
    """Return Smith and Nichols' integral of extent^0.5 height^2 over fine steps, faces touching."""
    total = np.zeros_like(t)
    heights, step = np.linspace(0, np.abs(t).max(), 2001, retstep=True)
    for sign in (1, -1):
        for height in heights[1:]:
            clusters, n = ndimage.label(sign * t >= height)
            sizes = ndimage.sum_labels(np.ones(t.shape), clusters, range(n + 1))
            total += sign * np.where(clusters > 0, np.sqrt(sizes[clusters]) * height**2 * step, 0)
    return total


def test_a_planted_blob_is_significant_by_tfce(grid, tmp_path):
    table = fill(grid, volumes(30, effect=0.8))
    path = mask(tmp_path / "mask.nii.gz", (slice(None),) * 3)
    result = summarise_groups(grid.out, table, **FEW, voxelwise=True, tfce=True, voxel_mask=path)
    images = maps(result.folder)
    assert images.keys() == {"t", "neglog10pfwe", "tfce", "neglog10ptfcefwe"}
    steps = enhanced(images["t"])
    np.testing.assert_allclose(images["tfce"], steps, atol=0.003 * np.abs(steps).max())
    below = images["neglog10ptfcefwe"] >= -np.log10(0.05)
    blob = np.zeros(SHAPE, bool)
    blob[BLOB] = True
    assert below[blob].mean() > 0.8
    assert (images["tfce"][blob] > 0).all()
    assert below[~ndimage.binary_dilation(blob, iterations=2)].mean() < 0.05
    assert result.voxels["AD against NC"].n_below == below.sum()
    peak = np.round(np.linalg.inv(AFFINE) @ [*result.voxels["AD against NC"].peak, 1]).astype(int)[:3]
    assert blob[tuple(peak)]


def test_clusters_have_names_of_regions_and_all_peaks(grid, tmp_path):
    made = volumes(16, effect=1.5)
    table = fill(grid, made)
    path = mask(tmp_path / "mask.nii.gz", (slice(1, 6), slice(1, 7), slice(1, 8)))
    options = {"voxelwise": True, "voxel_mask": path, "normalise": "none"}
    folder = summarise_groups(grid.out, table, **FEW | {"n_perm": 199}, **options).folder
    images = maps(folder)
    aal, t = Atlas.load("AAL"), images["t"].astype(float)
    where = images["neglog10pfwe"] >= -np.log10(0.05) - 1e-6
    expected = cluster_tables(t, np.where(where, 0.01, 1), AFFINE, labels=aal.on(VoxelGrid(SHAPE, AFFINE)))
    clusters, peaks = (
        pd.read_csv(folder / f"group-ADvsNC_desc-gridvoxels_{n}.tsv", sep="\t") for n in ("clusters", "peaks")
    )
    assert len(peaks) >= len(clusters) > 0
    for found, right in ((clusters, expected.clusters), (peaks, expected.peaks)):
        np.testing.assert_allclose(found[["x", "y", "z"]], right[["x", "y", "z"]])
        np.testing.assert_allclose(found["t"], right["statistic"], rtol=1e-5)
        assert (found["p_fwe"] <= 0.05).all()
    names = aal.table.set_index("index")["name"]
    assert clusters["name"].tolist() == [names.get(i, "no region") for i in expected.clusters["index"].fillna(0)]
    sidecar = json.loads((folder / "group-ADvsNC_desc-gridvoxels_peaks.json").read_text())
    assert (sidecar["Atlas"], sidecar["PeakDistance"], sidecar["x"]["Units"]) == ("AAL", 8.0, "mm")
    assert sidecar["Clusters"] == "voxels of one sign with p_fwe of at most 0.05 that share faces"
    assert sidecar["Statistic"].startswith("Welch's t")


def test_sessions_are_averaged_first(tmp_path, atlas_path, atlas):
    """Two sessions of each participant give the same as one session that is their mean."""
    one, two = (Study(tmp_path / name, atlas_path, atlas, grid=True) for name in ("one", "two"))
    made = volumes(16).reshape(8, 2, *SHAPE)
    table = fill(one, made.mean(axis=1))
    for i, name in enumerate(table["participant_id"]):
        for session in (0, 1):
            two.add(name, f"ses-{session}", seed=2 * i + session, volume=made[i, session])
    places = [summarise_groups(study.out, table, **FEW, voxelwise=True).folder for study in (one, two)]
    np.testing.assert_allclose(maps(places[1])["t"], maps(places[0])["t"], atol=1e-4)
    assert not np.allclose(data(places[0] / "group-ADvsNC_desc-gridvoxels_stat-t_statmap.nii.gz"), 0)


def test_an_atlas_s_voxels_are_its_regions(study, eight, tmp_path):
    """Every voxel of a region has its values, so that t and the largest over voxels are those of the regions."""
    for i, row in enumerate(eight.to_dict("records")):
        study.add(row["participant_id"], seed=i, boost=0.3 * (row["group"] == "AD"))
    result = summarise_groups(study.out, eight, **FEW, voxelwise=True)
    labels = study.atlas.on(VoxelGrid(SHAPE, AFFINE))
    present = [
        name
        for i, name in zip(study.atlas.table["index"], study.atlas.table["name"], strict=True)
        if (labels == i).any()
    ]
    participants = list(read_participants(read_records(study.out), eight, "AD", "NC"))
    expected = compare(score_matrix(participants, "share")[present], eight, "AD", "NC", n_perm=49, n_boot=0).set_index(
        "name"
    )
    images = maps(result.folder, "seg-few_desc-voxels")
    for row in study.atlas.table[study.atlas.table["name"].isin(present)].to_dict("records"):
        for statistic, column in (("t", "t"), ("neglog10pfwe", "neglog10p_fwe")):
            np.testing.assert_allclose(
                images[statistic][labels == row["index"]], expected.loc[row["name"], column], rtol=1e-5, atol=1e-6
            )
    assert result.voxels["AD against NC"].n_voxels == (labels > 0).sum()
    half = mask(tmp_path / "half.nii.gz", (slice(0, 3),))
    kept = summarise_groups(study.out, eight, **FEW, voxelwise=True, voxel_mask=half)
    t = maps(kept.folder, "seg-few_desc-voxels")["t"]
    assert kept.voxels["AD against NC"].n_voxels == (labels[:3] > 0).sum() > 0
    assert (t[3:] == 0).all()
    sidecar = json.loads((kept.folder / "group-ADvsNC_seg-few_desc-voxels_stat-t_statmap.json").read_text())
    assert sidecar["Mask"] == "the atlas's regions within half.nii.gz"
    assert (sidecar["Normalise"], sidecar["NormalisedOver"]) == ("share", "the regions")


def test_comparisons_larger_than_memory_are_refused(study, eight, monkeypatch):
    for i, name in enumerate(eight["participant_id"]):
        study.add(name, seed=i)
    n = (study.atlas.on(VoxelGrid(SHAPE, AFFINE)) > 0).sum()
    monkeypatch.setattr(memory, "free_memory", lambda: memory.needed_memory(8, n) - 1)
    with pytest.raises(GlasError, match=rf"of 8 participants and {n} voxels needs about .* GiB of memory, .* are free"):
        summarise_groups(study.out, eight, **FEW, voxelwise=True)
    assert not (study.out / "group").exists()
    monkeypatch.setattr(memory, "free_memory", lambda: memory.needed_memory(8, n))
    summarise_groups(study.out, eight, **FEW, voxelwise=True)

    def exhausted(*_, **__):
        raise MemoryError

    monkeypatch.setattr(voxelwise, "compare_values", exhausted)
    with pytest.raises(GlasError, match="a smaller mask or larger voxels need less"):
        summarise_groups(study.out, eight, **FEW, voxelwise=True)


REFUSED = {
    "tfce": ({"tfce": True}, "tfce is for a voxelwise comparison, which needs voxelwise=True"),
    "mask": ({"voxel_mask": "x.nii.gz"}, "a voxel mask is for a voxelwise comparison"),
    "no file": ({"voxelwise": True, "voxel_mask": "x.nii.gz"}, r"x\.nii\.gz"),
    "elsewhere": (
        {"voxelwise": True, "voxel_mask": "CORNER"},
        r"corner\.nii\.gz holds no voxel of the atlas's regions",
    ),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_options_that_do_not_fit_a_voxelwise_comparison_are_refused(study, eight, tmp_path, options, message):
    for i, name in enumerate(eight["participant_id"]):
        study.add(name, seed=i)
    if options.get("voxel_mask") == "CORNER":
        options = options | {"voxel_mask": mask(tmp_path / "corner.nii.gz", (0, 0, 0))}
    with pytest.raises(GlasError, match=message):
        summarise_groups(study.out, eight, **FEW, **options)
    assert not (study.out / "group").exists()


@pytest.mark.slow
@pytest.mark.parametrize("site", [None, "site"])
def test_shuffled_labels_are_seldom_significant(site):
    """Of 100 data sets without effect, the largest t and TFCE reject in 5 % and sampling error."""
    allowed = stats.binom.ppf(0.999, 100, 0.05)  # 13
    rejected = pd.Series({"p_fwe": 0, "p_tfce_fwe": 0, "p_uncorrected": 0})
    inside = np.ones((5, 6, 4), np.uint8)
    for seed in range(100):
        rng = np.random.default_rng(seed)
        made = ndimage.gaussian_filter(rng.normal(size=(20, *inside.shape)), (0, 1, 1, 1))
        table = pd.DataFrame({"group": ["AD", "NC"] * 10, "site": ["a"] * 12 + ["b"] * 8})
        for selected in ("a", "b") if site else ("ab",):
            rows = np.flatnonzero(table["site"].isin(list(selected)))
            table.loc[rows, "group"] = rng.permutation(table["group"].to_numpy()[rows])
        values = made.reshape(20, -1) + (3 * (table["site"] == "b").to_numpy()[:, None] if site else 0)
        options = {"tfce_mask": inside, "n_perm": 19, "n_boot": 0, "seed": seed, "site": site}
        result = compare(values, table, "AD", "NC", **options)
        rejected += result[rejected.index].min() <= 0.05
    assert (rejected[["p_fwe", "p_tfce_fwe"]] <= allowed).all()
    assert rejected["p_uncorrected"] > allowed
