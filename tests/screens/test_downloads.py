"""Fetching files from a server on 127.0.0.1 that breaks connections, truncates, changes its files and errs."""

import base64
import datetime
import fcntl
import hashlib
import io
import ipaddress
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from commands import PATIENCE, until
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from screen_files import bbbc021_tables, paint_bbbc021

from moa_ray import cli, prepare
from moa_ray.common.errors import InputError
from moa_ray.screens import bbbc021, downloads
from moa_ray.screens.downloads import Download, Outcome, Progress, fetch, from_base

DATA = bytes(range(256)) * 4096  # 1 MiB: more than one block
Trouble = Callable[["Handler", bytes], None]


@dataclass
class Publisher:
    """What the server has and does.

    troubles : what goes wrong with the next requests for a file, one after the other; HEAD's stand apart
    asked : every request: method, name, Range
    """

    files: dict[str, bytes] = field(default_factory=dict)
    troubles: dict[str, list[Trouble]] = field(default_factory=dict)
    head_troubles: dict[str, list[Trouble]] = field(default_factory=dict)
    ranges: bool = True
    validators: bool = True
    base: str = ""
    server: ThreadingHTTPServer = field(init=False)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)

    def download(self, name: str, **published: Any) -> Download:
        return Download(f"{self.base}/{name}", name, **published)

    def gets(self, name: str) -> list[str | None]:
        """The ranges that were asked for, one a GET."""
        return [asked for method, what, asked in self.asked if (method, what) == ("GET", name)]


class Handler(BaseHTTPRequestHandler):
    publisher: Publisher

    def do_HEAD(self) -> None:
        self._do(self.publisher.head_troubles)

    def do_GET(self) -> None:
        self._do(self.publisher.troubles)

    def _do(self, troubles: dict[str, list[Trouble]]) -> None:
        name = self.path.rpartition("/")[2]
        self.publisher.asked.append((self.command, name, self.headers["Range"]))
        content = self.publisher.files.get(name)
        if troubles.get(name):
            troubles[name].pop(0)(self, content or b"")
        elif content is None:
            self.refuse(404)
        else:
            self.answer(content)

    def answer(self, content: bytes, cut: int | None = None, range_from: int | None = None, **more: str) -> None:
        """Send a file, or of it what was asked for; ``cut`` breaks the connection after so many bytes of it.

        range_from : where a server begins that counts otherwise
        """
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        asked = self.headers["Range"]
        whole = not asked or not self.publisher.ranges or self.headers["If-Range"] != etag
        begin = 0 if whole else int(asked.removeprefix("bytes=").removesuffix("-"))
        begin = begin if range_from is None else range_from
        self.send_response(200 if whole else 206)
        self.send_header("Content-Length", str(len(content) - begin))
        if not whole:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        if self.publisher.validators:
            self.send_header("ETag", etag)
        for key, value in more.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[begin : None if cut is None else begin + cut])

    def refuse(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def breaks(after: int) -> Trouble:
    """The connection ends too early."""
    return lambda handler, content: handler.answer(content, cut=after)


def status(code: int, **headers: str) -> Trouble:
    return lambda handler, content: handler.refuse(code, **headers)


def hangs_up(handler: Handler, content: bytes) -> None:
    """Not even a status line comes."""


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    publisher = Publisher()
    handler = type("OwnHandler", (Handler,), {"publisher": publisher})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        publisher.base, publisher.server = f"http://127.0.0.1:{server.server_port}", server
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield publisher
        server.shutdown()
        thread.join()


def silent(_: Progress) -> None:
    pass


def get(root: Path, *files: Download, waits: tuple[float, ...] = (0, 0)) -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downloads, "WAITS", waits)
        return fetch(files, root, silent)


def get_counting_waits(root: Path, file: Download, *waits: float) -> tuple[Outcome, list[float]]:
    """Fetch without waiting, and return also how long there would have been waits."""
    waited: list[float] = []

    class Hurry(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout or 0)
            return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downloads, "Event", Hurry)
        return get(root, file, waits=waits), waited


def reasons(outcome: Outcome) -> list[str]:
    return [missing.reason for missing in outcome.missing]


def start(file: Download, root: Path) -> "subprocess.Popen[str]":
    """Fetch in a process of its own, with hours between two tries."""
    code = (
        "import sys; from pathlib import Path; from moa_ray.screens import downloads; downloads.WAITS = (9999,)\n"
        "downloads.fetch([downloads.Download(sys.argv[1], 'a')], Path(sys.argv[2]), lambda _: None)"
    )
    command = [sys.executable, "-c", code, file.address, str(root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for name, content in members.items():
            packed.writestr(zipfile.ZipInfo(name), content)  # the same bytes at any time
    return file.getvalue()


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


# Whole files --------------------------------------------------------------------------------------------------------


def test_files_are_fetched_into_a_folder_that_is_made(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files = {f"{number}.bin": DATA[number:] for number in range(9)}
    files = [publisher.download(name) for name in publisher.files]
    outcome = get(tmp_path / "new" / "root", *files)
    assert contents(tmp_path / "new" / "root") == publisher.files
    assert (outcome.fetched, outcome.present, outcome.missing) == (tuple(files), (), ())


def test_progress_ends_with_every_byte_and_file(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files = {"a": DATA, "b": DATA[:1000], "there": b"x"}
    (tmp_path / "there").write_bytes(b"x")
    seen: list[Progress] = []
    fetch([publisher.download(name) for name in publisher.files], tmp_path, seen.append)
    assert seen[0] == Progress(1, 3, 0, len(DATA) + 1000)
    assert seen[-1] == Progress(3, 3, len(DATA) + 1000, len(DATA) + 1000)


def test_second_call_fetches_only_what_is_missing(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files = {"a": b"1", "c": b"3"}
    files = [publisher.download(name) for name in "abc"]
    first = get(tmp_path, *files)
    assert [(missing.download, missing.reason) for missing in first.missing] == [
        (files[1], "HTTP status 404 Not Found")
    ]
    publisher.files["b"] = b"2"
    publisher.asked.clear()
    second = get(tmp_path, *files)
    assert {what for method, what, _ in publisher.asked if method == "GET"} == {"b"}
    assert (second.present, second.fetched, second.missing) == ((files[0], files[2]), (files[1],), ())


def test_file_that_is_named_twice_is_fetched_once(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["a"] = DATA
    outcome = get(tmp_path, *[publisher.download("a")] * 2)
    assert (outcome.fetched, publisher.gets("a")) == ((publisher.download("a"),), [None])


def test_empty_file_is_fetched(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["a"] = b""
    assert get(tmp_path, publisher.download("a")).missing == ()
    assert contents(tmp_path) == {"a": b""}


# Broken connections -------------------------------------------------------------------------------------------------


def test_broken_connection_goes_on_where_it_broke(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["a"] = DATA
    publisher.troubles["a"] = [breaks(300_000), breaks(200_000)]
    assert get(tmp_path, publisher.download("a")).missing == ()
    assert publisher.gets("a") == [None, "bytes=300000-", "bytes=500000-"]
    assert contents(tmp_path) == {"a": DATA}


def test_next_call_goes_on_where_the_last_one_broke(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["a"] = DATA
    publisher.troubles["a"] = [breaks(300_000)]
    first = get(tmp_path, publisher.download("a"), waits=())
    assert reasons(first) == [f"the connection ended after 300000 of {len(DATA)} bytes"]
    seen: list[Progress] = []
    second = fetch([publisher.download("a")], tmp_path, seen.append)
    assert publisher.gets("a") == [None, "bytes=300000-"]
    assert (second.missing, second.leftovers, contents(tmp_path)) == ((), (), {"a": DATA})
    assert seen[0] == Progress(0, 1, 300_000, len(DATA))


def test_killed_process_is_gone_on_from(publisher: Publisher, tmp_path: Path) -> None:
    release = threading.Event()

    def stalls(handler: Handler, content: bytes) -> None:
        handler.answer(content, cut=300_000)
        handler.wfile.flush()
        release.wait()

    publisher.files["a"] = DATA
    publisher.troubles["a"] = [stalls]
    process = start(publisher.download("a"), tmp_path)
    try:
        until(lambda: any(path.stat().st_size for path in tmp_path.glob("a.*.part")), process)
    finally:
        process.kill()
        process.communicate()
        release.set()
    (part,) = tmp_path.glob("a.*.part")
    held = part.stat().st_size
    assert get(tmp_path, publisher.download("a")).missing == ()
    assert publisher.gets("a") == [None, f"bytes={held}-"]
    assert contents(tmp_path) == {"a": DATA}


def test_interrupted_call_ends_its_threads_and_is_gone_on_from(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files = dict.fromkeys("abcdefgh", DATA)
    files = [publisher.download(name) for name in publisher.files]

    def interrupt(now: Progress) -> None:
        if now.bytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(files, tmp_path, interrupt)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]
    assert get(tmp_path, *files).missing == ()
    assert contents(tmp_path) == publisher.files


def test_interrupt_does_not_wait_for_the_next_try(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["a"] = DATA
    publisher.troubles["a"] = [status(503)] * 2
    process = start(publisher.download("a"), tmp_path)
    try:
        until(lambda: publisher.gets("a") != [], process)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert "KeyboardInterrupt" in output
    assert publisher.gets("a") == [None]


def test_connection_that_goes_silent_counts_as_broken(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def stalls(handler: Handler, content: bytes) -> None:
        handler.answer(content, cut=0)
        handler.wfile.flush()
        release.wait()

    monkeypatch.setattr(downloads, "TIMEOUT", 0.2)
    publisher.files["a"] = b"1"
    publisher.troubles["a"] = [stalls]
    try:
        outcome = get(tmp_path, publisher.download("a"), waits=())
    finally:
        release.set()
    assert reasons(outcome) == ["the connection failed: timed out"]


def test_unreachable_file_is_soon_told(publisher: Publisher, tmp_path: Path) -> None:
    publisher.head_troubles["a"] = [status(503)] * 9
    outcome, waited = get_counting_waits(tmp_path, publisher.download("a"), 1, 3, 9)
    assert len(outcome.missing) == 1
    assert (waited, publisher.gets("a")) == ([1, 3], [])


def test_server_that_hangs_up_is_tried_again(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["a"] = b"1"
    publisher.head_troubles["a"] = [hangs_up]
    publisher.troubles["a"] = [hangs_up]
    assert get(tmp_path, publisher.download("a")).missing == ()


def test_no_server_at_all_is_told_with_the_reason(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        free = server.server_port
    outcome = get(tmp_path, Download(f"http://127.0.0.1:{free}/a", "a"))
    assert reasons(outcome) == ["the connection failed: [Errno 111] Connection refused"]


def test_proxy_of_the_environment_is_used_with_its_login(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str | None]] = []

    def proxies(handler: Handler, content: bytes) -> None:
        seen.append((handler.path, handler.headers["Proxy-Authorization"]))
        handler.answer(content)

    publisher.files["a"] = DATA
    publisher.troubles["a"] = [proxies]
    monkeypatch.setenv("http_proxy", publisher.base.replace("://", "://user:p%40ss@"))
    assert get(tmp_path, Download("http://files.invalid/a", "a")).missing == ()
    assert seen == [("http://files.invalid/a", f"Basic {base64.b64encode(b'user:p@ss').decode()}")]


@pytest.fixture
def certificate(publisher: Publisher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The publisher speaks HTTPS by a certificate of its own making."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "publisher")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    signed = (
        builder.not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("certificate") / "certificate.pem"
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(private + signed.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    publisher.server.socket = context.wrap_socket(publisher.server.socket, server_side=True)
    publisher.base = publisher.base.replace("http://", "https://")
    return file


def test_certificate_that_nobody_vouches_for_is_refused_once(
    publisher: Publisher, certificate: Path, tmp_path: Path
) -> None:
    publisher.files["a"] = DATA
    outcome, waited = get_counting_waits(tmp_path, publisher.download("a"), 1, 3, 9)
    assert "certificate verify failed" in reasons(outcome)[0]
    assert (waited, publisher.asked) == ([], [])


def test_certificate_that_the_environment_names_is_trusted(
    publisher: Publisher, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.files["a"] = DATA
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert get(tmp_path, publisher.download("a")).missing == ()
    assert contents(tmp_path) == {"a": DATA}


# Errors -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_busy_server_is_tried_again(publisher: Publisher, tmp_path: Path, code: int) -> None:
    publisher.files["a"] = DATA
    publisher.troubles["a"] = [status(code), status(code)]
    assert get(tmp_path, publisher.download("a")).missing == ()
    assert len(publisher.gets("a")) == 3


@pytest.mark.parametrize("code", [400, 401, 404, 410])
def test_what_will_not_change_is_asked_once(publisher: Publisher, tmp_path: Path, code: int) -> None:
    publisher.files["a"] = DATA
    publisher.troubles["a"] = [status(code)]
    (reason,) = reasons(get(tmp_path, publisher.download("a")))
    assert reason.startswith(f"HTTP status {code}")
    assert len(publisher.gets("a")) == 1


def test_waits_grow_until_they_are_used_up(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["a"] = DATA
    publisher.troubles["a"] = [status(503)] * 9
    outcome, waited = get_counting_waits(tmp_path, publisher.download("a"), 1, 3, 9)
    assert waited == [1, 3, 9]
    assert reasons(outcome) == ["HTTP status 503 Service Unavailable"]


def test_try_that_gets_further_begins_the_waits_anew(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["a"] = DATA
    publisher.troubles["a"] = [status(503), breaks(100_000), status(503), breaks(100_000)]
    outcome, waited = get_counting_waits(tmp_path, publisher.download("a"), 1, 3)
    assert outcome.missing == ()
    assert waited == [1, 1, 3, 1]


def test_wait_that_a_server_asks_for_is_kept(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["a"] = DATA
    publisher.troubles["a"] = [status(429, Retry_After="7"), status(503, Retry_After="99999"), status(503)]
    outcome, waited = get_counting_waits(tmp_path, publisher.download("a"), 1, 2, 3)
    assert outcome.missing == ()
    assert waited == [7, 120, 3]


def test_web_page_is_no_file(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["a.csv"] = b"<html>Sign in</html>"
    page: Trouble = lambda handler, content: handler.answer(content, Content_Type="text/html; charset=utf-8")  # noqa: E731
    publisher.head_troubles["a.csv"] = [page]
    assert reasons(get(tmp_path, publisher.download("a.csv"))) == ["a web page came in place of the file"]
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("elsewhere", ["file:///etc/hostname", "ftp://127.0.0.1/a"])
def test_server_cannot_send_us_to_what_is_not_http(publisher: Publisher, tmp_path: Path, elsewhere: str) -> None:
    publisher.head_troubles["a"] = [status(302, Location=elsewhere)]
    assert len(reasons(get(tmp_path, publisher.download("a")))) == 1
    assert contents(tmp_path) == {}


def test_redirect_is_followed_and_resumed(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["there"] = DATA
    moved = status(302, Location="/there")
    publisher.head_troubles["a"], publisher.troubles["a"] = [moved], [moved, moved]
    publisher.troubles["there"] = [breaks(300_000)]
    assert get(tmp_path, publisher.download("a")).missing == ()
    assert publisher.gets("there")[-1] == "bytes=300000-"
    assert contents(tmp_path) == {"a": DATA}


# Files that change, and servers that do not know ranges ---------------------------------------------------------------


def test_changed_file_begins_anew_and_the_old_part_stays(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["a"] = DATA
    publisher.troubles["a"] = [breaks(300_000)]
    get(tmp_path, publisher.download("a"), waits=())
    publisher.files["a"] = DATA[::-1]
    outcome = get(tmp_path, publisher.download("a"))
    (old,) = outcome.leftovers
    assert old.read_bytes() == DATA[:300_000]
    assert (tmp_path / "a").read_bytes() == DATA[::-1]
    assert publisher.gets("a") == [None, None]


def test_file_that_changes_within_a_call_begins_anew(publisher: Publisher, tmp_path: Path) -> None:
    def changes(handler: Handler, content: bytes) -> None:
        handler.answer(content, cut=300_000)
        publisher.files["a"] = DATA[::-1]

    publisher.files["a"] = DATA
    publisher.troubles["a"] = [changes]
    outcome = get(tmp_path, publisher.download("a"))
    assert publisher.gets("a") == [None, "bytes=300000-"]
    assert (tmp_path / "a").read_bytes() == DATA[::-1]
    assert len(outcome.leftovers) == 1


def test_server_that_heeds_no_if_range_cannot_mix_two_files(publisher: Publisher, tmp_path: Path) -> None:
    def heedless(handler: Handler, content: bytes) -> None:
        handler.headers.replace_header("If-Range", f'"{hashlib.md5(content).hexdigest()}"')
        handler.answer(content)

    def changes(handler: Handler, content: bytes) -> None:
        handler.answer(content, cut=300_000)
        publisher.files["a"] = DATA[::-1]

    publisher.files["a"] = DATA
    publisher.troubles["a"] = [changes, heedless]
    assert get(tmp_path, publisher.download("a")).missing == ()
    assert publisher.gets("a") == [None, "bytes=300000-", None]
    assert (tmp_path / "a").read_bytes() == DATA[::-1]


def test_server_that_sends_another_range_is_not_believed(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["a"] = DATA
    shifted: Trouble = lambda handler, content: handler.answer(content, len(DATA) - 300_000, range_from=299_999)  # noqa: E731
    publisher.troubles["a"] = [breaks(300_000), shifted]
    assert get(tmp_path, publisher.download("a")).missing == ()
    assert publisher.gets("a") == [None, "bytes=300000-", None]
    assert contents(tmp_path) == {"a": DATA}


def test_server_without_ranges_begins_anew(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["a"] = DATA
    publisher.ranges = False
    publisher.troubles["a"] = [breaks(300_000)]
    assert get(tmp_path, publisher.download("a")).missing == ()
    assert contents(tmp_path) == {"a": DATA}


def test_part_of_a_file_that_cannot_be_recognised_is_not_gone_on_from(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["a"] = DATA
    publisher.validators = False
    publisher.troubles["a"] = [breaks(300_000)]
    assert get(tmp_path, publisher.download("a")).missing == ()
    assert publisher.gets("a") == [None, None]
    assert contents(tmp_path) == {"a": DATA}


def test_parts_of_two_addresses_are_not_mixed(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["a"] = DATA
    publisher.troubles["a"] = [breaks(300_000)]
    get(tmp_path, publisher.download("a"), waits=())
    mirror = Download(f"{publisher.base}/mirror/a", "a")
    assert get(tmp_path, mirror).missing == ()
    assert publisher.gets("a") == [None, None]


@pytest.mark.parametrize("code", [403, 405, 501])
def test_server_without_head_is_asked_by_get(publisher: Publisher, tmp_path: Path, code: int) -> None:
    publisher.files["a"] = DATA
    publisher.head_troubles["a"] = [status(code)]
    assert get(tmp_path, publisher.download("a")).missing == ()
    assert contents(tmp_path) == {"a": DATA}


def chunked(*chunks: bytes, ends: bool = True) -> Trouble:
    def send(handler: Handler, _: bytes) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.close_connection = True
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        if handler.command == "GET":
            for chunk in [*chunks, *([b""] if ends else [])]:
                handler.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))

    return send


def test_stream_of_unknown_size_is_whole_where_it_says_so(publisher: Publisher, tmp_path: Path) -> None:
    publisher.head_troubles["a"] = [chunked()]
    publisher.troubles["a"] = [
        chunked(),
        chunked(DATA, ends=False),
        chunked(b"one ", b"two ", b"three"),
    ]
    assert get(tmp_path, publisher.download("a")).missing == ()
    assert contents(tmp_path) == {"a": b"one two three"}


def test_file_whose_end_nothing_tells_is_not_taken_for_whole(publisher: Publisher, tmp_path: Path) -> None:
    def endless(handler: Handler, content: bytes) -> None:
        handler.send_response(200)
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(content)

    publisher.files["a"] = b"123"
    publisher.head_troubles["a"], publisher.troubles["a"] = [endless] * 2, [endless] * 4
    assert reasons(get(tmp_path, publisher.download("a"))) == [
        "the server tells no size, so that a broken file could not be told"
    ]
    assert get(tmp_path, publisher.download("a", size=3)).missing == ()


# What is there is left alone ----------------------------------------------------------------------------------------


def test_file_of_another_size_is_reported_and_left_alone(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["a"] = DATA
    (tmp_path / "a").write_bytes(b"mine")
    (reason,) = reasons(get(tmp_path, publisher.download("a")))
    assert reason == f"{tmp_path / 'a'} has 4 bytes in place of {len(DATA)}; move it away and call again"
    assert contents(tmp_path) == {"a": b"mine"}
    assert publisher.gets("a") == []


@pytest.mark.parametrize(
    ("name", "published", "reason"),
    [
        ("a.zip", {}, "is no readable zip archive"),
        ("a", {"md5": "0" * 32}, "has the MD5 81dc9bdb52d04dc20036dbd8313ed055 in place of 00000"),
        ("a", {"size": 5}, "has 4 bytes in place of 5"),
    ],
)
def test_file_that_fails_its_check_is_reported_and_left_alone(
    publisher: Publisher, tmp_path: Path, name: str, published: dict[str, Any], reason: str
) -> None:
    publisher.files[name] = b"1234"
    (tmp_path / name).write_bytes(b"1234")
    assert reason in reasons(get(tmp_path, publisher.download(name, **published)))[0]
    assert contents(tmp_path) == {name: b"1234"}


def test_archive_whose_directory_is_damaged_is_no_archive(publisher: Publisher, tmp_path: Path) -> None:
    """Its end is there, and so `zipfile.is_zipfile` takes it for one."""
    damaged = archive(x=b"1").replace(b"PK\x01\x02", b"PK\0\0")
    publisher.files["a.zip"] = damaged
    (tmp_path / "a.zip").write_bytes(damaged)
    assert zipfile.is_zipfile(tmp_path / "a.zip")
    assert "is no readable zip archive (" in reasons(get(tmp_path, publisher.download("a.zip")))[0]


def test_whole_files_need_no_server(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(archive(x=b"1"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        free = server.server_port
    file = Download(f"http://127.0.0.1:{free}/a.zip", "a.zip")
    assert get(tmp_path, file).present == (file,)


def test_dangling_link_is_no_file_and_stays(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["a"] = b"1"
    (tmp_path / "a").symlink_to("elsewhere")
    assert reasons(get(tmp_path, publisher.download("a"))) == [
        f"{tmp_path / 'a'} is no file; move it away and call again"
    ]
    assert (tmp_path / "a").is_symlink()


def test_target_that_appears_meanwhile_is_left_alone(publisher: Publisher, tmp_path: Path) -> None:
    def late(handler: Handler, content: bytes) -> None:
        (tmp_path / "a").write_bytes(b"mine")
        handler.answer(content)

    publisher.files["a"] = DATA
    publisher.troubles["a"] = [late]
    assert "appeared meanwhile" in reasons(get(tmp_path, publisher.download("a")))[0]
    assert (tmp_path / "a").read_bytes() == b"mine"


def test_parts_of_other_programs_are_not_touched(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["a"] = DATA
    others = {"a.part": b"firefox", "a.0.part": b"x", "b.0123abcd.part": b"y"}
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    assert get(tmp_path, publisher.download("a")).leftovers == ()
    assert contents(tmp_path) == {"a": DATA, **others}


# Checks -------------------------------------------------------------------------------------------------------------


def test_published_size_and_checksum_are_held(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files = {"a": b"1234", "b": b"1234"}
    good = publisher.download("a", size=4, md5="81DC9BDB52D04DC20036DBD8313ED055")
    bad = publisher.download("b", size=5)
    outcome = get(tmp_path, good, bad)
    assert outcome.fetched == (good,)
    assert reasons(outcome) == ["the server's file has 4 bytes in place of 5"]
    assert publisher.gets("b") == []


@pytest.mark.parametrize(
    ("name", "published"), [("a.zip", {}), ("a", {"md5": hashlib.md5(archive(x=b"1")).hexdigest()})]
)
def test_what_comes_damaged_is_kept_apart_and_fetched_anew(
    publisher: Publisher, tmp_path: Path, name: str, published: dict[str, str]
) -> None:
    good = archive(x=b"1")
    damaged: Trouble = lambda handler, content: handler.wfile.write(  # noqa: E731
        b'HTTP/1.0 200 OK\r\nContent-Length: %d\r\nETag: "%s"\r\n\r\n%b'
        % (len(good), hashlib.md5(good).hexdigest().encode(), bytes(len(good)))
    )
    publisher.files[name] = good
    publisher.troubles[name] = [damaged]
    (reason,) = reasons(get(tmp_path, publisher.download(name, **published)))
    (part,) = tmp_path.iterdir()
    assert part.name in reason
    assert get(tmp_path, publisher.download(name, **published)).missing == ()
    assert contents(tmp_path) == {name: good}


def test_whole_part_of_a_killed_call_is_not_fetched_again(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.files["a"] = DATA
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError("killed here")))
        assert reasons(get(tmp_path, publisher.download("a"))) == ["killed here"]
    assert get(tmp_path, publisher.download("a")).missing == ()
    assert publisher.gets("a") == [None]
    assert contents(tmp_path) == {"a": DATA}


def test_full_disk_is_seen_before_anything_is_fetched(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.files = {"a": DATA, "b": DATA}
    files = [publisher.download(name) for name in "ab"]
    free = shutil.disk_usage(tmp_path)._replace(free=2 * len(DATA) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with pytest.raises(InputError, match=r"2 files of 2\.1 MB are to be fetched, but its disk has 2\.1 MB free; make"):
        get(tmp_path, *files)
    assert {method for method, *_ in publisher.asked} == {"HEAD"}


def test_bytes_that_are_there_need_no_disk(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.files["a"] = DATA
    publisher.troubles["a"] = [breaks(300_000)]
    get(tmp_path, publisher.download("a"), waits=())
    free = shutil.disk_usage(tmp_path)._replace(free=len(DATA) - 300_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    assert get(tmp_path, publisher.download("a")).missing == ()


def test_disk_that_fills_up_is_not_tried_again(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    publisher.files["a"] = DATA
    monkeypatch.setattr(os, "fsync", full)
    assert reasons(get(tmp_path, publisher.download("a"))) == ["[Errno 28] No space left on device"]
    assert len(publisher.gets("a")) == 1


def test_two_calls_do_not_write_into_one_folder(publisher: Publisher, tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is fetching into it"):
            get(tmp_path, publisher.download("a"))
    finally:
        os.close(folder)
    assert publisher.asked == []


def test_root_that_is_a_file_is_told(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(b"")
    with pytest.raises(InputError, match=r"root: no folder to fetch into: .*; look at screen\.root"):
        get(tmp_path / "root", publisher.download("a"))


@pytest.mark.parametrize(
    "address", ["ftp://a.org/b", "file:///etc/passwd", "a.org/b", "http:///b", "https://a.org/b c"]
)
def test_addresses_are_http(address: str) -> None:
    with pytest.raises(InputError, match="begins with http:// or https://"):
        Download(address, "b")


@pytest.mark.parametrize("name", ["../b", "/etc/b", "a/b", "..", ".", "", "a\\b"])
def test_names_do_not_leave_the_root(name: str) -> None:
    with pytest.raises(ValueError, match="plain name"):
        Download("https://a.org/b", name)


# The screens --------------------------------------------------------------------------------------------------------


def test_bbbc021_is_two_tables_and_the_plates_of_the_official_one(shared: Path) -> None:
    table = pd.read_csv(shared / "data" / "bbbc021_csv" / "BBBC021_v1_image.csv")
    plates = set(table["Image_Metadata_Plate_DAPI"])
    names = [download.name for download in bbbc021.DOWNLOADS]
    assert len(plates) == 55
    assert sorted(names) == sorted(
        ["BBBC021_v1_image.csv", "BBBC021_v1_moa.csv", *(f"BBBC021_v1_images_{plate}.zip" for plate in plates)]
    )
    assert bbbc021.DOWNLOADS[2].address == (
        "https://data.broadinstitute.org/bbbc/BBBC021/BBBC021_v1_images_Week1_22123.zip"
    )


def test_another_base_keeps_the_names() -> None:
    (moved,) = from_base("http://mirror/x/", [Download("https://a.org/b/c.zip", "c.zip", size=3)])
    assert moved == Download("http://mirror/x/c.zip", "c.zip", size=3)


SWEEP = """
study: fetched
out: {folder}/out
screen: {{name: bbbc021, root: {folder}/root}}
recipe: {{backbone: SmallCNN, image_size: 32}}
images: {{rows: 1, columns: 1}}
"""


@pytest.fixture
def sweep(publisher: Publisher, tmp_path: Path) -> Path:
    """A sweep file whose screen the publisher has, in 2 of its 55 archives."""
    packed = bbbc021_tables(tmp_path / "packed")
    paint_bbbc021(packed, "zips")
    publisher.files = {download.name: archive() for download in bbbc021.DOWNLOADS}
    official = [name for name in publisher.files if name.endswith(".zip")]
    publisher.files |= {path.name: path.read_bytes() for path in packed.glob("*.csv")}
    publisher.files |= dict(zip(official, (path.read_bytes() for path in sorted(packed.glob("*.zip"))), strict=False))
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP.format(folder=tmp_path))
    return file


def test_prepare_fetches_a_screen_and_goes_on(
    publisher: Publisher, sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "elsewhere"
    arguments = [str(sweep), "--download", "--from", publisher.base, f"screen.root={root}"]
    assert prepare.main(arguments) == cli.DONE
    out = capsys.readouterr().out
    assert f"57 files fetched, 0 were there, 0 missing: {root}" in out
    assert "57 of 57 files" in out
    assert "tiles of 32 px" in out
    assert contents(root) == publisher.files
    publisher.asked.clear()
    assert prepare.main(arguments) == cli.DONE
    assert {method for method, *_ in publisher.asked} == {"HEAD"}
    assert "0 files fetched, 57 were there, 0 missing" in capsys.readouterr().out


def test_prepare_lists_what_it_could_not_fetch_and_the_next_call_fetches_that(
    publisher: Publisher, sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = publisher.files.pop("BBBC021_v1_moa.csv")
    arguments = [str(sweep), "--download", "--from", publisher.base]
    assert prepare.main(arguments) == cli.FAILED
    out, err = capsys.readouterr()
    assert "56 files fetched, 0 were there, 1 missing" in out
    assert "tiles of 32 px" not in out
    assert f"not fetched: {publisher.base}/BBBC021_v1_moa.csv: HTTP status 404 Not Found" in err
    publisher.files["BBBC021_v1_moa.csv"] = table
    publisher.asked.clear()
    assert prepare.main(arguments) == cli.DONE
    assert [what for method, what, _ in publisher.asked if method == "GET"] == ["BBBC021_v1_moa.csv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--download", "screen.name=synthetic"], r"a painted screen is not downloaded"),
        (["--from", "http://a.org"], "add --download"),
        (["--download", "--from", "ftp://a.org"], "begins with http"),
    ],
)
def test_prepare_says_in_one_message_what_cannot_be_fetched(
    sweep: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare.main([str(sweep), *arguments]) == cli.WRONG_INPUT
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
