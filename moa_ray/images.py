"""Images as arrays: read, transform, normalise by controls, map to 8 bit, crop, resize. Arrays in, arrays out.

A field is one array of shape (height, width) a channel, as it was read. Pixels of 8 and 16 bits go through tables of
their grey levels, so that no plane is ever held in floats. The defaults follow Kensert et al. 2019.
"""

import io
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import IO, Any, ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

Array = NDArray[Any]

# Grey images by Pillow's mode; a palette is read through its colours.
_DTYPES = {"L": "uint8", "P": "uint8", "1": "uint8", "I;16": "uint16", "I;16B": "uint16", "I": "int32", "F": "float32"}
# Those that lie in a file as they lie in memory.
_RAW = {"L": "u1", "I;16": "<u2", "I;16B": ">u2"}


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
    """The pixels of a single-channel image, shape (height, width), read-only where they are mapped from a file.

    Raises ValueError where it is no image, is cut short, or holds several channels.
    """
    with _opened(source) as image:
        try:
            if image.mode == "P":
                image = _grey(image)
            elif image.mode == "1":
                image = image.convert("L")  # 0 and 255, as the header says: uint8
            pixels = _mapped(source, image)
            if pixels is None:
                pixels = np.asarray(image)
        except (OSError, SyntaxError) as error:
            raise ValueError(f"unreadable: {error}") from None
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _mapped(source: IO[bytes], image: Image.Image) -> Array | None:
    """The pixels mapped from their file, where they lie in it in one piece; Pillow would copy them twice."""
    kind = _RAW.get(image.mode)
    # A member of an archive is no file of its own.
    is_file = isinstance(source, io.BufferedReader) and isinstance(source.raw, io.FileIO)
    if kind is None or not is_file or not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return None
    row = image.width * np.dtype(kind).itemsize
    begin = end = image.tile[0].offset
    for codec, extents, offset, arguments in image.tile:
        left, top, right, bottom = extents or (0, 0, *image.size)
        layout = arguments if isinstance(arguments, tuple) else (arguments, 0, 1)
        plain = codec == "raw" and layout in ((image.mode, 0, 1), (image.mode, row, 1))
        if not plain or (left, right, offset) != (0, image.width, end) or offset != begin + top * row:
            return None
        end += (bottom - top) * row
    if end - begin != image.height * row or begin % np.dtype(kind).itemsize:
        return None
    content = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
    if len(content) < end:
        raise OSError("the file is cut short")
    return np.frombuffer(content, kind, image.width * image.height, begin).reshape(image.height, image.width)


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


def anscombe(values: Array) -> NDArray[np.float32]:
    """2 * sqrt(x + 3/8), which gives photon noise a variance of about 1. Source: Anscombe 1948."""
    transformed: NDArray[np.float32] = np.sqrt(values.astype(np.float32) + np.float32(0.375))
    transformed *= 2
    return transformed


@dataclass(frozen=True)
class Curve:
    """What the raw values of one channel become before the map to 8 bit. It never falls.

    anscombe : whether the variance is stabilised first
    mean, std : of the controls, after that transform; None where nothing is normalised
    """

    anscombe: bool
    mean: float | None = None
    std: float | None = None

    def __call__(self, raw: Array) -> NDArray[np.float32]:
        """The values of an array of any shape."""
        values = anscombe(raw) if self.anscombe else raw.astype(np.float32)
        if self.mean is None or self.std is None:
            return values
        return (values - np.float32(self.mean)) / np.float32(self.std)

    def of_levels(self, lowest: int, highest: int) -> NDArray[np.float32]:
        """The values of all grey levels from one to another: pixels of 8 or 16 bits are looked up in them."""
        return _all_levels(self)[lowest : highest + 1]


@lru_cache(maxsize=64)
def _all_levels(curve: Curve) -> NDArray[np.float32]:
    return curve(np.arange(1 << 16, dtype=np.uint16))


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
    def of(cls, planes: Sequence[Array], curve: Curve) -> "Moments":
        """Of one field, after a curve."""
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
    """Values of a plane after a curve, and how often each occurs."""
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


def to_8bit(planes: Sequence[Array], curves: Sequence[Curve]) -> NDArray[np.uint8]:
    """The channels of a field, each after its curve, by one linear map of all together to 0..255, truncated.

    The map goes from the minimum over all channels to their maximum. A field of one single value becomes zeros.
    planes : for each channel (height, width); the result is of shape (height, width, channels)
    """
    height, width = planes[0].shape
    # A curve never falls: the ends of its values are those of the raw values'.
    ends = [
        curve(np.array([plane.min(), plane.max()], plane.dtype)) for plane, curve in zip(planes, curves, strict=True)
    ]
    low, high = float(min(end[0] for end in ends)), float(max(end[1] for end in ends))
    if high == low:
        return np.zeros((height, width, len(planes)), dtype=np.uint8)
    mapped = [_plane_to_8bit(plane, curve, low, high) for plane, curve in zip(planes, curves, strict=True)]
    return np.asarray(cv2.merge(mapped), dtype=np.uint8).reshape(height, width, len(planes))


def _plane_to_8bit(plane: Array, curve: Curve, low: float, high: float) -> NDArray[np.uint8]:
    if not _has_levels(plane):
        return _linear(curve(plane), low, high)
    lowest, highest = int(plane.min()), int(plane.max())
    table = np.zeros(np.iinfo(plane.dtype).max + 1, dtype=np.uint8)
    table[lowest : highest + 1] = _linear(curve.of_levels(lowest, highest), low, high)
    return np.asarray(cv2.LUT(plane, table), dtype=np.uint8)


def _linear(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    # Divided first and in double precision: the maximum becomes exactly 1, so that it lands on 255 and not just below.
    return ((values - np.float64(low)) / (high - low) * 255.0).astype(np.uint8)


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
    resized = cv2.resize(tile, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, dtype=np.uint8).reshape(size, size, tile.shape[2])


def field_tiles(
    planes: Sequence[Array], preparation: Preparation, curves: Sequence[Curve]
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield (name, tile) of a raw field: mapped to 8 bit, cropped, nearly empty tiles dropped.

    A tile is named by its row and column in the grid, ``0-1``; it has the grid's own size, not yet the network's.
    planes : for each channel (height, width)
    curves : for each channel what its raw values become first
    """
    whole = [to_8bit(planes, curves)] if preparation.range_over == "field" else planes
    crops = [crop_grid(plane, preparation.rows, preparation.columns) for plane in whole]
    for parts in zip(*crops, strict=True):
        row, column, crop = parts[0]
        tile = crop if preparation.range_over == "field" else to_8bit([part for _, _, part in parts], curves)
        if not is_empty(tile, preparation.empty_above, preparation.empty_share):
            yield f"{row}-{column}", tile
