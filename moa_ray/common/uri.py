"""Folders in object stores: the one door to `pyarrow.fs`.

    s3://BUCKET/FOLDER[?endpoint_override=HOST:PORT&scheme=http&region=REGION&anonymous=true]
    gs://BUCKET/FOLDER[?endpoint_override=HOST:PORT&scheme=http&anonymous=true]
    file:///FOLDER, which is a plain path

Credentials come from where the store's own tools find them: the environment, a profile, the role of the machine. They
stand in no URI, so that none gets into a sweep file, a report or a message.
"""

import hashlib
import mimetypes
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from pyarrow import fs

_OPTIONS = {
    "s3": ("endpoint_override", "scheme", "region", "anonymous"),
    "gs": ("endpoint_override", "scheme", "anonymous"),
}
_KNOWN = "s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, file:///FOLDER or a plain path"

# The stores' own defaults try for minutes. Whoever waits shall hear of it soon, and what is worth it is tried again.
_CONNECT, _ANSWER, _TRIES = 5.0, 30.0, 3  # seconds, seconds, tries
_PATIENCE = 10  # seconds, where a store counts them and no tries
_AT_ONCE = 16  # files
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Uri:
    """A folder, or a file, in an object store.

    path : the bucket and the way in it, without a slash at its end
    options : how the store is reached, by name
    """

    scheme: str
    path: str
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        query = urlencode(self.options, safe=":/")
        return f"{self.scheme}://{self.path}" + (f"?{query}" if query else "")

    def __truediv__(self, name: str) -> "Uri":
        return replace(self, path=f"{self.path}/{name}")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    def with_name(self, name: str) -> "Uri":
        """The same place but for the last part of its path."""
        return replace(self, path=f"{self.path.rpartition('/')[0]}/{name}")

    def exists(self) -> bool:
        """Whether anything is there, or was written on this machine to be sent there."""
        with reaching("out", self):
            return self.copy.exists() or bool(Store(self).files())

    @property
    def copy(self) -> Path:
        """The folder in which this machine keeps a copy of what is there."""
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        mark = hashlib.sha256(str(self).encode()).hexdigest()
        return Path(caches, "moa_ray", f"{self.name}-{mark[:12]}")


Place = Path | Uri


def place(text: str) -> Place:
    """The folder that a path or a URI names. Raises ValueError where it is no URI that is known, or holds credentials.

    What stands in a URI is taken as it is, as `aws s3` takes it: ``%20`` is no space.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Path(text)
    if scheme == "file":
        return _local(text)
    if scheme not in _OPTIONS:
        raise ValueError(f"{scheme}:// is not among the places that are known: {_KNOWN}")
    path, _, query = rest.partition("?")
    if set(":@") & set(path.partition("/")[0]):
        # No bucket's name has these. Not shown: what stands there may be a secret.
        raise ValueError(
            f"a {scheme}:// URI holds no credentials: put them into the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, "
            "GOOGLE_APPLICATION_CREDENTIALS, ...) or give the machine a role"
        )
    path = path.rstrip("/")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(f"{scheme}://{path}: a bucket and folders must stand there, none of them empty, . or ..")
    return Uri(scheme, path, _options(scheme, query))


def _local(text: str) -> Path:
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost"):
        raise ValueError(f"{text}: a file:// URI names a folder of this machine, as file:///data does; or give a path")
    return Path(unquote(parts.path))


def _options(scheme: str, query: str) -> tuple[tuple[str, str], ...]:
    given = parse_qsl(query, keep_blank_values=True)
    unknown = [name for name, _ in given if name not in _OPTIONS[scheme]]
    if unknown:
        known = ", ".join(_OPTIONS[scheme])
        raise ValueError(f"{scheme}://...?{unknown[0]}=: of a {scheme}:// URI only {known} are known")
    return tuple(sorted(given))


def folder(place: Place) -> Path:
    """The folder of this machine that stands for a place."""
    return place.copy if isinstance(place, Uri) else place


def size(file: Place) -> int | None:
    """Bytes of a file. Raises OSError, or says None, where there is none."""
    if isinstance(file, Path):
        return file.stat().st_size
    (found,) = _system(file).get_file_info([file.path])
    return found.size  # type: ignore[no-any-return]


# What lies in a store -------------------------------------------------------------------------------------------------


class Mark(NamedTuple):
    """What tells one version of a file from another.

    time : of the last change, ns since 1970
    """

    size: int
    time: int

    @classmethod
    def of(cls, path: Path) -> "Mark | None":
        """Of a file of this machine; None where there is none."""
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        return cls(status.st_size, status.st_mtime_ns)


class Store:
    """The files below a URI, by their path relative to it. Where the store fails, an OSError is raised.

    A file that is fetched or sent has the same mark here and there, by which it is known later.
    """

    def __init__(self, uri: Uri) -> None:
        self.uri = uri
        self._system = _system(uri)

    def files(self) -> dict[str, Mark]:
        """All that is there.

        Raises ValueError for a name that leads out of the folder, as no tool but a hostile one writes it.
        """
        below = fs.FileSelector(self.uri.path, recursive=True, allow_not_found=True)
        found = {
            info.path.removeprefix(f"{self.uri.path}/"): Mark(info.size, info.mtime_ns)
            for info in self._system.get_file_info(below)
            if info.type == fs.FileType.File
        }
        for name in found:
            if leaves(name):
                raise ValueError(f"{self.uri}: the name {name!r} leads out of it; remove that file")
        return found

    def open(self, name: str) -> IO[bytes]:
        """A file to be read, from any place in it."""
        opened: IO[bytes] = self._system.open_input_file(f"{self.uri.path}/{name}")
        return opened

    def write(self, name: str, content: bytes) -> None:
        """Write a small file."""
        with self._system.open_output_stream(f"{self.uri.path}/{name}") as target:
            target.write(content)

    def remove(self, name: str) -> None:
        """Delete a file."""
        self._system.delete_file(f"{self.uri.path}/{name}")

    def fetch(self, name: str, mark: Mark, folder: Path) -> None:
        """Copy a file into a folder of this machine, whole or not at all."""
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        writing = target.with_name(f".{uuid.uuid4().hex}.part")
        try:
            with self._system.open_input_stream(f"{self.uri.path}/{name}") as source, writing.open("wb") as file:
                shutil.copyfileobj(source, file, _BLOCK)
            if writing.stat().st_size != mark.size:
                raise OSError(f"{name} changed while it was fetched")
            os.utime(writing, ns=(mark.time, mark.time))
            writing.replace(target)
        finally:
            writing.unlink(missing_ok=True)

    def send(self, name: str, folder: Path) -> Mark:
        """Copy a file of a folder of this machine to the store, whole or not at all; its mark there."""
        path, there = folder / name, f"{self.uri.path}/{name}"
        before = Mark.of(path)
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"  # so that a browser shows a report
        with path.open("rb") as source, self._system.open_output_stream(there, metadata={"Content-Type": kind}) as file:
            shutil.copyfileobj(source, file, _BLOCK)
        (sent,) = self._system.get_file_info([there])
        if before is None or sent.size != before.size:
            raise OSError(f"{name} did not arrive whole")
        if Mark.of(path) == before:
            os.utime(path, ns=(sent.mtime_ns, sent.mtime_ns))
        return Mark(sent.size, sent.mtime_ns)

    def fetch_all(
        self, wanted: Mapping[str, Mark], folder: Path, done: Callable[[Mark], object] = lambda mark: None
    ) -> None:
        """Fetch files, some at a time.

        done : called with the mark of each that has come
        """
        pool = ThreadPoolExecutor(_AT_ONCE)
        try:
            coming = [pool.submit(self.fetch, name, mark, folder) for name, mark in wanted.items()]
            for one, mark in zip(coming, wanted.values(), strict=True):
                one.result()
                done(mark)
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def reaching(key: str, uri: Uri) -> Iterator[None]:
    """What a store raises within, as a ValueError for people.

    key : of the sweep file, where the URI stands
    """
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{key}: {uri}: cannot be reached as it has to be: {error}; look at the bucket, at the credentials in the "
            "environment and at the endpoint"
        ) from None


def leaves(path: str) -> bool:
    """Whether a path is absolute or climbs, whatever it would end at."""
    pure = PurePosixPath(path)
    return pure.is_absolute() or ".." in pure.parts


def _system(uri: Uri) -> Any:
    options: dict[str, Any] = dict(uri.options)
    if "anonymous" in options:
        options["anonymous"] = options["anonymous"].lower() in ("true", "1", "yes")
    if uri.scheme == "gs":
        return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=_PATIENCE), **options)
    if not options.keys() & {"endpoint_override", "scheme"}:
        options |= _endpoint()
    if not options.keys() & {"region", "endpoint_override"} and not {"AWS_REGION", "AWS_DEFAULT_REGION"} & set(
        os.environ
    ):
        options["region"] = fs.resolve_s3_region(uri.path.partition("/")[0])
    retries = fs.AwsStandardS3RetryStrategy(max_attempts=_TRIES)
    # Opened late, a small file is one request and not three.
    waits = {"connect_timeout": _CONNECT, "request_timeout": _ANSWER, "allow_delayed_open": True}
    return fs.S3FileSystem(retry_strategy=retries, **waits, **options)


def _endpoint() -> dict[str, str]:
    """The server that the variables of AWS's own tools name; pyarrow does not look at them."""
    named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not named:
        return {}
    parts = urlsplit(named)
    return {"endpoint_override": parts.netloc + parts.path.rstrip("/"), "scheme": parts.scheme}
