"""How figures look and how they are saved; each section draws its own.

Drawn through matplotlib's objects, so that no figure lives in a global state. Colours are those of Okabe and Ito, which
people with any colour vision tell apart.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from moa_ray.common.files import file_name

BLUE, ORANGE, GREEN, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#9AA0A6", "#202124"
CURVES = (BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#E69F00", "#000000")
STRETCH = (1.0, 99.8)  # percentiles of a channel that become black and full colour
# With these the same figure gives the same file on any machine.
_SAVED: dict[Any, Any] = {"svg.hashsalt": "moa_ray", "svg.fonttype": "path"}


def svg(figure: Figure) -> str:
    """Draw a figure as SVG; letters are outlines, so that it looks the same without any font.

    Parameters
    ----------
    figure : Figure
        Any figure.

    Returns
    -------
    str
        The SVG file's text.
    """
    return _bytes(figure, "svg", metadata={"Date": None, "Creator": None}).decode()


def png(figure: Figure, dpi: int = 160) -> bytes:
    """Draw a figure as PNG.

    Parameters
    ----------
    figure : Figure
        Any figure.
    dpi : int
        Pixels an inch.

    Returns
    -------
    bytes
        The PNG file's content.
    """
    return _bytes(figure, "png", dpi=dpi, metadata={"Software": None})


def paths(folder: Path, name: str) -> tuple[Path, Path]:
    """Say where `save` puts a figure.

    Parameters
    ----------
    folder : Path
        The folder of the figures.
    name : str
        A candidate may be called anything, and no name leads out of the folder.

    Returns
    -------
    tuple of Path, Path
        The SVG and the PNG file.
    """
    file = file_name(name)
    return folder / f"{file}.svg", folder / f"{file}.png"


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Write a figure as SVG and as PNG.

    Parameters
    ----------
    figure : Figure
        Any figure.
    folder : Path
        Is made where it is not there.
    name : str
        The files' name without ending.

    Returns
    -------
    tuple of Path, Path
        The SVG and the PNG file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    to_svg, to_png = paths(folder, name)
    to_svg.write_text(svg(figure), encoding="utf-8")
    to_png.write_bytes(png(figure))
    return to_svg, to_png


def _bytes(figure: Figure, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with matplotlib.rc_context(_SAVED):
        figure.savefig(buffer, format=kind, facecolor="white", bbox_inches="tight", pad_inches=0.08, **options)
    return buffer.getvalue()


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Make a figure with one pair of axes, which lie behind what is drawn.

    Parameters
    ----------
    width, height : float
        Inches.

    Returns
    -------
    tuple of Figure, Axes
        Both empty.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_axisbelow(True)
    bare(axes)
    return figure, axes


def bare(axes: Axes) -> None:
    """Take the frame away on top and to the right.

    Parameters
    ----------
    axes : Axes
        Any axes.
    """
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def room(names: Iterable[str]) -> float:
    """Estimate the width of the longest of some names.

    Parameters
    ----------
    names : iterable of str
        Text beside axes; may be empty.

    Returns
    -------
    float
        Inches.
    """
    return 0.1 * max((len(name) for name in names), default=0) + 0.3


def plain_text(text: str) -> str:
    """Escape a name, so that a dollar sign begins no formula.

    Parameters
    ----------
    text : str
        What users and files call something.

    Returns
    -------
    str
        Text for matplotlib.
    """
    return str(text).replace("$", r"\$")


def percent_axis(axes: Axes, *names: str) -> None:
    """Write the ticks of some axes as percentages.

    Parameters
    ----------
    axes : Axes
        Any axes.
    *names : {"x", "y"}
        Which of the two.
    """
    for name in names:
        (axes.xaxis if name == "x" else axes.yaxis).set_major_formatter(PercentFormatter(1))


def accuracy_axes(axes: Axes, names: Sequence[str], baseline: float | None) -> None:
    """Make axes of accuracies, a named row each.

    Parameters
    ----------
    axes : Axes
        Drawn upon already: row 0 is on top.
    names : sequence of str
        One for each row.
    baseline : float or None
        Accuracy of the majority class, drawn as a line.
    """
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set(xlim=(0, 1), ylim=(max(len(names), 1) - 0.5, -0.5), xlabel="accuracy by treatment")
    percent_axis(axes, "x")
    axes.grid(axis="x", color="#E6E6E6")
    if baseline is not None:
        axes.axvline(baseline, color=ORANGE, linestyle=":", linewidth=1.8)
        axes.text(baseline, -0.55, "majority class", color=ORANGE, ha="center", va="bottom", fontsize=9)


def right_of_all(row: Mapping[str, Any]) -> str:
    """Write how many treatments a candidate has right.

    Parameters
    ----------
    row : mapping of str to Any
        A row of a leaderboard.

    Returns
    -------
    str
        For example ``8 of 10``; of an incomplete candidate a second line says what it lacks.
    """
    text = f"{row['k']} of {row['n']}"
    if row["complete"]:
        return text
    if "folds_finished" not in row:
        return f"{text}\nnot all treatments"
    return f"{text}\n{row['folds_finished']} of {row['n_folds']} folds"


def stretch_limits(tiles: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the grey levels that become black and full colour.

    Parameters
    ----------
    tiles : sequence of ndarray of uint8, shape (size, size, 3)
        All tiles that are stretched alike; may be empty.

    Returns
    -------
    tuple of ndarray, ndarray
        For each of the three channels the levels at the percentiles `STRETCH`, at least 1 apart.
    """
    if not tiles:
        return np.zeros(3), np.ones(3)
    pixels = np.concatenate([tile.reshape(-1, 3) for tile in tiles])
    low, high = np.percentile(pixels, STRETCH, axis=0)
    return low, np.maximum(high, low + 1)
