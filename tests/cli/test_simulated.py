"""``glas3d simulate``: a data set of simulated participants."""

import json

import pandas as pd


def test_participants_are_simulated_with_the_given_settings(run_command, tmp_path):
    settings = ["--participants", 2, "--seed", 4, "--resolution", 8, "--severity", 0.2, 0.4, "--noise", 0.01]
    status, output, errors = run_command("simulate", tmp_path / "cohort", *settings)
    assert (status, errors) == (0, "")
    assert output.startswith(f"Written to {tmp_path / 'cohort'}: 2 participants, their truth in")
    participants = pd.read_csv(tmp_path / "cohort" / "participants.tsv", sep="\t")
    assert participants["group"].tolist() == ["AD", "NC"]
    description = json.loads((tmp_path / "cohort" / "dataset_description.json").read_text())["GeneratedBy"][0][
        "Description"
    ]
    expected = {"participants": 2, "seed": 4, "resolution": 8.0, "severity": [0.2, 0.4], "noise": 0.01}
    assert expected.items() <= json.loads(description).items()
