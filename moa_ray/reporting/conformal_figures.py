"""Figures of conformal sets: coverage and size by alpha and by label, and small tiles."""

import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import binom

from moa_ray.common.schema import COMPOUND, LABEL
from moa_ray.reporting.figures import CURVES, GREY, INK, bare, percent_axis, room, stretch_limits
from moa_ray.statistics import conformal
from moa_ray.statistics.conformal import Calibrated

_COLOURS = CURVES[3:]  # of levels; the first ones are those of alphas
_HIGHEST = 0.5  # alpha, on the curves
_STEPS = 400
_THUMBNAIL = 96  # pixels


def conformal_coverage(levels: Mapping[str, Calibrated], alphas: Sequence[float], group: str = "compound") -> Figure:
    """Draw the share of sets that hold the true label against 1 - alpha, and by label the numbers at some alphas.

    The band holds 95 % of what so many independent compounds give whose sets hold the label with a chance of 1 - alpha.

    Parameters
    ----------
    levels : mapping of str to Calibrated
        Treatments, and compounds where there are any.
    alphas : sequence of float
        Those of the numbers by label.
    group : str
        What is independent.

    Returns
    -------
    Figure
        The curves to the left, the labels to the right.
    """
    figure, (left, right) = _pair(levels)
    n = next(iter(levels.values())).table[COMPOUND].nunique()
    wanted = 1 - np.linspace(0, _HIGHEST, _STEPS)
    low, high = binom.ppf([[0.025], [0.975]], n, wanted) / n
    left.fill_between(wanted, low, high, color=GREY, alpha=0.25, linewidth=0, label=f"95 % band, {n} {group}s")
    left.plot(wanted, wanted, color=INK, linewidth=1, label="1 - alpha")
    left.plot(wanted, 2 * wanted - 1, color=INK, linewidth=1, linestyle=":", label="1 - 2 alpha (CV+)")
    _curves(left, levels, lambda level, alpha: float((level.true_p > alpha).mean()), lambda alpha: 1 - alpha)
    left.set(xlabel="1 - alpha", ylabel="sets that hold the true label", xlim=(1 - _HIGHEST, 1), ylim=(0, 1.02))
    left.legend(loc="lower right", frameon=False, fontsize=8)
    percent_axis(left, "x", "y")
    percent_axis(right, "x")
    _by_label(right, levels, alphas, lambda counts: (counts["k"] / counts["n"], f"{counts['k']}/{counts['n']}"))
    right.set(xlabel=f"{next(iter(levels))}s whose set holds the true label", xlim=(-0.03, 1.03))
    return figure


def conformal_set_size(levels: Mapping[str, Calibrated], alphas: Sequence[float]) -> Figure:
    """Draw the mean number of labels in a set against alpha, and by true label at some alphas.

    Parameters
    ----------
    levels : mapping of str to Calibrated
        Treatments, and compounds where there are any.
    alphas : sequence of float
        Those of the numbers by label.

    Returns
    -------
    Figure
        The curves to the left, the labels to the right.
    """
    figure, (left, right) = _pair(levels)
    _curves(left, levels, lambda level, alpha: float(level.sets(alpha).sum(axis=1).mean()), lambda alpha: alpha)
    left.axhline(1, color=INK, linewidth=1, linestyle=":")
    left.set(xlabel="alpha", ylabel="labels in a set, mean", xlim=(0, _HIGHEST), ylim=(0, None))
    left.legend(loc="upper right", frameon=False, fontsize=8)
    _by_label(right, levels, alphas, lambda counts: (counts["mean_size"], f"{counts['mean_size']:.1f}"))
    right.axvline(1, color=INK, linewidth=1, linestyle=":")
    right.set(xlabel=f"labels in a set, mean over {next(iter(levels))}s", xlim=(0, None))
    return figure


def _pair(levels: Mapping[str, Calibrated]) -> tuple[Figure, tuple[Axes, Axes]]:
    """Make axes for a curve to the left, and for labels below each other to the right."""
    names = next(iter(levels.values())).table[LABEL].unique()
    figure = Figure(figsize=(room(names) + 9.4, max(4.0, 0.42 * len(names) + 1.2)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[4.2, room(names) + 5.2])
    for axes in (left, right):
        bare(axes)
        axes.set_axisbelow(True)
        axes.grid(color="#E6E6E6", axis="both" if axes is left else "x")
    return figure, (left, right)


def _curves(
    axes: Axes,
    levels: Mapping[str, Calibrated],
    value: Callable[[Calibrated, float], float],
    place: Callable[[float], float],
) -> None:
    """Draw one curve a level over the alphas that it reaches."""
    for (name, level), colour in zip(levels.items(), _COLOURS, strict=False):
        alphas = np.linspace(min(level.smallest, _HIGHEST), _HIGHEST, _STEPS)
        values = [value(level, alpha) if alpha >= level.smallest else np.nan for alpha in alphas]
        axes.plot([place(alpha) for alpha in alphas], values, color=colour, linewidth=1.8, label=f"{name}s")


def _by_label(
    axes: Axes,
    levels: Mapping[str, Calibrated],
    alphas: Sequence[float],
    shown: Callable[[dict[str, float]], tuple[float, str]],
) -> None:
    """Draw for each true label of the treatments a mark for each alpha, and its number to the right."""
    treatments = next(iter(levels.values()))
    names = sorted(treatments.table[LABEL].unique())
    offsets = np.linspace(-0.25, 0.25, len(alphas)) if len(alphas) > 1 else np.zeros(len(alphas))
    for number, (alpha, offset) in enumerate(zip(alphas, offsets, strict=True)):
        marks = [shown(conformal.coverage(rows)) for _, rows in treatments.covered(alpha).groupby(LABEL)]
        colour = CURVES[number % len(CURVES)]
        places = np.arange(len(names)) + offset
        axes.plot([value for value, _ in marks], places, "o", color=colour, markersize=5, clip_on=False)
        across = 1.04 + 0.13 * number
        for row, (_, text) in enumerate(marks):
            axes.text(across, row, text, transform=axes.get_yaxis_transform(), va="center", color=colour, fontsize=8)
        axes.text(across, -0.8, f"{alpha:g}", transform=axes.get_yaxis_transform(), color=colour, fontsize=8)
    axes.text(1.0, -0.8, "α", transform=axes.get_yaxis_transform(), color=INK, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=9, parse_math=False)
    axes.set_ylim(len(names) - 0.5, -0.6)


def thumbnails(tiles: Sequence[NDArray[np.uint8]]) -> list[bytes]:
    """Draw each tile as a small PNG; each channel is stretched over all of them as example tiles are.

    Parameters
    ----------
    tiles : sequence of ndarray of uint8, shape (size, size, 3)
        Tiles of any sizes.

    Returns
    -------
    list of bytes
        PNG files, in the same order.
    """
    low, high = stretch_limits(tiles)
    return [_thumbnail(np.clip((tile - low) / (high - low), 0, 1)) for tile in tiles]


def _thumbnail(tile: NDArray[np.float64]) -> bytes:
    picture = Image.fromarray(np.round(255 * tile).astype(np.uint8))
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
