"""``glas3d explain``: its files, its table, and the options that reach `explain_img`."""

import json
import re
from contextlib import contextmanager

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from glas3d.explain import COLUMNS, EVIDENCE
from glas3d.explain.dataset import describe_dataset
from tests import bundles
from tests.validator import validate

MAPS = ("saliency", "light", "shadow", "drop")
DATASET = {"dataset_description.json", ".bidsignore", "report.html"}


def without_notes(errors):
    """Return what was written to standard error, but for notes that tests of their own check."""
    known = ("note: the model does not predict AD: ", "note: the masks of the grid ", "note: --sigma-", "note: sigma_")
    return "".join(line for line in errors.splitlines(keepends=True) if not line.startswith(known))


@pytest.fixture
def explain(run_command, scan, bundle, tmp_path):
    """Return a function that explains the scan by the tiny model and returns table, maps, sidecar and output."""

    def run(*more, out="out", stem="sub-07_T1w_desc-grid", target="AD"):
        folder = tmp_path / out
        status, output, errors = run_command(
            "explain", scan, "--model", bundle, "--target", target, "--out", folder, *more
        )
        assert (status, without_notes(errors)) == (0, "")
        table = pd.read_csv(folder / f"{stem}_regions.tsv", sep="\t")
        maps = {s: nib.load(folder / f"{stem}_stat-{s}_statmap.nii.gz") for s in MAPS}
        sidecar = json.loads((folder / f"{stem}_stat-saliency_statmap.json").read_text())
        expected = {f"{stem}_stat-{s}_statmap.{end}" for s in MAPS for end in ("nii.gz", "json")}
        assert {p.name for p in folder.iterdir()} == expected | DATASET | {
            f"{stem}_regions.{e}" for e in ("tsv", "json")
        }
        return table, maps, sidecar, output

    return run


def data(img):
    """Return the values of an image."""
    return np.asarray(img.dataobj)


def test_a_scan_is_explained_at_the_regions_of_aal(run_command, scan, bundle, tmp_path, aal):
    status, output, errors = run_command(
        "explain", scan, "--model", bundle, "--target", "AD", "--out", tmp_path / "new" / "out"
    )
    assert status == 0
    lost = "2 regions of AAL are too small for the voxel grid (24, 32, 24) and get no score: Vermis_1_2, Vermis_10"
    assert without_notes(errors) == f"note: {lost}\n"  # the grid of the model has 8 mm
    stem = "sub-07_T1w_seg-AAL"
    names = {p.name for p in (tmp_path / "new" / "out").iterdir()}
    maps = {f"{stem}_stat-{s}_statmap.{end}" for s in MAPS for end in ("nii.gz", "json")}
    assert names == maps | DATASET | {f"{stem}_regions.tsv", f"{stem}_regions.json"}
    table = pd.read_csv(tmp_path / "new" / "out" / f"{stem}_regions.tsv", sep="\t", na_values="n/a")
    assert table.columns.tolist() == [*COLUMNS, *EVIDENCE]
    assert table["name"].tolist() == aal.table["name"].tolist()
    assert sorted(table["rank"].dropna()) == list(range(1, 115))
    assert table["score"].std() > 0
    img = nib.load(tmp_path / "new" / "out" / f"{stem}_stat-saliency_statmap.nii.gz")
    original = nib.load(scan)
    assert img.shape == original.shape
    np.testing.assert_array_equal(img.affine, original.affine)
    assert img.get_data_dtype() == np.float32
    sidecar = json.loads((tmp_path / "new" / "out" / f"{stem}_stat-saliency_statmap.json").read_text())
    assert sidecar["Settings"]["background"] == "reference of tiny"
    assert (sidecar["Settings"]["sigma_light"], sidecar["Settings"]["unit"]) == (24, "mm")
    assert len(sidecar["Model"]["sha256"]) == len(sidecar["Input"]["sha256"]) == 64
    # the output holds the probability, ten rows in the order of the ranks, and the files
    assert f"P(AD) = {sidecar['Probability']:.3f}" in output
    highest = table.sort_values("rank")["name"].head(10).tolist()
    assert [
        line.split()[1] for line in output.splitlines() if line.split()[1:2] and line.split()[1] in highest
    ] == highest
    assert "Written to" in output
    assert f"{stem}_regions.tsv" in output
    assert output.splitlines()[-1].startswith(
        "What the regions account for is not available: evidence adds up only where"
    )


@pytest.mark.parametrize(("cells", "points"), [(["3"], 27), (["2", "3", "2"], 12), (["1"], 1)], ids=str)
def test_a_scan_is_explained_on_a_grid(explain, cells, points):
    table, maps, sidecar, _ = explain("--grid", *cells)
    assert len(table) == points
    assert sidecar["Search"] == {"grid": int(cells[0]) if len(cells) == 1 else [int(c) for c in cells]}
    assert data(maps["saliency"]).max() > 0
    assert maps["saliency"].shape == bundles.mni_grid(6).shape


def test_sigmas_in_voxels_and_in_mm_agree(explain):
    """2.5 and 3.5 voxels of the model's grid are 20 and 28 mm; a sigma not given is the paper's 20 or 30 mm."""
    settings = {
        "voxel": ["--sigma-light", "2.5", "--sigma-shadow", "3.5"],
        "unit given": ["--sigma-light", "2.5", "--sigma-shadow", "3.5", "--unit", "voxel"],
        "mm": ["--sigma-light", "20", "--sigma-shadow", "28", "--unit", "mm"],
        "light": ["--sigma-light", "20", "--unit", "mm"],
        "shadow": ["--sigma-shadow", "28", "--unit", "mm"],
        "paper": ["--preset", "paper"],
        "model": [],
    }
    results = {name: explain("--grid", "2", *options, out=name) for name, options in settings.items()}
    units = {name: sidecar["Settings"]["unit"] for name, (_, _, sidecar, _) in results.items()}
    assert units == dict.fromkeys(settings, "mm") | {"voxel": "voxel", "unit given": "voxel"}
    light = {name: table["light"].to_numpy() for name, (table, *_) in results.items()}
    shadow = {name: table["shadow"].to_numpy() for name, (table, *_) in results.items()}
    for name in ("unit given", "mm"):
        np.testing.assert_allclose(light[name], light["voxel"], rtol=1e-4)
        np.testing.assert_allclose(shadow[name], shadow["voxel"], rtol=1e-3)
    np.testing.assert_array_equal(light["light"], light["mm"])
    np.testing.assert_array_equal(shadow["light"], shadow["paper"])
    np.testing.assert_array_equal(light["shadow"], light["paper"])
    np.testing.assert_array_equal(shadow["shadow"], shadow["mm"])
    assert not np.allclose(light["mm"], light["model"], rtol=1e-3)
    assert not np.allclose(shadow["mm"], shadow["paper"], rtol=1e-2)


def test_each_kind_of_background_is_recorded_and_changes_the_scores(explain, tmp_path):
    other = bundles.t1(6)
    nib.save(nib.Nifti1Image(data(other) * np.float32(0.5), other.affine, other.header), tmp_path / "half.nii.gz")
    results = {b: explain("--grid", "2", "--background", b, out=f"out-{b}") for b in ("auto", "0", "40.5", "blur")}
    results["image"] = explain("--grid", "2", "--background", tmp_path / "half.nii.gz", out="out-image")
    results["default"] = explain("--grid", "2", out="out-default")
    recorded = {b: sidecar["Settings"]["background"] for b, (_, _, sidecar, _) in results.items()}
    assert recorded["auto"] == recorded["default"] == "reference of tiny"
    assert (recorded["0"], recorded["40.5"]) == ("0", "40.5")
    assert recorded["blur"] == "the scan blurred by 10 mm"
    assert recorded["image"].startswith("half.nii.gz sha256:")
    scores = {b: table["score"].to_numpy() for b, (table, *_) in results.items()}
    np.testing.assert_array_equal(scores.pop("default"), scores["auto"])
    assert len({tuple(s) for s in scores.values()}) == 5


def test_a_target_by_name_and_by_index(explain):
    (by_name, _, named, _), (by_index, _, indexed, _) = (explain("--grid", "2", target=t, out=t) for t in ("AD", "1"))
    other, _, sidecar, _ = explain("--grid", "2", target="0", out="0")
    assert named["Target"] == indexed["Target"] == {"index": 1, "class": "AD"}
    assert sidecar["Target"] == {"index": 0, "class": "NC"}
    np.testing.assert_array_equal(by_name["score"], by_index["score"])
    np.testing.assert_allclose(by_name["light"] + other["light"], 1, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (["--fusion", "mean", "--gamma", "0.01"], {"fusion": "mean", "gamma": 0.01}),
        (["--preset", "evidence", "--density"], {"fusion": "mean", "link": "logit", "density": True}),
        (["--kernel", "exponential", "--sigma-spatial", "5"], {"kernel": "exponential", "sigma_spatial": 5}),
        (["--batch-size", "2"], {"batch_size": 2}),
        (["--engine", "channels_last"], {"engine": "channels_last"}),
        (["--distance", "squared", "--sigma-spatial", "3"], {"distance": "squared", "sigma_spatial": 3}),
    ],
    ids=lambda v: "",
)
def test_settings_given_as_options_are_recorded(explain, arguments, settings):
    sidecar = explain("--grid", "2", *arguments)[2]["Settings"]
    assert {key: sidecar[key] for key in settings} == settings


@pytest.mark.parametrize("supported", [True, False])
def test_keep_memory_lasts_for_one_command(run_command, bundle, scan, tmp_path, monkeypatch, supported):
    blocks = []

    @contextmanager
    def keep_memory():
        blocks.append("begin")
        yield supported
        blocks.append("end")

    monkeypatch.setattr("glas3d.predict.engine.memory.keep_memory", keep_memory)
    command = ["explain", scan, "--model", bundle, "--target", "AD", "--grid", "2", "--out", tmp_path / "out"]
    assert run_command(*command)[0] == 0
    assert blocks == []
    status, _, errors = run_command(*command, "--keep-memory")
    assert (status, blocks) == (0, ["begin", "end"])
    assert without_notes(errors) == (
        "" if supported else "note: --keep-memory does nothing here: it needs Linux with glibc\n"
    )


def test_an_atlas_of_files_is_searched_at_centroids_or_medoids(explain, few_path):
    results = {
        point: explain("--atlas", few_path, "--point", point, out=point, stem="sub-07_T1w_seg-few")
        for point in ("centroid", "medoid")
    }
    for point, (table, maps, sidecar, _) in results.items():
        assert len(table) == 8
        assert sidecar["Settings"]["point"] == point
        assert set(np.unique(data(maps["light"]))) <= {0, *table["light"].astype(np.float32)}
    assert not np.allclose(results["centroid"][0]["x"], results["medoid"][0]["x"])


def test_a_scan_in_another_space_needs_the_option_assume_space(run_command, bundle, tmp_path):
    img = bundles.t1(6)
    affine = img.affine.copy()
    affine[2, 3] += 60
    nib.save(nib.Nifti1Image(data(img), affine), tmp_path / "moved.nii")
    command = ["explain", tmp_path / "moved.nii", "--model", bundle, "--target", "AD", "--grid", "2"]
    status, output, errors = run_command(*command, "--out", tmp_path / "out")
    assert (status, output) == (2, "")
    assert "moved.nii does not look like a brain in MNI space: its " in errors
    assert errors.endswith(
        "If the scan is in native space, give --register affine or --transform FILE. "
        "Give --assume-space MNI only if you know that the scan is in MNI space.\n"
    )
    assert not (tmp_path / "out").exists()
    status, _, errors = run_command(*command, "--out", tmp_path / "out", "--assume-space", "MNI")
    assert (status, without_notes(errors)) == (0, "")
    assert len(list((tmp_path / "out").iterdir())) == 13  # the report is one of them


def test_results_of_an_earlier_run_are_replaced(explain, tmp_path):
    before = explain("--grid", "2")[0]
    (tmp_path / "out" / "sub-07_T1w_desc-grid_regions.tsv").write_text("old")
    pd.testing.assert_frame_equal(explain("--grid", "2")[0], before)


def test_results_of_another_question_need_the_option_overwrite(
    explain, run_command, error_line, scan, bundle, tmp_path, monkeypatch
):
    """They are refused before the model is evaluated, in a dry run too."""
    before = explain("--grid", "2")[0]
    given = ("explain", scan, "--model", bundle, "--target", "NC", "--grid", "2", "--out", tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr("glas3d.core.glas.GLAS.explain", lambda *arguments, **settings: pytest.fail("evaluated"))
        for more in ([], ["--dry-run"]):
            error = error_line(*given, *more)
            assert "made with another target" in error
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "sub-07_T1w_desc-grid_regions.tsv", sep="\t"), before)
    assert run_command(*given, "--overwrite")[0] == 0


def test_the_table_fits_80_columns(explain, few_path):
    output = explain("--atlas", few_path, stem="sub-07_T1w_seg-few")[3]
    title, _, *table, written, last = output.splitlines()
    assert written.startswith("Written to ")
    assert re.fullmatch("(The|What the) regions account for .*[.] Look at .*/report[.]html", last)
    assert "…" not in output
    assert max(map(len, (title, *table))) <= 80


def test_the_result_is_written_as_json(run_command, scan, bundle, tmp_path):
    status, out, err = run_command(
        "explain", scan, "--model", bundle, "--target", "AD", "--grid", 2, "--out", tmp_path / "out", "--json"
    )
    assert (status, without_notes(err)) == (0, "")
    content = json.loads(out)
    assert content["target"] == {"index": 1, "class": "AD"}
    assert 0 <= content["probability"] <= 1
    assert len(content["regions"]) == 8
    assert {"name", "score", "drop", "rank"} <= set(content["regions"][0])
    assert all((tmp_path / "out" / name.rsplit("/", 1)[1]).is_file() for name in content["files"])


@pytest.mark.parametrize("name", ["AAL", "aal", "Aal"])
def test_the_name_of_an_atlas_is_taken_in_any_case(run_command, scan, bundle, tmp_path, name):
    status, _, err = run_command(
        *("explain", scan, "--model", bundle, "--target", "AD", "--atlas", name, "--out", tmp_path / "out", "--dry-run")
    )
    assert status == 0
    assert "error" not in err


def test_the_device_is_chosen_by_an_option(run_command, scan, bundle, tmp_path):
    command = ("explain", scan, "--model", bundle, "--target", "AD", "--grid", 2, "--out", tmp_path / "out")
    assert run_command(*command, "--device", "cpu")[0] == 0
    assert "abacus" in run_command(*command, "--device", "abacus")[2]


def test_a_flat_map_has_no_table_of_highest_scoring_regions(run_command, scan, tmp_path):
    """A model that always answers the same says nothing about anatomy, and the command says so."""
    status, output, errors = run_command(
        *("explain", scan, "--model", "tests.bundles:constant", "--target", "1", "--grid", 2, "--out", tmp_path / "out")
    )
    assert status == 0
    assert "the map is flat" in errors
    assert "no search point stands out, because all have the same score" in output
    assert "highest-scoring" not in output


def test_notes_are_written_once(run_command, scan, bundle, tmp_path):
    command = ("explain", scan, "--model", bundle, "--target", "AD", "--grid", 2, "--out", tmp_path / "out")
    for spelling in ((), ("--json", "--overwrite")):
        status, _, errors = run_command(*command, "--sigma-light", 3, *spelling)
        assert status == 0
        first, second = errors.splitlines()
        assert first.startswith(
            "note: --sigma-light is in voxels: no unit was given, and a voxel of the model's grid has"
        )
        assert first.endswith(" 8 x 8 x 8 mm")
        assert second.startswith("note: the model does not predict AD: P(AD) = 0.")
        sidecar = json.loads(next((tmp_path / "out").glob("*_regions.json")).read_text())
        assert [note.partition(" ")[2] for note in sidecar["Notes"]] == [
            first.partition("--sigma-light ")[2],
            second.partition("note: the ")[2],
        ]


def test_the_folder_is_a_bids_derivative(explain, scan, tmp_path):
    """Its description names the sources of all scans, and is written again; the official validator accepts it."""
    explain("--grid", 2)
    path = tmp_path / "out" / "dataset_description.json"
    description = json.loads(path.read_text())
    assert (description["DatasetType"], description["GeneratedBy"][0]["Name"]) == ("derivative", "glas3d")
    (source,) = description["SourceDatasets"]
    assert (path.parent / source["URL"]).resolve() == scan.parent
    assert validate(path.parent)[0] == []
    other = tmp_path / "other data"
    (other / "sub-08").mkdir(parents=True)
    (other / "dataset_description.json").write_text(
        '{"Name": "x", "BIDSVersion": "1.10.0", "DatasetDOI": "doi:10.1/x"}'
    )
    describe_dataset(path.parent, [other / "sub-08" / "scan.nii", other / "scan.nii"])
    sources = json.loads(path.read_text())["SourceDatasets"]
    assert sources == [source, {"URL": "../other data", "DOI": "doi:10.1/x"}]


def test_the_description_of_another_data_set_stays(explain, scan, tmp_path):
    """That of another tool is not replaced, and a folder inside a data set gets none."""
    folder = tmp_path / "derivatives" / "out"
    folder.mkdir(parents=True)
    (tmp_path / "dataset_description.json").write_text("{}")
    written = {path.name for path in describe_dataset(folder, [scan])}
    assert written == DATASET - {"report.html"}  # derivatives are data sets of their own
    inner = folder / "sub-07"
    inner.mkdir()
    assert describe_dataset(inner, [scan]) == []
    for content in ('{"Name": "fMRIPrep"}', "no JSON", "[]"):
        (folder / "dataset_description.json").write_text(content)
        assert describe_dataset(folder, [scan]) == []
        assert (folder / "dataset_description.json").read_text() == content
