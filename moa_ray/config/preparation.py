"""Settings of how raw fields become tiles, checked when they are made. The defaults follow Kensert et al. 2019."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, WithJsonSchema

from moa_ray.config.messages import nearest
from moa_ray.config.numbers import SECTION, Count, Probability
from moa_ray.config.quality import ChannelQuality

_GROUPS = ("plate", "week", "screen", "none")
_COLUMN = "Metadata_"  # with which the names of a screen's columns begin


def _group(written: Any) -> str:
    """Check the name of what fields are normalised by."""
    if isinstance(written, str) and (written in _GROUPS or written.startswith(_COLUMN)):
        return written
    reads = "; YAML reads yes, no, on and off as true and false: put quotes around a word"
    hint = reads if isinstance(written, bool) else nearest(str(written), _GROUPS)
    raise ValueError(f"must be 'plate', 'week', 'screen', 'none' or a column 'Metadata_...', but got {written!r}{hint}")


_Group = Annotated[
    str,
    BeforeValidator(_group),
    WithJsonSchema(
        {"anyOf": [{"enum": list(_GROUPS), "type": "string"}, {"type": "string", "pattern": f"^{_COLUMN}."}]}
    ),
]


@dataclass(frozen=True)
class Normalise:
    """Subtract the mean of the controls and divide by their standard deviation, channel by channel."""

    __pydantic_config__: ClassVar[ConfigDict] = SECTION

    by: _Group = "plate"
    """The group whose fields are taken: of a plate, a week, the screen, or all that share a value of any `Metadata_`
    column, such as `Metadata_Batch`; `none` does not normalise."""
    min_control_fields: Count = 4
    """The fewest fields that are measured for a group. A plate with fewer takes its week's, then the screen's; a value
    of a column takes the screen's."""
    of: Literal["controls", "all"] = "controls"
    """Which fields of the group are measured: the controls, or all, labelled ones and controls."""
    statistic: Literal["mean_std", "median_mad"] = "mean_std"
    """Mean and standard deviation, or median and 1.4826 times the median absolute deviation, which a few bright
    pixels do not move."""

    @property
    def column(self) -> str | None:
        """The column of the screen whose values make the groups, where one is named."""
        return self.by if self.by.startswith(_COLUMN) else None

    def __post_init__(self) -> None:
        _group(self.by)
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
    """How a field is normalised, by the controls or by all fields."""
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
    quality: dict[str, ChannelQuality] | None = None
    """What the images of a field must be like, by channel: `{DNA: {focus: {min: 20}}}`. A field beyond a limit makes no
    tiles, which are named as dropped, and nothing is normalised by it; null leaves out none."""

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
