"""Any screen that one table of fields describes: a map of its columns, and one column of image paths a channel."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from moa_ray.common.errors import InputError
from moa_ray.common.schema import (
    COMPOUND,
    CONCENTRATION,
    CONTROL,
    FIELD,
    LABEL,
    METADATA_PREFIX,
    PATH_PREFIX,
    PLATE,
    REPLICATE,
    WELL,
    WELL_KEY,
    path_column,
    require_columns,
)
from moa_ray.config.screens import TableSettings
from moa_ray.screens.checks import check_fields, check_images
from moa_ray.screens.image_columns import Source, image_locations, path_columns_of, planes_of_images
from moa_ray.screens.left_out import NO_LABEL, count_left_out
from moa_ray.screens.screen import Screen, numbers, well_names
from moa_ray.screens.table_file import read_table

_REQUIRED = (PLATE, WELL, COMPOUND, LABEL)


def open_screen(root: Path, settings: TableSettings) -> Screen:
    """Open a screen from one table of fields.

    Parameters
    ----------
    root : Path
        The folder that the file and its image paths are relative to.
    settings : TableSettings
        The section ``screen``: the file, its columns, the channels and the control. Without ``Metadata_Field`` the
        fields of a well are numbered in the order of their paths; without ``Metadata_Concentration`` it is 0; all other
        columns are such as folds may hold out.

    Returns
    -------
    Screen
        Faults of the fields and of the images are its problems.

    Raises
    ------
    InputError
        If the table or the map cannot be understood.
    """
    path = root / settings.fields
    table = read_table(path)
    _check_map(settings.columns, settings.images, table, str(path))
    return screen_of(root, settings, table, image_locations(table, settings.images), str(path))


def screen_of(root: Path, settings: TableSettings, table: pd.DataFrame, locations: pd.DataFrame, name: str) -> Screen:
    """Make a screen of a table of fields and of where their images are.

    Parameters
    ----------
    root : Path
        The folder that the locations are relative to.
    settings : TableSettings
        The section ``screen``.
    table : DataFrame, one row per field
        The columns that `settings` names.
    locations : DataFrame, one row per field
        A ``Path_<channel>`` column for each channel, on the index of the table.
    name : str
        Where the table comes from, for messages.

    Returns
    -------
    Screen
        Faults of the fields and of the images are its problems.

    Raises
    ------
    InputError
        If a column cannot be understood.
    """
    columns, control = settings.columns, settings.control
    chosen = _channels(list(locations.columns), settings.channels)
    rows = pd.DataFrame({column: table[source] for column, source in columns.items() if column != CONCENTRATION})
    rows = rows.astype("str").mask(rows.isna())
    rows = rows.join(locations)
    rows[WELL] = well_names(rows[WELL])
    rows[CONCENTRATION] = _concentrations(table, columns.get(CONCENTRATION), name)
    rows[CONTROL] = rows[COMPOUND] == control if control is not None else False
    rows[LABEL] = rows[LABEL].mask(rows[CONTROL])
    kept = rows[LABEL].notna() | rows[CONTROL]
    left_out = count_left_out(rows[~kept], NO_LABEL)
    rows = rows[kept]
    paths = list(locations.columns)
    if FIELD not in rows:
        # The paths order the fields of a well, so that the numbers do not depend on the order of the rows.
        rows = rows.sort_values([*WELL_KEY, paths[0]])
        rows[FIELD] = (rows.groupby(WELL_KEY).cumcount() + 1).astype("str")
    if REPLICATE not in rows:
        rows[REPLICATE] = rows[PLATE] + " " + rows[WELL]
    rows = rows[[column for column in rows.columns if column not in paths] + paths].reset_index(drop=True)
    used = [path_column(channel) for channel in chosen if channel is not None]
    planes = planes_of_images(settings.images)
    problems = [*check_fields(rows), *check_images(rows, root, used, planes)]
    return Screen(settings.name, root, rows, chosen, tuple(problems), left_out=left_out, planes=planes)


def _check_map(columns: Mapping[str, str], images: Mapping[str, Source], table: pd.DataFrame, name: str) -> None:
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
    require_columns(
        table, [*columns.values(), *(column for source in images.values() for column in path_columns_of(source))], name
    )


def _channels(columns: Sequence[str], channels: Sequence[str | None] | None) -> tuple[str | None, ...]:
    images = [column.removeprefix(PATH_PREFIX) for column in columns]
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
