"""``glas3d cohort`` is called as a BIDS App is: levels, labels of participants and sessions, and the flag to skip."""

import pytest

from tests.study import studies

CONVENTION = ("--skip-bids-validation", "--participant_label", "01", "sub-02", "--session-label", "ses-M00")


@pytest.fixture(scope="module")
def bids_dir(tmp_path_factory):
    """Return the folder of a study of six participants with two sessions each."""
    return studies.bids(tmp_path_factory.mktemp("in") / "data", sessions=("M00", "M12"))


def test_both_levels_take_the_arguments_of_bids_apps(run_command, bids_dir, models, tmp_path):
    out = tmp_path / "out"
    first = ("cohort", bids_dir, out, "participant", "--models", models, "--grid", 2, 1, 2, "--assume-space", "MNI")
    status, output, _ = run_command(*first, *CONVENTION)
    assert (status, output.splitlines()[0]) == (0, f"Written to {out}: 2 scans explained")
    names = {path.name.partition("_space")[0] for path in out.rglob("sub-*_statmap.nii.gz")}
    assert names == {"sub-01_ses-M00", "sub-02_ses-M00"}
    status, output, _ = run_command(*first, "--session_label", "M00")
    assert (status, output.splitlines()[0]) == (0, f"Written to {out}: 4 scans explained, 2 kept")
    quick = ("--n-perm", 49, "--n-boot", 20)
    status, output, _ = run_command("cohort", bids_dir, out, "group", "--session-label", "M00", *quick, *CONVENTION[:1])
    assert status == 0
    assert "AD 3, NC 3 participants" in output


def test_a_configuration_may_name_the_sessions_by_either_name(run_command, bids_dir, models, tmp_path):
    outputs = []
    for name in ("session", "session_label"):
        path = tmp_path / f"{name}.toml"
        path.write_text(f'{name} = ["M12"]')
        command = ("cohort", bids_dir, tmp_path / "out", "participant", "--models", models, "--config", path)
        status, output, _ = run_command(*command, "--grid", 2, 1, 2, "--assume-space", "MNI", "--dry-run")
        assert status == 0
        outputs.append(output.splitlines()[0])
    assert outputs[0] == outputs[1]
    assert outputs[0].startswith("Scans to explain: AD 3, NC 3; ")
