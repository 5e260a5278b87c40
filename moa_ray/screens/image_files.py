"""Images as arrays: read, transform, normalise by controls, map to 8 bit, crop, resize. Arrays in, arrays out.

A field is one array of shape (height, width) a channel, as it was read. Pixels of 8 and 16 bits go through tables of
their grey levels, so that no plane is ever held in floats. The defaults follow Kensert et al. 2019.
"""

import ctypes
import io
import math
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import IO, Any, ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from scipy import sparse

Array = NDArray[Any]

# Grey images by Pillow's mode; a palette is read through its colours.
_DTYPES = {"L": "uint8", "P": "uint8", "1": "uint8", "I;16": "uint16", "I;16B": "uint16", "I": "int32", "F": "float32"}
# Numbers of TIFF's tags, and of the kinds of their values
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _STRIPS, _STRIP_LENGTHS, _TILES = 256, 257, 258, 262, 273, 279, 324
_PLAIN_IF_1 = (259, 266, 274, 277, 317, 339)  # compression, order of bits, upright, channels, predictor, sign
_ORDER = -1
_TIFF_KINDS = {3: "H", 4: "I"}

# Numbers of malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


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

    field_size : height and width, pixels, that the raw field is resized to by area averaging before anything else; one
        number for both, null leaves it as it is. Grey levels stay whole numbers, rounded to the nearest
    anscombe : whether to stabilise the variance of photon noise first
    range_over : whether the linear map to 0..255 takes its range from the whole field or from each tile
    rows, columns : the grid that a field is cropped into
    empty_share : a tile is dropped when at most this share of its values (all channels) is above `empty_above`; null
        drops none
    empty_above : grey level of the 0..255 scale
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    field_size: tuple[int, int] | int | None = None
    anscombe: bool = True
    normalise: Normalise = field(default_factory=Normalise)
    range_over: Literal["field", "tile"] = "field"
    rows: int = 2
    columns: int = 2
    empty_above: int = 50
    empty_share: float | None = 0.002

    def __post_init__(self) -> None:
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
        """Height and width that a field is resized to; None where it stays as it is."""
        return (self.field_size, self.field_size) if isinstance(self.field_size, int) else self.field_size


@lru_cache(maxsize=1)
def settle_process() -> None:
    """Make this process ready for field after field, on threads of its own; twice as quick, and the same pixels."""
    cv2.setNumThreads(1)  # OpenCV's threads would only get in the way of ours
    # The C library gives a field's memory back to the system each time, and gets it anew page by page.
    with suppress(OSError, AttributeError):  # not every C library can be told
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, 1 << 25)
        library.mallopt(_TRIM_THRESHOLD, 1 << 27)


def read_image(source: IO[bytes]) -> Array:
    """The pixels of a single-channel image, shape (height, width).

    Raises ValueError where it is no image, is cut short, or holds several channels.
    """
    pixels = _read_plain_tiff(source)
    if pixels is None:
        source.seek(0)
        pixels = _read_any(source)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _read_any(source: IO[bytes]) -> Array:
    with _opened(source) as image:
        try:
            image.load()
        except Exception as error:  # Pillow raises whatever it stumbles over in a damaged file
            raise ValueError(f"unreadable: {error}") from None
        if image.mode == "P":
            image = _grey(image)
        elif image.mode == "1":
            image = image.convert("L")  # 0 and 255, as the header says: uint8
        return np.asarray(image)


def _read_plain_tiff(source: IO[bytes]) -> Array | None:
    """The pixels of a TIFF as microscopes write it: grey, 8 or 16 bits, not compressed, in one piece; else None.

    Pillow reads these as well, and copies them twice.
    Source: TIFF revision 6.0, 1992, sections 2 to 8.
    """
    try:
        tags = _tiff_tags(source)
    except struct.error:  # cut short
        return None
    plain = tags[_PHOTOMETRIC] == (1,) and all(tags[tag] in ((), (1,)) for tag in _PLAIN_IF_1)
    sizes = tags[_WIDTH], tags[_HEIGHT], tags[_BITS]
    if not plain or tags[_TILES] or any(len(size) != 1 for size in sizes) or tags[_BITS] not in ((8,), (16,)):
        return None
    (width,), (height,), (bits,) = sizes
    offsets, lengths = tags[_STRIPS], tags[_STRIP_LENGTHS]
    follow = all(offset + length == after for offset, length, after in zip(offsets, lengths, offsets[1:], strict=False))
    if not follow or not 0 < len(offsets) == len(lengths) or sum(lengths) != height * width * bits // 8:
        return None
    if source.seek(0, io.SEEK_END) < offsets[0] + sum(lengths):
        raise ValueError("unreadable: the file is cut short")
    pixels = np.empty((height, width), dtype=f"{tags[_ORDER][0]}u{bits // 8}")
    source.seek(offsets[0])
    if source.readinto(pixels.view(np.uint8).data) != pixels.nbytes:  # type: ignore[attr-defined]
        raise ValueError("unreadable: it was cut short while it was read")
    return pixels


def _tiff_tags(source: IO[bytes]) -> dict[int, tuple[Any, ...]]:
    """The tags of a TIFF's first image that are whole numbers, () for those it lacks; its byte order as `_ORDER`."""
    tags: dict[int, tuple[Any, ...]] = defaultdict(tuple)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(source.read(4))
    if order is None:
        return tags
    tags[_ORDER] = (order,)
    source.seek(struct.unpack(f"{order}I", source.read(4))[0])
    (count,) = struct.unpack(f"{order}H", source.read(2))
    for tag, kind, length, value in list(struct.iter_unpack(f"{order}HHI4s", source.read(12 * count))):
        if kind not in _TIFF_KINDS or length >= 1 << 16:
            continue
        layout = f"{order}{length}{_TIFF_KINDS[kind]}"
        if (size := struct.calcsize(layout)) > len(value):
            source.seek(struct.unpack(f"{order}I", value)[0])
            value = source.read(size)
        tags[tag] = struct.unpack(layout, value[:size])
    return tags


def image_header(source: IO[bytes]) -> tuple[tuple[int, int], str]:
    """Shape (height, width) and dtype of a single-channel image, without decoding its pixels."""
    with _opened(source) as image:
        return (image.height, image.width), _DTYPES[image.mode]


def _opened(source: IO[bytes]) -> Image.Image:
    try:
        image = Image.open(source)
    except UnidentifiedImageError:
        raise ValueError("unreadable: no image format that is known") from None
    except Exception as error:  # Pillow raises whatever it stumbles over in a damaged file
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


def to_8bit(planes: Sequence[Array], curves: Sequence[Curve]) -> NDArray[np.uint16]:
    """The channels of a field, each after its curve, by one linear map of all together to 0..255, truncated.

    The map goes from the minimum over all channels to their maximum. A field of one single value becomes zeros.
    planes : for each channel (height, width); the result is of shape (height, channels, width), and wider than it needs
        to be, so that grey levels can be added up
    """
    height, width = planes[0].shape
    mapped = np.empty((height, len(planes), width), dtype=np.uint16)
    _write(planes, _maps_to_8bit(planes, curves), mapped)
    return mapped


_Map = Callable[[Array, NDArray[np.uint16]], object]


def _write(planes: Sequence[Array], maps: Sequence[_Map], out: NDArray[np.uint16]) -> None:
    for channel, (plane, write) in enumerate(zip(planes, maps, strict=True)):
        write(plane, out[:, channel])


def _maps_to_8bit(planes: Sequence[Array], curves: Sequence[Curve]) -> list[_Map]:
    """For each channel of a field what writes any part of its plane in grey levels of 8 bits."""
    levels = [np.array(cv2.minMaxLoc(plane)[:2], dtype=plane.dtype) for plane in planes]
    # A curve never falls: the ends of its values are those of the raw values'.
    ends = [curve(pair) for curve, pair in zip(curves, levels, strict=True)]
    low, high = float(min(end[0] for end in ends)), float(max(end[1] for end in ends))
    if high == low:
        return [_write_zeros] * len(planes)
    maps: list[_Map] = []
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


def crops(line: Array, count: int) -> list[Array]:
    """Even parts of an array along its last axis; pixels left over at the far end belong to none."""
    length = line.shape[-1] // count
    return [line[..., part * length : (part + 1) * length] for part in range(count)]


def is_empty(tile: Array, above: int, share: float) -> bool:
    """Whether at most a share of a tile's values (all channels) is above a grey level."""
    most = share * tile.size
    # Of most tiles some of the rows hold more already.
    return all(np.count_nonzero(rows > above) <= most for rows in (tile[::16], tile))


def resize_crops(band: NDArray[np.uint16], count: int, size: int) -> list[NDArray[np.uint8]]:
    """The crops of a band, each as a square of `size` pixels by area averaging, rounded: (size, size, channels).

    band : (height, channels, width), grey levels of 8 bits; `count` even parts of its width are the crops
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
    """A tile out of the sums over its areas, (columns, rows x channels)."""
    sums /= area
    size = len(sums)
    means = np.rint(sums, out=sums).astype(np.uint8).reshape(size, size, channels)
    turned: NDArray[np.uint8] = np.empty_like(means)
    cv2.transpose(means, dst=turned)
    return turned


def _enlarged(crop: NDArray[np.uint16], size: int) -> NDArray[np.uint8]:
    """OpenCV's way of enlarging."""
    tile = np.ascontiguousarray(crop.swapaxes(1, 2), dtype=np.uint8)
    enlarged: NDArray[np.uint8] = np.empty((size, size, tile.shape[-1]), dtype=np.uint8)
    cv2.resize(tile, (size, size), dst=enlarged, interpolation=cv2.INTER_AREA)
    return enlarged


def resize_plane(plane: Array, shape: tuple[int, int]) -> Array:
    """One channel of a field at another height and width: each pixel the mean of the area that it covers.

    The dtype stays; whole numbers are rounded to the nearest, halves to the even one.
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
    """The channels of a raw field at the height and width that they are prepared at."""
    shape = preparation.shape
    return planes if shape is None else [resize_plane(plane, shape) for plane in planes]


@lru_cache(maxsize=64)
def _overlaps(length: int, size: int, kind: np.dtype[Any]) -> sparse.csr_array:
    """How much of each pixel of a line lies in each of `size` stretches of it, shape (size, length).

    In the unit in which pixels and stretches have whole lengths: a row sums to length / gcd(length, size).
    """
    unit = math.gcd(length, size)
    stretches, pixels = np.arange(size + 1) * (length // unit), np.arange(length + 1) * (size // unit)
    begin = np.maximum(stretches[:-1, None], pixels[None, :-1])
    end = np.minimum(stretches[1:, None], pixels[None, 1:])
    return sparse.csr_array(np.maximum(end - begin, 0).astype(kind))


def field_tiles(
    planes: Sequence[Array], preparation: Preparation, curves: Sequence[Curve], sizes: Sequence[int]
) -> Iterator[tuple[str, dict[int, NDArray[np.uint8]]]]:
    """Yield (name, tile by size) of a raw field: resized, mapped to 8 bit, cropped, nearly empty tiles dropped.

    A tile is named by its row and column in the grid, ``0-1``; those of a size are (size, size, channels).
    planes : for each channel (height, width)
    curves : for each channel what its raw values become first
    """
    above, share = preparation.empty_above, preparation.empty_share
    for row, band in enumerate(_bands(sized(planes, preparation), preparation, curves)):
        by_size = {size: resize_crops(band, preparation.columns, size) for size in sizes}
        for column, crop in enumerate(crops(band, preparation.columns)):
            if share is None or not is_empty(crop, above, share):
                yield f"{row}-{column}", {size: tiles[column] for size, tiles in by_size.items()}


def _bands(planes: Sequence[Array], preparation: Preparation, curves: Sequence[Curve]) -> Iterator[NDArray[np.uint16]]:
    """The rows of a field's grid in grey levels of 8 bits, one at a time, which the processor's cache may hold."""
    maps = _maps_to_8bit(planes, curves) if preparation.range_over == "field" else None
    height = planes[0].shape[0] // preparation.rows
    for row in range(preparation.rows):
        rows = [plane[row * height : (row + 1) * height] for plane in planes]
        if maps:
            band = np.empty((height, len(planes), planes[0].shape[1]), dtype=np.uint16)
            _write(rows, maps, band)
            yield band
        else:
            parts = zip(*(crops(plane, preparation.columns) for plane in rows), strict=True)
            yield np.concatenate([to_8bit(part, curves) for part in parts], axis=-1)
