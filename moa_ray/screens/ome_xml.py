"""OME-XML: which planes a TIFF file holds, by what its own description says.

Of a data set of several files each describes all; only what lies in the file itself counts, and no other is opened.

References
----------
OME-TIFF specification, 2016-06, sections on TiffData and on multi-file data sets.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from moa_ray.common.errors import InputError


@dataclass(frozen=True)
class OmeImage:
    """One image of a file.

    Attributes
    ----------
    sizes : dict of int
        Length by axis (C, Z, T), of what lies in this file.
    samples : int
        Samples a pixel.
    channels : tuple of str
        Names of its channels in this file; empty where one has none.
    pages : dict of int
        Number of the file's page by the places along C, Z and T.
    """

    sizes: dict[str, int]
    samples: int
    channels: tuple[str, ...]
    pages: dict[tuple[int, int, int], int]


def ome_images(text: str, pages: int) -> list[OmeImage]:
    """Read which planes a file holds.

    Parameters
    ----------
    text : str
        The OME-XML of the file.
    pages : int
        How many pages the file has.

    Returns
    -------
    list of OmeImage
        The images of which the file holds any plane; empty where the text describes none, as that of a file whose
        metadata lie in another one.

    Raises
    ------
    InputError
        If it cannot be understood, or it speaks of pages that the file lacks.
    """
    try:
        root = ElementTree.fromstring(text)
        own = _own_files(root)
        images = [_image(pixels, own, pages) for pixels in root.iterfind("{*}Image/{*}Pixels")]
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"unreadable: OME-XML that is not understood: {error}") from None
    return [image for image in images if image.pages]


def _own_files(root: ElementTree.Element) -> set[str | None]:
    """Return the identifiers by which the TiffData of a description mean the file that it stands in."""
    uuids = {uuid.text for uuid in root.iterfind("{*}Image/{*}Pixels/{*}TiffData/{*}UUID")}
    own = root.get("UUID")
    if own in uuids or len(uuids) == 1:  # a single one is this file, whatever it is called now
        return {None, own, *(uuids if len(uuids) == 1 else ())}
    if uuids and own is None:
        raise InputError("OME-XML of several files does not say which of them is this one; give one file a channel")
    return {None, own}


def _image(pixels: ElementTree.Element, own: set[str | None], pages: int) -> OmeImage:
    order = [axis for axis in pixels.attrib["DimensionOrder"] if axis in "CZT"]
    channels = pixels.findall("{*}Channel")
    samples = {int(channel.get("SamplesPerPixel", 1)) for channel in channels} or {1}
    if len(samples) > 1:
        raise InputError("holds channels of differing samples a pixel; give one file a channel")
    (per_pixel,) = samples
    sizes = {axis: int(pixels.attrib[f"Size{axis}"]) for axis in order}
    sizes["C"] //= per_pixel
    places: dict[tuple[int, int, int], int] = {}
    for data in pixels.iterfind("{*}TiffData"):
        uuid = data.find("{*}UUID")
        if (None if uuid is None else uuid.text) in own:
            places |= _planes(data, order, sizes, pages)
    lost = [page for page in places.values() if page >= pages]
    if lost:
        raise InputError(
            f"unreadable: its OME metadata speak of {max(lost) + 1} pages, but it has {pages}; it may be cut short"
        )
    names = [channel.get("Name") or "" for channel in channels]
    return _within_file(places, per_pixel, names)


def _planes(
    data: ElementTree.Element, order: list[str], sizes: dict[str, int], pages: int
) -> Iterator[tuple[tuple[int, int, int], int]]:
    """Yield place and page of each plane of a TiffData, which count on in the order of the dimensions."""
    count = data.get("PlaneCount", data.get("NumPlanes"))
    total = sizes["C"] * sizes["Z"] * sizes["T"]
    number = int(count) if count is not None else (1 if "IFD" in data.attrib else min(pages, total))
    first, start, step = int(data.get("IFD", 0)), 0, 1
    for axis in order:
        start, step = start + step * int(data.get(f"First{axis}", 0)), step * sizes[axis]
    for plane in range(number):
        rest, place = start + plane, {}
        for axis in order:
            rest, place[axis] = divmod(rest, sizes[axis])
        yield (place["C"], place["Z"], place["T"]), first + plane


def _within_file(places: dict[tuple[int, int, int], int], samples: int, names: list[str]) -> OmeImage:
    """Count places anew, so that they are those of this file: the first channel in it is its channel 0."""
    along = [sorted(set(values)) for values in zip(*places, strict=True)] or [[], [], []]
    whole = set(itertools.product(*along))
    if whole != set(places):
        raise InputError("holds not every channel at each depth and time; give one file a channel")
    pages = {(along[0].index(c), along[1].index(z), along[2].index(t)): page for (c, z, t), page in places.items()}
    own = tuple(names[channel] for channel in along[0] if channel < len(names))
    named = own if len(own) == len(along[0]) and all(own) else ()
    return OmeImage(dict(zip("CZT", map(len, along), strict=True)), samples, named, pages)
