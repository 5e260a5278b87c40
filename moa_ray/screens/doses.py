"""Concentrations: numbers with a decimal point or comma, which only treatments need."""

from typing import Literal

import pandas as pd

from moa_ray.common.errors import InputError
from moa_ray.screens.screen import numbers

_WITH_COMMA = r"[0-9]*,[0-9]+(?:[eE][+-]?[0-9]+)?"
_THOUSANDS = r"[1-9][0-9]{0,2},[0-9]{3}"  # a number that could as well be one thousand and more


def doses(column: pd.Series, needed: pd.Series, name: str, decimal: Literal[".", ","] | None = None) -> pd.Series:
    """Parse a column of concentrations.

    Parameters
    ----------
    column : Series of str
        Clean text, or missing; its index is the row of the file.
    needed : Series of bool
        The rows of treatments. The others, those of controls, get 0 where theirs is no number.
    name : str
        The file, for messages.
    decimal : {".", ","}, optional
        The sign before the decimals; by default a comma where no number of a treatment has a point, and one has a comma
        that cannot part thousands.

    Returns
    -------
    Series of float
        Rounded to nine decimals.

    Raises
    ------
    InputError
        If the concentration of a treatment is no number of at least 0, or could be two; names the row.
    """
    sign = decimal or _found_decimal(column[needed], name)
    if sign == ",":
        pointed = column[needed & column.str.contains(".", regex=False).fillna(False).astype(bool)]
        if len(pointed):
            raise InputError(
                f"{name}: row {pointed.index[0]}: {column.name}: decimals come after a comma, but got "
                f"{pointed.iloc[0]!r}; say which with screen.decimal"
            )
        column = column.str.replace(",", ".", regex=False).rename(column.name)
    parsed = pd.Series(0.0, index=column.index)
    parsed[needed] = numbers(column[needed], name, column.index[needed])
    others = pd.to_numeric(column[~needed], errors="coerce").astype(float)
    parsed[~needed] = others.where((others >= 0) & (others < float("inf")), 0.0).round(9)
    return parsed


def _found_decimal(column: pd.Series, name: str) -> str:
    texts = column.dropna()
    commas = texts[texts.str.fullmatch(_WITH_COMMA)]
    if commas.empty or texts.str.contains(".", regex=False).any():
        return "."
    if commas.str.fullmatch(_THOUSANDS).all():
        raise InputError(
            f"{name}: row {commas.index[0]}: {column.name}: {commas.iloc[0]!r} could be a number with decimals or one "
            "of thousands; say screen.decimal: ',' or write it without the comma"
        )
    return ","
