"""Keep OUT in an object store: the driver works on a folder of its machine, and what it writes there is sent on.

Each trial is sent as it ends, its result last, so that a trial is there whole or not at all. The views (report, tables,
MLflow's and Optuna's stores) follow at the end, also at an interrupted one. A store that fails in between holds up
nothing: a thread of its own sends, and tries again. What was not sent in the end is sent at the next start.

At a start, what the store has and this machine lacks is fetched, so that another machine goes on from there.
"""

import json
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from moa_ray.common.errors import InputError
from moa_ray.common.object_store import FileVersion, Store, reporting_errors_of
from moa_ray.common.uri import Place, Uri, folder

_PAUSE, _LONGEST_PAUSE = 2.0, 120.0  # seconds before what failed is tried again; they double
_STUDY = "ledger/study.json"
_SEEN = ".seen"  # says that the store held the study once
_PROBE = ".moa_ray"


class _ForeignError(InputError):
    """Another sweep lies where ours is to be."""


class BucketSync:
    """OUT as the driver works on it, a folder of this machine; a context manager.

    Entering fetches what the store has and this machine lacks; leaving sends all that differs, with what failed before,
    and waits for it. Where OUT is a folder itself, there is nothing else to do.

    Parameters
    ----------
    out : Path or Uri
        OUT of the sweep.
    warn : callable
        Called with a sentence when sending fails, and at the end when something was not sent.

    Attributes
    ----------
    folder : Path
        The folder of this machine.

    Raises
    ------
    InputError
        On entering, if the store cannot be read or written, or holds another sweep than the folder.
    """

    def __init__(self, out: Place, warn: Callable[[str], None]) -> None:
        self.folder = folder(out)
        self._out, self._warn = out, warn
        self._store: Store | None = None
        self._sent: dict[str, FileVersion] = {}  # what the store has, as far as we know
        self._waiting: dict[str, None] = {}  # in the order in which it is sent
        self._changed, self._over = threading.Condition(), threading.Event()
        self._sender = threading.Thread(target=self._serve, daemon=True)

    @property
    def complete(self) -> bool:
        """Whether all that was written is where it belongs."""
        return not self._waiting

    def __enter__(self) -> "BucketSync":
        if isinstance(self._out, Uri):
            with reporting_errors_of("out", self._out):
                store = Store(self._out)
                self._open(store)
            self._store = store
            self._add(name for name in self._differing() if name.startswith("ledger/"))
            self._sender.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._store is None:
            return
        self._add(self._differing())
        with self._changed:
            self._over.set()
            self._changed.notify()
        self._sender.join()
        if self._waiting:
            self._warn(
                f"{len(self._waiting)} files are not at {self._out}, {next(iter(self._waiting))} among them. All are "
                f"in {self.folder}, from where the next start of the same command sends them"
            )

    def claim(self) -> None:
        """Send what all trials share, once the ledger is open.

        Raises
        ------
        InputError
            If another sweep was begun there meanwhile.
        """
        if self._store is not None:
            with suppress(OSError):  # the sender says so, and tries again
                self._require_same(self._store)
            self._add(["sweep.yaml", _STUDY])

    def send(self, written: Path) -> None:
        """Send a file, or the folder of a trial, soon.

        Parameters
        ----------
        written : Path
            In `folder`, and whole.
        """
        if self._store is not None:
            paths = written.iterdir() if written.is_dir() else [written]
            self._add(sorted((path.relative_to(self.folder).as_posix() for path in paths), key=_is_result))

    # The beginning --------------------------------------------------------------------------------------------------

    def _open(self, store: Store) -> None:
        """Make sure of the store, and fetch what is newer there."""
        versions = store.files()
        if _STUDY in versions:
            self._require_same(store)
        elif (self.folder / _SEEN).exists():
            aside = self.folder.rename(self.folder.with_name(f"{self.folder.name}-{uuid.uuid4().hex[:8]}"))
            self._warn(f"what was at {store.uri} is gone; this machine's copy of it is kept as {aside}")
        store.write(_PROBE, b"")
        store.remove(_PROBE)
        self.folder.mkdir(parents=True, exist_ok=True)
        newer = {name: version for name, version in versions.items() if self._is_older(name, version)}
        for results in (False, True):
            wanted = {name: version for name, version in newer.items() if _is_result(name) is results}
            store.fetch_all(wanted, self.folder)
        if _STUDY in versions:
            (self.folder / _SEEN).touch()
        self._sent = versions

    def _is_older(self, name: str, stored: FileVersion) -> bool:
        """Return whether this machine lacks a file, or has it as it was before the store's."""
        own = FileVersion.of(self.folder / name)
        return own is None or own.time < stored.time

    def _require_same(self, store: Store) -> None:
        """Raise _ForeignError where the store holds another sweep than the folder."""
        try:
            with store.open(_STUDY) as file:
                stored_id = _id(file)
            with (self.folder / _STUDY).open("rb") as file:
                own_id = _id(file)
        except FileNotFoundError:
            return
        if stored_id != own_id:
            raise _ForeignError(
                f"out: {self._out}: holds another sweep than {self.folder}, this machine's copy of what was there. "
                "Give another out, or --fresh to start over beside it; to go on with the one there, move the copy away"
            )

    # Sending --------------------------------------------------------------------------------------------------------

    def _add(self, names: Iterable[str]) -> None:
        with self._changed:
            self._waiting |= dict.fromkeys(names)
            self._changed.notify()

    def _serve(self) -> None:
        """Send what waits. What fails is tried again after a pause, and once more at the end."""
        pause = _PAUSE
        while self._any():
            last = self._over.is_set()
            try:
                self._send_waiting()
                pause = _PAUSE
            except _ForeignError as error:
                self._warn(f"{error}. Nothing more is sent there")
                return
            except OSError as error:
                if last:
                    return
                if pause == _PAUSE:
                    self._warn(f"{self._out} cannot be written: {error}. The sweep goes on, and it is tried again")
                self._over.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _any(self) -> bool:
        """Wait until something waits to be sent or the end has come; return whether anything waits."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._over.is_set())
            return bool(self._waiting)

    def _send_waiting(self) -> None:
        assert self._store is not None
        self._require_same(self._store)
        for name in list(self._waiting):
            # An earlier attempt at a trial may have left a file that the one in its place has not.
            if (self.folder / name).exists():
                self._sent[name] = self._store.send(name, self.folder)
            if name == _STUDY:
                (self.folder / _SEEN).touch()
            with self._changed:
                del self._waiting[name]

    def _differing(self) -> list[str]:
        """Return the files that the store lacks or has in another version, as far as we know; results last."""
        versions = {name: FileVersion.of(self.folder / name) for name in self._names()}
        return sorted((name for name, version in versions.items() if version != self._sent.get(name)), key=_is_result)

    def _names(self) -> Iterator[str]:
        """Yield all files but those that are being written, and our own marks."""
        for parent, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                if not name.startswith("."):
                    yield Path(parent, name).relative_to(self.folder).as_posix()


def _is_result(name: str) -> bool:
    return name.endswith("/result.json")


def _id(study: IO[bytes]) -> str | None:
    """Return the id of a sweep; None where it cannot be read, as it is no sweep of ours then."""
    try:
        return str(json.loads(study.read())["id"])
    except (ValueError, KeyError, TypeError):
        return None
