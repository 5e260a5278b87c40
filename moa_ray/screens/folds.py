"""Folds: which groups are held out, and what may be learnt from for each of them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moa_ray.common import schema
from moa_ray.common.errors import InputError
from moa_ray.common.schema import (
    CELL_LINE,
    COMPOUND,
    FOLD,
    LABEL,
    METADATA_PREFIX,
    TREATMENT,
    WEEK,
    metadata_columns,
    require_columns,
)
from moa_ray.screens.open_set_folds import ALONE, known_compounds

# What a sweep file calls the columns that every screen may have; any other column goes by its own name.
_COLUMNS = {"compound": COMPOUND, "cell_line": CELL_LINE, "week": WEEK, schema.WORD: LABEL}
_WORDS = {column: word for word, column in _COLUMNS.items()}


class FoldRows(NamedTuple):
    """Positions of a fold's rows in one table, ascending; the two parts share none.

    Attributes
    ----------
    train, test : array of int64
        Rows to learn from, and rows to predict.
    """

    train: NDArray[np.int64]
    test: NDArray[np.int64]


@dataclass(frozen=True)
class Fold:
    """One held-out group.

    Attributes
    ----------
    name : str
        The held-out columns and the group, ``compound=PP-2`` or ``compound,week=PP-2``.
    column : str
        The metadata column that makes the groups.
    value : object
        The group that is held out, a value of that column.
    also : tuple of str
        Further columns; training shares no value of them with the held-out rows.
    excluded : str or None
        Why this fold cannot be trained, None where it can.
    known : tuple of str
        Where the group is a label, compounds of other labels that are held out too.
    train_only : tuple of str
        Labels that are never predicted. Their fields of the held-out group are in neither part.
    """

    name: str
    column: str
    value: Any
    also: tuple[str, ...] = ()
    excluded: str | None = None
    known: tuple[str, ...] = ()
    train_only: tuple[str, ...] = ()

    def split(self, table: pd.DataFrame) -> FoldRows:
        """Find the rows to learn from and the rows to predict.

        With several columns some rows are in neither part: another compound, but of a held-out week.

        Parameters
        ----------
        table : DataFrame
            Any table with the fold's columns and the label, of fields or of tiles.

        Returns
        -------
        FoldRows
            Positions in the table.

        Raises
        ------
        InputError
            If one of the fold's columns has missing values.
        """
        _require_known(table, [self.column, *self.also])
        test = (table[self.column] == self.value).to_numpy(dtype=bool)
        if self.known:
            test = test | table[COMPOUND].isin(self.known).to_numpy(dtype=bool)
        shared = test.copy()
        if self.train_only:
            test = test & ~table[LABEL].isin(self.train_only).to_numpy(dtype=bool)
        for column in self.also:
            shared |= table[column].isin(table.loc[test, column].unique()).to_numpy(dtype=bool)
        return FoldRows(train=np.flatnonzero(~shared), test=np.flatnonzero(test))

    def scored(self, table: pd.DataFrame) -> NDArray[np.int64]:
        """Find the rows to predict that can be right: a label that is held out whole cannot be.

        Parameters
        ----------
        table : DataFrame
            Any table with the fold's columns and the label.

        Returns
        -------
        array of int64
            Positions in the table, a part of `FoldRows.test`.
        """
        test = self.split(table).test
        return test[(table[LABEL].iloc[test] != self.value).to_numpy(dtype=bool)] if self.column == LABEL else test


def make_folds(fields: pd.DataFrame, hold_out: str | Sequence[str], train_only: Collection[str] = ()) -> list[Fold]:
    """Make one fold for each group of the held-out column that has fields to predict.

    Parameters
    ----------
    fields : DataFrame, one row per field
        The labelled rows of a field table.
    hold_out : str or sequence of str
        ``compound``, ``cell_line``, ``week``, ``label`` or any metadata column, with or without its prefix. Of several
        columns the first makes the groups, and training shares no value of any with the held-out rows.
    train_only : collection of str
        Labels that are never predicted.

    Returns
    -------
    list of Fold
        Sorted by name; those that cannot be trained say why.

    Raises
    ------
    InputError
        If there is no such column, if it has missing values, or if the label is combined with another column.
    """
    columns = [_column(fields, word) for word in ([hold_out] if isinstance(hold_out, str) else hold_out)]
    if not columns or len(set(columns)) < len(columns):
        raise InputError(f"folds.hold_out: one column or several different ones, but got {hold_out!r}")
    if LABEL in columns and len(columns) > 1:
        raise InputError(
            f"folds.hold_out: {schema.WORD} is held out alone, but got {list(hold_out)}; leave out the other columns"
        )
    _require_known(fields, columns)
    words = ",".join(_word(column) for column in columns)
    first, *also = [*columns, COMPOUND] if LABEL in columns else columns
    predicted = fields[~fields[LABEL].isin(list(train_only))]
    known = known_compounds(fields, train_only) if first == LABEL else {}
    never = tuple(sorted(train_only))
    folds = []
    for value in predicted[first].unique():
        fold = Fold(f"{words}={_text(value)}", first, value, tuple(also), None, known.get(value, ()), never)
        folds.append(replace(fold, excluded=_reason(fields, fold)))
    return sorted(folds, key=lambda fold: fold.name)


def unscored(fields: pd.DataFrame, folds: Sequence[Fold]) -> pd.DataFrame:
    """List the treatments that no fold can score.

    They lie in folds that cannot be trained, or are of a label's only compound where labels are held out. Those of
    labels that are never predicted are not among them.

    Parameters
    ----------
    fields : DataFrame, one row per field
        The labelled rows that the folds were made of.
    folds : sequence of Fold
        All folds.

    Returns
    -------
    DataFrame, one row per treatment
        Compound, concentration, label, ``fold`` and ``reason``.
    """
    scored = np.zeros(len(fields), dtype=bool)
    lost: dict[int, Fold] = {}
    for fold in folds:
        if fold.excluded is None:
            scored[fold.scored(fields)] = True
        lost |= dict.fromkeys(fold.split(fields).test.tolist(), fold)
    key = pd.MultiIndex.from_frame(fields[TREATMENT])
    rows = [row for row in np.flatnonzero(~key.isin(key[scored])).tolist() if row in lost]
    left = [lost[row] for row in rows]
    reasons = [fold.excluded or ALONE for fold in left]
    names = {FOLD: [fold.name for fold in left], "reason": reasons}
    table = fields.iloc[rows][[*TREATMENT, LABEL]].assign(**names)
    return table.drop_duplicates(TREATMENT).sort_values([LABEL, *TREATMENT], ignore_index=True)


def _column(fields: pd.DataFrame, word: str) -> str:
    """Return the metadata column that a sweep file means."""
    columns = metadata_columns(fields)
    for column in (_COLUMNS.get(word, word), METADATA_PREFIX + word):
        if column in columns:
            return column
    names = ", ".join(map(_word, columns))
    raise InputError(f"folds.hold_out: the screen has no column {word!r}; it has {names}")


def _word(column: str) -> str:
    """Return what a sweep file calls a column; a column that is called as another goes by its full name."""
    word = _WORDS.get(column, column.removeprefix(METADATA_PREFIX))
    return column if word == schema.WORD and column != LABEL else word


def _require_known(table: pd.DataFrame, columns: Sequence[str]) -> None:
    require_columns(table, columns, "folds")
    for column in columns:
        missing = int(table[column].isna().sum())
        if missing:
            raise InputError(
                f"folds: {column} is missing in {missing} of {len(table)} rows; fill it in, or hold out another column"
            )


def _text(value: object) -> str:
    """Write a group for a fold's name; whole numbers are written without a decimal point."""
    if isinstance(value, float | np.floating):
        return str(int(value)) if float(value).is_integer() else repr(float(value))
    return str(value)


def _reason(fields: pd.DataFrame, fold: Fold) -> str | None:
    """Say why a fold cannot be trained, or None."""
    split = fold.split(fields)
    trained, held_out = (set(fields[LABEL].iloc[part]) for part in (split.train, fold.scored(fields)))
    lacking = sorted(held_out - trained)
    if lacking:
        names = ", ".join(repr(label) for label in lacking)
        advice = "hold out fewer columns" if fold.also else "hold out another column"
        return f"no training field is left for label {names}; {advice} or drop the label"
    if len(trained) < 2:
        return f"training fields of at least 2 labels are needed, but {len(trained)} is left"
    return None
