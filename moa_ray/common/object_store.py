"""Read and write what lies in object stores; the one door to `pyarrow.fs`.

`moa_ray.common.uri` says how such places are written. Credentials come from where the store's own tools find them: the
environment, a profile, the role of the machine.

pyarrow.fs is imported when a store is first asked: it loads the clients of all stores, and most sweeps need none.
"""

import mimetypes
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

from moa_ray.common.errors import InputError
from moa_ray.common.uri import Place, Uri, leaves

# The stores' own defaults try for minutes. Users shall hear of a failure soon; what is worth it is tried again by us.
_CONNECT, _ANSWER, _TRIES = 5.0, 30.0, 3  # seconds, seconds, tries
_PATIENCE = 10  # seconds, where a store counts them and no tries
_FILES_AT_ONCE = 16
_BLOCK = 1 << 20  # bytes


def exists(place: Place) -> bool:
    """Return whether anything is at a place, or was written on this machine to be sent there.

    Parameters
    ----------
    place : Path or Uri
        OUT of a sweep.

    Returns
    -------
    bool
        Whether it is taken.

    Raises
    ------
    InputError
        If the store cannot be read.
    """
    if isinstance(place, Path):
        return place.exists()
    with reporting_errors_of("out", place):
        return place.copy.exists() or bool(Store(place).files())


def size(file: Place) -> int | None:
    """Return the size of a file.

    Parameters
    ----------
    file : Path or Uri
        The file.

    Returns
    -------
    int or None
        Bytes; None where an object store has no such file.

    Raises
    ------
    OSError
        If it cannot be looked at, or this machine has no such file.
    """
    if isinstance(file, Path):
        return file.stat().st_size
    (info,) = _system(file).get_file_info([file.path])
    return info.size  # type: ignore[no-any-return]


class FileVersion(NamedTuple):
    """What tells one version of a file from another.

    Attributes
    ----------
    size : int
        Bytes.
    time : int
        Of the last change, nanoseconds since 1970.
    """

    size: int
    time: int

    @classmethod
    def of(cls, path: Path) -> "FileVersion | None":
        """Return the version of a file of this machine.

        Parameters
        ----------
        path : Path
            The file.

        Returns
        -------
        FileVersion or None
            None where there is no such file.
        """
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        return cls(status.st_size, status.st_mtime_ns)


class Store:
    """The files below a URI, by their path relative to it. Where the store fails, an OSError is raised.

    A file that is fetched or sent has the same version here and there, by which it is known later.

    Parameters
    ----------
    uri : Uri
        A folder in an object store.
    """

    def __init__(self, uri: Uri) -> None:
        self.uri = uri
        self._system = _system(uri)

    def files(self) -> dict[str, FileVersion]:
        """List all files.

        Returns
        -------
        dict of FileVersion
            By the path relative to the URI, with slashes.

        Raises
        ------
        InputError
            If a name leads out of the folder, as no tool but a hostile one writes it.
        """
        from pyarrow import fs

        selector = fs.FileSelector(self.uri.path, recursive=True, allow_not_found=True)
        versions = {
            info.path.removeprefix(f"{self.uri.path}/"): FileVersion(info.size, info.mtime_ns)
            for info in self._system.get_file_info(selector)
            if info.type == fs.FileType.File
        }
        for name in versions:
            if leaves(name):
                raise InputError(f"{self.uri}: the name {name!r} leads out of it; remove that file")
        return versions

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading, from any place in it.

        Parameters
        ----------
        name : str
            Its path relative to the URI.

        Returns
        -------
        binary file
            To be closed.
        """
        file: IO[bytes] = self._system.open_input_file(f"{self.uri.path}/{name}")
        return file

    def write(self, name: str, content: bytes) -> None:
        """Write a small file.

        Parameters
        ----------
        name : str
            Its path relative to the URI.
        content : bytes
            What it holds afterwards.
        """
        with self._system.open_output_stream(f"{self.uri.path}/{name}") as target:
            target.write(content)

    def remove(self, name: str) -> None:
        """Delete a file.

        Parameters
        ----------
        name : str
            Its path relative to the URI.
        """
        self._system.delete_file(f"{self.uri.path}/{name}")

    def fetch(self, name: str, version: FileVersion, folder: Path) -> None:
        """Copy a file into a folder of this machine, whole or not at all.

        Parameters
        ----------
        name : str
            Its path relative to the URI, and to the folder.
        version : FileVersion
            The version that `files` told; the copy gets its time.
        folder : Path
            Folders below it are made as needed.

        Raises
        ------
        OSError
            If what came has another size.
        """
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        # Not `replacing`: each of thousands of files would wait for the disk, and all can be fetched again.
        part = target.with_name(f".{uuid.uuid4().hex}.part")
        try:
            with self._system.open_input_stream(f"{self.uri.path}/{name}") as source, part.open("wb") as file:
                shutil.copyfileobj(source, file, _BLOCK)
            if part.stat().st_size != version.size:
                raise OSError(f"{name} changed while it was fetched")
            os.utime(part, ns=(version.time, version.time))
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def send(self, name: str, folder: Path) -> FileVersion:
        """Copy a file of a folder of this machine to the store, whole or not at all.

        Parameters
        ----------
        name : str
            Its path relative to the folder, and to the URI.
        folder : Path
            A folder of this machine.

        Returns
        -------
        FileVersion
            Its version in the store; the file gets the time of it, unless it changed meanwhile.

        Raises
        ------
        OSError
            If what arrived has another size.
        """
        path, target = folder / name, f"{self.uri.path}/{name}"
        before = FileVersion.of(path)
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"  # so that a browser shows a report
        metadata = {"Content-Type": kind}
        with path.open("rb") as source, self._system.open_output_stream(target, metadata=metadata) as file:
            shutil.copyfileobj(source, file, _BLOCK)
        (sent,) = self._system.get_file_info([target])
        if before is None or sent.size != before.size:
            raise OSError(f"{name} did not arrive whole")
        if FileVersion.of(path) == before:
            os.utime(path, ns=(sent.mtime_ns, sent.mtime_ns))
        return FileVersion(sent.size, sent.mtime_ns)

    def fetch_all(
        self,
        versions: Mapping[str, FileVersion],
        folder: Path,
        done: Callable[[FileVersion], object] = lambda version: None,
    ) -> None:
        """Copy files into a folder of this machine, some at a time.

        Parameters
        ----------
        versions : mapping of FileVersion
            The files, by their path relative to the URI.
        folder : Path
            A folder of this machine.
        done : callable, optional
            Called with the version of each file that has come.
        """
        pool = ThreadPoolExecutor(_FILES_AT_ONCE)
        try:
            futures = [pool.submit(self.fetch, name, version, folder) for name, version in versions.items()]
            for future, version in zip(futures, versions.values(), strict=True):
                future.result()
                done(version)
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def reporting_errors_of(key: str, uri: Uri) -> Iterator[None]:
    """Turn what a store raises within the block into an error for the user.

    Parameters
    ----------
    key : str
        The key of the sweep file at which the URI stands.
    uri : Uri
        The place.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    InputError
        If the store cannot be reached, or refuses.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{key}: {uri}: cannot be reached as it has to be: {error}; look at the bucket, at the credentials in the "
            "environment and at the endpoint"
        ) from None


def _system(uri: Uri) -> Any:
    """Return the file system of pyarrow that reaches a place."""
    from pyarrow import fs

    options: dict[str, Any] = dict(uri.options)
    if "anonymous" in options:
        options["anonymous"] = options["anonymous"].lower() in ("true", "1", "yes")
    if uri.scheme == "gs":
        return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=_PATIENCE), **options)
    if not options.keys() & {"endpoint_override", "scheme"}:
        options |= _endpoint()
    has_region = options.keys() & {"region", "endpoint_override"} or {"AWS_REGION", "AWS_DEFAULT_REGION"} & set(
        os.environ
    )
    if not has_region:
        options["region"] = fs.resolve_s3_region(uri.path.partition("/")[0])
    retries = fs.AwsStandardS3RetryStrategy(max_attempts=_TRIES)
    # Opened late, a small file is one request and not three.
    waits = {"connect_timeout": _CONNECT, "request_timeout": _ANSWER, "allow_delayed_open": True}
    return fs.S3FileSystem(retry_strategy=retries, **waits, **options)


def _endpoint() -> dict[str, str]:
    """Return the server that the variables of AWS's own tools name; pyarrow does not look at them."""
    address = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not address:
        return {}
    parts = urlsplit(address)
    return {"endpoint_override": parts.netloc + parts.path.rstrip("/"), "scheme": parts.scheme}
