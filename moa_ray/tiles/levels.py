"""Median and median absolute deviation of pixels, field by field: how often each value occurs, which adds up.

Images of 8 and 16 bits are exact. Of other pixels each is rounded to 16 significant bits first, so that memory is
bounded by the range of the values and not by the number of pixels: by 32,768 values for each doubling.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moa_ray.common.files import write_bytes
from moa_ray.tiles.intensities import Array, Curve, has_levels
from moa_ray.tiles.moments import level_counts

_OF_A_NORMAL = 1.4826022185056018  # standard deviation of a normal distribution over its median absolute deviation
_DROPPED_BITS = 8  # of the 24 significant ones of a float32


@dataclass(frozen=True)
class Levels:
    """How often each value occurs among the pixels of each channel.

    Attributes
    ----------
    values : tuple of array of float32
        Of each channel, ascending.
    counts : tuple of array of int64
        How many pixels have each.

    Notes
    -----
    Whole numbers up to 65,536 are exact in whatever dtype they come. Other pixels are rounded by at most 2**-16 of
    themselves, before the transform: without one, the median is off by at most that share of itself, and the median
    absolute deviation by at most 2**-16 of twice the median and itself.
    """

    values: tuple[NDArray[np.float32], ...]
    counts: tuple[NDArray[np.int64], ...]

    @classmethod
    def zero(cls, channels: int) -> "Levels":
        """Return the levels of zero pixels, the additive identity.

        Parameters
        ----------
        channels : int
            How many channels.

        Returns
        -------
        Levels
            Of no value.
        """
        return cls((np.zeros(0, np.float32),) * channels, (np.zeros(0, np.int64),) * channels)

    @classmethod
    def of(cls, planes: Sequence[Array], curve: Curve) -> "Levels":
        """Count the values of one field after a curve.

        Parameters
        ----------
        planes : sequence of array, each of shape (height, width)
            The channels.
        curve : Curve
            The transform of all channels, before any normalisation.

        Returns
        -------
        Levels
            Of all pixels of the field.
        """
        counted = [_merged(*_values_and_counts(plane, curve)) for plane in planes]
        return cls(tuple(values for values, _ in counted), tuple(counts for _, counts in counted))

    def __add__(self, other: "Levels") -> "Levels":
        channels = zip(self.values, other.values, self.counts, other.counts, strict=True)
        merged = [
            _merged(np.concatenate([values, others]), np.concatenate([counts, other_counts]))
            for values, others, counts, other_counts in channels
        ]
        return Levels(tuple(values for values, _ in merged), tuple(counts for _, counts in merged))

    @property
    def count(self) -> int:
        """Number of pixels of each channel."""
        return int(self.counts[0].sum())

    @property
    def center(self) -> NDArray[np.float64]:
        """What is subtracted from each channel: the median."""
        return self._each(_median)

    @property
    def scale(self) -> NDArray[np.float64]:
        """What each channel is divided by: 1.4826 times the median absolute deviation from the median."""
        return _OF_A_NORMAL * self._each(lambda values, counts: _median(abs(values - _median(values, counts)), counts))

    def _each(self, of_channel: Callable[[NDArray[np.float64], NDArray[np.int64]], float]) -> NDArray[np.float64]:
        channels = zip(self.values, self.counts, strict=True)
        return np.array([of_channel(values.astype(np.float64), counts) for values, counts in channels])

    def save(self, path: Path) -> None:
        """Write the levels whole or not at all.

        Parameters
        ----------
        path : Path
            An archive of arrays.
        """
        file = io.BytesIO()
        np.savez(file, *self.values, *self.counts)
        write_bytes(path, file.getvalue())

    @classmethod
    def load(cls, path: Path) -> "Levels":
        """Read what `save` wrote.

        Parameters
        ----------
        path : Path
            The file.

        Returns
        -------
        Levels
            The same.
        """
        with np.load(path, allow_pickle=False) as arrays:
            both = tuple(arrays[f"arr_{number}"] for number in range(len(arrays.files)))
        channels = len(both) // 2
        return cls(both[:channels], both[channels:])


def _values_and_counts(plane: Array, curve: Curve) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    if has_levels(plane):
        lowest, counts = level_counts(plane)
        return curve.of_levels(lowest, lowest + len(counts) - 1), counts.astype(np.int64)
    bits = plane.astype(np.float32).view(np.uint32)
    rounded = (bits + np.uint32(1 << (_DROPPED_BITS - 1))) >> np.uint32(_DROPPED_BITS)
    levels, counts = np.unique(rounded, return_counts=True)
    return curve((levels << np.uint32(_DROPPED_BITS)).view(np.float32)), counts


def _merged(values: NDArray[np.float32], counts: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Sort values, each once, without those that do not occur."""
    once, places = np.unique(values[counts > 0], return_inverse=True)
    return once, np.bincount(places, weights=counts[counts > 0], minlength=len(once)).astype(np.int64)


def _median(values: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    """Return the median of values that occur so often, as `numpy.median` defines it."""
    order = np.argsort(values)
    last = np.cumsum(counts[order])  # ranks up to which each value goes
    middle = np.searchsorted(last, [(last[-1] - 1) // 2, last[-1] // 2], side="right")
    return float(values[order][middle].mean())
