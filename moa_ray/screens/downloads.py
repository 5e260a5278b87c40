"""Fetch files over HTTP into a folder: several at once, each resumed and checked, and never delete anything.

`requests` heeds proxies, ``.netrc`` and redirects; urllib3's Retry says when to ask again, also where a body broke off.

What is being fetched lies beside its target as ``NAME.TAG.part``. The tag stands for the address and for what the
server says of its file (ETag or Last-Modified, size), so a part is continued only while that file is still the same: a
file that changed begins in a part of its own, and parts of other programs are never touched.
"""

import hashlib
import os
import re
import shutil
import ssl
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import NamedTuple

import requests
from filelock import lock_descriptor
from urllib3 import BaseHTTPResponse, Retry
from urllib3.exceptions import HTTPError, IncompleteRead, InvalidHeader, SSLError

from moa_ray.common.errors import InputError
from moa_ray.common.text import in_bytes

WAITS = (1.0, 3.0, 10.0, 30.0, 60.0)  # seconds before another try; they begin anew where a try got further
TIMEOUT = 60.0  # seconds without a byte after which a connection counts as broken

_BUSY = {408, 429, *range(500, 600)} - {501}  # statuses that may pass


@dataclass(frozen=True)
class Download:
    """A file to fetch.

    Attributes
    ----------
    address : str
        Its http or https address.
    name : str
        Its plain name in the folder that it is fetched into.
    size : int, optional
        Bytes, where they are published.
    md5 : str, optional
        Hexadecimal checksum, where it is published.
    """

    address: str
    name: str
    size: int | None = None
    md5: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"https?://[!-.0-~]+/[!-~]*", self.address):  # printable ASCII without spaces
            raise InputError(f"{self.address}: an address to fetch from begins with http:// or https:// and a host")
        if not re.fullmatch(r"[^/\\\0]+", self.name) or self.name in (".", ".."):
            raise ValueError(f"{self.address}: a file is fetched to a plain name in its folder, but got {self.name!r}")


class Progress(NamedTuple):
    """How far fetching is.

    Attributes
    ----------
    files, of_files : int
        Files that are there, of all files.
    bytes, of_bytes : int
        Bytes that came, of those of the files that were not there before, as far as servers tell sizes.
    """

    files: int
    of_files: int
    bytes: int
    of_bytes: int


class Missing(NamedTuple):
    """A file that is not there or is not whole.

    Attributes
    ----------
    download : Download
        The file.
    reason : str
        Why it is missing, for the user.
    """

    download: Download
    reason: str


class Outcome(NamedTuple):
    """How fetching ended; each tuple is in the order of the downloads.

    Attributes
    ----------
    present, fetched : tuple of Download
        Files that were there before, and files that came.
    missing : tuple of Missing
        Files that are not there.
    leftovers : tuple of Path
        Parts that no file needs any more.
    """

    present: tuple[Download, ...]
    fetched: tuple[Download, ...]
    missing: tuple[Missing, ...]
    leftovers: tuple[Path, ...]


def from_base(base: str, downloads: Iterable[Download]) -> tuple[Download, ...]:
    """Return the same files at another address that holds them all.

    Parameters
    ----------
    base : str
        The http or https address of a folder.
    downloads : iterable of Download
        The files, which have the same names there.

    Returns
    -------
    tuple of Download
        The files at the new address.

    Raises
    ------
    InputError
        If the address is not http or https.
    """
    return tuple(replace(download, address=f"{base.rstrip('/')}/{download.name}") for download in downloads)


def fetch(downloads: Sequence[Download], root: Path, progress: Callable[[Progress], None]) -> Outcome:
    """Fetch the files that are not in a folder yet, several at once.

    Parameters
    ----------
    downloads : sequence of Download
        The files.
    root : Path
        The folder, made where it is missing.
    progress : callable
        Called with a `Progress` at the beginning, every half second, and at the end.

    Returns
    -------
    Outcome
        What was there, what came and what is missing.

    Raises
    ------
    InputError
        If the folder cannot be used, or its disk cannot hold what is missing; then nothing is fetched.
    """
    stop = Event()
    transfers = [_Transfer(file, root / file.name, stop, file.size) for file in dict.fromkeys(downloads)]

    def show() -> None:
        sizes = sum(transfer.size or 0 for transfer in wanted)
        received = sum(transfer.received for transfer in wanted)
        progress(Progress(len(_whole(transfers)), len(transfers), received, sizes))

    with _locked(root), ThreadPoolExecutor(max_workers=4) as pool:
        try:
            list(pool.map(lambda transfer: transfer.take(transfer.survey), transfers))
            present = _whole(transfers)
            wanted = [transfer for transfer in transfers if not (transfer.whole or transfer.reason)]
            _require_room(root, wanted)
            show()
            pending = {pool.submit(transfer.take, transfer.get) for transfer in wanted}
            while pending:
                done, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                show()
                for future in done:
                    future.result()
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
    missing = tuple(Missing(transfer.download, transfer.reason) for transfer in transfers if transfer.reason)
    names = "|".join(re.escape(file.name) for file in _whole(transfers))
    parts = [path for path in root.iterdir() if re.fullmatch(rf"({names})\.[0-9a-f]{{8}}\.part", path.name)]
    return Outcome(present, _whole(wanted), missing, tuple(sorted(parts)))


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Make the folder, and keep other processes from fetching into it at the same time."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        folder = os.open(root, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{root}: no folder to fetch into: {error.strerror}; look at screen.root") from None
    try:
        with suppress(OSError):  # some network file systems have no locks
            if not lock_descriptor(folder, blocking=False):
                raise InputError(f"{root}: another process is fetching into it; call again when that has ended")
        yield
    finally:
        os.close(folder)


def _whole(transfers: "Sequence[_Transfer]") -> tuple[Download, ...]:
    """Return the files that are there."""
    return tuple(transfer.download for transfer in transfers if transfer.whole)


def _require_room(root: Path, wanted: "Sequence[_Transfer]") -> None:
    """Raise InputError where a disk cannot hold what is still to come."""
    needed = sum(max(0, (transfer.size or 0) - transfer.received) for transfer in wanted)
    if needed > (free := shutil.disk_usage(root).free):
        room = f"its disk has {in_bytes(free)} free; make room or set screen.root to a folder on a larger disk"
        raise InputError(f"{root}: {len(wanted)} files of {in_bytes(needed)} are to be fetched, but {room}")


def _require(holds: object, otherwise: str) -> None:
    """Raise where a file cannot be had, with a message for the user."""
    if not holds:
        raise requests.RequestException(otherwise)


@dataclass
class _Transfer:
    """One file on its way into a folder; its steps raise where the file cannot be had."""

    download: Download
    target: Path
    stop: Event  # once it is set, the transfer ends soon
    size: int | None  # bytes that are published or that the server tells
    validator: str = ""  # by which the server knows exactly this file: its ETag or Last-Modified
    received: int = 0  # bytes that the part holds
    whole: bool = False
    reason: str = ""  # why it is missing, where it is

    @property
    def part(self) -> Path:
        """Where the unfinished bytes of exactly this file of a server are."""
        tag = hashlib.md5(f"{self.download.address}\n{self.validator}\n{self.size}".encode()).hexdigest()[:8]
        return self.target.with_name(f"{self.target.name}.{tag}.part")

    def take(self, step: Callable[[], None]) -> None:
        """Take a step; where it fails, its cause is the reason, without the words of requests and urllib3."""
        try:
            step()
        except (HTTPError, OSError) as error:  # requests' are OSErrors, and so are the disk's
            cause: BaseException = error
            while inner := cause.__cause__ or next((each for each in cause.args if isinstance(each, Exception)), None):
                cause = inner
            self.reason = str(cause) if cause is error else f"the connection failed: {cause}"
            if isinstance(cause, IncompleteRead):
                self.reason = f"the connection ended after {self.received} of {self.size} bytes"

    def survey(self) -> None:
        """Find out whether the file is there and whole, or what the server says of it."""
        there = os.path.lexists(self.target)
        # A file that is there needs no server: what can be seen of it alone must do then.
        with suppress(*([requests.RequestException] if there else [])):
            self._ask("HEAD", _patience(0 if there else 2, self.stop)).close()
        fault = there and self._fault(self.target)
        _require(not fault, f"{self.target} {fault}; move it away and call again")
        self.whole, self.received = there, self.part.stat().st_size if self.part.exists() else 0

    def get(self) -> None:
        """Fetch the file, check it and give it its name."""
        # An earlier call may have fetched all of it and ended before it was renamed.
        if not (self.validator and self.size) or self._fault(self.part):
            self._receive()
        fault = self._fault(self.part)
        _require(not fault, f"what came {fault}; it is kept as {self.part.name}, and the next call fetches it anew")
        _require(not os.path.lexists(self.target), f"{self.target} appeared meanwhile and is left alone")
        self.part.rename(self.target)
        self.whole = True

    def _fault(self, path: Path) -> str | None:
        """Say what is wrong with a file that should be this one: the rest of a sentence."""
        if not path.is_file():
            return "is no file"
        if self.size not in (None, path.stat().st_size):
            return f"has {path.stat().st_size} bytes in place of {self.size}"
        if self.download.md5 is not None:
            with path.open("rb") as file:
                md5 = hashlib.file_digest(file, "md5").hexdigest()
            return None if md5 == self.download.md5.lower() else f"has the MD5 {md5} in place of {self.download.md5}"
        try:
            if self.target.suffix.lower() == ".zip":
                zipfile.ZipFile(path).close()  # reads the archive's directory
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
            return f"is no readable zip archive ({error})"
        return None

    def _receive(self) -> None:
        """Fetch what is missing, also of a body that breaks off; a try that got further begins the waits anew."""
        fresh = retries = _patience(len(WAITS), self.stop)
        furthest = self.received
        while True:
            with self._ask("GET", retries) as response, self.part.open("ab") as file:
                file.truncate(self.received)
                try:
                    for block in response.raw.stream(decode_content=False):
                        self.received += file.write(block)
                        _require(not self.stop.is_set(), "interrupted")
                    file.flush()
                    return os.fsync(file.fileno())
                except HTTPError as error:
                    last = fresh if self.received > furthest else response.raw.retries
                    retries = last.increment("GET", error=error)
            furthest = max(furthest, self.received)
            retries.sleep()

    def _ask(self, method: str, retries: Retry) -> requests.Response:
        """Ask for the file, or for what its part lacks, and take note of what the server says of it."""
        begin = self.received if self.validator and self.received < (self.size or 0) else 0
        asked = {"Range": f"bytes={begin}-", "If-Range": self.validator} if begin else {}
        response = _request(method, self.download.address, retries, asked)
        headers, status = response.headers, response.status_code
        etag, length, published = headers.get("ETag", "W/"), headers.get("Content-Length", ""), self.download.size
        validator = headers.get("Last-Modified", "") if etag.startswith("W/") else etag  # a weak one vouches for less
        size = int(length) if length.isdecimal() else published
        rest = f"bytes {begin}-{(self.size or 0) - 1}/{self.size}"
        partial = begin and status == 206
        if partial and (validator, headers.get("Content-Range")) == (self.validator, rest):
            return response
        self.received = 0
        # Some servers do not heed If-Range, some do not know HEAD, and some tell it no size.
        untold = status in (403, 405, 501) or (response.ok and size is None)
        if partial or (method == "HEAD" and untold):
            response.close()
            return self._ask("GET", retries)
        _require(status == 200, f"HTTP status {status} {response.reason}")
        _require("text/html" not in headers.get("Content-Type", ""), "a web page came in place of the file")
        _require(published in (None, size), f"the server's file has {size} bytes in place of {published}")
        ends = size is not None or response.raw.chunked
        _require(ends, "the server tells no size, so that a broken file could not be told")
        self.size, self.validator = size, validator
        return response


def _patience(tries: int, stop: Event) -> Retry:
    """Return a Retry that waits before each further try, longer where a server asks to, until an interrupt."""

    class Patience(Retry):
        def sleep(self, response: BaseHTTPResponse | None = None) -> None:
            error = self.history[-1].error
            if isinstance(error, SSLError) and isinstance(error.args[0], ssl.SSLCertVerificationError):
                raise error  # asking again does not help
            seconds = WAITS[len(self.history) - 1]
            with suppress(InvalidHeader):
                seconds = max(seconds, min(self.get_retry_after(response) or 0, 120)) if response else seconds
            _require(not stop.wait(seconds), "interrupted")

    return Patience(tries, status_forcelist=_BUSY, raise_on_status=False)


def _request(method: str, address: str, retries: Retry, headers: dict[str, str]) -> requests.Response:
    """Send a request until its body begins, which is left to be read."""
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=retries))
    headers = {"User-Agent": "moa_ray", "Accept-Encoding": "identity", **headers}
    trusted = ssl.get_default_verify_paths()  # the system's certificates or SSL_CERT_FILE's; else those of certifi
    verify = trusted.cafile or trusted.capath or True
    return session.request(method, address, headers=headers, timeout=TIMEOUT, stream=True, verify=verify)
