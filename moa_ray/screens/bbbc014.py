"""BBBC014v1: NFκB that moves from cytoplasm to nucleus, in two cell lines.

One 96-well plate, a field a well and a file a channel: ``Channel 1-01-A-01-00.Bmp`` is the FITC image of well A01. Rows
A to D are MCF7, E to H A549; TNFα falls from column 1 to column 12. The root holds the files, in any folders, or the
zip file that was downloaded.

Source: Ilya Ravkin; Broad Bioimage Benchmark Collection, https://bbbc.broadinstitute.org/BBBC014.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from moa_ray.common.errors import InputError
from moa_ray.common.schema import (
    CELL_LINE,
    COMPOUND,
    CONCENTRATION,
    CONTROL,
    FIELD,
    LABEL,
    PLATE,
    REPLICATE,
    WELL,
    path_column,
)
from moa_ray.screens.checks import check_files
from moa_ray.screens.downloads import Download
from moa_ray.screens.duplicates import check_contents
from moa_ray.screens.reading import listing
from moa_ray.screens.screen import Problem, Screen, problem

CHANNELS = {"FITC": 1, "DAPI": 2}  # and their numbers in file names
DOWNLOADS = (Download("https://data.broadinstitute.org/bbbc/BBBC014/BBBC014_v1_images.zip", "BBBC014_v1_images.zip"),)
ROWS = tuple("ABCDEFGH")
COLUMNS = range(1, 13)

# The four highest doses are labelled positive, the four lowest negative; those between are left out.
_LABELS = {**dict.fromkeys(range(1, 5), "positive"), **dict.fromkeys(range(9, 13), "negative")}

# `Channel 1-01-A-01-00.Bmp` and `Channel1-01-A-01.BMP`: what stands before the well numbers it once more.
_FILE = re.compile(r"Channel ?(\d+)-\d+-([A-Z]+)-(\d+)(?:-\d+)?\.(?:bmp|tiff?)", re.IGNORECASE)

_Locations = Mapping[tuple[str, str], Sequence[str]]  # of each well and channel, more than one where it is repeated


def cell_line(row: str) -> str:
    """Return the cell line of a row of the plate.

    Parameters
    ----------
    row : str
        ``A`` to ``H``.

    Returns
    -------
    str
        ``MCF7`` or ``A549``.
    """
    return "MCF7" if row <= "D" else "A549"


def file_name(channel: str, row: str, column: int) -> str:
    """Return the name of an image as it was published.

    Parameters
    ----------
    channel : str
        ``FITC`` or ``DAPI``.
    row : str
        ``A`` to ``H``.
    column : int
        1 to 12.

    Returns
    -------
    str
        ``Channel 1-01-A-01-00.Bmp`` for the FITC image of well A01.
    """
    number = len(COLUMNS) * ROWS.index(row) + column
    return f"Channel {CHANNELS[channel]}-{number:02}-{row}-{column:02}-00.Bmp"


def open_screen(
    root: Path, channels: Sequence[str | None] = (None, *CHANNELS), names: Sequence[str] | None = None
) -> Screen:
    """Open the 64 labelled wells of the plate, 32 of each cell line, whether their images are there or not.

    The well is what is scored, and all wells hold one compound: so each is a treatment of its own, called by its name.

    Parameters
    ----------
    root : Path
        The folder of the images or of the zip file.
    channels : sequence of str or None
        Up to three of FITC and DAPI, for the network's three inputs; None is a plane of zeros.
    names : sequence of str, optional
        The files below the root; by default those that are there.

    Returns
    -------
    Screen
        Faults of the images are its problems.

    Raises
    ------
    InputError
        If there are no channels, too many, or others than these.
    """
    used = [channel for channel in channels if channel is not None]
    if not used or len(channels) > 3 or not set(used) <= set(CHANNELS):
        raise InputError(f"screen.channels: up to three of {', '.join(CHANNELS)} and null, but got {list(channels)!r}")
    locations, problems = _find(root, sorted(listing(root) if names is None else names))
    fields = _wells()
    for channel in CHANNELS:
        # An image that is not there keeps the name by which it would have been found.
        fields[path_column(channel)] = [
            locations.get((well, channel), [file_name(channel, well[0], int(well[1:]))])[0] for well in fields[WELL]
        ]
    wanted = [(well, channel) for well in fields[WELL] for channel in used]
    problems += [*_absent(root, locations, wanted), *_repeated(locations, wanted)]
    problems += check_contents(fields.set_axis(fields[WELL]), [path_column(channel) for channel in used], root)
    problems += check_files(root, [locations[key][0] for key in wanted if key in locations])
    return Screen("bbbc014", root, fields, (*channels, *[None] * (3 - len(channels))), tuple(problems))


def _wells() -> pd.DataFrame:
    """Make one row per labelled well. No well is a control: images are normalised by none."""
    wells = [(row, column, label) for row in ROWS for column, label in _LABELS.items()]
    names = [f"{row}{column:02}" for row, column, _ in wells]
    return pd.DataFrame(
        {
            PLATE: "BBBC014",
            WELL: names,
            FIELD: "1",
            COMPOUND: names,
            CONCENTRATION: 0.0,
            REPLICATE: "1",
            CELL_LINE: [cell_line(row) for row, _, _ in wells],
            LABEL: [label for _, _, label in wells],
            CONTROL: False,
        }
    )


def _find(root: Path, files: Sequence[str]) -> tuple[_Locations, list[Problem]]:
    """Find the locations of each well and channel, and those of images that such a plate does not have."""
    unpacked = {_name(location) for location in files if "!" not in location}
    channel_of = {number: channel for channel, number in CHANNELS.items()}
    locations: dict[tuple[str, str], list[str]] = defaultdict(list)
    strange = []
    for location in files:
        name = _name(location)
        match = _FILE.fullmatch(name)
        if match is None or ("!" in location and name in unpacked):  # an archive may lie beside what was unpacked
            continue
        number, row, column = int(match[1]), match[2].upper(), int(match[3])
        if row in ROWS and column in COLUMNS and number in channel_of:
            locations[f"{row}{column:02}", channel_of[number]].append(location)
        else:
            strange.append(location)
    if not strange:
        return dict(locations), []
    rule = "image files name a channel other than 1 (FITC) and 2 (DAPI) or a well outside A01 to H12; move them out of"
    return dict(locations), [problem("error", f"{rule} {root}", strange)]


def _name(location: str) -> str:
    return re.split("[/!]", location)[-1]


def _absent(root: Path, locations: _Locations, wanted: Sequence[tuple[str, str]]) -> list[Problem]:
    """Find wells without any image, and wells that lack one of them."""
    wells = list(dict.fromkeys(well for well, _ in wanted))
    some = {well for well, channel in wanted if (well, channel) in locations}
    bare = [well for well in wells if well not in some]
    partly = [
        f"{well} has no {channel}" for well, channel in wanted if well in some and (well, channel) not in locations
    ]
    problems = []
    if bare:
        text = f"of {len(wells)} wells have no image file below {root} (Channel 1-01-A-01-00.Bmp); look at screen.root"
        problems.append(problem("error", text, bare))
    if partly:
        problems.append(problem("error", f"wells lack an image below {root}; look at screen.root", partly))
    return problems


def _repeated(locations: _Locations, wanted: Sequence[tuple[str, str]]) -> list[Problem]:
    names = [f"{key[0]} {key[1]} ({', '.join(locations[key])})" for key in wanted if len(locations.get(key, ())) > 1]
    return [problem("error", "images have more than one file; keep one of each", names)] if names else []
