"""A painted screen, in BBBC021's own layout on disk, for the demo and for tests.

Its cells are drawn, not photographed: nucleus, actin and tubulin change by mechanism and dose, compounds of one
mechanism differ a little, and weeks and plates differ in gain, background and vignetting. Nothing about biology follows
from it.
"""

import dataclasses
import itertools
import json
import math
import shutil
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Plane = NDArray[np.float64]

_MARKER = "painting.json"
# Channel and the number of its wavelength in file names, as in BBBC021.
_WAVELENGTHS = {"DAPI": 1, "Tubulin": 2, "Actin": 4}
# The inner wells of a 96-well plate, as BBBC021 uses them.
_WELL_NAMES = tuple(f"{row}{column:02}" for row in "BCDEFG" for column in range(2, 12))
_WEEKS = 3  # at most


@dataclass(frozen=True)
class Look:
    """How a cell looks; lengths in pixels, the others are shares or counts."""

    nucleus: float = 7.0
    nucleus_light: float = 1.0
    fragments: float = 0.0  # share of the nucleus that has fallen into pieces
    cell: float = 17.0
    elongation: float = 1.25
    rim: float = 0.45  # share of actin that lies at the edge
    fibres: float = 0.5  # depth of the actin stripes
    spread: float = 0.75  # reach of tubulin, in cell radii
    rays: float = 0.4  # depth of the tubulin rays

    def towards(self, other: "Look", amount: float) -> "Look":
        """A look part of the way to another."""
        mine, others = dataclasses.astuple(self), dataclasses.astuple(other)
        return Look(*(a + amount * (b - a) for a, b in zip(mine, others, strict=True)))

    def varied(self, rng: np.random.Generator, amount: float) -> "Look":
        """Every value times a log-normal factor."""
        return Look(*(value * rng.lognormal(0, amount) for value in dataclasses.astuple(self)))


_UNTREATED = Look()
# Invented mechanisms: names that say what is painted.
_MECHANISMS = {
    "Actin collapse": dataclasses.replace(_UNTREATED, rim=0.05, fibres=0.05, cell=13.5, elongation=1.05),
    "Fragmented nuclei": dataclasses.replace(_UNTREATED, fragments=0.95, nucleus=7.5, nucleus_light=1.3),
    "Large nuclei": dataclasses.replace(_UNTREATED, nucleus=10.5, nucleus_light=0.7, cell=20.0),
    "Tubulin bundling": dataclasses.replace(_UNTREATED, rays=0.95, spread=0.5, elongation=1.6),
    "Actin rims": dataclasses.replace(_UNTREATED, rim=0.9, fibres=0.1, elongation=1.0),
    "Tubulin loss": dataclasses.replace(_UNTREATED, rays=0.05, spread=0.35, cell=15.0),
}


@dataclass(frozen=True)
class Painting:
    """What to paint: every label x compound x concentration x replicate, and control wells on every plate.

    Each compound lives in one week, and each week has compounds of all labels; each replicate lies on a plate of its
    own.
    effect : how far the highest concentration goes from untreated cells to the mechanism's look
    height, width : of a field, pixels
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    labels: int = 4
    compounds: int = 3
    concentrations: int = 2
    replicates: int = 3
    fields: int = 2
    control_wells: int = 2
    height: int = 192
    width: int = 240
    cells: int = 16
    effect: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.labels <= len(_MECHANISMS):
            raise ValueError(f"labels must lie in 2..{len(_MECHANISMS)}, but got {self.labels}")
        for name in ("compounds", "concentrations", "replicates", "fields", "control_wells", "cells"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but got {getattr(self, name)}")
        if min(self.height, self.width) < 64:
            raise ValueError(f"height and width must be at least 64, but got {self.height} and {self.width}")
        wells = self.control_wells + self.labels * self.concentrations * math.ceil(self.compounds / self.weeks)
        if wells > len(_WELL_NAMES):
            raise ValueError(
                f"labels, compounds, concentrations and control_wells put {wells} wells on a plate, which has "
                f"{len(_WELL_NAMES)}; lower one of them"
            )

    @property
    def weeks(self) -> int:
        """Over how many weeks the compounds are spread."""
        return min(self.compounds, _WEEKS)


@dataclass(frozen=True)
class _Well:
    week: int
    replicate: int
    well: str
    compound: str
    label: str | None
    concentration: float
    strength: float

    @property
    def plate(self) -> str:
        return f"Week{self.week}_{10000 + 100 * self.week + self.replicate}"


def paint(root: Path, painting: Painting) -> None:
    """Paint a screen at a root, whole or not at all; nothing is done where the same painting is there.

    Raises ValueError where the root holds anything else.
    """
    with paint_once(root, painting) as writing:
        if writing is None:
            return
        rows = [row for well in _wells(painting) for row in _paint_well(writing, painting, well)]
        _write_tables(writing, painting, rows)


@contextmanager
def paint_once(root: Path, painting: "DataclassInstance") -> Iterator[Path | None]:
    """A folder to paint in, which becomes the root when all went well; None where the same painting is there.

    Raises ValueError where the root holds anything else.
    """
    plain = dataclasses.asdict(painting)
    marker = root / _MARKER
    if marker.exists():
        if json.loads(marker.read_text(encoding="utf-8")) != plain:
            raise ValueError(f"{root}: holds another painting; give another screen.root, or move that folder away")
        yield None
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(f"{root}: holds other files; give a screen.root that does not exist yet")
    writing = root.with_name(f".{root.name}-{uuid.uuid4().hex}")
    writing.mkdir(parents=True)
    try:
        yield writing
        (writing / _MARKER).write_text(json.dumps(plain, indent=1), encoding="utf-8")
        if root.exists():
            root.rmdir()
        writing.rename(root)
    finally:
        shutil.rmtree(writing, ignore_errors=True)


def _labels(painting: Painting) -> list[str]:
    return list(_MECHANISMS)[: painting.labels]


def _dose(step: int) -> float:
    """µmol/L: 0.1, 0.3, 1, 3, ..."""
    return (0.3 if step % 2 else 0.1) * 10.0 ** (step // 2)


def _treatments(painting: Painting) -> Iterator[tuple[str, str, int, int]]:
    """Label, compound, number of the compound within its label, step of the concentration."""
    for letter, label in zip("ABCDEF", _labels(painting), strict=False):
        for number, step in itertools.product(range(painting.compounds), range(painting.concentrations)):
            yield label, f"painted-{letter}{number + 1}", number, step


def _wells(painting: Painting) -> Iterator[_Well]:
    for week, replicate in itertools.product(range(painting.weeks), range(painting.replicates)):
        names = iter(_WELL_NAMES)
        for _ in range(painting.control_wells):
            yield _Well(week + 1, replicate + 1, next(names), "DMSO", None, 0.0, 0.0)
        for label, compound, number, step in _treatments(painting):
            if number % painting.weeks == week:
                strength = painting.effect * (0.6 + 0.4 * (step + 1) / painting.concentrations)
                yield _Well(week + 1, replicate + 1, next(names), compound, label, _dose(step), strength)


def _rng(painting: Painting, name: str) -> np.random.Generator:
    return np.random.default_rng([painting.seed, zlib.crc32(name.encode())])


def _paint_well(root: Path, painting: Painting, well: _Well) -> Iterator[dict[str, object]]:
    """Write the fields of one well; yield their rows of the image table."""
    look = _UNTREATED
    if well.label is not None:
        target = _MECHANISMS[well.label].varied(_rng(painting, well.compound), 0.08)
        look = _UNTREATED.towards(target, well.strength)
    folder = root / f"Week{well.week}" / well.plate
    folder.mkdir(parents=True, exist_ok=True)
    for site in range(1, painting.fields + 1):
        rng = _rng(painting, f"{well.plate} {well.well} {site}")
        planes = _photograph(_paint_field(painting, look, rng), painting, well, rng)
        row: dict[str, object] = {}
        for channel, wavelength in _WAVELENGTHS.items():
            guid = str(uuid.UUID(bytes=rng.bytes(16), version=4)).upper()
            name = f"Week{well.week}_painted_{well.well}_s{site}_w{wavelength}{guid}.tif"
            Image.fromarray(planes[channel]).save(folder / name)
            row |= {f"Image_FileName_{channel}": name, f"Image_PathName_{channel}": f"Week{well.week}/{well.plate}"}
        yield {
            "TableNumber": well.week,
            **row,
            "Image_Metadata_Plate_DAPI": well.plate,
            "Image_Metadata_Well_DAPI": well.well,
            "Replicate": well.replicate,
            "Image_Metadata_Compound": well.compound,
            "Image_Metadata_Concentration": well.concentration,
        }


def _paint_field(painting: Painting, look: Look, rng: np.random.Generator) -> dict[str, Plane]:
    """Light of each channel, in units of a bright structure."""
    shape = (painting.height, painting.width)
    planes = {channel: np.zeros(shape) for channel in _WAVELENGTHS}
    for _ in range(rng.poisson(painting.cells)):
        y, x = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        cell = look.varied(rng, 0.12)
        reach = int(cell.cell * cell.elongation * 1.4) + 2
        window = (
            slice(max(0, int(y) - reach), min(shape[0], int(y) + reach)),
            slice(max(0, int(x) - reach), min(shape[1], int(x) + reach)),
        )
        rows, columns = np.mgrid[window]
        for channel, light in _paint_cell(cell, rows - y, columns - x, rng).items():
            planes[channel][window] += light
    return planes


def _paint_cell(cell: Look, dy: Plane, dx: Plane, rng: np.random.Generator) -> dict[str, Plane]:
    """One cell's light around its centre."""
    angle, phase = rng.uniform(0, 2 * np.pi, 2)
    along = dx * np.cos(angle) + dy * np.sin(angle)
    across = dy * np.cos(angle) - dx * np.sin(angle)
    radius = np.hypot(along / cell.elongation, across * cell.elongation)
    theta = np.arctan2(across, along)
    inside = disc(radius, cell.cell, 2.0)
    # What is a share stays one however cells vary: above 1, light would turn negative.
    fibres, depth, rim, share = (min(value, 1.0) for value in (cell.fibres, cell.rays, cell.rim, cell.fragments))
    body = 0.35 * inside * (1 + fibres * np.sin(across * 1.6 + phase))
    edge = np.exp(-(((radius - cell.cell * 0.92) / 1.8) ** 2))
    reach = np.exp(-((radius / (cell.cell * cell.spread)) ** 2))
    rays = 1 + depth * np.sin(9 * theta + 0.35 * radius + phase)
    nucleus = disc(np.hypot(along / 1.15, across), cell.nucleus, 1.2)
    pieces = _pieces(cell, dy, dx, rng)
    return {
        "Actin": (1 - rim) * body + rim * edge,
        "Tubulin": 0.8 * reach * inside * rays * (1 - 0.5 * nucleus),
        "DAPI": cell.nucleus_light * ((1 - share) * nucleus + share * pieces),
    }


def _pieces(cell: Look, dy: Plane, dx: Plane, rng: np.random.Generator) -> Plane:
    """A nucleus in four or five pieces, of about the same area together."""
    light = np.zeros(dy.shape)
    for _ in range(rng.integers(4, 6)):
        y, x = rng.normal(0, cell.nucleus * 0.75, 2)
        light += disc(np.hypot(dy - y, dx - x), cell.nucleus * 0.4, 0.8)
    return light


def disc(radius: Plane, edge: float, softness: float) -> Plane:
    """1 inside of an edge, 0 outside, between them over about so many pixels."""
    light: Plane = 1 / (1 + np.exp(np.clip((radius - edge) / (0.4 * softness), -50, 50)))
    return light


def _photograph(
    planes: dict[str, Plane], painting: Painting, well: _Well, rng: np.random.Generator
) -> dict[str, NDArray[np.uint16]]:
    """Photon counts of a camera whose gain, background and vignetting differ by week and plate."""
    y, x = np.meshgrid(np.linspace(-1, 1, painting.height), np.linspace(-1, 1, painting.width), indexing="ij")
    photos = {}
    for channel, light in planes.items():
        week = _rng(painting, f"week {well.week} {channel}")
        plate = _rng(painting, f"plate {well.plate} {channel}")
        gain = 700 * week.lognormal(0, 0.25) * plate.lognormal(0, 0.12)
        background = 120 * week.lognormal(0, 0.2) * plate.lognormal(0, 0.1)
        tilt_y, tilt_x = plate.normal(0, 0.08, 2)
        vignette = 1 - 0.12 * (x**2 + y**2) + tilt_y * y + tilt_x * x
        counts = rng.poisson((background + gain * light) * vignette) + rng.normal(0, 4, light.shape)
        photos[channel] = np.clip(counts, 0, 65535).astype(np.uint16)
    return photos


def _write_tables(root: Path, painting: Painting, rows: list[dict[str, object]]) -> None:
    images = pd.DataFrame(rows)
    images.insert(1, "ImageNumber", images.groupby("TableNumber").cumcount() + 1)
    images.to_csv(root / "BBBC021_v1_image.csv", index=False)
    moa = pd.DataFrame(
        [(compound, f"{_dose(step):f}", label) for label, compound, _, step in _treatments(painting)],
        columns=["compound", "concentration", "moa"],
    )
    moa.to_csv(root / "BBBC021_v1_moa.csv", index=False)
