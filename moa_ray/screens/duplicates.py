"""What stands in two places of a screen: a well of two compounds, a row that is repeated, one image under two names.

An image in two places is in training and test at once, or is shown to a network as two channels. Files are compared
without reading them whole: those of one size by a few of their bytes, and only where these agree by all of them.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import pandas as pd

from moa_ray.common.schema import COMPOUND, CONCENTRATION, LABEL, PATH_PREFIX, WELL_KEY, path_column
from moa_ray.config.planes import Plane
from moa_ray.screens.image_files import read_image
from moa_ray.screens.reading import UNREADABLE, member_version, open_image
from moa_ray.screens.root_folder import path_inside
from moa_ray.screens.screen import Problem, problem

Severity = Literal["error", "warning"]

_ROW, _CHANNEL, _PLANE, _LOCATION, _CONTENT = "row", "channel", "plane", "location", "content"
_SPOTS, _SPOT_BYTES = (0.25, 0.5, 0.75), 2048  # where in a file, and how much of it, is looked at first
NO_PLANES: Mapping[str, Plane] = MappingProxyType({})
# What is said of images that stand in several rows, and in several channels of a row.
_SAME_FILE = "image files stand in more than one row", "rows name one image file for two channels in use"
_COPIES = "image files have copies in other rows", "rows have copies of one image file for two channels in use"
_FLAT_COPIES = (
    "image files of a single grey level have copies in other rows",
    "rows have copies of one image of a single grey level for two channels in use",
)
_SHOWN = 4  # rows that are named of one image


def check_wells(fields: pd.DataFrame) -> list[Problem]:
    """Find wells that hold two compounds, or one compound in two doses.

    Parameters
    ----------
    fields : DataFrame, one row per field
        As `Screen.fields`.

    Returns
    -------
    list of Problem
        At most two.
    """
    compounds = fields[[*WELL_KEY, COMPOUND]].dropna().drop_duplicates()
    labelled = fields[fields[LABEL].notna()]
    doses = labelled[[*WELL_KEY, COMPOUND, CONCENTRATION]].dropna().drop_duplicates()
    texts = doses.assign(**{CONCENTRATION: [f"{dose:g}" for dose in doses[CONCENTRATION]]})
    return [
        *_several(compounds, WELL_KEY, COMPOUND, "wells hold two compounds"),
        *_several(texts, [*WELL_KEY, COMPOUND], CONCENTRATION, "wells hold a compound in two doses"),
    ]


def _several(values: pd.DataFrame, key: Sequence[str], column: str, text: str) -> list[Problem]:
    """Find keys that have several values of a column."""
    groups: dict[str, list[str]] = {}
    for *names, value in values[values.duplicated(key, keep=False)][[*key, column]].itertuples(index=False, name=None):
        groups.setdefault(" ".join(map(str, names)), []).append(str(value))
    return [problem("error", text, [f"{name} ({', '.join(of)})" for name, of in groups.items()])] if groups else []


def check_repeated_rows(rows: pd.DataFrame) -> list[Problem]:
    """Find rows that are those of a field once more.

    Parameters
    ----------
    rows : DataFrame, one row per row of the table
        All that is known of a field, the number of the field aside; the index is the row of the file.

    Returns
    -------
    list of Problem
        At most one.
    """
    repeated = rows[rows.duplicated(keep=False)].astype("object").fillna("")
    if repeated.empty:
        return []
    groups = repeated.groupby(list(repeated.columns), sort=False).groups.values()
    names = [f"rows {_and([str(row) for row in group])}" for group in groups]
    return [problem("error", "fields stand in the table more than once, word for word; keep one row of each", names)]


def check_places(
    fields: pd.DataFrame, columns: Sequence[str], planes: Mapping[str, Plane] = NO_PLANES
) -> list[Problem]:
    """Find image files that stand in two rows, or in two channels that are in use.

    Parameters
    ----------
    fields : DataFrame, one row per field
        As `Screen.fields`; the index is the row of the file.
    columns : sequence of str
        The columns of locations that are in use.
    planes : mapping of Plane, by channel
        Which plane of its files a channel is, where they hold more than one.

    Returns
    -------
    list of Problem
        At most two.
    """
    uses = _uses(fields, columns, planes)
    return _twice(uses.assign(**{_CONTENT: uses[_LOCATION]}), fields, "error", *_SAME_FILE)


def check_contents(
    fields: pd.DataFrame, columns: Sequence[str], root: Path, planes: Mapping[str, Plane] = NO_PLANES
) -> list[Problem]:
    """Find image files that are copies of others, in two rows or two channels that are in use.

    Parameters
    ----------
    fields : DataFrame, one row per field
        As `Screen.fields`; the index is the row of the file.
    columns : sequence of str
        The columns of locations that are in use.
    root : Path
        The screen's root.
    planes : mapping of Plane, by channel
        Which plane of its files a channel is, where they hold more than one.

    Returns
    -------
    list of Problem
        Errors; a warning where all pixels of an image have one grey level, as where a camera saw nothing.
    """
    uses = _uses(fields, columns, planes).drop_duplicates([_LOCATION, _PLANE])
    content = _shared_contents(root, uses[_LOCATION].unique().tolist())
    uses = uses[uses[_LOCATION].isin(list(content))]
    uses = uses.assign(**{_CONTENT: uses[_LOCATION].map(content)})
    first = uses.drop_duplicates(_CONTENT)
    flat = [row[_CONTENT] for row in first.to_dict("records") if _is_flat(root, row[_LOCATION])]
    is_flat = uses[_CONTENT].isin(flat)
    return [
        *_twice(uses[~is_flat], fields, "error", *_COPIES),
        *_twice(uses[is_flat], fields, "warning", *_FLAT_COPIES),
    ]


def _uses(fields: pd.DataFrame, columns: Sequence[str], planes: Mapping[str, Plane]) -> pd.DataFrame:
    """Make one row for each image of each field."""
    parts = [
        pd.DataFrame({_ROW: fields.index, _CHANNEL: channel, _LOCATION: fields[path_column(channel)]}).assign(
            **{_PLANE: repr(planes.get(channel))}
        )
        for channel in dict.fromkeys(column.removeprefix(PATH_PREFIX) for column in columns)
    ]
    return pd.concat(parts).dropna(subset=[_LOCATION]).reset_index(drop=True)


def _twice(
    uses: pd.DataFrame, fields: pd.DataFrame, severity: Severity, over_rows: str, over_channels: str
) -> list[Problem]:
    """Find contents that are used twice, in several rows or in several channels of a row."""
    places: dict[tuple[str, str], dict[int, list[tuple[str, str]]]] = {}  # of each content, by row: channels and files
    repeated = uses[uses.duplicated([_CONTENT, _PLANE], keep=False)]
    columns = [_CONTENT, _PLANE, _ROW, _CHANNEL, _LOCATION]
    for content, plane, row, channel, location in repeated[columns].itertuples(index=False, name=None):
        places.setdefault((content, plane), {}).setdefault(row, []).append((channel, location))
    compounds = dict(zip(fields.index, fields[COMPOUND].fillna("(no name)"), strict=True))
    in_rows, in_channels = [], []
    for by_row in places.values():
        if len(by_row) > 1:
            names = dict.fromkeys(compounds[row] for row in sorted(by_row))
            files = _files([use for uses_of_row in by_row.values() for use in uses_of_row])
            in_rows.append(f"{files} (rows {_and(sorted(by_row))}: {_and(list(names))})")
        for row, uses_of_row in by_row.items():
            if len(uses_of_row) > 1:
                channels = [channel for channel, _ in uses_of_row]
                in_channels.append(f"row {row} ({_and(channels)}: {_files(uses_of_row)})")
    problems = [problem(severity, over_rows, in_rows)] if in_rows else []
    return [*problems, problem(severity, over_channels, in_channels)] if in_channels else problems


def _files(uses: Sequence[tuple[str, str]]) -> str:
    return " = ".join(list(dict.fromkeys(location for _, location in uses))[:2])


def _and(names: Sequence[object]) -> str:
    shown = [str(name) for name in names[:_SHOWN]]
    if len(names) > _SHOWN:
        return f"{', '.join(shown)} and {len(names) - _SHOWN} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


# Contents of files ----------------------------------------------------------------------------------------------------


def _shared_contents(root: Path, locations: Sequence[str]) -> dict[str, str]:
    """Return a digest of each file that has the content of another one; what cannot be read has none."""
    keys: dict[str, tuple[Hashable, ...]] = dict.fromkeys(locations, ())
    with ThreadPoolExecutor() as pool:
        for key_of in (_size_key, _spots, _digest):
            found = pool.map(partial(_readable, partial(key_of, root)), keys)
            keys = {location: (*keys[location], key) for location, key in zip(keys, found, strict=True) if key}
            counts = Counter(keys.values())
            keys = {location: key for location, key in keys.items() if counts[key] > 1}
    return {location: str(key[-1]) for location, key in keys.items()}


def _readable(key_of: Callable[[str], Hashable], location: str) -> Hashable:
    try:
        return key_of(location)
    except UNREADABLE:
        return None  # the checks of the files themselves name it


def _size_key(root: Path, location: str) -> Hashable:
    """Return bytes of a file, of an archive's member with its checksum; nothing is read."""
    return member_version(root, location) or path_inside(root, location).stat().st_size


def _spots(root: Path, location: str) -> Hashable:
    """Return a few bytes of a file; an archive's member is told from others by its checksum."""
    if "!" in location:
        return "member"
    with path_inside(root, location).open("rb", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        spots = []
        for share in _SPOTS:
            file.seek(int(share * max(0, size - _SPOT_BYTES)))
            spots.append(file.read(_SPOT_BYTES))
        return b"".join(spots) or b"empty"


def _digest(root: Path, location: str) -> str:
    with open_image(root, location) as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()  # type: ignore[arg-type]


def _is_flat(root: Path, location: str) -> bool:
    try:
        with open_image(root, location) as file:
            pixels = read_image(file)
    except UNREADABLE:
        return False
    return bool((pixels == pixels.flat[0]).all())
