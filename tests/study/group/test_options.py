"""Options of the group level, from which keywords, documentation and sidecars are derived."""

import inspect
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from glas3d import GlasError
from glas3d.study.group import GroupOptions, summarise_groups

NAMES = [field.name for field in fields(GroupOptions)]


def test_every_option_is_a_documented_keyword_of_summarise_groups():
    parameters = inspect.signature(summarise_groups).parameters
    defaults = GroupOptions()
    for name in NAMES:
        assert parameters[name].default == getattr(defaults, name)
        assert f"\n{name}\n" in inspect.getdoc(summarise_groups)


def test_every_option_is_in_the_sidecar():
    sidecar = GroupOptions().sidecar()
    assert len(sidecar) == len(NAMES)
    assert {"Normalise", "Permutations", "Resamples", "TFCE", "OtherRuns", "VolumeChange", "K"} <= set(sidecar)
    assert json.loads(json.dumps(sidecar)) == sidecar
    assert GroupOptions(seed=3).sidecar("seed", "site") == {"Seed": 3, "Site": None}


def test_single_names_and_paths_as_text_are_accepted():
    options = GroupOptions(covariates="age", correlate=["MMSE", "iq"], other_run="runs/two", volume_change="a/b.tsv")
    assert (options.covariates, options.correlate) == (("age",), ("MMSE", "iq"))
    assert (options.other_run, options.volume_change) == ((Path("runs/two"),), Path("a/b.tsv"))
    sidecar = options.sidecar("other_run", "volume_change")
    assert sidecar == {"OtherRuns": ["two"], "VolumeChange": "b.tsv"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalise": "max"}, "normalise must be one of share, clr, minmax, none, got 'max'"),
        ({"null": "normal"}, "null must be one of sign-flip, bootstrap-t, permutation, got 'normal'"),
        ({"on_missing": "ignore"}, 'on_missing must be "fail" or "skip", got \'ignore\''),
        ({"covariates": ["age", "sex"], "correlate": ["MMSE", "age"]}, "held fixed and correlated with, got age"),
        ({"covariates": ["C(site3)"], "correlate": ["site3"]}, "held fixed and correlated with, got site3"),
        ({"site": "scanner", "correlate": ["scanner"]}, "held fixed and correlated with, got scanner"),
        ({"n_perm": 18}, "n_perm must be at least 19"),
        ({"n_boot": -1}, "n_boot must be 0"),
        ({"correlation": "kendall"}, "method must be"),
        ({"tfce": True}, r"needs voxelwise=True \(--voxelwise\)"),
        ({"correlate": ["volume-change"]}, "tell their files apart, got volume-change"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(GlasError, match=message):
        GroupOptions(**options)


def test_options_are_read_without_heavy_libraries():
    """The help of the command imports them."""
    code = (
        "import sys, glas3d.study.group.options as o; o.GroupOptions(); "
        "print({'torch', 'pandas', 'scipy', 'nilearn', 'nibabel'} & set(sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "set()"
