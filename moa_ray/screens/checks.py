"""The checks of a screen: what is wrong with its field table and with its image files, all of it at once.

A problem is one line with a count and the first few examples, so that a user mends a screen in one go instead of error
by error.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd

from moa_ray.common.errors import InputError
from moa_ray.common.schema import COMPOUND, CONTROL, FIELD_KEY, LABEL, PLATE, TREATMENT
from moa_ray.common.uri import leaves
from moa_ray.screens.image_files import image_header
from moa_ray.screens.reading import UNREADABLE, listing, open_image, path_inside, reason, unpacked_size
from moa_ray.screens.screen import Problem, problem


def check_fields(fields: pd.DataFrame) -> list[Problem]:
    """Find what is wrong with a field table, images aside.

    Parameters
    ----------
    fields : DataFrame, one row per field
        As `Screen.fields`.

    Returns
    -------
    list of Problem
        Empty key columns, repeated fields, treatments of two labels, plates without controls, too few labels.
    """
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
        names = [f"{compound} at {dose:g} ({', '.join(several)})" for (compound, dose), several in torn.items()]
        problems.append(problem("error", "treatments carry two labels", names))
    bare = sorted(set(fields[PLATE].dropna()) - set(fields.loc[fields[CONTROL], PLATE]))
    if bare:
        problems.append(problem("warning", "plates have no control wells", bare))
    if fields[LABEL].nunique() < 2:
        problems.append(Problem("error", f"the fields carry {fields[LABEL].nunique()} labels; at least 2 are needed"))
    return problems


def check_hold_out(fields: pd.DataFrame, column: str) -> list[Problem]:
    """Find labels that live in a single group of the held-out column, so that nothing is left to learn them from.

    Parameters
    ----------
    fields : DataFrame, one row per field
        As `Screen.fields`.
    column : str
        The metadata column whose groups are held out.

    Returns
    -------
    list of Problem
        At most one.

    Notes
    -----
    It is an error where compounds are held out, for such a label can never be predicted rightly, and a warning for any
    other column: BBBC021 itself has labels of a single week, and the fold of that week is excluded on its own. Where
    labels are held out their compounds count, and it is an error if every label has but one: no known compound can be
    held out beside it.
    """
    if column == LABEL:
        return _check_labels(fields)
    groups = fields[fields[LABEL].notna()].groupby(LABEL)[column].unique()
    single = groups[groups.map(len) == 1]
    if single.empty:
        return []
    names = [f"{label} ({column} {values[0]})" for label, values in single.items()]
    text = f"labels have a single {column.removeprefix('Metadata_')} and cannot be held out"
    if column != COMPOUND:
        return [problem("warning", text, names)]
    advice = "folds.min_compounds: 2 leaves them out, with below: train_only it trains on them alone"
    return [problem("error", f"{text} ({advice})", names)]


def _check_labels(fields: pd.DataFrame) -> list[Problem]:
    """Find labels of a single compound, where labels are held out."""
    compounds = fields[fields[LABEL].notna()].groupby(LABEL)[COMPOUND].nunique()
    single = list(compounds.index[compounds == 1])
    if single and len(single) == len(compounds):
        text = "labels have a single compound, so none can be held out as a known one; hold out another column"
        return [problem("error", text, single)]
    text = "labels have a single compound, which is held out as an unknown mechanism alone and cannot be scored"
    return [problem("warning", text, single)] if single else []


def check_images(fields: pd.DataFrame, root: Path, columns: Sequence[str]) -> list[Problem]:
    """Find what is wrong with the images of a field table: first its paths, by row, then the files themselves.

    Parameters
    ----------
    fields : DataFrame, one row per field
        As `Screen.fields`.
    root : Path
        The screen's root.
    columns : sequence of str
        The columns of locations that are in use.

    Returns
    -------
    list of Problem
        Empty paths, paths that lead out of the root, and what `check_files` finds.
    """
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
    """Name rows by their key, also where a part of it is missing."""
    return [" ".join(map(str, key)) for key in fields[FIELD_KEY].itertuples(index=False, name=None)]


def _is_outside(root: Path, location: str) -> bool:
    archive, _, member = location.partition("!")
    try:
        path_inside(root, archive)
    except InputError:
        return True
    return leaves(member)


def check_files(root: Path, locations: Iterable[str]) -> list[Problem]:
    """Find what is wrong with a screen's image files: which are missing, then what the headers of the others say.

    Parameters
    ----------
    root : Path
        The screen's root.
    locations : iterable of str
        The files in use, repeated or not.

    Returns
    -------
    list of Problem
        Missing files, unreadable files, files of another shape or dtype than most.
    """
    wanted = list(dict.fromkeys(locations))
    listed = set(listing(root))
    missing = [location for location in wanted if location not in listed]
    problems = []
    if missing:
        text = f"of {len(wanted)} image files are missing below {root}; look at screen.root"
        problems.append(problem("error", text, missing))
    present = [location for location in wanted if location in listed]
    with ThreadPoolExecutor() as pool:
        headers = dict(zip(present, pool.map(lambda location: _header(root, location), present), strict=True))
    unreadable = [f"{location}: {header}" for location, header in headers.items() if isinstance(header, str)]
    if unreadable:
        problems.append(problem("error", "image files cannot be read", unreadable))
    return problems + _odd_ones({location: header for location, header in headers.items() if isinstance(header, tuple)})


def _header(root: Path, location: str) -> tuple[tuple[int, int], str] | str:
    """Return shape and dtype of an image, or what is wrong with it."""
    try:
        with open_image(root, location) as file:
            return image_header(file, unpacked_size(root, location))
    except UNREADABLE as error:
        return reason(error)


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
