"""Any screen whose files say by their names where they belong: no table of fields, one walk over the folders.

A pattern finds plate, well, field and channel of each file. Plate maps and annotations say what stands in the wells.
Two files for one channel of one field are refused, since nothing says which is meant.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pandas as pd

from moa_ray.common.errors import InputError
from moa_ray.common.schema import FIELD, PLATE, WELL, path_column
from moa_ray.common.text import listed
from moa_ray.common.uri import Uri
from moa_ray.config.file_patterns import FilePattern, read_pattern
from moa_ray.config.messages import nearest
from moa_ray.config.planes import ImageSettings
from moa_ray.config.preparation import Preparation
from moa_ray.config.screens import FilesSettings
from moa_ray.screens.joined_files import joined_files
from moa_ray.screens.joined_tables import join_tables
from moa_ray.screens.left_out import join_left_out
from moa_ray.screens.reading import listing
from moa_ray.screens.screen import Problem, Screen, problem
from moa_ray.screens.table import require_map, screen_of
from moa_ray.screens.wells import spelled_wells, well_of

_LOCATION, _ABOVE, _CHANNEL, _ANY = "location", "above", "channel", "*"
_IMAGES = (".tif", ".tiff", ".png", ".bmp", ".jpg", ".jpeg", ".jp2", ".flex", ".c01", ".dib")
_AXES = {"z": "planes in depth", "t": "points in time"}
_SHOWN = 3


def open_screen(
    root: Path, settings: FilesSettings, preparation: Preparation | None = None, names: Sequence[str] | None = None
) -> Screen:
    """Open a screen from the names of its files.

    Parameters
    ----------
    root : Path
        The folder of the images and of the tables that are joined.
    settings : FilesSettings
        The section ``screen``.
    preparation : Preparation, optional
        How fields become tiles, which may make plates of other sizes and depths comparable.
    names : sequence of str, optional
        The files below the root; by default those that are there.

    Returns
    -------
    Screen
        Faults of the fields and of the images are its problems.

    Raises
    ------
    InputError
        If no file matches, a channel is in none, or two files are one channel of a field.
    """
    names = listing(root) if names is None else names
    files, problems = _files(root, settings, names)
    table, locations = _fields(files, _choose(files, settings), settings)
    columns = {**{column: column for column in map(str, table.columns)}, **settings.columns}
    joined = join_tables(root, settings, table, columns)
    name = f"{root} by screen.pattern"
    require_map(columns, joined.table, name)
    mapped = settings.model_copy(update={"columns": columns})
    screen = screen_of(root, mapped, joined.table, locations.loc[joined.table.index], name, preparation)
    return replace(
        screen,
        problems=(*problems, *joined.problems, *screen.problems),
        left_out=join_left_out([joined.left_out, screen.left_out]),
    )


def _files(root: Path, settings: FilesSettings, names: Sequence[str]) -> tuple[pd.DataFrame, list[Problem]]:
    """Make one row for each file that the pattern matches, and count the others."""
    patterns = read_pattern(settings.pattern)
    matches: dict[str, dict[str, str]] = {}
    others: list[str] = []
    for name in sorted(names):
        parts = _parts(patterns, name)
        if parts is not None:
            matches[name] = parts
        elif not name.lower().endswith(".zip") and not PurePosixPath(name.replace("!", "/")).name.startswith("."):
            others.append(name)
    tables = set(joined_files(settings, others))
    others = sorted(
        (name for name in others if name not in tables), key=lambda name: not name.lower().endswith(_IMAGES)
    )
    if not matches:
        raise InputError(_no_match(root, settings, patterns, others))
    problems = []
    if others:
        problems.append(problem("warning", f"files below {root} do not match screen.pattern and are left out", others))
    files = pd.DataFrame.from_records(list(matches.values()))
    spelled = _spelled(files.assign(**{_LOCATION: list(matches)}), settings)
    return spelled, [*problems, *_check_folders(spelled)]


def _check_folders(files: pd.DataFrame) -> list[Problem]:
    """Find plates whose files lie in several folders that no part of the pattern names: they may be several plates."""
    folders = files[[PLATE, _ABOVE]].drop_duplicates()
    several = folders[folders.duplicated(PLATE, keep=False)].groupby(PLATE, sort=False)[_ABOVE]
    names = [f"{plate} ({listed([folder or '.' for folder in of])})" for plate, of in several]
    text = "plates have files in several folders that screen.pattern does not name, as {plate}/ may"
    return [problem("warning", text, names)] if names else []


def _parts(patterns: Sequence[FilePattern], name: str) -> dict[str, str] | None:
    """Return the parts of the first pattern that matches, and the folders above what it names."""
    for pattern in patterns:
        if (parts := pattern.match(name)) is not None:
            return {**parts, _ABOVE: pattern.above(name)}
    return None


def _no_match(root: Path, settings: FilesSettings, patterns: Sequence[FilePattern], names: Sequence[str]) -> str:
    if not names:
        return f"screen.pattern: no file lies below {root}; look at screen.root"
    text = f"screen.pattern: {settings.pattern!r} matches none of {len(names)} files below {root}: {listed(names)}"
    return f"{text}; {names[0]} {patterns[0].mismatch(names[0])}" if len(patterns) == 1 else text


def _spelled(files: pd.DataFrame, settings: FilesSettings) -> pd.DataFrame:
    """Name the parts as the columns of a field table, each value in one spelling."""
    if "well" in files:
        wells = spelled_wells(files["well"])
    else:
        wells = pd.Series([well_of(*pair) for pair in zip(files["row"], files["col"], strict=True)], dtype="str")
    plate = settings.plate or _name(settings)
    plates = files["plate"].fillna(plate) if "plate" in files else pd.Series(plate, index=files.index, dtype="str")
    spelled = pd.DataFrame({PLATE: plates, WELL: wells})
    if "field" in files:
        spelled[FIELD] = _numbers(files["field"]).fillna("1")
    further = [column for column in files if str(column).startswith("Metadata_")]
    rest = pd.DataFrame({part: _numbers(files[part]) for part in ("channel", "z", "t") if part in files})
    return pd.concat([spelled, files[[*further, _ABOVE, _LOCATION]], rest], axis="columns")


def _name(settings: FilesSettings) -> str:
    return settings.root.name if isinstance(settings.root, Uri) else settings.root.resolve().name


def _numbers(column: pd.Series) -> pd.Series:
    """Cut the zeros before numbers, so that 01 and 1 are one."""
    return column.str.replace(r"^0+(?=[0-9]+$)", "", regex=True)


def _choose(files: pd.DataFrame, settings: FilesSettings) -> pd.DataFrame:
    """Keep the planes and times that the sweep file chooses, and the channels that it names."""
    for axis, words in _AXES.items():
        value = getattr(settings, axis)
        if value is None:
            continue
        is_chosen = files[axis].isna() | (files[axis] == str(value))
        if not is_chosen.any():
            known = ", ".join(sorted(files[axis].dropna().unique(), key=int))
            raise InputError(f"screen.{axis}: no file is number {value} of the {words}; known are {known}")
        files = files[is_chosen]
    if _CHANNEL not in files:
        return files.assign(**{_CHANNEL: _ANY})
    channels = sorted(files[_CHANNEL].dropna().unique())
    texts = _texts(settings)
    for name, text in texts.items():
        if text not in channels:
            raise InputError(f"screen.images.{name}: no file name has the channel {text!r}{nearest(text, channels)}")
    return files[files[_CHANNEL].isin(list(texts.values()))]


def _texts(settings: FilesSettings) -> dict[str, str]:
    """Return the channel in the names of files of each channel."""
    texts = {name: image.path if isinstance(image, ImageSettings) else image for name, image in settings.images.items()}
    return {name: text.lstrip("0") or "0" if text.isdecimal() else text for name, text in texts.items()}


def _fields(files: pd.DataFrame, chosen: pd.DataFrame, settings: FilesSettings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make one row for each field that has any file, and the locations of its channels, missing where there is none."""
    key = [column for column in (PLATE, WELL, FIELD) if column in files]
    repeated = chosen[chosen.duplicated([*key, _CHANNEL], keep=False)]
    if len(repeated):
        raise InputError(_repeated(repeated, key))
    chosen = chosen.set_index(_names(chosen, key))
    further = [column for column in map(str, files.columns) if column.startswith("Metadata_") and column not in key]
    for column in further:
        values = chosen.groupby(level=0)[column].nunique()
        if (values > 1).any():
            name = values.index[values > 1][0]
            several = ", ".join(chosen.loc[name, column].unique())
            raise InputError(f"screen.pattern: {{{column}}} differs between the channels of {name}: {several}")
    table = pd.concat([chosen, files.set_index(_names(files, key))])[[*key, *further]]
    table = table[~table.index.duplicated()].sort_values(key)
    of_channel = {text: rows[_LOCATION] for text, rows in chosen.groupby(_CHANNEL)}
    texts = _texts(settings)
    locations = {path_column(name): of_channel[text].reindex(table.index) for name, text in texts.items()}
    return table, pd.DataFrame(locations, index=table.index)


def _names(files: pd.DataFrame, key: Sequence[str]) -> pd.Index:
    """Call rows by their field, for messages."""
    return pd.Index(list(map(" ".join, files[list(key)].itertuples(index=False, name=None))))


def _repeated(files: pd.DataFrame, key: Sequence[str]) -> str:
    """Say which files are one channel of a field, and what tells them apart."""
    groups = files.groupby([*key, _CHANNEL], sort=False)[_LOCATION]
    examples = [f"{' '.join(name[:-1])}: {' and '.join(of.iloc[:2])}" for name, of in list(groups)[:_SHOWN]]
    text = f"screen.pattern: of {groups.ngroups} images there are two files and more ({'; '.join(examples)})"
    for axis, words in _AXES.items():
        if axis in files and files[axis].nunique() > 1:
            several = ", ".join(sorted(files[axis].dropna().unique(), key=int))
            return f"{text}, which are {words}; choose one with screen.{axis} ({several})"
    if FIELD not in key:
        return f"{text}; a part {{field}} may tell them apart"
    return f"{text}; what tells them apart must be a part of the pattern, as folders are by {{plate}}/"
