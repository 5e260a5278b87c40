"""Screens: data sets as checked field tables.

A screen's image is found by its *location*: a path relative to the screen's root, or ``archive.zip!member`` for a file
inside a zip archive, which is read in place.
"""

import io
import os
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moa_ray.images import image_header, read_image
from moa_ray.stores import Place, Store, Uri, leaves
from moa_ray.tables import COMPOUND, CONTROL, FIELD_KEY, LABEL, PLATE, TREATMENT, path_column

_EXAMPLES = 3  # how many examples a message names

# What reading an image raises: a locked member of an archive is a RuntimeError.
_UNREADABLE = (OSError, KeyError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Problem:
    """Something wrong with the data, in one line with a count and examples; an error stops a sweep."""

    severity: Literal["error", "warning"]
    message: str


@dataclass(frozen=True)
class Screen:
    """A data set, opened.

    fields : one row a field: FIELD_KEY, treatment, replicate, label (missing for controls), control, any further
        ``Metadata_*`` columns, and a ``Path_<channel>`` column of locations for each channel
    channels : the network's three inputs; None is a plane of zeros
    problems : all that is wrong with the data
    source : where the root is a copy, what it is one of
    """

    name: str
    root: Path
    fields: pd.DataFrame
    channels: tuple[str | None, ...]
    problems: tuple[Problem, ...] = ()
    source: Uri | None = None

    @property
    def origin(self) -> Place:
        """Where the files are for any machine that sees them."""
        return self.source or self.root.resolve()

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, sorted."""
        return tuple(sorted(self.labelled[LABEL].unique()))

    @property
    def labelled(self) -> pd.DataFrame:
        """The fields that have a label."""
        return self.fields[self.fields[LABEL].notna()]

    @property
    def controls(self) -> pd.DataFrame:
        """The fields of untreated wells."""
        return self.fields[self.fields[CONTROL]]

    @property
    def path_columns(self) -> list[str]:
        """The columns that locate the images of the channels in use, in the network's order."""
        return [path_column(channel) for channel in self.channels if channel is not None]


# Reading ------------------------------------------------------------------------------------------------------------


def open_image(root: Path, location: str) -> AbstractContextManager[IO[bytes]]:
    """Open the file at a location of a screen for reading.

    Raises ValueError where the location leaves the root, OSError or KeyError where there is no such file.
    """
    path, member = _place(root, location)
    return _archive(path).open(member) if member else path.open("rb")


def _open_whole(root: Place, location: str) -> AbstractContextManager[IO[bytes]]:
    """The same, to be read from beginning to end: a member is unpacked at once, beside what other threads unpack."""
    if isinstance(root, Uri):
        return _open_stored(root, location)
    path, member = _place(root, location)
    return io.BytesIO(_own.archive(path).read(member)) if member else path.open("rb")


def _open_stored(root: Uri, location: str) -> AbstractContextManager[IO[bytes]]:
    """The same in an object store, which knows no links: of an archive only what is needed is fetched."""
    archive, _, member = location.partition("!")
    if leaves(archive) or leaves(member):
        raise ValueError(f"{location}: leads out of the screen's root {root}")
    if member:
        return io.BytesIO(_own.stored_archive(root, archive).read(member))
    return _own.store(root).open(archive)


def _place(root: Path, location: str) -> tuple[Path, str]:
    """A location's file, and its member where that is an archive."""
    archive, _, member = location.partition("!")
    path = _inside(root, archive)
    if leaves(member):
        raise ValueError(f"{location}: leads out of the archive")
    return path, member


def read_field(root: Place, locations: Sequence[str]) -> list[NDArray[Any]]:
    """The channels of one field, each of shape (height, width).

    root : where it is a URI, the files are read in the store

    Raises ValueError naming the file that cannot be read, or whose shape differs from the first channel's.
    """
    planes: list[NDArray[Any]] = []
    for location in locations:
        try:
            with _open_whole(root, location) as file:
                planes.append(read_image(file))
        except _UNREADABLE as error:
            raise ValueError(f"{location}: {_reason(error)}") from None
        if planes[-1].shape != planes[0].shape:
            raise ValueError(f"{location}: shape {planes[-1].shape} differs from {planes[0].shape} of {locations[0]}")
    return planes


def _inside(root: Path, relative: str) -> Path:
    path = root / relative
    # The folder is resolved once for all its files; only a file that is a link itself is followed on its own.
    folder = _resolved(path.parent)
    there = path.resolve() if path.is_symlink() else folder / path.name
    if leaves(relative) or not there.is_relative_to(_resolved(root)):
        raise ValueError(f"{relative}: leads out of the screen's root {root}")
    return there


@lru_cache(maxsize=4096)
def _resolved(folder: Path) -> Path:
    return folder.resolve()


@lru_cache(maxsize=64)
def _archive(path: Path) -> zipfile.ZipFile:
    """One open archive a process: its directory is read once. Threads that read its members wait for each other."""
    return zipfile.ZipFile(path)


class _Own(threading.local):
    """Open archives and stores of one thread; fields come plate by plate, so that few are in use at a time."""

    def __init__(self) -> None:
        self.archive = lru_cache(maxsize=4)(zipfile.ZipFile)
        self.store = lru_cache(maxsize=1)(Store)
        self.stored_archive = lru_cache(maxsize=4)(lambda root, name: zipfile.ZipFile(self.store(root).open(name)))


_own = _Own()


def _reason(error: Exception) -> str:
    return "missing" if isinstance(error, FileNotFoundError | KeyError) else str(error)


def listing(root: Path) -> list[str]:
    """The location of every file below a root, members of zip archives included, from one walk over the folders.

    Links to folders are followed, but no folder is walked from within itself.
    """
    found: list[str] = []
    for folder, below, names in os.walk(root, followlinks=True):
        below[:] = [name for name in below if not _is_cycle(Path(folder, name))]
        prefix = Path(folder).relative_to(root)
        for name in names:
            location = (prefix / name).as_posix()
            found.append(location)
            if name.lower().endswith(".zip"):
                found += [f"{location}!{member}" for member in _members(Path(folder, name).resolve())]
    return found


def _is_cycle(folder: Path) -> bool:
    return folder.is_symlink() and folder.absolute().is_relative_to(folder.resolve())


def _members(archive: Path) -> list[str]:
    try:
        return _archive(archive).namelist()
    except (zipfile.BadZipFile, OSError):
        return []  # whoever looks for one of its members will say that it is missing


# Columns ------------------------------------------------------------------------------------------------------------


def well_names(wells: "pd.Series[str]") -> "pd.Series[str]":
    """Names of wells spelled alike: ``b2`` and ``B002`` are ``B02``."""
    return wells.str.strip().str.upper().str.replace(r"^([A-Z]+)0*(\d)$", r"\g<1>0\2", regex=True)


def numbers(column: "pd.Series[Any]", name: str) -> "pd.Series[float]":
    """A column of concentrations as numbers, so that ``3`` and ``3.000000`` are the same.

    Raises ValueError naming file, row (the header is row 1) and value of the first that is no concentration.
    """
    parsed = pd.to_numeric(column, errors="coerce").astype(float)
    bad = np.flatnonzero(~np.isfinite(parsed) | (parsed < 0))
    if len(bad):
        raise ValueError(
            f"{name}: row {bad[0] + 2}: {column.name} must be a number of at least 0, but got {column.iloc[bad[0]]!r}"
        )
    return parsed.round(9)


# Checks -------------------------------------------------------------------------------------------------------------


def check_fields(fields: pd.DataFrame) -> list[Problem]:
    """What is wrong with a field table, images aside."""
    problems = []
    for column in (*FIELD_KEY, COMPOUND):
        if (empty := fields[column].isna()).any():
            rows = [f"row {index}" for index in fields.index[empty]]
            problems.append(problem("error", f"fields have no {column}", rows))
    repeated = fields[fields.duplicated(FIELD_KEY, keep=False)]
    if len(repeated):
        names = _row_names(repeated.drop_duplicates(FIELD_KEY))
        problems.append(problem("error", "fields stand in more than one row of the table", names))
    labels = fields[fields[LABEL].notna()].groupby(TREATMENT)[LABEL].unique()
    torn = labels[labels.map(len) > 1]
    if len(torn):
        names = [f"{compound} at {dose:g} ({', '.join(found)})" for (compound, dose), found in torn.items()]
        problems.append(problem("error", "treatments carry two labels", names))
    bare = sorted(set(fields[PLATE].dropna()) - set(fields.loc[fields[CONTROL], PLATE]))
    if bare:
        problems.append(problem("warning", "plates have no control wells", bare))
    if fields[LABEL].nunique() < 2:
        problems.append(Problem("error", f"the fields carry {fields[LABEL].nunique()} labels; at least 2 are needed"))
    return problems


def check_hold_out(fields: pd.DataFrame, column: str) -> list[Problem]:
    """Labels that live in a single group of the held-out column: nothing is left to learn them from.

    An error where compounds are held out, for such a label can never be predicted rightly. A warning for any other
    column: BBBC021 itself has labels of a single week, and the fold of that week is excluded on its own. Where labels
    are held out their compounds count, and it is an error if every label has but one: nothing known stands beside.
    """
    if column == LABEL:
        return _check_labels(fields)
    groups = fields[fields[LABEL].notna()].groupby(LABEL)[column].unique()
    single = groups[groups.map(len) == 1]
    if single.empty:
        return []
    names = [f"{label} ({column} {found[0]})" for label, found in single.items()]
    severity: Literal["error", "warning"] = "error" if column == COMPOUND else "warning"
    return [problem(severity, f"labels have a single {column.removeprefix('Metadata_')} and cannot be held out", names)]


def _check_labels(fields: pd.DataFrame) -> list[Problem]:
    """What is wrong with holding out labels."""
    compounds = fields[fields[LABEL].notna()].groupby(LABEL)[COMPOUND].nunique()
    single = list(compounds.index[compounds == 1])
    if single and len(single) == len(compounds):
        text = "labels have a single compound, so none can be held out as a known one; hold out another column"
        return [problem("error", text, single)]
    text = "labels have a single compound, which is held out as an unknown mechanism alone and cannot be scored"
    return [problem("warning", text, single)] if single else []


def check_images(fields: pd.DataFrame, root: Path, columns: Sequence[str]) -> list[Problem]:
    """What is wrong with the images of a field table: paths that leave the root, by row, then the files themselves."""
    nowhere: list[str] = []
    outside: list[str] = []
    inside: list[str] = []
    names = _row_names(fields)
    for column in columns:
        for name, location in zip(names, fields[column], strict=True):
            if pd.isna(location):
                nowhere.append(f"{name} {column}")
            elif _is_outside(root, location):
                outside.append(f"{name}: {location}")
            else:
                inside.append(location)
    problems = [problem("error", "image paths are empty", nowhere)] if nowhere else []
    if outside:
        problems.append(problem("error", f"image paths lead out of the screen's root {root}", outside))
    return problems + check_files(root, inside)


def _row_names(fields: pd.DataFrame) -> list[str]:
    """Rows by their key, also where a part of it is missing."""
    return [" ".join(map(str, key)) for key in fields[FIELD_KEY].itertuples(index=False, name=None)]


def _is_outside(root: Path, location: str) -> bool:
    archive, _, member = location.partition("!")
    try:
        _inside(root, archive)
    except ValueError:
        return True
    return leaves(member)


def check_files(root: Path, locations: Iterable[str]) -> list[Problem]:
    """What is wrong with a screen's image files: first which are missing, then what the headers of the others say."""
    wanted = list(dict.fromkeys(locations))
    there = set(listing(root))
    missing = [location for location in wanted if location not in there]
    problems = []
    if missing:
        text = f"of {len(wanted)} image files are missing below {root}; look at screen.root"
        problems.append(problem("error", text, missing))
    found = [location for location in wanted if location in there]
    with ThreadPoolExecutor() as pool:
        headers = dict(zip(found, pool.map(lambda location: _header(root, location), found), strict=True))
    unreadable = [f"{location}: {header}" for location, header in headers.items() if isinstance(header, str)]
    if unreadable:
        problems.append(problem("error", "image files cannot be read", unreadable))
    return problems + _odd_ones({location: header for location, header in headers.items() if isinstance(header, tuple)})


def _header(root: Path, location: str) -> tuple[tuple[int, int], str] | str:
    """Shape and dtype of an image, or what is wrong with it."""
    try:
        with open_image(root, location) as file:
            return image_header(file)
    except _UNREADABLE as error:
        return _reason(error)


def _odd_ones(headers: Mapping[str, tuple[tuple[int, int], str]]) -> list[Problem]:
    problems = []
    for name, values in (
        ("shape", {location: header[0] for location, header in headers.items()}),
        ("dtype", {location: header[1] for location, header in headers.items()}),
    ):
        counts: Counter[Any] = Counter(values.values())
        if len(counts) < 2:
            continue
        common = counts.most_common(1)[0][0]
        odd = [f"{location} {value}" for location, value in values.items() if value != common]
        problems.append(problem("error", f"image files have another {name} than most ({common})", odd))
    return problems


def problem(severity: Literal["error", "warning"], text: str, names: Iterable[str]) -> Problem:
    """A problem in one line: how many, what, and the first few by name."""
    listed = list(names)
    examples = ", ".join(listed[:_EXAMPLES]) + (", ..." if len(listed) > _EXAMPLES else "")
    return Problem(severity, f"{len(listed)} {text}: {examples}")
