"""What was dropped on the way from fields to tiles, and why: counted by plate and compound, named by treatment.

A tile is dropped where nearly nothing is on it. Where all tiles of a field are, the field has none, and so on up to the
treatment: a toxic dose leaves no cells, and what cannot be predicted must not vanish from what is counted.
"""

from collections.abc import Sequence

import pandas as pd

from moa_ray.common.schema import COMPOUND, FIELD_KEY, PLATE, TILE, TILE_KEY, TREATMENT, WELL_KEY
from moa_ray.common.text import listed
from moa_ray.config.preparation import Preparation
from moa_ray.tiles.cropping import tile_names

REASON = "reason"  # the column of a table of dropped tiles that says why
NO_CELLS = "no cells"  # of a tile that is nearly empty


def missing_tiles(table: pd.DataFrame, fields: pd.DataFrame, preparation: Preparation) -> pd.DataFrame:
    """Return the tiles of a grid that a store does not hold.

    Stores that were made before dropped tiles were written down hold all tiles but the nearly empty ones.

    Parameters
    ----------
    table : DataFrame, one row per tile
        The tiles of the store, with the columns of `TILE_KEY`.
    fields : DataFrame, one row per field
        The fields that tiles were made of.
    preparation : Preparation
        The grid.

    Returns
    -------
    DataFrame, one row per tile
        The columns of `TILE_KEY`, and `REASON`.
    """
    grid = fields[FIELD_KEY].merge(pd.DataFrame({TILE: tile_names(preparation)}, dtype="str"), how="cross")
    held = pd.MultiIndex.from_frame(table[TILE_KEY])
    rows = grid[~pd.MultiIndex.from_frame(grid[TILE_KEY]).isin(held)]
    return rows.sort_values(TILE_KEY, ignore_index=True).assign(**{REASON: NO_CELLS})


def counts(table: pd.DataFrame, dropped: pd.DataFrame, fields: pd.DataFrame) -> pd.DataFrame:
    """Count what is there and what was dropped, by plate and compound.

    Parameters
    ----------
    table : DataFrame, one row per tile
        The tiles that are left, with the columns of `TILE_KEY`.
    dropped : DataFrame, one row per tile
        The tiles that are not, with the columns of `TILE_KEY`.
    fields : DataFrame, one row per field
        All fields that tiles were made of, with their compounds.

    Returns
    -------
    DataFrame, one row per plate and compound
        ``fields``, ``wells``, ``tiles``: how many there are in all; ``dropped_fields``, ``dropped_wells``: of how many
        of them no tile is left; ``dropped_tiles``.
    """
    key = [PLATE, COMPOUND]
    keyed = fields[list(dict.fromkeys([*FIELD_KEY, *key]))]
    kept, lost = (tiles[TILE_KEY].merge(keyed, on=FIELD_KEY, validate="many_to_one") for tiles in (table, dropped))
    counted = {}
    for name, unit in (("fields", FIELD_KEY), ("wells", WELL_KEY)):
        everything = keyed.drop_duplicates([*unit, COMPOUND])
        counted[name] = everything.groupby(key).size()
        counted[f"dropped_{name}"] = _without_tile(everything, table, unit).groupby(key).size()
    counted["tiles"] = pd.concat([kept, lost]).groupby(key).size()
    counted["dropped_tiles"] = lost.groupby(key).size()
    return pd.DataFrame(counted).fillna(0).astype(int).reset_index()


def lost(table: pd.DataFrame, dropped: pd.DataFrame, fields: pd.DataFrame, unit: Sequence[str]) -> pd.DataFrame:
    """Return the fields, wells, treatments or compounds of which no tile is left, with the reason.

    Parameters
    ----------
    table : DataFrame, one row per tile
        The tiles that are left, with the columns of `TILE_KEY`.
    dropped : DataFrame, one row per tile
        The tiles that are not, with the columns of `TILE_KEY` and `REASON`.
    fields : DataFrame, one row per field
        All fields that tiles were made of, with their metadata.
    unit : sequence of str
        The columns that tell the units apart: `FIELD_KEY`, `WELL_KEY`, `TREATMENT` or others of the field table.

    Returns
    -------
    DataFrame, one row per unit
        The columns of `unit`, and `REASON`: the reasons of its tiles, joined where they are several.
    """
    key = list(unit)
    keyed = fields[list(dict.fromkeys([*FIELD_KEY, *key]))]
    held = table[FIELD_KEY].drop_duplicates().merge(keyed, on=FIELD_KEY, validate="one_to_one")
    rows = _without_tile(keyed, held, key)
    reasons = dropped[[*FIELD_KEY, REASON]].drop_duplicates().merge(rows, on=FIELD_KEY)
    return reasons.groupby(key)[REASON].agg(lambda texts: "; ".join(sorted(set(texts)))).reset_index()


def _without_tile(rows: pd.DataFrame, held: pd.DataFrame, unit: list[str]) -> pd.DataFrame:
    """Return the rows whose unit is not among those held."""
    return rows[~pd.MultiIndex.from_frame(rows[unit]).isin(pd.MultiIndex.from_frame(held[unit]))]


def warnings(table: pd.DataFrame, dropped: pd.DataFrame, fields: pd.DataFrame) -> list[str]:
    """Say which fields and wells have no tile, and name treatments that have none.

    Parameters
    ----------
    table, dropped : DataFrame, one row per tile
        The tiles that are left and those that are not, as `lost` takes them.
    fields : DataFrame, one row per field
        All fields that tiles were made of.

    Returns
    -------
    list of str
        Nothing where each field has a tile.
    """
    without = lost(table, dropped, fields, FIELD_KEY)
    if without.empty:
        return []
    wells, all_wells = (rows[WELL_KEY].drop_duplicates() for rows in (lost(table, dropped, fields, WELL_KEY), fields))
    sentences = [
        f"{len(without)} of {len(fields)} fields have no tile ({_reasons(without)}), and {len(wells)} of "
        f"{len(all_wells)} wells none at all: {_names(without, FIELD_KEY)}"
    ]
    if len(treatments := lost(table, dropped, fields, TREATMENT)):
        sentences.append(
            f"{len(treatments)} of {len(fields[TREATMENT].drop_duplicates())} treatments have no tile "
            f"({_reasons(treatments)}) and cannot be predicted: {_names(treatments, TREATMENT)}"
        )
    return sentences


def _reasons(rows: pd.DataFrame) -> str:
    return "; ".join(sorted({text for texts in rows[REASON] for text in texts.split("; ")}))


def _names(rows: pd.DataFrame, unit: list[str]) -> str:
    keys = rows[unit].itertuples(index=False, name=None)
    names = [" ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in key) for key in keys]
    return listed(names)
