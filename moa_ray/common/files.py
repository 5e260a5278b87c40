"""Write files whole or not at all, name them, and lock them.

One rule for every file that others rely on: its content goes to a temporary file beside it, is forced to the disk,
takes the file's name, and the folder that holds the name is forced to the disk too. A process that is killed, or a
machine that loses power, leaves the file as it was before or as it is meant to be.
"""

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from filelock import BaseFileLock

_LONGEST = 200  # characters of a name; file systems allow 255 bytes


def file_name(name: str) -> str:
    """Percent-encode a name, so that any compound or candidate names a file or folder and none leads out of one.

    Parameters
    ----------
    name : str
        Any text. Where its encoding is longer than 200 characters, the end is replaced by the name's SHA-256.

    Returns
    -------
    str
        A plain file name of at most 200 ASCII characters; different names have different ones.
    """
    encoded = quote(name, safe="=, +()")
    if encoded in (".", ".."):
        encoded = encoded.replace(".", "%2E")
    if len(encoded) > _LONGEST:
        return f"{encoded[: _LONGEST - 65]}-{hashlib.sha256(name.encode()).hexdigest()}"
    return encoded


@contextlib.contextmanager
def replacing(path: Path, temporary: Path | None = None) -> Iterator[IO[bytes]]:
    """Open a temporary file that takes the place of a file once the block has ended without an error.

    Parameters
    ----------
    path : Path
        The file to write; its folder exists.
    temporary : Path, optional
        The temporary file, in the same folder. By default one of a name that nobody else uses; a large file that is
        written under a lock takes a fixed one, so that what a killed process left is written over.

    Yields
    ------
    binary file
        Open for writing, empty. It is removed where the block raises.
    """
    temporary = temporary or path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Parameters
    ----------
    path : Path
        The file; its folder exists.
    content : bytes
        What the file holds afterwards.
    """
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file, in UTF-8, whole or not at all.

    Parameters
    ----------
    path : Path
        The file; its folder exists.
    text : str
        What the file holds afterwards.
    """
    write_bytes(path, text.encode())


def write_json(path: Path, plain: Any) -> None:
    """Write a JSON file, indented by one space, whole or not at all.

    Parameters
    ----------
    path : Path
        The file; its folder exists.
    plain : dict, list or scalar
        What `json` can write.
    """
    write_text(path, json.dumps(plain, indent=1))


def sync(path: Path) -> None:
    """Force a file or folder that was written by other means to the disk.

    Parameters
    ----------
    path : Path
        A file, for its content; a folder, for the names in it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_lock(path: Path) -> "BaseFileLock":
    """Return a context manager that waits until no other process or thread holds a lock file.

    Parameters
    ----------
    path : Path
        The lock file. It is made where it is missing, and stays.

    Returns
    -------
    BaseFileLock
        The system releases the lock of a process that is killed.
    """
    from filelock import FileLock  # a tenth of a second, which a command that locks nothing saves

    # A soft lock would outlive a killed process.
    return FileLock(path, fallback_to_soft=False)
