"""The audit *shortcut*: parts of the head, outline, brightness and position, against closed forms of linear models."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, shift

from glas3d.evaluate.audits import AuditOptions, audit_scan
from glas3d.evaluate.audits.audited_scan import AuditedScan
from glas3d.evaluate.audits.shortcut import _turn, binarised_share, brightness_evidence, gain_and_evenness, jitter
from glas3d.evaluate.subject import resolve_subject
from tests.evaluate.audits import heads

KINDS = ("regions", "blob", "brightness")


@pytest.fixture(scope="module")
def audits():
    found = {}
    for kind in KINDS:
        scan, _, predict = heads.made(kind)
        (found[kind],) = audit_scan(heads.img(scan), predict, "AD", ["shortcut"], assume_space="MNI")
    return found


def audited_scan(kind):
    scan, weights, predict = heads.made(kind)
    subject = resolve_subject(
        heads.img(scan), predict, "AD", None, {"assume_space": "MNI", "background": "reference"}, None
    )
    return AuditedScan(subject, AuditOptions()), scan.astype(np.float64), weights


def test_what_is_caught(audits):
    assert audits["blob"].verdict == audits["brightness"].verdict == "fail"
    assert "outside the brain" in audits["blob"].statement
    assert "brightness" in audits["brightness"].statement
    assert "outside the brain" not in audits["brightness"].statement
    assert audits["regions"].verdict != "fail"


def test_the_reference_is_not_matched_to_the_scan(audits):
    """A matched one has the scan's own brightness, so that a model that reads brightness would pass."""
    own = "reference of reader of brightness"
    assert audits["brightness"].record()["Settings"]["background"] == own
    scan, _, predict = heads.made("brightness")
    keywords = {"assume_space": "MNI", "background": "matched"}
    both = audit_scan(heads.img(scan), predict, "AD", ["accounted", "shortcut"], **keywords)
    assert [audit.record()["Settings"]["background"] for audit in both] == [f"{own}, matched to the scan", own]
    assert both[1].verdict == "fail"
    (dark,) = audit_scan(heads.img(scan), predict, "AD", ["shortcut"], assume_space="MNI", background=0)
    assert dark.record()["Settings"]["background"] == "0"


def test_the_statement_of_a_pass_gives_the_numbers_and_their_limits(audits):
    audit = audits["regions"]
    assert audit.verdict == "pass"
    for name in ("inside", "binarised", "shift_1_voxel", "turn_2_degrees"):
        assert f"{abs(audit[name]):.0%}" in audit.statement, name
    assert f"{audit['gain_10_percent']:+.0%}" in audit.statement
    assert "(50% allowed)" in audit.statement
    assert "(100% allowed)" in audit.statement
    assert ", 0% from outside (20% allowed)" in audit.statement


@pytest.mark.parametrize("kind", KINDS)
def test_parts_share_the_effect_of_a_linear_model(audits, kind):
    scan, weights, _ = heads.made(kind)
    own = audited_scan(kind)[0]
    difference = weights * (scan - heads.HEALTHY)
    for name, part in own.parts.items():
        share = difference[part].sum() / difference.sum()
        assert audits[kind][name] == pytest.approx(share, abs=2e-4)
        assert audits[kind][f"{name}_per_volume"] == pytest.approx(share / part.mean(), abs=2e-2)
    assert sum(part.sum() for part in own.parts.values()) == scan.size


def test_the_shell_is_one_voxel_where_voxels_are_large():
    own = audited_scan("regions")[0]
    inside, shell = own.parts["inside"], own.parts["shell"]
    assert (inside | shell)[binary_dilation(inside)].all()
    assert not (inside & shell).any()
    assert not (binary_dilation(inside, iterations=3) & ~binary_dilation(inside, iterations=2) & shell).any()


def test_gain_of_a_model_that_reads_brightness():
    own, scan, weights = audited_scan("brightness")
    gain, evenness = gain_and_evenness(own)
    difference = (weights * (scan - heads.HEALTHY)).sum()
    assert gain == pytest.approx(0.2 * 5 * (weights * scan).sum() / difference, rel=0.01)  # of tissue alone
    assert evenness == pytest.approx(1, abs=1e-4)


def test_evidence_of_brightness_is_its_closed_form():
    own, scan, weights = audited_scan("brightness")
    ratio, evidence = brightness_evidence(own)
    assert ratio == pytest.approx(1.15, rel=0.02)
    changed = (weights * ((ratio - 1) * heads.HEALTHY + (1 - 1 / ratio) * scan)).sum() / 2
    assert evidence == pytest.approx(5 * changed / (weights * (scan - heads.HEALTHY)).sum(), rel=1e-3)
    ratio, evidence = brightness_evidence(audited_scan("regions")[0])
    assert ratio == pytest.approx(1, abs=0.01)
    assert abs(evidence) < 0.25 * 5


def test_gain_of_a_model_that_reads_few_places_is_uneven():
    assert abs(gain_and_evenness(audited_scan("regions")[0])[1]) < 0.45
    assert abs(gain_and_evenness(audited_scan("blob")[0])[1]) < 0.2


def test_shifts_are_by_one_voxel():
    own, scan, weights = audited_scan("regions")
    changes, _ = jitter(own)
    expected = []
    for axis in range(3):
        for sign in (-1, 1):
            moved = shift(scan, [-sign if a == axis else 0 for a in range(3)], order=0)
            expected.append((weights * (moved - scan)).sum())
    scale = 5 / (weights * (scan - heads.HEALTHY)).sum()
    np.testing.assert_allclose(changes, scale * np.array(expected), rtol=1e-4, atol=1e-3)


def test_a_turn_is_by_two_degrees_in_mm():
    spacing = np.array([8.0, 6.0, 9.0])
    for axis in range(3):
        matrix = _turn(axis, 2.0, spacing)
        in_mm = np.diag(spacing) @ matrix @ np.diag(1 / spacing)
        np.testing.assert_allclose(in_mm @ in_mm.T, np.eye(3), atol=1e-12)
        assert np.trace(in_mm) == pytest.approx(1 + 2 * np.cos(np.deg2rad(2)))
        assert in_mm[axis, axis] == pytest.approx(1)


def test_binarised_scans_have_one_intensity():
    own, scan, weights = audited_scan("regions")

    def binary(volume):
        tissue = volume > 0.1 * np.percentile(volume, 99)
        return tissue * volume[tissue].mean()

    scale = 5 / (weights * (scan - heads.HEALTHY)).sum()
    expected = scale * (weights * (binary(scan) - binary(heads.HEALTHY.astype(np.float64)))).sum() / 5
    assert binarised_share(own) == pytest.approx(expected, abs=1e-3)


def test_air_that_is_not_0_changes_nothing(audits):
    scan, weights, _ = heads.made("regions")
    difference = float((weights * (scan.astype(np.float64) - heads.HEALTHY)).sum())
    predict = heads.reader(weights, 5 / difference, heads.HEALTHY - 1000)
    (audit,) = audit_scan(heads.img(scan - 1000), predict, "AD", ["shortcut"], assume_space="MNI")
    for name in ("inside", "outside", "binarised", "shift_1_voxel", "turn_2_degrees", "gain_10_percent"):
        assert audit[name] == pytest.approx(audits["regions"][name], abs=5e-3), name
