"""Keys by which tables are joined: cells in one spelling, whatever table they stand in."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from moa_ray.common.schema import COMPOUND, CONCENTRATION, FIELD, LABEL, WELL
from moa_ray.config.screen_rows import AliasNames
from moa_ray.screens.names import merge_names
from moa_ray.screens.text_cells import clean_column
from moa_ray.screens.wells import spelled_wells, well_of

Key = tuple[str, ...]


def meaning(name: str, columns: Mapping[str, str]) -> str:
    """Return the ``Metadata_*`` name of a column of the fields, where it has one.

    Parameters
    ----------
    name : str
        As it stands in ``on``.
    columns : mapping
        ``Metadata_*`` name to column.

    Returns
    -------
    str
        The name itself where the column has no other.
    """
    return name if name in columns else next((key for key, source in columns.items() if source == name), name)


def comparable(cells: Sequence[pd.Series], name: str, aliases: AliasNames | None) -> pd.Series:
    """Spell the cells of a column as those of any other table are spelled.

    Parameters
    ----------
    cells : sequence of Series
        One column; of a well also two, its row and its column.
    name : str
        What the column means: its ``Metadata_*`` name, or any other.
    aliases : mapping or "distinct", optional
        Other names of compounds and labels.

    Returns
    -------
    Series of str
        Missing where a cell is.
    """
    texts = [clean_column(_whole_numbers(column)) for column in cells]
    column = texts[0]
    if len(texts) == 2:
        pairs = zip(texts[0].fillna(""), texts[1].fillna(""), strict=True)
        wells = [well_of(row, number) if row and number else None for row, number in pairs]
        return pd.Series(wells, index=column.index, dtype="str")
    if name == WELL:
        return spelled_wells(column)
    if name in (COMPOUND, LABEL):
        return merge_names(column, aliases)
    if name == CONCENTRATION:
        numbers = pd.to_numeric(column, errors="coerce").round(9)
        return numbers.map("{:.9f}".format, na_action="ignore").astype("str").where(numbers.notna(), column)
    if name == FIELD:
        return column.str.replace(r"^0+(?=[0-9]+$)", "", regex=True)
    return column


def keys_of(parts: Sequence[pd.Series]) -> list[Key | None]:
    """Make a key of each row.

    Parameters
    ----------
    parts : sequence of Series of str
        On one index.

    Returns
    -------
    list of tuple
        None where a part is missing.
    """
    rows = zip(*[part.astype("object").where(part.notna(), None) for part in parts], strict=True)
    return [None if None in row else row for row in rows]


def _whole_numbers(column: pd.Series) -> pd.Series:
    """Take numbers that are whole, as 1.0, for what they are: a gap makes a whole column of numbers such."""
    if not pd.api.types.is_float_dtype(column):
        return column
    known = column.dropna()
    is_whole = bool((np.isfinite(known) & (known == known.round())).all())
    return column.astype("Int64") if is_whole else column
