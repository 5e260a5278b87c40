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
        Of the controls, after that transform; None where nothing is normalised.
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


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of each channel's pixels, which can be added up field by field.

    Attributes
    ----------
    count : int
        Pixels of each channel.
    mean, m2 : array of float64, shape (channels,)
        Mean, and sum of squared deviations from it.

    References
    ----------
    Chan, Golub and LeVeque 1983, algorithms for computing the sample variance: updating formulae.
    """

    count: int
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]

    @classmethod
    def zero(cls, channels: int) -> "Moments":
        """Return the moments of zero pixels, the additive identity.

        Parameters
        ----------
        channels : int
            How many channels.

        Returns
        -------
        Moments
            Of count 0.
        """
        return cls(0, np.zeros(channels), np.zeros(channels))

    @classmethod
    def of(cls, planes: Sequence[Array], curve: Curve) -> "Moments":
        """Measure one field after a curve.

        Parameters
        ----------
        planes : sequence of array, each of shape (height, width)
            The channels.
        curve : Curve
            The transform of all channels, before any normalisation.

        Returns
        -------
        Moments
            Of all pixels of the field.
        """
        counted = [_values_and_counts(plane, curve) for plane in planes]
        means = [float(np.average(values, weights=counts)) for values, counts in counted]
        # Squares of deviations, not of values: float32 keeps its precision.
        m2 = [float(counts @ np.square(values - mean)) for (values, counts), mean in zip(counted, means, strict=True)]
        return cls(planes[0].size, np.array(means), np.array(m2))

    def __add__(self, other: "Moments") -> "Moments":
        count = self.count + other.count
        if not count:
            return self
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        return Moments(count, mean, self.m2 + other.m2 + delta**2 * (self.count * other.count / count))

    @property
    def std(self) -> NDArray[np.float64]:
        """Population standard deviation of each channel."""
        return np.sqrt(self.m2 / max(self.count, 1))


def _values_and_counts(plane: Array, curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the values of a plane after a curve, and how often each occurs."""
    if not _has_levels(plane):
        values = curve(plane).ravel().astype(np.float64)
        return values, np.ones(len(values))
    lowest, highest = int(plane.min()), int(plane.max())
    if plane.size < 1 << 24:  # up to which the float32 that OpenCV counts in is exact
        counts = cv2.calcHist([plane], [0], None, [highest + 1], [0, highest + 1]).ravel()[lowest:]
    else:
        counts = np.bincount(plane.ravel())[lowest:]
    return curve.of_levels(lowest, highest).astype(np.float64), counts.astype(np.float64)


def _has_levels(plane: Array) -> bool:
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
        if _has_levels(plane):
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
