"""Rare labels: those of fewer compounds than ``folds.min_compounds``, which no fold can score honestly.

With a compound held out, its label must be learnt from another. In collections of compounds most labels have one
compound alone: their fields are left out of the screen, or are trained on and never held out.
"""

from collections.abc import Mapping
from typing import Literal

import pandas as pd

from moa_ray.common.schema import COMPOUND, FOLD, LABEL, TREATMENT
from moa_ray.screens.screen import Problem

Below = Literal["leave_out", "train_only"]

_WHERE = {"leave_out": "left out", "train_only": "trained on and never held out"}


def rare_labels(fields: pd.DataFrame, min_compounds: int | None) -> dict[str, int]:
    """Count the compounds of the labels that have too few.

    Parameters
    ----------
    fields : DataFrame, one row per field
        As `Screen.fields`.
    min_compounds : int or None
        The fewest compounds of a label that is held out; None asks for none.

    Returns
    -------
    dict of str to int
        Compounds by label, sorted by label.
    """
    if min_compounds is None:
        return {}
    compounds = fields[fields[LABEL].notna()].groupby(LABEL)[COMPOUND].nunique()
    return {str(label): int(count) for label, count in compounds.items() if count < min_compounds}


def rare_treatments(
    fields: pd.DataFrame, rare: Mapping[str, int], min_compounds: int | None, below: Below
) -> pd.DataFrame:
    """List the treatments of rare labels, which are not scored.

    Parameters
    ----------
    fields : DataFrame, one row per field
        As `Screen.fields`, before any is left out.
    rare : mapping of str to int
        As `rare_labels` returns it.
    min_compounds : int or None
        The fewest compounds of a label that is held out.
    below : {"leave_out", "train_only"}
        What becomes of the fields of rare labels.

    Returns
    -------
    DataFrame, one row per treatment
        Compound, concentration, label, ``fold`` (None: they are in none) and ``reason``, as
        `moa_ray.screens.folds.unscored` lists others.
    """
    rows = fields[fields[LABEL].isin(list(rare))][[*TREATMENT, LABEL]].drop_duplicates(TREATMENT)
    counts = [f"{rare[label]} compound{'' if rare[label] == 1 else 's'}" for label in rows[LABEL]]
    rule = f"fewer than folds.min_compounds ({min_compounds}): {_WHERE[below]}"
    reasons = [f"its label has {count}, {rule}" for count in counts]
    table = rows.assign(**{FOLD: None, "reason": pd.Series(reasons, index=rows.index, dtype="object")})
    return table.sort_values([LABEL, *TREATMENT], ignore_index=True)


def check_rare_labels(
    fields: pd.DataFrame, rare: Mapping[str, int], min_compounds: int | None, below: Below
) -> list[Problem]:
    """Find that too few labels are left to be scored.

    Parameters
    ----------
    fields : DataFrame, one row per field
        As `Screen.fields`, before any is left out.
    rare : mapping of str to int
        As `rare_labels` returns it.
    min_compounds : int or None
        The fewest compounds of a label that is held out.
    below : {"leave_out", "train_only"}
        What becomes of the fields of rare labels.

    Returns
    -------
    list of Problem
        At most one.
    """
    labels = fields[LABEL].nunique()
    enough, needed = labels - len(rare), 2 if below == "leave_out" else 1
    if not rare or enough >= needed:
        return []
    return [
        Problem(
            "error",
            f"folds.min_compounds: {enough} of {labels} labels have {min_compounds} compounds or more, but at least "
            f"{needed} must; lower it, or label more compounds",
        )
    ]
