"""Settings of how raw fields become tiles, checked when they are made. The defaults follow Kensert et al. 2019."""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from pydantic import ConfigDict

from moa_ray.config.numbers import SECTION, Count, Probability


@dataclass(frozen=True)
class Normalise:
    """Subtract the mean of the controls and divide by their standard deviation, channel by channel."""

    __pydantic_config__: ClassVar[ConfigDict] = SECTION

    by: Literal["plate", "week", "screen", "none"] = "plate"
    """The group whose control fields are taken; `none` does not normalise."""
    min_control_fields: Count = 4
    """The fewest control fields that mean and standard deviation are taken from. A plate with fewer takes its week's,
    then the screen's."""

    def __post_init__(self) -> None:
        if self.min_control_fields < 1:
            raise ValueError(f"min_control_fields must be at least 1, but got {self.min_control_fields}")


@dataclass(frozen=True)
class Preparation:
    """How a field becomes tiles. The defaults are those of Kensert et al. 2019."""

    __pydantic_config__: ClassVar[ConfigDict] = SECTION

    field_size: tuple[int, int] | int | None = None
    """Height and width, pixels, that the raw field is resized to by area averaging before anything else; one number for
    both, null leaves it as it is. Grey levels stay whole numbers, rounded to the nearest."""
    offset: float | None = None
    """Number that is added to every pixel before anything else, for signed data, in which the darkest levels are
    negative: 32768 where a program wrote 16 bits less that; null adds nothing."""
    anscombe: bool = True
    """Whether to stabilise the variance of photon noise first, by Anscombe's transform; it takes no negative
    pixels."""
    normalise: Normalise = field(default_factory=Normalise)
    """How the controls normalise a field."""
    range_over: Literal["field", "tile"] = "field"
    """Whether the linear map to 0..255 takes its range from the whole field or from each tile."""
    rows: Count = 2
    """Rows of the grid that a field is cropped into."""
    columns: Count = 2
    """Columns of the grid that a field is cropped into."""
    empty_above: int = 50
    """Grey level of the 0..255 scale above which a value is not empty."""
    empty_share: Probability | None = 0.002
    """A tile is dropped when at most this share of its values (all channels) is above `empty_above`; null drops
    none."""

    def __post_init__(self) -> None:
        if self.offset is not None and not math.isfinite(self.offset):
            raise ValueError(f"offset is a finite number, or null, but got {self.offset}")
        object.__setattr__(self, "offset", float(self.offset) if self.offset else None)  # 0 adds nothing
        if self.rows < 1 or self.columns < 1:
            raise ValueError(f"rows and columns must be at least 1, but got {self.rows} and {self.columns}")
        if self.empty_share is not None and not 0 <= self.empty_share <= 1:
            raise ValueError(f"empty_share is a share in [0, 1], or null, but got {self.empty_share}")
        if isinstance(self.field_size, int):
            object.__setattr__(self, "field_size", (self.field_size, self.field_size))
        if self.shape is not None and (self.shape[0] < self.rows or self.shape[1] < self.columns):
            raise ValueError(
                f"field_size must hold {self.rows} x {self.columns} tiles of a pixel or more, but got {self.field_size}"
            )

    @property
    def shape(self) -> tuple[int, int] | None:
        """Height and width in pixels that a field is resized to; None where it stays as it is."""
        return (self.field_size, self.field_size) if isinstance(self.field_size, int) else self.field_size
