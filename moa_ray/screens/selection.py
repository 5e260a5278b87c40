"""Rows that are chosen by the values of their columns: those of a screen, and its controls."""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pandas as pd

from moa_ray.common.errors import InputError
from moa_ray.common.schema import COMPOUND, LABEL, WELL
from moa_ray.common.spelling import shown, spelling_key
from moa_ray.common.text import listed
from moa_ray.config.screen_rows import AliasNames, Condition, ControlRows, Value
from moa_ray.screens.names import one_name
from moa_ray.screens.screen import Problem, problem, well_names
from moa_ray.screens.text_cells import clean_column

_KNOWN = 5  # values that a message names


@dataclass(frozen=True)
class Columns:
    """The columns that a condition may name: those that are mapped, then the table's own.

    Attributes
    ----------
    mapped : DataFrame of str, one row per row of the table
        Clean, by ``Metadata_*`` name.
    table : DataFrame
        The table as it was read, on the same index.
    """

    mapped: pd.DataFrame
    table: pd.DataFrame

    def of(self, name: str, place: str) -> pd.Series:
        """Return a column as clean text.

        Parameters
        ----------
        name : str
            As the sweep file has it.
        place : str
            The key of the sweep file, for messages.

        Returns
        -------
        Series of str
            Missing where a cell is empty.

        Raises
        ------
        InputError
            If there is no such column, or more than one.
        """
        if name in self.mapped:
            return self.mapped[name]
        count = int((self.table.columns == name).sum())
        if count > 1:
            raise InputError(f"{place}: {count} columns of the table are called {name!r}; give each a name of its own")
        if count == 0:
            names = [*self.mapped.columns, *self.table.columns]
            raise InputError(f"{place}: the table has no column {name!r}{_hint(name, names)}")
        return clean_column(self.table[name])


def chosen_rows(
    columns: Columns, where: Mapping[str, Condition], aliases: AliasNames | None = None
) -> tuple[pd.Series, list[Problem]]:
    """Tell which rows ``screen.where`` leaves out.

    Parameters
    ----------
    columns : Columns
        The rows of the table.
    where : mapping of Condition
        By column; a row is kept where all hold.
    aliases : mapping or "distinct", optional
        Compounds and labels that go by another name in `columns`.

    Returns
    -------
    reasons : Series of str
        Why a row is left out, the first condition that does not hold; missing where it is kept.
    problems : list of Problem
        Values that no row has.

    Raises
    ------
    InputError
        If there is no such column.
    """
    reasons = pd.Series(pd.NA, index=columns.table.index, dtype="str")
    problems: list[Problem] = []
    for name, condition in where.items():
        place = f"screen.where.{name}"
        is_chosen, absent = _matching(columns.of(name, place), _merged(name, condition, aliases), name == WELL, place)
        problems += absent
        reasons = reasons.mask(reasons.isna() & ~is_chosen, f"screen.where: {_written(name, condition)}")
    return reasons, problems


def control_rows(
    columns: Columns, control: ControlRows | None, aliases: AliasNames | None, kept: pd.Series
) -> tuple[pd.Series, list[Problem]]:
    """Tell which rows are controls.

    Parameters
    ----------
    columns : Columns
        The rows of the table.
    control : text, tuple of text, or mapping of Condition
        The compounds of controls, or values of columns that all must hold; None: there are none.
    aliases : mapping or "distinct", optional
        Compounds that go by another name in `columns`.
    kept : Series of bool
        The rows that ``screen.where`` keeps.

    Returns
    -------
    is_control : Series of bool
    problems : list of Problem
        Values that no row has, and such that other rows have in another spelling.

    Raises
    ------
    InputError
        If there is no such column.
    """
    is_control = pd.Series(control is not None, index=columns.table.index)
    if control is None:
        return is_control, []
    conditions = control
    if not isinstance(conditions, dict):
        names = (conditions,) if isinstance(conditions, str) else conditions
        conditions = {COMPOUND: Condition(names)}
    problems: list[Problem] = []
    for name, condition in conditions.items():
        place = "screen.control" if name == COMPOUND else f"screen.control.{name}"
        column = columns.of(name, place)
        matching, absent = _matching(column, _merged(name, condition, aliases), name == WELL, place)
        is_control &= matching
        problems += absent or _misspelt(column[kept], condition, place)
    if not problems and not (is_control & kept).any():
        rows = "no row is a control" if not is_control.any() else "screen.where keeps no row that is a control"
        problems.append(Problem("error", f"screen.control: {rows}; look at their values, or leave out the key"))
    return is_control & kept, problems


def _merged(name: str, condition: Condition, aliases: AliasNames | None) -> Condition:
    """Name the values of a condition as the rows do, where `merge_names` gave them other names."""
    if name not in (COMPOUND, LABEL):
        return condition
    values = (one_name(value, aliases) if isinstance(value, str) else value for value in condition.values)
    return Condition(tuple(dict.fromkeys(values)), condition.is_negated)


def _matching(column: pd.Series, condition: Condition, is_well: bool, place: str) -> tuple[pd.Series, list[Problem]]:
    """Tell which rows a condition chooses, and which of its values are those of no row."""
    chosen = pd.Series(False, index=column.index)
    absent = []
    for value in condition.values:
        of_value = _equal(column, value, is_well)
        chosen |= of_value
        if not of_value.any():
            absent.append(value)
    values = column.dropna().value_counts().index.tolist()
    problems = [Problem("error", f"{place}: no row has {_text(value)}{_hint(str(value), values)}") for value in absent]
    return (~chosen if condition.is_negated else chosen), problems


def _equal(column: pd.Series, value: Value, is_well: bool) -> pd.Series:
    if value is None:
        return column.isna()
    if isinstance(value, bool):
        return column.str.casefold().eq(str(value).casefold()).fillna(False).astype(bool)
    if isinstance(value, str):
        texts = well_names(pd.Series([value])).tolist() if is_well else [value]
        return column.isin(texts)
    return pd.to_numeric(column, errors="coerce").eq(value)


def _misspelt(column: pd.Series, condition: Condition, place: str) -> list[Problem]:
    """Find values that differ from a chosen one by their spelling alone; the names of compounds are checked anyway."""
    if place == "screen.control":
        return []
    chosen = {value for value in condition.values if isinstance(value, str)}
    keys = {spelling_key(value) for value in chosen}
    counts = column[~column.isin(list(chosen))].dropna().value_counts()
    others = [value for value in counts.index if spelling_key(value) in keys]
    if not others:
        return []
    names = [f"{name} ({counts[value]} rows)" for name, value in zip(shown(others), others, strict=True)]
    return [problem("error", f"values are not chosen by {place}, but spelled like one that is; name them too", names)]


def _hint(word: str, words: Collection[str]) -> str:
    """Return a hint at the word that was probably meant, whatever its case, or at the first of all."""
    folded = {candidate.casefold(): candidate for candidate in reversed(list(words))}
    near = difflib.get_close_matches(word.casefold(), list(folded), n=1, cutoff=0.5)
    if near:
        return f"; did you mean {folded[near[0]]!r}?"
    names = listed(words, _KNOWN)
    return f"; known are {names}" if names else "; the column is empty"


def _text(value: Value) -> str:
    return "an empty cell" if value is None else repr(value)


def _written(name: str, condition: Condition) -> str:
    values = ", ".join("null" if value is None else str(value) for value in condition.values)
    return f"{name}: {{not: [{values}]}}" if condition.is_negated else f"{name}: [{values}]"


def check_control_classes(labels: pd.Series) -> list[Problem]:
    """Say what it means that controls are a class too.

    Parameters
    ----------
    labels : Series of str
        The labels of control rows.

    Returns
    -------
    list of Problem
        A warning, or an error where no control has a label.
    """
    if labels.empty:
        return [Problem("error", "screen.control_is_class: no control has a label; give it one, or leave out the key")]
    names = ", ".join(sorted(labels.unique()))
    fields = f"{len(labels)} control fields carry a label too ({names}) and are learnt and scored like treatments"
    meaning = "where plates are normalised by their controls, a control that is held out is part of what its plate is"
    return [Problem("warning", f"{fields}; {meaning} normalised by, so that the accuracy of its label may be too high")]
