"""Settings of painted screens."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import ConfigDict

from moa_ray.config.numbers import SECTION, Count, Probability, limits

MOST_LABELS = 6  # as many mechanisms as `moa_ray.screens.painted_bbbc021` paints

# The inner wells of a 96-well plate, as BBBC021 uses them.
WELL_NAMES = tuple(f"{row}{column:02}" for row in "BCDEFG" for column in range(2, 12))
_WEEKS = 3  # at most

Side = Annotated[int, limits(minimum=64)]


@dataclass(frozen=True)
class Painting:
    """What to paint: every label x compound x concentration x replicate, and control wells on every plate.

    Each compound lives in one week, and each week has compounds of all labels; each replicate lies on a plate of its
    own.
    """

    __pydantic_config__: ClassVar[ConfigDict] = SECTION

    labels: Annotated[int, limits(minimum=2, maximum=MOST_LABELS)] = 4
    """Mechanisms of action."""
    compounds: Count = 3
    """Compounds of each label."""
    concentrations: Count = 2
    """Concentrations of each compound."""
    replicates: Count = 3
    """Wells of each compound and concentration, each on a plate of its own."""
    fields: Count = 2
    """Fields of each well."""
    control_wells: Count = 2
    """Untreated wells on each plate."""
    height: Side = 192
    """Height of a field, pixels."""
    width: Side = 240
    """Width of a field, pixels."""
    cells: Count = 16
    """Cells of a field, on average."""
    effect: float = 0.9
    """How far the highest concentration goes from untreated cells to those of the mechanism: 0 not at all, 1 all the
    way."""
    seed: int = 0
    """Seed of all that is drawn."""

    def __post_init__(self) -> None:
        if not 2 <= self.labels <= MOST_LABELS:
            raise ValueError(f"labels must lie in 2..{MOST_LABELS}, but got {self.labels}")
        for name in ("compounds", "concentrations", "replicates", "fields", "control_wells", "cells"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but got {getattr(self, name)}")
        if min(self.height, self.width) < 64:
            raise ValueError(f"height and width must be at least 64, but got {self.height} and {self.width}")
        wells = self.control_wells + self.labels * self.concentrations * math.ceil(self.compounds / self.weeks)
        if wells > len(WELL_NAMES):
            raise ValueError(
                f"labels, compounds, concentrations and control_wells put {wells} wells on a plate, which has "
                f"{len(WELL_NAMES)}; lower one of them"
            )

    @property
    def weeks(self) -> int:
        """Over how many weeks the compounds are spread."""
        return min(self.compounds, _WEEKS)


@dataclass(frozen=True)
class Translocation:
    """What to paint: 96 wells, one field each."""

    __pydantic_config__: ClassVar[ConfigDict] = SECTION

    height: Side = 256
    """Height of a field, pixels."""
    width: Side = 340
    """Width of a field, pixels."""
    cells: Count = 40
    """Cells of a field of MCF7, on average; A549 lies denser."""
    effect: Probability = 0.95
    """Share of the protein that the highest doses bring into the nucleus."""
    seed: int = 0
    """Seed of all that is drawn."""

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 64:
            raise ValueError(f"height and width must be at least 64, but got {self.height} and {self.width}")
        if self.cells < 1:
            raise ValueError(f"cells must be at least 1, but got {self.cells}")
        if not 0 <= self.effect <= 1:
            raise ValueError(f"effect is a share in [0, 1], but got {self.effect}")
