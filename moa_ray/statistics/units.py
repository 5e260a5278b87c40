"""What counts as one: a treatment, a well, or a compound.

A table of tile predictions says it in the column ``unit``; without the column treatments count. A table of units has
one row a candidate and unit, in the columns of a table of treatments: that of wells names plate and well besides, that
of compounds has the concentration 0.
"""

from typing import Literal

import pandas as pd

from moa_ray.common.schema import COMPOUND, CONCENTRATION, TREATMENT, WELL_KEY

Unit = Literal["treatment", "well", "compound"]
UNIT = "unit"


def with_unit(predictions: pd.DataFrame, unit: Unit) -> pd.DataFrame:
    """Say in a table of tile predictions what counts as one.

    Parameters
    ----------
    predictions : DataFrame, one row per tile
        May be empty.
    unit : {"treatment", "well", "compound"}
        What counts.

    Returns
    -------
    DataFrame
        With the column ``unit``, unless treatments count.
    """
    plain = predictions.drop(columns=UNIT, errors="ignore")
    return plain if unit == "treatment" else plain.assign(**{UNIT: unit})


def unit_of(predictions: pd.DataFrame) -> Unit:
    """Return what counts as one in a table of tile predictions.

    Parameters
    ----------
    predictions : DataFrame, one row per tile
        As `with_unit` returns it.

    Returns
    -------
    {"treatment", "well", "compound"}
    """
    if UNIT not in predictions or predictions.empty:
        return "treatment"
    unit: Unit = predictions[UNIT].iat[0]
    return unit


def unit_key(units: pd.DataFrame) -> list[str]:
    """Return the columns that tell the units of a table of units apart.

    Parameters
    ----------
    units : DataFrame, one row per candidate and unit
        Treatments, wells or compounds.

    Returns
    -------
    list of str
        Those of a treatment, and where the units are wells plate and well.
    """
    return [*TREATMENT, *(column for column in WELL_KEY if column in units)]


def unit_columns(table: pd.DataFrame, unit: Unit) -> pd.DataFrame:
    """Return the columns that name the unit of each row of fields, tiles or wells.

    Parameters
    ----------
    table : DataFrame
        With compound, concentration, plate and well.
    unit : {"treatment", "well", "compound"}
        What counts.

    Returns
    -------
    DataFrame
        On the index of the table, in the columns of `unit_key`.
    """
    names = table[[*TREATMENT, *(WELL_KEY if unit == "well" else [])]]
    return names.assign(**{CONCENTRATION: 0.0}) if unit == "compound" else names


def unit_name(row: pd.Series | dict[str, object]) -> str:
    """Name a unit by its compound, and a well by its place besides.

    Parameters
    ----------
    row : Series or dict
        A row of a table of units.

    Returns
    -------
    str
        ``taxol``, or ``taxol (P1 B02)``; the place alone where wells are what the compounds are called by.
    """
    compound, (plate, well) = str(row[COMPOUND]), (row.get(name) for name in WELL_KEY)
    return compound if well is None or compound == well else f"{compound} ({plate} {well})"
