"""The validation split: which training wells a network is watched on and not fitted to."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moa_ray.common.errors import InputError
from moa_ray.common.schema import LABEL, TREATMENT, WELL_KEY, require_unique


def validation_split(
    train_table: pd.DataFrame, share: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split training rows into those to fit on and those to validate on.

    Whole wells are validated on, spread over treatments, and never a label's last well. The draw depends on the wells,
    not on the order of the rows.

    Parameters
    ----------
    train_table : DataFrame, one row per field or tile
        The rows of a fold that may be learnt from, with plate, well, treatment and label.
    share : float
        The share of the wells to validate on, above 0 and below 1; it is less where labels have too few wells.
    rng : numpy.random.Generator
        What draws the wells.

    Returns
    -------
    fitted, validated : array of int64
        Positions in the table.

    Raises
    ------
    InputError
        If the share is out of range, or a well holds two treatments.
    """
    if not 0 < share < 1:
        raise InputError(f"validation.share must lie above 0 and below 1, but got {share}")
    wells = train_table[[*WELL_KEY, *TREATMENT, LABEL]].drop_duplicates().sort_values(WELL_KEY, ignore_index=True)
    require_unique(wells, WELL_KEY, "training wells")
    validated = wells.loc[_drawn(wells, share, rng), WELL_KEY]
    is_validated = pd.MultiIndex.from_frame(train_table[WELL_KEY]).isin(pd.MultiIndex.from_frame(validated))
    return np.flatnonzero(~is_validated), np.flatnonzero(is_validated)


def _drawn(wells: pd.DataFrame, share: float, rng: np.random.Generator) -> list[int]:
    """Draw wells: one of every treatment in random order, then a second one of each, and so on."""
    shuffled = wells.iloc[rng.permutation(len(wells))]
    order = shuffled.groupby(TREATMENT).cumcount().sort_values(kind="stable").index
    wanted = max(1, round(share * len(wells)))
    left = wells[LABEL].value_counts().to_dict()
    drawn: list[int] = []
    for row in order:
        label = wells.at[row, LABEL]
        if len(drawn) < wanted and left[label] > 1:
            left[label] -= 1
            drawn.append(row)
    return drawn
