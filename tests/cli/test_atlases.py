"""``glas3d atlas``: the shipped atlases, and an atlas in files."""

import json


def test_the_shipped_atlases_are_listed_and_shown(run_command, aal):
    assert run_command("atlas", "list") == (0, "AAL: 116 regions, MNI space\n", "")
    status, output, errors = run_command("atlas", "show", "AAL")
    assert (status, errors) == (0, "")
    rows = [line.split("\t") for line in output.splitlines()]
    assert rows[0] == ["index", "name", "hemisphere", "x", "y", "z", "n_voxels"]
    assert [row[1] for row in rows[1:]] == aal.table["name"].tolist()
    x = {row[1]: float(row[3]) for row in rows[1:]}
    assert x["Hippocampus_L"] < -20 < 20 < x["Hippocampus_R"]


def test_an_atlas_of_files_is_shown(run_command, few_path):
    status, output, _ = run_command("atlas", "show", few_path)
    assert status == 0
    assert len(output.splitlines()) == 9


def test_the_shipped_atlases_are_listed_as_json(run_command):
    status, out, _ = run_command("atlas", "list", "--json")
    assert status == 0
    assert {"name": "AAL", "regions": 116, "space": "MNI"} in json.loads(out)["atlases"]
