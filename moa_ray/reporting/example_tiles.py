"""The tiles of a sweep that its report shows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moa_ray.common.schema import FIELD_KEY, LABEL, TILE, TILE_KEY, TREATMENT

_EACH = 6  # tiles shown of each label


@dataclass(frozen=True)
class ExampleTiles:
    """The largest tiles of a sweep, and those that were predicted.

    Attributes
    ----------
    tiles : ndarray of uint8, shape (n, size, size, 3)
        All tiles of the store, memory-mapped.
    rows : DataFrame
        One row a predicted tile, in order, with its treatment, its label, and its row in `tiles`.
    """

    tiles: NDArray[np.uint8]
    rows: pd.DataFrame

    def of_labels(self) -> dict[str, list[NDArray[np.uint8]]]:
        """Pick a few tiles of each label.

        Returns
        -------
        dict of str to list of ndarray
            Tiles of shape (size, size, 3), spread over the label's treatments.
        """
        picked = {}
        for label, rows in self.rows.groupby(LABEL):
            spread = np.unique(np.linspace(0, len(rows) - 1, _EACH).astype(int))
            picked[str(label)] = [self.tiles[row] for row in rows["row"].iloc[spread]]
        return picked

    def of_treatments(self, keys: Iterable[tuple[str, float]]) -> dict[tuple[str, float], NDArray[np.uint8]]:
        """Pick the first tile of each of some treatments.

        Parameters
        ----------
        keys : iterable of tuple of str and float
            Compounds with their concentrations in µmol/L.

        Returns
        -------
        dict of tuple to ndarray
            Tiles of shape (size, size, 3) by treatment.
        """
        first = self.rows.drop_duplicates(TREATMENT).set_index(TREATMENT)["row"]
        return {key: self.tiles[first[key]] for key in keys}


def read(
    study: Mapping[str, Any], recipes: Mapping[str, Mapping[str, Any]], predictions: pd.DataFrame
) -> ExampleTiles | None:
    """Map the tiles of a sweep.

    Parameters
    ----------
    study : mapping of str to Any
        What the ledger says that all trials share: the place of the tile store.
    recipes : mapping of str to mapping
        Hyperparameters of each candidate; the largest image size is shown.
    predictions : DataFrame
        One row a predicted tile; may be empty.

    Returns
    -------
    ExampleTiles or None
        None where the tile store is not at hand, or nothing was predicted.
    """
    store = Path(study["tile_store"])
    sizes = sorted({recipe["image_size"] for recipe in recipes.values()})
    if predictions.empty or not (file := store / f"tiles-{sizes[-1]}.npy").exists():
        return None
    stored = pd.read_parquet(store / "tiles.parquet")
    predicted = predictions[[*TILE_KEY, *TREATMENT, LABEL]].drop_duplicates(TILE_KEY)
    rows = predicted.merge(stored[[*TILE_KEY, "row"]], on=TILE_KEY, validate="one_to_one")
    return ExampleTiles(np.load(file, mmap_mode="r", allow_pickle=False), rows.sort_values([*FIELD_KEY, TILE]))
