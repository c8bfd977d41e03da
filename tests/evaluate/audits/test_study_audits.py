"""The audits of a study: retrain, null, leakage and volume, on tables whose truth is known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from glas3d.errors import GlasError
from glas3d.evaluate.audits import AuditOptions, leakage, null, retrain, volume
from glas3d.evaluate.audits.audited_study import AuditedStudy
from glas3d.statistics import run_stability
from glas3d.study.derivatives import Record
from glas3d.tables import write_table

M = 60


def study(scores, folds=None, in_sample=False, volumes=None, probability=0.9, search="atlas", **options):
    """Return a study of participants with these scores ``(n, m)``, in memory."""
    method = {"Search": {search: "AAL"}, "Settings": {}, "Target": {"index": 1, "class": "AD"}}
    content = {"Method": method, "InSample": in_sample, "Probability": probability}
    names = [f"sub-{i:02d}" for i in range(len(scores))]
    records = [
        Record(name, "", Path(), {**content, "Key": name, "Folds": [] if folds is None else [folds[i]]})
        for i, name in enumerate(names)
    ]
    made = AuditedStudy(Path("study"), AuditOptions(**options), {}, records)
    sizes = np.arange(1, M + 1) if volumes is None else volumes
    index = pd.Index(range(1, M + 1), name="index")
    made.__dict__["tables"] = {
        name: pd.DataFrame({"score": row, "n_voxels": sizes}, index=index)
        for name, row in zip(names, scores, strict=True)
    }
    return made


def noisy(rng, pattern, n, noise):
    return pattern + noise * rng.normal(size=(n, M))


@pytest.mark.parametrize(("noise", "verdict"), [(0.1, "pass"), (2.2, "warn"), (1e3, "fail")])
def test_retrain_compares_the_means_of_folds(noise, verdict):
    rng = np.random.default_rng(2)
    folds = [i % 3 + 1 for i in range(9)]
    scores = noisy(rng, rng.normal(size=M), 9, noise)
    audit = retrain.audit_study(study(scores, folds))
    means = pd.DataFrame([scores[np.array(folds) == fold].mean(axis=0) for fold in (1, 2, 3)], index=[1, 2, 3])
    expected = run_stability(means, 20).summary
    assert audit["folds_spearman"] == pytest.approx(expected["mean"][0])
    assert audit["folds_jaccard"] == pytest.approx(expected["mean"][1])
    assert audit.verdict == verdict, audit


def test_retrain_compares_runs_over_shared_participants(monkeypatch):
    rng = np.random.default_rng(0)
    pattern = rng.normal(size=M)
    one, other = study(noisy(rng, pattern, 5, 0.2), runs=("b",)), study(noisy(rng, -pattern, 4, 0.2))
    monkeypatch.setattr(AuditedStudy, "others", lambda self: [(1, other)])
    audit = retrain.audit_study(one)
    assert audit.verdict == "fail"
    assert audit["runs_spearman"] < -0.9
    assert audit["runs"] == 2
    monkeypatch.setattr(AuditedStudy, "others", lambda self: [])
    assert retrain.audit_study(study(one.scores.to_numpy())).verdict == "n/a"


def test_leakage_reads_the_records(monkeypatch):
    scores = np.random.default_rng(0).normal(size=(4, M))
    assert leakage.audit_study(study(scores)).verdict == "pass"
    assert leakage.audit_study(study(scores, in_sample="unknown")).verdict == "n/a"
    leaked = leakage.audit_study(study(scores, in_sample=True))
    assert (leaked.verdict, leaked["in_sample"]) == ("fail", 4)
    other = study(-scores, probability=0.97)
    monkeypatch.setattr(AuditedStudy, "in_sample_run", lambda self: other)
    audit = leakage.audit_study(study(scores))
    assert audit["rho"] == audit["rho_of_means"] == pytest.approx(-1)
    assert audit["probability_gap"] == pytest.approx(0.07)
    assert "correlates -1.00" in audit.statement


def test_volume_is_a_correlation_with_an_interval_and_a_null():
    rng = np.random.default_rng(1)
    sizes = np.arange(1, M + 1) ** 2
    follows = volume.audit_study(study(noisy(rng, sizes / sizes.max(), 12, 0.1), volumes=sizes))
    assert follows.verdict == "warn"
    scores = noisy(rng, rng.normal(size=M), 12, 0.1)
    audit = volume.audit_study(study(scores, volumes=sizes))
    each = [np.corrcoef(row, sizes)[0, 1] for row in scores]
    assert audit["correlation"] == pytest.approx(np.mean(each))
    assert audit["low"] <= audit["correlation"] <= audit["high"]
    assert audit["null"] == pytest.approx(1.96 / np.sqrt(M - 1), rel=0.2)  # alike maps: one draw of the null each
    assert audit.verdict == "pass"
    assert volume.audit_study(study(scores, search="grid")).verdict == "n/a"
    flat = study(np.ones((3, M)), volumes=sizes)
    assert (volume.audit_study(flat).verdict, "flat" in volume.audit_study(flat).statement) == ("n/a", True)


@pytest.mark.parametrize(
    ("p", "region", "verdict", "words"),
    [
        ([0.9, 0.05, np.nan], "b", "pass", "smallest corrected p: 0.05 (b)"),
        ([0.9, 0.2, np.nan], "b", "warn", "smallest corrected p: 0.2 (b)"),
        ([0.2, 0.2, 0.9], "none", "warn", "smallest corrected p: 0.2 (of 2 regions)"),
        ([1.0, 1.0, 1.0], "none", "warn", "no corrected p is below 1"),
    ],
)
def test_null_reads_the_relabellings(tmp_path, p, region, verdict, words):
    table = pd.DataFrame({"index": [1, 2, 3], "name": list("abc"), "t": 1.0, "p_uncorrected": 0.05, "p_fwe": p})
    write_table(table)(tmp_path / "group-ADvsNC_desc-relabelled_statistics.tsv")
    audit = null.audit_study(study(np.ones((2, M)), relabelled=tmp_path))
    assert (audit.verdict, audit["smallest_p"], audit["region"]) == (verdict, np.nanmin(p), region)
    assert audit["regions"] == np.isfinite(p).sum()
    assert words in audit.statement
    assert audit.record()["Settings"]["relabelled"] == tmp_path.name


def test_null_needs_a_folder_of_relabellings(tmp_path):
    assert null.audit_study(study(np.ones((2, M)))).verdict == "n/a"
    with pytest.raises(GlasError, match="relabellings need a folder with one"):
        null.audit_study(study(np.ones((2, M)), relabelled=tmp_path))
