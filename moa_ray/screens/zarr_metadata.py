"""The metadata of OME-Zarr groups: which array is an image's full resolution, its axes, channels and chunks.

References
----------
OME-NGFF 0.4 (Zarr 2) and 0.5 (Zarr 3), "multiscales" and "omero"; Zarr storage specifications 2 and 3.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from moa_ray.common.errors import InputError
from moa_ray.common.object_store import Store
from moa_ray.common.uri import Place, Uri, leaves
from moa_ray.config.planes import Plane
from moa_ray.screens.planes import ADVICE, Axes

METADATA = ("zarr.json", ".zattrs", ".zgroup", ".zarray")  # files that say what a folder of a store is
_KINDS = {
    **{"uint8": "uint8", "uint16": "uint16"},
    **dict.fromkeys(["int8", "int16", "int32", "uint32"], "int32"),
    **dict.fromkeys(["float16", "float32", "float64"], "float32"),
}
_LETTERS = {"t": "T", "time": "T", "c": "C", "channel": "C", "z": "Z", "y": "Y", "x": "X"}
_OLD_AXES = "tczyx"  # of versions before 0.3, which name none


@dataclass(frozen=True)
class ZarrImage:
    """The array of an image at full resolution.

    Attributes
    ----------
    path : str
        The array, relative to the screen's root.
    shape : tuple of int
        Its shape.
    dtype : str
        The dtype that its grey levels are read as.
    letters : tuple of str
        Its axes, the last two Y and X.
    channels : tuple of str
        Names of its channels; empty where there are none.
    chunks : tuple of int
        Shape of a chunk, or of a shard of chunks.
    key, separator : str
        What the name of a chunk's file begins with, and what stands between its numbers.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    letters: tuple[str, ...]
    channels: tuple[str, ...]
    chunks: tuple[int, ...]
    key: str
    separator: str

    @property
    def axes(self) -> Axes:
        """The axes beside height and width."""
        return Axes(dict(zip(self.letters[:-2], self.shape[:-2], strict=True)), self.channels)

    def chunk_files(self, place: Mapping[str, int]) -> Iterator[str]:
        """List where the chunks of a plane would lie.

        Parameters
        ----------
        place : mapping of int, by axis
            Of the plane.

        Yields
        ------
        str
            A file, relative to the root.
        """
        outer = [place.get(axis, 0) // size for axis, size in zip(self.letters[:-2], self.chunks, strict=False)]
        inner = [range(-(-length // size)) for length, size in zip(self.shape[-2:], self.chunks[-2:], strict=True)]
        for row, column in itertools.product(*inner):
            yield f"{self.path}/{self.key}{self.separator.join(map(str, [*outer, row, column]))}"


def attributes(root: Place, location: str) -> dict[str, Any] | None:
    """Read the OME metadata of a group.

    Parameters
    ----------
    root : Path or Uri
        The screen's root.
    location : str
        The group, relative to the root; ``.`` is the root.

    Returns
    -------
    dict or None
        None where no group is there.

    Raises
    ------
    InputError
        If its JSON cannot be read.
    """
    group = _json(root, f"{location}/zarr.json")
    if group is not None:
        found: dict[str, Any] = group.get("attributes", {})
        return dict(found.get("ome", found))
    return _json(root, f"{location}/.zattrs")


def image_of(root: Place, location: str, plane: Plane | None, chosen: bool = True) -> ZarrImage:
    """Read the metadata of an image.

    Parameters
    ----------
    root : Path or Uri
        The screen's root.
    location : str
        The image's group, relative to the root.
    plane : Plane or None
        Which series is meant.
    chosen : bool
        Whether one of several series must be chosen; else the first is taken.

    Returns
    -------
    ZarrImage

    Raises
    ------
    InputError
        If it is no OME-Zarr image, is not understood, or holds several and none is chosen.
    """
    group = attributes(root, location)
    scales = (group or {}).get("multiscales")
    if not scales:
        raise InputError(_no_image(group))
    number = plane.series if plane is not None and plane.series is not None else 0
    if chosen and len(scales) > 1 and (plane is None or plane.series is None):
        raise InputError(f"holds {len(scales)} images (multiscales){ADVICE}{{path: COLUMN, series: 0}}")
    if number >= len(scales):
        raise InputError(f"holds {len(scales)} images (multiscales); there is no series {number}, counted from 0")
    try:
        level = str(scales[number]["datasets"][0]["path"])
        if leaves(level):
            raise InputError(f"unreadable: its full resolution, {level}, leads out of it")
        path = PurePosixPath(location, level).as_posix()
        if isinstance(root, Path) and not (root / path).resolve().is_relative_to((root / location).resolve()):
            raise InputError(f"unreadable: its full resolution, {level}, leads out of it")
        names = [str(channel["label"]) for channel in (group or {}).get("omero", {}).get("channels", ())]
        return _array(root, path, scales[number].get("axes"), names)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"unreadable: OME-Zarr metadata that are not understood: {error!r}") from None


def _no_image(group: dict[str, Any] | None) -> str:
    if group is None:
        return "missing, or no group of an OME-Zarr store"
    if "plate" in group or "well" in group:
        what = "plate" if "plate" in group else "well"
        return f"is a {what} of an OME-Zarr store and no image; give an image, as in plate.zarr/A/1/0"
    return "holds no OME-Zarr image: its metadata have no multiscales"


def _array(root: Place, path: str, axes: Sequence[Any] | None, names: Sequence[str]) -> ZarrImage:
    found = _json(root, f"{path}/zarr.json")
    if found is not None:
        shape, kind = found["shape"], str(found["data_type"])
        chunks = found["chunk_grid"]["configuration"]["chunk_shape"]
        encoding = found.get("chunk_key_encoding", {"name": "default"})
        separator = encoding.get("configuration", {}).get("separator", "/" if encoding["name"] == "default" else ".")
        key = f"c{separator}" if encoding["name"] == "default" else ""
    else:
        found = _json(root, f"{path}/.zarray")
        if found is None:
            raise InputError(f"unreadable: its full resolution, {path}, is missing")
        shape, kind, chunks = found["shape"], str(np.dtype(found["dtype"]).name), found["chunks"]
        separator, key = found.get("dimension_separator", "."), ""
    letters = _letters(axes, len(shape))
    if kind not in _KINDS:
        raise InputError(f"unreadable: {kind} is no grey level")
    by_axis = dict(zip(letters, shape, strict=True))
    own = tuple(names) if len(names) == by_axis.get("C", 1) else ()
    return ZarrImage(path, tuple(shape), _KINDS[kind], letters, own, tuple(chunks), key, separator)


def _letters(axes: Sequence[Any] | None, dimensions: int) -> tuple[str, ...]:
    if axes is None:
        axes = list(_OLD_AXES[-dimensions:]) if dimensions == len(_OLD_AXES) else []
    names = [axis if isinstance(axis, str) else str(axis["name"]) for axis in axes]
    letters = tuple(_LETTERS.get(name.lower(), "P") for name in names)
    if len(letters) != dimensions or letters[-2:] != ("Y", "X") or len(set(letters)) < len(letters):
        written = ", ".join(names) or "without names"
        raise InputError(f"unreadable: axes {written} of an array of {dimensions} dimensions; Y and X come last")
    return letters


def _json(root: Place, location: str) -> dict[str, Any] | None:
    location = PurePosixPath(location).as_posix()
    try:
        if isinstance(root, Uri):
            with store_of(root).open(location) as file:
                return dict(json.loads(file.read()))
        return dict(json.loads((root / location).read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"unreadable: {PurePosixPath(location).name} is no JSON: {error}") from None


@lru_cache(maxsize=1)
def store_of(root: Uri) -> Store:
    """Return the object store of a screen's root, opened once.

    Parameters
    ----------
    root : Uri
        The screen's root.

    Returns
    -------
    Store
    """
    return Store(root)
