"""Keep this machine's copy of a screen that lies in an object store.

Opening a screen looks into all of its files, so they are fetched once, and at the next start those alone that have
changed. They keep the store's times, so that the same screen is known again on any machine.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from moa_ray.common.errors import InputError
from moa_ray.common.files import file_lock
from moa_ray.common.object_store import FileVersion, Store, reporting_errors_of
from moa_ray.common.text import in_bytes
from moa_ray.common.uri import Place, Uri
from moa_ray.screens.downloads import Progress


def fetch(root: Place, progress: Callable[[Progress], None]) -> Path:
    """Return a folder of this machine that holds a screen.

    Parameters
    ----------
    root : Path or Uri
        Where the screen lies. What is below a URI is fetched as far as the copy lacks it; what has gone there goes
        from the copy.
    progress : callable
        Called with a `Progress` for each file that has come.

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
            _fetch(store, versions, root.copy, progress)
    return root.copy


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait until no other process fetches into a folder; what a killed one left half is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder.with_name(f".{folder.name}.lock")):
        for part in folder.rglob(".*.part"):
            part.unlink()
        yield


def _fetch(
    store: Store, versions: Mapping[str, FileVersion], folder: Path, progress: Callable[[Progress], None]
) -> None:
    """Make a folder hold exactly the files of a store."""
    for path in [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]:
        if path.relative_to(folder).as_posix() not in versions:
            path.unlink()
    lacking = {name: version for name, version in versions.items() if FileVersion.of(folder / name) != version}
    size = sum(version.size for version in lacking.values())
    if size > (free := shutil.disk_usage(folder).free):
        raise InputError(
            f"screen.root: {store.uri}: {in_bytes(size)} are to be fetched, but the disk of {folder} has "
            f"{in_bytes(free)} free; make room, or set XDG_CACHE_HOME to a folder on a larger disk"
        )
    files = received = 0

    def done(version: FileVersion) -> None:
        nonlocal files, received
        files, received = files + 1, received + version.size
        progress(Progress(files, len(lacking), received, size))

    store.fetch_all(lacking, folder, done)
