"""TIFF files: which planes they hold, by their headers alone, and the grey levels of one of them."""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import tifffile
from numpy.typing import NDArray

from moa_ray.common.errors import InputError
from moa_ray.config.planes import Plane
from moa_ray.screens.planes import Axes, Step, places, projected, select
from moa_ray.screens.tiff_pixels import PALETTE, is_grey_palette, orientation, page_levels
from moa_ray.screens.tiff_stacks import Stack, stacks

Array = NDArray[Any]
Header = tuple[tuple[int, int], str]

MOST_PIXELS = 1 << 30  # of one plane: 32,768 x 32,768
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # classic TIFF and BigTIFF, little- and big-endian
# TIFF's sample format (1 unsigned, 2 signed, 3 float) and bits a sample, by the dtype that they are read as: what a
# screen holds once it is read is one of four.
_TIFF_KINDS = {
    **{(1, bits): "uint8" for bits in (1, 2, 4, 8)},
    **{(1, bits): "uint16" for bits in (12, 16)},
    **dict.fromkeys([(2, 8), (2, 16), (1, 32), (2, 32)], "int32"),
    **{(3, bits): "float32" for bits in (16, 24, 32, 64)},
}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR = 0, 1, 2, 6  # TIFF's photometric interpretations
_JPEG = (6, 7, 33007, 34892)  # compressions whose YCbCr tifffile returns as RGB
_COLOURS = ("red", "green", "blue", "alpha")

# tifffile logs what it finds odd in a file. What makes an image unreadable is raised as well; the rest is no concern of
# a screen's user, who would be told of it once for each of thousands of files.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def is_tiff(source: IO[bytes]) -> bool:
    """Tell whether a file is a TIFF by its first bytes, and go back to its start.

    Parameters
    ----------
    source : binary file, seekable
        At its start.

    Returns
    -------
    bool
    """
    magic = source.read(4)
    source.seek(0)
    return magic in _MAGIC


def tiff_header(source: IO[bytes], size: int | None, plane: Plane | None) -> Header:
    """Read shape and dtype of a plane without decoding its pixels, and whether the file holds all of them.

    Parameters
    ----------
    source : binary file, seekable
        The file.
    size : int or None
        Its bytes; None where seeking finds them quickly.
    plane : Plane or None
        Which plane is meant.

    Returns
    -------
    shape : tuple of int
        Height and width in pixels, upright.
    dtype : str
        The dtype that `read_tiff` gives.

    Raises
    ------
    InputError
        If the file is damaged or cut short, or it holds several planes and `plane` does not say which.
    """
    with _opened(source, size, plane) as opened:
        for place in places(opened.axes, opened.steps):
            opened.page(place)
        page = opened.stack.keyframe
        height, width = page.imagelength, page.imagewidth
        return (width, height) if orientation(page) >= 5 else (height, width), _kind(page)


def read_tiff(source: IO[bytes], plane: Plane | None) -> Array:
    """Read the grey levels of a plane.

    Parameters
    ----------
    source : binary file, seekable
        The file.
    plane : Plane or None
        Which plane is meant.

    Returns
    -------
    array of shape (height, width)
        As `moa_ray.screens.image_files.read_image` returns it.

    Raises
    ------
    InputError
        As `tiff_header`.
    """
    with _opened(source, None, plane) as opened:
        return projected(opened.axes, opened.steps, opened.read)


@dataclass(frozen=True)
class _Opened:
    """A stack of a TIFF file, and what is taken along its axes."""

    stack: Stack
    axes: Axes
    steps: Mapping[str, Step]
    size: int

    def page(self, place: Mapping[str, int]) -> tuple[tifffile.TiffPage | tifffile.TiffFrame, int | None]:
        """Return the page of a plane that is whole, and where its bytes begin if no page of its own says so."""
        page, offset = self.stack.page(place)
        keyframe = self.stack.keyframe
        if offset is not None:
            ends = [offset + keyframe.nbytes]
        elif page.is_contiguous:
            ends = [page.dataoffsets[0] + keyframe.nbytes]
        elif not _has_all_segments(page):
            raise InputError("unreadable: strips or tiles of pixels are missing")
        else:
            ends = [start + length for start, length in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if max(ends) > self.size:
            raise InputError(f"unreadable: cut short: {max(ends)} bytes are to be there, but it has {self.size}")
        return page, offset

    def read(self, place: Mapping[str, int]) -> Array:
        """Read the grey levels of a plane."""
        page, offset = self.page(place)
        return page_levels(page, offset, self.steps.get("S", 0), _kind(self.stack.keyframe))


@contextmanager
def _opened(source: IO[bytes], size: int | None, plane: Plane | None) -> Iterator[_Opened]:
    """Open a TIFF and choose among its planes; whatever fails while it is open makes the file unreadable."""
    try:
        # Without a folder to its name tifffile looks for no other file of a data set
        with tifffile.TiffFile(source, name="image", size=size, _multifile=False) as file:
            stack = stacks(file, plane)
            keyframe = stack.keyframe
            axes = _axes(keyframe, stack)
            steps = select(axes, plane)
            _check_page(keyframe)
            yield _Opened(stack, axes, steps, file.filehandle.size)
    except InputError:
        raise
    except Exception as error:  # tifffile and its codecs raise whatever they stumble over in a damaged file
        raise InputError(f"unreadable: {error}") from None


def _axes(page: tifffile.TiffPage, stack: Stack) -> Axes:
    """Return the axes of a stack, the samples of its pixels and the colours of its palette among them."""
    samples = page.samplesperpixel
    # One further sample that stands for nothing, as some programs write to fill 16 bits
    if (samples, page.bitspersample, page.extrasamples) == (2, 8, (0,)) and page.planarconfig == 1:
        samples = 1
    if page.photometric == PALETTE and samples == 1 and not is_grey_palette(page):
        return Axes({**stack.sizes, "S": 3}, _COLOURS[:3], is_palette=True)
    is_colour = page.photometric in (_RGB, _YCBCR) and samples in (3, 4) and max([1, *stack.sizes.values()]) == 1
    return Axes({**stack.sizes, "S": samples}, _COLOURS[:samples] if is_colour else stack.channels)


def _check_page(page: tifffile.TiffPage) -> None:
    """Refuse pages that hold no grey levels."""
    if page.imagedepth > 1:
        raise InputError(f"holds {page.imagedepth} planes in depth within one page; write each as a page")
    if page.photometric == _YCBCR and page.samplesperpixel > 1 and page.compression not in _JPEG:
        raise InputError("unreadable: YCbCr colours that are not compressed as JPEG; save it as RGB")
    if page.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, PALETTE, _YCBCR):
        raise InputError(f"unreadable: neither grey levels nor a palette (TIFF photometric {page.photometric:d})")
    if page.photometric == _WHITE_IS_ZERO and page.sampleformat == 2:
        raise InputError("unreadable: signed levels that count down from white")
    if (page.sampleformat, page.bitspersample) not in _TIFF_KINDS:
        raise InputError(
            f"unreadable: TIFF sample format {page.sampleformat} of {page.bitspersample} bits is no grey level"
        )
    if not 0 < page.imagelength * page.imagewidth <= MOST_PIXELS:
        raise InputError(f"unreadable: {page.imagelength} x {page.imagewidth} pixels")


def _kind(page: tifffile.TiffPage) -> str:
    return "uint8" if page.photometric == PALETTE else _TIFF_KINDS[page.sampleformat, page.bitspersample]


def _has_all_segments(page: tifffile.TiffPage | tifffile.TiffFrame) -> bool:
    """Whether each strip or tile of a page is there: tifffile fills one that is not with zeros, or not at all."""
    offsets, lengths = page.dataoffsets, page.databytecounts
    return math.prod(page.chunked) == len(offsets) == len(lengths) and all(offsets) and all(lengths)
