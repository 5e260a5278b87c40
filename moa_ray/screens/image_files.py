"""Image files as arrays: tifffile reads TIFF, Pillow PNG, BMP, JPEG and whatever else it knows.

Whatever program wrote a file, it is read as one plane of grey levels of one of four dtypes: uint8, uint16, int32 or
float32. A file of several planes (channels, depths, times, pages, samples) is refused unless a `Plane` says which is
meant, for that cannot be guessed.
"""

from typing import IO, Any

from numpy.typing import NDArray

from moa_ray.config.planes import Plane
from moa_ray.screens.other_files import other_header, read_other
from moa_ray.screens.tiff_files import is_tiff, read_tiff, tiff_header


def read_image(source: IO[bytes], plane: Plane | None = None) -> NDArray[Any]:
    """Read the pixels of a plane of an image file.

    Parameters
    ----------
    source : binary file, seekable
        TIFF or BigTIFF with any compression that imagecodecs knows, or any format that Pillow reads.
    plane : Plane, optional
        Which plane is meant, or which projection; by default the file's only one.

    Returns
    -------
    array of shape (height, width), uint8, uint16, int32 or float32
        Grey levels in the machine's byte order, upright. Levels of 1, 2 and 4 bits, 8-bit levels that count down from
        white, and palettes are read as the levels 0..255 that they stand for.

    Raises
    ------
    InputError
        If the file is no image, is damaged or cut short, or holds several planes of which none is chosen.
    """
    return read_tiff(source, plane) if is_tiff(source) else read_other(source, plane)


def image_header(source: IO[bytes], size: int | None = None, plane: Plane | None = None) -> tuple[tuple[int, int], str]:
    """Read shape and dtype of a plane of an image file without decoding its pixels.

    Parameters
    ----------
    source : binary file, seekable
        As `read_image` takes it.
    size : int, optional
        Bytes of the whole file. By default they are found by seeking to its end, which unpacks a zip member whole.
    plane : Plane, optional
        Which plane is meant; by default the file's only one.

    Returns
    -------
    shape : tuple of int
        Height and width in pixels, upright.
    dtype : str
        The dtype that `read_image` gives.

    Raises
    ------
    InputError
        If the file is no image, is seen to be cut short, or holds several planes of which none is chosen.
    """
    return tiff_header(source, size, plane) if is_tiff(source) else other_header(source, size, plane)
