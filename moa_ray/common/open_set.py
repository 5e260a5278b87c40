"""Open set: the rows of a table whose label was held out whole, which no accuracy counts.

A compound whose label is in no training fold cannot be predicted rightly. What a screener needs is that the network
is less sure of it than of a compound whose label it has learnt. So each fold of ``folds.hold_out: label`` predicts two
parts with one network: all compounds of the label, *unknown* to it, and some compounds of other labels, *known* to it.
Over all folds each compound is known once, where its label has another compound to be learnt from.

Tables of predictions, wells and treatments say in the column ``open_set`` which rows are of the first part. Accuracies
are of the others alone, the closed set.

References
----------
Scheirer, Rocha, Sapkota and Boult 2013, "Toward open set recognition".
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moa_ray.common.schema import FOLD, LABEL, OPEN_SET, WORD

_PREFIX = f"{WORD}="


def holds_out_labels(table: pd.DataFrame) -> bool:
    """Tell whether the folds of a table held out labels.

    Parameters
    ----------
    table : DataFrame
        Predictions of tiles, wells or treatments; all its folds are of one kind.

    Returns
    -------
    bool
        False where the table has no rows or no folds.
    """
    return FOLD in table and len(table) > 0 and str(table[FOLD].iat[0]).startswith(_PREFIX)


def marks(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which rows are of a label that their fold held out whole.

    Parameters
    ----------
    table : DataFrame
        Predictions of tiles, wells or treatments.

    Returns
    -------
    ndarray of bool, shape (n_rows,)
        The column ``open_set``; where the table lacks it, what fold and label say.
    """
    held_out = np.zeros(len(table), dtype=np.bool_)
    if OPEN_SET in table and not table[OPEN_SET].isna().any():
        held_out = table[OPEN_SET].to_numpy(dtype=np.bool_)
    elif holds_out_labels(table):
        held_out = (table[FOLD] == _PREFIX + table[LABEL]).to_numpy(dtype=np.bool_)
    return held_out


def with_marks(table: pd.DataFrame) -> pd.DataFrame:
    """Give a table the column ``open_set``.

    Parameters
    ----------
    table : DataFrame
        Predictions of tiles, wells or treatments, made before there was the column, or with it.

    Returns
    -------
    DataFrame
        The same rows.
    """
    return table.assign(**{OPEN_SET: marks(table)})


def closed_set(table: pd.DataFrame) -> pd.DataFrame:
    """Select the rows that count: all but those of a label that their fold held out whole.

    Parameters
    ----------
    table : DataFrame
        Predictions of tiles, wells or treatments.

    Returns
    -------
    DataFrame
        With all columns.
    """
    held_out = marks(table)
    return table[~held_out] if held_out.any() else table


def open_set(table: pd.DataFrame) -> pd.DataFrame:
    """Select the rows of a label that their fold held out whole, which cannot be right.

    Parameters
    ----------
    table : DataFrame
        Predictions of tiles, wells or treatments.

    Returns
    -------
    DataFrame
        With all columns.
    """
    return table[marks(table)]
