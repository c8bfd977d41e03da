"""Measure how often the tests of groups reject a true null hypothesis, and what power that leaves.

Run ``python docs/measure/null_rates.py`` from the root of the repository; it writes ``docs/null_rates.md`` and the
record ``docs/null_rates.tsv``. Rows that the record has are kept; ``--again`` measures them, too. 1,000 repeats of all rows
take about an hour on a core that others use, too. ``--repeats 50`` is a trial.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from glas3d.errors import GlasWarning
from glas3d.statistics import compare, compare_all, compare_relabelled, correlate
from glas3d.statistics.folds import compare_within_folds

DOCS = Path(__file__).parents[1]
N_REGIONS, N_PERM, RELABELLINGS = 20, 199, 59
LEVEL, MOST = 0.05, 0.07

Draw = Callable[[np.random.Generator], tuple[np.ndarray, pd.DataFrame]]
Test = Callable[[int], tuple[bool, bool]]


def people(n_case: int, n_control: int, **columns: object) -> pd.DataFrame:
    """Return a table of participants, cases first."""
    n = n_case + n_control
    table = {"participant_id": [f"sub-{i}" for i in range(n)], "group": ["AD"] * n_case + ["NC"] * n_control}
    return pd.DataFrame(table | columns)


def normal(n_case: int, n_control: int, spread: float = 1.0) -> Draw:
    """Return normal values of equal mean; those of the cases spread ``spread`` times as much."""

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, pd.DataFrame]:
        scale = np.repeat([spread, 1.0], [n_case, n_control])[:, None]
        return rng.normal(size=(n_case + n_control, N_REGIONS)) * scale, people(n_case, n_control)

    return draw


def shares(rng: np.random.Generator) -> tuple[np.ndarray, pd.DataFrame]:
    """Return shares of equal mean: peaked in the cases, diffuse in the controls."""
    values = np.vstack([rng.gamma(0.15, 1, (20, N_REGIONS)), rng.gamma(2.0, 1, (20, N_REGIONS))]) + 1e-12
    return values / values.sum(axis=1, keepdims=True), people(20, 20)


def of_three(draw: Draw, sizes: tuple[int, int, int]) -> Draw:
    """Return values of ``draw`` for three groups of these sizes."""

    def redrawn(rng: np.random.Generator) -> tuple[np.ndarray, pd.DataFrame]:
        values, table = draw(rng)
        return values, table.assign(group=np.repeat(["AD", "MCI", "NC"], sizes))

    return redrawn


def adjusted(rng: np.random.Generator) -> tuple[np.ndarray, pd.DataFrame]:
    """Return 8 against 32 of twofold spread, of whom the cases are older and age and site raise all values."""
    values, table = normal(8, 32, 2.0)(rng)
    age = rng.normal(size=40) + np.repeat([0.7, 0.0], [8, 32])
    site = rng.permutation(np.arange(40) % 2)
    values += age[:, None] + 2 * site[:, None]
    return values, table.assign(age=age, site=[f"site{number}" for number in site])


def raised(rng: np.random.Generator) -> tuple[np.ndarray, pd.DataFrame]:
    """Return 20 against 20 with 6 of the regions raised by 1.2 standard deviations."""
    values, table = normal(20, 20)(rng)
    values[:20, :6] += 1.2
    return values, table


def uncorrelated(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Return values that do not correlate with a column but spread by its size."""
    column = rng.normal(size=30)
    return rng.normal(size=(30, N_REGIONS)) * np.abs(column)[:, None], column, people(15, 15)


def out_of_fold(n_folds: int, signed: bool) -> Draw:
    """Return evidence of 100 participants without any difference, each by a ridge that others' labels trained."""

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, pd.DataFrame]:
        scans, label = rng.normal(size=(100, N_REGIONS)), np.repeat([1.0, -1.0], 50)
        fold = np.empty(100, dtype=int)
        for rows in (np.arange(50), np.arange(50, 100)):
            fold[rows] = rng.permutation(np.arange(50) % n_folds)
        evidence = by_ridges(scans, label, fold)
        return evidence if signed else np.abs(evidence), people(50, 50, fold=fold)

    return draw


def by_ridges(scans: np.ndarray, label: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Return the signed evidence of participants, ``(n, regions)``, each by a ridge that the other folds trained."""
    evidence = np.empty_like(scans)
    for number in np.unique(fold):
        train, test = fold != number, fold == number
        centre, x = scans[train].mean(axis=0), scans[train] - scans[train].mean(axis=0)
        weights = np.linalg.solve(x.T @ x + 10 * np.eye(N_REGIONS), x.T @ (label[train] - label[train].mean()))
        evidence[test] = (scans[test] - centre) * weights
    return evidence


def relabelled(n_folds: int, signed: bool) -> Test:
    """Return a function of the repeat: whether relabelling with retraining rejected any region of 50 against 50."""

    def test(seed: int) -> tuple[bool, bool]:
        scans = np.random.default_rng(seed).normal(size=(100, N_REGIONS))

        def evidence(labels: np.ndarray) -> np.ndarray:
            rng, fold = np.random.default_rng([seed, 1]), np.empty(100, dtype=int)
            for name in ("AD", "NC"):
                fold[labels == name] = rng.permutation(np.arange(50) % n_folds)
            values = by_ridges(scans, np.where(labels == "AD", 1.0, -1.0), fold)
            return values if signed else np.abs(values)

        result = compare_relabelled(evidence, people(50, 50), "AD", "NC", n_perm=RELABELLINGS, seed=seed)
        return bool(result["p_fwe"].min() <= LEVEL), False

    return test


def smallest(draw: Draw, **options: object) -> Test:
    """Return a function of the repeat: whether any region was rejected, and whether skewed values were warned of."""

    def test(seed: int) -> tuple[bool, bool]:
        values, table = draw(np.random.default_rng(seed))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", GlasWarning)
            result = compare(values, table, "AD", "NC", n_perm=N_PERM, n_boot=0, seed=seed, **options)
        return bool(result["p_fwe"].min() <= LEVEL), any("bootstrap-t" in str(each.message) for each in caught)

    return test


def any_group(draw: Draw, **options: object) -> Test:
    """Return a function of the repeat: whether the test of three groups together rejected any region, and warned."""

    def test(seed: int) -> tuple[bool, bool]:
        values, table = draw(np.random.default_rng(seed))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", GlasWarning)
            result = compare_all(values, table, ["AD", "MCI", "NC"], n_perm=N_PERM, seed=seed, **options)
        return bool(result["p_fwe"].min() <= LEVEL), any("bootstrap-t" in str(each.message) for each in caught)

    return test


def within_folds(draw: Draw) -> Test:
    """Return a function of the repeat: whether any region was rejected by tests within the folds."""

    def test(seed: int) -> tuple[bool, bool]:
        values, table = draw(np.random.default_rng(seed))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GlasWarning)
            result = compare_within_folds(
                values, table, "AD", "NC", table["fold"], n_perm=5 * N_PERM, n_boot=0, seed=seed
            )
        return bool(result["p_fwe"].min() <= LEVEL), False

    return test


def correlation(seed: int) -> tuple[bool, bool]:
    """Return whether any region was rejected."""
    values, column, table = uncorrelated(np.random.default_rng(seed))
    result = correlate(values, column, participants=table, n_perm=N_PERM, n_boot=0, seed=seed)
    return bool(result["p_fwe"].min() <= LEVEL), False


def plain_correlation(seed: int) -> tuple[bool, bool]:
    """Return whether any region was rejected where r itself is permuted, as earlier versions did."""
    values, column, _ = uncorrelated(np.random.default_rng(seed))
    unit = [side - side.mean(axis=0) for side in (values, column)]
    a, b = (side / np.linalg.norm(side, axis=0) for side in unit)
    rng = np.random.default_rng([seed, 0])
    orders = np.stack([rng.permutation(len(b)) for _ in range(N_PERM)])
    largest = np.abs(b[orders] @ a).max(axis=1)
    return bool((1 + (largest >= np.abs(b @ a).max()).sum()) / (1 + N_PERM) <= LEVEL), False


def null_rows() -> list[tuple[str, str, Test]]:
    """Return every row of the table: data without effect, test, and a function of the repeat."""
    data: dict[str, tuple[Draw, dict[str, object]]] = {
        "equal spread, 10 v 10": (normal(10, 10), {}),
        "equal spread, 4 v 12": (normal(4, 12), {}),
        "twice the spread in the 4 of 4 v 12": (normal(4, 12, 2.0), {}),
        "twice the spread in the 5 of 5 v 5": (normal(5, 5, 2.0), {}),
        "twice the spread in the 8 of 8 v 32": (normal(8, 32, 2.0), {}),
        "the same, age and site held fixed": (adjusted, {"covariates": ["age"], "site": "site"}),
        "shares of equal mean, peaked v diffuse, 20 v 20": (shares, {}),
    }
    rows = []
    for name, (draw, options) in data.items():
        for null in ("sign-flip", "bootstrap-t", "permutation"):
            rows.append((name, null, smallest(draw, null=null, **options)))
    data = {
        "three groups of equal spread, 10 v 10 v 10": (of_three(normal(10, 20), (10, 10, 10)), {}),
        "three groups, twice the spread in the 8 of 8 v 16 v 16": (of_three(normal(8, 32, 2.0), (8, 16, 16)), {}),
        "the same three groups, age and site held fixed": (
            of_three(adjusted, (8, 16, 16)),
            {"covariates": ["age"], "site": "site"},
        ),
        "shares of equal mean, peaked v diffuse v diffuse, 20 v 10 v 10": (of_three(shares, (20, 10, 10)), {}),
    }
    for name, (draw, options) in data.items():
        for null in ("sign-flip", "bootstrap-t", "permutation"):
            rows.append((name, f"omnibus, {null}", any_group(draw, null=null, **options)))
    name = "uncorrelated, spread grows with the column's size, n = 30"
    rows += [(name, "studentised r, permuted", correlation), (name, "r, permuted", plain_correlation)]
    for n_folds in (2, 5, 10):
        for signed in (False, True):
            draw = out_of_fold(n_folds, signed)
            name = f"{'signed' if signed else 'unsigned'} evidence out of {n_folds} folds, 50 v 50"
            rows.append((name, "sign-flip, pooled", smallest(draw)))
            rows.append((name, "sign-flip, within folds", within_folds(draw)))
            rows.append((name, "relabelling with retraining", relabelled(n_folds, signed)))
    return rows


def measure(repeats: int, record: Path, *, again: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the table of null rates, whose rows in a record of as many repeats are kept, and that of power."""
    kept = pd.read_csv(record, sep="\t") if record.is_file() else pd.DataFrame({"data": [], "test": [], "repeats": []})
    kept = kept[(kept["repeats"] == repeats) & (not again)].set_index(["data", "test"])
    rates = []
    for name, test, reject in null_rows():
        if (name, test) in kept.index:
            rates.append((name, test, *kept.loc[(name, test)]))
            continue
        results = np.array([reject(seed) for seed in range(repeats)])
        rates.append((name, test, repeats, results[:, 0].mean(), results[:, 1].mean()))
        print(*rates[-1], flush=True)
    powers = []
    for null in ("sign-flip", "bootstrap-t", "permutation"):
        found = []
        for seed in range(repeats):
            values, table = raised(np.random.default_rng(seed))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", GlasWarning)
                result = compare(values, table, "AD", "NC", null=null, n_perm=N_PERM, n_boot=0, seed=seed)
            found.append((result["p_fwe"][:6] <= LEVEL).mean())
        powers.append((null, repeats, float(np.mean(found))))
        print(*powers[-1], flush=True)
    return (
        pd.DataFrame(rates, columns=["data", "test", "repeats", "rejected", "warned"]),
        pd.DataFrame(powers, columns=["test", "repeats", "power"]),
    )


def page(rates: pd.DataFrame, powers: pd.DataFrame) -> str:
    """Return the page."""
    n = int(rates["repeats"].iloc[0])
    error = 100 * 2 * np.sqrt(LEVEL * (1 - LEVEL) / n)
    lines = [
        "# How often the tests of groups err",
        "",
        "Written by `docs/measure/null_rates.py`. Each row draws data in which the means of the groups are equal, or",
        f"in which nothing correlates, {n:,} times, with {N_REGIONS} independent regions and {N_PERM} draws from the null",
        "distribution. *Rejected* is the share of data sets in which the smallest `p_fwe` is at most 0.05. It should be",
        f"5 %; two standard errors are {error:.1f} percentage points. *Warned* is the share in which the test warned of",
        "skewed values and named `--null bootstrap-t`. The tests within folds take 995 draws. Five a group and fold in 10",
        "folds give no p-value below 0.079, so that the 0.0 % of those rows shows only that they cannot reject.",
        "",
        "| data without effect | test | rejected | warned |",
        "|---|---|---|---|",
    ]
    for row in rates.itertuples():
        warned = f"{100 * row.warned:.0f} %" if row.warned else ""
        lines.append(f"| {row.data} | {row.test} | {100 * row.rejected:.1f} % | {warned} |")
    lines += [
        "",
        "## Power",
        "",
        "Six of twenty regions are raised by 1.2 standard deviations, 20 participants against 20. Power is the share of",
        "the six that `p_fwe` finds at 0.05. `permutation` is the only test of earlier versions.",
        "",
        "| test | power |",
        "|---|---|",
        *[f"| {row.test} | {row.power:.3f} |" for row in powers.itertuples()],
        "",
        "## The null hypothesis of each test",
        "",
        "| test | null hypothesis | rejects too often where |",
        "|---|---|---|",
        "| `sign-flip` (default) | The adjusted means of the groups are equal. Spreads may differ; errors are symmetric. "
        "| values are skewed, differently in the groups (it warns) |",
        "| `bootstrap-t` | The adjusted means are equal. Distributions may differ. | nothing measured here; it has less "
        "power in small groups |",
        "| `permutation` | The groups have the same distribution once covariates are held fixed. | means are equal and "
        "spreads differ: that is a rejection of this hypothesis, but no difference of means |",
        "| omnibus | The same as above, of all groups. | as above |",
        "| relabelling with retraining | Labels are independent of scans. | nothing measured here; age or scanner that differ "
        "between the groups are a rejection of this hypothesis |",
        "| correlation | The correlation is 0. The spread may depend on the column. | nothing measured here |",
        "",
        "## Maps out of fold",
        "",
        "The label of a participant trained the models that explain participants of the other folds. Maps of several",
        "folds are therefore not exchangeable between the groups, although each model never saw the scan it explains.",
        "The rows *pooled* show what a test over all folds would do: with signed evidence it rejects too often, the more",
        "so the more folds there are. With the sizes of the evidence of this linear model it does not, which promises",
        "nothing for other models. To hold the fold fixed, as covariate or as block, does not cure it (a finding that this",
        "script does not repeat). Two tests are valid:",
        "",
        "- **Within folds** (the group level does this by itself). Within one fold all maps are by one model, whose training",
        "  knew none of their labels, and they are exchangeable. glas3d tests within each fold and takes the smallest p-value",
        "  times the number of folds. What that costs is power: each test has the participants of one fold only.",
        "- **Relabelling with retraining** (`glas3d.study.relabel_cohort`). Labels are permuted, models trained and everyone",
        f"  explained again, here {RELABELLINGS} times. Its null hypothesis is that labels and scans are independent. What that costs is",
        "  time: every relabelling takes as long as the study.",
        "",
        "Pooled evidence gets no other p-value. An independent sample, explained by one model, is tested as a whole.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=DOCS)
    parser.add_argument("--again", action="store_true")
    given = parser.parse_args()
    rates, powers = measure(given.repeats, given.out / "null_rates.tsv", again=given.again)
    rates.to_csv(given.out / "null_rates.tsv", sep="\t", index=False, float_format="%.4g")
    powers.to_csv(given.out / "null_rates_power.tsv", sep="\t", index=False, float_format="%.4g")
    (given.out / "null_rates.md").write_text(page(rates, powers), encoding="utf-8")


if __name__ == "__main__":
    main()
