"""`audit_scan` and `audit_study`: what they return, their files, and what they refuse before work is spent."""

import json

import pytest

from glas3d.errors import GlasError
from glas3d.evaluate.audits import CHECKS, Audit, Number, audit_scan, audit_study, save_audits
from glas3d.evaluate.audits.auditing import _function_of
from glas3d.evaluate.audits.checks import checks_table
from tests.evaluate.audits import heads
from tests.test_project import ROOT


def audit(**changed):
    scan, _, predict = heads.made("regions")
    keywords = {"checks": ["accounted"], "assume_space": "MNI", **changed}
    return audit_scan(heads.img(scan), predict, "AD", **keywords)


def test_every_check_has_its_functions():
    for name, check in CHECKS.items():
        assert check.scan or check.study, name
        for of in ("scan", "study"):
            if getattr(check, of):
                assert callable(_function_of(name, of))


def test_files_have_no_negative_zero():
    assert json.dumps(Number("share", -0.0, "share", "of the effect").record()["value"]) == "0.0"


def test_the_page_lists_the_checks_that_there_are():
    page = (ROOT / "docs" / "audits.md").read_text(encoding="utf-8")
    assert checks_table() in page
    for name in CHECKS:
        assert f"\n## {name}\n" in page


def test_a_file_explains_itself(tmp_path):
    (made,) = audit(folder=tmp_path)
    (path,) = tmp_path.iterdir()
    assert path.name == "scan_seg-AAL_desc-accounted_audit.json"
    content = json.loads(path.read_text())
    assert {name: content[name] for name in ("check", "verdict", "statement")} == {
        "check": "accounted",
        "verdict": "pass",
        "statement": made.statement,
    }
    numbers = {number["name"]: number for number in content["numbers"]}
    assert numbers["accounted"]["value"] == pytest.approx(made["accounted"])
    assert all(number["description"] for number in numbers.values())
    assert content["Input"]["sha256"]
    assert content["Target"] == {"index": 1, "class": "AD"}
    assert content["Settings"]["background"] == "reference of reader of regions, matched to the scan"


def test_an_audit_of_another_model_is_not_replaced(tmp_path):
    audit(folder=tmp_path)
    before = [path.read_bytes() for path in tmp_path.iterdir()]
    scan, _, predict = heads.made("blob")

    with pytest.raises(GlasError, match="made with another input"):
        audit_scan(heads.img(scan), predict, "AD", ["accounted"], folder=tmp_path, assume_space="MNI")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == before
    audit(folder=tmp_path)  # the same audit is
    scan, weights, predict = heads.made("regions")
    other = heads.reader(1.1 * weights, 5 / 100, heads.HEALTHY, name=predict.info.name)
    with pytest.raises(GlasError, match="made with another model; give"):
        audit_scan(heads.img(scan), other, "AD", ["accounted"], folder=tmp_path, assume_space="MNI")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"checks": ["acounted"]}, "there is no check 'acounted'; did you mean accounted"),
        ({"checks": []}, "checks must be one or more, each once, got none"),
        ({"checks": ["shortcut", "shortcut"]}, "each once, got shortcut, shortcut"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"recursive": True}, "methods are compared in the plain mode"),
    ],
)
def test_what_is_refused(changed, message):
    with pytest.raises(GlasError, match=message):
        audit(**changed)


def test_a_study_needs_its_folder(tmp_path):
    with pytest.raises(GlasError, match=r"audits of a study need its folder, with study\.json"):
        audit_study(tmp_path)
    with pytest.raises(GlasError, match="the check shortcut audits a scan with its model, got a study"):
        audit_study(tmp_path, ["shortcut"])


def test_numbers_that_are_not_known_are_null_in_files():
    made = Audit(
        check="x",
        verdict="pass",
        statement="S.",
        numbers=(Number("a", float("nan"), "share", "d"), Number("b", "Hippocampus_L", "", "d")),
    )
    assert [number["value"] for number in made.record()["numbers"]] == [None, "Hippocampus_L"]
    assert made["b"] == "Hippocampus_L"
    with pytest.raises(KeyError, match="no number 'c'"):
        made["c"]
    with pytest.raises(GlasError, match="has no name of a file"):
        save_audits([made], ".")
