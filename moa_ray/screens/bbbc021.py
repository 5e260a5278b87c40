"""BBBC021v1: human MCF7 cells, compound profiling (Caie et al. 2010; Broad Bioimage Benchmark Collection).

The root holds ``BBBC021_v1_image.csv``, ``BBBC021_v1_moa.csv`` and the plates, as folders ``WeekN/WeekN_PLATE/`` or
``WeekN_PLATE/``, or as the zip files that were downloaded.

Source: https://bbbc.broadinstitute.org/BBBC021.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from moa_ray.downloads import Download
from moa_ray.screens import Problem, Screen, check_fields, check_images, listing, numbers, well_names
from moa_ray.tables import (
    COMPOUND,
    CONCENTRATION,
    CONTROL,
    FIELD,
    LABEL,
    PLATE,
    REPLICATE,
    TREATMENT,
    WEEK,
    WELL,
    path_column,
    require_columns,
)

CHANNELS = ("Actin", "Tubulin", "DAPI")
CONTROL_COMPOUND = "DMSO"

PLATES = {
    "Week1": (22123, 22141, 22161, 22361, 22381, 22401),
    "Week2": (24121, 24141, 24161, 24361, 24381, 24401),
    "Week3": (25421, 25441, 25461, 25681, 25701, 25721),
    "Week4": (27481, 27521, 27542, 27801, 27821, 27861),
    "Week5": (28901, 28921, 28961, 29301, 29321, 29341),
    "Week6": (31641, 31661, 31681, 32061, 32121, 32161),
    "Week7": (34341, 34381, 34641, 34661, 34681),
    "Week8": (38203, 38221, 38241, 38341, 38342),
    "Week9": (39206, 39221, 39222, 39282, 39283, 39301),
    "Week10": (40111, 40115, 40119),
}
DOWNLOADS = tuple(
    Download(f"https://data.broadinstitute.org/bbbc/BBBC021/{name}", name)
    for name in (
        "BBBC021_v1_image.csv",
        "BBBC021_v1_moa.csv",
        *(f"BBBC021_v1_images_{week}_{plate}.zip" for week, plates in PLATES.items() for plate in plates),
    )
)

# Taxol stands on every plate as a control. Only these wells of Week1 hold it as a treatment of its own.
_TAXOL_PLATES = ("Week1_22123", "Week1_22141", "Week1_22161")
_TAXOL_WELLS = ("D03", "D04", "D05")

# ..._s2_w1<GUID>.tif is the second field of view; what follows the GUID numbers crops of that field.
_SITE = re.compile(r"_s(?P<site>\d+)_w\d[0-9A-Fa-f-]*(?:_(?P<crop>\d+))?\.\w+$")


def open_screen(root: Path, channels: Sequence[str | None] = CHANNELS) -> Screen:
    """The annotated treatments and the DMSO wells of BBBC021.

    Raises ValueError where a table is missing or cannot be understood; what is wrong with the images is a problem of
    the screen.
    """
    unknown = [channel for channel in channels if channel not in (*CHANNELS, None)]
    if unknown or len(channels) > 3:
        raise ValueError(f"screen.channels: up to three of {', '.join(CHANNELS)}, but got {list(channels)!r}")
    images = _image_table(root)
    fields = _annotate(images, _labels(root)).reset_index(drop=True)
    used = [path_column(channel) for channel in channels if channel is not None]
    located = _locate(root, fields)
    problems: list[Problem] = [*check_fields(located), *check_images(located, root, used)]
    padded = (*channels, *[None] * (3 - len(channels)))
    return Screen("bbbc021", root, located, padded, tuple(problems))


def _read(root: Path, name: str, columns: Sequence[str]) -> pd.DataFrame:
    """A table as text, whatever its line ends and quotes are."""
    path = root / name
    try:
        table = pd.read_csv(path, dtype=str, encoding="utf-8-sig", skipinitialspace=True, keep_default_na=False)
    except FileNotFoundError:
        raise ValueError(
            f"{path}: missing; the root of a bbbc021 screen holds {name} (from the Broad Bioimage Benchmark "
            "Collection, BBBC021), so look at screen.root, or fetch it: python -m moa_ray.prepare SWEEP.yaml --download"
        ) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: no CSV table: {error}") from None
    require_columns(table, columns, str(path))
    return table.apply(lambda column: column.str.strip())


def _image_table(root: Path) -> pd.DataFrame:
    """One row a field with the columns of the field table, labels not yet among them."""
    name = "BBBC021_v1_image.csv"
    files = {channel: f"Image_FileName_{channel}" for channel in CHANNELS}
    folders = {channel: f"Image_PathName_{channel}" for channel in CHANNELS}
    given = {
        PLATE: "Image_Metadata_Plate_DAPI",
        WELL: "Image_Metadata_Well_DAPI",
        COMPOUND: "Image_Metadata_Compound",
        REPLICATE: "Replicate",
    }
    dose = "Image_Metadata_Concentration"
    table = _read(root, name, [*given.values(), dose, *files.values(), *folders.values()])
    fields = pd.DataFrame({column: table[source] for column, source in given.items()})
    fields[WELL] = well_names(fields[WELL])
    fields[CONCENTRATION] = numbers(table[dose], str(root / name))
    fields[WEEK] = fields[PLATE].str.extract(r"^(Week\d+)_", expand=False).fillna(fields[PLATE])
    sites = table[files["DAPI"]].str.extract(_SITE)
    fields[FIELD] = sites["site"].fillna(table[files["DAPI"]]) + ("_" + sites["crop"]).fillna("")
    for channel in CHANNELS:
        folder = table[folders[channel]].str.replace("\\", "/").str.strip("/")
        fields[path_column(channel)] = folder + "/" + table[files[channel]]
    return fields


def _labels(root: Path) -> pd.DataFrame:
    name = "BBBC021_v1_moa.csv"
    table = _read(root, name, ["compound", "concentration", "moa"])
    labels = pd.DataFrame({COMPOUND: table["compound"], LABEL: table["moa"]})
    labels[CONCENTRATION] = numbers(table["concentration"], str(root / name))
    labels = labels[labels[COMPOUND] != CONTROL_COMPOUND].drop_duplicates()
    torn = labels[labels.duplicated(TREATMENT)]
    if len(torn):
        compound, dose = torn.iloc[0][COMPOUND], torn.iloc[0][CONCENTRATION]
        raise ValueError(f"{root / name}: {compound} at {dose:g} carries two labels; keep one of the rows")
    return labels


def _annotate(fields: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """Join the labels by treatment; keep annotated treatments and DMSO alone."""
    fields = fields.merge(labels, on=TREATMENT, how="left", validate="many_to_one")
    fields[CONTROL] = fields[COMPOUND] == CONTROL_COMPOUND
    stray_taxol = (fields[COMPOUND] == "taxol") & ~(fields[PLATE].isin(_TAXOL_PLATES) & fields[WELL].isin(_TAXOL_WELLS))
    kept = fields[(fields[LABEL].notna() | fields[CONTROL]) & ~stray_taxol]
    paths = [path_column(channel) for channel in CHANNELS]
    return kept[[column for column in kept.columns if column not in paths] + paths]


def _locate(root: Path, fields: pd.DataFrame) -> pd.DataFrame:
    """Replace the paths of the table by the locations of the files, wherever below the root the plate's folder is.

    A file is known by its plate's folder and its name. One that is nowhere keeps the table's path.
    """
    where: dict[str, str] = {}
    for location in listing(root):
        tail = "/".join(location.replace("!", "/").rsplit("/", 2)[-2:])
        if "!" not in location or tail not in where:  # an unpacked file is quicker to read than a packed one
            where[tail] = location
    located = fields.copy()
    for channel in CHANNELS:
        column = path_column(channel)
        located[column] = [where.get("/".join(path.rsplit("/", 2)[-2:]), path) for path in fields[column]]
    return located
