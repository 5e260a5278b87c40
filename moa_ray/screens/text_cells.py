"""The cells of a table as text: the one place where they are cleaned, for every screen."""

from collections.abc import Callable, Collection

import numpy as np
import pandas as pd

from moa_ray.common.spelling import clean_text


def clean_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Clean every cell of a table.

    Parameters
    ----------
    table : DataFrame
        Of text or whatever else a parquet file holds.

    Returns
    -------
    DataFrame of str
        As `clean_column` makes each column.
    """
    return pd.DataFrame({column: clean_column(table[column]) for column in table}, index=table.index)


def clean_column(column: pd.Series, clean: Callable[[str], str] = clean_text) -> pd.Series:
    """Clean a column of cells.

    Parameters
    ----------
    column : Series
        Of text or whatever else a parquet file holds.
    clean : callable
        What is done to the text of a cell.

    Returns
    -------
    Series of str
        Without blanks of any kind at the ends, accents composed; a cell that holds nothing else is missing.
    """
    wide = column.astype("float64") if column.dtype == "float32" else column  # as many digits as the file has
    texts = wide.astype("str").astype("object").where(column.notna(), None)
    cleaned = {text: clean(text) or None for text in texts.dropna().unique()}
    return pd.Series([cleaned.get(text) for text in texts], index=column.index, name=column.name, dtype="str")


def is_word(column: pd.Series, words: Collection[str]) -> pd.Series:
    """Tell which cells hold one of some words, whatever its case.

    Parameters
    ----------
    column : Series of str
        Clean text.
    words : collection of str
        As the sweep file has them.

    Returns
    -------
    Series of bool
        False where the cell is missing.
    """
    folded = {word.strip().casefold() for word in words}
    among = {text: text.casefold() in folded for text in column.dropna().unique()}
    return pd.Series(np.array([among.get(text, False) for text in column], dtype=bool), index=column.index)
