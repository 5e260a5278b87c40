"""Where the images of a table's fields are: its columns of paths as locations below the root."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import pandas as pd

from moa_ray.common.schema import path_column
from moa_ray.config.planes import ImageSettings, Plane

Source = str | ImageSettings


def image_locations(table: pd.DataFrame, images: Mapping[str, Source]) -> pd.DataFrame:
    """Return the locations of the images of a table.

    Parameters
    ----------
    table : DataFrame, one row per field
        The table as it is in its file.
    images : mapping
        Channel name to the table's column of paths, or to a section that names it.

    Returns
    -------
    DataFrame, one row per field
        A ``Path_<channel>`` column for each channel, missing where the table's cell is empty.
    """
    return pd.DataFrame(
        {
            path_column(channel): table[column].astype("str").map(_location, na_action="ignore")
            for channel, source in images.items()
            for column in path_columns_of(source)
        }
    )


def path_columns_of(source: Source) -> Sequence[str]:
    """Return the columns of a table that say where the images of a channel are.

    Parameters
    ----------
    source : str or ImageSettings
        What the sweep file says of the channel.

    Returns
    -------
    sequence of str
        The column of paths.
    """
    return [source.path if isinstance(source, ImageSettings) else source]


def planes_of_images(images: Mapping[str, Source]) -> dict[str, Plane]:
    """Return which plane of its files each channel is.

    Parameters
    ----------
    images : mapping
        What the sweep file says of each channel.

    Returns
    -------
    dict of Plane, by channel
        Without the channels whose files hold one plane.
    """
    planes = {name: source.plane for name, source in images.items() if isinstance(source, ImageSettings)}
    return {channel: plane for channel, plane in planes.items() if plane is not None}


def _location(path: str) -> str:
    """A path in the one spelling that a listing of the files has."""
    return PurePosixPath(path.replace("\\", "/")).as_posix()
