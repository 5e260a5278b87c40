"""What the tests of the tile store share: a painted screen, its store, and tiles by key."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moa_ray.common.schema import TILE_KEY
from moa_ray.config.painting import Painting
from moa_ray.config.preparation import Preparation
from moa_ray.screens.screen import Screen
from moa_ray.tiles.build import prepare
from moa_ray.tiles.store import TileStore
from moa_ray.tiles.workers import ThreadExecutor

PAINTING = Painting(labels=2, compounds=2, concentrations=1, replicates=2, fields=2, height=64, width=80, cells=5)
PLATES = 4  # two weeks of two plates, each with 4 control fields and 4 labelled ones

Tiles = dict[tuple[str, ...], NDArray[np.uint8]]


def quiet(done: int, total: int) -> None:
    pass


def prepared(screen: Screen, folder: Path, preparation: Preparation | None = None, size: int = 32) -> TileStore:
    return prepare(screen, preparation or Preparation(), [size], folder, ThreadExecutor(2), quiet)


def by_key(store: TileStore, size: int = 32) -> Tiles:
    array = store.array(size)
    return {tuple(key): array[row] for *key, row in store.table[[*TILE_KEY, "row"]].itertuples(index=False)}


def same(tiles: Tiles, others: Tiles) -> bool:
    return tiles.keys() == others.keys() and all(np.array_equal(tiles[key], others[key]) for key in tiles)
