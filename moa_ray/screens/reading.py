"""The images of a screen, read from folders, zip archives and buckets by their locations.

Nothing outside of a screen's root is read, whatever a table says: no absolute path, no ``..``, and no link that leads
out of it unless the sweep file permits links.
"""

import io
import os
import threading
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

from moa_ray.common.errors import InputError
from moa_ray.common.object_store import Store
from moa_ray.common.uri import Place, Uri, leaves
from moa_ray.config.planes import Plane
from moa_ray.screens.image_files import read_image
from moa_ray.screens.root_folder import path_inside
from moa_ray.screens.zarr_images import is_zarr, read_zarr
from moa_ray.screens.zarr_metadata import METADATA

# What reading an image raises: a locked member of an archive is a RuntimeError.
UNREADABLE = (OSError, KeyError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def open_image(root: Path, location: str) -> AbstractContextManager[IO[bytes]]:
    """Open the file at a location of a screen for reading.

    Parameters
    ----------
    root : Path
        The screen's root.
    location : str
        Path relative to the root, or ``archive.zip!member``.

    Returns
    -------
    binary file
        To be used as a context manager.

    Raises
    ------
    InputError
        If the location leads out of the root.
    OSError, KeyError
        If there is no such file or member.
    """
    path, member = _place(root, location)
    return _archive(path).open(member) if member else path.open("rb")


def unpacked_size(root: Path, location: str) -> int | None:
    """Return how large a member of an archive is once it is unpacked, as the archive's directory says.

    Parameters
    ----------
    root : Path
        The screen's root.
    location : str
        Path relative to the root, or ``archive.zip!member``.

    Returns
    -------
    int or None
        Bytes; None for a file in no archive, which is quick to measure.

    Raises
    ------
    InputError
        If the location leads out of the root.
    OSError, KeyError
        If there is no such archive or member.
    """
    path, member = _place(root, location)
    return _archive(path).getinfo(member).file_size if member else None


def member_version(root: Path, location: str) -> tuple[int, int] | None:
    """Return what an archive's directory says of a member's content.

    Parameters
    ----------
    root : Path
        The screen's root.
    location : str
        Path relative to the root, or ``archive.zip!member``.

    Returns
    -------
    tuple of int, or None
        Bytes and checksum; None for a file in no archive.

    Raises
    ------
    InputError
        If the location leads out of the root.
    OSError, KeyError
        If there is no such archive or member.
    """
    path, member = _place(root, location)
    if not member:
        return None
    info = _archive(path).getinfo(member)
    return info.file_size, info.CRC


def _open_whole(root: Place, location: str) -> AbstractContextManager[IO[bytes]]:
    """Open a file to read it whole: a member is unpacked at once, in parallel with what other threads unpack."""
    if isinstance(root, Uri):
        return _open_stored(root, location)
    path, member = _place(root, location)
    return io.BytesIO(_own.archive(path).read(member)) if member else path.open("rb")


def _open_stored(root: Uri, location: str) -> io.BytesIO:
    """Fetch a file of an object store in one request; of an archive only the member is fetched.

    An object store knows no links. Each small read of an open file there would be a request of its own.
    """
    archive, _, member = location.partition("!")
    if leaves(archive) or leaves(member):
        raise InputError(f"{location}: leads out of the screen's root {root}")
    if member:
        return io.BytesIO(_own.stored_archive(root, archive).read(member))
    with _own.store(root).open(archive) as file:
        return io.BytesIO(file.read())


def _place(root: Path, location: str) -> tuple[Path, str]:
    """Return the file of a location, and the member where that file is an archive."""
    archive, _, member = location.partition("!")
    path = path_inside(root, archive)
    if leaves(member):
        raise InputError(f"{location}: leads out of the archive")
    return path, member


def read_field(root: Place, locations: Sequence[str], planes: Sequence[Plane | None] = ()) -> list[NDArray[Any]]:
    """Read the channels of one field.

    Parameters
    ----------
    root : Path or Uri
        The screen's root; in a bucket, the files are read there.
    locations : sequence of str
        One for each channel.
    planes : sequence of Plane or None
        One for each channel: which plane of its file it is. None, and an empty sequence, are files of one plane.

    Returns
    -------
    list of array, each of shape (height, width)
        Grey levels as `read_image` gives them.

    Raises
    ------
    InputError
        If a file cannot be read, or its shape differs from the first channel's; the message names it.
    """
    channels: list[NDArray[Any]] = []
    for location, plane in zip(locations, planes or [None] * len(locations), strict=True):
        try:
            channels.append(_read_plane(root, location, plane))
        except UNREADABLE as error:
            raise InputError(f"{location}: {reason(error)}") from None
        if channels[-1].shape != channels[0].shape:
            shapes = f"{channels[-1].shape} differs from {channels[0].shape}"
            raise InputError(f"{location}: shape {shapes} of {locations[0]}")
    return channels


def _read_plane(root: Place, location: str, plane: Plane | None) -> NDArray[Any]:
    if not is_zarr(root, location):
        with _open_whole(root, location) as file:
            return read_image(file, plane)
    if leaves(location):
        raise InputError(f"leads out of the screen's root {root}")
    if isinstance(root, Path):
        path_inside(root, location)
    return read_zarr(root, location, plane)


@lru_cache(maxsize=64)
def _archive(path: Path) -> zipfile.ZipFile:
    """Open an archive once a process, so that its directory is read once; threads reading it wait for each other."""
    return zipfile.ZipFile(path)


class _Own(threading.local):
    """The open archives and stores of one thread; fields come plate by plate, so that few are in use at a time."""

    def __init__(self) -> None:
        self.archive = lru_cache(maxsize=4)(zipfile.ZipFile)
        self.store = lru_cache(maxsize=1)(Store)
        self.stored_archive = lru_cache(maxsize=4)(lambda root, name: zipfile.ZipFile(self.store(root).open(name)))


_own = _Own()


def reason(error: Exception) -> str:
    """Say why a file could not be read.

    Parameters
    ----------
    error : Exception
        One of `UNREADABLE`.

    Returns
    -------
    str
        ``missing`` where there is no such file or member, else the error's message.
    """
    return "missing" if isinstance(error, FileNotFoundError | KeyError) else str(error)


def listing(root: Path) -> list[str]:
    """List the location of every file below a root, members of zip archives included, in one walk over the folders.

    Links to folders are followed, but no folder is walked from within itself.

    Parameters
    ----------
    root : Path
        The screen's root.

    Returns
    -------
    list of str
        Paths relative to the root, and ``archive.zip!member``.
    """
    locations: list[str] = []
    for folder, below, names in os.walk(root, followlinks=True):
        if ".zarray" in names or ("zarr.json" in names and below == ["c"]):
            below[:], names[:] = [], [name for name in names if name in METADATA]  # chunks are no images
        below[:] = [name for name in below if not _is_cycle(Path(folder, name))]
        prefix = Path(folder).relative_to(root)
        for name in names:
            location = (prefix / name).as_posix()
            locations.append(location)
            if name.lower().endswith(".zip"):
                locations += [f"{location}!{member}" for member in _members(Path(folder, name).resolve())]
    return locations


def _is_cycle(folder: Path) -> bool:
    return folder.is_symlink() and folder.absolute().is_relative_to(folder.resolve())


def _members(archive: Path) -> list[str]:
    try:
        return _archive(archive).namelist()
    except (zipfile.BadZipFile, OSError):
        return []  # whoever looks for one of its members will say that it is missing
