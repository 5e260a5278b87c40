"""Figures of uncertainty: what rejecting the unsure gains, and how unknown mechanisms stand out."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from moa_ray.figures import BLUE, CURVES, GREY, INK, ORANGE, bare, canvas, room
from moa_ray.tables import COMPOUND, CONCENTRATION
from moa_ray.uncertainty import KEPT, RIGHT, UNKNOWN, Rejection, Separation

_STYLES: tuple[Literal["-", "--", "-.", ":"], ...] = ("-", "--", "-.", ":")


def accuracy_rejection(curves: Sequence[tuple[str, Rejection]], best: NDArray[np.float64]) -> Figure:
    """Accuracy of what is kept by the share that is rejected, a named curve a method or measure.

    best : the curve of an uncertainty that knows what is wrong, in grey; the dotted line is no order at all
    """
    figure, axes = canvas(8.4, 4.2)
    for number, (name, curve) in enumerate(curves):
        style, colour = _STYLES[number % len(_STYLES)], CURVES[number % len(CURVES)]
        shares, label = _rejected(len(curve.accuracies)), f"{name}, {curve.area:.3f}"
        axes.plot(shares, curve.accuracies, color=colour, linestyle=style, linewidth=1.8, zorder=3, label=label)
    ideal = f"every mistake first, {best.mean():.3f}"
    axes.plot(_rejected(len(best)), best, color="#DADCE0", linewidth=5, solid_capstyle="butt", label=ideal)
    axes.axhline(best[-1], color=GREY, linestyle=":", linewidth=1.6, label=f"in any order, {best[-1]:.3f}")
    axes.legend(title="rejected first, and area", loc="upper left", bbox_to_anchor=(1.01, 1.02), frameon=False)
    axes.set(xlabel="treatments rejected, the most uncertain first", ylabel="accuracy of those kept")
    lowest = min(best[-1], *(one.accuracies.min() for _, one in curves))
    axes.set(xlim=(0, 1), ylim=(max(0.0, np.floor(10 * lowest - 1) / 10), 1.02))
    for share in KEPT[1:]:
        axes.axvline(1 - share, color="#E6E6E6", zorder=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    return figure


def _rejected(n: int) -> NDArray[np.float64]:
    """Share that is rejected where 1, 2, ..., n treatments are kept."""
    shares: NDArray[np.float64] = 1 - np.arange(1, n + 1) / n
    return shares


def known_and_unknown(measured: pd.DataFrame, measures: Mapping[str, str]) -> Figure:
    """How uncertain known and unknown treatments are: a dot each, a panel a measure; the bar is the median.

    measured : of one candidate and method, as `uncertainty.measures` makes it
    measures : columns of it and their names
    """
    figure = Figure(figsize=(4.3 * len(measures), 3.4), layout="constrained")
    for axes, (column, name) in zip(figure.subplots(1, len(measures), squeeze=False)[0], measures.items(), strict=True):
        bare(axes)
        unknown, right = (measured[mark].to_numpy(dtype=bool) for mark in (UNKNOWN, RIGHT))
        _cloud(axes, 0, measured[~unknown], column, right[~unknown])
        _cloud(axes, 1, measured[unknown], column, None)
        names = [f"known\n({int((~unknown).sum())})", f"unknown\n({int(unknown.sum())})"]
        axes.set_xticks([0, 1], names)
        axes.set(xlim=(-0.5, 1.5), ylabel=name)
        axes.grid(axis="y", color="#E6E6E6")
        axes.set_axisbelow(True)
    handles = [
        Line2D([], [], color=BLUE, marker="o", linestyle="", label="known, right"),
        Line2D([], [], color=BLUE, marker="o", markerfacecolor="white", linestyle="", label="known, wrong"),
        Line2D([], [], color=ORANGE, marker="o", linestyle="", label="unknown"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _cloud(axes: Axes, place: int, rows: pd.DataFrame, column: str, right: NDArray[np.bool_] | None) -> None:
    """Dots beside each other, in the order of the treatments, so that the same table gives the same picture."""
    values = rows[column].to_numpy(dtype=np.float64)
    rank = rows[[COMPOUND, CONCENTRATION]].apply(tuple, axis=1).rank(method="first").to_numpy()
    x = place + 0.3 * (2 * (rank - 0.5) / max(len(rank), 1) - 1)
    colour = ORANGE if right is None else BLUE
    solid = np.ones(len(values), dtype=bool) if right is None else right
    axes.plot(x[solid], values[solid], "o", color=colour, markersize=4, alpha=0.7)
    axes.plot(x[~solid], values[~solid], "o", color=colour, markerfacecolor="white", markersize=4, alpha=0.9)
    axes.plot([place - 0.38, place + 0.38], [np.median(values)] * 2, color=INK, linewidth=2)


def areas(named: Sequence[tuple[str, Separation]]) -> Figure:
    """The AUROC of each method and measure with its 95 % interval; the dotted line is guessing."""
    figure, axes = canvas(room(line for name, _ in named for line in name.split("\n")) + 4.6, 0.5 * len(named) + 1.2)
    for row, (_, one) in enumerate(named):
        axes.plot([one.low, one.high], [row, row], color=BLUE, linewidth=2.2, solid_capstyle="butt")
        axes.plot(one.auroc, row, "o", color=BLUE, markersize=8)
        axes.text(1.02, row, f"{one.auroc:.3f}", va="center", fontsize=9, color=INK)
    axes.set_yticks(range(len(named)), [name for name, _ in named], fontsize=9)
    lowest = min(0.4, *(one.low for _, one in named))
    axes.set(xlim=(max(0.0, lowest - 0.02), 1), ylim=(len(named) - 0.5, -0.5))
    axes.set_xlabel("AUROC: pairs in which the unknown treatment is the less sure one")
    axes.axvline(0.5, color=ORANGE, linestyle=":", linewidth=1.8)
    axes.grid(axis="x", color="#E6E6E6")
    return figure
