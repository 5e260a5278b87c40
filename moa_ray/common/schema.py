"""The column names that every table of moa_ray uses, and checks for tables at the door.

The names follow the metadata grammar of the field (``Metadata_*``, as CellProfiler and pycytominer write them). Rows
are joined by key, never by position.
"""

from collections.abc import Iterable, Sequence

import pandas as pd

from moa_ray.common.errors import InputError

PLATE = "Metadata_Plate"
WELL = "Metadata_Well"
FIELD = "Metadata_Field"
TILE = "Metadata_Tile"
COMPOUND = "Metadata_Compound"
CONCENTRATION = "Metadata_Concentration"  # µmol/L
REPLICATE = "Metadata_Replicate"
LABEL = "Metadata_Label"  # missing for controls
CONTROL = "Metadata_Control"  # True for untreated (DMSO) wells
WEEK = "Metadata_Week"
CELL_LINE = "Metadata_CellLine"

WELL_KEY = [PLATE, WELL]
FIELD_KEY = [PLATE, WELL, FIELD]
TILE_KEY = [PLATE, WELL, FIELD, TILE]
TREATMENT = [COMPOUND, CONCENTRATION]

FOLD = "fold"
CANDIDATE = "candidate"
BACKBONE = "backbone"
OPEN_SET = "open_set"  # True where the label was held out whole, so that the row counts in no accuracy

# Of predictions that are drawn several times: how, and the number of the draw (of an ensemble the member's seed).
METHOD = "method"
SAMPLE = "sample"
SEED = "seed"

METADATA_PREFIX = "Metadata_"
PATH_PREFIX = "Path_"
PROBABILITY_PREFIX = "prob_"


def path_column(channel: str) -> str:
    """Return the name of the field table's column that locates one channel's image.

    Parameters
    ----------
    channel : str
        Name of the channel.

    Returns
    -------
    str
        ``Path_<channel>``.
    """
    return PATH_PREFIX + channel


def probability_column(label: str) -> str:
    """Return the name of the prediction column that holds one label's probability.

    Parameters
    ----------
    label : str
        Name of the label.

    Returns
    -------
    str
        ``prob_<label>``.
    """
    return PROBABILITY_PREFIX + label


def probability_columns(table: pd.DataFrame) -> list[str]:
    """Return all probability columns of a prediction table.

    Parameters
    ----------
    table : DataFrame
        Predictions.

    Returns
    -------
    list of str
        In the table's order.
    """
    return [column for column in table.columns if column.startswith(PROBABILITY_PREFIX)]


def labels_of(table: pd.DataFrame) -> list[str]:
    """Return the labels that a prediction table has a probability for.

    Parameters
    ----------
    table : DataFrame
        Predictions.

    Returns
    -------
    list of str
        In the table's order.
    """
    return [column.removeprefix(PROBABILITY_PREFIX) for column in probability_columns(table)]


def metadata_columns(table: pd.DataFrame) -> list[str]:
    """Return all ``Metadata_*`` columns of a table.

    Parameters
    ----------
    table : DataFrame
        Any table of fields, tiles or predictions.

    Returns
    -------
    list of str
        In the table's order.
    """
    return [column for column in table.columns if column.startswith(METADATA_PREFIX)]


def require_columns(table: pd.DataFrame, columns: Iterable[str], name: str) -> None:
    """Raise InputError naming the columns that a table lacks.

    Parameters
    ----------
    table : DataFrame
        The table to check.
    columns : iterable of str
        Columns that it must have.
    name : str
        What the message calls the table.

    Raises
    ------
    InputError
        If a column is missing.
    """
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise InputError(f"{name}: column {', '.join(missing)} is missing; it has {', '.join(map(str, table.columns))}")


def require_unique(table: pd.DataFrame, key: Sequence[str], name: str) -> None:
    """Raise InputError naming the first key that two rows of a table share.

    Parameters
    ----------
    table : DataFrame
        The table to check.
    key : sequence of str
        Columns that tell rows apart.
    name : str
        What the message calls the table.

    Raises
    ------
    InputError
        If two rows share a key.
    """
    duplicated = table.duplicated(list(key))
    if duplicated.any():
        first = dict(zip(key, table.loc[duplicated, list(key)].iloc[0], strict=True))
        raise InputError(f"{name}: {int(duplicated.sum())} rows repeat a key, the first is {first}")


WORD = "label"  # as the sweep file says it
