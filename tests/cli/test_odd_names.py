"""Names of files that hold markup, control characters or other letters, and values that are no values."""

import shutil

import pandas as pd
import pytest
from rich.console import Console

from glas3d.cli import terminal
from glas3d.explain.table import DESCRIPTIONS


@pytest.mark.parametrize("name", ["[red]x[/red]_T1w.nii.gz", "a:x:b_T1w.nii.gz", "with space ü_T1w.nii.gz"])
def test_a_scan_of_any_name_is_explained(run_command, scan, bundle, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name.replace("/", "")
    shutil.copy(scan, path)
    command = ("explain", path.name, "--model", bundle, "--target", "AD", "--grid", 2, "--out", "[b] o:x:ut")
    status, output, _ = run_command(*command)
    assert status == 0
    assert output.startswith(f"{path.name}: P(AD) = ")
    assert "Written to [b] o:x:ut: " in output


def test_control_characters_of_names_are_escaped(run_command, error_line, scan, bundle, tmp_path):
    path = tmp_path / "a\x1b[31mb\nc.nii.gz"
    options = ("--model", bundle, "--target", "AD", "--grid", 2, "--out", tmp_path / "out\x1b[0m")
    assert error_line("explain", path, *options).endswith("a\\x1b[31mb c.nii.gz")
    shutil.copy(scan, path)
    status, output, errors = run_command("explain", path, *options)
    assert status == 0
    assert "\x1b" not in output + errors
    assert output.startswith("a\\x1b[31mb\\nc.nii.gz: P(AD) = ")


@pytest.mark.parametrize("option", ["--background", "--scales", "--grid"])
def test_an_option_without_its_values_is_refused(error_line, scan, bundle, tmp_path, option):
    command = ("explain", scan, "--model", bundle, "--target", "AD", option, "--out", tmp_path / "out")
    assert error_line(*command) == f"error: {option} needs a value"


def test_a_folder_that_cannot_be_is_refused_before_the_evaluation(error_line, scan, bundle, tmp_path, monkeypatch):
    def evaluated(*args, **kwargs):
        raise AssertionError("the model was evaluated")

    monkeypatch.setattr("glas3d.core.glas.GLAS.explain", evaluated)
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        error = error_line("explain", scan, "--model", bundle, "--target", "AD", "--grid", 2, "--out", out)
        assert error == f"error: results need a folder, {tmp_path / 'file'} is a file"


def test_names_are_shortened_in_narrow_terminals_and_numbers_are_not(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")  # some shells pass it on; what is piped has no width
    row = {"rank": 1, "name": "Paracentral_Lobule_L_and_more_of_it", "x": -42.0, "y": -103.0, "z": 51.0}
    row |= {"light": 0.456, "shadow": 0.0012, "drop": -0.0011, "score": 0.00123, "direction": "against"}
    row["name"] *= 2
    with monkeypatch.context() as narrow:
        narrow.setattr(terminal, "out", Console(force_terminal=True, width=64, color_system=None))
        terminal.write_table(pd.DataFrame([row]), "title", DESCRIPTIONS)
    *_, line, left_out = capsys.readouterr().out.splitlines()
    assert len(line) <= 64
    assert line.split()[2:] == ["-0.0011", "0.00123", "against"]
    assert "Paracentral_Lobule_L_and_more" in line
    assert left_out == "Left out, for want of width: x y z, mm, light, shadow"
    terminal.write_table(pd.DataFrame([row]), "title", DESCRIPTIONS)  # piped: nothing is shortened
    line = capsys.readouterr().out.splitlines()[-1].split()
    assert line == ["1", row["name"], "-42", "-103", "51", "0.456", "0.0012", "-0.0011", "0.00123", "against"]


def test_names_of_regions_are_no_markup(capsys):
    row = {"rank": 1, "name": "[red]A[/red]:smile:", "x": 1.0, "y": 2.0, "z": 3.0}
    row |= {"light": 0.4, "shadow": 0.1, "drop": 0.1, "score": 0.04, "direction": "for"}
    terminal.write_table(pd.DataFrame([row]), "title", DESCRIPTIONS)
    assert "[red]A[/red]:smile:" in capsys.readouterr().out
