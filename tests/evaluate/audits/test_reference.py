"""The audit *reference*: the sign of a linear model's evidence turns with the reference."""

import numpy as np
import pytest

from glas3d.errors import GlasError
from glas3d.evaluate.audits import audit_scan
from tests.evaluate.audits import heads


def audited(backgrounds, **more):
    scan, _, predict = heads.made("regions")
    keywords = {"backgrounds": backgrounds, "assume_space": "MNI", **more}
    (audit,) = audit_scan(heads.img(scan), predict, "AD", ["reference"], **keywords)
    return audit


def donor(loss, *names):
    """Return a reference of which some regions have lost intensity."""
    return heads.img(heads.patient(*names, loss=loss))


def test_a_reference_that_the_model_takes_for_the_class_is_not_compared():
    audit = audited([0], background="reference")
    assert audit.verdict == "n/a"
    assert audit["alone_1"] == pytest.approx(0.5)
    assert audit["alone_2"] > 0.999  # darkness has lost all intensity
    assert [number.name for number in audit.numbers] == ["alone_1", "alone_2"]
    assert "takes it for the class itself: 0" in audit.statement


def test_it_fails_as_the_reference_of_the_scan():
    audit = audited(["auto"], background=0)
    assert audit.verdict == "fail"
    assert "cannot show evidence" in audit.statement
    assert [number.name for number in audit.numbers] == ["alone_1", "alone_2"]
    assert audit.record()["Settings"]["background"] == "0"


def test_another_control_changes_no_sign():
    # a control who lost less in the same regions: evidence keeps its sign
    audit = audited([donor(0.1, "Hippocampus_L", "Hippocampus_R", "Temporal_Inf_L")])
    assert audit.verdict == "pass"
    assert audit["flipped_2"] < 0.25


def test_numbers_are_of_the_references_that_are_compared():
    control = donor(0.1, "Hippocampus_L", "Hippocampus_R", "Temporal_Inf_L")
    alone, both = audited([control]), audited([0, control])
    assert {number.name.partition("_")[2] for number in both.numbers} == {"", "allowed", "1", "2", "3"}
    assert [number.name for number in both.numbers if number.name.endswith("_2")] == ["alone_2"]
    for name in ("flipped", "lost", "rho"):
        assert both[f"{name}_3"] == alone[f"{name}_2"]
    assert both["agreement"] == alone["agreement"]
    assert "under 1 other reference (25% allowed)" in both.statement
    assert f"at most {both['flipped_3']:.0%}" in both.statement


def test_a_control_who_lost_more_in_one_region_turns_its_sign():
    lost = np.where(heads.region("Hippocampus_L"), 0.4, 1.0) * np.where(heads.region("Temporal_Inf_L"), 1.3, 1.0)
    audit = audited([heads.img(heads.HEALTHY * lost)])
    assert audit["flipped_2"] > 0
    assert audit["alone_2"] < audit["alone_1"]


def test_the_same_reference_is_no_comparison():
    with pytest.raises(GlasError, match="references to compare must be others"):
        audited(["auto"])
