"""Any screen that one table of fields describes: a map of its columns, and one column of image paths a channel."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from moa_ray.common.errors import InputError
from moa_ray.common.schema import (
    COMPOUND,
    CONCENTRATION,
    CONTROL,
    FIELD,
    LABEL,
    METADATA_PREFIX,
    PLATE,
    REPLICATE,
    WELL,
    WELL_KEY,
    path_column,
    require_columns,
)
from moa_ray.screens.checks import check_fields, check_images
from moa_ray.screens.left_out import NO_LABEL, count_left_out
from moa_ray.screens.screen import Screen, numbers, well_names

_REQUIRED = (PLATE, WELL, COMPOUND, LABEL)


def open_screen(
    root: Path,
    fields: str,
    columns: Mapping[str, str],
    images: Mapping[str, str],
    control: str | None,
    channels: Sequence[str | None] | None,
) -> Screen:
    """Open a screen from one CSV or parquet file of fields.

    Parameters
    ----------
    root : Path
        The folder that the file and its image paths are relative to.
    fields : str
        The file, relative to the root.
    columns : mapping of str to str
        ``Metadata_*`` name to the file's column; plate, well, compound and label are required. Without
        ``Metadata_Field`` the fields of a well are numbered in the order of their paths; without
        ``Metadata_Concentration`` it is 0; all others are columns that folds may hold out.
    images : mapping of str to str
        Channel name to the file's column of image paths.
    control : str or None
        The compound of untreated wells, whose label is not used; None where there are none.
    channels : sequence of str or None, optional
        Up to three of the image channels, for the network's three inputs; None is a plane of zeros. By default all of
        them, in the order of `images`.

    Returns
    -------
    Screen
        Faults of the fields and of the images are its problems.

    Raises
    ------
    InputError
        If the table or the map cannot be understood.
    """
    table = _read(root / fields)
    _check_map(columns, images, table, str(root / fields))
    chosen = _channels(images, channels)
    rows = pd.DataFrame({name: table[source] for name, source in columns.items() if name != CONCENTRATION}).astype(
        "str"
    )
    rows = rows.mask(table[[columns[name] for name in rows.columns]].isna().to_numpy())
    for channel, source in images.items():
        rows[path_column(channel)] = table[source].astype("str").map(_location, na_action="ignore")
    rows[WELL] = well_names(rows[WELL])
    rows[CONCENTRATION] = _concentrations(table, columns.get(CONCENTRATION), str(root / fields))
    rows[CONTROL] = rows[COMPOUND] == control if control is not None else False
    rows[LABEL] = rows[LABEL].mask(rows[CONTROL])
    kept = rows[LABEL].notna() | rows[CONTROL]
    left_out = count_left_out(rows[~kept], NO_LABEL)
    rows = rows[kept]
    paths = [path_column(channel) for channel in images]
    if FIELD not in rows:
        # The paths order the fields of a well, so that the numbers do not depend on the order of the rows.
        rows = rows.sort_values([*WELL_KEY, paths[0]])
        rows[FIELD] = (rows.groupby(WELL_KEY).cumcount() + 1).astype("str")
    if REPLICATE not in rows:
        rows[REPLICATE] = rows[PLATE] + " " + rows[WELL]
    rows = rows[[column for column in rows.columns if column not in paths] + paths].reset_index(drop=True)
    used = [path_column(channel) for channel in chosen if channel is not None]
    problems = [*check_fields(rows), *check_images(rows, root, used)]
    return Screen("table", root, rows, chosen, tuple(problems), left_out=left_out)


def _read(path: Path) -> pd.DataFrame:
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        # As text: plate 0012 keeps its zeros, and a compound may be called NA. Only an empty cell is missing.
        return pd.read_csv(path, encoding="utf-8-sig", dtype=str, keep_default_na=False, na_values=[""])
    except FileNotFoundError:
        raise InputError(f"{path}: missing; screen.fields is relative to screen.root") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError, OSError) as error:
        raise InputError(f"{path}: no table of fields: {error}") from None


def _check_map(columns: Mapping[str, str], images: Mapping[str, str], table: pd.DataFrame, name: str) -> None:
    for column in columns:
        if not column.startswith(METADATA_PREFIX):
            raise InputError(f"screen.columns: names begin with {METADATA_PREFIX}, but got {column!r}")
    missing = [column for column in _REQUIRED if column not in columns]
    if missing:
        raise InputError(f"screen.columns: {', '.join(missing)} must be mapped to a column of {name}")
    if CONTROL in columns:
        raise InputError(f"screen.columns: {CONTROL} is made from screen.control; leave it out")
    if not images:
        raise InputError("screen.images: at least one channel must be mapped to a column of paths")
    require_columns(table, [*columns.values(), *images.values()], name)


def _channels(images: Mapping[str, str], channels: Sequence[str | None] | None) -> tuple[str | None, ...]:
    chosen = tuple(images) if channels is None else tuple(channels)
    for channel in chosen:
        if channel is not None and channel not in images:
            near = difflib.get_close_matches(channel, images, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(images)}"
            raise InputError(f"screen.channels: unknown channel {channel!r}; {hint}")
    if len(chosen) > 3:
        raise InputError(
            f"screen.channels: a network sees three channels, but there are {len(chosen)} ({', '.join(images)}); "
            "pick three with screen.channels"
        )
    return (*chosen, *[None] * (3 - len(chosen)))


def _concentrations(table: pd.DataFrame, column: str | None, name: str) -> pd.Series:
    if column is None:
        return pd.Series(0.0, index=table.index)
    return numbers(table[column], name)


def _location(path: str) -> str:
    """A path in the one spelling that a listing of the files has."""
    return PurePosixPath(path.replace("\\", "/")).as_posix()
