"""Image files as arrays: tifffile reads TIFF, Pillow PNG, BMP, JPEG and whatever else it knows.

Whatever program wrote a file, it is read as one plane of grey levels of one of four dtypes: uint8, uint16, int32 or
float32. A file of several channels is refused, for which of them is meant cannot be guessed.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from moa_ray.common.errors import InputError

Array = NDArray[Any]

# Pillow's modes of grey images, by the dtype that they are read as; a palette is read through its colours.
_DTYPES = {"L": "uint8", "P": "uint8", "1": "uint8", "I;16": "uint16", "I;16B": "uint16", "I": "int32", "F": "float32"}

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # classic TIFF and BigTIFF, little- and big-endian
# TIFF's sample format (1 unsigned, 2 signed, 3 float) and bits a sample, by the dtype that they are read as: what a
# screen holds once it is read is one of four.
_TIFF_KINDS = {
    **{(1, bits): "uint8" for bits in (1, 2, 4, 8)},
    (2, 8): "uint8",
    **{(1, bits): "uint16" for bits in (12, 16)},
    **dict.fromkeys([(2, 16), (1, 32), (2, 32)], "int32"),
    **{(3, bits): "float32" for bits in (16, 24, 32, 64)},
}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE, _LUMA = 0, 1, 3, 6  # TIFF's photometric interpretations of one channel
_ORIENTATION = 274  # number of the tag
_MOST_PIXELS = 178_956_970  # beyond which Pillow refuses an image of another format as a decompression bomb

# tifffile logs what it finds odd in a file. What makes an image unreadable is raised as well; the rest is no concern of
# a screen's user, who would be told of it once for each of thousands of files.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def read_image(source: IO[bytes]) -> Array:
    """Read the pixels of a single-channel image, the first of a stack.

    Parameters
    ----------
    source : binary file, seekable
        TIFF or BigTIFF with any compression that imagecodecs knows, or any format that Pillow reads.

    Returns
    -------
    array of shape (height, width), uint8, uint16, int32 or float32
        Grey levels in the machine's byte order, upright. Levels of 1, 2 and 4 bits, 8-bit levels that count down from
        white, and grey palettes are read as the levels 0..255 that they stand for.

    Raises
    ------
    InputError
        If the file is no image, is damaged or cut short, or holds several channels or a palette of colours.
    """
    return _read_tiff(source) if _is_tiff(source) else _read_other(source)


def image_header(source: IO[bytes], size: int | None = None) -> tuple[tuple[int, int], str]:
    """Read shape and dtype of a single-channel image without decoding its pixels.

    Parameters
    ----------
    source : binary file, seekable
        As `read_image` takes it.
    size : int, optional
        Bytes of the whole file. By default they are found by seeking to its end, which unpacks a zip member whole.

    Returns
    -------
    shape : tuple of int
        Height and width in pixels, upright.
    dtype : str
        The dtype that `read_image` gives.

    Raises
    ------
    InputError
        If the file is no image, or holds several channels.
    """
    if not _is_tiff(source):
        with _opened(source) as image:
            return (image.height, image.width), _DTYPES[image.mode]
    with _first_page(source, size) as page:
        height, width = page.imagelength, page.imagewidth
        return (width, height) if _orientation(page) >= 5 else (height, width), _kind(page)


# TIFF -----------------------------------------------------------------------------------------------------------------


def _is_tiff(source: IO[bytes]) -> bool:
    magic = source.read(4)
    source.seek(0)
    return magic in _MAGIC


@contextmanager
def _first_page(source: IO[bytes], size: int | None = None) -> Iterator[tifffile.TiffPage]:
    """Open a TIFF's first page; whatever fails while it is open makes the file unreadable."""
    try:
        with tifffile.TiffFile(source, size=size) as file:
            page = file.pages.first
            _check_page(page)
            yield page
    except InputError:
        raise
    except Exception as error:  # tifffile and its codecs raise whatever they stumble over in a damaged file
        raise InputError(f"unreadable: {error}") from None


def _check_page(page: tifffile.TiffPage) -> None:
    """Refuse a page that is not one channel of grey levels."""
    # One further sample that stands for nothing, as some programs write to fill 16 bits
    is_padded = (page.samplesperpixel, page.bitspersample, page.extrasamples) == (2, 8, (0,)) and page.planarconfig == 1
    if page.samplesperpixel != 1 and not is_padded:
        raise InputError(f"holds several channels ({page.samplesperpixel} samples a pixel); give one file a channel")
    if page.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE, _LUMA):
        raise InputError(f"unreadable: neither grey levels nor a palette (TIFF photometric {page.photometric:d})")
    if page.photometric == _WHITE_IS_ZERO and page.sampleformat == 2:
        raise InputError("unreadable: signed levels that count down from white")
    if (page.sampleformat, page.bitspersample) not in _TIFF_KINDS:
        raise InputError(
            f"unreadable: TIFF sample format {page.sampleformat:d} of {page.bitspersample} bits is no grey level"
        )
    if not 0 < page.imagelength * page.imagewidth <= _MOST_PIXELS:
        raise InputError(f"unreadable: {page.imagelength} x {page.imagewidth} pixels")


def _kind(page: tifffile.TiffPage) -> str:
    return _TIFF_KINDS[page.sampleformat, page.bitspersample]


def _orientation(page: tifffile.TiffPage) -> int:
    """TIFF's number for where a page's first row and column lie: from 5 on, its rows are the image's columns."""
    orientation = page.tags.valueof(_ORIENTATION)
    return orientation if orientation in range(1, 9) else 1


def _read_tiff(source: IO[bytes]) -> Array:
    with _first_page(source) as page:
        if not page.is_contiguous and not _is_whole(page):
            raise InputError("unreadable: strips or tiles of pixels are missing")
        pixels = page.asarray(squeeze=False, maxworkers=1)[0, 0, :, :, 0]
        return _upright(_grey_levels(page, pixels), _orientation(page))


def _is_whole(page: tifffile.TiffPage) -> bool:
    """Whether each strip or tile of a page is there: tifffile fills one that is not with zeros, or not at all."""
    offsets, lengths = page.dataoffsets, page.databytecounts
    return math.prod(page.chunked) == len(offsets) == len(lengths) and all(offsets) and all(lengths)


def _grey_levels(page: tifffile.TiffPage, pixels: Array) -> Array:
    """What a page's numbers stand for: colours of a palette, levels counted from white, levels of a few bits."""
    if page.photometric == _PALETTE:
        if page.colormap is None:
            raise InputError("unreadable: a palette without its colours")
        colours = np.right_shift(page.colormap, 8).astype(np.uint8)[:, pixels]
        _require_grey(colours)
        return np.ascontiguousarray(colours[0])
    levels = np.ascontiguousarray(pixels, dtype=_kind(page))
    if page.bitspersample < 8:
        levels *= np.uint8(255 // (2**page.bitspersample - 1))
    if page.photometric == _WHITE_IS_ZERO and levels.dtype == np.uint8:
        levels = np.invert(levels)
    return levels


def _upright(pixels: Array, orientation: int) -> Array:
    """Turn an image as its TIFF says.

    References
    ----------
    TIFF revision 6.0, 1992, section 8, Orientation.
    """
    if orientation >= 5:
        pixels = pixels.T
    down = -1 if orientation in (3, 4, 7, 8) else 1
    across = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::down, ::across])


# Other formats --------------------------------------------------------------------------------------------------------


def _read_other(source: IO[bytes]) -> Array:
    """Read the pixels of an image of a format that Pillow knows."""
    with _opened(source) as image:
        try:
            image.load()
        except Exception as error:  # Pillow raises whatever it stumbles over in a damaged file
            raise InputError(f"unreadable: {error}") from None
        if image.mode == "P":
            colours = np.moveaxis(np.asarray(image.convert("RGB")), -1, 0)
            _require_grey(colours)
            return np.ascontiguousarray(colours[0])
        pixels = np.asarray(image.convert("L") if image.mode == "1" else image)  # 1 bit: 0 and 255, as the header says
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _opened(source: IO[bytes]) -> Image.Image:
    try:
        image = Image.open(source)
    except UnidentifiedImageError:
        raise InputError("unreadable: no image format that is known") from None
    except Exception as error:  # Pillow raises whatever it stumbles over in a damaged file
        raise InputError(f"unreadable: {error}") from None
    if image.mode not in _DTYPES:
        raise InputError(f"holds several channels (mode {image.mode}); give one file a channel")
    return image


def _require_grey(colours: Array) -> None:
    """Refuse the pixels of a palette, shape (3, height, width), where red, green and blue differ."""
    if (colours != colours[:1]).any():
        raise InputError("holds a palette of colours; give one grey file a channel")
