import json
import subprocess
import sys
from contextlib import contextmanager

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import glas3d.explain
from glas3d import GlasError, __version__, cli
from glas3d.explain import COLUMNS
from glas3d.simulate import PLANTED
from tests import bundles

MAPS = ("saliency", "light", "shadow")


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("scans") / "sub-07_T1w.nii.gz"
    nib.save(bundles.t1(6), path)
    return path


@pytest.fixture(scope="module")
def look(few, tmp_path_factory):
    """Eight regions as files: the label image with its table beside it."""
    path = tmp_path_factory.mktemp("atlas") / "atlas-few_dseg.nii.gz"
    nib.save(nib.Nifti1Image(few.on(bundles.mni_grid(4)), bundles.mni_grid(4).affine), path)
    few.table.to_csv(path.with_name("atlas-few_dseg.tsv"), sep="\t", index=False)
    return path


@pytest.fixture
def explain(go, scan, bundle, tmp_path):
    """``explain`` of the scan by the tiny model, read back: table, maps by statistic, sidecar."""

    def command(*more, out="out", stem="sub-07_desc-grid", target="AD"):
        place = tmp_path / out
        status, said, notes = go("explain", scan, "--model", bundle, "--target", target, "--out", place, *more)
        assert (status, notes) == (0, "")
        table = pd.read_csv(place / f"{stem}_regions.tsv", sep="\t")
        maps = {s: nib.load(place / f"{stem}_stat-{s}_statmap.nii.gz") for s in MAPS}
        sidecar = json.loads((place / f"{stem}_stat-saliency_statmap.json").read_text())
        expected = {f"{stem}_stat-{s}_statmap.{end}" for s in MAPS for end in ("nii.gz", "json")}
        assert {p.name for p in place.iterdir()} == expected | {f"{stem}_regions.tsv"}
        return table, maps, sidecar, said

    return command


def data(img):
    return np.asarray(img.dataobj)


def test_a_scan_is_explained_at_the_regions_of_aal(go, scan, bundle, tmp_path, aal):
    status, said, notes = go("explain", scan, "--model", bundle, "--target", "AD", "--out", tmp_path / "new" / "out")
    assert status == 0
    # two regions are lost on the model's 8 mm grid, and said so
    assert notes == "note: 2 regions of AAL own no voxel of the grid (24, 32, 24): Vermis_1_2, Vermis_10\n"
    stem = "sub-07_seg-AAL"
    names = {p.name for p in (tmp_path / "new" / "out").iterdir()}
    maps = {f"{stem}_stat-{s}_statmap.{end}" for s in MAPS for end in ("nii.gz", "json")}
    assert names == maps | {f"{stem}_regions.tsv"}
    table = pd.read_csv(tmp_path / "new" / "out" / f"{stem}_regions.tsv", sep="\t", na_values="n/a")
    assert table.columns.tolist() == COLUMNS
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
    # what is printed: the probability, ten rows in the order of the ranks, the files
    assert f"P(AD) = {sidecar['Probability']:.3f}" in said
    best = table.sort_values("rank")["name"].head(10).tolist()
    assert [line.split()[1] for line in said.splitlines() if line.split()[1:2] and line.split()[1] in best] == best
    assert "Written to" in said
    assert f"{stem}_regions.tsv" in said


@pytest.mark.parametrize(("cells", "points"), [(["3"], 27), (["2", "3", "2"], 12), (["1"], 1)], ids=str)
def test_a_scan_is_explained_on_a_grid(explain, cells, points):
    table, maps, sidecar, _ = explain("--grid", *cells)
    assert len(table) == points
    assert sidecar["Search"] == {"grid": int(cells[0]) if len(cells) == 1 else [int(c) for c in cells]}
    assert data(maps["saliency"]).max() > 0
    assert maps["saliency"].shape == bundles.mni_grid(6).shape


def test_a_voxel_s_sigma_is_its_size_in_mm(explain):
    """2.5 and 3.5 voxels of the model's grid are 20 and 28 mm; what is not said is the preset's 24 and 36 mm."""
    settings = {
        "voxel": ["--sigma-light", "2.5", "--sigma-shadow", "3.5"],
        "said": ["--sigma-light", "2.5", "--sigma-shadow", "3.5", "--unit", "voxel"],
        "mm": ["--sigma-light", "20", "--sigma-shadow", "28", "--unit", "mm"],
        "light": ["--sigma-light", "20", "--unit", "mm"],
        "shadow": ["--sigma-shadow", "28", "--unit", "mm"],
        "preset": [],
    }
    found = {name: explain("--grid", "2", *given, out=name) for name, given in settings.items()}
    units = {name: sidecar["Settings"]["unit"] for name, (_, _, sidecar, _) in found.items()}
    assert units == dict.fromkeys(settings, "mm") | {"voxel": "voxel", "said": "voxel"}
    light = {name: table["light"].to_numpy() for name, (table, *_) in found.items()}
    shadow = {name: table["shadow"].to_numpy() for name, (table, *_) in found.items()}
    for name in ("said", "mm"):
        np.testing.assert_allclose(light[name], light["voxel"], rtol=1e-4)
        np.testing.assert_allclose(shadow[name], shadow["voxel"], rtol=1e-3)
    np.testing.assert_array_equal(light["light"], light["mm"])
    np.testing.assert_array_equal(shadow["light"], shadow["preset"])
    np.testing.assert_array_equal(light["shadow"], light["preset"])
    np.testing.assert_array_equal(shadow["shadow"], shadow["mm"])
    assert not np.allclose(light["mm"], light["preset"], rtol=1e-3)
    assert not np.allclose(shadow["mm"], shadow["preset"], rtol=1e-2)


def test_backgrounds(explain, tmp_path):
    other = bundles.t1(6)
    nib.save(nib.Nifti1Image(data(other) * np.float32(0.5), other.affine, other.header), tmp_path / "half.nii.gz")
    given = ["auto", "0", "40.5", "blur"]
    found = {b: explain("--grid", "2", "--background", b, out=f"out-{b}") for b in given}
    found["image"] = explain("--grid", "2", "--background", tmp_path / "half.nii.gz", out="out-image")
    found["default"] = explain("--grid", "2", out="out-default")
    named = {b: sidecar["Settings"]["background"] for b, (_, _, sidecar, _) in found.items()}
    assert named["auto"] == named["default"] == "reference of tiny"
    assert (named["0"], named["40.5"]) == ("0", "40.5")
    assert named["blur"] == "the scan blurred by 10 mm"
    assert named["image"].startswith("half.nii.gz sha256:")
    scores = {b: table["score"].to_numpy() for b, (table, *_) in found.items()}
    np.testing.assert_array_equal(scores.pop("default"), scores["auto"])
    assert len({tuple(s) for s in scores.values()}) == 5


def test_a_target_by_name_and_by_index(explain):
    (named, _, said, _), (counted, _, again, _) = (explain("--grid", "2", target=t, out=t) for t in ("AD", "1"))
    other, _, sidecar, _ = explain("--grid", "2", target="0", out="0")
    assert said["Target"] == again["Target"] == {"index": 1, "class": "AD"}
    assert sidecar["Target"] == {"index": 0, "class": "NC"}
    np.testing.assert_array_equal(named["score"], counted["score"])
    np.testing.assert_allclose(named["light"] + other["light"], 1, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (["--fusion", "light", "--gamma", "0.01"], {"fusion": "light", "gamma": 0.01}),
        (["--kernel", "exponential", "--sigma-spatial", "5"], {"kernel": "exponential", "sigma_spatial": 5}),
        (["--batch-size", "2"], {"batch_size": 2}),
        (["--engine", "channels_last"], {"engine": "channels_last"}),
        (["--distance", "squared", "--sigma-spatial", "3"], {"distance": "squared", "sigma_spatial": 3}),
    ],
    ids=lambda v: "",
)
def test_every_setting_arrives(explain, arguments, settings):
    sidecar = explain("--grid", "2", *arguments)[2]["Settings"]
    assert {key: sidecar[key] for key in settings} == settings


@pytest.mark.parametrize("works", [True, False])
def test_memory_is_kept_for_as_long_as_it_is_asked(go, bundle, scan, tmp_path, monkeypatch, works):
    blocks = []

    @contextmanager
    def kept():
        blocks.append("kept")
        yield works
        blocks.append("given back")

    monkeypatch.setattr("glas3d.predict.engine.memory.keep_memory", kept)
    given = ["explain", scan, "--model", bundle, "--target", "AD", "--grid", "2", "--out", tmp_path / "out"]
    assert go(*given)[0] == 0
    assert blocks == []
    status, _, notes = go(*given, "--keep-memory")
    assert (status, blocks) == (0, ["kept", "given back"])
    assert notes == ("" if works else "note: --keep-memory does nothing here: it needs Linux with glibc\n")


def test_an_atlas_of_files_and_where_its_regions_are_looked_at(explain, look):
    found = {
        point: explain("--atlas", look, "--point", point, out=point, stem="sub-07_seg-few")
        for point in ("centroid", "medoid")
    }
    for point, (table, maps, sidecar, _) in found.items():
        assert len(table) == 8
        assert sidecar["Settings"]["point"] == point
        assert set(np.unique(data(maps["light"]))) <= {0, *table["light"].astype(np.float32)}
    assert not np.allclose(found["centroid"][0]["x"], found["medoid"][0]["x"])


def test_a_scan_in_another_space_is_accepted_when_it_is_said_to_be(go, bundle, tmp_path):
    img = bundles.t1(6)
    affine = img.affine.copy()
    affine[2, 3] += 60
    nib.save(nib.Nifti1Image(data(img), affine), tmp_path / "moved.nii")
    given = ["explain", tmp_path / "moved.nii", "--model", bundle, "--target", "AD", "--grid", "2"]
    status, said, complaint = go(*given, "--out", tmp_path / "out")
    assert (status, said) == (2, "")
    assert "moved.nii does not look like a brain in MNI space: its " in complaint
    assert complaint.endswith("; if it is, give --assume-space MNI\n")
    assert not (tmp_path / "out").exists()
    status, _, notes = go(*given, "--out", tmp_path / "out", "--assume-space", "MNI")
    assert (status, notes) == (0, "")
    assert len(list((tmp_path / "out").iterdir())) == 7


def test_results_are_replaced_and_other_files_stay(explain, tmp_path):
    before = explain("--grid", "2")[0]
    (tmp_path / "out" / "sub-07_desc-grid_regions.tsv").write_text("old")
    pd.testing.assert_frame_equal(explain("--grid", "2")[0], before)


def test_participants_are_simulated(go, tmp_path):
    settings = ["--participants", 2, "--seed", 4, "--resolution", 8, "--severity", 0.2, 0.4, "--noise", 0.01]
    status, said, notes = go("simulate", tmp_path / "cohort", *settings)
    assert (status, notes) == (0, "")
    assert said.startswith(f"Written to {tmp_path / 'cohort'}: 2 participants, their truth in")
    people = pd.read_csv(tmp_path / "cohort" / "participants.tsv", sep="\t")
    assert people["group"].tolist() == ["AD", "NC"]
    made = json.loads((tmp_path / "cohort" / "dataset_description.json").read_text())["GeneratedBy"][0]["Description"]
    expected = {"participants": 2, "seed": 4, "resolution": 8.0, "severity": [0.2, 0.4], "noise": 0.01}
    assert expected.items() <= json.loads(made).items()


def test_atlases_are_shown(go, aal):
    assert go("atlas", "list") == (0, "AAL: 116 regions, MNI space\n", "")
    status, said, notes = go("atlas", "show", "AAL")
    assert (status, notes) == (0, "")
    rows = [line.split("\t") for line in said.splitlines()]
    assert rows[0] == ["index", "name", "hemisphere", "x", "y", "z", "n_voxels"]
    assert [r[1] for r in rows[1:]] == aal.table["name"].tolist()
    where = {r[1]: float(r[3]) for r in rows[1:]}
    assert where["Hippocampus_L"] < -20 < 20 < where["Hippocampus_R"]


def test_an_atlas_of_files_is_shown(go, look):
    status, said, _ = go("atlas", "show", look)
    assert status == 0
    assert len(said.splitlines()) == 9


@pytest.mark.parametrize(
    "command", [[], ["explain"], ["simulate"], ["demo"], ["atlas"], ["atlas", "show"]], ids=" ".join
)
def test_help(go, command):
    status, said, notes = go(*command, "--help")
    assert (status, notes) == (0, "")
    assert said.startswith("Usage: glas3d")
    assert max(len(line) for line in said.splitlines()) <= 80


def test_version(go):
    assert go("--version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize(
    ("problem", "status", "message"),
    [
        (GlasError("one\nthing"), 2, "error: one thing"),
        (KeyboardInterrupt(), 130, "error: interrupted"),
        (RuntimeError("deep\ninside"), 1, "error: unexpected RuntimeError: deep (set GLAS3D_TRACEBACK=1 to see where)"),
        (AssertionError(), 1, "error: unexpected AssertionError: (set GLAS3D_TRACEBACK=1 to see where)"),
    ],
    ids=repr,
)
def test_what_goes_wrong_ends_in_one_line(go, scan, bundle, tmp_path, monkeypatch, problem, status, message):
    def failing(*args, **kwargs):
        raise problem

    monkeypatch.setattr(glas3d.explain, "explain_img", failing)
    given = ["explain", scan, "--model", bundle, "--target", "AD", "--out", tmp_path / "out"]
    assert go(*given) == (status, "", f"{message}\n")
    assert not (tmp_path / "out").exists()
    if isinstance(problem, RuntimeError):
        monkeypatch.setenv("GLAS3D_TRACEBACK", "1")
        with pytest.raises(RuntimeError):
            cli.run([str(a) for a in given])


def test_the_table_fits_80_columns(explain, look):
    said = explain("--atlas", look, stem="sub-07_seg-few")[3]
    table = [line for line in said.splitlines() if "Written" not in line]
    assert "…" not in said
    assert max(map(len, table)) <= 80


# In a process of its own.


def shell(code, *arguments, **settings):
    return subprocess.run([sys.executable, *settings.pop("flags", ()), "-c", code, *map(str, arguments)], **settings)


MAIN = "from glas3d.cli import main; main()"


def test_help_imports_nothing_heavy():
    done = shell(MAIN, "--help", flags=["-X", "importtime"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "explain" in done.stdout
    imported = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert {"glas3d", "cyclopts"} <= imported
    heavy = {"torch", "numpy", "scipy", "pandas", "nibabel", "nilearn", "monai", "matplotlib", "safetensors", "sklearn"}
    assert imported & heavy == set()


def test_the_package_is_imported_lazily():
    code = "import glas3d, sys; dir(glas3d); print(sorted({'torch', 'numpy', 'nibabel', 'pandas'} & set(sys.modules)))"
    assert shell(code, capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize(("arguments", "status"), [(["explain"], 2), (["--version"], 0)], ids=["bad", "good"])
def test_a_process_ends_with_the_status(arguments, status):
    done = shell(MAIN, *arguments, capture_output=True, text=True)
    assert done.returncode == status
    assert done.stderr.startswith("error: ") is (status == 2)
    assert done.stderr.count("\n") == (status == 2)
    assert (done.stdout == "") is (status == 2)


@pytest.mark.slow
def test_a_reader_that_stops_reading_is_no_error():
    code = f"{sys.executable} -c '{MAIN}' atlas show AAL | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[0].startswith("index\tname")
    assert (done.stdout.splitlines()[1], done.stderr) == ("0", "")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::glas3d.errors.GlasWarning")
def test_the_demo_s_command(go, bundle, tmp_path, monkeypatch):
    import glas3d.cli.demo

    monkeypatch.setattr(glas3d.cli.demo, "MODEL", str(bundle))
    status, said, _ = go("demo", "--out", tmp_path / "demo", "--participants", 3, "--seed", 5)
    assert status == 0
    assert "of 2 AD participants AD and" in said
    assert f"of the {len(PLANTED)} planted regions are among the first 8." in said
    shown = [line for line in said.splitlines() if line.rstrip().endswith("yes")]
    assert all(any(name in line for name in PLANTED) for line in shown)
    assert (tmp_path / "demo" / "group" / "group-AD_seg-AAL_regions.tsv").is_file()
    assert (tmp_path / "demo" / "group" / "group-AD_seg-AAL_regions.png").is_file()
