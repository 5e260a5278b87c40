"""Batches of one fixed size, so that a compiled network is traced for one shape."""

import math
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from moa_ray.training.data import Rows


def filled(rows: Rows, size: int) -> Rows:
    """Fill the last batch up from the beginning.

    Parameters
    ----------
    rows : ndarray of int64
        At least one row.
    size : int
        Rows of a batch.

    Returns
    -------
    ndarray of int64
        The rows, as many as whole batches hold.
    """
    whole: Rows = np.resize(rows, math.ceil(len(rows) / size) * size)
    return whole


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of tiles for Keras, or of row numbers for a network that looks tiles up.

    Parameters
    ----------
    tiles : ndarray of shape (n, size, size, 3), uint8, or None
        A memory map, most often; without it batches are (size,) int32 rows.
    labels : ndarray of shape (n,), int64
        Index of each tile's class.
    rows : ndarray of int64
        The rows in their order; the last batch is filled up from the beginning.
    size : int
        Rows of a batch.
    weights : ndarray of shape (n_classes,), float32, optional
        Class weights. With them a batch is (tiles, labels, weights), to fit on; without, (tiles,), to predict.
    """

    def __init__(
        self,
        tiles: NDArray[np.uint8] | None,
        labels: NDArray[np.int64],
        rows: Rows,
        size: int,
        weights: NDArray[np.float32] | None = None,
    ) -> None:
        # With several workers Keras switches off the autotuning of tf.data, whose thread sleeps for twice as long each
        # time: an epoch that was over after six seconds could wait for the tenth until its iterator was gone.
        super().__init__(workers=2)
        self._tiles, self._labels, self._weights = tiles, labels, weights
        self._size = size
        self._rows = filled(rows, size)

    def __len__(self) -> int:
        return len(self._rows) // self._size

    def __getitem__(self, index: int) -> Any:
        rows = self._rows[index * self._size : (index + 1) * self._size]
        inputs = rows.astype("int32") if self._tiles is None else _read(self._tiles, rows)
        if self._weights is None:
            return (inputs,)
        labels = self._labels[rows]
        return inputs, labels, self._weights[labels]


def _read(tiles: NDArray[np.uint8], rows: Rows) -> NDArray[np.uint8]:
    """Some tiles; a memory map is read fastest in its own order."""
    order = np.argsort(rows, kind="stable")
    read = np.empty((len(rows), *tiles.shape[1:]), dtype=np.uint8)
    read[order] = tiles[rows[order]]
    return read
