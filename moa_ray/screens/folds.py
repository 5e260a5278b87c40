"""Folds: which groups are held out, and what may be learnt from for each of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moa_ray import unknowns
from moa_ray.tables import (
    CELL_LINE,
    COMPOUND,
    FOLD,
    LABEL,
    METADATA_PREFIX,
    TREATMENT,
    WEEK,
    WELL_KEY,
    metadata_columns,
    require_columns,
    require_unique,
)

# What a sweep file calls the columns that every screen may have; any other column goes by its own name.
_COLUMNS = {"compound": COMPOUND, "cell_line": CELL_LINE, "week": WEEK, unknowns.WORD: LABEL}
_WORDS = {column: word for word, column in _COLUMNS.items()}


class Split(NamedTuple):
    """Positions of rows in one table, ascending; the two share none."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]


@dataclass(frozen=True)
class Fold:
    """One held-out group.

    name : the held-out columns and the group, ``compound=PP-2`` or ``compound,week=PP-2``
    column : metadata column that makes the groups
    value : the group that is held out
    also : further columns; training shares no value of them with the held-out rows
    excluded : why this fold cannot be trained, None where it can
    beside : compounds of other labels that are held out too, where the group is a label; see `moa_ray.unknowns`
    """

    name: str
    column: str
    value: Any
    also: tuple[str, ...] = ()
    excluded: str | None = None
    beside: tuple[str, ...] = ()

    def split(self, table: pd.DataFrame) -> Split:
        """Rows to learn from and rows to predict, of any table with the fold's columns.

        With several columns some rows are in neither part: another compound, but of a held-out week.
        """
        _require_known(table, [self.column, *self.also])
        test = (table[self.column] == self.value).to_numpy(dtype=bool)
        if self.beside:
            test = test | table[COMPOUND].isin(self.beside).to_numpy(dtype=bool)
        shared = test.copy()
        for column in self.also:
            shared |= table[column].isin(table.loc[test, column].unique()).to_numpy(dtype=bool)
        return Split(train=np.flatnonzero(~shared), test=np.flatnonzero(test))

    def scored(self, table: pd.DataFrame) -> NDArray[np.int64]:
        """Those rows to predict that can be right: a label that is held out whole cannot be."""
        test = self.split(table).test
        return test[(table[LABEL].iloc[test] != self.value).to_numpy(dtype=bool)] if self.column == LABEL else test


def make_folds(fields: pd.DataFrame, hold_out: str | Sequence[str]) -> list[Fold]:
    """One fold for each group of the first column, sorted by name; those that cannot be trained say why.

    fields : the labelled rows of a field table
    hold_out : ``compound``, ``cell_line``, ``week``, ``label`` or any metadata column, with or without its prefix; of
        several columns the first makes the groups and training shares no value of any with the held-out rows
    Raises ValueError if there is no such column, if it has missing values, or if a label is combined with another.
    """
    columns = [_column(fields, word) for word in ([hold_out] if isinstance(hold_out, str) else hold_out)]
    if not columns or len(set(columns)) < len(columns):
        raise ValueError(f"folds.hold_out: one column or several different ones, but got {hold_out!r}")
    if LABEL in columns and len(columns) > 1:
        raise ValueError(
            f"folds.hold_out: {unknowns.WORD} is held out alone, but got {list(hold_out)}; leave out the other columns"
        )
    _require_known(fields, columns)
    words = ",".join(_word(column) for column in columns)
    first, *also = [*columns, COMPOUND] if LABEL in columns else columns
    others = unknowns.beside(fields) if first == LABEL else {}
    folds = []
    for value in fields[first].unique():
        fold = Fold(f"{words}={_text(value)}", first, value, tuple(also), beside=others.get(value, ()))
        folds.append(replace(fold, excluded=_reason(fields, fold)))
    return sorted(folds, key=lambda fold: fold.name)


def unscored(fields: pd.DataFrame, folds: Sequence[Fold]) -> pd.DataFrame:
    """The treatments that no fold can score: compound, concentration, label, fold, reason.

    Those that lie in folds that cannot be trained, and where labels are held out the only compounds of theirs.

    fields : the labelled rows that the folds were made of
    """
    scored = np.zeros(len(fields), dtype=bool)
    lost: dict[int, Fold] = {}
    for fold in folds:
        if fold.excluded is None:
            scored[fold.scored(fields)] = True
        lost |= dict.fromkeys(fold.split(fields).test.tolist(), fold)
    key = pd.MultiIndex.from_frame(fields[TREATMENT])
    rows = np.flatnonzero(~key.isin(key[scored])).tolist()
    left = [lost[row] for row in rows]
    reasons = [fold.excluded or unknowns.ALONE for fold in left]
    names = {FOLD: [fold.name for fold in left], "reason": reasons}
    table = fields.iloc[rows][[*TREATMENT, LABEL]].assign(**names)
    return table.drop_duplicates(TREATMENT).sort_values([LABEL, *TREATMENT], ignore_index=True)


def validation_split(
    train_table: pd.DataFrame, share: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions to fit on and positions to watch: whole wells, spread over treatments, never a label's last well.

    share : of the wells that is watched, above 0 and below 1; fewer are where labels have too few wells
    The draw depends on the wells, not on the order of the rows.
    Raises ValueError if a well holds two treatments.
    """
    if not 0 < share < 1:
        raise ValueError(f"validation.share must lie above 0 and below 1, but got {share}")
    wells = train_table[[*WELL_KEY, *TREATMENT, LABEL]].drop_duplicates().sort_values(WELL_KEY, ignore_index=True)
    require_unique(wells, WELL_KEY, "training wells")
    watched = wells.loc[_drawn(wells, share, rng), WELL_KEY]
    is_watched = pd.MultiIndex.from_frame(train_table[WELL_KEY]).isin(pd.MultiIndex.from_frame(watched))
    return np.flatnonzero(~is_watched), np.flatnonzero(is_watched)


def _drawn(wells: pd.DataFrame, share: float, rng: np.random.Generator) -> list[int]:
    """Rows of the wells drawn: one of every treatment in random order, then a second one of each, and so on."""
    shuffled = wells.iloc[rng.permutation(len(wells))]
    order = shuffled.groupby(TREATMENT).cumcount().sort_values(kind="stable").index
    wanted = max(1, round(share * len(wells)))
    left = wells[LABEL].value_counts().to_dict()
    drawn: list[int] = []
    for row in order:
        label = wells.at[row, LABEL]
        if len(drawn) < wanted and left[label] > 1:
            left[label] -= 1
            drawn.append(row)
    return drawn


def _column(fields: pd.DataFrame, word: str) -> str:
    """The metadata column that a sweep file means."""
    known = metadata_columns(fields)
    for column in (_COLUMNS.get(word, word), METADATA_PREFIX + word):
        if column in known:
            return column
    names = ", ".join(map(_word, known))
    raise ValueError(f"folds.hold_out: the screen has no column {word!r}; it has {names}")


def _word(column: str) -> str:
    """What a sweep file calls a column; a screen's own column that is called as another goes by its full name."""
    word = _WORDS.get(column, column.removeprefix(METADATA_PREFIX))
    return column if word == unknowns.WORD and column != LABEL else word


def _require_known(table: pd.DataFrame, columns: Sequence[str]) -> None:
    require_columns(table, columns, "folds")
    for column in columns:
        missing = int(table[column].isna().sum())
        if missing:
            raise ValueError(
                f"folds: {column} is missing in {missing} of {len(table)} rows; fill it in, or hold out another column"
            )


def _text(value: object) -> str:
    """A group in a fold's name; whole numbers are written without a decimal point."""
    if isinstance(value, float | np.floating):
        return str(int(value)) if float(value).is_integer() else repr(float(value))
    return str(value)


def _reason(fields: pd.DataFrame, fold: Fold) -> str | None:
    """Why a fold cannot be trained, or None."""
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
