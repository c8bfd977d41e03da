import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from glas3d import GlasError
from glas3d.output import remove_leftovers
from glas3d.study import derivatives
from glas3d.study.derivatives import (
    check_study_folder,
    is_finished,
    key_of,
    participant_folder,
    read_records,
    read_study,
    record_name,
    start_study,
    write_failed,
    write_participant,
)

RECORD = "sub-01_record.json"


def fill(folder, text="1"):
    (folder / "sub-01_regions.tsv").write_text(text)
    nib.Nifti1Image(np.full((3, 4, 5), float(text), np.float32), np.eye(4)).to_filename(folder / "map.nii.gz")


def write(folder, key="k", text="1"):
    write_participant(folder, RECORD, lambda scratch: fill(scratch, text), {"Key": key})


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("participant", "session", "expected"),
    [("sub-01", "", "sub-01/anat"), ("sub-A1b", "ses-M00", "sub-A1b/ses-M00/anat")],
)
def test_the_folder_of_a_participant(tmp_path, participant, session, expected):
    assert participant_folder(tmp_path, participant, session) == tmp_path / expected
    assert record_name(participant, session).startswith(participant)


@pytest.mark.parametrize(
    ("participant", "session"),
    [
        ("../sub-01", ""),
        ("sub-../../x", ""),
        ("sub-", ""),
        ("01", ""),
        ("/sub-01", ""),
        ("sub-01", "ses-.."),
        ("sub-01", "../ses-1"),
        ("sub-01\n", ""),
    ],
)
def test_an_id_cannot_lead_out_of_the_folder(tmp_path, participant, session):
    with pytest.raises(GlasError, match=r"must be s(ub|es)- with letters and digits"):
        participant_folder(tmp_path, participant, session)


def test_a_key_depends_on_everything_it_is_given():
    base = {"models": ["a"], "input": "b", "settings": {"sigma_light": 20.0}}
    assert key_of(**base) == key_of(**dict(reversed(base.items())))
    for change in ({"models": ["c"]}, {"input": "c"}, {"settings": {"sigma_light": 21.0}}, {"more": 1}):
        assert key_of(**base | change) != key_of(**base)


def test_a_folder_appears_whole_with_its_record(tmp_path):
    folder = tmp_path / "sub-01" / "anat"
    assert not is_finished(folder, RECORD, "k")
    write(folder)
    assert listing(tmp_path) == [f"sub-01/anat/{name}" for name in ("map.nii.gz", RECORD, "sub-01_regions.tsv")]
    assert is_finished(folder, RECORD, "k")
    assert not is_finished(folder, RECORD, "other")


@pytest.mark.parametrize("what", ["changed", "missing", "truncated record"])
def test_a_damaged_folder_is_not_finished(tmp_path, what):
    folder = tmp_path / "sub-01" / "anat"
    write(folder)
    if what == "changed":
        (folder / "sub-01_regions.tsv").write_text("2")
    elif what == "missing":
        (folder / "map.nii.gz").unlink()
    else:
        (folder / RECORD).write_text((folder / RECORD).read_text()[:20])
    assert not is_finished(folder, RECORD, "k")


def test_other_results_replace_earlier_ones(tmp_path):
    folder = tmp_path / "sub-01" / "anat"
    write(folder)
    write(folder, "new", "2")
    assert is_finished(folder, RECORD, "new")
    assert len(listing(tmp_path)) == 3


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    folder = tmp_path / "sub-01" / "anat"
    for name in (".anat-x1", ".anat-x2"):
        (folder.parent / name).mkdir(parents=True)
        (folder.parent / name / "half.nii.gz").write_text("half")
    write(folder)
    assert sorted(p.name for p in folder.parent.iterdir()) == ["anat"]


def test_a_kill_before_any_step_on_the_disk_is_recovered_from():
    """Every file that is opened, moved and removed, and every folder."""
    done = subprocess.run([sys.executable, "-m", "tests.study.each_step"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


def test_a_scratch_folder_removed_by_another_process_is_written_again(tmp_path):
    """Another process that writes the same takes the scratch folder for a leftover, once or twice."""
    folder, calls = tmp_path / "sub-01" / "anat", []

    def disturbed(scratch):
        calls.append(scratch)
        if len(calls) < 3:
            remove_leftovers(folder)
        fill(scratch)

    write_participant(folder, RECORD, disturbed, {"Key": "k"})
    assert len(calls) == 3
    assert is_finished(folder, RECORD, "k")
    assert [path.name for path in folder.parent.iterdir()] == ["anat"]


def test_a_folder_finished_while_leftovers_are_removed_stays_whole(tmp_path, monkeypatch):
    folder, scratch, real = tmp_path / "sub-01" / "anat", tmp_path / "sub-01" / ".anat-x", os.replace
    scratch.mkdir(parents=True)
    fill(scratch)

    def late(source, target):
        if Path(source) == scratch:
            real(source, folder)
        real(source, target)

    monkeypatch.setattr("glas3d.output.os.replace", late)
    remove_leftovers(folder)
    assert listing(tmp_path) == ["sub-01/anat/map.nii.gz", "sub-01/anat/sub-01_regions.tsv"]


def test_failed_writing_leaves_nothing(tmp_path):
    folder = tmp_path / "out" / "sub-01" / "anat"

    def fails(scratch):
        fill(scratch)
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write_participant(folder, RECORD, fails, {"Key": "k"})
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_not_replaced(tmp_path):
    folder = tmp_path / "sub-01" / "anat"
    folder.mkdir(parents=True)
    (folder / "thesis").write_text("years of work")
    with pytest.raises(GlasError, match="no participant's results"):
        write(folder)
    assert (folder / "thesis").read_text() == "years of work"


def test_the_same_bytes_at_another_time(tmp_path, monkeypatch):
    """Neither gzip nor JSON holds a time."""
    write(tmp_path / "a" / "anat")
    monkeypatch.setattr("time.time", lambda: 2e9)
    write(tmp_path / "b" / "anat")
    for path in (tmp_path / "a" / "anat").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / "anat" / path.name).read_bytes()


def test_a_study_is_started_and_resumed(tmp_path):
    out = tmp_path / "out"
    assert read_study(out) == {}
    start_study(out, "a study", {"BatchSize": 4})
    (out / ".unfinished-x").mkdir()
    start_study(out, "a study", {"BatchSize": 4})
    assert read_study(out) == {"BatchSize": 4}
    assert listing(out) == [".bidsignore", "dataset_description.json", "hashes.json", "study.json"]
    assert json.loads((out / "dataset_description.json").read_text())["DatasetType"] == "derivative"


def test_a_killed_start_is_resumed(tmp_path, monkeypatch):
    """After each file that is put in its folder."""
    from glas3d import output

    for number in (1, 2, 3):
        out, moved = tmp_path / str(number), []

        def killed(source, target, moved=moved, number=number):
            if len(moved) == number:
                raise KeyboardInterrupt
            moved.append(target)
            Path(source).rename(target)

        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(output.os, "replace", killed)
            start_study(out, "a study", {"BatchSize": 4})
        assert len(moved) == number
        start_study(out, "a study", {"BatchSize": 4})
        assert len(listing(out)) == 4


def test_a_folder_with_other_content_is_refused(tmp_path):
    (tmp_path / "thesis").write_text("years of work")
    with pytest.raises(GlasError, match="holds thesis"):
        check_study_folder(tmp_path)
    with pytest.raises(GlasError, match="is a file"):
        check_study_folder(tmp_path / "thesis")
    check_study_folder(tmp_path / "new")
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(GlasError, match=r"the settings of a study must be JSON in UTF-8, .*study\.json is not"):
        read_study(tmp_path)


def test_records_are_read_with_their_sessions(tmp_path):
    with pytest.raises(GlasError, match="run the participant level first"):
        read_records(tmp_path)
    start_study(tmp_path, "a study", {})
    with pytest.raises(GlasError, match="run the participant level first"):
        read_records(tmp_path)
    for name, session in (("sub-02", "ses-b"), ("sub-02", "ses-a"), ("sub-01", "")):
        folder = participant_folder(tmp_path, name, session)
        write_participant(folder, record_name(name, session), fill, {"Key": "k"})
    records = read_records(tmp_path)
    assert [record.name for record in records] == ["sub-01", "sub-02 ses-a", "sub-02 ses-b"]


def test_a_record_in_another_participant_s_folder_is_refused(tmp_path):
    start_study(tmp_path, "a study", {})
    write_participant(tmp_path / "sub-02" / "anat", RECORD, fill, {"Key": "k"})
    with pytest.raises(GlasError, match="explain sub-02 again"):
        read_records(tmp_path)


def test_failed_participants_are_listed_until_they_succeed(tmp_path):
    def failed(*rows):
        return pd.DataFrame(rows, columns=["participant_id", "session", "error"])

    start_study(tmp_path, "a study", {})
    write_failed(tmp_path, failed(("sub-01", "", "dark"), ("sub-02", "ses-a", "bright")), {("sub-01", "")})
    path = tmp_path / derivatives.FAILED
    assert path.read_text().splitlines()[1:] == ["sub-01\tn/a\tdark", "sub-02\tses-a\tbright"]
    write_failed(tmp_path, failed(), {("sub-01", "")})
    assert path.read_text().splitlines()[1:] == ["sub-02\tses-a\tbright"]
    write_failed(tmp_path, failed(), {("sub-02", "ses-a")})
    assert not path.exists()
