"""Which treatments each fold is to score, and of which of them no tile is left to predict."""

from collections.abc import Sequence

import pandas as pd

from moa_ray.common.schema import FIELD_KEY, FOLD, LABEL
from moa_ray.screens.folds import Fold
from moa_ray.statistics.units import Unit, unit_columns
from moa_ray.tiles.dropped import REASON


def scored_treatments(
    fields: pd.DataFrame,
    folds: Sequence[Fold],
    table: pd.DataFrame,
    dropped: pd.DataFrame,
    unit: Unit = "treatment",
) -> pd.DataFrame:
    """List what each fold is to score.

    Parameters
    ----------
    fields : DataFrame, one row per field
        The labelled fields.
    folds : sequence of Fold
        The folds that are trained.
    table, dropped : DataFrame, one row per tile
        The tiles that are left and those that are not, as `moa_ray.tiles.store.TileStore` has them.
    unit : {"treatment", "well", "compound"}
        What counts as one.

    Returns
    -------
    DataFrame, one row per fold and unit
        Compound, concentration, label, ``fold``, and ``reason``: why no tile of it is there to predict, empty where one
        is.
    """
    held = pd.MultiIndex.from_frame(fields[FIELD_KEY]).isin(pd.MultiIndex.from_frame(table[FIELD_KEY]))
    reasons = dropped.groupby(FIELD_KEY)[REASON].agg(lambda texts: "; ".join(sorted(set(texts))))
    why = reasons.reindex(pd.MultiIndex.from_frame(fields[FIELD_KEY])).fillna("no tile").to_numpy(dtype=object)
    named = unit_columns(fields, unit)
    key = list(named)
    rows = named.assign(**{LABEL: fields[LABEL]}).assign(**{REASON: why, "_held": held})
    parts = [rows.iloc[fold.scored(fields)].assign(**{FOLD: fold.name}) for fold in folds]
    if not parts:
        return pd.DataFrame(columns=[*key, LABEL, FOLD, REASON])
    grouped = pd.concat(parts, ignore_index=True).groupby([FOLD, *key], sort=False)
    listed = grouped.agg(
        **{
            LABEL: (LABEL, "first"),
            REASON: (REASON, lambda texts: "; ".join(sorted(set(texts)))),
            "_held": ("_held", "any"),
        }
    ).reset_index()
    listed[REASON] = listed[REASON].mask(listed["_held"], "")
    return listed[[*key, LABEL, FOLD, REASON]]
