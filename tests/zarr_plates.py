"""OME-Zarr plates and images as small as a test can stand on, written by zarr itself."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

NAMES = ("DNA", "ER", "Actin")


def zarr_image(
    path: Path, pixels: Any, version: str = "0.5", names: Sequence[str] = NAMES, axes: str = "tczyx", **options: Any
) -> None:
    """Write an image of two levels, the second a quarter of the first and of other pixels.

    Parameters
    ----------
    path : Path
        The group.
    pixels : array
        The axes are the last ones of `axes`.
    version : {"0.4", "0.5"}
        Of OME-Zarr: of Zarr 2 or 3.
    names : sequence of str
        Names of the channels.
    axes : str
        A letter an axis.
    **options
        Of `zarr.Group.create_array`.
    """
    import zarr

    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    kinds = {"t": "time", "c": "channel"}
    own = axes[-pixels.ndim :]
    options = {"chunks": (*[1] * (pixels.ndim - 2), 16, 16)} | options
    for level, content in enumerate((pixels, pixels[..., ::2, ::2] * 0 + 1)):
        group.create_array(str(level), data=content, **options)
    scales = {
        "axes": [{"name": axis, "type": kinds.get(axis, "space")} for axis in own],
        "datasets": [{"path": str(level)} for level in range(2)],
    }
    omero = {"channels": [{"label": name} for name in names]}
    put(group, version, {"multiscales": [scales], "omero": omero})


def put(group: Any, version: str, metadata: dict[str, Any]) -> None:
    """Write OME metadata as a version has them."""
    if version == "0.4":
        for section in metadata.values():
            if isinstance(section, list):
                section[0]["version"] = version
        group.attrs.update(metadata)
    else:
        group.attrs.update({"ome": {"version": version, **metadata}})


def zarr_plate(path: Path, wells: Sequence[str], fields: int = 2, version: str = "0.5", **more: Any) -> None:
    """Write a plate of wells such as ``A/1``, its images of three channels of noise.

    Parameters
    ----------
    path : Path
        The plate's group.
    wells : sequence of str
        Their paths.
    fields : int
        Images a well.
    version : {"0.4", "0.5"}
        Of OME-Zarr.
    **more
        Further keys of the plate's metadata.
    """
    import zarr

    format_: Any = 2 if version == "0.4" else 3
    plate = zarr.open_group(str(path), mode="w", zarr_format=format_)
    rows, columns = (sorted({well.split("/")[part] for well in wells}) for part in (0, 1))
    listed = [
        {"path": well, "rowIndex": rows.index(well.split("/")[0]), "columnIndex": columns.index(well.split("/")[1])}
        for well in wells
    ]
    names = {"rows": [{"name": row} for row in rows], "columns": [{"name": column} for column in columns]}
    put(plate, version, {"plate": {"name": "P1", "wells": listed, **names, **more}})
    for number, well in enumerate(wells):
        zarr.open_group(str(path / well.split("/")[0]), mode="a", zarr_format=format_)
        group = zarr.open_group(str(path / well), mode="w", zarr_format=format_)
        images = [
            {"path": str(field), **({"acquisition": field} if more.get("acquisitions") else {})}
            for field in range(fields)
        ]
        put(group, version, {"well": {"images": images}})
        for field in range(fields):
            rng = np.random.default_rng([number, field])
            pixels = rng.poisson(200, (1, 3, 1, 32, 32)).astype(np.uint16)
            zarr_image(path / well / str(field), pixels, version)
