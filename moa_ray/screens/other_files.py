"""PNG, BMP, JPEG and whatever else Pillow knows: which planes a file holds, and the grey levels of one of them."""

import os
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from moa_ray.common.errors import InputError
from moa_ray.config.planes import Plane
from moa_ray.screens.planes import Axes, Step, places, projected, require_grey, select

Array = NDArray[Any]

# Pillow's modes of grey images, by the dtype that they are read as; a palette is read through its colours.
_DTYPES = {"L": "uint8", "P": "uint8", "1": "uint8", "I;16": "uint16", "I;16B": "uint16", "I": "int32", "F": "float32"}
_COLOURS = {"RGB": ("red", "green", "blue"), "RGBA": ("red", "green", "blue", "alpha"), "LA": ("grey", "alpha")}
_TRAILERS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9", "GIF": b";"}
_TAIL = 1024  # bytes at a file's end in which its format's last ones are looked for
_MOST_PIXELS = 1 << 30  # of one plane: 32,768 x 32,768
Image.MAX_IMAGE_PIXELS = _MOST_PIXELS  # else stitched images are refused as decompression bombs


def other_header(source: IO[bytes], size: int | None, plane: Plane | None) -> tuple[tuple[int, int], str]:
    """Read shape and dtype of a plane of an image that is no TIFF.

    Parameters
    ----------
    source : binary file, seekable
        The file.
    size : int or None
        Its bytes, of a member of an archive, which is not looked at to its end; None of a file of its own.
    plane : Plane or None
        Which plane is meant.

    Returns
    -------
    shape : tuple of int
        Height and width in pixels.
    dtype : str
        The dtype that `read_other` gives.

    Raises
    ------
    InputError
        If the file is no image or is cut short, or it holds several planes and `plane` does not say which.
    """
    with _opened(source) as image:
        axes = _axes(image)
        steps = select(axes, plane)
        for place in places(axes, steps):
            if place.get("P", 0):
                _seek(image, place["P"])
        shape, dtype = (image.height, image.width), _DTYPES.get(image.mode, "uint8")
        if size is None and _seems_cut_short(source, image.format):
            _load(image)
        return shape, dtype


def read_other(source: IO[bytes], plane: Plane | None) -> Array:
    """Read the grey levels of a plane of an image that is no TIFF.

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
        As `other_header`.
    """
    with _opened(source) as image:
        axes = _axes(image)
        steps = select(axes, plane)

        def read(place: Mapping[str, int]) -> Array:
            if place.get("P", 0) != image.tell():
                _seek(image, place["P"])
            _load(image)
            return _levels(image, steps.get("S", 0))

        return projected(axes, steps, read)


def _opened(source: IO[bytes]) -> Image.Image:
    try:
        image = Image.open(source)
    except UnidentifiedImageError:
        raise InputError("unreadable: no image format that is known") from None
    except Exception as error:  # Pillow raises whatever it stumbles over in a damaged file
        raise InputError(f"unreadable: {error}") from None
    if image.mode not in _DTYPES and image.mode not in _COLOURS:
        raise InputError(f"holds several channels (mode {image.mode}); give one file a channel")
    if image.width * image.height > _MOST_PIXELS:
        raise InputError(f"unreadable: {image.height} x {image.width} pixels")
    if image.mode in _COLOURS and any("16" in str(tile[3]) for tile in image.tile):
        raise InputError(f"holds colours of 16 bits, of which 8 would be lost ({image.format}); save it as TIFF")
    return image


def _axes(image: Image.Image) -> Axes:
    frames = int(getattr(image, "n_frames", 1))
    is_palette = image.mode == "P" and not _is_grey(image)
    names = _COLOURS["RGB"] if is_palette else _COLOURS.get(image.mode, ())
    return Axes({"P": frames, "S": len(names) or 1}, names, is_palette)


def _is_grey(image: Image.Image) -> bool:
    """Whether every colour of a palette is grey, by the header."""
    if image.palette is None:
        return True
    mode, content = image.palette.getdata()
    levels = np.frombuffer(bytes(content), np.uint8)
    form, is_planar = mode.removesuffix(";L"), mode.endswith(";L")
    count = len(levels) // len(form)
    levels = levels[: count * len(form)]
    colours = levels.reshape(len(form), count) if is_planar else levels.reshape(count, len(form)).T
    return bool((colours[:3] == colours[:1]).all())


def _seek(image: Image.Image, frame: int) -> None:
    try:
        image.seek(frame)
    except Exception as error:  # Pillow raises whatever it stumbles over in a damaged file
        raise InputError(f"unreadable: {error}") from None


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except Exception as error:  # Pillow raises whatever it stumbles over in a damaged file
        raise InputError(f"unreadable: {error}") from None


def _levels(image: Image.Image, sample: Step) -> Array:
    if image.mode == "P":
        image = image.convert("RGB")  # grey levels of a grey palette: any of the three
    if image.mode in _COLOURS:
        samples = [np.array(band) for band in image.split()]
        if sample == "grey":
            require_grey(samples[:3])
            return samples[0]
        assert isinstance(sample, int)
        return samples[sample]
    pixels = np.array(image.convert("L") if image.mode == "1" else image)  # 1 bit: 0 and 255, as the header says
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _seems_cut_short(source: IO[bytes], form: str | None) -> bool:
    """Whether a file lacks the last bytes of its format, so that only decoding it tells whether it is whole."""
    end = source.seek(0, os.SEEK_END)
    source.seek(max(0, end - _TAIL))
    tail = source.read(_TAIL)
    if form == "BMP":
        source.seek(2)
        return int.from_bytes(source.read(4), "little") > end
    return form in _TRAILERS and not tail.rstrip(b"\0").endswith(_TRAILERS[form])
