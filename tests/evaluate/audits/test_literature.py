"""The audit literature: numbers of agreement by hand, maps that agree and maps that do not, and what is refused."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

from glas3d.errors import GlasError
from glas3d.evaluate.audits import AuditOptions, audit_results, audit_scan
from glas3d.evaluate.audits.audited_study import AuditedStudy
from glas3d.evaluate.audits.literature import audit_study
from glas3d.evaluate.audits.map_agreement import ComparedMap, _Statistics, _top, comparison_grid
from glas3d.imaging.scan import load_scan
from glas3d.imaging.space import VoxelGrid
from glas3d.output import write_json
from glas3d.study.derivatives import Record
from glas3d.tables import write_table
from tests.evaluate.audits import heads

REGIONS = ("Hippocampus_L", "Hippocampus_R", "Temporal_Inf_L", "Temporal_Inf_R", "Amygdala_L", "Amygdala_R")
ELSEWHERE = ("Frontal_Sup_L", "Frontal_Sup_R", "Precentral_L", "Precentral_R", "Caudate_L", "Caudate_R")
GRID = VoxelGrid((61, 73, 46), np.array([[-3.0, 0, 0, 90], [0, 3, 0, -126], [0, 0, 4, -72], [0, 0, 0, 1]]))


def literature(atlas, names, grid=GRID):
    """Return the smoothed regions on a grid with unequal axes, left to the right."""
    inside = np.isin(atlas.on(grid), atlas.table.loc[atlas.table["name"].isin(names), "index"])
    return nib.Nifti1Image(gaussian_filter(inside.astype(np.float32), (2.0, 2.0, 1.5)), grid.affine)


def table_of(atlas, names, seed=0):
    """Return a table of noise in which some regions score higher."""
    rng = np.random.default_rng(seed)
    score = rng.normal(0, 0.2, len(atlas.table)) + atlas.table["name"].isin(names)
    return atlas.table.assign(score=score)


@pytest.fixture(scope="module")
def results(aal, tmp_path_factory):
    """Return two folders with the results of a scan: by regions, and by a grid."""
    folders = {}
    target = {"Target": {"index": 1, "class": "AD"}, "Probability": 0.9, "Settings": {"fusion": "mean"}, "Model": {}}
    mni = {"coverage": 1.0, "distance": 0.0, "overlap": 1.0, "correlation": 1.0, "reading": None}
    searches = {"seg-AAL": {"atlas": "AAL", "sha256": aal.sha256}, "desc-grid": {"grid": 8}}
    table = table_of(aal, REGIONS)
    for name, search in searches.items():
        folders[name] = folder = tmp_path_factory.mktemp(name)
        stem = folder / f"sub-01_T1w_{name}"
        values = literature(aal, REGIONS)
        values.to_filename(f"{stem}_stat-saliency_statmap.nii.gz")
        sidecar = {**target, "Search": search, "SpaceCheck": mni, "Input": {"name": "sub-01_T1w.nii.gz"}}
        write_json(sidecar)(stem.with_name(f"{stem.name}_stat-saliency_statmap.json"))
        write_table(table)(stem.with_name(f"{stem.name}_regions.tsv"))
    return folders


@pytest.fixture(scope="module")
def compared(aal):
    table = table_of(aal, REGIONS)
    return ComparedMap.of_regions(table["index"], table["score"], aal)


def test_numbers_are_those_of_their_definitions(aal, compared):
    scan = load_scan(literature(aal, REGIONS))
    values = compared.literature(scan, "high")
    numbers = _Statistics(compared, values).of(values)
    frame = pd.DataFrame({"own": compared.values, "literature": values, "region": compared.labels})
    means = frame.groupby("region").mean()
    assert numbers["spearman_voxels"] == pytest.approx(spearmanr(frame["own"], frame["literature"]).statistic)
    assert numbers["spearman_regions"] == pytest.approx(spearmanr(means["own"], means["literature"]).statistic)
    assert len(means) == 116
    marked = means["literature"].rank(ascending=False) <= 12
    assert numbers["ap_regions"] == pytest.approx(average_precision_score(marked, means["own"]))
    rng = np.random.default_rng(0)  # Dice with the order of voxels that tie drawn at random
    k = round(0.1 * len(frame))
    tops = [np.lexsort((rng.uniform(size=len(frame)), -frame["own"]))[:k] for _ in range(50)]
    theirs = set(np.argsort(-values, kind="stable")[:k].tolist())
    drawn = [2 * len(theirs & set(top.tolist())) / (2 * k) for top in tops]
    assert numbers["dice_10"] == pytest.approx(np.mean(drawn), abs=0.01)


def test_voxels_that_tie_share_what_is_left():
    np.testing.assert_allclose(_top(np.array([3.0, 1, 1, 1, 0]), 0.4), [1, 1 / 3, 1 / 3, 1 / 3, 0])


def test_shares_beyond_a_thresholded_map_have_no_dice(compared):
    values = np.zeros(len(compared.values))
    values[: round(0.06 * len(values))] = 1.0
    names = set(_Statistics(compared, values).of(values))
    assert {"dice_2", "dice_5"} <= names
    assert "dice_10" not in names


def test_the_literature_is_resampled(aal, compared):
    high = compared.literature(load_scan(literature(aal, REGIONS)), "high")
    same = compared.literature(load_scan(literature(aal, REGIONS, comparison_grid())), "high")
    assert np.corrcoef(high, same)[0, 1] > 0.95  # although one has left to the right and other voxels
    low = compared.literature(load_scan(nib.Nifti1Image(-literature(aal, REGIONS).get_fdata(), GRID.affine)), "low")
    np.testing.assert_allclose(low, high, atol=1e-5)
    signed = literature(aal, REGIONS).get_fdata() * np.where(np.arange(61) < 30, -1, 1)[:, None, None]
    size = compared.literature(load_scan(nib.Nifti1Image(signed.astype(np.float32), GRID.affine)), "size")
    assert np.corrcoef(size, high)[0, 1] > 0.95


def test_results_agree_with_the_regions_that_they_show_and_no_others(aal, results, tmp_path):
    given = {"literature": literature(aal, REGIONS), "surrogates": 99, "folder": tmp_path}
    (regions,), (grid,) = (audit_results(folder, **given) for folder in results.values())
    assert (regions.verdict, regions.file) == ("pass", "sub-01_T1w_seg-AAL_desc-literature_audit.json")
    assert (grid.verdict, grid.file) == ("pass", "sub-01_T1w_desc-gridliterature_audit.json")
    assert regions["ap_regions_p"] == regions["ap_voxels_p"] == 0.01
    assert regions["ap_regions"] > regions["ap_regions_null"]
    assert grid["spearman_voxels"] > 0.98  # a map with itself
    assert "does not say that the model uses them" in regions.statement
    content = json.loads((tmp_path / regions.file).read_text())
    assert content["Settings"]["literature"]["sha256"] == load_scan(given["literature"]).sha256
    given["literature"] = literature(aal, ELSEWHERE)
    with pytest.raises(GlasError, match="made with another setting, literature"):
        audit_results(results["seg-AAL"], **given)
    (other,) = audit_results(results["seg-AAL"], **given, overwrite=True)
    assert other.verdict == "warn", other


def test_a_scan_with_its_model(aal):
    scan, _, predict = heads.made("regions")
    names = ("Hippocampus_L", "Hippocampus_R", "Temporal_Inf_L")
    keywords = {"literature": literature(aal, names), "surrogates": 99, "assume_space": "MNI"}
    (audit,) = audit_scan(heads.img(scan), predict, "AD", ["literature"], **keywords)
    assert audit.verdict == "pass"
    assert audit["ap_regions"] > 3 / 12  # three of the twelve marked regions come first, the others tie


@pytest.mark.parametrize(("assumed", "verdict"), [("MNI", "pass"), (None, "n/a")])
def test_the_group_of_a_study_by_a_grid(aal, results, tmp_path, assumed, verdict):
    (tmp_path / "group").mkdir()
    for path in results["desc-grid"].iterdir():
        (tmp_path / "group" / path.name.replace("sub-01_T1w", "group-AD")).write_bytes(path.read_bytes())
    write_json({"Case": "AD", "Control": "NC"})(tmp_path / "group" / "provenance.json")
    write_json({"Search": {"grid": 8}, "SpaceCheck": None})(tmp_path / "sub-01_regions.json")
    method = {"Search": {"grid": 8}, "Settings": {}, "Target": {"index": 1, "class": "AD"}}
    record = Record("sub-01", "", tmp_path, {"Method": method, "Key": "k", "Stem": "sub-01"})
    options = AuditOptions(literature=literature(aal, REGIONS), surrogates=99)
    audit = audit_study(AuditedStudy(tmp_path, options, {"AssumeSpace": assumed}, [record]))
    assert (audit.verdict, audit.file) == (verdict, "study_desc-gridliterature_audit.json")
    (tmp_path / "group" / "provenance.json").write_text("{}")
    with pytest.raises(GlasError, match=r"provenance\.json does not name Case"):
        audit_study(AuditedStudy(tmp_path, options, {}, [record]))


def test_no_map_and_no_space_have_no_verdict(aal, results, tmp_path):
    (audit,) = audit_results(results["desc-grid"])
    assert (audit.verdict, "name a map from the literature" in audit.statement) == ("n/a", True)
    for path in results["desc-grid"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    sidecar = tmp_path / "sub-01_T1w_desc-grid_stat-saliency_statmap.json"
    content = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**content, "SpaceCheck": None}))
    (audit,) = audit_results(tmp_path, ["literature"], literature=literature(aal, REGIONS), surrogates=99)
    assert (audit.verdict, "not known to be in MNI space" in audit.statement) == ("n/a", True)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("elsewhere", r"must be in MNI space and hold the brain, the field of view of the image holds \d+% of it"),
        ("outside", r"must be in MNI space, \d+% of the values of the image lie in the brain"),
    ],
)
def test_maps_in_another_space_are_refused_before_work_is_spent(aal, kind, message):
    values = literature(aal, REGIONS).get_fdata().astype(np.float32)
    affine = GRID.affine.copy()
    if kind == "elsewhere":
        affine[:3, 3] += 90
    else:
        values = np.roll(values, 25, axis=2)
    with pytest.raises(GlasError, match=message):
        AuditOptions(literature=nib.Nifti1Image(values, affine))


def test_maps_without_overlap_are_refused(aal, few):
    values = literature(aal, ELSEWHERE[:4]).get_fdata().astype(np.float32)
    values[values < 0.2] = 0
    compared = ComparedMap.of_regions(few.table["index"], range(len(few.table)), few)
    assert compared.labels is None  # eight regions are too few
    with pytest.raises(GlasError, match="is 0 in all of these voxels: the two do not overlap"):
        compared.literature(load_scan(nib.Nifti1Image(values, GRID.affine)), "high")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"literature": "none.nii.gz"}, "no such file: none"),
        (
            {"literature": nib.Nifti1Image(np.ones((3, 4, 5, 2), np.float32), np.eye(4))},
            r"a map from the literature must be one 3D volume, the image has shape \(3, 4, 5, 2\)",
        ),
        (
            {"literature": nib.Nifti1Image(np.zeros((3, 4, 5), np.float32), np.eye(4))},
            "a map from the literature must hold varying intensities, the image is 0 everywhere",
        ),
        ({"literature_values": "dark"}, "literature_values must be one of high, low, size, got 'dark'"),
        ({"surrogates": 9}, "surrogates must be a whole number of at least 99"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(GlasError, match=message):
        AuditOptions(**options)


def test_a_folder_needs_results(tmp_path, results):
    with pytest.raises(GlasError, match="has no results of glas3d explain"):
        audit_results(tmp_path)
    with pytest.raises(
        GlasError, match="the check accounted audits a scan with its model or the folder of a study, got"
    ):
        audit_results(results["seg-AAL"], ["accounted"])
    (tmp_path / "a_stat-saliency_statmap.nii.gz").touch()
    (tmp_path / "a_regions.tsv").touch()
    with pytest.raises(GlasError, match=r"no such file: .*a_stat-saliency_statmap\.json"):
        audit_results(tmp_path)
