"""A painted screen in BBBC021's own layout on disk, for the demo and for tests.

Its cells are drawn, not photographed: nucleus, actin and tubulin change by mechanism and dose, compounds of one
mechanism differ a little, and weeks and plates differ in gain, background and vignetting. Nothing about biology follows
from it.
"""

import dataclasses
import itertools
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from moa_ray.common import random_streams
from moa_ray.config.painting import MOST_LABELS, WELL_NAMES, Painting
from moa_ray.screens.painted import Plane, disc, paint_once

# Channel and the number of its wavelength in file names, as in BBBC021.
_WAVELENGTHS = {"DAPI": 1, "Tubulin": 2, "Actin": 4}


@dataclass(frozen=True)
class Morphology:
    """How a cell looks.

    Attributes
    ----------
    nucleus, cell : float
        Radii, pixels.
    nucleus_light : float
        Brightness of the nucleus, in units of a bright structure.
    fragments : float
        Share of the nucleus that has fallen into pieces.
    elongation : float
        The cell's long radius over that of a disc of the same area.
    rim : float
        Share of actin that lies at the edge.
    fibres : float
        Depth of the actin stripes.
    spread : float
        Reach of tubulin, in cell radii.
    rays : float
        Depth of the tubulin rays.
    """

    nucleus: float = 7.0
    nucleus_light: float = 1.0
    fragments: float = 0.0
    cell: float = 17.0
    elongation: float = 1.25
    rim: float = 0.45
    fibres: float = 0.5
    spread: float = 0.75
    rays: float = 0.4

    def towards(self, other: "Morphology", amount: float) -> "Morphology":
        """Go part of the way to another morphology.

        Parameters
        ----------
        other : Morphology
            Where the way leads.
        amount : float
            How much of it: 0 stays, 1 is there.

        Returns
        -------
        Morphology
            Every value interpolated.
        """
        begin, end = dataclasses.astuple(self), dataclasses.astuple(other)
        return Morphology(*(a + amount * (b - a) for a, b in zip(begin, end, strict=True)))

    def varied(self, rng: np.random.Generator, amount: float) -> "Morphology":
        """Multiply every value by a log-normal factor.

        Parameters
        ----------
        rng : numpy.random.Generator
            What draws the factors.
        amount : float
            Standard deviation of their logarithms.

        Returns
        -------
        Morphology
            One cell, or one compound, of this kind.
        """
        return Morphology(*(value * rng.lognormal(0, amount) for value in dataclasses.astuple(self)))


_UNTREATED = Morphology()
# Invented mechanisms: names that say what is painted.
_MECHANISMS = {
    "Actin collapse": dataclasses.replace(_UNTREATED, rim=0.05, fibres=0.05, cell=13.5, elongation=1.05),
    "Fragmented nuclei": dataclasses.replace(_UNTREATED, fragments=0.95, nucleus=7.5, nucleus_light=1.3),
    "Large nuclei": dataclasses.replace(_UNTREATED, nucleus=10.5, nucleus_light=0.7, cell=20.0),
    "Tubulin bundling": dataclasses.replace(_UNTREATED, rays=0.95, spread=0.5, elongation=1.6),
    "Actin rims": dataclasses.replace(_UNTREATED, rim=0.9, fibres=0.1, elongation=1.0),
    "Tubulin loss": dataclasses.replace(_UNTREATED, rays=0.05, spread=0.35, cell=15.0),
}
assert len(_MECHANISMS) == MOST_LABELS


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
    """Paint a screen, whole or not at all; nothing is done where the same painting is there.

    Parameters
    ----------
    root : Path
        Where it is to be: a folder that does not exist, or is empty.
    painting : Painting
        What to paint.

    Raises
    ------
    InputError
        If the root holds another painting, or other files.
    """
    with paint_once(root, painting) as writing:
        if writing is None:
            return
        rows = [row for well in _wells(painting) for row in _paint_well(writing, painting, well)]
        _write_tables(writing, painting, rows)


def _labels(painting: Painting) -> list[str]:
    return list(_MECHANISMS)[: painting.labels]


def _dose(step: int) -> float:
    """Return the concentration of a step, µmol/L: 0.1, 0.3, 1, 3, ..."""
    return (0.3 if step % 2 else 0.1) * 10.0 ** (step // 2)


def _treatments(painting: Painting) -> Iterator[tuple[str, str, int, int]]:
    """Yield label, compound, number of the compound within its label, step of the concentration."""
    for letter, label in zip("ABCDEF", _labels(painting), strict=False):
        for number, step in itertools.product(range(painting.compounds), range(painting.concentrations)):
            yield label, f"painted-{letter}{number + 1}", number, step


def _wells(painting: Painting) -> Iterator[_Well]:
    for week, replicate in itertools.product(range(painting.weeks), range(painting.replicates)):
        names = iter(WELL_NAMES)
        for _ in range(painting.control_wells):
            yield _Well(week + 1, replicate + 1, next(names), "DMSO", None, 0.0, 0.0)
        for label, compound, number, step in _treatments(painting):
            if number % painting.weeks == week:
                strength = painting.effect * (0.6 + 0.4 * (step + 1) / painting.concentrations)
                yield _Well(week + 1, replicate + 1, next(names), compound, label, _dose(step), strength)


def _paint_well(root: Path, painting: Painting, well: _Well) -> Iterator[dict[str, object]]:
    """Write the fields of one well; yield their rows of the image table."""
    morphology = _UNTREATED
    if well.label is not None:
        target = _MECHANISMS[well.label].varied(random_streams.rng(painting.seed, well.compound), 0.08)
        morphology = _UNTREATED.towards(target, well.strength)
    folder = root / f"Week{well.week}" / well.plate
    folder.mkdir(parents=True, exist_ok=True)
    for site in range(1, painting.fields + 1):
        rng = random_streams.rng(painting.seed, f"{well.plate} {well.well} {site}")
        planes = _photograph(_paint_field(painting, morphology, rng), painting, well, rng)
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


def _paint_field(painting: Painting, morphology: Morphology, rng: np.random.Generator) -> dict[str, Plane]:
    """Paint the light of each channel, in units of a bright structure."""
    shape = (painting.height, painting.width)
    planes = {channel: np.zeros(shape) for channel in _WAVELENGTHS}
    for _ in range(rng.poisson(painting.cells)):
        y, x = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        cell = morphology.varied(rng, 0.12)
        reach = int(cell.cell * cell.elongation * 1.4) + 2
        window = (
            slice(max(0, int(y) - reach), min(shape[0], int(y) + reach)),
            slice(max(0, int(x) - reach), min(shape[1], int(x) + reach)),
        )
        rows, columns = np.mgrid[window]
        for channel, light in _paint_cell(cell, rows - y, columns - x, rng).items():
            planes[channel][window] += light
    return planes


def _paint_cell(cell: Morphology, dy: Plane, dx: Plane, rng: np.random.Generator) -> dict[str, Plane]:
    """Paint one cell's light around its centre."""
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


def _pieces(cell: Morphology, dy: Plane, dx: Plane, rng: np.random.Generator) -> Plane:
    """Paint a nucleus in four or five pieces, of about the same area together."""
    light = np.zeros(dy.shape)
    for _ in range(rng.integers(4, 6)):
        y, x = rng.normal(0, cell.nucleus * 0.75, 2)
        light += disc(np.hypot(dy - y, dx - x), cell.nucleus * 0.4, 0.8)
    return light


def _photograph(
    planes: dict[str, Plane], painting: Painting, well: _Well, rng: np.random.Generator
) -> dict[str, NDArray[np.uint16]]:
    """Count photons with a camera whose gain, background and vignetting differ by week and plate."""
    y, x = np.meshgrid(np.linspace(-1, 1, painting.height), np.linspace(-1, 1, painting.width), indexing="ij")
    photos = {}
    for channel, light in planes.items():
        week = random_streams.rng(painting.seed, f"week {well.week} {channel}")
        plate = random_streams.rng(painting.seed, f"plate {well.plate} {channel}")
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
