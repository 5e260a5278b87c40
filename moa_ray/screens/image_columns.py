"""Where the images of a table's fields are: its columns of paths as locations below the root."""

from collections.abc import Mapping
from pathlib import PurePosixPath

import pandas as pd

from moa_ray.common.schema import path_column


def image_locations(table: pd.DataFrame, images: Mapping[str, str]) -> pd.DataFrame:
    """Return the locations of the images of a table.

    Parameters
    ----------
    table : DataFrame, one row per field
        The table as it is in its file.
    images : mapping of str to str
        Channel name to the table's column of paths.

    Returns
    -------
    DataFrame, one row per field
        A ``Path_<channel>`` column for each channel, missing where the table's cell is empty.
    """
    return pd.DataFrame(
        {
            path_column(channel): table[source].astype("str").map(_location, na_action="ignore")
            for channel, source in images.items()
        }
    )


def _location(path: str) -> str:
    """A path in the one spelling that a listing of the files has."""
    return PurePosixPath(path.replace("\\", "/")).as_posix()
