"""Tables of regions: values on a common scale, as a matrix of participants by regions, by side and by volume."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from glas3d.core.saliency import minmax
from glas3d.errors import GlasError, GlasWarning, listed
from glas3d.statistics.choices import Normalise, check_normalise

# The least score in centred log-ratios, relative to a participant's largest: 0 has no logarithm.
CLR_FLOOR = 1e-6


def normalised(values: np.ndarray, normalise: Normalise) -> np.ndarray:
    """Return one participant's values on a scale that participants share; NaN stays.

    Parameters
    ----------
    values
        The values, of any shape.
    normalise
        ``"share"``: divided by the sum of their sizes, so that what is compared is how much of the evidence lies in
        a region; a region's share also falls where another rises. ``"clr"``: centred log-ratios, the logarithm less
        the median of the logarithms over the regions, so that a few raised regions do not lower the others; values
        must be 0 or more, and those below `CLR_FLOOR` times the participant's largest count as that. ``"minmax"``: to
        [0, 1], as group maps do; the highest is 1 in every participant, and all others are measured by it.
        ``"none"``: unchanged, so that the amount of evidence counts, too.

    Raises
    ------
    GlasError
        Another ``normalise``, or negative values for centred log-ratios.

    Examples
    --------
    >>> normalised(np.array([1.0, 2.0, 8.0]), "clr").round(3).tolist()
    [-0.693, 0.0, 1.386]
    >>> normalised(np.array([1.0, 2.0, 5.0]), "share").tolist()
    [0.125, 0.25, 0.625]
    >>> normalised(np.array([1.0, 2.0, 5.0]), "minmax").tolist()
    [0.0, 0.25, 1.0]
    """
    check_normalise(normalise)
    scaled = np.array(values, dtype=float)
    known = np.isfinite(scaled)
    if normalise == "minmax" and known.any():
        scaled[known] = minmax(scaled[known])
    if normalise == "share":
        total = np.abs(scaled[known]).sum()
        scaled[known] = scaled[known] / total if total > 0 else 0.0
    if normalise == "clr" and known.any():
        scaled[known] = _log_ratios(scaled[known])
    return scaled


def _log_ratios(values: np.ndarray) -> np.ndarray:
    """Return logarithms of values of 0 or more, less their median; 0 where all are 0."""
    if (values < 0).any():
        raise GlasError(
            f'normalise="clr" takes logarithms of scores, which must be 0 or more, got {values.min():.3g}: '
            'signed scores are compared with normalise="none"'
        )
    largest = values.max()
    if largest == 0:
        return np.zeros(len(values))
    logarithms = np.log(np.maximum(values, CLR_FLOOR * largest))
    return np.asarray(logarithms - np.median(logarithms))


def region_values(table: pd.DataFrame, column: str = "score", *, normalise: Normalise = "none") -> pd.DataFrame:
    """Return one column of a table of regions as participants by regions, the shape that tests take.

    Parameters
    ----------
    table
        One row a participant and region, with ``participant_id index name``.
    column
        The column of values.
    normalise
        Scale of each participant's values, see `normalised`.

    Returns
    -------
    Indexed by ``participant_id``, a column a region by ``name``, both in the table's order.

    Raises
    ------
    GlasError
        A missing column, a participant's region twice, regions that share a name, or participants with different
        regions.
    """
    check_columns(table, "participant_id", "index", "name", column)
    if table.duplicated(["participant_id", "index"]).any():
        raise GlasError("a participant must have one row a region: average the sessions first")
    names = table.drop_duplicates("index").set_index("index")["name"]
    if names.duplicated().any():
        raise GlasError(f"regions need names of their own, two are called {names[names.duplicated()].iloc[0]}")
    wide = table.pivot(index="participant_id", columns="index", values=column)
    wide = wide.loc[table["participant_id"].unique(), names.index]
    n_rows = table.groupby("participant_id", sort=False).size()
    if (n_rows != len(names)).any():
        name = n_rows.index[n_rows != len(names)][0]
        raise GlasError(f"participants must have the same regions, {name} has {n_rows[name]} of {len(names)}")
    values = wide.to_numpy(dtype=float, copy=True)
    for row in values:
        row[:] = normalised(row, normalise)
    return pd.DataFrame(values, index=wide.index, columns=pd.Index(names.to_numpy(), name="name"))


def laterality(table: pd.DataFrame, column: str = "score", *, signed: bool = False) -> pd.DataFrame:
    """Return how far saliency leans to the left: ``(L - R) / (L + R)``, 1 all left, -1 all right.

    Of signed evidence, whose sum may be near 0, it is the difference ``L - R``.

    Parameters
    ----------
    table
        Regions, of one participant or (with ``participant_id``) of many; pairs are known by their names,
        ``<region>_L`` and ``<region>_R``.
    column
        The column of values, which must not be negative unless they are ``signed``.
    signed
        Whether the values are evidence, with its sign.

    Returns
    -------
    One row a pair: ``name left right laterality`` (NaN where both sides are 0), after ``participant_id`` where
    the table has it; ordered as the left regions are.

    Raises
    ------
    GlasError
        A missing column, a negative value, a region twice, or no pair.

    Examples
    --------
    >>> pairs = pd.DataFrame({"name": ["Amygdala_L", "Amygdala_R", "Vermis_3"], "score": [0.3, 0.1, 0.5]})
    >>> laterality(pairs).round(6).to_dict("records")
    [{'name': 'Amygdala', 'left': 0.3, 'right': 0.1, 'laterality': 0.5}]
    """
    check_columns(table, "name", column)
    values = table[column].to_numpy(dtype=float)
    if not signed and (values < 0).any():
        raise GlasError(f"laterality needs values of 0 or more, {column} has {np.nanmin(values):g}")
    participant = ["participant_id"] if "participant_id" in table else []
    if table.duplicated([*participant, "name"]).any():
        raise GlasError("laterality needs one row a participant and region: average the sessions first")
    sides = []
    for side, end in (("left", "_L"), ("right", "_R")):
        rows = table.loc[table["name"].str.endswith(end), [*participant, "name", column]]
        sides.append(rows.assign(name=rows["name"].str.removesuffix(end)).rename(columns={column: side}))
    pairs = sides[0].merge(sides[1], on=[*participant, "name"])
    if pairs.empty:
        raise GlasError("laterality needs regions whose names end in _L and _R, there is no such pair")
    total = (pairs["left"] + pairs["right"]).to_numpy(dtype=float)
    difference = (pairs["left"] - pairs["right"]).to_numpy(dtype=float)
    if signed:
        return pairs.assign(laterality=difference)
    index = np.divide(difference, total, out=np.full(len(total), np.nan), where=total != 0)
    return pairs.assign(laterality=index)


def relative_density(table: pd.DataFrame, column: str = "score") -> pd.DataFrame:
    """Return each region's share of the saliency and its share of the volume.

    ``relative_density = saliency_share / volume_share``: above 1, a region is more salient than it is large. Shares are
    of the regions that have a value, a participant at a time where the table has ``participant_id``.

    Parameters
    ----------
    table
        Regions with ``n_voxels``.
    column
        The column of values, which must not be negative.

    Returns
    -------
    The table with ``saliency_share``, ``volume_share`` and ``relative_density``; NaN where there is no value, or no
    saliency at all.

    Raises
    ------
    GlasError
        A missing column or a negative value.

    Examples
    --------
    >>> two = pd.DataFrame({"name": ["Amygdala_L", "Fusiform_L"], "n_voxels": [10, 90], "score": [0.3, 0.1]})
    >>> relative_density(two)["relative_density"].round(3).tolist()
    [7.5, 0.278]
    """
    check_columns(table, "n_voxels", column)
    values = table[column].astype(float)
    if (values < 0).any():
        raise GlasError(f"relative density needs values of 0 or more, {column} has {values.min():g}")
    voxels = table["n_voxels"].astype(float).where(values.notna() & (table["n_voxels"] > 0))
    values = values.where(voxels.notna())
    participant = table["participant_id"] if "participant_id" in table else pd.Series(0, index=table.index)
    saliency, volume = (
        column_values / column_values.groupby(participant).transform("sum").replace(0, np.nan)
        for column_values in (values, voxels)
    )
    return table.assign(saliency_share=saliency, volume_share=volume, relative_density=saliency / volume)


def as_matrix(
    values: np.ndarray | pd.DataFrame, participants: pd.DataFrame | None = None
) -> tuple[np.ndarray, list[str]]:
    """Return values as ``(participants, regions)`` float64, and the regions' names.

    Parameters
    ----------
    values
        The columns of a DataFrame are names; an array's regions are called by number from 1.
    participants
        The table of participants whose values these are, in the same order. Default: not checked.

    Raises
    ------
    GlasError
        The values have not two axes, or their rows are not those of the participants.
    """
    data = np.asarray(values, dtype=float)
    if data.ndim != 2 or not data.size:
        raise GlasError(f"values must be participants by regions, got an array of {data.shape}")
    if participants is not None:
        if len(data) != len(participants):
            raise GlasError(f"values must have a row a participant, got {len(data)} for {len(participants)}")
        if isinstance(values, pd.DataFrame) and values.index.name == "participant_id":
            ids = participants.get("participant_id", participants.index)
            for number, (row, expected) in enumerate(zip(values.index, ids, strict=True), start=1):
                if row != expected:
                    raise GlasError(
                        f"the rows of the values must be the participants in order, row {number} is {row}, "
                        f"the participant {expected}"
                    )
    names = values.columns if isinstance(values, pd.DataFrame) else range(1, data.shape[1] + 1)
    return data, [str(name) for name in names]


def complete_regions(data: np.ndarray, names: list[str]) -> np.ndarray:
    """Return which regions have a value in every row, and warn of those that have one in some rows only.

    Parameters
    ----------
    data
        ``(participants, regions)``; NaN where there is no value.
    names
        The regions' names.

    Warns
    -----
    GlasWarning
        Regions that some participants lack.
    """
    known = np.isfinite(data)
    some = known.any(axis=0) & ~known.all(axis=0)
    if some.any():
        lacking = [f"{names[i]} ({int((~known[:, i]).sum())} of {len(data)})" for i in np.flatnonzero(some)]
        message = f"regions without a value in every participant are left out: {listed(lacking)}"
        warnings.warn(message, GlasWarning, stacklevel=3)
    return np.asarray(known.all(axis=0))


def check_columns(table: pd.DataFrame, *columns: str) -> None:
    """Refuse a table of regions that lacks a column."""
    if any(column not in table for column in columns):
        present = ", ".join(map(str, table.columns))
        raise GlasError(f"a table of regions needs the columns {', '.join(columns)}, it has {present}")
