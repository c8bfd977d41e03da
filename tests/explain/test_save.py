"""`ScanExplanation.save`: names and content of the files, and folders that cannot be written to."""

import hashlib
import json
import os
import re
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

import glas3d
from glas3d import GlasError, Grid, explain_img
from tests.imaging.cases import HEADS, head, refused, seen, values, with_info

RAS = HEADS["RAS"]


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """Return the path of a participant's scan."""
    path = tmp_path_factory.mktemp("bids") / "sub-01_ses-2_T1w.nii.gz"
    nib.save(head(RAS), path)
    return path


@pytest.fixture(scope="module")
def result(scan, few):
    """Return the explanation of the scan at eight regions."""
    return explain_img(scan, with_info(seen(head(RAS), few), sha256="1" * 64), "AD", few)


def names(folder):
    """Return the sorted names of the files in a folder."""
    return sorted(os.listdir(folder))


def contents(folder):
    """Return the bytes of each file in a folder."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


def expected(stem):
    """Return the sorted names of the files of an explanation."""
    maps = [
        f"{stem}_stat-{s}_statmap{end}" for s in ("saliency", "light", "shadow", "drop") for end in (".nii.gz", ".json")
    ]
    return sorted([*maps, f"{stem}_regions.tsv", f"{stem}_regions.json"])


def test_the_files_have_the_names_of_the_contract(result, tmp_path, aal, scan):
    written = result.save(tmp_path / "deep" / "folder")
    assert names(tmp_path / "deep" / "folder") == expected("sub-01_ses-2_T1w_seg-few")
    assert sorted(path.name for path in written) == expected("sub-01_ses-2_T1w_seg-few")
    assert all(path.is_file() for path in written)
    model = seen(head(RAS), aal)
    assert explain_img(scan, model).stem == "sub-01_ses-2_T1w_seg-AAL"
    assert explain_img(scan, model, search=Grid(2)).stem == "sub-01_ses-2_T1w_desc-grid"
    assert explain_img(head(RAS), model, search=Grid(2)).stem == "scan_desc-grid"


def test_the_maps_in_files_equal_those_in_memory(result, tmp_path):
    result.save(str(tmp_path))
    for statistic in ("saliency", "light", "shadow"):
        img = nib.load(tmp_path / f"sub-01_ses-2_T1w_seg-few_stat-{statistic}_statmap.nii.gz")
        assert np.array_equal(values(img), values(getattr(result, f"{statistic}_img")))
        np.testing.assert_allclose(img.affine, RAS.affine)
    assert not np.array_equal(values(result.light_img), values(result.shadow_img))


def test_the_table_is_tab_separated_text_with_every_digit(result, tmp_path):
    result.save(tmp_path)
    content = (tmp_path / "sub-01_ses-2_T1w_seg-few_regions.tsv").read_bytes()
    assert b"\r" not in content
    assert content.splitlines()[0].decode().split("\t") == list(result.table.columns)
    read = pd.read_csv(tmp_path / "sub-01_ses-2_T1w_seg-few_regions.tsv", sep="\t", dtype=str)
    for column in result.table:
        written = result.table[column].dropna()  # a region without evidence has no direction
        kind = type(written.iloc[0])
        assert [kind(text) for text in read[column].dropna()] == written.tolist()


def test_the_sidecar_holds_every_setting_version_and_hash(result, tmp_path, scan, few):
    result.save(tmp_path)
    for statistic in ("saliency", "light", "shadow"):
        text = (tmp_path / f"sub-01_ses-2_T1w_seg-few_stat-{statistic}_statmap.json").read_text(encoding="utf-8")
        sidecar = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert sidecar["Statistic"] == statistic
    settings = sidecar["Settings"]
    assert (settings["sigma_light"], settings["sigma_shadow"], settings["unit"]) == (1.0, 1.0, "mm")
    assert {"sigma_spatial", "kernel", "distance", "fusion", "gamma", "background", "point"} <= set(settings)
    assert sidecar["Target"] == {"index": 1, "class": "AD"}
    assert sidecar["Probability"] == pytest.approx(result.explanation.probability)
    model = {"name": "toy", "sha256": "1" * 64, "activation": "none", "classes": ["NC", "AD"]}
    assert sidecar["Model"] == model
    assert sidecar["Input"] == {"name": scan.name, "sha256": hashlib.sha256(scan.read_bytes()).hexdigest()}
    assert sidecar["Search"]["atlas"] == "few"
    assert sidecar["Search"]["sha256"] == few.sha256
    assert sidecar["Grid"] == {"shape": list(RAS.shape), "affine": RAS.affine.tolist()}
    assert sidecar["SpaceCheck"]["coverage"] > 0.9
    software = sidecar["GeneratedBy"][0]
    assert (software["Name"], software["Version"], software["torch"]) == (
        "glas3d",
        glas3d.__version__,
        torch.__version__,
    )
    assert not re.search("time|date|second|/tmp", text.lower())


def test_infinity_and_settings_of_each_axis_are_valid_json(tmp_path, few):
    img = head(RAS)
    r = explain_img(img, seen(img, few), search=Grid((1, 2, 3)), sigma_light=np.inf, sigma_shadow=(3, 4, 5))
    r.save(tmp_path)
    for path in tmp_path.glob("*.json"):
        sidecar = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert sidecar["Search"] == {"grid": [1, 2, 3]}
        assert sidecar["Settings"]["sigma_shadow"] == [3, 4, 5]
        assert float(sidecar["Settings"]["sigma_light"]) == np.inf


def test_equal_explanations_have_equal_bytes(result, scan, few, tmp_path, monkeypatch):
    result.save(tmp_path / "a")
    monkeypatch.setattr(time, "time", lambda: 2e9)
    again = explain_img(str(scan), with_info(seen(head(RAS), few), sha256="1" * 64), "AD", few)
    again.save(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert len(contents(tmp_path / "a")) == 10


def test_results_of_another_question_are_replaced_only_on_demand(result, scan, few, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    other = explain_img(scan, with_info(seen(head(RAS), few)), "NC", few)
    other.save(tmp_path)
    before = contents(tmp_path)
    message = "already has .*_stat-saliency_statmap.json, made with another target and model; give"
    with pytest.raises(GlasError, match=message):
        result.save(tmp_path)
    assert contents(tmp_path) == before
    result.save(tmp_path, overwrite=True)
    after = contents(tmp_path)
    assert names(tmp_path) == sorted([*expected("sub-01_ses-2_T1w_seg-few"), "notes.txt"])
    assert after["notes.txt"] == b"mine"
    # of two classes, the drops of one are those of the other with the opposite sign: the shadow may be the same
    of_the_target = [name for name in expected("sub-01_ses-2_T1w_seg-few") if "shadow_statmap.nii" not in name]
    assert all(before[name] != after[name] for name in of_the_target)


def test_the_files_of_many_targets_do_not_collide(scan, few, tmp_path):
    for r in explain_img(scan, with_info(seen(head(RAS), few)), ["NC", "AD"], few):
        r.save(tmp_path)
    both = [f"sub-01_ses-2_T1w_seg-few_label-{name}" for name in ("AD", "NC")]
    assert names(tmp_path) == sorted(expected(both[0]) + expected(both[1]))


@pytest.mark.parametrize(
    "classes", [("amyloid-", "amyloid+"), ("-", "+"), ("class1", "+"), ("Démence", "Témoin")], ids=str
)
def test_files_of_classes_that_differ_in_punctuation_do_not_collide(scan, few, classes):
    model = with_info(seen(head(RAS), few), classes=classes)
    stems = [r.stem for r in explain_img(scan, model, list(classes), few)]
    assert len(set(stems)) == 2
    assert all(re.fullmatch(r"sub-01_ses-2_T1w_seg-few_label-[A-Za-z0-9]+", stem) for stem in stems)


# Folders that cannot be written to


def test_a_folder_that_is_a_file_is_refused(result, tmp_path):
    (tmp_path / "taken").write_text("mine")
    for folder in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with refused("cannot write to", folder):
            result.save(folder)
    assert contents(tmp_path) == {"taken": b"mine"}


def test_a_folder_that_cannot_be_looked_up_is_refused(result, tmp_path):
    folder = tmp_path / ("x" * 300)
    with refused("cannot write to.*File name too long", folder):
        result.save(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(result, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    for folder in (locked, locked / "below"):
        with refused("cannot write to.*Permission denied", folder):
            result.save(folder)
    assert names(locked) == []


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_full_disk_leaves_the_old_results_alone(result, scan, few, tmp_path, monkeypatch, failing):
    explain_img(scan, with_info(seen(head(RAS), few)), "NC", few).save(tmp_path)
    before, calls, write = contents(tmp_path), [], nib.Nifti1Image.to_filename

    def to_filename(self, path):
        if len(calls) == failing:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        calls.append(path)
        write(self, path)

    monkeypatch.setattr(nib.Nifti1Image, "to_filename", to_filename)
    with refused("cannot write to.*No space left on device", tmp_path):
        result.save(tmp_path, overwrite=True)
    assert contents(tmp_path) == before
    assert names(tmp_path) == expected("sub-01_ses-2_T1w_seg-few")


def test_a_full_disk_leaves_no_new_folder(result, tmp_path, monkeypatch):
    def to_filename(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib.Nifti1Image, "to_filename", to_filename)
    with refused("cannot write to", tmp_path / "new"):
        result.save(tmp_path / "new" / "deep")
    assert names(tmp_path) == []


def test_a_folder_of_a_file_s_name_leaves_nothing_half_written(result, tmp_path):
    taken = tmp_path / "sub-01_ses-2_T1w_seg-few_regions.tsv"
    taken.mkdir()
    with refused("cannot write .*: it is a folder", taken):
        result.save(tmp_path)
    assert names(tmp_path) == ["sub-01_ses-2_T1w_seg-few_regions.tsv"]
