"""OME-Zarr images: the header of a plane by metadata alone, and its grey levels.

Chunks are read by zarr, only those of the plane that is meant, at full resolution.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moa_ray.common.errors import InputError
from moa_ray.common.uri import Place, Uri
from moa_ray.config.planes import Plane
from moa_ray.screens.planes import places, projected, select
from moa_ray.screens.zarr_metadata import METADATA, image_of, store_of

Array = NDArray[Any]


def is_zarr(root: Place, location: str) -> bool:
    """Tell whether a location of a screen is a folder of a Zarr store, and no file.

    Parameters
    ----------
    root : Path or Uri
        The screen's root.
    location : str
        Path relative to the root.

    Returns
    -------
    bool
        Whether it leads into a folder that is called ``.zarr``, or is a folder.
    """
    path = PurePosixPath(location)
    if "!" in location:
        return False
    if any(part.lower().endswith(".zarr") for part in path.parts):
        return True
    if path.suffix:
        return False
    return root.name.lower().endswith(".zarr") if isinstance(root, Uri) else (root / location).is_dir()


def zarr_header(root: Place, location: str, plane: Plane | None) -> tuple[tuple[int, int], str]:
    """Read shape and dtype of a plane of an OME-Zarr image, by its metadata alone.

    Parameters
    ----------
    root : Path or Uri
        The screen's root.
    location : str
        The image's group, relative to the root, in which it is known to lie.
    plane : Plane or None
        Which plane is meant.

    Returns
    -------
    shape : tuple of int
        Height and width in pixels.
    dtype : str
        The dtype that `read_zarr` gives.

    Raises
    ------
    InputError
        If it is no OME-Zarr image, none of the plane's chunks is there, or it holds several planes of which none is
        chosen.
    """
    image = image_of(root, location, plane)
    for place in places(image.axes, select(image.axes, plane)):
        if isinstance(root, Path) and not any((root / file).exists() for file in image.chunk_files(place)):
            raise InputError("unreadable: none of the plane's chunks is there")
    return (image.shape[-2], image.shape[-1]), image.dtype


def read_zarr(root: Place, location: str, plane: Plane | None) -> Array:
    """Read the grey levels of a plane of an OME-Zarr image, chunk by chunk.

    Parameters
    ----------
    root : Path or Uri
        The screen's root.
    location : str
        The image's group, relative to the root, in which it is known to lie.
    plane : Plane or None
        Which plane is meant.

    Returns
    -------
    array of shape (height, width), uint8, uint16, int32 or float32

    Raises
    ------
    InputError
        As `zarr_header`, or if a chunk is damaged.
    """
    image = image_of(root, location, plane)
    steps = select(image.axes, plane)
    try:
        array = _opened(root, image.path)

        def read(place: Mapping[str, int]) -> Array:
            pixels: Array = np.asarray(array[tuple(place.get(axis, 0) for axis in image.letters[:-2])])
            levels = np.ascontiguousarray(pixels, dtype=image.dtype)
            if pixels.dtype == np.uint32 and (levels < 0).any():
                raise InputError("unreadable: levels of 2^31 and more; save it with 16 bits, or as float")
            return levels

        return projected(image.axes, steps, read)
    except InputError:
        raise
    except Exception as error:  # zarr and its codecs raise whatever they stumble over in a damaged store
        raise InputError(f"unreadable: {error}") from None


def zarr_version(root: Path, location: str) -> str:
    """Return what changes when an image does, without reading its chunks.

    Parameters
    ----------
    root : Path
        The screen's root.
    location : str
        The image's group, relative to the root.

    Returns
    -------
    str
        A digest of name, size and time of change of each file at full resolution; ``missing`` where there is none.
    """
    try:
        array = root / image_of(root, location, None, chosen=False).path
    except InputError:
        return "missing"
    digest = hashlib.sha256()
    for path in sorted(Path(folder, name) for folder, _, names in os.walk(array) for name in names):
        status = path.stat()
        digest.update(f"{path.relative_to(array)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def metadata_file(root: Path, location: str) -> str:
    """Return a file of an image that any machine can look for.

    Parameters
    ----------
    root : Path
        The screen's root.
    location : str
        The image's group, relative to the root.

    Returns
    -------
    str
        Location of a small file in the group.
    """
    return next((f"{location}/{name}" for name in METADATA if (root / location / name).is_file()), location)


def _opened(root: Place, path: str) -> Any:
    """Open an array; zarr is imported when it is first needed, since most screens need none."""
    import zarr

    if isinstance(root, Path):
        return zarr.open_array(str(root / path), mode="r")
    return zarr.open_array(zarr.storage.MemoryStore(_Files(root, path), read_only=True), mode="r")


class _Files(dict[str, Any]):
    """The files of an array in an object store, each fetched when it is asked for."""

    def __init__(self, root: Uri, path: str) -> None:
        super().__init__()
        self._root, self._path = root, path

    def __getitem__(self, key: str) -> Any:
        from zarr.buffer import default_buffer_prototype

        try:
            with store_of(self._root).open(f"{self._path}/{key}") as file:
                return default_buffer_prototype().buffer.from_bytes(file.read())
        except FileNotFoundError:
            raise KeyError(key) from None

    def __contains__(self, key: object) -> bool:
        try:
            self[str(key)]
        except KeyError:
            return False
        return True
