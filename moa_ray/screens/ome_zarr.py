"""OME-Zarr plates: wells and fields from the plate's own metadata, compounds and labels from tables joined to them.

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
from moa_ray.common.schema import FIELD, FIELD_KEY, PLATE, WELL, path_column
from moa_ray.common.uri import leaves
from moa_ray.config.joined_tables import joins_of
from moa_ray.config.preparation import Preparation
from moa_ray.config.screens import OmeZarrSettings
from moa_ray.screens.joined_tables import join_tables
from moa_ray.screens.left_out import join_left_out
from moa_ray.screens.screen import Screen, well_names
from moa_ray.screens.table import require_map, screen_of
from moa_ray.screens.zarr_metadata import attributes

LOCATION, ACQUISITION = "location", "acquisition"  # columns beside the key of a field


def open_screen(root: Path, settings: OmeZarrSettings, preparation: Preparation | None = None) -> Screen:
    """Open a screen of OME-Zarr plates.

    Parameters
    ----------
    root : Path
        A plate, or a folder of plates.
    settings : OmeZarrSettings
        The section ``screen``: the channels, and the tables that are joined.
    preparation : Preparation, optional
        How fields become tiles, which may make plates of other sizes and depths comparable.

    Returns
    -------
    Screen
        Faults of the fields and of the images are its problems, and what did not join.

    Raises
    ------
    InputError
        If no plate is there, its metadata cannot be understood, or a table cannot be joined to it.
    """
    images = plate_images(root, settings.root.name)
    columns = {**{column: column for column in FIELD_KEY}, **settings.columns}
    joined = join_tables(_folder_of_tables(root, settings), settings, images.drop(columns=LOCATION), columns)
    name = f"{root} and the tables joined to it"
    require_map(columns, joined.table, name)
    locations = pd.DataFrame({path_column(channel): images[LOCATION] for channel in settings.images})
    mapped = settings.model_copy(update={"columns": columns})
    screen = screen_of(root, mapped, joined.table, locations.loc[joined.table.index], name, preparation)
    left_out = join_left_out([joined.left_out, screen.left_out])
    return replace(screen, problems=(*joined.problems, *screen.problems), left_out=left_out)


def _folder_of_tables(root: Path, settings: OmeZarrSettings) -> Path:
    """Return the root, or the folder that a plate lies in where the tables are beside it."""
    files = [join.file for join in (*joins_of(settings.platemap), *joins_of(settings.annotation))]
    is_plate = "plate" in (attributes(root, ".") or {})
    return root.parent if is_plate and not any((root / file).exists() for file in files) else root


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
        Plate, well, field, the location of the image's group, and the acquisition where the plate has several; the
        index is unique.

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
    fields = pd.DataFrame(rows).dropna(axis="columns", how="all")
    fields[WELL] = well_names(fields[WELL])
    return fields.set_axis(fields[LOCATION].to_list())


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
