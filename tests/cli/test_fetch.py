"""``glas3d fetch oasis``, and the study of its data set by commands."""

import pandas as pd
import pytest

from tests.study.oasis_layout import layout

MAPS = ["--suffix", "probseg", "--entity", "label=GM"]
COVARIATES = ["--covariates", "age", "sex", "etiv"]


def test_the_terms_are_shown_and_nothing_is_written_without_agreement(run_command, tmp_path, monkeypatch):
    monkeypatch.setattr("nilearn.datasets.fetch_oasis_vbm", lambda **_: pytest.fail("downloads"))
    status, output, errors = run_command("fetch", "oasis", tmp_path / "OASIS")
    assert status == 2
    assert "Data Usage Agreement" in output
    assert errors.startswith("error: OASIS is downloaded only for those who agree with its data use agreement")
    assert errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")
def test_a_study_by_four_commands(run_command, tmp_path):
    data, models, out = (tmp_path / name for name in ("OASIS", "models", "out"))
    folder = layout(tmp_path / "nilearn", 15)
    given = ["--agree", "--data-dir", folder, "--participants", 15]
    status, output, errors = run_command("fetch", "oasis", data, *given)
    assert status == 0, errors
    table = pd.read_csv(data / "participants.tsv", sep="\t")
    for group, rows in table.groupby("group"):
        (line,) = (line for line in output.splitlines() if line.startswith(f"{group} "))
        assert line.split()[1:3] == [str(len(rows)), str((rows["sex"] == "F").sum())]
        assert f"{rows['age'].mean():.1f} ({rows['age'].std():.1f}), {rows['age'].min()} to" in line
    for command in (
        ("train", data, models, *MAPS, "--folds", 2, "--epochs", 1, "--resolution", 12, "--no-pretrain"),
        ("cohort", data, out, "participant", *MAPS, "--models", models),
        ("cohort", data, out, "group", *MAPS, *COVARIATES, "--n-perm", 50),
    ):
        status, _, errors = run_command(*command)
        assert status == 0, errors
    regions = pd.read_csv(out / "group" / "group-AD_seg-AAL_regions.tsv", sep="\t")
    assert len(regions) == 116
    assert regions["score"].abs().max() == 1
    assert (out / "group" / "group-ADvsNC_seg-AAL_statistics.tsv").is_file()
    card = (models / "fold-1" / "docs" / "README.md").read_text()
    assert "taken as it is" in card
