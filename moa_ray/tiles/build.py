"""Make the tile store of a screen, or open the one that is there.

Control fields come first and give the curves of every plate; then each field with a label is read, mapped to 8 bits,
cut into tiles and resized to all sizes at once. Plates that an interrupted run finished are used again.
"""

import json
import shutil
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moa_ray.common.errors import InputError
from moa_ray.common.files import file_lock, write_json
from moa_ray.common.schema import FIELD_KEY, PLATE, require_unique
from moa_ray.common.uri import Place
from moa_ray.config.planes import Plane
from moa_ray.config.preparation import Preparation
from moa_ray.screens.reading import read_field
from moa_ray.screens.screen import Screen
from moa_ray.tiles import dropped, quality
from moa_ray.tiles.controls import curves, measure
from moa_ray.tiles.cropping import FieldTiles, field_tiles, tile_names
from moa_ray.tiles.fingerprint import digest, shaping_facts
from moa_ray.tiles.groups import fallbacks, measured_fields, units
from moa_ray.tiles.intensities import Curve, settle_process
from moa_ray.tiles.pixels import fit_pixels
from moa_ray.tiles.quality import beyond_limits, measure_quality
from moa_ray.tiles.store import TileStore
from moa_ray.tiles.workers import FieldCounter, FieldExecutor, unreadable
from moa_ray.tiles.writer import StoreWriter

_LAST_FILE = "fingerprint.json"  # written when all else is there


def prepare(
    screen: Screen,
    preparation: Preparation,
    sizes: Collection[int],
    folder: Path,
    executor: FieldExecutor,
    progress: Callable[[int, int], None],
) -> TileStore:
    """Open the tile store of a screen; make it where no whole one is there, going on from its finished plates.

    Parameters
    ----------
    screen : Screen
        The screen.
    preparation : Preparation
        How fields become tiles.
    sizes : collection of int
        Edge lengths of the tiles in pixels.
    folder : Path
        The folder of tile stores, made where it is missing.
    executor : FieldExecutor
        Reads the fields. Memory stays bounded by the one field that each worker holds, and the tiles in flight.
    progress : callable
        Called with the fields done and the fields in all, those of finished plates included.

    Returns
    -------
    TileStore
        The store, whole.

    Raises
    ------
    InputError
        If fields cannot be read (it names them), plates cannot be normalised, or no tile is left.
    """
    sizes = sorted(set(sizes))
    facts = shaping_facts(screen, preparation, sizes)
    fingerprint = digest(facts)
    store = folder / f"{screen.name}-{fingerprint[:12]}"
    last_file = store / _LAST_FILE
    if not last_file.exists():
        store.mkdir(parents=True, exist_ok=True)
        with file_lock(store / ".lock"):
            if not last_file.exists():  # another process may have made it meanwhile
                to_tiles = _FieldToTiles(executor.root(screen), screen.channels, screen.used_planes, preparation, sizes)
                _make(screen, to_tiles, store, executor, progress)
                warnings = fallbacks(screen, preparation)[1]
                write_json(last_file, {"fingerprint": fingerprint, "warnings": warnings, **facts})
    shutil.rmtree(store / "parts", ignore_errors=True)  # also those of a process killed before it came to this
    return _opened(screen, preparation, sizes, store)


def store_path(screen: Screen, preparation: Preparation, sizes: Collection[int], folder: Path) -> Path:
    """Return the folder of the tile store of a screen, whether it is there or not.

    Parameters
    ----------
    screen : Screen
        The screen.
    preparation : Preparation
        How fields become tiles.
    sizes : collection of int
        Edge lengths of the tiles in pixels.
    folder : Path
        The folder of tile stores.

    Returns
    -------
    Path
    """
    return folder / f"{screen.name}-{digest(shaping_facts(screen, preparation, sizes))[:12]}"


def existing(screen: Screen, preparation: Preparation, sizes: Collection[int], folder: Path) -> TileStore | None:
    """Open the tile store of a screen where it is whole, and write nothing.

    Parameters
    ----------
    screen : Screen
        The screen.
    preparation : Preparation
        How fields become tiles.
    sizes : collection of int
        Edge lengths of the tiles in pixels.
    folder : Path
        The folder of tile stores.

    Returns
    -------
    TileStore or None
        None where it is not there, or not whole.
    """
    store = store_path(screen, preparation, sizes, folder)
    return _opened(screen, preparation, sorted(set(sizes)), store) if (store / _LAST_FILE).exists() else None


def _opened(screen: Screen, preparation: Preparation, sizes: Collection[int], store: Path) -> TileStore:
    """Open a store that is whole."""
    written = json.loads((store / _LAST_FILE).read_text(encoding="utf-8"))
    warnings = list(written["warnings"])
    table = pd.read_parquet(store / "tiles.parquet")
    file = store / "dropped.parquet"
    missing = pd.read_parquet(file) if file.exists() else dropped.missing_tiles(table, screen.labelled, preparation)
    file = store / "quality.parquet"
    of_fields = pd.read_parquet(file) if file.exists() else quality.none_measured()
    warnings += [*dropped.warnings(table, missing, screen.labelled), *quality.warnings(of_fields)]
    return TileStore(store, written["fingerprint"], tuple(sizes), table, tuple(warnings), missing, of_fields)


@dataclass(frozen=True)
class _Read:
    """Reads a field, to learn whether it can be prepared."""

    root: Place
    planes: tuple[Plane | None, ...]
    preparation: Preparation

    def __call__(self, locations: list[str]) -> None:
        fit_pixels(read_field(self.root, locations, self.planes), locations, self.preparation)


@dataclass(frozen=True)
class _FieldToTiles:
    """Turns the locations of a field, with the curves of its plate, into tiles by name and image size."""

    root: Place
    channels: tuple[str | None, ...]
    planes: tuple[Plane | None, ...]
    preparation: Preparation
    sizes: list[int]

    def __call__(self, job: tuple[list[str], list[Curve]]) -> FieldTiles:
        locations, curves_of_plate = job
        settle_process()
        planes = fit_pixels(read_field(self.root, locations, self.planes), locations, self.preparation)
        values = measure_quality(planes)
        reason = beyond_limits(values, [name for name in self.channels if name], self.preparation.quality)
        if reason is not None:
            return FieldTiles([], tile_names(self.preparation), values, reason)
        made = field_tiles(planes, self.preparation, curves_of_plate, self.sizes)
        tiles = [
            (name, {size: self._network_input(tile) for size, tile in by_size.items()}) for name, by_size in made.tiles
        ]
        return replace(made, tiles=tiles, quality=values)

    def _network_input(self, tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the tile with its channels at their places among the network's three, zeros elsewhere."""
        used = [index for index, channel in enumerate(self.channels) if channel is not None]
        if used == [0, 1, 2]:
            return tile
        whole = np.zeros((*tile.shape[:2], 3), dtype=np.uint8)
        whole[..., used] = tile
        return whole


def _make(
    screen: Screen, to_tiles: _FieldToTiles, store: Path, executor: FieldExecutor, progress: Callable[[int, int], None]
) -> None:
    """Make all of a store but its last file."""
    require_unique(screen.fields, FIELD_KEY, "field table")
    parts = store / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    preparation = to_tiles.preparation
    counter = FieldCounter(len(measured_fields(screen, preparation)) + len(screen.labelled), progress)
    measured, errors = measure(screen, preparation, parts, executor, counter)
    if errors:  # all that is wrong is told at once: also of the fields that cannot be normalised without these
        locations = screen.labelled.sort_values(FIELD_KEY)[screen.path_columns].to_numpy().tolist()
        with closing(executor.map(_Read(to_tiles.root, to_tiles.planes, preparation), locations)) as results:
            errors += [result for result in counter.counted(results) if isinstance(result, InputError)]
        raise unreadable(errors)
    of_unit = curves(screen, preparation, measured)
    with StoreWriter(store, to_tiles.sizes, screen.used_channels) as writer:
        finished = screen.labelled[PLATE].isin(writer.plates)
        counter.add(int(finished.sum()))
        fields = screen.labelled[~finished].sort_values(FIELD_KEY)
        places = zip(units(fields, preparation.normalise), fields[screen.path_columns].to_numpy().tolist(), strict=True)
        with closing(executor.map(to_tiles, ((paths, of_unit[unit]) for unit, paths in places))) as results:
            for plate, rows in fields.groupby(PLATE):
                errors += writer.add_plate(str(plate), rows, counter.counted(results))
    if errors:
        raise unreadable(errors)
    writer.end(screen.labelled[PLATE].unique())
