"""Intensities of fields: variance stabilised, normalised by the controls, mapped to 8 bits. Arrays in, arrays out.

A field is one array of shape (height, width) for each channel, as it was read. Pixels of 8 and 16 bits go through
tables of their grey levels, so that no plane is ever held in floats. The defaults follow Kensert et al. 2019.
"""

import ctypes
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Numbers of malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


@lru_cache(maxsize=1)
def settle_process() -> None:
    """Prepare this process to handle field after field on threads of its own: twice as quick, with the same pixels."""
    cv2.setNumThreads(1)  # OpenCV's threads would only get in the way of ours
    # The C library gives a field's memory back to the system each time, and gets it anew page by page.
    with suppress(OSError, AttributeError):  # not every C library can be told
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, 1 << 25)
        library.mallopt(_TRIM_THRESHOLD, 1 << 27)


def anscombe(values: Array) -> NDArray[np.float32]:
    """Stabilise variance by 2 * sqrt(x + 3/8), after which photon noise has a variance of about 1.

    Parameters
    ----------
    values : array of any shape
        Raw grey levels.

    Returns
    -------
    array of float32
        Of the same shape.

    References
    ----------
    Anscombe 1948, the transformation of Poisson, binomial and negative-binomial data.
    """
    transformed: NDArray[np.float32] = np.sqrt(values.astype(np.float32) + np.float32(0.375))
    transformed *= 2
    return transformed


@dataclass(frozen=True)
class Curve:
    """The function of raw values that one channel goes through before the map to 8 bits; it never falls.

    Attributes
    ----------
    anscombe : bool
        Whether the variance is stabilised first.
    mean, std : float or None
        Centre and scale of the fields that it is normalised by, after that transform: mean and standard deviation, or
        what stands for them; None where nothing is normalised.
    """

    anscombe: bool
    mean: float | None = None
    std: float | None = None

    def __call__(self, raw: Array) -> NDArray[np.float32]:
        """Transform raw grey levels, an array of any shape."""
        values = anscombe(raw) if self.anscombe else raw.astype(np.float32)
        if self.mean is None or self.std is None:
            return values
        return (values - np.float32(self.mean)) / np.float32(self.std)

    def of_levels(self, lowest: int, highest: int) -> NDArray[np.float32]:
        """Transform all grey levels of a range: pixels of 8 or 16 bits are looked up in them.

        Parameters
        ----------
        lowest, highest : int
            First and last grey level, 0..65535.

        Returns
        -------
        array of float32, shape (highest - lowest + 1,)
            The value of each grey level.
        """
        return _all_levels(self)[lowest : highest + 1]


@lru_cache(maxsize=64)
def _all_levels(curve: Curve) -> NDArray[np.float32]:
    return curve(np.arange(1 << 16, dtype=np.uint16))


def has_levels(plane: Array) -> bool:
    """Tell whether the pixels of a channel go through a table of their grey levels.

    Parameters
    ----------
    plane : array
        Raw grey levels.

    Returns
    -------
    bool
        Whether they are unsigned whole numbers of 8 or 16 bits.
    """
    return plane.dtype in (np.uint8, np.uint16)


def to_8bit(planes: Sequence[Array], curves: Sequence[Curve]) -> NDArray[np.uint16]:
    """Map the channels of a field to 0..255, truncated: each through its curve, then all by one linear map.

    The map goes from the minimum over all channels to their maximum. A field of one single value becomes zeros.

    Parameters
    ----------
    planes : sequence of array, each of shape (height, width)
        The channels, raw.
    curves : sequence of Curve
        One for each channel.

    Returns
    -------
    array of uint16, shape (height, channels, width)
        Grey levels of 8 bits in a wider dtype, so that they can be added up.
    """
    height, width = planes[0].shape
    mapped = np.empty((height, len(planes), width), dtype=np.uint16)
    apply_maps(planes, maps_to_8bit(planes, curves), mapped)
    return mapped


LevelMap = Callable[[Array, NDArray[np.uint16]], object]  # writes a plane's grey levels of 8 bits to an array


def apply_maps(planes: Sequence[Array], maps: Sequence[LevelMap], out: NDArray[np.uint16]) -> None:
    """Write each channel of a field, or of a part of it, in grey levels of 8 bits.

    Parameters
    ----------
    planes : sequence of array, each of shape (height, width)
        The channels, raw.
    maps : sequence of LevelMap
        One for each channel, as `maps_to_8bit` makes them.
    out : array of uint16, shape (height, channels, width)
        Where they are written to.
    """
    for channel, (plane, write) in enumerate(zip(planes, maps, strict=True)):
        write(plane, out[:, channel])


def maps_to_8bit(planes: Sequence[Array], curves: Sequence[Curve]) -> list[LevelMap]:
    """Make the map of each channel of a field to grey levels of 8 bits, which can be applied to any part of the field.

    Parameters
    ----------
    planes : sequence of array, each of shape (height, width)
        The channels of the whole field, raw; their range becomes 0..255.
    curves : sequence of Curve
        One for each channel.

    Returns
    -------
    list of LevelMap
        One for each channel.
    """
    levels = [np.array(cv2.minMaxLoc(plane)[:2], dtype=plane.dtype) for plane in planes]
    # A curve never falls: the ends of its values are those of the raw values'.
    ends = [curve(pair) for curve, pair in zip(curves, levels, strict=True)]
    low, high = float(min(end[0] for end in ends)), float(max(end[1] for end in ends))
    if high == low:
        return [_write_zeros] * len(planes)
    maps: list[LevelMap] = []
    for plane, curve, (first, last) in zip(planes, curves, levels, strict=True):
        if has_levels(plane):
            table = np.zeros(np.iinfo(plane.dtype).max + 1, dtype=np.uint16)
            table[first : int(last) + 1] = _linear(curve.of_levels(int(first), int(last)), low, high)
            maps.append(partial(_look_up, table))
        else:
            maps.append(partial(_write_linear, curve, low, high))
    return maps


def _write_zeros(plane: Array, out: NDArray[np.uint16]) -> None:
    out[:] = 0


def _look_up(table: NDArray[np.uint16], plane: Array, out: NDArray[np.uint16]) -> None:
    cv2.LUT(plane, table, dst=out)


def _write_linear(curve: Curve, low: float, high: float, plane: Array, out: NDArray[np.uint16]) -> None:
    out[:] = _linear(curve(plane), low, high)


def _linear(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    # Divided first and in double precision: the maximum becomes exactly 1, so that it lands on 255 and not just below.
    return ((values - np.float64(low)) / (high - low) * 255.0).astype(np.uint8)
