"""The files of plate maps and annotations: one for all fields, or one for each plate or other value of the fields."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from moa_ray.common.errors import InputError
from moa_ray.common.schema import PLATE, require_columns
from moa_ray.common.uri import leaves
from moa_ray.config.joined_tables import JoinSettings, joins_of
from moa_ray.config.screens import FilesSettings, OmeZarrSettings, TableSettings
from moa_ray.screens.join_keys import keys_of
from moa_ray.screens.table_file import read_table
from moa_ray.screens.text_cells import clean_column

Settings = TableSettings | FilesSettings | OmeZarrSettings
_PLACE = re.compile(r"\{([^{}]*)\}")  # of a value of the fields in the name of a file
_SHOWN = 3


def joined_files(settings: Settings, names: Sequence[str]) -> list[str]:
    """Find the files of the tables that may be joined.

    Parameters
    ----------
    settings : TableSettings, FilesSettings or OmeZarrSettings
        The section ``screen``.
    names : sequence of str
        Files below the root.

    Returns
    -------
    list of str
        Those that a plate map or an annotation may be; the value of a field in a name may be any.
    """
    joins = [*joins_of(settings.platemap), *joins_of(settings.annotation)]
    forms = ["".join(map(_any_value, enumerate(_PLACE.split(join.file.removeprefix("./"))))) for join in joins]
    return [name for name in names if any(re.fullmatch(form, name) for form in forms)]


def _any_value(part: tuple[int, str]) -> str:
    number, text = part
    return "[^/]+" if number % 2 else re.escape(text)


def fields_of_files(
    root: Path, join: JoinSettings, place: str, column: Callable[[str], pd.Series], index: pd.Index
) -> dict[str, list[int]]:
    """Tell which fields each file of a joined table is for.

    Parameters
    ----------
    root : Path
        The folder that the files are relative to.
    join : JoinSettings
        The table, whose ``file`` may have places for values of the fields.
    place : str
        The key of the sweep file, for messages.
    column : callable
        Returns the column of the fields of a name.
    index : Index
        The fields.

    Returns
    -------
    dict of list of int
        By file, the places of its fields in the index; a field without a value is of no file.

    Raises
    ------
    InputError
        If a file is missing, or lies outside of the root.
    """
    words = _PLACE.split(join.file)
    names = [PLATE if word == "plate" else word for word in words[1::2]]
    files: dict[str, list[int]] = {} if names else {join.file: list(range(len(index)))}
    for number, value in enumerate(keys_of([clean_column(column(name)) for name in names])):
        if value is not None:
            parts = [text for pair in zip(words[::2], (*value, ""), strict=True) for text in pair]
            files.setdefault("".join(parts), []).append(number)
    for name in files:
        if leaves(name):
            raise InputError(f"{place}.file: {name}: leads out of the screen's root {root}")
    missing = [str(root / name) for name in files if not (root / name).is_file()]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if missing[_SHOWN:] else ""
        raise InputError(f"{', '.join(missing[:_SHOWN])}{more}: missing; {place}.file is relative to screen.root")
    return files


def read_joined(path: Path, join: JoinSettings, settings: Settings) -> pd.DataFrame:
    """Read a table that is joined.

    Parameters
    ----------
    path : Path
        The file.
    join : JoinSettings
        Its columns, and how it is written.
    settings : TableSettings, FilesSettings or OmeZarrSettings
        The section ``screen``; where it has no table of its own it says how all are written.

    Returns
    -------
    DataFrame, one row per row of the file
        As `read_table` returns it; each name of a column stands once, if it is any.

    Raises
    ------
    InputError
        If the file cannot be understood, or lacks a column that it is joined by.
    """
    is_alone = not isinstance(settings, TableSettings)  # else what the screen says is of its own table
    separator = join.separator or (settings.separator if is_alone else None)
    encoding = join.encoding or (settings.encoding if is_alone else None)
    table = read_table(path, separator, encoding)
    require_columns(table, [column for columns in join.on.values() for column in columns], str(path))
    repeated = [name for name in table.columns[table.columns.duplicated()] if name]
    if repeated:
        raise InputError(f"{path}: column {repeated[0]} stands there more than once; give each its own name")
    return table.loc[:, table.columns != ""]
