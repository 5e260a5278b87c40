"""Where the images of a table's fields are: its columns of paths as locations below the root.

Tables come from other programs and machines. CellProfiler's LoadData has the folder and the name of a file in two
columns, absolute, or a URL in one; a table made under Windows has drives, backslashes and shares. All of it becomes a
path relative to the root. What does not lie there stays as it is, and the checks of the screen name it.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import pandas as pd

from moa_ray.common.schema import path_column
from moa_ray.common.spelling import cut_blanks
from moa_ray.common.uri import Place, Uri
from moa_ray.config.planes import ImageSettings
from moa_ray.screens.root_folder import folder_inside
from moa_ray.screens.text_cells import clean_column

Source = str | tuple[str, str] | ImageSettings

_OTHER_MACHINE = re.compile(r"[a-z]:/|//|[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # drives, shares, addresses
_WINDOWS = re.compile(r"[a-z]:|//", re.IGNORECASE)
_FILE_URL = re.compile(r"file:(?://(?P<host>[^/]*))?(?P<path>.*)", re.IGNORECASE | re.DOTALL)


def image_locations(
    table: pd.DataFrame,
    images: Mapping[str, Source],
    root: Path,
    source: Place | None = None,
    strip: Sequence[str] = (),
) -> pd.DataFrame:
    """Return the locations of the images of a table.

    Parameters
    ----------
    table : DataFrame, one row per field
        The table as it is in its file.
    images : mapping
        Channel name to the table's column of paths, to those of folders and of names, or to a section that says which.
    root : Path
        The screen's root on this machine.
    source : Path or Uri, optional
        The root as the sweep file names it: a table may have whole addresses in a bucket.
    strip : sequence of str
        Folders of other machines that are cut off, of several the longest.

    Returns
    -------
    DataFrame, one row per field
        A ``Path_<channel>`` column for each channel, missing where the table's cell is empty.
    """
    bucket = [f"{source.scheme}://{source.path}"] if isinstance(source, Uri) else []
    prefixes = sorted({_spelled(prefix).rstrip("/") for prefix in (*bucket, *strip)}, key=len, reverse=True)

    @cache
    def relative(folder: str) -> str:
        return _relative(folder or "/", root, prefixes)

    def location(path: str) -> str:
        folder, slash, name = path.rpartition("/")
        path = f"{relative(folder)}/{name}" if slash else name
        return path if is_of_another_machine(path) else PurePosixPath(path).as_posix()

    return pd.DataFrame(
        {
            path_column(channel): _paths(table, path_columns_of(of)).map(location, na_action="ignore")
            for channel, of in images.items()
        }
    )


def is_of_another_machine(path: str) -> bool:
    """Tell whether a path begins with a drive, a share or an address.

    Parameters
    ----------
    path : str
        With slashes.

    Returns
    -------
    bool
        Whether no file of this machine can be meant.
    """
    return _OTHER_MACHINE.match(path) is not None


def path_columns_of(source: Source) -> Sequence[str]:
    """Return the columns of a table that say where the images of a channel are.

    Parameters
    ----------
    source : str, tuple of str or ImageSettings
        What the sweep file says of the channel.

    Returns
    -------
    sequence of str
        The column of paths, or that of folders and that of file names.
    """
    columns = source.path if isinstance(source, ImageSettings) else source
    return [columns] if isinstance(columns, str) else list(columns)


def _paths(table: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """Return the paths of a channel with slashes, missing where no file is named."""
    *folders, names = [clean_column(table[column], cut_blanks).map(_spelled, na_action="ignore") for column in columns]
    if not folders:
        return names
    joined = [_join(folder, name) for folder, name in zip(folders[0].fillna(""), names.fillna(""), strict=True)]
    return pd.Series(joined, index=table.index, dtype="str")


def _join(folder: str, name: str) -> str | None:
    if not name:
        return None
    is_whole = not folder or name.startswith("/") or is_of_another_machine(name)
    return name if is_whole else f"{folder.rstrip('/')}/{name}"


def _spelled(path: str) -> str:
    """Return a path with slashes, of a ``file:`` URL the path that it stands for."""
    url = _FILE_URL.fullmatch(path)
    if url:
        path, host = unquote(url["path"]), url["host"] or ""
        path = path[1:] if path.startswith("/") and _WINDOWS.match(path[1:]) else path
        path = path if host.lower() in ("", "localhost") else f"//{host}{path}"
    return path.replace("\\", "/")


def _relative(folder: str, root: Path, prefixes: Sequence[str]) -> str:
    """Return a folder relative to the root, as it is where it does not lie there."""
    for prefix in prefixes:
        is_windows = _WINDOWS.match(prefix)  # which does not tell A from a
        words, start = (folder.casefold(), prefix.casefold()) if is_windows else (folder, prefix)
        if words == start or words.startswith(f"{start}/"):
            return folder[len(prefix) :].lstrip("/") or "."
    if is_of_another_machine(folder) or not folder.startswith("/"):
        return folder
    return folder_inside(root, folder) or folder
