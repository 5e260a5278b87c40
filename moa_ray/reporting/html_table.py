"""A table as the page prints it, and how the page writes numbers."""

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd


class HtmlTable(NamedTuple):
    """The cells of a table as text.

    Attributes
    ----------
    headings : list of str
        One heading for each column.
    rows : list of list of str
        The cells, row by row.
    numeric : list of bool
        For each column whether it holds numbers, which are aligned to the right.
    """

    headings: list[str]
    rows: list[list[str]]
    numeric: list[bool]


def percent(share: float) -> str:
    """Write a share as a percentage.

    Parameters
    ----------
    share : float
        From 0 to 1, or NaN where it is not known.

    Returns
    -------
    str
        The percentage with one decimal, or a dash for NaN.
    """
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"


def p_value(value: float) -> str:
    """Write a p-value with three decimals.

    Parameters
    ----------
    value : float
        From 0 to 1.

    Returns
    -------
    str
        ``< 0.001`` for all that is smaller.
    """
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def decimals(value: float) -> str:
    """Write a number with three decimals.

    Parameters
    ----------
    value : float
        Any number, or NaN where it is not known.

    Returns
    -------
    str
        The number, or a dash for NaN.
    """
    return "–" if pd.isna(value) else f"{value:.3f}"


def value_text(value: Any) -> str:
    """Write a hyperparameter's value.

    Parameters
    ----------
    value : Any
        A number, text, or a list of these.

    Returns
    -------
    str
        Floats in their shortest form, lists separated by commas, ``none`` for an empty list.
    """
    if isinstance(value, float | np.floating):
        return f"{value:g}"
    return (", ".join(map(value_text, value)) or "none") if isinstance(value, list | tuple) else str(value)


def time_text(seconds: float) -> str:
    """Write a time in its two largest units.

    Parameters
    ----------
    seconds : float
        At least 0.

    Returns
    -------
    str
        For example ``2 h 05 min``, ``3 min 07 s`` or ``12 s``.
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
