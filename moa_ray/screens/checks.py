"""The checks of a screen: what is wrong with its field table and with its image files, all of it at once.

A problem is one line with a count and the first few examples, so that a user mends a screen in one go instead of error
by error.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pandas as pd

from moa_ray.common.errors import InputError
from moa_ray.common.schema import COMPOUND, CONTROL, FIELD_KEY, LABEL, PATH_PREFIX, PLATE, TREATMENT
from moa_ray.common.uri import leaves
from moa_ray.config.planes import Plane
from moa_ray.config.preparation import Preparation
from moa_ray.screens.comparable import Comparable, odd_images
from moa_ray.screens.duplicates import NO_PLANES, check_contents, check_places, check_wells
from moa_ray.screens.image_columns import is_of_another_machine
from moa_ray.screens.image_files import image_header
from moa_ray.screens.planes import ADVICE, Image, image_identity
from moa_ray.screens.reading import UNREADABLE, listing, open_image, reason, unpacked_size
from moa_ray.screens.root_folder import FOLLOW, path_inside
from moa_ray.screens.screen import Problem, problem
from moa_ray.screens.zarr_images import is_zarr, metadata_file, zarr_header

ONE_PLATE: Mapping[str, str] = {}
STRICT = Comparable()


def check_fields(fields: pd.DataFrame) -> list[Problem]:
    """Find what is wrong with a field table, images aside.

    Parameters
    ----------
    fields : DataFrame, one row per field
        As `Screen.fields`; the index is the row of the file.

    Returns
    -------
    list of Problem
        Empty key columns, repeated fields, wells of two compounds, treatments of two labels, plates without controls,
        too few labels.
    """
    problems = []
    for column in (*FIELD_KEY, COMPOUND):
        if (empty := fields[column].isna()).any():
            rows = [f"row {index}" for index in fields.index[empty]]
            problems.append(problem("error", f"fields have no {column}", rows))
    repeated = fields[fields.duplicated(FIELD_KEY, keep=False)]
    if len(repeated):
        first = repeated.drop_duplicates(FIELD_KEY)
        rows_of = repeated.astype(dict.fromkeys(FIELD_KEY, "object")).fillna("").groupby(FIELD_KEY, sort=False)
        rows = [", ".join(map(str, group)) for group in rows_of.groups.values()]
        names = [f"{name} (rows {of})" for name, of in zip(_row_names(first), rows, strict=True)]
        problems.append(problem("error", "fields stand in more than one row of the table", names))
    problems += check_wells(fields)
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


def check_images(
    fields: pd.DataFrame,
    root: Path,
    columns: Sequence[str],
    planes: Mapping[str, Plane] = NO_PLANES,
    preparation: Preparation | None = None,
) -> list[Problem]:
    """Find what is wrong with the images of a field table: first its paths, by row, then the files themselves.

    Parameters
    ----------
    fields : DataFrame, one row per field
        As `Screen.fields`; the index is the row of the file.
    root : Path
        The screen's root.
    columns : sequence of str
        The columns of locations that are in use.
    planes : mapping of Plane, by channel
        Which plane of its files a channel is, where they hold more than one.
    preparation : Preparation, optional
        How fields become tiles, which may make plates of other sizes and depths comparable.

    Returns
    -------
    list of Problem
        Empty paths, paths that lead out of the root, images that stand in two places, and what `check_files` finds.
    """
    nowhere: list[str] = []
    outside: dict[str, list[str]] = {}  # by what may be done about it
    inside: list[Image] = []
    plates: dict[str, str] = {}
    names = _row_names(fields)
    for column in columns:
        plane = planes.get(column.removeprefix(PATH_PREFIX))
        for name, location, plate in zip(names, fields[column], fields[PLATE], strict=True):
            if pd.isna(location):
                nowhere.append(f"{name} {column}")
            elif (advice := _outside(root, location)) is not None:
                outside.setdefault(advice, []).append(f"{name}: {location}")
            else:
                inside.append(image_identity(location, plane))
                plates[location] = plate
    problems = [problem("error", "image paths are empty", nowhere)] if nowhere else []
    for advice, paths in outside.items():
        problems.append(problem("error", f"image paths lead out of the screen's root {root}{advice}", paths))
    twice = [*check_places(fields, columns, planes), *check_contents(fields, columns, root, planes)]
    return problems + twice + check_files(root, inside, plates, Comparable.of(preparation, fields))


def _row_names(fields: pd.DataFrame) -> list[str]:
    """Name rows by their key, also where a part of it is missing."""
    return [" ".join(map(str, key)) for key in fields[FIELD_KEY].itertuples(index=False, name=None)]


def _outside(root: Path, location: str) -> str | None:
    """Say what may be done about a location that leads out of the root; None where it does not."""
    archive, _, member = location.partition("!")
    if is_of_another_machine(archive) or archive.startswith("/"):
        return "; cut off what does not lie there with screen.strip, as in strip: 'D:\\screen'"
    try:
        path_inside(root, archive)
    except InputError as error:
        return f" by a symbolic link; {FOLLOW}" if FOLLOW in str(error) else ""
    return "" if leaves(member) else None


def check_files(
    root: Path, images: Iterable[str | Image], plates: Mapping[str, str] = ONE_PLATE, comparable: Comparable = STRICT
) -> list[Problem]:
    """Find what is wrong with a screen's image files: which are missing, then what the headers of the others say.

    Parameters
    ----------
    root : Path
        The screen's root.
    images : iterable of str or tuple
        The files in use, or the planes of them as `image_identity` gives them; repeated or not.
    plates : mapping of str, by location
        The plates of the files; by default they are all of one.
    comparable : Comparable
        Which differences between plates do not count; by default all do.

    Returns
    -------
    list of Problem
        Missing files, unreadable files, files of another shape or dtype than most.
    """
    wanted = list(dict.fromkeys(image_identity(image) if isinstance(image, str) else image for image in images))
    files = dict.fromkeys(location for location, _ in wanted)
    listed = set(listing(root))
    groups = {location for location in files if location not in listed and is_zarr(root, location)}
    listed |= {location for location in groups if metadata_file(root, location) != location}
    missing = [location for location in files if location not in listed]
    problems = []
    if missing:
        text = f"of {len(files)} image files are missing below {root}; look at screen.root{_elsewhere(missing, listed)}"
        problems.append(problem("error", text, missing))
    present = [image for image in wanted if image[0] in listed]
    with ThreadPoolExecutor() as pool:
        headers = dict(zip(present, pool.map(lambda image: _header(root, *image), present), strict=True))
    problems += _unreadable([(image[0], header) for image, header in headers.items() if isinstance(header, str)])
    sound = {image[0]: header for image, header in headers.items() if isinstance(header, tuple)}
    return problems + odd_images(sound, plates, comparable)


def _elsewhere(missing: Sequence[str], listed: Collection[str]) -> str:
    """Say where a file of the name of the first is, so that the column of its folders is not forgotten."""
    name = PurePosixPath(missing[0]).name
    places = [location for location in listed if location.rsplit("/", 1)[-1] == name]
    return f" and at the column of folders, since {places[0]} is there" if len(places) == 1 else ""


def _header(root: Path, location: str, plane: Plane | None) -> tuple[tuple[int, int], str] | str:
    """Return shape and dtype of an image, or what is wrong with it."""
    try:
        if is_zarr(root, location):
            return zarr_header(root, location, plane)
        with open_image(root, location) as file:
            return image_header(file, unpacked_size(root, location), plane)
    except UNREADABLE as error:
        return reason(error)


def _unreadable(reasons: Sequence[tuple[str, str]]) -> list[Problem]:
    """Gather the files that cannot be read, apart those of several planes of which the sweep file chooses none."""
    names: dict[str, list[str]] = {}
    for location, reason_ in dict.fromkeys(reasons):
        held, advice, choice = reason_.partition(ADVICE)
        text = f"image files hold more than one plane{advice}{choice}" if advice else "image files cannot be read"
        names.setdefault(text, []).append(f"{location} {held}" if advice else f"{location}: {reason_}")
    return [problem("error", text, of_text) for text, of_text in names.items()]
