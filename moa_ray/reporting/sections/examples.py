"""Example images: fields as they were taken, and tiles as the networks see them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from moa_ray.reporting.evidence import Evidence
from moa_ray.reporting.figures import STRETCH, plain_text, room, stretch_limits
from moa_ray.reporting.section import Section
from moa_ray.screens.example_fields import ExampleField, Pair, limits

_CHANNEL_COLOURS = ("red", "green", "blue")


@dataclass(frozen=True)
class Examples(Section):
    """Example fields and tiles of each label.

    Attributes
    ----------
    evidence : Evidence
        What the report stands on.
    tiles : mapping of str to sequence of ndarray
        Tiles of each label; empty where they are not at hand.
    """

    template: ClassVar[str] = "sections/examples.html"
    stretch: ClassVar[str] = f"{STRETCH[0]:g}st to its {STRETCH[1]:g}th percentile"

    evidence: Evidence
    tiles: Mapping[str, Sequence[NDArray[np.uint8]]]

    @classmethod
    def of(cls, evidence: Evidence) -> Self | None:
        tiles = evidence.tiles.of_labels() if evidence.tiles else {}
        return cls(evidence, tiles) if evidence.fields or evidence.no_fields or any(map(len, tiles.values())) else None

    def figures(self) -> dict[str, Figure]:
        drawn = {}
        if self.evidence.fields:
            drawn["example_fields"] = example_fields(self.evidence.fields, self.evidence.channels)
        if any(map(len, self.tiles.values())):
            drawn["example_tiles"] = example_tiles(self.tiles)
        return drawn

    @property
    def colours(self) -> str:
        """The channels that are red, green and blue."""
        names = zip(_CHANNEL_COLOURS, self.evidence.channels, strict=False)
        return ", ".join(f"{colour}: {name}" for colour, name in names if name)

    @property
    def sizes(self) -> str:
        """Return widths and heights of the fields shown, in pixels."""
        fields = [field for pair in self.evidence.fields for field in (pair.treated, pair.control) if field is not None]
        return " or ".join(f"{width} x {height}" for width, height in sorted({field.size for field in fields}))


def example_tiles(tiles: Mapping[str, Sequence[NDArray[np.uint8]]]) -> Figure:
    """Draw a row of tiles for each label.

    Parameters
    ----------
    tiles : mapping of str to sequence of ndarray of uint8, shape (size, size, 3)
        Tiles of each label. Each channel is stretched between the percentiles `STRETCH` of all tiles shown, so that
        labels can be compared.

    Returns
    -------
    Figure
        One row a label.
    """
    columns = max((len(row) for row in tiles.values()), default=1)
    figure = Figure(
        figsize=(1.15 * columns + room(tiles), 1.18 * max(1, len(tiles))),
        layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0),
    )
    grid = figure.subplots(max(1, len(tiles)), max(1, columns), squeeze=False)
    low, high = stretch_limits([tile for row in tiles.values() for tile in row])
    for axes in grid.flat:
        axes.set_axis_off()
    for row, (label, shown) in zip(grid, tiles.items(), strict=False):
        row[0].text(-0.08, 0.5, plain_text(label), transform=row[0].transAxes, ha="right", va="center", fontsize=10)
        for axes, tile in zip(row, shown, strict=False):
            axes.imshow(np.clip((tile - low) / (high - low), 0, 1))
    return figure


def example_fields(pairs: Sequence[Pair], channels: Sequence[str | None]) -> Figure:
    """Draw for each label a treated field beside an untreated one of its plate, two labels a row.

    Both fields of a pair are stretched alike, so that they can be compared; under each pair stand the grey levels that
    became black and full colour.

    Parameters
    ----------
    pairs : sequence of Pair
        One for each label, at least one.
    channels : sequence of str or None
        The screen's channels shown red, green and blue.

    Returns
    -------
    Figure
        Two pairs a row.
    """
    fields = [field for pair in pairs for field in (pair.treated, pair.control) if field is not None]
    tallest = max(field.size[1] / field.size[0] for field in fields)
    rows, columns = -(-len(pairs) // 2), min(2, len(pairs))
    # A gap between the pairs, so that it is plain which two belong together.
    widths = [1, 1, 0.12, 1, 1][: 3 * columns - 1]
    size = (2.6 * sum(widths), (2.5 * tallest + 1.2) * rows)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.06, wspace=0, hspace=0))
    grid = figure.subplots(rows, len(widths), squeeze=False, width_ratios=widths)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for number, pair in enumerate(pairs):
        levels = limits(pair, STRETCH)
        left, right = grid[number // 2, 3 * (number % 2) :][:2]
        for axes, field in ((left, pair.treated), (right, pair.control)):
            if field is None:
                axes.text(0.5, 0.5, "no untreated field\non its plate", ha="center", va="center", fontsize=9)
                continue
            axes.imshow(_coloured(field, levels, channels))
            axes.set_title("\n".join(_title(pair, field)), fontsize=8, loc="left")
        left.set_xlabel(_grey_levels(levels, channels), fontsize=7, loc="left")
    return figure


def _title(pair: Pair, field: ExampleField) -> list[str]:
    if field is pair.control:
        return [_fitting(field.compound), _fitting(field.place)]
    return [_fitting(pair.label), _fitting(f"{field.compound}, {field.concentration:g} µmol/L"), _fitting(field.place)]


def _fitting(text: str) -> str:
    """A name that is not wider than a field is shown."""
    return plain_text(text if len(text) <= 40 else text[:37] + "...")


def _coloured(
    field: ExampleField, levels: Sequence[tuple[float, float]], channels: Sequence[str | None]
) -> NDArray[np.float32]:
    """Red, green and blue, 0..1; black where there is no channel."""
    picture = np.zeros((*field.planes[0].shape, 3), dtype=np.float32)
    used = [place for place, channel in enumerate(channels) if channel is not None]
    for place, plane, (low, high) in zip(used, field.planes, levels, strict=True):
        picture[..., place] = np.clip((plane - low) / (high - low), 0, 1)
    return picture


def _grey_levels(levels: Sequence[tuple[float, float]], channels: Sequence[str | None]) -> str:
    used = [channel for channel in channels if channel is not None]
    return "\n".join(f"{_fitting(name)} {low:.0f}–{high:.0f}" for name, (low, high) in zip(used, levels, strict=True))
