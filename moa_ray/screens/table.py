"""Any screen that one table of fields describes: a column map, one column of image paths a channel."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from moa_ray.screens import Screen, check_fields, check_images, numbers, well_names
from moa_ray.tables import (
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

_REQUIRED = (PLATE, WELL, COMPOUND, LABEL)


def open_screen(
    root: Path,
    fields: str,
    columns: Mapping[str, str],
    images: Mapping[str, str],
    control: str | None,
    channels: Sequence[str | None] | None,
) -> Screen:
    """A screen from one CSV or parquet file of fields, relative to the root.

    columns : ``Metadata_*`` name to the file's column; plate, well, compound and label are required. Without
        ``Metadata_Field`` the fields of a well are numbered in the order of their paths; without
        ``Metadata_Concentration`` it is 0; all others are columns that folds may hold out
    images : channel name to the file's column of image paths, relative to the root
    control : the compound of untreated wells; their label is not used
    channels : up to three of the image channels, for the network's three inputs; None is a plane of zeros.
        By default all of them, in the order of `images`

    Raises ValueError where the table or the map cannot be understood.
    """
    table = _read(root / fields)
    _check_map(columns, images, table, str(root / fields))
    chosen = _channels(images, channels)
    made = pd.DataFrame({name: table[source] for name, source in columns.items() if name != CONCENTRATION}).astype(
        "str"
    )
    made = made.mask(table[[columns[name] for name in made.columns]].isna().to_numpy())
    for channel, source in images.items():
        made[path_column(channel)] = table[source].astype("str").map(_location, na_action="ignore")
    made[WELL] = well_names(made[WELL])
    made[CONCENTRATION] = _concentrations(table, columns.get(CONCENTRATION), str(root / fields))
    made[CONTROL] = made[COMPOUND] == control if control is not None else False
    made[LABEL] = made[LABEL].mask(made[CONTROL])
    made = made[made[LABEL].notna() | made[CONTROL]]
    paths = [path_column(channel) for channel in images]
    if FIELD not in made:
        # The paths order the fields of a well, so that the numbers do not depend on the order of the rows.
        made = made.sort_values([*WELL_KEY, paths[0]])
        made[FIELD] = (made.groupby(WELL_KEY).cumcount() + 1).astype("str")
    if REPLICATE not in made:
        made[REPLICATE] = made[PLATE] + " " + made[WELL]
    made = made[[column for column in made.columns if column not in paths] + paths].reset_index(drop=True)
    used = [path_column(channel) for channel in chosen if channel is not None]
    problems = [*check_fields(made), *check_images(made, root, used)]
    return Screen("table", root, made, chosen, tuple(problems))


def _read(path: Path) -> pd.DataFrame:
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        # As text: plate 0012 keeps its zeros, and a compound may be called NA. Only an empty cell is missing.
        return pd.read_csv(path, encoding="utf-8-sig", dtype=str, keep_default_na=False, na_values=[""])
    except FileNotFoundError:
        raise ValueError(f"{path}: missing; screen.fields is relative to screen.root") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError, OSError) as error:
        raise ValueError(f"{path}: no table of fields: {error}") from None


def _check_map(columns: Mapping[str, str], images: Mapping[str, str], table: pd.DataFrame, name: str) -> None:
    for column in columns:
        if not column.startswith(METADATA_PREFIX):
            raise ValueError(f"screen.columns: names begin with {METADATA_PREFIX}, but got {column!r}")
    missing = [column for column in _REQUIRED if column not in columns]
    if missing:
        raise ValueError(f"screen.columns: {', '.join(missing)} must be mapped to a column of {name}")
    if CONTROL in columns:
        raise ValueError(f"screen.columns: {CONTROL} is made from screen.control; leave it out")
    if not images:
        raise ValueError("screen.images: at least one channel must be mapped to a column of paths")
    require_columns(table, [*columns.values(), *images.values()], name)


def _channels(images: Mapping[str, str], channels: Sequence[str | None] | None) -> tuple[str | None, ...]:
    chosen = tuple(images) if channels is None else tuple(channels)
    for channel in chosen:
        if channel is not None and channel not in images:
            near = difflib.get_close_matches(channel, images, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(images)}"
            raise ValueError(f"screen.channels: unknown channel {channel!r}; {hint}")
    if len(chosen) > 3:
        raise ValueError(
            f"screen.channels: a network sees three channels, but there are {len(chosen)} ({', '.join(images)}); "
            "pick three with screen.channels"
        )
    return (*chosen, *[None] * (3 - len(chosen)))


def _concentrations(table: pd.DataFrame, column: str | None, name: str) -> "pd.Series[float]":
    if column is None:
        return pd.Series(0.0, index=table.index)
    return numbers(table[column], name)


def _location(path: str) -> str:
    """A path in the one spelling that a listing of the files has."""
    return PurePosixPath(path.replace("\\", "/")).as_posix()
