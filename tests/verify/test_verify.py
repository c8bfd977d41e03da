"""Results are hashed again, and a sample of participants is explained again."""

import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest

from glas3d import GlasError, Grid, explain_img, load_model
from glas3d.cli import run
from glas3d.evaluate import attribute
from glas3d.output import sealed, sealed_page, write_json, write_together, write_with_hashes
from glas3d.simulate import Simulation, write_dataset
from glas3d.study import explain_cohort, summarise_groups
from glas3d.study.derivatives import list_results, start_study
from glas3d.verify import explain_again, explain_scans_again, verify_files
from glas3d.verify.differences import TOLERANCE
from glas3d.verify.scan_again import explained_scans
from tests.bundles import t1, write
from tests.study import studies
from tests.study.running.test_runner import ASSUMED

pytestmark = pytest.mark.filterwarnings("ignore:the model does not predict")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return studies.bids(tmp_path_factory.mktemp("in") / "data")


@pytest.fixture(scope="module")
def models(data, tmp_path_factory):
    return studies.folds(tmp_path_factory.mktemp("models") / "folds", studies.cohort(data))


@pytest.fixture(scope="module")
def complete(data, models, tmp_path_factory):
    cohort, out = studies.cohort(data), tmp_path_factory.mktemp("out") / "study"
    explain_cohort(cohort, out, models, **ASSUMED)
    summarise_groups(out, cohort.everyone, case="AD", control="NC", n_perm=19, n_boot=20)
    return out


@pytest.fixture
def study(complete, tmp_path):
    return shutil.copytree(complete, tmp_path / "study")


@pytest.fixture
def run_command(capsys):
    def run_words(*arguments):
        status = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run_words


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_study_as_it_was_written_is_well(complete):
    found = verify_files(complete)
    assert found.well
    assert found.n_results == 7, "six scans and the group level"
    every = {path for path in complete.rglob("*") if path.is_file()}
    assert found.n_files == len(every)
    assert found.unhashed == ()
    assert found.listed


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        ("sub-03/anat/*_stat-light_statmap.nii.gz", "changed"),
        ("sub-03/anat/*_regions.tsv", "changed"),
        ("sub-03/anat/*_regions.json", "changed"),
        ("sub-03/anat/*_record.json", "changed"),
        ("group/provenance.json", "changed"),
        ("group/*stat-saliency_statmap.nii.gz", "changed"),
        ("sub-03/anat/*_regions.tsv", "missing"),
        ("study.json", "missing"),
        ("hashes.json", "missing"),
        ("dataset_description.json", "missing"),
        ("study.json", "changed"),
        (".bidsignore", "changed"),
        ("sub-03/anat", "extra"),
        ("group", "extra"),
        (".", "extra"),
    ],
)
def test_each_file_that_is_missing_changed_or_extra_is_named(study, where, kind):
    path = next(study.glob(where)) if where != "." else study
    if kind == "changed" and path.suffix == ".json":
        path.write_text(path.read_text().replace('"Version": "', '"Version": "9'))
    elif kind == "changed":
        flip(path)
    elif kind == "missing":
        path.unlink()
    else:
        path /= "planted.nii.gz"
        path.write_bytes(b"")
    found = verify_files(study)
    assert getattr(found, kind) == (path.relative_to(study).as_posix(),)
    assert not found.well
    assert found.missing + found.changed + found.extra == getattr(found, kind)


@pytest.mark.parametrize(
    ("folder", "name"), [("sub-03", "sub-03/anat/sub-03_record.json"), ("group", "group/provenance.json")]
)
def test_a_whole_result_that_was_removed_is_missing(study, folder, name):
    shutil.rmtree(study / folder)
    assert verify_files(study).missing == (name,)
    write_with_hashes(study, {}, ["sub-01/anat/sub-01_record.json"])  # as a run of another participant ends
    assert verify_files(study).missing == (name,)
    (study / "hashes.json").unlink()
    list_results(study)
    assert verify_files(study).missing == ((name,) if folder == "sub-03" else ())  # group/provenance.json names it, too


def test_a_study_of_an_earlier_version_has_no_list(study, run_command):
    content = json.loads((study / "study.json").read_text())
    assert content.pop("ListedIn") == "hashes.json"
    (study / "study.json").write_text(json.dumps(content))
    (study / "hashes.json").unlink()
    found = verify_files(study)
    assert (found.well, found.listed) == (True, False)
    assert found.unhashed == (".bidsignore", "dataset_description.json", "study.json")
    assert "The study has no list of its results, so that" in run_command("verify", study)[1]
    shutil.rmtree(study / "sub-03")
    assert verify_files(study).missing == ("sub-03/anat/sub-03_record.json",), "the group level names it"


def test_the_copy_of_an_atlas_is_compared(tmp_path):
    for name in ("a.nii.gz", "a.tsv"):
        (tmp_path / name).write_text("labels")
    start_study(tmp_path / "study", "a study", {}, [tmp_path / "a.nii.gz", tmp_path / "a.tsv"])
    assert verify_files_of(tmp_path / "study") == ((), (), ())
    (tmp_path / "study" / "atlas" / "a.tsv").write_text("other labels")
    (tmp_path / "study" / "atlas" / "a.nii.gz").unlink()
    (tmp_path / "study" / "atlas" / "b.tsv").write_text("")
    assert verify_files_of(tmp_path / "study") == (("atlas/a.nii.gz",), ("atlas/a.tsv",), ("atlas/b.tsv",))


def verify_files_of(study):
    write_together(study / "group", {"study_a_audit.json": sealed(write_json({}), others=False)})
    found = verify_files(study)
    return found.missing, found.changed, found.extra


def test_pictures_and_audits_of_results_are_no_extra_files(study):
    for name in ("figures/a.png", "viewers/a.sh", "report.html", "run.log"):
        (study / name).parent.mkdir(exist_ok=True)
        (study / name).write_text("made from results")
    write_together(study, {"audit.json": sealed(write_json({"Check": "a"}), others=False)})
    found = verify_files(study)
    assert found.well
    assert {"figures/", "viewers/", "report.html", "run.log"} == set(found.unhashed)
    (study / "audit.json").write_text((study / "audit.json").read_text().replace('"a"', '"b"'))
    assert verify_files(study).changed == ("audit.json",)


@pytest.mark.parametrize("name", ["figures/a.png", "figures/b.png", "viewers/a.sh", "report.html"])
def test_what_is_made_from_results_may_be_deleted_but_not_changed(study, name):
    for folder, file in (("figures", "a.png"), ("viewers", "a.sh"), ("figures", "b.png")):
        write_with_hashes(study / folder, {file: lambda path: path.write_text("made from results")})
    (study / "report.html").write_text(sealed_page("<p>All results</p>"))
    found = verify_files(study)
    assert found.well
    assert {"figures/", "viewers/", "report.html"}.isdisjoint(found.unhashed)
    flip(study / name)
    assert verify_files(study).changed == (name,)
    (study / name).unlink()
    assert verify_files(study).well
    write_with_hashes(study / "figures", {"c.png": lambda path: path.write_text("another one")})
    assert verify_files(study).well
    (study / "figures" / "hashes.json").unlink(missing_ok=True)
    assert "figures/" in verify_files(study).unhashed


def test_damaged_json_is_changed_and_a_lost_record_leaves_its_files_without_a_result(study):
    record = next(study.glob("sub-02/anat/*_record.json"))
    record.write_text("{")
    assert record.relative_to(study).as_posix() in verify_files(study).changed
    record.unlink()
    assert any(name.startswith("sub-02/anat/") for name in verify_files(study).extra)


@pytest.mark.parametrize("name", ["../sub-03_x", "/etc/hostname", "a\0b", "n" * 300, "\udcff"])
def test_a_list_whose_names_lead_elsewhere_is_changed(study, name):
    """Neither is a file outside of the folder hashed, nor does a name that no file can have end the command."""
    record = next(study.glob("sub-02/anat/*_record.json"))
    content = json.loads(record.read_text())
    record.write_text(json.dumps(content | {"Files": content["Files"] | {name: "0" * 64}}))
    (study / "sub-02" / "sub-03_x").write_text("")
    found = verify_files(study)
    assert record.relative_to(study).as_posix() in found.changed
    assert not any("hostname" in each for each in (*found.missing, *found.changed))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes of this kind")
def test_pipes_in_the_place_of_results_are_named_and_not_waited_for(study):
    replaced = ("study.json", "group/provenance.json", "sub-01/anat/sub-01_record.json")
    for name in replaced:
        (study / name).unlink()
        os.mkfifo(study / name)
    os.mkfifo(study / "more.json")
    found = verify_files(study)
    assert set(replaced) <= {*found.missing, *found.changed}
    assert "more.json" in found.extra


@pytest.mark.parametrize("names", ["../../x", "sub-01 ../..", 3, ["sub-01 ses-1", "sub-\0"], {"/etc": {}}])
def test_a_group_level_that_names_other_than_participants_is_verified(study, names):
    path = study / "group" / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"Inputs": names}))
    assert "group/provenance.json" in verify_files(study).changed


def test_the_results_of_one_scan_are_verified(tmp_path):

    predict = load_model(write(tmp_path / "bundle"), device="cpu")
    result = explain_img(t1(), predict, "AD", Grid((2, 1, 2)), assume_space="MNI")
    result.save(tmp_path / "out")
    assert verify_files(tmp_path / "out").well
    path = next((tmp_path / "out").glob("*_regions.tsv"))
    path.write_text(path.read_text().replace("1\t", "2\t", 1))
    assert verify_files(tmp_path / "out").changed == (path.name,)
    with pytest.raises(GlasError, match="no results with hashes"):
        verify_files(tmp_path / "bundle")
    with pytest.raises(GlasError, match="no such folder"):
        verify_files(tmp_path / "nothing")


def test_participants_explained_again_have_the_same_bits(complete, data, models):
    repeated = explain_again(complete, studies.cohort(data), models, sample=2, seed=1)
    assert [(each.same_bits, each.same_software, each.largest, each.error) for each in repeated] == [
        (True, True, 0.0, "")
    ] * 2
    assert len({each.name for each in repeated}) == 2
    assert all(each.well for each in repeated)


def shift(study, by):
    """Change a map as if another engine had written it, by a share of its range; the seals are made anew."""
    folder = study / "sub-01" / "anat"
    path = next(folder.glob("*stat-drop_statmap.nii.gz"))
    img = nib.load(path)
    values = np.asarray(img.dataobj)
    nib.save(nib.Nifti1Image(values + np.float32(by * np.ptp(values)), img.affine, img.header), path)
    return path.name


@pytest.mark.parametrize(
    ("by", "other_versions", "well"), [(2e-5, False, False), (2e-5, True, True), (10 * TOLERANCE, True, False)]
)
def test_other_bits_are_reported_and_allowed_only_for_other_versions(study, data, models, by, other_versions, well):
    name = shift(study, by)
    record = next(study.glob("sub-01/anat/*_record.json"))
    if other_versions:
        content = json.loads(record.read_text())
        del content["Sha256"]  # with it, another record is none
        record.write_text(json.dumps(content | {"Key": "of another version"}))
    for folder in study.glob("sub-0[2-6]"):
        shutil.rmtree(folder)
    (each,) = explain_again(study, studies.cohort(data), models)
    assert (each.name, each.same_bits, each.file) == ("sub-01", False, name)
    assert each.largest == pytest.approx(by, rel=0.1)
    assert each.same_software is not other_versions
    assert each.well is well


@pytest.mark.filterwarnings("ignore:left out. 5 missing")
def test_what_cannot_be_explained_again_says_why(study, data, models, tmp_path):
    one = shutil.copytree(data, tmp_path / "data")
    for scan in one.glob("sub-0[1-5]"):
        shutil.rmtree(scan)
    for folder in study.glob("sub-0[2-6]"):
        shutil.rmtree(folder)
    (each,) = explain_again(study, studies.cohort(one, on_error="skip"), models)
    assert "has no scan of sub-01" in each.error
    assert not each.well


def test_the_command_ends_with_status_0_only_if_all_is_well(study, data, models, run_command):
    status, output, errors = run_command(
        "verify", study, "--bids-dir", data, "--models", models, "--sample", 1, "--quiet"
    )
    assert (status, errors) == (0, "")
    status, output, _ = run_command("verify", study)
    assert status == 0
    assert "Every file with a hash is there, as it was written." in output
    assert "Not compared" not in output
    assert "no list" not in output
    assert "Nothing was explained again: give --bids-dir, and --models or --model." in output
    flip(next(study.glob("sub-03/anat/*_stat-light_statmap.nii.gz")))
    status, output, errors = run_command("verify", study, "--json")
    assert status == 2
    assert json.loads(output)["well"] is False
    assert "the results in" in errors
    assert "are not as they were written: changed" in errors
    status, _, errors = run_command("verify", study, "--bids-dir", data)
    assert (status, "give --bids-dir, and --models or --model" in errors) == (2, True)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """Return a scan, its model and a folder of results on a grid, as ``glas3d explain`` writes it."""
    folder = tmp_path_factory.mktemp("single")
    scan, model = folder / "sub-01_T1w.nii.gz", write(folder / "bundle")
    nib.save(t1(), scan)
    words = ["explain", scan, "--model", model, "--target", "AD", "--grid", "2", "--out", folder / "out", "--quiet"]
    assert run([str(word) for word in [*words, "--sigma-light", 30, "--unit", "mm", "--background", "blur"]]) == 0
    return scan, model, folder / "out"


def test_a_scan_is_explained_again_where_it_was_or_given(single, run_command, tmp_path):
    scan, model, out = single
    (found,) = explain_scans_again(out, model=model)
    assert (found.same_bits, found.same_software, found.largest, found.error) == (True, True, 0.0, "")
    status, output, _ = run_command("verify", shutil.copytree(out, tmp_path / "out"), "--scan", scan, "--model", model)
    assert (status, "Explained again: sub-01_T1w_desc-grid: the same, bit for bit" in output) == (0, True)
    (found,) = explain_scans_again(tmp_path / "out", model=model)
    assert "sub-01_T1w.nii.gz is not where it was, or has changed: give it (--scan)" in found.error


def test_a_map_of_other_values_is_not_had_again(single, run_command, tmp_path):
    scan, model, out = single
    out = shutil.copytree(out, tmp_path / "out")
    path = next(out.glob("*stat-drop_statmap.nii.gz"))
    img = nib.load(path)
    values = np.asarray(img.dataobj) * np.float32(1.5)
    nib.save(nib.Nifti1Image(values, img.affine, img.header), path)
    (found,) = explain_scans_again(out, [scan], model)
    assert (found.same_bits, found.same_software, found.file, found.well) == (False, True, path.name, False)
    assert found.largest == pytest.approx(np.abs(values).max() / 3 / np.ptp(values), rel=1e-3)
    status, _, errors = run_command("verify", out, "--scan", scan, "--model", model)
    assert status == 2
    assert "others when explained again: sub-01_T1w_desc-grid" in errors


def test_other_scans_models_and_options_are_refused(single, run_command, tmp_path):
    scan, model, out = single
    nib.save(t1(6), tmp_path / "other.nii.gz")
    with pytest.raises(GlasError, match=r"other\.nii\.gz is none of the scans that were explained"):
        explain_scans_again(out, [tmp_path / "other.nii.gz"], model)
    (found,) = explain_scans_again(out, [scan], write(tmp_path / "tiny", description="another"))
    assert "is not the one that explained the scan: its hash is another" in found.error
    (found,) = explain_scans_again(out, [scan])
    assert "the model tiny is not shipped: give it (--model)" in found.error
    status, _, errors = run_command("verify", out, "--bids-dir", tmp_path, "--models", model)
    assert (status, "--bids-dir and --models are for a study" in errors) == (2, True)


def test_what_cannot_be_explained_again_is_no_difference(single, run_command, tmp_path):
    scan, model, _ = single
    explain_img(scan, load_model(model, device="cpu"), "AD", Grid(2), assume_space="MNI").save(tmp_path / "out")
    status, output, errors = run_command("verify", tmp_path / "out", "--model", model)
    assert status == 2
    assert f"not all results in {tmp_path / 'out'} could be explained again: sub-01_T1w_desc-grid" in errors
    assert "not as they were" not in errors
    assert "does not record where the scan sub-01_T1w.nii.gz is: give it (--scan)" in " ".join(output.split())
    assert run_command("verify", tmp_path / "out", "--model", model, "--scan", scan)[0] == 0


@pytest.mark.filterwarnings("ignore:2 regions of AAL")
def test_a_matched_reference_is_made_again(single, tmp_path):
    _, model, _ = single
    predict, data = load_model(model, device="cpu"), np.array(t1().dataobj)
    data[5:12, 10:20] *= 0.4
    nib.save(nib.Nifti1Image(data, t1().affine), tmp_path / "thin.nii.gz")
    keywords = {"preset": "evidence", "background": "matched", "assume_space": "MNI", "folder": tmp_path / "out"}
    r = explain_img(tmp_path / "thin.nii.gz", predict, "AD", "AAL", **keywords)
    assert r.provenance["Settings"]["background"] == "reference of tiny, matched to the scan"
    (found,) = explain_scans_again(tmp_path / "out", [tmp_path / "thin.nii.gz"], model)
    assert (found.error, found.same_bits) == ("", True)


def test_comparisons_of_methods_are_no_explanations(single, run_command, tmp_path):
    scan, model, out = single
    out = shutil.copytree(out, tmp_path / "out")
    predict = load_model(model, device="cpu")
    attribute(scan, predict, "AD", method="edges", search=Grid(2), assume_space="MNI").save(out)
    assert len(list(out.glob("*_regions.json"))) == 2
    assert [content["Input"]["name"] for _, content in explained_scans(out)] == ["sub-01_T1w.nii.gz"]
    assert run_command("verify", out, "--scan", scan, "--model", model)[0] == 0


def test_what_a_sidecar_does_not_hold_is_named(single, tmp_path):
    scan, model, _ = single
    predict, half = load_model(model, device="cpu"), tmp_path / "half.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(t1().dataobj) / 2, t1().affine), half)
    options = {"assume_space": "MNI", "folder": tmp_path / "out", "background": half, "scales": (1, 2)}
    explain_img(scan, predict, "AD", Grid((2, 1, 2)), **options)
    (found,) = explain_scans_again(tmp_path / "out", [scan], model)
    assert "a sidecar holds too little to explain it again with" in found.error
    assert "scales" in found.error
    assert "the background half.nii.gz" in found.error


def test_only_what_helps_is_suggested(single, run_command, tmp_path):
    _, _, out = single
    assert "Nothing was explained again: give --scan and --model." in run_command("verify", out)[1]
    write_together(tmp_path / "audits", {"audit.json": sealed(write_json({"Check": "a"}), others=False)})
    status, output, _ = run_command("verify", tmp_path / "audits")
    assert (status, "Nothing was explained" in output) == (0, False)
    assert "1 file of 1 result in" in output


def test_a_data_set_without_hashes_says_who_made_it(tmp_path):
    write_dataset(tmp_path / "bids", Simulation(participants=2, resolution=8))
    with pytest.raises(
        GlasError, match=r"no results with hashes: glas3d made it \(Simulated .*\), and gives hashes to"
    ):
        verify_files(tmp_path / "bids")
