"""Keep this machine's copy of a screen that lies in an object store.

Opening a screen looks into the files of its fields, so they are fetched once, and at the next start those alone that
have changed. They keep the store's times, so that the same screen is known again on any machine. Which files these are
only the screen's tables tell, so that files are asked for in rounds: first the tables, then the images.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from moa_ray.common.errors import InputError
from moa_ray.common.files import file_lock
from moa_ray.common.object_store import FileVersion, Store, reporting_errors_of
from moa_ray.common.text import in_bytes
from moa_ray.common.uri import Place, Uri
from moa_ray.screens.downloads import Progress

Needed = Callable[[Path, Sequence[str]], Iterable[Iterable[str]]]


def everything(folder: Path, names: Sequence[str]) -> Iterator[Sequence[str]]:
    """Ask for all files in one round.

    Parameters
    ----------
    folder : Path
        The copy.
    names : sequence of str
        The files of the store.

    Yields
    ------
    sequence of str
        The files, once.
    """
    yield names


def fetch(root: Place, progress: Callable[[Progress], None], needed: Needed = everything) -> Path:
    """Return a folder of this machine that holds the files of a screen.

    Parameters
    ----------
    root : Path or Uri
        Where the screen lies. What is needed below a URI is fetched as far as the copy lacks it; what has gone there
        goes from the copy.
    progress : callable
        Called with a `Progress` for each file that has come.
    needed : callable
        Takes the copy and the names of the store's files, and yields the names of those that are needed, in rounds:
        what one asks for is in the copy before the next is asked.

    Returns
    -------
    Path
        The root itself, or the copy of it.

    Raises
    ------
    InputError
        If the store cannot be read, holds nothing there, or the disk is too small.
    """
    if not isinstance(root, Uri):
        return root
    with reporting_errors_of("screen.root", root):
        store = Store(root)
        versions = store.files()
        if not versions:
            raise InputError(f"screen.root: {root}: nothing is there; look at the bucket and the folder in it")
        with _locked(root.copy):
            _remove_gone(versions, root.copy)
            done = Progress(0, 0, 0, 0)
            for names in needed(root.copy, list(versions)):
                wanted = {name: versions[name] for name in names if name in versions}
                done = _fetch(store, wanted, root.copy, done, progress)
    return root.copy


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait until no other process fetches into a folder; what a killed one left half is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder.with_name(f".{folder.name}.lock")):
        for part in folder.rglob(".*.part"):
            part.unlink()
        yield


def _remove_gone(versions: Mapping[str, FileVersion], folder: Path) -> None:
    for path in [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]:
        if path.relative_to(folder).as_posix() not in versions:
            path.unlink()


def _fetch(
    store: Store,
    versions: Mapping[str, FileVersion],
    folder: Path,
    before: Progress,
    progress: Callable[[Progress], None],
) -> Progress:
    """Fetch what a folder lacks of the files of a store; return how much has come with what came before."""
    lacking = {name: version for name, version in versions.items() if FileVersion.of(folder / name) != version}
    size = sum(version.size for version in lacking.values())
    if size > (free := shutil.disk_usage(folder).free):
        raise InputError(
            f"screen.root: {store.uri}: {in_bytes(size)} are to be fetched, but the disk of {folder} has "
            f"{in_bytes(free)} free; make room, or set XDG_CACHE_HOME to a folder on a larger disk"
        )
    now = before._replace(of_files=before.of_files + len(lacking), of_bytes=before.of_bytes + size)

    def done(version: FileVersion) -> None:
        nonlocal now
        now = now._replace(files=now.files + 1, bytes=now.bytes + version.size)
        progress(now)

    store.fetch_all(lacking, folder, done)
    return now
