"""OME-Zarr plates: wells and fields from the plate's own metadata, compounds and labels from a table that is joined.

References
----------
OME-NGFF 0.4 and 0.5, "plate" and "well".
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from moa_ray.common.errors import InputError
from moa_ray.common.schema import FIELD, FIELD_KEY, PLATE, WELL, path_column, require_columns
from moa_ray.common.uri import leaves
from moa_ray.config.preparation import Preparation
from moa_ray.config.screens import OmeZarrSettings
from moa_ray.screens.screen import Problem, Screen, problem, well_names
from moa_ray.screens.table import screen_of
from moa_ray.screens.table_file import read_table
from moa_ray.screens.text_cells import clean_column
from moa_ray.screens.zarr_metadata import attributes

LOCATION, ACQUISITION = "location", "acquisition"  # columns beside the key of a field


def open_screen(root: Path, settings: OmeZarrSettings, preparation: Preparation | None = None) -> Screen:
    """Open a screen of OME-Zarr plates.

    Parameters
    ----------
    root : Path
        A plate, or a folder of plates.
    settings : OmeZarrSettings
        The section ``screen``: the channels, and the table of labels.
    preparation : Preparation, optional
        How fields become tiles, which may make plates of other sizes and depths comparable.

    Returns
    -------
    Screen
        Faults of the fields and of the images are its problems, also wells that no row names, and the reverse.

    Raises
    ------
    InputError
        If no plate is there, its metadata cannot be understood, or the table cannot be joined to it.
    """
    images = plate_images(root, settings.root.name)
    inside, beside = root / settings.fields, root.parent / settings.fields
    path = beside if beside.exists() and not inside.exists() else inside
    labels = read_table(path, settings.separator, settings.encoding)
    joined, problems = _joined(images, labels, settings, str(path))
    locations = pd.DataFrame({path_column(channel): joined[LOCATION] for channel in settings.images})
    columns = {**settings.columns, **{column: column for column in FIELD_KEY}}
    by_plate = settings.model_copy(update={"columns": columns})
    screen = screen_of(root, by_plate, joined, locations, str(path), preparation)
    return replace(screen, problems=(*screen.problems, *problems))


def plate_images(root: Path, name: str) -> pd.DataFrame:
    """List the fields of plates by their metadata.

    Parameters
    ----------
    root : Path
        A plate, or a folder of plates.
    name : str
        What the root is called, where it is a plate without a name; without its ``.zarr``.

    Returns
    -------
    DataFrame, one row per field
        Plate, well, field, the location of the image's group, and the acquisition where the plate has several.

    Raises
    ------
    InputError
        If no plate is there, or its metadata cannot be understood.
    """
    group = attributes(root, ".")
    if group is not None and "plate" in group:
        rows = list(_fields(root, ".", group, name))
    else:
        folders = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        groups = {folder: found for folder in folders if (found := attributes(root, folder)) and "plate" in found}
        rows = [row for folder, found in groups.items() for row in _fields(root, folder, found, folder)]
    if not rows:
        raise InputError(f"{root}: no OME-Zarr plate; screen.root is a plate, or a folder of plates")
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


def _fields(root: Path, folder: str, group: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    plate = group["plate"]
    try:
        plate_name = str(plate.get("name") or name.removesuffix(".zarr").removesuffix(".ome"))
        several = len(plate.get("acquisitions", ())) > 1
        for well in plate["wells"]:
            path = str(well["path"])
            found = attributes(root, f"{folder}/{path}") if not leaves(path) else None
            if found is None or "well" not in found:
                raise InputError(f"{root / folder}: well {path} of the plate is missing; it may be copied in part")
            for image in found["well"]["images"]:
                yield {
                    PLATE: plate_name,
                    WELL: "".join(path.split("/")),
                    FIELD: str(image["path"]),
                    LOCATION: PurePosixPath(folder, path, str(image["path"])).as_posix(),
                    ACQUISITION: str(image.get("acquisition", "")) if several else None,
                }
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{root / folder}: metadata of a plate that are not understood: {error!r}") from None


def _joined(
    images: pd.DataFrame, labels: pd.DataFrame, settings: OmeZarrSettings, name: str
) -> tuple[pd.DataFrame, list[Problem]]:
    """Join the table to the fields by plate, well and field, as far as it has them."""
    keys = {column: settings.columns[column] for column in FIELD_KEY if column in settings.columns}
    if WELL not in keys:
        raise InputError(f"screen.columns: {WELL} must be mapped to a column of {name}, by which it is joined")
    require_columns(labels, [*settings.columns.values()], name)
    by_key = pd.DataFrame({column: clean_column(labels[source]) for column, source in keys.items()})
    for table in (by_key, images):
        table[WELL] = well_names(table[WELL])
    repeated = by_key[by_key.duplicated(list(keys), keep=False) & by_key[WELL].notna()]
    if len(repeated):
        rows = ", ".join(map(str, repeated.index[:4]))
        raise InputError(f"{name}: rows {rows} name one {' and '.join(map(_word, keys))}; keep one row of each")
    beside = labels.drop(columns=[column for column in (*FIELD_KEY, LOCATION, ACQUISITION) if column in labels])
    kept = {column: source for column, source in settings.columns.items() if column not in keys}
    beside = beside.assign(**{source: labels[source] for source in kept.values()})
    rows = by_key.join(beside).assign(row=labels.index)
    joined = images.merge(rows, on=list(keys), how="outer", validate="many_to_one", indicator="side")
    problems = []
    if (without := joined["side"] == "left_only").any():
        fields = joined[without]
        wells = dict.fromkeys(f"{plate} {well}" for plate, well in fields[[PLATE, WELL]].to_numpy())
        problems.append(problem("warning", f"wells of the plate are named by no row of {name} and left out", wells))
    if (lost := joined["side"] == "right_only").any():
        names = [f"row {int(row)} ({well})" for row, well in joined.loc[lost, ["row", WELL]].to_numpy()]
        problems.append(problem("warning", f"rows of {name} name no well of the plate", names))
    joined = joined[joined["side"] == "both"].drop(columns=["side", "row"]).reset_index(drop=True)
    if joined.empty:
        raise InputError(f"{name}: no row names a well of the plate by {', '.join(keys.values())}")
    return joined, problems


def _word(column: str) -> str:
    return column.removeprefix("Metadata_").lower()
