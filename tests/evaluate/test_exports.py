"""`glas3d.evaluate` and its rooms load what they export when it is first used."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from glas3d.evaluate import attribute, compare
from glas3d.evaluate.rivals.methods import METHODS, methods_table

ROOMS = {
    "glas3d.evaluate": {
        *("Attribution", "Comparison", "GLASAttribution", "attribute", "audits", "compare", "explain_func", "metrics"),
        *("Truth", "follow_truth", "localisation", "mean_true_effects", "method_values", "rivals", "true_effects"),
    },
    "glas3d.evaluate.audits": {
        *(
            "CHECKS",
            "Check",
            "AuditOptions",
            "Audit",
            "Number",
            "audit_results",
            "audit_scan",
            "audit_study",
            "save_audits",
        ),
    },
    "glas3d.evaluate.localisation": {
        *("AnnotatedImage", "AnnotatedImages", "Localisation", "LocalisationOptions", "localise", "read_layout"),
    },
    "glas3d.evaluate.metrics": {
        *("RankingCurve", "RankingCurves", "deletion_curve", "insertion_curve", "ranking_curves"),
        *("Detection", "Transport", "detection", "earth_movers", "EffectCorrelation", "effect_correlation"),
        *("Pointing", "PointingGame", "highest_point", "pointing", "pointing_game", "landmark_distance"),
        *("intersection_over_union", "Repeatability", "repeatability", "sparsity"),
        *("ScoreDrop", "rearranged", "score_drop"),
    },
    "glas3d.evaluate.rivals": {
        *("METHODS", "Method", "Rival", "Task", "ExplainedValue"),
        *{method.rival for method in METHODS.values()},
    },
}


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_room_exports(room):
    module = importlib.import_module(room)
    assert set(module.__all__) == ROOMS[room]
    for name in module.__all__:
        assert name in dir(module)
        if name not in ("METHODS", "CHECKS"):
            assert getattr(module, name).__name__.split(".")[-1] == name


def test_a_room_imports_nothing_before_it_is_used():
    heavy = "{'torch', 'captum', 'quantus', 'monai'}"
    code = f"import sys, glas3d.evaluate as e; e.metrics, e.rivals, e.audits; print({heavy} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "set()\n"


def test_the_page_lists_the_methods_that_there_are():
    page = Path(__file__).parents[2] / "docs" / "rivals.md"
    assert methods_table() in page.read_text(encoding="utf-8")
    for function in (attribute, compare):
        assert all(f"``{name}`` ({method.summary})" in function.__doc__ for name, method in METHODS.items())
