"""The pixels of a TIFF page as the grey levels that they stand for."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from moa_ray.common.errors import InputError
from moa_ray.screens.planes import Step, require_grey

Array = NDArray[Any]
Page = tifffile.TiffPage | tifffile.TiffFrame

PALETTE = 3  # TIFF's photometric interpretation
_WHITE_IS_ZERO = 0
_ORIENTATION = 274  # number of the tag
_BUFFER = 1 << 24  # bytes that are read or converted at a time


def page_levels(page: Page, offset: int | None, sample: Step, dtype: str) -> Array:
    """Read the grey levels of a page, upright.

    Parameters
    ----------
    page : TiffPage or TiffFrame
        The page, known to be whole; its keyframe has the tags.
    offset : int or None
        Where its bytes begin, if no page of its own says so.
    sample : int or "grey"
        Which sample of its pixels, or colour of its palette.
    dtype : str
        The dtype of the levels.

    Returns
    -------
    array of shape (height, width)
        Beside it memory holds some of the page's strips or tiles; the other samples too, where it has several.

    Raises
    ------
    InputError
        If its levels do not fit, or colours that must be the same are not.
    """
    keyframe = page.keyframe
    assert keyframe is not None
    if keyframe.photometric == PALETTE:
        levels = _colours(keyframe, sample)[_samples(page, keyframe, offset)[0, :, :, 0]]
    elif keyframe.samplesperpixel == 1 and keyframe.bitspersample >= 8 and keyframe.dtype != np.dtype(dtype):
        levels = _converted(page, keyframe, offset, dtype)
    else:
        levels = np.ascontiguousarray(_sample(_samples(page, keyframe, offset), sample), dtype=dtype)
    if keyframe.photometric != PALETTE:
        if keyframe.bitspersample < 8:
            levels *= np.uint8(255 // (2**keyframe.bitspersample - 1))
        if keyframe.photometric == _WHITE_IS_ZERO and levels.dtype == np.uint8:
            levels = np.invert(levels)
        if keyframe.dtype == np.uint32 and (levels < 0).any():
            raise InputError("unreadable: levels of 2^31 and more; save it with 16 bits, or as float")
    return _upright(levels, orientation(keyframe))


def orientation(page: tifffile.TiffPage) -> int:
    """Return TIFF's number for where a page's first row and column lie: from 5 on, its rows are the image's columns.

    Parameters
    ----------
    page : TiffPage
        The page.

    Returns
    -------
    int
        1 to 8; 1 where the page does not say.
    """
    number = page.tags.valueof(_ORIENTATION)
    return number if number in range(1, 9) else 1


def is_grey_palette(page: tifffile.TiffPage) -> bool:
    """Tell whether every colour of a page's palette is grey.

    Parameters
    ----------
    page : TiffPage
        A page of a palette.

    Returns
    -------
    bool

    Raises
    ------
    InputError
        If the colours are missing.
    """
    colours = _palette(page)
    return bool((colours == colours[:1]).all())


def _samples(page: Page, keyframe: tifffile.TiffPage, offset: int | None) -> Array:
    """Read a page with all of its samples, shape (planes of samples, height, width, samples)."""
    if offset is None:
        return page.asarray(squeeze=False, maxworkers=1, buffersize=_BUFFER)[:, 0]
    pixels = keyframe.parent.filehandle.read_array(_stored(keyframe), keyframe.size, offset)
    return pixels.reshape(keyframe.shaped)[:, 0]


def _stored(keyframe: tifffile.TiffPage) -> np.dtype[Any]:
    assert keyframe.dtype is not None
    return keyframe.dtype.newbyteorder(keyframe.parent.byteorder)


def _converted(page: Page, keyframe: tifffile.TiffPage, offset: int | None, dtype: str) -> Array:
    """Read a page into another dtype part by part, so that it is never held in its own."""
    levels = np.zeros((keyframe.imagelength, keyframe.imagewidth), dtype)
    for top, left, part in _parts(page, keyframe, offset):
        place = levels[top : top + part.shape[0], left : left + part.shape[1]]
        place[:] = part[: place.shape[0], : place.shape[1]]  # tiles reach beyond the image
    return levels


def _parts(page: Page, keyframe: tifffile.TiffPage, offset: int | None) -> Iterator[tuple[int, int, Array]]:
    """Yield parts of a page, by their first row and column."""
    start = page.dataoffsets[0] if offset is None and page.is_contiguous else offset
    if start is None:
        for values, (_, _, top, left, _), _ in page.segments(maxworkers=1, buffersize=_BUFFER):
            assert values is not None, "a part that is missing is found before"
            yield top, left, values[0, :, :, 0]
        return
    height, width, stored = keyframe.imagelength, keyframe.imagewidth, _stored(keyframe)
    row = width * stored.itemsize
    count = max(1, _BUFFER // row)
    for top in range(0, height, count):
        rows = min(count, height - top)
        values = keyframe.parent.filehandle.read_array(stored, rows * width, start + top * row)
        yield top, 0, values.reshape(rows, width)


def _sample(samples: Array, sample: Step) -> Array:
    along: list[Array] = [*samples[..., 0]] if samples.shape[0] > 1 else list(np.moveaxis(samples[0], -1, 0))
    if sample == "grey":
        require_grey(along[:3])
        return along[0]
    assert isinstance(sample, int)
    return along[sample]


def _palette(page: tifffile.TiffPage) -> Array:
    if page.colormap is None:
        raise InputError("unreadable: a palette without its colours")
    colours: Array = np.right_shift(page.colormap, 8).astype(np.uint8)
    return colours


def _colours(page: tifffile.TiffPage, sample: Step) -> Array:
    colours: list[Array] = [*_palette(page)]
    if sample == "grey":
        require_grey(colours)
        sample = 0
    assert isinstance(sample, int)
    return colours[sample]


def _upright(pixels: Array, number: int) -> Array:
    """Turn an image as its TIFF says.

    References
    ----------
    TIFF revision 6.0, 1992, section 8, Orientation.
    """
    if number >= 5:
        pixels = pixels.T
    down = -1 if number in (3, 4, 7, 8) else 1
    across = -1 if number in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::down, ::across])
