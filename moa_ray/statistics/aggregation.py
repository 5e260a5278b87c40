"""Aggregate tile probabilities to wells and wells to treatments.

A prediction table has one row per held-out tile: its ``Metadata_*`` columns, ``fold``, ``candidate``, ``backbone``, and
one ``prob_<label>`` per class. The unit that counts is the treatment. All functions are pure functions over tables.

References
----------
Kensert, Harrison and Spjuth 2019, "median over fields, then replicates".
"""

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moa_ray.common.errors import InputError
from moa_ray.common.open_set import closed_set, marks, open_set, with_marks
from moa_ray.common.schema import (
    BACKBONE,
    CANDIDATE,
    FOLD,
    LABEL,
    METHOD,
    OPEN_SET,
    SAMPLE,
    TILE_KEY,
    TREATMENT,
    WELL_KEY,
    labels_of,
    probability_column,
    probability_columns,
    require_columns,
    require_unique,
)
from moa_ray.statistics.units import Unit, unit_columns, unit_of

Aggregation = Literal["median", "mean"]

PREDICTED = "predicted"
REPLICATES = "replicates"  # wells with at least one tile
TILES = "tiles"


def wells(
    predictions: pd.DataFrame, how: Aggregation = "median", apart: bool = False, held_out: bool = False
) -> pd.DataFrame:
    """Aggregate tile probabilities to wells, the replicates of a treatment.

    Parameters
    ----------
    predictions : DataFrame, one row per tile
        Columns ``Metadata_*``, ``candidate``, ``fold``, ``backbone`` and one ``prob_<label>`` per class.
    how : {"median", "mean"}
        Reduction over the tiles of a well.
    apart : bool
        Keep what several folds predicted apart, one row per fold.
    held_out : bool
        Take the rows of the open set, whose labels were held out whole, in place of those that count.

    Returns
    -------
    DataFrame, one row per candidate and well
        Key, ``backbone``, ``fold``, label, ``open_set``, ``predicted``, ``tiles`` (int64) and the probabilities
        (float64).

    Raises
    ------
    ValueError
        If one candidate predicts a tile twice, a well's treatment carries two labels, or a true label has no
        probability.
    """
    key = [CANDIDATE, *TILE_KEY]
    require_columns(predictions, [*key, *TREATMENT, LABEL, FOLD, BACKBONE], "predictions")
    rows = with_marks(open_set(predictions) if held_out else closed_set(predictions))
    require_unique(rows, key, "predictions")
    tiles = rows.assign(**{TILES: 1})
    return _collapse(tiles, [*_group_key(apart), *WELL_KEY, *TREATMENT], how, [TILES])


def treatments(
    predictions: pd.DataFrame, how: Aggregation = "median", apart: bool = False, held_out: bool = False
) -> pd.DataFrame:
    """Aggregate tile probabilities to treatments: over the tiles of each well, then over the wells.

    Parameters
    ----------
    predictions : DataFrame, one row per tile
        Columns ``Metadata_*``, ``candidate``, ``fold``, ``backbone`` and one ``prob_<label>`` per class. Where it says
        that wells or compounds count (`moa_ray.statistics.units.with_unit`), these stand in place of treatments.
    how : {"median", "mean"}
        Reduction over the tiles of a well, then over the wells of a treatment.
    apart : bool
        Aggregate each fold by itself, one row per fold. Otherwise a treatment that several folds predicted names them
        all.
    held_out : bool
        Take the rows of the open set, whose labels were held out whole, in place of those that count.

    Returns
    -------
    DataFrame, one row per candidate and treatment
        Candidate, treatment, ``backbone``, ``fold``, label, ``open_set``, ``predicted``, ``replicates`` (wells with at
        least one tile) and ``tiles`` (int64), and the probabilities (float64), which are not renormalised.

    Raises
    ------
    ValueError
        As `wells` does.

    References
    ----------
    Kensert, Harrison and Spjuth 2019, "median over fields, then replicates".
    """
    return over_wells(wells(predictions, how, apart, held_out), how, apart, unit_of(predictions))


def sampled(samples: pd.DataFrame, how: Aggregation = "median") -> pd.DataFrame:
    """Aggregate each sample of the probabilities to treatments, as `treatments` does for the tiles as predicted.

    A treatment that one fold predicted as a known one and another as an unknown one has a row for each, told apart by
    ``open_set``.

    Parameters
    ----------
    samples : DataFrame, one row per tile, method and sample
        As predictions, with ``method`` and ``sample``.
    how : {"median", "mean"}
        Reduction over tiles, then over wells.

    Returns
    -------
    DataFrame, one row per candidate, method, sample and treatment
    """
    require_columns(samples, [METHOD, SAMPLE], "samples")
    tables = []
    for held_out, part in samples.groupby(marks(samples)):
        for (method, sample), rows in part.groupby([METHOD, SAMPLE]):
            table = treatments(rows.drop(columns=[METHOD, SAMPLE]), how, held_out=bool(held_out))
            table.insert(1, METHOD, method)
            table.insert(2, SAMPLE, sample)
            tables.append(table)
    return pd.concat(tables, ignore_index=True)


def over_wells(by_well: pd.DataFrame, how: Aggregation, apart: bool = False, unit: Unit = "treatment") -> pd.DataFrame:
    """Aggregate wells to treatments, or to what else counts as one.

    Parameters
    ----------
    by_well : DataFrame, one row per candidate and well
        As `wells` makes it.
    how : {"median", "mean"}
        Reduction over the wells of a treatment.
    apart : bool
        Aggregate each fold by itself.
    unit : {"treatment", "well", "compound"}
        What counts as one.

    Returns
    -------
    DataFrame, one row per candidate and unit
    """
    named = unit_columns(by_well, unit)
    rows = by_well.assign(**{REPLICATES: 1, **{name: named[name] for name in named}})
    return _collapse(rows, [*_group_key(apart), *named], how, [REPLICATES, TILES])


def _group_key(apart: bool) -> list[str]:
    return [CANDIDATE, FOLD] if apart else [CANDIDATE]


def predicted(table: pd.DataFrame) -> pd.Series:
    """Return the label with the highest probability of each row; of equal ones the first in the table's order.

    Parameters
    ----------
    table : DataFrame
        With one ``prob_<label>`` per class.

    Returns
    -------
    Series of str, on the table's index
    """
    names = np.array(labels_of(table), dtype=object)
    return pd.Series(names[probabilities(table).argmax(axis=1)], index=table.index, name=PREDICTED, dtype=str)


def renormalise(table: pd.DataFrame) -> pd.DataFrame:
    """Scale the probabilities of each row so that they sum to 1; a row of zeros becomes uniform.

    Parameters
    ----------
    table : DataFrame
        With one ``prob_<label>`` per class.

    Returns
    -------
    DataFrame
        A copy with new probabilities.
    """
    columns = probability_columns(table)
    values = probabilities(table)
    total = values.sum(axis=1, keepdims=True)
    even = np.full_like(values, 1 / len(columns))
    return table.assign(**dict(zip(columns, np.divide(values, total, out=even, where=total > 0).T, strict=True)))


def _collapse(table: pd.DataFrame, over: list[str], how: Aggregation, counts: list[str]) -> pd.DataFrame:
    """Aggregate the probabilities over groups; labels are carried along, counts are added up."""
    _require_labels(table)
    number = table.groupby(over, dropna=False).ngroup().to_numpy()
    rows = np.unique(number, return_index=True)[1]  # the first of each group
    _require_one_label(table, over, number, rows)
    middle = _middle(table, number, how)
    carried = table.iloc[rows][[*over, BACKBONE, LABEL, OPEN_SET]].reset_index(drop=True)
    totals = {name: np.bincount(number, weights=table[name]).astype(np.int64) for name in counts}
    carried = carried.assign(**{FOLD: _joined(table[FOLD], number, rows), PREDICTED: predicted(middle), **totals})
    names = list(dict.fromkeys([*over, BACKBONE, FOLD, LABEL, OPEN_SET, PREDICTED, *counts]))
    return pd.concat([carried[names], middle], axis=1)


def _middle(table: pd.DataFrame, number: NDArray[np.int64], how: Aggregation) -> pd.DataFrame:
    """Return the median or mean of every probability, one row per group; rows of medians need not sum to 1."""
    if how not in ("median", "mean"):
        raise InputError(f"aggregate: 'median' or 'mean', but got {how!r}")
    values = probabilities(table)
    missing = int(np.isnan(values).any(axis=1).sum())
    if missing:
        raise InputError(f"predictions: {missing} of {len(table)} rows lack a probability")
    middle = pd.DataFrame(values).groupby(number).agg(how)
    return pd.DataFrame(middle.to_numpy(), columns=probability_columns(table))


def _joined(folds: pd.Series, number: NDArray[np.int64], rows: NDArray[np.int64]) -> list[str]:
    """Return the fold of each group, several joined by semicolons."""
    names = folds.to_numpy(dtype=object)
    joined = names[rows]
    for group in np.unique(number[names != joined[number]]):
        joined[group] = "; ".join(sorted(set(names[number == group])))
    return list(joined)


def _require_one_label(
    table: pd.DataFrame, over: list[str], number: NDArray[np.int64], rows: NDArray[np.int64]
) -> None:
    labels = table[LABEL].to_numpy(dtype=object)
    ambiguous = np.unique(number[labels != labels[rows][number]])
    if len(ambiguous):
        first = table.iloc[rows[ambiguous[0]]][over].to_dict()
        listed = ", ".join(sorted(set(labels[number == ambiguous[0]])))
        raise InputError(f"predictions: {len(ambiguous)} groups carry two labels, the first is {first}: {listed}")


def _require_labels(table: pd.DataFrame) -> None:
    missing = int(table[LABEL].isna().sum())
    if missing:
        raise InputError(
            f"predictions: {LABEL} is missing in {missing} of {len(table)} rows; predict labelled wells only"
        )
    unknown = sorted(set(table[LABEL]) - set(labels_of(table)))
    if unknown:
        raise InputError(
            f"predictions: no column {probability_column(unknown[0])} for the true label {unknown[0]!r}; "
            f"there are probabilities for {', '.join(labels_of(table)) or 'no label'}"
        )


def probabilities(table: pd.DataFrame) -> NDArray[np.float64]:
    """Return the probabilities of a table.

    Parameters
    ----------
    table : DataFrame
        With one ``prob_<label>`` per class.

    Returns
    -------
    ndarray of float64, shape (n_rows, n_labels)
    """
    values: NDArray[np.float64] = table[probability_columns(table)].to_numpy(dtype=np.float64)
    return values
