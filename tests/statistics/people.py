"""Made-up participants and their saliency, for tests of statistics."""

import numpy as np
import pandas as pd


def people(n_case, n_control, *, sites=None, seed=0):
    """Return a table, cases first; age and intracranial volume differ a little between the groups."""
    rng = np.random.default_rng(seed)
    n = n_case + n_control
    table = pd.DataFrame(
        {
            "participant_id": [f"sub-{i:02d}" for i in range(1, n + 1)],
            "group": ["AD"] * n_case + ["NC"] * n_control,
            "age": 75 + 6 * rng.normal(size=n) + np.repeat([2.0, 0.0], [n_case, n_control]),
            "icv": 1.5e6 + 1e5 * rng.normal(size=n),
            "sex": rng.permutation(["F", "M"] * n)[:n],
        }
    )
    if sites is not None:
        table["site"] = list(sites)
    return table


def saliency(table, p=4, *, seed=0, effect=0.0, age=0.0, site=0.0):
    """Return participants by regions, correlated; the ``effect`` of AD is in the first region only."""
    rng = np.random.default_rng([seed, 1])
    n = len(table)
    values = 3 + rng.normal(size=(n, p)) + rng.normal(size=(n, 1))
    values[:, 0] += effect * (table["group"] == "AD")
    values += age * (table["age"].to_numpy() - 75)[:, None] / 6
    if "site" in table:
        values += site * pd.factorize(table["site"])[0][:, None]
    names = [f"region{i}" for i in range(1, p + 1)]
    return pd.DataFrame(values, columns=names, index=pd.Index(table["participant_id"], name="participant_id"))


def within(p, exact, n_perm, sigmas=4.5):
    """Return whether Monte Carlo p-values agree with exact ones, to their sampling error."""
    error = sigmas * np.sqrt(np.maximum(exact * (1 - exact), 1 / n_perm) / n_perm)
    return (np.abs(p - exact) <= error + 1 / n_perm).all()


def bootstrapped(statistic, *samples, paired=False, n=4000):
    """Return the 95 % percentile bootstrap interval, by a plain loop."""
    rng = np.random.default_rng(12345)
    resampled = []
    for _ in range(n):
        rows = [rng.integers(len(each), size=len(each)) for each in samples]
        resampled.append(statistic(*(np.asarray(each)[rows[0 if paired else i]] for i, each in enumerate(samples))))
    return np.percentile(resampled, [2.5, 97.5])
