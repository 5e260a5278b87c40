"""A screen's root on this machine, and the paths below it: nothing outside of it is read unless links are permitted."""

from functools import lru_cache
from pathlib import Path, PosixPath

from moa_ray.common.errors import InputError
from moa_ray.common.uri import leaves

FOLLOW = "screen.follow_links: true follows it"


class LinkedFolder(PosixPath):
    """A root below which symbolic links may lead elsewhere, as its sweep file permits.

    The permission goes where the root goes: to threads, to processes and to the nodes of a cluster.
    """


def path_inside(root: Path, relative: str) -> Path:
    """Resolve a path that must lie below a screen's root.

    Parameters
    ----------
    root : Path
        The screen's root; a `LinkedFolder` where links may lead out of it.
    relative : str
        Path relative to the root, of a file that need not exist.

    Returns
    -------
    Path
        Absolute, links resolved.

    Raises
    ------
    InputError
        If it leads out of the root: an absolute path, ``..``, or a link to elsewhere that is not permitted.
    """
    if leaves(relative) or "\0" in relative:
        raise InputError(f"{relative}: leads out of the screen's root {root}")
    path = root / relative
    # The folder is resolved once for all its files; only a file that is a link itself is followed on its own.
    folder = _resolved(path.parent)
    resolved = path.resolve() if path.is_symlink() else folder / path.name
    if not isinstance(root, LinkedFolder) and not resolved.is_relative_to(_resolved(root)):
        raise InputError(f"{relative}: leads out of the screen's root {root} by a symbolic link; {FOLLOW}")
    return resolved


def folder_inside(root: Path, folder: str) -> str | None:
    """Make an absolute path of a folder relative to a screen's root.

    Parameters
    ----------
    root : Path
        The screen's root.
    folder : str
        Path of a folder of this machine, which need not exist, with slashes.

    Returns
    -------
    str or None
        ``.`` for the root itself; None where it does not lie below the root, neither by its words nor by where it is.
    """
    path = Path(folder)
    real = _resolved(root)
    for above in (root.absolute(), real):
        if path.is_relative_to(above):
            return path.relative_to(above).as_posix()
    if ".." in path.parts or "\0" in folder:
        return None
    resolved = _resolved(path)
    return resolved.relative_to(real).as_posix() if resolved.is_relative_to(real) else None


@lru_cache(maxsize=4096)
def _resolved(folder: Path) -> Path:
    return folder.resolve()
