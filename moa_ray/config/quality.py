"""Limits of image quality, checked when they are made."""

from dataclasses import dataclass, fields
from typing import ClassVar

from pydantic import ConfigDict

from moa_ray.config.numbers import SECTION


@dataclass(frozen=True)
class Limits:
    """The lowest and the highest value that a field may have; null sets no limit."""

    __pydantic_config__: ClassVar[ConfigDict] = SECTION

    min: float | None = None
    """A field below it is left out."""
    max: float | None = None
    """A field above it is left out."""

    def __post_init__(self) -> None:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min <= max must hold, but got min={self.min:g}, max={self.max:g}")


@dataclass(frozen=True)
class ChannelQuality:
    """What is measured of the image of a channel; `quality.parquet` in the tile store has the values of all fields."""

    __pydantic_config__: ClassVar[ConfigDict] = SECTION

    focus: Limits | None = None
    """Variance of the Laplacian, in grey levels squared: low where an image is out of focus."""
    saturated: Limits | None = None
    """Share of pixels at the highest level of the image, 0 to 1: high where the camera was saturated."""
    background: Limits | None = None
    """5th percentile of the grey levels."""
    intensity: Limits | None = None
    """Mean of the grey levels."""


MEASURES = tuple(each.name for each in fields(ChannelQuality))
