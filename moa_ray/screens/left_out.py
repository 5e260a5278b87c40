"""Rows of a table that are in no screen, and why: counted where they are left out, by plate and compound.

A row without a label is no fault, but one that a user may not know of: of the 384 wells of a published plate map 358
have none.
"""

from collections.abc import Sequence

import pandas as pd

from moa_ray.common.schema import COMPOUND, PLATE

REASON, ROWS = "reason", "rows"  # columns of a table of rows left out: why, and how many
NO_LABEL = "no label"

_KEY = [REASON, PLATE, COMPOUND]
_SHOWN = 3  # how many compounds a sentence names
_NAMELESS = "(no name)"


def count_left_out(rows: pd.DataFrame, reasons: str | pd.Series) -> pd.DataFrame:
    """Count rows that are left out.

    Parameters
    ----------
    rows : DataFrame, one row per row left out
        With plate and compound, which may be missing.
    reasons : str or Series of str
        Why they are left out: all of them, or each.

    Returns
    -------
    DataFrame, one row per reason, plate and compound
        These three, and ``rows``: how many. A plate or compound that is missing is empty text.
    """
    texts = rows[[PLATE, COMPOUND]].astype("object").fillna("").astype("str").assign(**{REASON: reasons})
    return texts.groupby(_KEY, sort=False).size().rename(ROWS).reset_index()[[*_KEY, ROWS]]


def join_left_out(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join counts of rows left out.

    Parameters
    ----------
    tables : sequence of DataFrame
        As `count_left_out` returns them.

    Returns
    -------
    DataFrame, one row per reason, plate and compound
        The same columns, in the order of the tables; no row where nothing is left out.
    """
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else none_left_out()


def none_left_out() -> pd.DataFrame:
    """Return the count of a screen that has every row of its table.

    Returns
    -------
    DataFrame
        No row.
    """
    return pd.DataFrame({**dict.fromkeys(_KEY, pd.Series(dtype="str")), ROWS: pd.Series(dtype="int64")})


def left_out_sentences(left_out: pd.DataFrame) -> list[str]:
    """Say how many rows are left out, a sentence for each reason.

    Parameters
    ----------
    left_out : DataFrame
        As `count_left_out` returns it.

    Returns
    -------
    list of str
        The reason with most rows first; nothing where no row is left out.
    """
    of_reason = left_out.groupby(REASON, sort=False)[ROWS].sum().sort_values(ascending=False, kind="stable")
    return [_sentence(str(reason), left_out[left_out[REASON] == reason]) for reason in of_reason.index]


def _sentence(reason: str, counts: pd.DataFrame) -> str:
    compounds = counts.groupby(COMPOUND)[ROWS].sum().sort_values(ascending=False, kind="stable")
    examples = ", ".join(f"{name or _NAMELESS} {rows}" for name, rows in compounds.head(_SHOWN).items())
    more = ", ..." if len(compounds) > _SHOWN else ""
    total, plates = int(counts[ROWS].sum()), counts[PLATE].nunique()
    of = f"{len(compounds)} compound{'s' * (len(compounds) != 1)} on {plates} plate{'s' * (plates != 1)}"
    return f"{total} row{'s' * (total != 1)}: {reason} ({of}: {examples}{more})"
