import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from glas3d import GlasError
from glas3d.imaging.space import MNI, mni_grid, template_on
from glas3d.simulate import (
    PLANTED,
    Simulation,
    planted_labels,
    scan_img,
    scan_path,
    simulate_participant,
    write_dataset,
)
from glas3d.study import read_cohort
from tests.validator import validate

SIMULATION = Simulation(participants=5, seed=3, resolution=8)
TWINS = Simulation(participants=3, seed=3, resolution=8, regions=("Thalamus_R", "Precuneus_L"), twins=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("made") / "deep" / "cohort", SIMULATION)


def table(folder, name):
    return pd.read_csv(folder / name, sep="\t")


def listing(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_it_is_a_valid_bids_derivative(folder):
    errors, summary = validate(folder)
    assert errors == []
    assert len(summary["subjects"]) == 5
    assert summary["modalities"] == ["MRI"]
    description = json.loads((folder / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "glas3d"


def test_an_invalid_name_is_found_by_the_validator(folder, tmp_path):
    """The test above can fail."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    path = copy / scan_path(SIMULATION, "0001")
    path.rename(path.with_name("sub-0001_space-nowhere_T1.nii.gz"))
    assert validate(copy)[0]


def test_participants_are_listed(folder):
    people = table(folder, "participants.tsv")
    assert people.columns.tolist() == ["participant_id", "group", "age", "sex", "site"]
    assert people["participant_id"].tolist() == [f"sub-{i:04d}" for i in range(1, 6)]
    assert people["group"].tolist() == ["AD", "NC", "AD", "NC", "AD"]
    for i, row in people.iterrows():
        participant = simulate_participant(SIMULATION, i)
        assert (row["age"], row["sex"], row["site"]) == (participant.age, participant.sex, participant.site)
    described = json.loads((folder / "participants.json").read_text())
    assert set(described) == set(people.columns)
    assert set(described["group"]["Levels"]) == {"AD", "NC"}


def test_the_data_set_holds_these_files_and_no_others(folder):
    scans = [str(scan_path(SIMULATION, f"{i:04d}")) for i in range(1, 6)]
    assert scans[0] == f"sub-0001/anat/sub-0001_space-{MNI}_res-8mm_desc-preproc_T1w.nii.gz"
    sidecars = [s.replace(".nii.gz", ".json") for s in scans]
    top = [".bidsignore", "README.md", "dataset_description.json", "participants.json", "participants.tsv"]
    tables = [
        f"{name}.{end}" for name in ("desc-planted_regions", "desc-severity_participants") for end in ("json", "tsv")
    ]
    names = [*tables, f"space-{MNI}_desc-planted_dseg.nii.gz"]
    files = [p for p in listing(folder) if (folder / p).is_file()]
    assert files == sorted([*scans, *sidecars, *top, *(f"truth/{name}" for name in names)])
    assert json.loads((folder / sidecars[0]).read_text())["SkullStripped"] is True


def test_a_resolution_with_a_fraction_makes_a_valid_name():
    path = scan_path(Simulation(resolution=2.5), "0001")
    assert path.name == f"sub-0001_space-{MNI}_res-2p5mm_desc-preproc_T1w.nii.gz"


@pytest.mark.parametrize("number", [0, 3])
def test_volumes_are_whole_scanner_units_in_mni_space(folder, number):
    participant = simulate_participant(SIMULATION, number)
    img = nib.load(folder / scan_path(SIMULATION, participant.participant_id))
    np.testing.assert_array_equal(np.asarray(img.dataobj), np.rint(participant.volume))
    check_header(img, mni_grid(8))


def check_header(img, grid):
    assert img.shape == grid.shape
    assert img.get_data_dtype() == np.int16
    np.testing.assert_array_equal(img.affine, grid.affine)
    for matrix, code in (img.get_sform(coded=True), img.get_qform(coded=True)):
        assert code == 4
        np.testing.assert_allclose(matrix, grid.affine, atol=1e-4)
    assert img.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(img.header.get_zooms(), grid.spacing)


def test_the_truth_is_written(folder, aal):
    img = nib.load(folder / "truth" / f"space-{MNI}_desc-planted_dseg.nii.gz")
    np.testing.assert_array_equal(np.asarray(img.dataobj), planted_labels(8))
    check_header(img, mni_grid(8))
    regions = table(folder, "truth/desc-planted_regions.tsv")
    assert regions["name"].tolist() == aal.table["name"].tolist()
    assert set(regions.loc[regions["planted"] == 1, "name"]) == set(PLANTED)
    assert set(regions["planted"]) == {0, 1}
    severity = table(folder, "truth/desc-severity_participants.tsv").set_index("participant_id")
    assert severity.columns.tolist() == list(PLANTED)
    for i, name in enumerate(severity.index):
        np.testing.assert_allclose(severity.loc[name], simulate_participant(SIMULATION, i).severity)
    assert (severity.loc["sub-0002"] == 0).all()
    assert (severity.loc["sub-0001"] > 0.1).all()


@pytest.fixture(scope="module")
def twins_folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("made") / "twins", TWINS)


def test_twins_are_a_valid_bids_derivative(twins_folder):
    assert validate(twins_folder)[0] == []
    descriptions = table(twins_folder, "descriptions.tsv")["desc_id"].tolist()
    written = {path.name.split("_")[-2] for path in twins_folder.glob("sub-*/anat/*.nii.gz")}
    assert written == set(descriptions)
    assert len(written) == len(descriptions) == 6


def test_twins_are_written_beside_the_participants_own_scans(twins_folder, tmp_path):
    """Only participants with AD have twins, and the data set is otherwise that without twins."""
    path = twins_folder / scan_path(TWINS, "0001", "withoutPrecuneusL")
    expected = simulate_participant(TWINS, 0, ("Thalamus_R",)).volume
    np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), np.rint(expected))
    assert len(list(twins_folder.glob("sub-0001/anat/*.nii.gz"))) == 6
    assert len(list(twins_folder.glob("sub-0002/anat/*.nii.gz"))) == 1
    other = write_dataset(tmp_path / "plain", replace(TWINS, twins=False))
    changed = {"README.md", "dataset_description.json"}
    for file in (path for path in other.rglob("*") if path.is_file() and path.name not in changed):
        assert file.read_bytes() == (twins_folder / file.relative_to(other)).read_bytes()


def test_a_cohort_reads_participants_and_twins_by_desc(twins_folder):
    own = read_cohort(twins_folder, desc="preproc")
    assert own.groups == {"AD": 2, "NC": 1}
    twin = read_cohort(twins_folder, desc="onlyThalamusR", participant_label=["0001", "0003"])
    assert [path.name for path in twin.everyone["path"]] == [
        scan_path(TWINS, n, "onlyThalamusR").name for n in ("0001", "0003")
    ]


def test_the_truth_of_other_regions_is_written(twins_folder, aal):
    regions = table(twins_folder, "truth/desc-planted_regions.tsv")
    assert regions.loc[regions["planted"] == 1, "name"].tolist() == ["Precuneus_L", "Thalamus_R"]
    labels = np.asarray(nib.load(twins_folder / "truth" / f"space-{MNI}_desc-planted_dseg.nii.gz").dataobj)
    assert set(np.unique(labels)) == {0, *aal.table.set_index("name")["index"][["Precuneus_L", "Thalamus_R"]]}
    severity = table(twins_folder, "truth/desc-severity_participants.tsv")
    assert severity.columns.tolist() == ["participant_id", "Thalamus_R", "Precuneus_L"]
    assert "thinned in regions of AAL if the group is AD\n(Thalamus_R, Precuneus_L)" in (
        twins_folder / "README.md"
    ).read_text(encoding="utf-8")


RICH = Simulation(
    participants=3,
    seed=3,
    resolution=8,
    regions=("Thalamus_R",),
    atrophy="both",
    suppressor="Insula_L",
    lesions=(2.0, 30.0),
    artefacts=("gibbs",),
    artefact_share=(0.0, 1.0),
    twins=True,
)


def test_the_truth_of_lesions_a_suppressor_and_artefacts_is_written(tmp_path):
    folder = write_dataset(tmp_path / "rich", RICH)
    assert validate(folder)[0] == []
    people = [simulate_participant(RICH, i) for i in range(3)]
    truth = table(folder, "truth/desc-severity_participants.tsv")
    assert truth.columns.tolist() == ["participant_id", "Thalamus_R", "Insula_L", "lesions", "artefacts"]
    np.testing.assert_allclose(truth["Insula_L"], [p.suppressor for p in people])
    assert truth["artefacts"].tolist() == [1, 0, 1]
    for p, volume in zip(people, truth["lesions"], strict=True):
        path = folder / "truth" / f"sub-{p.participant_id}_space-{MNI}_label-WMH_probseg.nii.gz"
        assert path.is_file() == (volume > 0) == (p.lesions is not None)
        if volume:
            share = np.asarray(nib.load(path).dataobj)
            np.testing.assert_allclose(share, p.lesions, atol=1e-6)
            assert share.sum() * 8**3 == pytest.approx(volume, rel=1e-5)
    assert truth["lesions"][0] > 0
    regions = table(folder, "truth/desc-planted_regions.tsv").set_index("name")
    assert regions.index[regions["suppressor"] == 1].tolist() == ["Insula_L"]
    assert regions.index[regions["planted"] == 1].tolist() == ["Thalamus_R"]
    assert len(list(folder.glob("sub-0002/anat/*_desc-*InsulaL_T1w.nii.gz"))) == 2  # a control may have twins, too
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert "thinned and shrunken in regions of AAL if the group is AD\n(Thalamus_R)" in readme
    for said in ("Insula_L", "label-WMH_probseg", "artefacts (gibbs)"):
        assert said in readme


def test_scans_of_another_template_name_its_space(tmp_path):
    path = tmp_path / "mybrain.nii.gz"
    scan_img(SIMULATION, 1000 * template_on(8)).to_filename(path)
    simulation = replace(SIMULATION, participants=1, template=path)
    folder = write_dataset(tmp_path / "own", simulation)
    assert validate(folder)[0] == []
    scan = folder / scan_path(simulation, "0001")
    assert scan.name == "sub-0001_space-MNI_res-8mm_desc-preproc_T1w.nii.gz"
    sidecar = json.loads(scan.with_name(scan.name.replace(".nii.gz", ".json")).read_text())
    assert sidecar["Description"] == "Simulated from mybrain.nii.gz, a template"
    assert scan_path(replace(SIMULATION, template="Colin27"), "0001").name.startswith("sub-0001_space-MNIColin27_res")


def test_settings_of_disease_are_recorded_where_they_are_not_the_default():
    assert "regions" not in Simulation().record()
    assert set(TWINS.record()) - set(Simulation().record()) == {"regions", "twins"}


def test_regions_whose_files_would_have_one_name_are_refused(tmp_path, monkeypatch):
    simulation = replace(TWINS)
    object.__setattr__(simulation, "regions", ("Insula_L", "InsulaL"))
    with pytest.raises(GlasError, match="by which the regions differ, got Insula_L, InsulaL"):
        write_dataset(tmp_path / "twins", simulation)
    assert listing(tmp_path) == []


def test_equal_settings_write_equal_bytes(folder, tmp_path):
    other = write_dataset(tmp_path / "cohort", SIMULATION)
    assert listing(other) == listing(folder)
    for path in folder.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (other / path.relative_to(folder)).read_bytes(), path.name


def test_progress_and_permissions(tmp_path):
    ticks = []
    made = write_dataset(tmp_path / "new", Simulation(participants=2, resolution=8), lambda *t: ticks.append(t))
    assert made == tmp_path / "new"
    assert ticks == [(1, 2), (2, 2)]
    assert made.stat().st_mode & 0o777 == 0o755
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    write_dataset(tmp_path / "empty", Simulation(participants=1, resolution=8))
    assert (tmp_path / "empty" / "participants.tsv").is_file()


@pytest.mark.parametrize(
    ("kind", "message"), [("visible", "has content"), ("hidden", "has content"), ("file", "is a file")]
)
def test_existing_content_is_not_touched(tmp_path, kind, message):
    folder = tmp_path / "mine"
    kept = folder if kind == "file" else folder / ("thesis.txt" if kind == "visible" else ".git")
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("years of work")
    with pytest.raises(GlasError, match=f"must be new or empty, {folder} {message}"):
        write_dataset(folder, SIMULATION)
    assert kept.read_text() == "years of work"
    assert listing(tmp_path) == sorted({str(p.relative_to(tmp_path)) for p in (folder, kept)})


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("existed", [False, True])
def test_interrupted_writing_leaves_nothing(tmp_path, monkeypatch, error, existed):
    def failing(simulation, number, keep=None):
        if number == 2:
            raise error
        return simulate_participant(simulation, number)

    monkeypatch.setattr("glas3d.simulate.participants.simulate_participant", failing)
    if existed:
        (tmp_path / "cohort").mkdir()
    expected = (GlasError, r"cohort: No space left on device") if isinstance(error, OSError) else (type(error), None)
    with pytest.raises(expected[0], match=expected[1]):
        write_dataset(tmp_path / "cohort", SIMULATION)
    assert listing(tmp_path) == (["cohort"] if existed else [])


def test_a_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GlasError, match=f"cannot write {tmp_path}/file/cohort: "):
        write_dataset(tmp_path / "file" / "cohort", SIMULATION)


def test_a_folder_that_cannot_be_looked_up_is_refused(tmp_path):
    with pytest.raises(GlasError, match="File name too long"):
        write_dataset(tmp_path / ("x" * 300), SIMULATION)


def test_content_written_to_an_empty_folder_meanwhile_is_not_removed(tmp_path):
    """The folder was empty when the work began."""
    folder = tmp_path / "cohort"
    folder.mkdir()
    with pytest.raises(GlasError, match=f"{folder}"):
        write_dataset(folder, SIMULATION, lambda done, total: (folder / "thesis").write_text("years of work"))
    assert (folder / "thesis").read_text() == "years of work"


@pytest.mark.parametrize("link", [False, True], ids=[".", "link"])
def test_an_empty_folder_by_another_name_is_filled(tmp_path, monkeypatch, link):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path / "real")
    write_dataset(tmp_path / "link" if link else Path(), Simulation(participants=1, resolution=8))
    assert (tmp_path / "real" / "participants.tsv").is_file()
