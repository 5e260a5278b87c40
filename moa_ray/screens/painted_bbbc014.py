"""A painted plate in BBBC014's own layout on disk, for the demo and for tests: protein that moves into the nucleus.

Its cells are drawn, not photographed. The dose falls over the columns of the plate, and with it the share of the
protein that lies in the nucleus; the two cell lines differ in size, shape, density and brightness. Nothing about
biology follows from it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from moa_ray.common import random_streams
from moa_ray.config.painting import Translocation
from moa_ray.screens.bbbc014 import CHANNELS, COLUMNS, ROWS, cell_line, file_name
from moa_ray.screens.painted import Plane, disc, paint_once

_FOLDER = "BBBC014_v1_images"
_HALF = 6.5  # the column between whose neighbours half of the protein has moved
_STEEPNESS = 1.3  # of the fall, a column


@dataclass(frozen=True)
class _Line:
    """How the cells of a line look: radii in pixels, light in grey levels."""

    nucleus: float
    cell: float
    elongation: float
    density: float
    protein: float
    dna: float
    background: float

    def varied(self, rng: np.random.Generator) -> "_Line":
        """Draw one cell of the line."""
        size, protein, dna = rng.lognormal(0, (0.1, 0.15, 0.1))
        return _Line(
            self.nucleus * size,
            self.cell * size,
            self.elongation,
            self.density,
            self.protein * protein,
            self.dna * dna,
            self.background,
        )


_LINES = {
    "MCF7": _Line(nucleus=6.0, cell=12.0, elongation=1.05, density=1.0, protein=90, dna=80, background=9),
    "A549": _Line(nucleus=5.0, cell=9.5, elongation=1.35, density=1.5, protein=130, dna=120, background=14),
}


def paint(root: Path, painting: Translocation) -> None:
    """Paint a plate, whole or not at all; nothing is done where the same painting is there.

    Parameters
    ----------
    root : Path
        Where it is to be: a folder that does not exist, or is empty.
    painting : Translocation
        What to paint.

    Raises
    ------
    InputError
        If the root holds another painting, or other files.
    """
    with paint_once(root, painting) as writing:
        if writing is None:
            return
        (writing / _FOLDER).mkdir()
        for row in ROWS:
            for column in COLUMNS:
                for channel, pixels in _field(painting, row, column).items():
                    Image.fromarray(pixels).save(writing / _FOLDER / file_name(channel, row, column))


def _moved(painting: Translocation, column: int) -> float:
    """Return the share of the protein that lies in the nucleus at a column's dose."""
    return float(painting.effect / (1 + np.exp(_STEEPNESS * (column - _HALF))))


def _field(painting: Translocation, row: str, column: int) -> dict[str, NDArray[np.uint8]]:
    """Paint the two images of a well."""
    rng = random_streams.rng(painting.seed, f"{row}{column:02}")
    line, moved = _LINES[cell_line(row)], _moved(painting, column)
    shape = (painting.height, painting.width)
    planes = {channel: np.zeros(shape) for channel in CHANNELS}
    for _ in range(1 + rng.poisson(painting.cells * line.density)):
        y, x = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        cell = line.varied(rng)
        reach = int(cell.cell * cell.elongation) + 4
        window = (
            slice(max(0, int(y) - reach), min(shape[0], int(y) + reach)),
            slice(max(0, int(x) - reach), min(shape[1], int(x) + reach)),
        )
        rows, columns = np.mgrid[window]
        share = float(np.clip(moved + rng.normal(0, 0.08), 0, 1))
        for channel, light in _cell(cell, share, rows - y, columns - x, rng.uniform(0, np.pi)).items():
            planes[channel][window] = np.maximum(planes[channel][window], light)
    return {channel: _photograph(light, line.background, rng) for channel, light in planes.items()}


def _cell(cell: _Line, share: float, dy: Plane, dx: Plane, angle: float) -> dict[str, Plane]:
    """Paint one cell's light around its centre; a share of its protein lies in the nucleus."""
    along = dx * np.cos(angle) + dy * np.sin(angle)
    across = dy * np.cos(angle) - dx * np.sin(angle)
    radius = np.hypot(along / cell.elongation, across * cell.elongation)
    nucleus, body = disc(radius, cell.nucleus, 1.0), disc(radius, cell.cell, 2.0)
    protein = (0.2 + 0.8 * share) * nucleus + (1 - 0.7 * share) * body * (1 - nucleus)
    return {"FITC": cell.protein * protein, "DAPI": cell.dna * nucleus}


def _photograph(light: Plane, background: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Take grey levels with an 8-bit camera that sees the corners of a field a little darker."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, length) for length in light.shape), indexing="ij")
    counts = rng.poisson((background + light) * (1 - 0.1 * (x**2 + y**2)))
    return np.clip(counts, 0, 255).astype(np.uint8)
