"""BBBC014v1: NFκB that moves from cytoplasm to nucleus, in two cell lines (Ilya Ravkin; Broad Bioimage Benchmark
Collection).

One 96-well plate, a field a well and a file a channel: ``Channel 1-01-A-01-00.Bmp`` is the FITC image of well A01. Rows
A to D are MCF7, E to H A549; TNFα falls from column 1 to column 12. The root holds the files, in any folders, or the
zip file that was downloaded.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from moa_ray.downloads import Download
from moa_ray.screens import Problem, Screen, check_files, listing, problem
from moa_ray.tables import (
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

CHANNELS = {"FITC": 1, "DAPI": 2}  # and their numbers in file names
DOWNLOADS = (Download("https://data.broadinstitute.org/bbbc/BBBC014/BBBC014_v1_images.zip", "BBBC014_v1_images.zip"),)
ROWS = tuple("ABCDEFGH")
COLUMNS = range(1, 13)

# The four highest doses are labelled positive, the four lowest negative; those between are left out.
_LABELS = {**dict.fromkeys(range(1, 5), "positive"), **dict.fromkeys(range(9, 13), "negative")}

# `Channel 1-01-A-01-00.Bmp` and `Channel1-01-A-01.BMP`: what stands before the well numbers it once more.
_FILE = re.compile(r"Channel ?(\d+)-\d+-([A-Z]+)-(\d+)(?:-\d+)?\.(?:bmp|tiff?)", re.IGNORECASE)

_Places = Mapping[tuple[str, str], Sequence[str]]


def cell_line(row: str) -> str:
    """The cells of a row of the plate."""
    return "MCF7" if row <= "D" else "A549"


def file_name(channel: str, row: str, column: int) -> str:
    """The name of an image as it was published."""
    number = len(COLUMNS) * ROWS.index(row) + column
    return f"Channel {CHANNELS[channel]}-{number:02}-{row}-{column:02}-00.Bmp"


def open_screen(root: Path, channels: Sequence[str | None] = (None, *CHANNELS)) -> Screen:
    """The 64 labelled wells of the plate, 32 of each cell line, whether their images are there or not.

    What is scored is the well, and all wells hold one compound: each is a treatment of its own, called by its name.
    What is wrong with the images is a problem of the screen.
    """
    used = [channel for channel in channels if channel is not None]
    if not used or len(channels) > 3 or not set(used) <= set(CHANNELS):
        raise ValueError(f"screen.channels: up to three of {', '.join(CHANNELS)} and null, but got {list(channels)!r}")
    places, problems = _find(root)
    fields = _wells()
    for channel in CHANNELS:
        # An image that is not there keeps the name by which it would have been found.
        found = [places.get((well, channel), [file_name(channel, well[0], int(well[1:]))])[0] for well in fields[WELL]]
        fields[path_column(channel)] = found
    wanted = [(well, channel) for well in fields[WELL] for channel in used]
    problems += [*_absent(root, places, wanted), *_repeated(places, wanted)]
    problems += check_files(root, [places[key][0] for key in wanted if key in places])
    return Screen("bbbc014", root, fields, (*channels, *[None] * (3 - len(channels))), tuple(problems))


def _wells() -> pd.DataFrame:
    """One row a labelled well. No well is a control: images are normalised by none."""
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


def _find(root: Path) -> tuple[_Places, list[Problem]]:
    """The locations of each well and channel, and those of images that such a plate does not have."""
    locations = sorted(listing(root))
    unpacked = {_name(location) for location in locations if "!" not in location}
    channel_of = {number: channel for channel, number in CHANNELS.items()}
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    strange = []
    for location in locations:
        name = _name(location)
        match = _FILE.fullmatch(name)
        if match is None or ("!" in location and name in unpacked):  # an archive may lie beside what was unpacked
            continue
        number, row, column = int(match[1]), match[2].upper(), int(match[3])
        if row in ROWS and column in COLUMNS and number in channel_of:
            places[f"{row}{column:02}", channel_of[number]].append(location)
        else:
            strange.append(location)
    if not strange:
        return dict(places), []
    rule = "image files name a channel other than 1 (FITC) and 2 (DAPI) or a well outside A01 to H12; move them out of"
    return dict(places), [problem("error", f"{rule} {root}", strange)]


def _name(location: str) -> str:
    return re.split("[/!]", location)[-1]


def _absent(root: Path, places: _Places, wanted: Sequence[tuple[str, str]]) -> list[Problem]:
    """Wells without any image, and wells that lack one of them."""
    wells = list(dict.fromkeys(well for well, _ in wanted))
    some = {well for well, channel in wanted if (well, channel) in places}
    bare = [well for well in wells if well not in some]
    partly = [f"{well} has no {channel}" for well, channel in wanted if well in some and (well, channel) not in places]
    problems = []
    if bare:
        text = f"of {len(wells)} wells have no image file below {root} (Channel 1-01-A-01-00.Bmp); look at screen.root"
        problems.append(problem("error", text, bare))
    if partly:
        problems.append(problem("error", f"wells lack an image below {root}; look at screen.root", partly))
    return problems


def _repeated(places: _Places, wanted: Sequence[tuple[str, str]]) -> list[Problem]:
    names = [f"{key[0]} {key[1]} ({', '.join(places[key])})" for key in wanted if len(places.get(key, ())) > 1]
    return [problem("error", "images have more than one file; keep one of each", names)] if names else []
