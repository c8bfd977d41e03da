"""``glas3d figure`` and ``glas3d export``: what lies in OUT/figures and OUT/viewers."""

import os
import re
import shlex
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pytest

from glas3d import explain_img
from glas3d.imaging.map_header import display_range
from glas3d.imaging.space import mni_grid, template_on
from glas3d.output import HASHES
from glas3d.report.kind_names import KIND_TEXTS
from glas3d.study.group.level import summarise_groups
from tests.imaging.cases import HEADS, head, seen, with_info
from tests.study import folders
from tests.study.made_up import FEW, Study, filled

STEM = "scan_seg-few"


@pytest.fixture(autouse=True, scope="module")
def coarse_template():
    """Draw on the template at 4 mm, which is ten times as fast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("glas3d.report.folder.template", lambda: nib.Nifti1Image(template_on(4), mni_grid(4).affine))
        patch.setattr("glas3d.report.viewers.template", lambda: nib.Nifti1Image(template_on(4), mni_grid(4).affine))
        yield


@pytest.fixture(scope="module")
def out(few, tmp_path_factory):
    """Return the folder of an explained scan, whose path has a space."""
    folder = tmp_path_factory.mktemp("results") / "of a scan"
    explain_img(head(HEADS["LAS"]), with_info(seen(head(HEADS["LAS"]), few)), "AD", few, preset="paper", folder=folder)
    return folder


@pytest.fixture(scope="module")
def groups(few, tmp_path_factory):
    """Return the folder of a study of eight participants with its group level."""
    from glas3d.study.running.plan import load_search
    from tests.study import studies

    folder = tmp_path_factory.mktemp("study")
    path = studies.atlas(folder / "atlas", few)
    study, people = Study(folder / "out", path, load_search(str(path))), folders.people(8)
    filled(study, people, n_folds=2)
    summarise_groups(study.out, people, **FEW)
    return study.out


def test_figures_are_written_in_every_format(run_command, out):
    command = ("figure", out, "--kind", "bars", "--format", "png", "pdf", "svg", "--dpi", 60)
    status, output, errors = run_command(*command)
    assert (status, errors) == (0, "")
    names = {f"{STEM}_{kind}.{ending}" for kind in ("bars",) for ending in ("png", "pdf", "svg")}
    assert {path.name for path in (out / "figures").iterdir()} == {*names, HASHES}
    assert output.count("Written: ") == len(names)
    starts = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
    for name in names:
        assert (out / "figures" / name).read_bytes().startswith(starts[name[-3:]])
    text = (out / "figures" / f"{STEM}_bars.svg").read_text()
    assert "Hippocampus_L" in text  # letters stay letters, which can be searched and edited
    before = {name: (out / "figures" / name).read_bytes() for name in names}
    run_command(*command)
    assert {name: (out / "figures" / name).read_bytes() for name in names} == before
    assert plt.get_fignums() == []


def test_the_regions_are_the_default(run_command, out, tmp_path):
    status, output, _ = run_command("figure", out, "--dpi", 40)
    assert status == 0
    assert output.endswith(f"{STEM}_regions.png\n")
    assert plt.imread(out / "figures" / f"{STEM}_regions.png").shape[1] == 14 * 40


def test_groups_have_their_comparison_and_their_stability(run_command, groups):
    status, output, errors = run_command("figure", groups, "--kind", "groups", "stability", "bars", "--dpi", 40)
    assert (status, errors) == (0, "")
    written = [line.rpartition("/")[2] for line in output.splitlines()]
    assert sorted(written) == [
        "group-AD_seg-few_bars.png",
        "group-AD_seg-few_stability.png",
        "group-ADvsNC_seg-few_groups.png",
        "group-NC_seg-few_bars.png",
        "group-NC_seg-few_stability.png",
    ]
    status, output, _ = run_command("figure", groups, "--kind", "bars", "--group", "NC", "--dpi", 40)
    assert [line.rpartition("/")[2] for line in output.splitlines()] == ["group-NC_seg-few_bars.png"]


def test_bad_use_of_figure(error_line, out, groups, tmp_path):
    has = "regions, mosaic, glass, surface, bars, light-shadow"
    assert error_line("figure", out, "--kind", "groups").endswith(f"have no figure groups, only {has}")
    assert "--kind" in error_line("figure", out, "--kind", "pie")
    assert error_line("figure", out, "--dpi", 3) == "error: --dpi must be from 30 to 1200, got 3"
    assert "--group must be one of the study's groups" in error_line("figure", groups, "--group", "MCI")
    assert "no such folder" in error_line("figure", tmp_path / "nowhere")
    assert "no results" in error_line("figure", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="links are POSIX's")
@pytest.mark.parametrize(("command", "name"), [("figure", "figures"), ("export", "viewers")])
def test_a_folder_that_is_a_link_is_refused(error_line, out, tmp_path, command, name):
    own, outside = tmp_path / "own", tmp_path / "outside"
    outside.mkdir()
    shutil.copytree(out, own, ignore=shutil.ignore_patterns("figures", "viewers"))
    (own / name).symlink_to(outside)
    message = f"error: a folder within results must not be a link, {own / name} leads to {outside}"
    assert error_line(command, own) == message
    assert list(outside.iterdir()) == []


def test_help_lists_every_kind(run_command):
    _, output, _ = run_command("figure", "--help")
    assert all(f"{name}: " in " ".join(output.replace("│", " ").split()) for name in KIND_TEXTS)


def test_the_page_lists_every_kind():
    page = (Path(__file__).parents[2] / "docs" / "figures.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", page, re.MULTILINE))
    assert rows == KIND_TEXTS


def test_viewers_get_labels_names_and_commands(run_command, out):
    status, output, errors = run_command("export", out)
    assert (status, errors) == (0, "")
    folder = out / "viewers"
    labels = nib.load(folder / f"{STEM}_ranks.nii.gz")
    shown = nib.load(out / f"{STEM}_stat-saliency_statmap.nii.gz")
    np.testing.assert_array_equal(labels.affine, shown.affine)
    assert set(np.unique(np.asarray(labels.dataobj))) == {0, 1, 2, 3, 4, 5}
    lowest, largest = display_range(np.asarray(shown.dataobj))
    for viewer in ("fsleyes", "itksnap", "freeview", "mricron"):
        script = (folder / f"{STEM}_{viewer}.sh").read_text().splitlines()
        assert script[0] == "#!/bin/sh"
        words = shlex.split(script[2])
        assert words[0] == viewer
        files = [word.split(":")[0] for word in words[1:] if ".nii.gz" in word]
        assert all((folder / name).is_file() for name in files)
        assert f"../{STEM}_stat-saliency_statmap.nii.gz" in files
        if viewer not in ("itksnap",):
            assert f"{lowest:.6g}" in script[2]
            assert f"{largest:.6g}" in script[2]
    assert output.count("Open: ") == 5


def test_only_some_viewers(run_command, out, error_line):
    (out / "viewers").mkdir(exist_ok=True)
    for path in (out / "viewers").iterdir():
        path.unlink()
    assert run_command("export", out, "--viewer", "itksnap", "--top", 2)[0] == 0
    assert {path.name for path in (out / "viewers").iterdir()} == {
        HASHES,
        "anatomy.nii.gz",
        f"{STEM}_itksnap.sh",
        f"{STEM}_ranks.label",
        f"{STEM}_ranks.nii.gz",
    }
    assert error_line("export", out, "--top", 0) == "error: a label image must have 1 to 255 ranks, got 0"
