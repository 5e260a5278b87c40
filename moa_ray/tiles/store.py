"""The tile store: a screen's fields as the network sees them, made once, read back memory-mapped.

    FOLDER/<screen>-<fingerprint>/    fingerprint.json      everything that shaped the tiles; written last
                                      tiles.parquet         plate, well, field, tile, row
                                      dropped.parquet       plate, well, field, tile, reason: tiles that are not there
                                      quality.parquet       plate, well, field, channel, focus, saturated, ...
                                      tiles-<size>.npy      (n, size, size, 3) uint8; grows plate by plate
                                      features-<digest>.npy, .json   of a frozen backbone, where they were asked for
                                      parts/<plate>.parquet the rows of a finished plate while the store is being made

A store is known by the fingerprint of all that shaped it: when that changes a new store is made beside the old one.
Labels do not shape tiles. Rows carry keys; nothing depends on their order.

Each field is read once for each thing that it is: for the moments of its plate where it is a control, for tiles where
it has a label.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moa_ray.common.schema import TILE_KEY
from moa_ray.config.preparation import Preparation
from moa_ray.tiles import dropped
from moa_ray.tiles.dropped import REASON
from moa_ray.tiles.quality import none_measured


@dataclass(frozen=True)
class TileStore:
    """A store that is whole.

    Attributes
    ----------
    path : Path
        Its folder.
    fingerprint : str
        SHA-256 of all that shaped the tiles, hexadecimal.
    sizes : tuple of int
        Edge lengths of the tiles in pixels, ascending; one array each.
    table : DataFrame, one row per tile
        The columns of `TILE_KEY`, and ``row``: the tile's index along the first axis of every array.
    warnings : tuple of str
        What happened while the tiles were made that users should know, a sentence each.
    dropped : DataFrame, one row per tile
        The columns of `TILE_KEY`, and ``reason``: the tiles that were dropped, and why; see `counts` and `lost`.
    quality : DataFrame, one row per labelled field and channel
        The columns of `moa_ray.tiles.quality.COLUMNS`: what was measured of the images. No row where the store was made
        before it was.
    """

    path: Path
    fingerprint: str
    sizes: tuple[int, ...]
    table: pd.DataFrame
    warnings: tuple[str, ...]
    dropped: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*TILE_KEY, REASON], dtype="str"))
    quality: pd.DataFrame = field(default_factory=none_measured)

    def file(self, size: int) -> Path:
        """Return the file that holds the tiles of one image size.

        Parameters
        ----------
        size : int
            Edge length in pixels.

        Returns
        -------
        Path
            A NumPy array file in the store.
        """
        return self.path / f"tiles-{size}.npy"

    def array(self, size: int) -> NDArray[np.uint8]:
        """Map the tiles of one image size into memory, read-only.

        Parameters
        ----------
        size : int
            Edge length in pixels, one of `sizes`.

        Returns
        -------
        ndarray of uint8, shape (n, size, size, 3)
            Channels in the order of the network's input; zeros where the screen has none.
        """
        array: NDArray[np.uint8] = np.load(self.file(size), mmap_mode="r", allow_pickle=False)
        return array

    def counts(self, fields: pd.DataFrame) -> pd.DataFrame:
        """Count fields, wells and tiles, and how many of them were dropped, by plate and compound.

        Parameters
        ----------
        fields : DataFrame, one row per field
            The screen's labelled fields.

        Returns
        -------
        DataFrame, one row per plate and compound
            ``fields``, ``wells``, ``tiles``, ``dropped_fields``, ``dropped_wells``, ``dropped_tiles``, as
            `moa_ray.tiles.dropped.counts` says.
        """
        return dropped.counts(self.table, self.dropped, fields)

    def lost(self, fields: pd.DataFrame, unit: Sequence[str]) -> pd.DataFrame:
        """Return the fields, wells, treatments or compounds of which no tile is left, with the reason.

        Parameters
        ----------
        fields : DataFrame, one row per field
            The screen's labelled fields.
        unit : sequence of str
            The columns that tell the units apart: `FIELD_KEY`, `WELL_KEY`, `TREATMENT` or others.

        Returns
        -------
        DataFrame, one row per unit
            The columns of `unit`, and ``reason``.
        """
        return dropped.lost(self.table, self.dropped, fields, unit)


def expected_bytes(fields: int, preparation: Preparation, sizes: Collection[int]) -> int:
    """Return what a store takes on disk if no tile is dropped.

    Parameters
    ----------
    fields : int
        Fields with a label.
    preparation : Preparation
        Into how many tiles each is cut.
    sizes : collection of int
        Edge lengths of the tiles in pixels.

    Returns
    -------
    int
        Bytes of the arrays.
    """
    return fields * preparation.rows * preparation.columns * sum(3 * size * size for size in sizes)
