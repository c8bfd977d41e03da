"""Names that lead out of a folder, or that a spreadsheet would run, are refused by every command that reads them."""

import json
import shutil

import pandas as pd
import pytest

FORMULA = "=cmd|' /C calc'!A0"


def changed(bids_dir, tmp_path, change):
    data = shutil.copytree(bids_dir, tmp_path / "data")
    path = data / "participants.tsv"
    table = pd.read_csv(path, sep="\t")
    change(table)
    table.to_csv(path, sep="\t", index=False)
    return data


def rename(name):
    return lambda table: table.__setitem__("participant_id", [name, *table["participant_id"][1:]])


@pytest.mark.parametrize("name", ["sub-../../evil", "sub-/etc", "sub-..", "sub-01/../../x", "sub-a\\b", "sub-a b"])
def test_an_identifier_that_leads_elsewhere_is_refused(error_line, bids_dir, tmp_path, name):
    data = changed(bids_dir, tmp_path, rename(name))
    line = error_line("cohort", data, tmp_path / "out", "participant", "--model", "adnc-simulated", "--target", "AD")
    assert name.removeprefix("sub-") in line.replace("\\\\", "\\")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_a_group_that_is_a_formula_is_refused(error_line, bids_dir, tmp_path, start):
    formula = start + FORMULA[1:]
    data = changed(bids_dir, tmp_path, lambda table: table.__setitem__("group", [formula, *table["group"][1:]]))
    line = error_line("cohort", data, tmp_path / "out", "participant", "--model", "adnc-simulated", "--target", "AD")
    assert f"a group in {data / 'participants.tsv'} must not begin as a formula does" in line


def test_a_region_that_is_a_formula_is_refused(error_line, scan, bundle, few_path, tmp_path):
    shutil.copy(few_path, tmp_path / "own.nii.gz")
    table = pd.read_csv(str(few_path).replace(".nii.gz", ".tsv"), sep="\t")
    table.loc[2, "name"] = FORMULA
    table.to_csv(tmp_path / "own.tsv", sep="\t", index=False)
    words = ("--model", bundle, "--target", "AD", "--atlas", tmp_path / "own.nii.gz", "--out", tmp_path / "out")
    assert "the name of a region in " in error_line("explain", scan, *words, "--assume-space", "MNI")


def test_a_class_that_is_a_formula_is_refused(error_line, scan, bundle, tmp_path):
    own = shutil.copytree(bundle, tmp_path / "bundle")
    path = own / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"]["1"] = FORMULA
    path.write_text(json.dumps(metadata))
    line = error_line("explain", scan, "--model", own, "--target", 1, "--grid", 2, "--out", tmp_path / "out")
    assert "the name of a class in the metadata of " in line
