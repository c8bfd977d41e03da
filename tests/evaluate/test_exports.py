"""`glas3d.evaluate` and its rooms load what they export when it is first used."""

import importlib
import subprocess
import sys

import pytest

ROOMS = {
    "glas3d.evaluate": {"GLASAttribution", "audits", "explain_func", "metrics", "rivals"},
    "glas3d.evaluate.audits": set(),
    "glas3d.evaluate.metrics": {"DeletionCurve", "ScoreDrop", "deletion_curve", "rearranged", "score_drop"},
    "glas3d.evaluate.rivals": {
        *("FeatureAblation", "GaussianOcclusion", "GradCam", "Lime", "Mask", "Occlusion", "Rise", "Rival", "blurred"),
    },
}


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_room_exports(room):
    module = importlib.import_module(room)
    assert set(module.__all__) == ROOMS[room]
    for name in module.__all__:
        assert name in dir(module)
        assert getattr(module, name).__name__.split(".")[-1] == name


def test_a_room_imports_nothing_before_it_is_used():
    heavy = "{'torch', 'captum', 'quantus', 'monai'}"
    code = f"import sys, glas3d.evaluate as e; e.metrics, e.rivals, e.audits; print({heavy} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "set()\n"
