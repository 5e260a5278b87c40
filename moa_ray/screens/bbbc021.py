"""BBBC021v1: compound profiling of human MCF7 cells.

The root holds ``BBBC021_v1_image.csv``, ``BBBC021_v1_moa.csv`` and the plates, as folders ``WeekN/WeekN_PLATE/`` or
``WeekN_PLATE/``, or as the zip files that were downloaded.

Source: Caie et al. 2010; Broad Bioimage Benchmark Collection, https://bbbc.broadinstitute.org/BBBC021.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from moa_ray.common.errors import InputError
from moa_ray.common.schema import (
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
from moa_ray.config.screen_rows import MISSING, AliasNames
from moa_ray.screens.checks import check_fields, check_images
from moa_ray.screens.downloads import Download
from moa_ray.screens.left_out import NO_LABEL, count_left_out, join_left_out
from moa_ray.screens.names import check_names, merge_names, one_name
from moa_ray.screens.reading import listing
from moa_ray.screens.screen import Problem, Screen, numbers, well_names
from moa_ray.screens.table_file import read_table
from moa_ray.screens.text_cells import clean_cells, is_word

TABLES = ("BBBC021_v1_image.csv", "BBBC021_v1_moa.csv")
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
        *TABLES,
        *(f"BBBC021_v1_images_{week}_{plate}.zip" for week, plates in PLATES.items() for plate in plates),
    )
)

# Taxol stands on every plate as a control. Only these wells of Week1 hold it as a treatment of its own.
_TAXOL_PLATES = ("Week1_22123", "Week1_22141", "Week1_22161")
_TAXOL_WELLS = ("D03", "D04", "D05")
_TAXOL_AS_CONTROL = "taxol as a control of the plate"

# ..._s2_w1<GUID>.tif is the second field of view; what follows the GUID numbers crops of that field.
_SITE = re.compile(r"_s(?P<site>\d+)_w\d[0-9A-Fa-f-]*(?:_(?P<crop>\d+))?\.\w+$")


def open_screen(
    root: Path,
    channels: Sequence[str | None] = CHANNELS,
    aliases: AliasNames | None = None,
    names: Sequence[str] | None = None,
) -> Screen:
    """Open the annotated treatments and the DMSO wells of BBBC021.

    Parameters
    ----------
    root : Path
        The folder of the two tables and the plates.
    channels : sequence of str or None
        Up to three of Actin, Tubulin and DAPI, for the network's three inputs; None is a plane of zeros.
    aliases : mapping or "distinct", optional
        Other spellings of compounds and labels, by the name that they stand for.
    names : sequence of str, optional
        The files below the root; by default those that are there.

    Returns
    -------
    Screen
        Faults of the tables and of the images are its problems.

    Raises
    ------
    InputError
        If a table is missing or cannot be understood, or a channel is none of these.
    """
    unknown = [channel for channel in channels if channel not in (*CHANNELS, None)]
    if unknown or len(channels) > 3:
        raise InputError(f"screen.channels: up to three of {', '.join(CHANNELS)}, but got {list(channels)!r}")
    images, labels = _image_table(root), _labels(root, aliases)
    images[COMPOUND] = merge_names(images[COMPOUND], aliases)
    annotated = _annotate(images, labels, one_name(CONTROL_COMPOUND, aliases))
    kept, left_out = _choose(annotated, one_name("taxol", aliases))
    problems = _check_names(annotated, kept, labels, aliases)
    used = [path_column(channel) for channel in channels if channel is not None]
    located = _locate(listing(root) if names is None else names, kept)
    problems += [*check_fields(located), *check_images(located, root, used)]
    padded = (*channels, *[None] * (3 - len(channels)))
    return Screen("bbbc021", root, located.reset_index(drop=True), padded, tuple(problems), left_out=left_out)


def _check_names(
    annotated: pd.DataFrame, kept: pd.DataFrame, labels: pd.DataFrame, aliases: AliasNames | None
) -> list[Problem]:
    """Check the names of both tables together: one that is spelled otherwise in the other table finds no label."""
    compounds = pd.concat([annotated[COMPOUND], labels[COMPOUND]], ignore_index=True)
    used = compounds.isin(set(kept[COMPOUND]) | set(labels[COMPOUND]))
    return [
        *check_names(compounds, used, aliases, "compounds"),
        *check_names(labels[LABEL], labels[LABEL].notna(), aliases, "labels"),
    ]


def _read(root: Path, name: str, columns: Sequence[str]) -> pd.DataFrame:
    """Read a table as clean text, whatever its line ends and quotes are."""
    path = root / name
    if not path.exists():
        raise InputError(
            f"{path}: missing; the root of a bbbc021 screen holds {name} (from the Broad Bioimage Benchmark "
            "Collection, BBBC021), so look at screen.root, or fetch it: python -m moa_ray.prepare SWEEP.yaml --download"
        )
    table = read_table(path)
    require_columns(table, columns, str(path))
    return clean_cells(table[list(columns)]).fillna("")


def _image_table(root: Path) -> pd.DataFrame:
    """Make one row per field with the columns of the field table, the label not yet among them."""
    name = TABLES[0]
    files = {channel: f"Image_FileName_{channel}" for channel in CHANNELS}
    folders = {channel: f"Image_PathName_{channel}" for channel in CHANNELS}
    sources = {
        PLATE: "Image_Metadata_Plate_DAPI",
        WELL: "Image_Metadata_Well_DAPI",
        COMPOUND: "Image_Metadata_Compound",
        REPLICATE: "Replicate",
    }
    dose = "Image_Metadata_Concentration"
    table = _read(root, name, [*sources.values(), dose, *files.values(), *folders.values()])
    fields = pd.DataFrame({column: table[source] for column, source in sources.items()})
    fields[WELL] = well_names(fields[WELL])
    fields[CONCENTRATION] = numbers(table[dose], str(root / name), table.index)
    fields[WEEK] = fields[PLATE].str.extract(r"^(Week\d+)_", expand=False).fillna(fields[PLATE])
    sites = table[files["DAPI"]].str.extract(_SITE)
    fields[FIELD] = sites["site"].fillna(table[files["DAPI"]]) + ("_" + sites["crop"]).fillna("")
    for channel in CHANNELS:
        folder = table[folders[channel]].str.replace("\\", "/").str.strip("/")
        fields[path_column(channel)] = folder + "/" + table[files[channel]]
    return fields


def _labels(root: Path, aliases: AliasNames | None) -> pd.DataFrame:
    name = TABLES[1]
    table = _read(root, name, ["compound", "concentration", "moa"])
    names = {COMPOUND: merge_names(table["compound"], aliases), LABEL: merge_names(table["moa"], aliases)}
    labels = pd.DataFrame(names)
    labels[CONCENTRATION] = numbers(table["concentration"], str(root / name), table.index)
    is_control = labels[COMPOUND] == one_name(CONTROL_COMPOUND, aliases)
    is_missing = (labels[LABEL] == "") | is_word(labels[LABEL], MISSING)
    labels = labels[~is_control & ~is_missing].drop_duplicates()
    torn = labels[labels.duplicated(TREATMENT)]
    if len(torn):
        compound, dose = torn.iloc[0][COMPOUND], torn.iloc[0][CONCENTRATION]
        raise InputError(f"{root / name}: {compound} at {dose:g} carries two labels; keep one of the rows")
    return labels


def _annotate(fields: pd.DataFrame, labels: pd.DataFrame, control: str) -> pd.DataFrame:
    """Join the labels by treatment."""
    rows = fields.index
    fields = fields.merge(labels, on=TREATMENT, how="left", validate="many_to_one").set_axis(rows)
    fields[CONTROL] = fields[COMPOUND] == control
    paths = [path_column(channel) for channel in CHANNELS]
    return fields[[column for column in fields.columns if column not in paths] + paths]


def _choose(fields: pd.DataFrame, taxol: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Keep annotated treatments and DMSO alone, and count what is left out."""
    stray_taxol = (fields[COMPOUND] == taxol) & ~(fields[PLATE].isin(_TAXOL_PLATES) & fields[WELL].isin(_TAXOL_WELLS))
    unlabelled = fields[LABEL].isna() & ~fields[CONTROL] & ~stray_taxol
    reasons = (count_left_out(fields[stray_taxol], _TAXOL_AS_CONTROL), count_left_out(fields[unlabelled], NO_LABEL))
    return fields[~unlabelled & ~stray_taxol], join_left_out(reasons)


def _locate(names: Sequence[str], fields: pd.DataFrame) -> pd.DataFrame:
    """Replace the paths of the table by the locations of the files, wherever below the root the plate's folder is.

    A file is known by its plate's folder and its name. One that is nowhere keeps the table's path.
    """
    location_of: dict[str, str] = {}
    for location in names:
        tail = "/".join(location.replace("!", "/").rsplit("/", 2)[-2:])
        if "!" not in location or tail not in location_of:  # an unpacked file is quicker to read
            location_of[tail] = location
    located = fields.copy()
    for channel in CHANNELS:
        column = path_column(channel)
        located[column] = [location_of.get("/".join(path.rsplit("/", 2)[-2:]), path) for path in fields[column]]
    return located
