"""What the file system refuses is one sentence and exit status 2, on every option that takes a path."""

import os

import pytest

from glas3d.cli.bad_use import file_problem

LONG = "x" * 300
EXPLAIN = (
    "--atlas",
    "--mask",
    "--background",
    "--brain-mask",
    "--transform",
    "--coordinates",
    "--log-file",
    "--inverse",
)


def paths(tmp_path, scan):
    loop = tmp_path / "loop"
    if not loop.is_symlink():
        loop.symlink_to(loop)
    return {
        "too long": tmp_path / LONG,
        "a folder": tmp_path,
        "NUL": f"{tmp_path}/a\0b",
        "below a file": scan / "below",
        "a loop of links": loop / "below",
    }


@pytest.fixture
def refused(run_command):
    """Return a function that expects one line and status 2."""

    def run(*words):
        status, output, errors = run_command(*words)
        *warnings, error = errors.splitlines()
        assert (status, output) == (2, ""), words
        assert error.startswith("error: ")
        assert all(not line.startswith("error: ") for line in warnings)
        assert "unexpected" not in errors
        assert "Errno" not in errors

    return run


@pytest.mark.parametrize("kind", ["too long", "a folder", "NUL", "below a file", "a loop of links"])
def test_options_of_explain(refused, scan, bundle, tmp_path, kind):
    bad = paths(tmp_path, scan)[kind]
    known = ["--model", bundle, "--target", "AD", "--assume-space", "MNI", "--dry-run", "--out", tmp_path / "out"]
    refused("explain", bad, *known)
    refused("explain", scan, *known, "--model", bad)
    for option in EXPLAIN:
        refused("explain", scan, *known, option, bad)
    if kind != "a folder":
        refused("explain", scan, *known[:-1], bad)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["too long", "a folder", "NUL", "below a file", "a loop of links"])
def test_arguments_of_the_other_commands(refused, scan, bids_dir, tmp_path, kind):
    bad, out = paths(tmp_path, scan)[kind], tmp_path / "out"
    refused("cohort", bad, out, "participant", "--model", "adnc-simulated")
    refused("cohort", bids_dir, bad, "group")
    for option in ("--models", "--model"):
        refused("cohort", bids_dir, out, "participant", option, bad)
    for option in ("--config", "--participants-tsv", "--log-file"):
        refused("cohort", bids_dir, out, "group", option, bad)
    refused("train", bad, out)
    refused("convert", bad, out)
    refused("convert", scan, bad)
    refused("verify", bad)
    refused("atlas", "show", bad)
    if kind != "a folder":
        refused("simulate", bad, "--participants", 2)
        refused("demo", "--out", bad)
    assert not out.exists()


def test_a_configuration_with_nul_is_refused(refused, bids_dir, tmp_path):
    (tmp_path / "study.toml").write_text('participants_tsv = "a\\u0000b"\n')
    refused("cohort", bids_dir, tmp_path / "out", "group", "--config", tmp_path / "study.toml")


@pytest.mark.parametrize(("name", "status"), [("ENOSPC", 1), ("EIO", 1), ("EACCES", 2), ("EROFS", 2)])
def test_a_disk_that_fails_is_no_bad_use(name, status):
    import errno

    number = getattr(errno, name)
    sentence, found = file_problem(OSError(number, os.strerror(number), "/data/a.nii"))
    assert found == status
    assert sentence.startswith(f"cannot use /data/a.nii: {os.strerror(number)}")
