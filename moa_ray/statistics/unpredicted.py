"""Treatments that a candidate was to predict and did not: they count as not right.

A toxic dose leaves empty fields, so no tile, so no prediction. Left out of the count, such a treatment would make a
network look better the more cells die. A fold whose trial failed is another thing, and said so; its treatments count as
not right as well, so that no headline rises when a trial is lost.
"""

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from moa_ray.common.open_set import closed_set
from moa_ray.common.schema import BACKBONE, CANDIDATE, CONCENTRATION, FOLD, LABEL, OPEN_SET, TREATMENT
from moa_ray.statistics.aggregation import REPLICATES, TILES
from moa_ray.statistics.units import unit_columns, unit_key, unit_of

REASON = "reason"
NOT_FINISHED = "its fold did not finish"
COLUMNS = (CANDIDATE, *TREATMENT, LABEL, FOLD, REASON)


def scored_of(study: Mapping[str, Any]) -> pd.DataFrame:
    """Return what the folds of a study are to score.

    Parameters
    ----------
    study : mapping of str to Any
        What all trials share, as the ledger keeps it.

    Returns
    -------
    DataFrame, one row per fold and treatment
        Compound, concentration, label, ``fold``, and ``reason``: why there is no tile of it, empty where there is one.
        No row where the ledger is from before this was kept.
    """
    rows = pd.DataFrame(study.get("scored", []))
    return rows if len(rows) else pd.DataFrame(columns=[*TREATMENT, LABEL, FOLD, REASON])


def no_unpredicted() -> pd.DataFrame:
    """Return the table of a sweep in which every treatment was predicted, or none is known that was not.

    Returns
    -------
    DataFrame
        No row.
    """
    return pd.DataFrame({name: pd.Series(dtype="object") for name in COLUMNS})


def unpredicted(
    predictions: pd.DataFrame, scored: pd.DataFrame, wanted: Mapping[str, Collection[str]], trials: pd.DataFrame
) -> pd.DataFrame:
    """List the treatments that candidates were to predict and did not.

    Parameters
    ----------
    predictions : DataFrame, one row per tile
        Of all candidates; may be empty.
    scored : DataFrame, one row per fold and treatment
        Compound, concentration, label, ``fold``, and ``reason``: why there is no tile of it, empty where there is one.
    wanted : mapping of str to collection of str
        The folds that each candidate was to do.
    trials : DataFrame, one row per trial
        Candidate, fold, status.

    Returns
    -------
    DataFrame, one row per candidate and treatment
        Candidate, treatment, label, ``fold``, ``reason``; folds and reasons are joined where they are several.
    """
    if scored.empty:
        return no_unpredicted()
    done = trials[trials["status"] == "finished"]
    finished = {name: set(rows[FOLD]) for name, rows in done.groupby(CANDIDATE)}
    tiles = closed_set(predictions)
    named = unit_columns(tiles, unit_of(predictions)) if len(tiles) else tiles
    groups = tiles.groupby(CANDIDATE).groups if len(tiles) else {}
    predicted = {name: _key(named.loc[rows]).unique() for name, rows in groups.items()}
    tables = []
    for candidate, folds in wanted.items():
        rows = scored[scored[FOLD].isin(folds)]
        if candidate in predicted:
            rows = rows[~_key(rows).isin(predicted[candidate])]
        is_done = rows[FOLD].isin(finished.get(candidate, ()))
        reasons = rows[REASON].where(is_done, NOT_FINISHED).replace("", "no prediction")
        tables.append(rows.assign(**{CANDIDATE: candidate, REASON: reasons}))
    listed = pd.concat(tables, ignore_index=True) if tables else no_unpredicted()
    if listed.empty:
        return no_unpredicted()
    joined = {name: (name, lambda texts: "; ".join(sorted(set(texts)))) for name in (FOLD, REASON)}
    key = unit_key(listed)
    grouped = listed.groupby([CANDIDATE, *key], sort=False).agg(**{LABEL: (LABEL, "first"), **joined})
    return grouped.reset_index()[[CANDIDATE, *key, LABEL, FOLD, REASON]]


def of_no_tile(table: pd.DataFrame) -> pd.DataFrame:
    """Select the treatments that could not be predicted though their folds finished.

    Parameters
    ----------
    table : DataFrame
        As `unpredicted` makes it.

    Returns
    -------
    DataFrame
        The rows that say nothing of a fold that did not finish.
    """
    return table[~table[REASON].astype("str").str.contains(NOT_FINISHED, regex=False)] if len(table) else table


def with_unpredicted(treatments: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Put treatments without a prediction below those that have one.

    Parameters
    ----------
    treatments : DataFrame, one row per candidate and treatment
        As `aggregation.treatments` makes it; may be empty.
    table : DataFrame
        As `unpredicted` makes it.

    Returns
    -------
    DataFrame
        The columns of `treatments`; the rows added have no predicted label, no probability, no well and no tile.
    """
    if table.empty or treatments.empty:
        return treatments
    backbones = treatments.drop_duplicates(CANDIDATE).set_index(CANDIDATE)[BACKBONE]
    values = {name: table[name] for name in (CANDIDATE, *unit_key(table), LABEL, FOLD)}
    values |= {BACKBONE: table[CANDIDATE].map(backbones), OPEN_SET: False, REPLICATES: 0, TILES: 0}
    rows = pd.DataFrame({name: values.get(name) for name in treatments}, index=table.index)
    known = {
        name: kind
        for name, kind in treatments.dtypes.items()
        if name in values or kind.kind == "f" or isinstance(kind, pd.StringDtype)
    }
    return pd.concat([treatments, rows.astype(known)], ignore_index=True)


def _key(table: pd.DataFrame) -> pd.MultiIndex:
    kinds = {name: "float64" if name == CONCENTRATION else "str" for name in unit_key(table)}
    return pd.MultiIndex.from_frame(table[list(kinds)].astype(kinds))
