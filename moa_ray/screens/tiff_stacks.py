"""The stacks of a TIFF file: its pages by channel, depth and time, as OME, ImageJ or other programs describe them.

Most files hold one page, and then nothing but its tags is read. No file but this one is ever opened, whatever its
metadata name.
"""

import json
import math
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import tifffile

from moa_ray.common.errors import InputError
from moa_ray.config.planes import Plane
from moa_ray.screens.ome_xml import OmeImage, ome_images
from moa_ray.screens.planes import ADVICE, Axes

Page = tifffile.TiffPage | tifffile.TiffFrame

_KNOWN = "CZT"
_COUNTS = re.compile(r"^(?:images|channels|slices|frames)=(\d+)", re.MULTILINE)  # of ImageJ's description


@dataclass(frozen=True)
class Stack:
    """Pages of one shape.

    Attributes
    ----------
    keyframe : TiffPage
        The page whose tags hold for all.
    sizes : mapping of str to int
        Length by axis, samples aside: C channels, Z depth, T time, P pages of which nothing is known.
    channels : tuple of str
        Names of the channels, where the file has them.
    page : callable
        Returns the page at a place, and where its bytes begin where it has no tags of its own.
    """

    keyframe: tifffile.TiffPage
    sizes: Mapping[str, int]
    channels: tuple[str, ...]
    page: Callable[[Mapping[str, int]], tuple[Page, int | None]]


def stacks(file: tifffile.TiffFile, plane: Plane | None) -> Stack:
    """Find the stack that is meant among those of a file.

    Parameters
    ----------
    file : TiffFile
        An open file.
    plane : Plane or None
        Which series is meant, and whether a channel is called by its name.

    Returns
    -------
    Stack

    Raises
    ------
    InputError
        If it holds several and none is chosen, or its metadata contradict its pages.
    """
    first = file.pages.first
    has_names = plane is not None and isinstance(plane.channel, str)
    if not has_names and _is_single(file):
        every = [Stack(first, {}, (), lambda place: (first, None))]
    else:
        every = _of_ome(file) or _of_series(file)
    number = plane.series if plane is not None else None
    if number is None and len(every) == 1:
        return every[0]
    if number is None:
        shapes = ", ".join(f"{s.keyframe.imagelength} x {s.keyframe.imagewidth}{_of(s)}" for s in every)
        raise InputError(f"holds {len(every)} images (series) of {shapes}{ADVICE}{{path: COLUMN, series: 0}}")
    if number >= len(every):
        raise InputError(f"holds {len(every)} images (series); there is no series {number}, counted from 0")
    return every[number]


def _of(stack: Stack) -> str:
    axes = str(Axes(stack.sizes, stack.channels))
    return f" with {axes}" if axes else ""


def _is_single(file: tifffile.TiffFile) -> bool:
    """Tell whether a file holds one page and nothing says that there is more in it."""
    page = file.pages.first
    if file.pages.is_multipage or page.is_stk or page.is_lsm:
        return False
    _require_end(file)
    return all(count == 1 for count in _imagej_counts(page)) and _values_by_tifffile(page) in (None, page.size)


def _imagej_counts(page: tifffile.TiffPage) -> list[int]:
    """Return what ImageJ's description of a file counts: images, channels, slices, frames."""
    descriptions = [text for text in (page.description, page.description1) if text.startswith(("ImageJ=", "SCIFIO="))]
    return [int(count) for text in descriptions for count in _COUNTS.findall(text)]


def _values_by_tifffile(page: tifffile.TiffPage) -> int | None:
    """Return how many values the images of a file hold by tifffile's own description, where it has one."""
    for text in (page.description, page.description1):
        if text.startswith("{") and '"shape":' in text:
            try:
                return int(math.prod(json.loads(text)["shape"]))
            except (ValueError, TypeError):
                return None
    return None


def _require_end(file: tifffile.TiffFile) -> None:
    """Refuse a file whose chain of pages leads behind its end: tifffile takes it for a shorter chain."""
    handle, offsets = file.filehandle, file.tiff
    position = file.pages.next_page_offset
    if position is None:
        return
    handle.seek(position)
    content = handle.read(offsets.offsetsize)
    if len(content) < offsets.offsetsize or struct.unpack(offsets.offsetformat, content)[0] >= handle.size:
        raise InputError("unreadable: cut short: it says that there are further pages behind its end")


# OME ------------------------------------------------------------------------------------------------------------------


def _of_ome(file: tifffile.TiffFile) -> list[Stack]:
    text = file.ome_metadata
    if text is None:
        return []
    count = len(file.pages)
    _require_end(file)
    return [_ome_stack(file, image) for image in ome_images(text, count)]


def _ome_stack(file: tifffile.TiffFile, image: OmeImage) -> Stack:
    keyframe = _full_page(file, next(iter(image.pages.values())))
    if image.sizes["C"] == keyframe.samplesperpixel > 1 and image.samples == 1:
        raise InputError("unreadable: its OME metadata and its samples contradict each other; give one file a channel")

    def page(place: Mapping[str, int]) -> tuple[Page, int | None]:
        found = _full_page(file, image.pages[place.get("C", 0), place.get("Z", 0), place.get("T", 0)])
        if found.hash != keyframe.hash:
            raise InputError("unreadable: its pages differ in shape or compression; give one file a channel")
        return found, None

    return Stack(keyframe, image.sizes, image.channels, page)


def _full_page(file: tifffile.TiffFile, number: int) -> tifffile.TiffPage:
    page = file.pages.get(number, aspage=True)
    assert isinstance(page, tifffile.TiffPage)
    return page


# ImageJ and others ----------------------------------------------------------------------------------------------------


def _of_series(file: tifffile.TiffFile) -> list[Stack]:
    with_tags = file.pages.first
    every = [series for series in file.series if series.keyframe is not None]
    _require_end(file)
    whole = [series for series in every if not series.keyframe.is_reduced] or every  # thumbnails aside
    found = [_series_stack(file, series) for series in whole]
    if len(found) == 1 and max([1, *found[0].sizes.values()]) == 1:
        counts = [count for count in _imagej_counts(with_tags) if count > max(1, with_tags.samplesperpixel)]
        if counts:
            raise InputError(f"unreadable: ImageJ's description speaks of {max(counts)} planes, but it holds 1")
    return found


def _series_stack(file: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> Stack:
    keyframe = series.keyframe
    if keyframe.imagedepth > 1:
        raise InputError(f"holds {keyframe.imagedepth} planes in depth within one page; write each as a page")
    sizes = _sizes(series)
    planes = math.prod(sizes.values())
    # Planes behind one another of which the first alone has a page, as ImageJ writes them beyond 4 GB
    is_virtual = planes > 1 and (len(series) != planes or not file.pages.is_multipage)
    offset = series.dataoffset if is_virtual else None
    if is_virtual and offset is None:
        raise InputError(f"unreadable: {planes} planes are described, but {len(series)} are there; it may be cut short")

    def page(place: Mapping[str, int]) -> tuple[Page, int | None]:
        number = 0
        for axis, size in sizes.items():
            number = number * size + place.get(axis, 0)
        if offset is not None:
            return keyframe, offset + number * keyframe.nbytes
        found = series[number]
        assert found is not None
        return found, None

    return Stack(keyframe, sizes, (), page)


def _sizes(series: tifffile.TiffPageSeries) -> dict[str, int]:
    """Return the axes of a series beside those of its pages, in its order; unknown ones are pages, P."""
    axes, shape = series.get_axes(squeeze=False), series.get_shape(squeeze=False)
    keyframe = series.keyframe
    inner = [size for axis, size in zip(axes, shape, strict=True) if axis in "YX"]
    if inner != [keyframe.imagelength, keyframe.imagewidth] or axes.index("Y") > axes.index("X"):
        raise InputError(
            f"unreadable: axes {axes} of which height and width are not the last; save it in another order"
        )
    outer = [(axis, size) for axis, size in zip(axes, shape, strict=True) if axis not in "YXS" and size > 1]
    samples = keyframe.samplesperpixel
    if samples > 1 and ("C", samples) in outer and math.prod(shape) == len(series) * keyframe.size:
        has_samples = any(axis == "S" and size > 1 for axis, size in zip(axes, shape, strict=True))
        if not has_samples:
            outer.remove(("C", samples))  # what are called channels are the samples of each page
    sizes: dict[str, int] = {}
    last = ""
    for letter, size in outer:
        axis = letter if letter in _KNOWN else "P"
        if axis in sizes and axis != last:
            raise InputError(f"unreadable: axes {axes}, of which some are unknown; save it as OME-TIFF")
        sizes[axis], last = sizes.get(axis, 1) * size, axis
    return sizes
