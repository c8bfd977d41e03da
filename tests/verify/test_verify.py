"""Results are hashed again, and a sample of participants is explained again."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from glas3d import GlasError, Grid, explain_img, load_model
from glas3d.cli import run
from glas3d.output import sealed, write_json, write_together
from glas3d.study import explain_cohort, summarise_groups
from glas3d.verify import explain_again, verify_files
from glas3d.verify.again import TOLERANCE
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
    assert found.n_files == len(every) - 3, "all but study.json, dataset_description.json and .bidsignore"


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


def test_pictures_and_audits_of_results_are_no_extra_files(study):
    for name in ("figures/a.png", "viewers/a.sh", "report.html", "run.log"):
        (study / name).parent.mkdir(exist_ok=True)
        (study / name).write_text("made from results")
    write_together(study, {"audit.json": sealed(write_json({"Check": "a"}), others=False)})
    assert verify_files(study).well
    (study / "audit.json").write_text((study / "audit.json").read_text().replace('"a"', '"b"'))
    assert verify_files(study).changed == ("audit.json",)


def test_damaged_json_is_changed_and_a_lost_record_leaves_its_files_without_a_result(study):
    record = next(study.glob("sub-02/anat/*_record.json"))
    record.write_text("{")
    assert record.relative_to(study).as_posix() in verify_files(study).changed
    record.unlink()
    assert any(name.startswith("sub-02/anat/") for name in verify_files(study).extra)


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
    assert "All files are there, as they were written, and no others." in output
    flip(next(study.glob("sub-03/anat/*_stat-light_statmap.nii.gz")))
    status, output, errors = run_command("verify", study, "--json")
    assert status == 2
    assert json.loads(output)["well"] is False
    assert "the results in" in errors
    assert "are not as they were written: changed" in errors
    status, _, errors = run_command("verify", study, "--bids-dir", data)
    assert (status, "give --bids-dir, and --models or --model" in errors) == (2, True)
