"""Fetch one file over HTTP: resume where a connection broke off, and check what came.

`requests` heeds proxies, ``.netrc`` and redirects; urllib3's Retry says when to ask again, also where a body broke off.

What is being fetched lies beside its target as ``NAME.TAG.part``. The tag stands for the address and for what the
server says of its file (ETag, Last-Modified, size), so a part is continued only while that file is still the same: a
file that changed begins in a part of its own, and parts of other programs are never touched.
"""

import contextlib
import hashlib
import os
import re
import ssl
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, Retry
from urllib3.exceptions import HTTPError, InvalidHeader

from moa_ray.common.errors import InputError

TIMEOUT = 60.0  # seconds without a byte after which a connection counts as broken

_LONGEST_WAIT = 120.0  # seconds that a server may ask to wait for
_FEW_WAITS = 2  # where a server is only asked: without a network, all of a screen's files are soon told missing
_BUSY = {408, 429, *range(500, 600)} - {501}  # statuses that may pass
_WITHOUT_HEAD = (403, 405, 501)  # statuses of servers that do not know HEAD
_BLOCK = 1 << 16  # bytes
_ADDRESS = re.compile(r"https?://[!-.0-~]+/[!-~]*")  # printable ASCII without spaces

State = Literal["wanted", "present", "fetched", "missing"]


class TransferError(Exception):
    """A file cannot be had; the message is for the user."""


class _BrokenOffError(HTTPError):
    """A part of a file came, and another try may bring the rest."""


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
        if not _ADDRESS.fullmatch(self.address):
            raise InputError(f"{self.address}: an address to fetch from begins with http:// or https:// and a host")
        if not re.fullmatch(r"[^/\\\0]+", self.name) or self.name in (".", ".."):
            raise ValueError(f"{self.address}: a file is fetched to a plain name in its folder, but got {self.name!r}")

    def fault(self, path: Path, size: int | None) -> str | None:
        """Say what is wrong with a file that should be this one.

        Parameters
        ----------
        path : Path
            The file.
        size : int, optional
            Bytes that it must have, where a server tells that and none are published.

        Returns
        -------
        str or None
            The rest of a sentence about the file; None where it is whole.
        """
        if not path.is_file():
            return "is no file"
        expected, held = size if self.size is None else self.size, path.stat().st_size
        if expected not in (None, held):
            return f"has {held} bytes in place of {expected}"
        with path.open("rb") as file:
            if self.md5 is not None:
                md5 = hashlib.file_digest(file, "md5").hexdigest()
                return None if md5 == self.md5.lower() else f"has the MD5 {md5} in place of {self.md5}"
            try:
                if self.name.lower().endswith(".zip"):
                    zipfile.ZipFile(file).close()
            except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
                return f"is no readable zip archive ({error})"
        return None


class Remote(NamedTuple):
    """What a server says of a file; all but the size only tells whether it is still the same.

    Attributes
    ----------
    size : int, optional
        Bytes (Content-Length), or what is published where it does not say.
    etag, modified : str, optional
        ETag and Last-Modified, as they came.
    """

    size: int | None = None
    etag: str | None = None
    modified: str | None = None

    @property
    def validator(self) -> str | None:
        """What a server can compare in If-Range; a weak ETag does not vouch for every byte."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified


@dataclass
class Transfer:
    """One file on its way into a folder; its steps raise as `reason` says where the file cannot be had.

    Attributes
    ----------
    download : Download
        The file.
    root : Path
        The folder.
    waits : sequence of float
        Seconds before each further try.
    pause : callable
        Waits for a number of seconds; what it returns is true where the call was interrupted.
    stop : Event
        Once it is set, the transfer ends soon.
    remote : Remote
        What the server says of the file.
    received : int
        Bytes that its part holds.
    state : {"wanted", "present", "fetched", "missing"}
        What has become of it.
    reason : str
        Why it is missing, where it is.
    """

    download: Download
    root: Path
    waits: Sequence[float]
    pause: Callable[[float], object]
    stop: threading.Event
    remote: Remote = field(default_factory=Remote)
    received: int = 0
    state: State = "wanted"
    reason: str = ""

    @property
    def part(self) -> Path:
        """Where the unfinished bytes of exactly this file of a server are."""
        size, etag, modified = self.remote
        tag = zlib.crc32("\n".join(map(str, (self.download.address, etag, modified, size))).encode())
        return self.root / f"{self.download.name}.{tag:08x}.part"

    @property
    def target(self) -> Path:
        """Where the whole file is."""
        return self.root / self.download.name

    def survey(self) -> State:
        """Find out whether the file is there and whole, or is to be fetched.

        Returns
        -------
        {"present", "wanted"}
            Its state.
        """
        there = os.path.lexists(self.target)
        try:
            self.remote = _ask(self.download, _patience([] if there else self.waits[:_FEW_WAITS], self.pause))
        except (TransferError, requests.RequestException):
            if not there:  # a file that is there needs no server: what can be seen of it alone must do then
                raise
        if there and (fault := self.download.fault(self.target, self.remote.size)):
            raise TransferError(f"{self.target} {fault}; move it away and call again")
        if there:
            return "present"
        if self.download.size not in (None, self.remote.size):
            raise TransferError(f"the server's file has {self.remote.size} bytes in place of {self.download.size}")
        self.received = _size(self.part)
        return "wanted"

    def get(self) -> State:
        """Fetch the file, check it and give it its name.

        Returns
        -------
        {"fetched"}
            Its state.
        """
        # An earlier call may have fetched all of it and ended before it was renamed.
        known = self.remote.validator and self.remote.size is not None
        if not known or self.download.fault(self.part, self.remote.size):
            self._receive()
            if fault := self.download.fault(self.part, self.remote.size):
                kept = f"it is kept as {self.part.name}, and the next call fetches it anew"
                raise TransferError(f"what came {fault}; {kept}")
        if os.path.lexists(self.target):
            raise TransferError(f"{self.target} appeared meanwhile and is left alone")
        self.part.rename(self.target)
        return "fetched"

    def _receive(self) -> None:
        """Fetch what is missing, also of a body that breaks off; a try that got further begins the waits anew."""
        address, furthest = self.download.address, self.received
        retries = patience = _patience(self.waits, self.pause)
        while True:
            held = _size(self.part)
            begin = held if self.remote.validator and held < (self.remote.size or 0) else 0
            headers = {"Range": f"bytes={begin}-", "If-Range": str(self.remote.validator)} if begin else {}
            with _request("GET", address, retries, headers) as response:
                try:
                    return self._write(response, begin)
                except HTTPError as error:
                    retries = patience if self.received > furthest else response.raw.retries
                    furthest = max(furthest, self.received)
                    retries = retries.increment("GET", address, error=error)
            retries.sleep()

    def _write(self, response: requests.Response, begin: int) -> None:
        """Write what comes into the part, from a byte on; what is there behind it goes."""
        remote = _remote(response, self.download)
        if response.status_code == requests.codes.ok:
            self.remote, begin = remote, 0
        else:  # some servers do not heed If-Range
            sent = response.headers.get("Content-Range", "")
            if remote[1:] != self.remote[1:] or not re.fullmatch(rf"bytes {begin}-\d+/{self.remote.size}", sent):
                os.truncate(self.part, 0)  # the next try asks for the whole file
                raise _BrokenOffError("the server sent another part than was asked for")
        if self.remote.size is None and response.headers.get("Transfer-Encoding", "").lower() != "chunked":
            raise TransferError("the server tells no size, so that a broken file could not be told")
        response.raw.enforce_content_length = False  # what came is counted below
        with self.part.open("ab") as file:
            file.truncate(begin)
            self.received = begin
            for block in response.raw.stream(_BLOCK, decode_content=False):
                self.received += file.write(block)
                if self.stop.is_set():
                    raise TransferError("interrupted")
            file.flush()
            os.fsync(file.fileno())
        if self.remote.size not in (None, self.received):
            raise _BrokenOffError(f"the connection ended after {self.received} of {self.remote.size} bytes")


def reason(error: BaseException) -> str:
    """Say why a file could not be had.

    Parameters
    ----------
    error : BaseException
        A TransferError, one of requests or urllib3, or the disk's.

    Returns
    -------
    str
        For the user: what requests and urllib3 wrapped, without their words.
    """
    cause = _root_cause(error)
    text = str(cause) or type(cause).__name__
    return text if cause is error or isinstance(cause, _BrokenOffError) else f"the connection failed: {text}"


def _root_cause(error: BaseException) -> BaseException:
    inner = error.__cause__ or next((each for each in error.args if isinstance(each, BaseException)), None)
    return _root_cause(inner) if inner else error


def _patience(waits: Sequence[float], pause: Callable[[float], object]) -> Retry:
    """Return a Retry that waits so many seconds before each further try, or longer where a server asks to."""

    class Patience(Retry):
        def sleep(self, response: BaseHTTPResponse | None = None) -> None:
            error, asked = self.history[-1].error, None
            if error and isinstance(_root_cause(error), ssl.SSLCertVerificationError):
                raise error
            with contextlib.suppress(InvalidHeader):
                asked = self.get_retry_after(response) if response else None
            if pause(max(waits[len(self.history) - 1], min(asked or 0.0, _LONGEST_WAIT))):
                raise TransferError("interrupted")

    return Patience(len(waits), status_forcelist=_BUSY, raise_on_status=False)


def _request(method: str, address: str, retries: Retry, headers: dict[str, str]) -> requests.Response:
    """Send a request until its body begins, which is left to be read; tries while `retries` says so."""
    session = requests.Session()
    session.mount("http://", HTTPAdapter(max_retries=retries))
    session.mount("https://", HTTPAdapter(max_retries=retries))
    headers = {"User-Agent": "moa_ray", "Accept-Encoding": "identity", **headers}
    trusted = ssl.get_default_verify_paths()  # the system's certificates or SSL_CERT_FILE's; else those of certifi
    verify = trusted.cafile or trusted.capath or True
    return session.request(
        method, address, headers=headers, timeout=TIMEOUT, stream=True, allow_redirects=True, verify=verify
    )


def _ask(download: Download, retries: Retry) -> Remote:
    """Return what a server says of a file to HEAD or, where it does not know that or tells no size, to GET."""
    with _request("HEAD", download.address, retries, {}) as response:
        if response.status_code not in _WITHOUT_HEAD and (remote := _remote(response, download)).size is not None:
            return remote
    with _request("GET", download.address, retries, {}) as response:
        return _remote(response, download)


def _remote(response: requests.Response, download: Download) -> Remote:
    """Return what a response says of a file; TransferError where it is none of success, or a web page."""
    if response.status_code not in (200, 206):
        raise TransferError(f"HTTP status {response.status_code} {response.reason}")
    if "text/html" in response.headers.get("Content-Type", ""):
        raise TransferError("a web page came in place of the file")
    length = response.headers.get("Content-Length", "")
    size = int(length) if length.isdecimal() else download.size
    return Remote(size, response.headers.get("ETag"), response.headers.get("Last-Modified"))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
