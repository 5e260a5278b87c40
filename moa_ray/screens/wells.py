"""Names of wells from whatever a table or a file name says of them."""

import re

import pandas as pd

from moa_ray.screens.screen import well_names

_NAME = re.compile(r"([a-z]{1,2})[\s_:-]*0*([0-9]{1,2})", re.IGNORECASE)
_NUMBERS = re.compile(r"r(?:ow)?[\s_:-]*([0-9]+)[\s_:,;-]*c(?:ol(?:umn)?)?[\s_:-]*([0-9]+)", re.IGNORECASE)
_LETTERS = 26


def well_of(row: str, column: str) -> str:
    """Name a well by its row and its column.

    Parameters
    ----------
    row : str
        Letters, or the number of the row from 1.
    column : str
        The number of the column from 1.

    Returns
    -------
    str
        ``B03``; what is no row or no column stays as it is.
    """
    number = _whole(row)
    letters = row if number is None or number < 1 else _letters(number)
    place = _whole(column)
    return f"{letters}{column}".upper() if place is None else f"{letters}{place:02}".upper()


def spelled_wells(wells: pd.Series) -> pd.Series:
    """Spell the wells of a table alike, for joins.

    Parameters
    ----------
    wells : Series of str
        ``A1``, ``a01``, ``A - 1``, ``r1c1`` or the like.

    Returns
    -------
    Series of str
        ``A01``; what is no well is upper case.
    """
    spelled = {well: _spelled(well) for well in wells.dropna().unique()}
    return well_names(wells.map(spelled).astype("str"))


def _spelled(well: str) -> str:
    numbers = _NUMBERS.fullmatch(well)
    if numbers:
        return well_of(numbers[1], numbers[2])
    name = _NAME.fullmatch(well)
    return well_of(name[1], name[2]) if name else well


def _letters(number: int) -> str:
    high, low = divmod(number - 1, _LETTERS)
    return (chr(ord("A") + high - 1) if high else "") + chr(ord("A") + low)


def _whole(text: str) -> int | None:
    """Return a whole number, also where a table has it as 1.0."""
    return int(float(text)) if re.fullmatch(r"[0-9]+(?:\.0+)?", text) else None
