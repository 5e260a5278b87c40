"""Fields cut into tiles: resized by area averaging, mapped to 8 bits, cropped, nearly empty tiles dropped.

Areas are averaged by products with sparse matrices of whole numbers, so that the result does not depend on a library's
rounding. Arrays in, arrays out.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from moa_ray.config.preparation import Preparation
from moa_ray.tiles.intensities import Array, Curve, apply_maps, maps_to_8bit, to_8bit


def crops(line: Array, count: int) -> list[Array]:
    """Cut an array into even parts along its last axis; pixels left over at the far end belong to none.

    Parameters
    ----------
    line : array
        Of any shape.
    count : int
        How many parts.

    Returns
    -------
    list of array
        Views, in order.
    """
    length = line.shape[-1] // count
    return [line[..., part * length : (part + 1) * length] for part in range(count)]


def is_empty(tile: Array, above: int, share: float) -> bool:
    """Tell whether at most a share of a tile's values (all channels) is above a grey level.

    Parameters
    ----------
    tile : array
        Grey levels of 8 bits, rows first.
    above : int
        Grey level, 0..255.
    share : float
        In [0, 1].

    Returns
    -------
    bool
        Whether the tile is nearly empty.
    """
    most = share * tile.size
    # Of most tiles some of the rows hold more already.
    return all(np.count_nonzero(rows > above) <= most for rows in (tile[::16], tile))


def resize_crops(band: NDArray[np.uint16], count: int, size: int) -> list[NDArray[np.uint8]]:
    """Resize the crops of a band to squares by area averaging, rounded to whole grey levels.

    Parameters
    ----------
    band : array of uint16, shape (height, channels, width)
        Grey levels of 8 bits.
    count : int
        How many even parts of its width are the crops.
    size : int
        Side of a square, pixels.

    Returns
    -------
    list of array of uint8, each of shape (size, size, channels)
        The crops in order.
    """
    height, channels, width = band.shape
    if size > min(height, width // count):
        return [_enlarged(crop, size) for crop in crops(band, count)]
    # Whole numbers of 16 bits, where the sum of so many grey levels fits in them, are twice as quick.
    unit = height // math.gcd(height, size)
    down = _overlaps(height, size, np.dtype(np.uint16 if unit * 255 < 1 << 16 else np.float32))
    across = _overlaps(width // count, size, np.dtype(np.float32))
    area = unit * (width // count // math.gcd(width // count, size))
    # A row of one channel lies in one piece, so that whole rows are added up; then the same with columns.
    rows = np.ascontiguousarray(band, dtype=down.dtype).reshape(height, channels * width)
    columns = cv2.transpose((down @ rows).reshape(size * channels, width))
    return [_rounded(across @ part.T, area, channels) for part in crops(columns.T, count)]


def _rounded(sums: NDArray[np.float32], area: int, channels: int) -> NDArray[np.uint8]:
    """Make a tile from the sums over its areas, shape (columns, rows x channels)."""
    sums /= area
    size = len(sums)
    means = np.rint(sums, out=sums).astype(np.uint8).reshape(size, size, channels)
    turned: NDArray[np.uint8] = np.empty_like(means)
    cv2.transpose(means, dst=turned)
    return turned


def _enlarged(crop: NDArray[np.uint16], size: int) -> NDArray[np.uint8]:
    """Enlarge a crop, shape (height, channels, width), as OpenCV does."""
    tile = np.ascontiguousarray(crop.swapaxes(1, 2), dtype=np.uint8)
    enlarged: NDArray[np.uint8] = np.empty((size, size, tile.shape[-1]), dtype=np.uint8)
    cv2.resize(tile, (size, size), dst=enlarged, interpolation=cv2.INTER_AREA)
    return enlarged


def resize_plane(plane: Array, shape: tuple[int, int]) -> Array:
    """Resize one channel of a field, each pixel the mean of the area that it covers.

    Parameters
    ----------
    plane : array of shape (height, width)
        Raw grey levels.
    shape : tuple of int
        The height and width, pixels, to resize to.

    Returns
    -------
    array of `shape`
        Of the same dtype; whole numbers are rounded to the nearest, halves to the even one.
    """
    if plane.shape == shape:
        return plane
    height, width = plane.shape
    down, across = (
        _overlaps(length, size, np.dtype(np.float64)) for length, size in zip(plane.shape, shape, strict=True)
    )
    # In double precision the sums of up to 16 bits are exact.
    sums = (across @ (down @ plane.astype(np.float64)).T).T
    sums /= (height // math.gcd(height, shape[0])) * (width // math.gcd(width, shape[1]))
    means = sums if plane.dtype.kind == "f" else np.rint(sums)
    return np.ascontiguousarray(means, dtype=plane.dtype)


def sized(planes: Sequence[Array], preparation: Preparation) -> Sequence[Array]:
    """Resize the channels of a raw field to the height and width that they are prepared at.

    Parameters
    ----------
    planes : sequence of array, each of shape (height, width)
        The channels, raw.
    preparation : Preparation
        Its `shape`, where it has one.

    Returns
    -------
    sequence of array
        The same where nothing is resized.
    """
    shape = preparation.shape
    return planes if shape is None else [resize_plane(plane, shape) for plane in planes]


@lru_cache(maxsize=64)
def _overlaps(length: int, size: int, kind: np.dtype[Any]) -> sparse.csr_array:
    """Return how much of each pixel of a line lies in each of `size` stretches of it, shape (size, length).

    In the unit in which pixels and stretches have whole lengths: a row sums to length / gcd(length, size).
    """
    unit = math.gcd(length, size)
    stretches, pixels = np.arange(size + 1) * (length // unit), np.arange(length + 1) * (size // unit)
    begin = np.maximum(stretches[:-1, None], pixels[None, :-1])
    end = np.minimum(stretches[1:, None], pixels[None, 1:])
    return sparse.csr_array(np.maximum(end - begin, 0).astype(kind))


@dataclass(frozen=True)
class FieldTiles:
    """What one field is cut into.

    Attributes
    ----------
    tiles : list of tuple of str and dict of int to array of uint8, shape (size, size, channels)
        Row and column of each tile in the grid, ``0-1``, and the tile in each size.
    empty : list of str
        The names of the tiles that are dropped, since nearly nothing is on them.
    quality : array of float64, shape (channels, measures), or None
        As `moa_ray.tiles.quality.measure_quality` returns it, where it was measured.
    reason : str or None
        Why all tiles are dropped, where it is not for being empty.
    """

    tiles: list[tuple[str, dict[int, NDArray[np.uint8]]]]
    empty: list[str]
    quality: NDArray[np.float64] | None = None
    reason: str | None = None


def tile_names(preparation: Preparation) -> list[str]:
    """Return the names of all tiles of a field.

    Parameters
    ----------
    preparation : Preparation
        Its grid.

    Returns
    -------
    list of str
        ``row-column``, row by row.
    """
    return [f"{row}-{column}" for row in range(preparation.rows) for column in range(preparation.columns)]


def field_tiles(
    planes: Sequence[Array], preparation: Preparation, curves: Sequence[Curve], sizes: Sequence[int]
) -> FieldTiles:
    """Make the tiles of a raw field: resized, mapped to 8 bits, cropped, nearly empty tiles dropped.

    Parameters
    ----------
    planes : sequence of array, each of shape (height, width)
        The channels, raw.
    preparation : Preparation
        Size of the field, grid, range of the map, and what counts as empty.
    curves : sequence of Curve
        One for each channel.
    sizes : sequence of int
        Sides of the tiles, pixels.

    Returns
    -------
    FieldTiles
        Every tile of the grid, among its tiles or by name among the empty ones.
    """
    above, share = preparation.empty_above, preparation.empty_share
    made = FieldTiles([], [])
    for row, band in enumerate(_bands(sized(planes, preparation), preparation, curves)):
        by_size = {size: resize_crops(band, preparation.columns, size) for size in sizes}
        for column, crop in enumerate(crops(band, preparation.columns)):
            name = f"{row}-{column}"
            if share is not None and is_empty(crop, above, share):
                made.empty.append(name)
            else:
                made.tiles.append((name, {size: tiles[column] for size, tiles in by_size.items()}))
    return made


def _bands(planes: Sequence[Array], preparation: Preparation, curves: Sequence[Curve]) -> Iterator[NDArray[np.uint16]]:
    """Yield the rows of a field's grid in grey levels of 8 bits, one at a time: one fits the processor's cache."""
    maps = maps_to_8bit(planes, curves) if preparation.range_over == "field" else None
    height = planes[0].shape[0] // preparation.rows
    for row in range(preparation.rows):
        rows = [plane[row * height : (row + 1) * height] for plane in planes]
        if maps:
            band = np.empty((height, len(planes), planes[0].shape[1]), dtype=np.uint16)
            apply_maps(rows, maps, band)
            yield band
        else:
            parts = zip(*(crops(plane, preparation.columns) for plane in rows), strict=True)
            yield np.concatenate([to_8bit(part, curves) for part in parts], axis=-1)
