"""A screen: fields, channels, labels, and what is wrong with them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from moa_ray.common.errors import InputError
from moa_ray.common.schema import CONTROL, LABEL, path_column
from moa_ray.common.text import listed
from moa_ray.common.uri import Place, Uri
from moa_ray.config.planes import Plane
from moa_ray.screens.left_out import none_left_out


@dataclass(frozen=True)
class Problem:
    """A fault of the data, in one line with a count and examples; an error stops a sweep.

    Attributes
    ----------
    severity : {"error", "warning"}
        Whether it stops a sweep.
    message : str
        One line for the user.
    """

    severity: Literal["error", "warning"]
    message: str


@dataclass(frozen=True)
class Screen:
    """A screen whose field table has been read and checked.

    Attributes
    ----------
    name : str
        The kind of screen, ``bbbc021``, ``bbbc014`` or ``table``.
    root : Path
        The folder that locations are relative to.
    fields : DataFrame, one row per field
        Field key, treatment, replicate, label (missing for controls), control, any further ``Metadata_*`` columns, and
        a ``Path_<channel>`` column of locations for each channel.
    channels : tuple of str or None
        The network's three inputs; None is a plane of zeros.
    problems : tuple of Problem
        All faults of the data.
    source : Uri or None
        The bucket that the root is a copy of, where it is one.
    left_out : DataFrame, one row per reason, plate and compound
        How many rows of the screen's table are in none of its fields, as `moa_ray.screens.left_out` counts them.
    planes : mapping of Plane, by channel
        Which plane of its files a channel is, where they hold more than one.
    """

    name: str
    root: Path
    fields: pd.DataFrame
    channels: tuple[str | None, ...]
    problems: tuple[Problem, ...] = ()
    source: Uri | None = None
    left_out: pd.DataFrame = field(default_factory=none_left_out)
    planes: Mapping[str, Plane] = field(default_factory=dict)

    @property
    def origin(self) -> Place:
        """Folder or URI of the files, as any machine that sees them may use it."""
        return self.source or self.root.resolve()

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes: labels of the fields, sorted."""
        return tuple(sorted(self.labelled[LABEL].unique()))

    @property
    def labelled(self) -> pd.DataFrame:
        """The fields that have a label."""
        return self.fields[self.fields[LABEL].notna()]

    @property
    def controls(self) -> pd.DataFrame:
        """The fields of untreated wells."""
        return self.fields[self.fields[CONTROL]]

    @property
    def path_columns(self) -> list[str]:
        """The columns that locate the images of the channels in use, in the network's order."""
        return [path_column(channel) for channel in self.channels if channel is not None]

    @property
    def used_channels(self) -> list[str]:
        """The channels in use, in the network's order."""
        return [channel for channel in self.channels if channel is not None]

    @property
    def used_planes(self) -> tuple[Plane | None, ...]:
        """Which plane of its file each channel in use is, in the network's order; None where a file has one."""
        return tuple(self.planes.get(channel) for channel in self.channels if channel is not None)


def well_names(wells: pd.Series) -> pd.Series:
    """Spell names of wells alike: ``b2`` and ``B002`` become ``B02``.

    Parameters
    ----------
    wells : Series of str
        Row letters and a column number.

    Returns
    -------
    Series of str
        Upper case, the number with two digits.
    """
    return wells.str.strip().str.upper().str.replace(r"^([A-Z]+)0*(\d)$", r"\g<1>0\2", regex=True)


def numbers(column: pd.Series, name: str, rows: Sequence[int] | pd.Index | None = None) -> pd.Series:
    """Parse a column of concentrations, so that ``3`` and ``3.000000`` are the same.

    Parameters
    ----------
    column : Series
        Concentrations, as text or numbers, in any unit.
    name : str
        The file, for messages.
    rows : sequence of int, optional
        The row of the file of each; by default they begin below the header, which is row 1.

    Returns
    -------
    Series of float
        Rounded to nine decimals.

    Raises
    ------
    InputError
        If a value is no number of at least 0; the message names file, row and value.
    """
    parsed = pd.to_numeric(column, errors="coerce").astype(float)
    bad = np.flatnonzero(~np.isfinite(parsed) | (parsed < 0))
    if len(bad):
        row, value = bad[0] + 2 if rows is None else rows[bad[0]], column.iloc[bad[0]]
        text = "an empty cell" if pd.isna(value) else repr(value)
        raise InputError(f"{name}: row {row}: {column.name} must be a number of at least 0, but got {text}")
    return parsed.round(9)


def problem(severity: Literal["error", "warning"], text: str, names: Iterable[str]) -> Problem:
    """Make a problem of one line: how many, what, and the first few by name.

    Parameters
    ----------
    severity : {"error", "warning"}
        Whether it stops a sweep.
    text : str
        What is wrong, to be read after a number.
    names : iterable of str
        What it is wrong with.

    Returns
    -------
    Problem
        The first three names stand in its message.
    """
    every = list(names)
    return Problem(severity, f"{len(every)} {text}: {listed(every)}")
