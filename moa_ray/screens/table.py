"""Any screen that one table of fields describes: a map of its columns, and one column of image paths a channel."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from moa_ray.config.preparation import Preparation
from moa_ray.config.screen_rows import RowSettings
from moa_ray.config.screens import FilesSettings, OmeZarrSettings, TableSettings
from moa_ray.screens.checks import check_fields, check_images
from moa_ray.screens.doses import doses
from moa_ray.screens.duplicates import check_repeated_rows
from moa_ray.screens.image_columns import image_locations, path_columns_of
from moa_ray.screens.joined_tables import join_tables
from moa_ray.screens.left_out import NO_LABEL, count_left_out, join_left_out
from moa_ray.screens.names import check_aliases, check_names, merge_names
from moa_ray.screens.screen import Problem, Screen, well_names
from moa_ray.screens.selection import Columns, check_control_classes, chosen_rows, control_rows
from moa_ray.screens.table_file import read_table
from moa_ray.screens.text_cells import clean_cells, is_word

_NAMELESS_CONTROL = "control"
_REQUIRED = (PLATE, WELL, COMPOUND, LABEL)


def open_screen(root: Path, settings: TableSettings, preparation: Preparation | None = None) -> Screen:
    """Open a screen from one table of fields.

    Parameters
    ----------
    root : Path
        The folder that the file and its image paths are relative to.
    settings : TableSettings
        The section ``screen``: the file, its columns, the channels and the control. Without ``Metadata_Field`` the
        fields of a well are numbered in the order of their paths; without ``Metadata_Concentration`` it is 0; all other
        columns are such as folds may hold out.
    preparation : Preparation, optional
        How fields become tiles, which may make plates of other sizes and depths comparable.

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
    table = read_table(path, settings.separator, settings.encoding)
    joined = join_tables(root, settings, table, settings.columns)
    name = f"{path} and the tables joined to it" if joined.table is not table else str(path)
    if not settings.images:
        raise InputError("screen.images: at least one channel must be mapped to a column of paths")
    paths = [column for source in settings.images.values() for column in path_columns_of(source)]
    require_map(settings.columns, joined.table, name, paths)
    locations = image_locations(joined.table, settings.images, root, settings.root, settings.strip)
    screen = screen_of(root, settings, joined.table, locations, name, preparation)
    problems, left_out = (*joined.problems, *screen.problems), join_left_out([joined.left_out, screen.left_out])
    return replace(screen, problems=problems, left_out=left_out)


def screen_of(
    root: Path,
    settings: TableSettings | OmeZarrSettings | FilesSettings,
    table: pd.DataFrame,
    locations: pd.DataFrame,
    name: str,
    preparation: Preparation | None = None,
) -> Screen:
    """Make a screen of a table of fields and of where their images are.

    Parameters
    ----------
    root : Path
        The folder that the locations are relative to.
    settings : TableSettings or OmeZarrSettings
        The section ``screen``.
    table : DataFrame, one row per field
        The columns that `settings` names; the index is the row of the file, for messages.
    locations : DataFrame, one row per field
        A ``Path_<channel>`` column for each channel, on the index of the table.
    name : str
        Where the table comes from, for messages.
    preparation : Preparation, optional
        How fields become tiles, which may make plates of other sizes and depths comparable.

    Returns
    -------
    Screen
        Faults of the fields and of the images are its problems.

    Raises
    ------
    InputError
        If a column cannot be understood.
    """
    used = _channels(list(locations.columns), settings.channels)
    rows = clean_cells(pd.DataFrame({column: table[source] for column, source in settings.columns.items()}))
    rows[WELL] = well_names(rows[WELL])
    problems = check_aliases([rows[COMPOUND], rows[LABEL]], settings.aliases)
    for column in (COMPOUND, LABEL):
        rows[column] = merge_names(rows[column], settings.aliases)
    rows, left_out, chosen_problems = _choose(rows, table, settings)
    rows[CONCENTRATION] = _concentrations(rows, settings, name)
    rows = _number(rows.join(locations), list(locations.columns), is_numbered=FIELD in rows)
    problems += chosen_problems
    if FIELD not in settings.columns:
        problems += check_repeated_rows(rows.drop(columns=FIELD))
    paths = [path_column(channel) for channel in used if channel is not None]
    problems += [*check_fields(rows), *check_images(rows, root, paths, settings.planes, preparation)]
    fields = rows.reset_index(drop=True)
    return Screen(settings.name, root, fields, used, tuple(problems), left_out=left_out, planes=settings.planes)


def require_map(columns: Mapping[str, str], table: pd.DataFrame, name: str, paths: Sequence[str] = ()) -> None:
    """Refuse a map of columns that says too little, or names what a table does not have.

    Parameters
    ----------
    columns : mapping
        ``Metadata_*`` name to column, as in ``screen.columns``.
    table : DataFrame
        The table of fields.
    name : str
        Where the table comes from, for messages.
    paths : sequence of str
        The columns of image paths.

    Raises
    ------
    InputError
        If a column is missing, or stands there twice.
    """
    for column in columns:
        if not column.startswith(METADATA_PREFIX):
            raise InputError(f"screen.columns: names begin with {METADATA_PREFIX}, but got {column!r}")
    missing = [column for column in _REQUIRED if column not in columns]
    if missing:
        raise InputError(f"screen.columns: {', '.join(missing)} must be mapped to a column of {name}")
    if CONTROL in columns:
        raise InputError(f"screen.columns: {CONTROL} is made from screen.control; leave it out")
    wanted = [*columns.values(), *paths]
    require_columns(table, wanted, name)
    repeated = [source for source in dict.fromkeys(wanted) if (table.columns == source).sum() > 1]
    if repeated:
        raise InputError(f"{name}: column {', '.join(repeated)} stands there more than once; give each its own name")


def _choose(
    rows: pd.DataFrame, table: pd.DataFrame, settings: RowSettings
) -> tuple[pd.DataFrame, pd.DataFrame, list[Problem]]:
    """Keep the rows that are asked for and have a label or are controls; count the others."""
    columns = Columns(rows, table)
    reasons, problems = chosen_rows(columns, settings.where, settings.aliases)
    is_control, wrong = control_rows(columns, settings.control, settings.aliases, reasons.isna())
    problems += wrong
    labels = rows[LABEL]
    is_missing = labels.isna() | is_word(labels, settings.missing)
    words = "label " + labels.fillna("").map(repr) + " is a word for none (screen.missing)"
    reasons = reasons.mask(reasons.isna() & is_missing & ~is_control, words.mask(labels.isna(), NO_LABEL))
    if settings.control_is_class:
        problems += check_control_classes(labels[is_control & ~is_missing])
    unlabelled = is_missing if settings.control_is_class else is_missing | is_control
    rows = rows.assign(**{CONTROL: is_control, LABEL: labels.mask(unlabelled)})
    # A control needs no name: plate maps leave it empty.
    rows[COMPOUND] = rows[COMPOUND].mask(rows[COMPOUND].isna() & is_control, _NAMELESS_CONTROL)
    kept = reasons.isna()
    asked = ~reasons.fillna("").str.startswith("screen.where")
    problems += check_names(rows.loc[asked, COMPOUND], kept[asked], settings.aliases, "compounds")
    problems += check_names(rows.loc[kept, LABEL], kept[kept], settings.aliases, "labels")
    return rows[kept].copy(), count_left_out(rows[~kept], reasons[~kept]), problems


def _number(rows: pd.DataFrame, paths: Sequence[str], is_numbered: bool) -> pd.DataFrame:
    """Number fields and name replicates where the table does not; the paths become the last columns."""
    if not is_numbered:
        # The paths order the fields of a well, so that the numbers do not depend on the order of the rows.
        rows = rows.sort_values([*WELL_KEY, paths[0]])
        rows[FIELD] = (rows.groupby(WELL_KEY).cumcount() + 1).astype("str")
    if REPLICATE not in rows:
        rows[REPLICATE] = rows[PLATE] + " " + rows[WELL]
    return rows[[column for column in rows.columns if column not in paths] + list(paths)]


def _concentrations(rows: pd.DataFrame, settings: RowSettings, name: str) -> pd.Series:
    if CONCENTRATION not in settings.columns:
        return pd.Series(0.0, index=rows.index)
    column = rows[CONCENTRATION].rename(settings.columns[CONCENTRATION])
    return doses(column, rows[LABEL].notna() & ~rows[CONTROL], name, settings.decimal)


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
