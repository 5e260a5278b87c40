"""Mean and standard deviation of pixels, field by field: count, mean and sum of squared deviations, which add up."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from moa_ray.common.files import write_json
from moa_ray.tiles.intensities import Array, Curve, has_levels


class Statistic(Protocol):
    """What is measured of the pixels of fields to normalise by; it can be added up field by field."""

    @classmethod
    def zero(cls, channels: int) -> Self:
        """Return that of zero pixels.

        Parameters
        ----------
        channels : int
            How many channels.

        Returns
        -------
        Statistic
            The additive identity.
        """

    @classmethod
    def of(cls, planes: Sequence[Array], curve: Curve) -> Self:
        """Measure one field after a curve.

        Parameters
        ----------
        planes : sequence of array, each of shape (height, width)
            The channels.
        curve : Curve
            The transform of all channels, before any normalisation.

        Returns
        -------
        Statistic
            Of all pixels of the field.
        """

    def __add__(self, other: Any, /) -> Self:
        """Return that of the pixels of both."""

    @property
    def count(self) -> int:
        """Number of pixels of each channel."""

    @property
    def center(self) -> NDArray[np.float64]:
        """What is subtracted from each channel."""

    @property
    def scale(self) -> NDArray[np.float64]:
        """What each channel is divided by."""

    def save(self, path: Path) -> None:
        """Write it whole or not at all.

        Parameters
        ----------
        path : Path
            The file.
        """

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Parameters
        ----------
        path : Path
            The file.

        Returns
        -------
        Statistic
            The same.
        """


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

    @property
    def center(self) -> NDArray[np.float64]:
        """What is subtracted from each channel: the mean."""
        return self.mean

    @property
    def scale(self) -> NDArray[np.float64]:
        """What each channel is divided by: the standard deviation."""
        return self.std

    def save(self, path: Path) -> None:
        """Write the moments whole or not at all.

        Parameters
        ----------
        path : Path
            A JSON file.
        """
        write_json(path, {"count": self.count, "mean": self.mean.tolist(), "m2": self.m2.tolist()})

    @classmethod
    def load(cls, path: Path) -> "Moments":
        """Read what `save` wrote.

        Parameters
        ----------
        path : Path
            The file.

        Returns
        -------
        Moments
            The same to the last bit.
        """
        plain = json.loads(path.read_text(encoding="utf-8"))
        return cls(plain["count"], np.array(plain["mean"]), np.array(plain["m2"]))


def level_counts(plane: Array) -> tuple[int, NDArray[np.float64]]:
    """Count the grey levels of a channel.

    Parameters
    ----------
    plane : array of uint8 or uint16, shape (height, width)
        Raw grey levels.

    Returns
    -------
    lowest : int
        The lowest of them.
    counts : array of float64
        How often it and each level above it occurs, up to the highest.
    """
    lowest, highest = int(plane.min()), int(plane.max())
    if plane.size < 1 << 24:  # up to which the float32 that OpenCV counts in is exact
        counts = cv2.calcHist([plane], [0], None, [highest + 1], [0, highest + 1]).ravel()[lowest:]
    else:
        counts = np.bincount(plane.ravel())[lowest:]
    return lowest, counts.astype(np.float64)


def _values_and_counts(plane: Array, curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the values of a plane after a curve, and how often each occurs."""
    if not has_levels(plane):
        values = curve(plane).ravel().astype(np.float64)
        return values, np.ones(len(values))
    lowest, counts = level_counts(plane)
    return curve.of_levels(lowest, lowest + len(counts) - 1).astype(np.float64), counts
