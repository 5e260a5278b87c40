"""This machine's copy of a screen that lies in an object store.

Whoever opens a screen looks into all of its files, so they are fetched once, and at the next start those alone that
have changed. They keep the store's times, so that the same screen is known again on any machine.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from moa_ray import process
from moa_ray.command import in_bytes
from moa_ray.downloads import Progress
from moa_ray.stores import Mark, Place, Store, Uri, reaching


def fetch(root: Place, progress: Callable[[Progress], None]) -> Path:
    """The folder of a screen; where its root is a URI, the copy of all that is below it, fetched as far as it lacks.

    progress : called with each file that has come

    Raises ValueError where the store cannot be read, holds nothing there, or the disk is too small.
    """
    if not isinstance(root, Uri):
        return root
    with reaching("screen.root", root):
        store = Store(root)
        there = store.files()
        if not there:
            raise ValueError(f"screen.root: {root}: nothing is there; look at the bucket and the folder in it")
        with _alone(root.copy):
            _fetch(store, there, root.copy, progress)
    return root.copy


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process fetches into a folder; what a killed one left half is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    with process.alone(folder.with_name(f".{folder.name}.lock")):
        for part in folder.rglob(".*.part"):
            part.unlink()
        yield


def _fetch(store: Store, there: Mapping[str, Mark], folder: Path, progress: Callable[[Progress], None]) -> None:
    for path in [Path(at, name) for at, _, names in os.walk(folder) for name in names]:
        if path.relative_to(folder).as_posix() not in there:
            path.unlink()
    wanted = {name: mark for name, mark in there.items() if Mark.of(folder / name) != mark}
    size = sum(mark.size for mark in wanted.values())
    if size > (free := shutil.disk_usage(folder).free):
        raise ValueError(
            f"screen.root: {store.uri}: {in_bytes(size)} are to be fetched, but the disk of {folder} has "
            f"{in_bytes(free)} free; make room, or set XDG_CACHE_HOME to a folder on a larger disk"
        )
    files = come = 0

    def done(mark: Mark) -> None:
        nonlocal files, come
        files, come = files + 1, come + mark.size
        progress(Progress(files, len(wanted), come, size))

    store.fetch_all(wanted, folder, done)
