"""Fetch files over HTTP into a folder: several at once, each resumed and checked, and never delete anything.

How one file comes is in `moa_ray.screens.transfer`.
"""

import contextlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from filelock import lock_descriptor
from urllib3.exceptions import HTTPError

from moa_ray.common.errors import InputError
from moa_ray.common.text import in_bytes
from moa_ray.screens.transfer import Download as Download
from moa_ray.screens.transfer import State, Transfer, TransferError, reason

WAITS = (1.0, 3.0, 10.0, 30.0, 60.0)  # seconds before another try; they begin anew where a try got further

_FILES_AT_ONCE = 4
_TICK = 0.5  # seconds between two looks at the progress


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


def fetch(
    downloads: Sequence[Download],
    root: Path,
    progress: Callable[[Progress], None],
    waits: Sequence[float] = WAITS,
    pause: Callable[[float], object] | None = None,
) -> Outcome:
    """Fetch the files that are not in a folder yet, several at once.

    Parameters
    ----------
    downloads : sequence of Download
        The files.
    root : Path
        The folder, made where it is missing.
    progress : callable
        Called with a `Progress` at the beginning, every half second, and at the end.
    waits : sequence of float
        Seconds before each further try where a connection breaks or a server is busy.
    pause : callable, optional
        Waits for a number of seconds, and returns something true where the call is to end; by default a wait that an
        interrupt ends.

    Returns
    -------
    Outcome
        What was there, what came and what is missing.

    Raises
    ------
    InputError
        If the folder cannot be used, or its disk cannot hold what is missing; then nothing is fetched.
    """
    stop = threading.Event()
    transfers = [Transfer(download, root, waits, pause or stop.wait, stop) for download in dict.fromkeys(downloads)]

    def ended(*states: str) -> tuple[Download, ...]:
        return tuple(transfer.download for transfer in transfers if transfer.state in states)

    def show() -> None:
        sizes = sum(transfer.remote.size or 0 for transfer in wanted)
        received = sum(transfer.received for transfer in wanted)
        progress(Progress(len(ended("present", "fetched")), len(transfers), received, sizes))

    with _locked(root):
        _each(Transfer.survey, transfers, stop, lambda: None)
        wanted = [transfer for transfer in transfers if transfer.state == "wanted"]
        _require_disk(root, [max(0, (transfer.remote.size or 0) - transfer.received) for transfer in wanted])
        show()
        _each(Transfer.get, wanted, stop, show)
    missing = tuple(Missing(transfer.download, transfer.reason) for transfer in transfers if transfer.reason)
    whole = "|".join(re.escape(download.name) for download in ended("present", "fetched"))
    parts = [path for path in root.iterdir() if re.fullmatch(rf"({whole})\.[0-9a-f]{{8}}\.part", path.name)]
    return Outcome(ended("present"), ended("fetched"), missing, tuple(sorted(parts)))


def _each(
    work: Callable[[Transfer], State], transfers: Sequence[Transfer], stop: threading.Event, watch: Callable[[], None]
) -> None:
    """Work on several files at once; `watch` is called now and then, and at the end. An error of its own stops all."""

    def settle(transfer: Transfer) -> None:
        try:
            transfer.state = work(transfer)
        except (TransferError, HTTPError, OSError) as error:  # requests' are OSErrors, and so are the disk's
            transfer.state, transfer.reason = "missing", reason(error)

    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        waiting = {pool.submit(settle, transfer) for transfer in transfers}
        try:
            while waiting:
                done, waiting = wait(waiting, _TICK, FIRST_COMPLETED)
                for future in done:
                    future.result()
                watch()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Make the folder, and keep other processes from fetching into it at the same time."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        folder = os.open(root, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{root}: no folder to fetch into: {error.strerror}; look at screen.root") from None
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            if not lock_descriptor(folder, blocking=False):
                raise InputError(f"{root}: another process is fetching into it; call again when that has ended")
        yield
    finally:
        os.close(folder)


def _require_disk(root: Path, needed: Sequence[int]) -> None:
    """Raise InputError where a disk has less room than so many bytes a file."""
    free = shutil.disk_usage(root).free
    if sum(needed) > free:
        raise InputError(
            f"{root}: {len(needed)} files of {in_bytes(sum(needed))} are to be fetched, but its disk has "
            f"{in_bytes(free)} free; make room or set screen.root to a folder on a larger disk"
        )
