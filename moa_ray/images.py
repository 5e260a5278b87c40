"""Images as arrays: read, transform, normalise by controls, map to 8 bit, crop, resize. Arrays in, arrays out.

A field is an array of shape (height, width, channels). The defaults follow Kensert et al. 2019.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

Array = NDArray[Any]

# Grey images by Pillow's mode; a palette is read through its colours.
_DTYPES = {"L": "uint8", "P": "uint8", "1": "uint8", "I;16": "uint16", "I;16B": "uint16", "I": "int32", "F": "float32"}


@dataclass(frozen=True)
class Normalise:
    """Subtract the mean of the controls and divide by their standard deviation, channel by channel.

    by : whose controls; a plate with fewer than `min_control_fields` takes its week's, then the screen's
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    by: Literal["plate", "week", "screen", "none"] = "plate"
    min_control_fields: int = 4

    def __post_init__(self) -> None:
        if self.min_control_fields < 1:
            raise ValueError(f"min_control_fields must be at least 1, but got {self.min_control_fields}")


@dataclass(frozen=True)
class Preparation:
    """How a field becomes tiles.

    anscombe : whether to stabilise the variance of photon noise first
    range_over : whether the linear map to 0..255 takes its range from the whole field or from each tile
    rows, columns : the grid that a field is cropped into
    empty_share : a tile is dropped when at most this share of its values (all channels) is above `empty_above`
    empty_above : grey level of the 0..255 scale
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    anscombe: bool = True
    normalise: Normalise = field(default_factory=Normalise)
    range_over: Literal["field", "tile"] = "field"
    rows: int = 2
    columns: int = 2
    empty_above: int = 50
    empty_share: float = 0.002

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise ValueError(f"rows and columns must be at least 1, but got {self.rows} and {self.columns}")
        if not 0 <= self.empty_share <= 1:
            raise ValueError(f"empty_share is a share in [0, 1], but got {self.empty_share}")


def read_image(source: IO[bytes]) -> Array:
    """The pixels of a single-channel image, shape (height, width).

    Raises ValueError where it is no image, is cut short, or holds several channels.
    """
    with _opened(source) as image:
        try:
            if image.mode == "P":
                image = _grey(image)
            elif image.mode == "1":
                image = image.convert("L")  # 0 and 255, as the header says: uint8
            pixels = np.asarray(image)
        except (OSError, SyntaxError) as error:
            raise ValueError(f"unreadable: {error}") from None
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def image_header(source: IO[bytes]) -> tuple[tuple[int, int], str]:
    """Shape (height, width) and dtype of a single-channel image, without decoding its pixels."""
    with _opened(source) as image:
        return (image.height, image.width), _DTYPES[image.mode]


def _opened(source: IO[bytes]) -> Image.Image:
    try:
        image = Image.open(source)
    except UnidentifiedImageError:
        raise ValueError("unreadable: no image format that is known") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"unreadable: {error}") from None
    if image.mode not in _DTYPES:
        raise ValueError(f"holds several channels (mode {image.mode}); give one file a channel")
    return image


def _grey(image: Image.Image) -> Image.Image:
    colours = np.asarray(image.convert("RGB"))
    if (colours != colours[..., :1]).any():
        raise ValueError("holds a palette of colours; give one grey file a channel")
    return Image.fromarray(colours[..., 0])


def anscombe(field: Array) -> NDArray[np.float32]:
    """2 * sqrt(x + 3/8), which gives photon noise a variance of about 1. Source: Anscombe 1948."""
    transformed: NDArray[np.float32] = np.sqrt(field.astype(np.float32) + np.float32(0.375))
    transformed *= 2
    return transformed


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of each channel's pixels, which can be added up field by field.

    Source: Chan, Golub and LeVeque 1983, updating formulae for sample variances.
    """

    count: int
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]

    @classmethod
    def zero(cls, channels: int) -> "Moments":
        """Of no pixels at all."""
        return cls(0, np.zeros(channels), np.zeros(channels))

    @classmethod
    def of(cls, field: Array) -> "Moments":
        """Of one field, shape (height, width, channels)."""
        pixels = field.reshape(-1, field.shape[-1])
        mean = pixels.mean(axis=0, dtype=np.float64)
        # Squares of deviations, not of values: float32 planes keep their precision.
        m2 = np.array([np.square(pixels[:, c] - mean[c], dtype=np.float64).sum() for c in range(pixels.shape[1])])
        return cls(len(pixels), mean, m2)

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


def normalise(field: Array, mean: Array, std: Array) -> NDArray[np.float32]:
    """Subtract a mean and divide by a standard deviation, channel by channel."""
    normalised = (field - mean.astype(np.float32)) / std.astype(np.float32)
    return normalised.astype(np.float32, copy=False)


def to_8bit(field: Array) -> NDArray[np.uint8]:
    """One linear map of all channels together from their minimum and maximum to 0..255, truncated.

    A field of one single value becomes zeros.
    """
    low, high = float(field.min()), float(field.max())
    if high == low:
        return np.zeros(field.shape, dtype=np.uint8)
    # Divided first and in double precision: the maximum becomes exactly 1, so that it lands on 255 and not just below.
    return ((field - np.float64(low)) / (high - low) * 255.0).astype(np.uint8)


def crop_grid(field: Array, rows: int, columns: int) -> Iterator[tuple[int, int, Array]]:
    """Yield (row, column, tile) of an even grid; pixels left over at the far edges belong to no tile."""
    height, width = field.shape[0] // rows, field.shape[1] // columns
    for row in range(rows):
        for column in range(columns):
            yield row, column, field[row * height : (row + 1) * height, column * width : (column + 1) * width]


def is_empty(tile: NDArray[np.uint8], above: int, share: float) -> bool:
    """Whether at most a share of a tile's values (all channels) is above a grey level."""
    return int(np.count_nonzero(tile > above)) <= share * tile.size


def resize_area(tile: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A square tile of `size` pixels by area averaging, shape (size, size, channels)."""
    resized = cv2.resize(np.ascontiguousarray(tile), (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, dtype=np.uint8).reshape(size, size, tile.shape[2])


def field_tiles(
    field: Array, preparation: Preparation, mean: Array | None, std: Array | None
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield (name, tile) of a raw field: transformed, normalised, mapped to 8 bit, cropped, nearly empty tiles dropped.

    A tile is named by its row and column in the grid, ``0-1``; it has the grid's own size, not yet the network's.
    `mean` and `std` are the controls', None where the preparation does not normalise.
    """
    pixels = anscombe(field) if preparation.anscombe else field.astype(np.float32)
    if mean is not None and std is not None:
        pixels = normalise(pixels, mean, std)
    whole = preparation.range_over == "field"
    for row, column, crop in crop_grid(to_8bit(pixels) if whole else pixels, preparation.rows, preparation.columns):
        tile = crop if whole else to_8bit(crop)
        if not is_empty(tile, preparation.empty_above, preparation.empty_share):
            yield f"{row}-{column}", tile
