"""Files fetched over HTTP: resumed where they broke off, checked when they are whole, and nothing ever deleted.

What is being fetched lies beside its target as ``NAME.TAG.part``. The tag stands for the address and for what the
server says of its file (ETag, Last-Modified, size), so a part is continued only while that file is still the same: one
that changed begins in a part of its own, and parts of other programs are never touched.
"""

import contextlib
import fcntl
import hashlib
import http.client
import os
import re
import shutil
import ssl
import struct
import threading
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from moa_ray.command import in_bytes

WAITS = (1.0, 3.0, 10.0, 30.0, 60.0)  # seconds before another try; they begin anew where a try got further

_AT_ONCE = 4
_ASKING_WAITS = (
    2  # fewer where a server is only asked: without a network, all of a screen's files are soon told missing
)
_TIMEOUT = 60  # seconds without a byte after which a connection counts as broken
_TICK = 0.5  # seconds between two looks at the progress
_LONGEST_WAIT = 120.0  # seconds that a server may ask to wait for
_BLOCK = 1 << 16

_ADDRESS = re.compile(r"https?://[!-.0-~]+/[!-~]*")  # printable ASCII without spaces

_T = TypeVar("_T")


@dataclass(frozen=True)
class Download:
    """A file to fetch.

    address : http or https
    name : its plain name in the root
    size : bytes, where published
    md5 : hexadecimal, where published
    """

    address: str
    name: str
    size: int | None = None
    md5: str | None = None

    def __post_init__(self) -> None:
        if not _ADDRESS.fullmatch(self.address):
            raise ValueError(f"{self.address}: an address to fetch from begins with http:// or https:// and a host")
        if not re.fullmatch(r"[^/\\\0]+", self.name) or self.name in (".", ".."):
            raise ValueError(f"{self.address}: a file is fetched to a plain name in its folder, but got {self.name!r}")


@dataclass(frozen=True)
class Missing:
    """A file that is not there or is not whole, and why."""

    download: Download
    reason: str


@dataclass(frozen=True)
class Outcome:
    """How fetching ended, each in the order of the downloads.

    present : were there before
    leftovers : parts that no file needs any more
    """

    present: tuple[Download, ...]
    fetched: tuple[Download, ...]
    missing: tuple[Missing, ...]
    leftovers: tuple[Path, ...]


@dataclass(frozen=True)
class Progress:
    """How far fetching is; `bytes` and `of_bytes` (as far as servers tell sizes) are of the files not there before."""

    files: int
    of_files: int
    bytes: int
    of_bytes: int


def from_base(base: str, downloads: Iterable[Download]) -> tuple[Download, ...]:
    """The same files from another address that holds them all."""
    return tuple(replace(each, address=f"{base.rstrip('/')}/{each.name}") for each in downloads)


def fetch(
    downloads: Sequence[Download],
    root: Path,
    progress: Callable[[Progress], None],
    waits: Sequence[float] = WAITS,
    pause: Callable[[float], object] | None = None,
) -> Outcome:
    """Fetch the files that are not in a folder yet, several at once; the folder is made where it is not there.

    waits : seconds before each further try where a connection breaks or a server is busy
    pause : waits so many seconds

    Raises ValueError where the folder cannot be used, or its disk cannot hold what is missing; then nothing is fetched.
    """
    with _alone(root):
        job = _Job(root, waits, pause)
        known = dict(zip(downloads, job.each(job.survey, downloads, lambda: None), strict=True))
        wanted = {each: told for each, told in known.items() if isinstance(told, _Remote)}
        present = [each for each, told in known.items() if told is None]
        _require_disk(root, {each: (told, job.part(each, told)) for each, told in wanted.items()})

        def show() -> None:
            done = len(present) + len(job.fetched)
            total = sum(told.size or 0 for told in wanted.values())
            progress(Progress(done, len(known), sum(job.received.values()), total))

        job.received |= {each: _size(job.part(each, told)) for each, told in wanted.items()}
        show()
        got = dict(zip(wanted, job.each(job.get, wanted.items(), show), strict=True))
    ends = {**known, **got}
    fetched = [each for each in wanted if got[each] is None]
    return Outcome(
        present=tuple(present),
        fetched=tuple(fetched),
        missing=tuple(end for end in ends.values() if isinstance(end, Missing)),
        leftovers=tuple(part for each in [*present, *fetched] for part in _parts(root, each)),
    )


# What a server says ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Remote:
    """What a server says of a file; all but the size only tells whether it is still the same."""

    size: int | None
    etag: str | None
    modified: str | None

    @classmethod
    def of(cls, response: Any) -> "_Remote":
        headers = response.headers
        length = headers.get("Content-Length", "")
        return cls(int(length) if length.isdecimal() else None, headers.get("ETag"), headers.get("Last-Modified"))

    @property
    def validator(self) -> str | None:
        """What a server can compare in If-Range; a weak ETag does not vouch for every byte."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified


class _TransferError(Exception):
    """A file could not be fetched.

    again : whether another try may help
    wait : seconds that the server asks to wait for
    status : HTTP's, where it is what went wrong
    """

    def __init__(self, reason: str, again: bool, wait: float = 0.0, status: int | None = None) -> None:
        super().__init__(reason)
        self.again, self.wait, self.status = again, wait, status


def _opener() -> urllib.request.OpenerDirector:
    """HTTP and HTTPS alone: no server can send us on to a local file."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _open(address: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> Any:
    """A response with a status of success, to be closed."""
    request = urllib.request.Request(address, method=method, headers={"User-Agent": "moa_ray", **(headers or {})})
    with _network():
        response = _opener().open(request, timeout=_TIMEOUT)
    if "text/html" in response.headers.get("Content-Type", ""):
        response.close()
        raise _TransferError("a web page came in place of the file", again=False)
    return response


def _read(response: Any) -> bytes:
    with _network():
        return bytes(response.read(_BLOCK))


@contextlib.contextmanager
def _network() -> Iterator[None]:
    """Say what went wrong on the network, and whether another try may help. No disk is written to within."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        busy = error.code in (408, 429) or error.code >= 500
        raise _TransferError(f"HTTP status {error.code} {error.reason}", busy, _asked_wait(error), error.code) from None
    except http.client.InvalidURL as error:
        raise _TransferError(str(error), again=False) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        certain = isinstance(reason, ssl.SSLCertVerificationError) or "unknown url type" in str(reason)
        text = str(reason) or type(reason).__name__
        raise _TransferError(f"the connection failed: {text}", again=not certain) from None


def _asked_wait(error: urllib.error.HTTPError) -> float:
    asked = error.headers.get("Retry-After", "")
    return min(float(asked), _LONGEST_WAIT) if asked.isdecimal() else 0.0


def _ask(address: str) -> _Remote:
    """What a server says of a file, without fetching it."""
    try:
        with _open(address, "HEAD") as response:
            told = _Remote.of(response)
        if told.size is not None:
            return told
    except _TransferError as trouble:
        if trouble.status not in (403, 405, 501):  # what servers say that know no HEAD
            raise
    with _open(address) as response:
        return _Remote.of(response)


# Fetching -----------------------------------------------------------------------------------------------------------


@dataclass
class _Job:
    """One call of `fetch`: its threads count bytes in `received` and add to `fetched`, and end soon after `stop`."""

    root: Path
    waits: Sequence[float]
    pause: Callable[[float], object] | None
    stop: threading.Event = field(default_factory=threading.Event)
    received: dict[Download, int] = field(default_factory=dict)
    fetched: list[Download] = field(default_factory=list)

    def each(self, work: Callable[[Any], _T], items: Iterable[Any], watch: Callable[[], None]) -> list[_T]:
        """Results in the order of the items, from several threads; `watch` is called now and then, and at the end."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            futures = [pool.submit(work, item) for item in items]
            waiting = set(futures)
            try:
                while waiting:
                    _, waiting = wait(waiting, timeout=_TICK, return_when=FIRST_COMPLETED)
                    watch()
            except BaseException:
                self.stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [future.result() for future in futures]

    def survey(self, download: Download) -> _Remote | Missing | None:
        """What the server says of a file that is to be fetched; None where the file is there and whole."""
        target = self.root / download.name
        there = os.path.lexists(target)
        try:
            # A file that is there needs no server: what can be seen of it alone must do then.
            waits = self.waits[:0] if there else self.waits[:_ASKING_WAITS]
            told = self._patiently(download, lambda: _ask(download.address), waits)
        except _TransferError as trouble:
            if not there:
                return Missing(download, str(trouble))
            told = _Remote(None, None, None)
        if there:
            fault = _fault(target, download, told.size)
            return Missing(download, f"{target} {fault}; move it away and call again") if fault else None
        if download.size is not None and told.size not in (None, download.size):
            return Missing(download, f"the server's file has {told.size} bytes in place of {download.size}")
        return told

    def get(self, known: tuple[Download, _Remote]) -> Missing | None:
        """Fetch a file; returns why it could not be."""
        transfer = _Transfer(self, *known)
        try:
            if not transfer.is_whole():
                self._patiently(transfer.download, transfer.attempt, self.waits)
            transfer.finish()
        except (_TransferError, OSError) as error:  # an OSError here is the disk's
            return Missing(transfer.download, str(error))
        self.fetched.append(transfer.download)
        return None

    def part(self, download: Download, remote: _Remote) -> Path:
        """Where the unfinished bytes of exactly this file of a server are."""
        identity = "\n".join(map(str, (download.address, remote.etag, remote.modified, remote.size)))
        return self.root / f"{download.name}.{zlib.crc32(identity.encode()):08x}.part"

    def _patiently(self, download: Download, attempt: Callable[[], _T], waits: Sequence[float]) -> _T:
        """Try until it works or the waits are used up; a try that got further than all before begins them anew."""
        furthest = self.received.get(download, 0)
        left = iter(waits)
        while True:
            try:
                return attempt()
            except _TransferError as trouble:
                if (reached := self.received.get(download, 0)) > furthest:
                    furthest, left = reached, iter(waits)
                seconds = next(left, None) if trouble.again else None
                if seconds is None:
                    raise
                (self.pause or self.stop.wait)(max(seconds, trouble.wait))
                if self.stop.is_set():
                    raise


class _Transfer:
    """One file on its way into its part."""

    def __init__(self, job: _Job, download: Download, remote: _Remote) -> None:
        self.download = download
        self._job, self._remote = job, remote
        self._ranges = True

    @property
    def _part(self) -> Path:
        return self._job.part(self.download, self._remote)

    @property
    def _expected(self) -> int | None:
        return self._remote.size if self._remote.size is not None else self.download.size

    def is_whole(self) -> bool:
        """Whether an earlier call fetched all of it and ended before it was renamed."""
        whole = self._remote.validator and self._part.exists() and self._expected is not None
        return bool(whole) and _fault(self._part, self.download, self._expected) is None

    def attempt(self) -> None:
        """Fetch what is missing; `_TransferError` where the part is not whole afterwards."""
        begin = self._held()
        headers = {"Range": f"bytes={begin}-", "If-Range": str(self._remote.validator)} if begin else {}
        with _open(self.download.address, headers=headers) as response:
            if response.status == 206 and not self._continues(response, begin):
                self._ranges = False
                raise _TransferError("the server sent another part than was asked for", again=True)
            if response.status not in (200, 206):
                raise _TransferError(f"HTTP status {response.status}", again=False)
            if response.status == 200:
                self._remote, begin = _Remote.of(response), 0
            if self._expected is None and not response.chunked:
                raise _TransferError("the server tells no size, so that a broken file could not be told", again=False)
            self._write(response, begin)

    def _held(self) -> int:
        """Bytes of the part that can be gone on from."""
        if not self._ranges or self._remote.validator is None or self._remote.size is None:
            return 0
        held = _size(self._part)
        return held if held < self._remote.size else 0

    def _continues(self, response: Any, begin: int) -> bool:
        """Whether a part is the one asked for, and of the same file: some servers do not heed If-Range."""
        same = replace(_Remote.of(response), size=self._remote.size) == self._remote
        return same and _content_range(response) == (begin, self._remote.size)

    def _write(self, response: Any, begin: int) -> None:
        held = begin
        with self._part.open("r+b" if self._part.exists() else "xb") as file:
            file.seek(begin)
            file.truncate()
            while block := _read(response):
                file.write(block)
                held += len(block)
                self._job.received[self.download] = held
                if self._job.stop.is_set():
                    raise _TransferError("interrupted", again=False)
            file.flush()
            os.fsync(file.fileno())
        if self._expected is not None and held != self._expected:
            raise _TransferError(f"the connection ended after {held} of {self._expected} bytes", again=True)

    def finish(self) -> None:
        """Check the part and give it its name."""
        part, target = self._part, self._job.root / self.download.name
        if fault := _fault(part, self.download, self._expected):
            raise _TransferError(
                f"what came {fault}; it is kept as {part.name}, and the next call fetches it anew", False
            )
        if os.path.lexists(target):
            raise _TransferError(f"{target} appeared meanwhile and is left alone", again=False)
        part.rename(target)


def _content_range(response: Any) -> tuple[int, int] | None:
    """First byte and size of the whole file."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    return (int(found[1]), int(found[2])) if found else None


# The folder ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Make the folder, and keep other processes from fetching into it at the same time."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        folder = os.open(root, os.O_RDONLY)
    except OSError as error:
        raise ValueError(f"{root}: no folder to fetch into: {error.strerror}; look at screen.root") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise ValueError(f"{root}: another process is fetching into it; call again when that has ended") from None
    except OSError:
        pass  # some network file systems have no locks
    try:
        yield
    finally:
        os.close(folder)


def _require_disk(root: Path, wanted: Mapping[Download, tuple[_Remote, Path]]) -> None:
    needed = sum(max(0, (remote.size or 0) - _size(part)) for remote, part in wanted.values())
    free = shutil.disk_usage(root).free
    if needed > free:
        raise ValueError(
            f"{root}: {len(wanted)} files of {in_bytes(needed)} are to be fetched, but its disk has "
            f"{in_bytes(free)} free; make room or set screen.root to a folder on a larger disk"
        )


def _fault(path: Path, download: Download, size: int | None) -> str | None:
    """What is wrong with a file, as the rest of a sentence about it; None where it is whole.

    size : bytes that it must have, where that is known
    """
    if not path.is_file():
        return "is no file"
    expected = download.size if download.size is not None else size
    held = path.stat().st_size
    if expected is not None and held != expected:
        return f"has {held} bytes in place of {expected}"
    if download.md5 is not None:
        with path.open("rb") as file:
            md5 = hashlib.file_digest(file, "md5").hexdigest()
        return None if md5 == download.md5.lower() else f"has the MD5 {md5} in place of {download.md5}"
    return _zip_fault(path) if download.name.lower().endswith(".zip") else None


def _zip_fault(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path):
            return None
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        return f"is no readable zip archive ({error})"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _parts(root: Path, download: Download) -> list[Path]:
    name = re.compile(re.escape(download.name) + r"\.[0-9a-f]{8}\.part")
    return sorted(path for path in root.iterdir() if name.fullmatch(path.name))
