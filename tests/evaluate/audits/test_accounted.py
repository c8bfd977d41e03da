"""The audit *accounted*: what regions account for, and where in the whole volume the evidence is."""

from pathlib import Path

import numpy as np
import pytest
import torch

from glas3d import Predictor
from glas3d.evaluate.audits import AuditOptions, audit_scan
from glas3d.evaluate.audits.accounted import LOW, audit_study
from glas3d.evaluate.audits.audited_study import AuditedStudy
from glas3d.imaging.space import voxel_to_world
from glas3d.study.derivatives import Record
from tests.evaluate.audits import heads


def audited(kind):
    """Return the audit with the reference as it is, by which effects have closed forms."""
    scan, _, predict = heads.made(kind)
    (audit,) = audit_scan(heads.img(scan), predict, "AD", ["accounted"], assume_space="MNI", background="reference")
    return audit


def test_a_model_that_reads_regions_passes():
    audit = audited("regions")
    assert (audit.check, audit.verdict) == ("accounted", "pass")
    # the masks of 4 mm leave a few per cent of a region to voxels of no region
    assert 0.75 < audit["accounted"] <= 1.0
    assert audit["effect"] == pytest.approx(5, rel=1e-3)
    assert f"{audit['accounted']:.0%}" in audit.statement
    assert "x" not in [number.name for number in audit.numbers]  # the volume was not searched


def test_a_blob_outside_the_brain_is_found():
    audit = audited("blob")
    assert audit.verdict == "fail"
    assert abs(audit["accounted"]) < LOW / 3
    truth = voxel_to_world(heads.BLOB[None], heads.GRID.affine)[0]
    assert np.linalg.norm(truth - [audit[axis] for axis in "xyz"]) < 6
    assert (audit["part"], audit["region"]) == ("outside", "none")
    # linear model: the grid's masks share the blob out among them
    assert audit["grid_accounted"] == pytest.approx(1, abs=0.15)
    assert "outside the brain" in audit.statement


def test_a_model_with_covariates_is_audited_for_one_participant():
    scan, _, held = heads.made("regions")
    weigh = held.net

    def logits(batch, table):
        return weigh(batch) + table * torch.tensor([[0.0, 1.0]], dtype=torch.float64)

    predict = Predictor(logits, "softmax", classes=heads.CLASSES, device="cpu", info=held.info, covariates=("age",))
    given = {"assume_space": "MNI", "background": "reference"}
    of_age = {"covariates": {"age": 2.0}, "covariate_reference": {"age": 0.0}}
    accounted, shortcut = audit_scan(heads.img(scan), predict, "AD", ["accounted", "shortcut"], **given, **of_age)
    alone = audited("regions")
    assert accounted["effect"] == pytest.approx(7, rel=1e-3)
    assert accounted["accounted"] * 7 == pytest.approx(alone["accounted"] * 5 + 2, rel=1e-3)
    assert "and the covariates account for" in accounted.statement
    assert shortcut["effect"] == pytest.approx(5, rel=1e-3)  # what the scan does, with the age as it is
    assert accounted.provenance["Covariates"]["values"] == {"age": 2.0}
    (audit,) = audit_scan(heads.img(heads.HEALTHY * 1.0001), predict, "AD", ["accounted"], **given, **of_age)
    assert audit.verdict == "n/a"  # the age alone has an effect


def test_a_scan_without_an_effect_is_not_judged():
    _, _, predict = heads.made("regions")
    (audit,) = audit_scan(heads.img(heads.HEALTHY * 1.0001), predict, "AD", ["accounted"], assume_space="MNI")
    assert audit.verdict == "n/a"
    assert "less than 1 in log-odds" in audit.statement


def study(*accounts):
    records = [
        Record(f"sub-{i}", "", Path(), {"Account": account, "Method": {"Search": {"grid": 3}}, "Key": str(i)})
        for i, account in enumerate(accounts)
    ]
    return AuditedStudy(Path(), AuditOptions(), {}, records)


def account(accounted, effect):
    return {"accounted": accounted, "effect": effect, "largest": 0.1, "effect_log_odds": effect, "partition": True}


@pytest.mark.parametrize(
    ("accounts", "verdict", "value"),
    [
        ([account(0.5, 2.0), account(0.8, 6.0), account(None, 0.2), None], "pass", (0.5 * 2 + 0.8 * 6) / 8),
        ([account(0.1, 2.0), account(0.2, 6.0)], "fail", 0.175),
        ([account(1.5, 2.0), account(1.4, 6.0)], "warn", 1.425),
        ([account(0.2, 2.0), account(0.1, 2.0), account(0.9, 6.0)], "warn", 0.6),
        ([account(None, 0.5), None], "n/a", None),
    ],
)
def test_a_study_is_the_sum_of_its_participants(accounts, verdict, value):
    audit = audit_study(study(*accounts))
    assert audit.verdict == verdict
    if verdict == "n/a":
        assert "effect is below 1 in log-odds" in audit.statement
    if value is not None:
        assert audit["accounted"] == pytest.approx(value)
        assert audit["participants"] + audit["left_out"] == len(accounts)


def test_a_study_without_evidence_that_adds_up_is_not_called_weak():
    overlapping = account(None, 6.0) | {"partition": False}
    audit = audit_study(study(overlapping, None))
    assert audit.verdict == "n/a"
    assert "preset evidence" in audit.statement
    assert "below 1" not in audit.statement
