"""The figure of calibration: numbers in, a matplotlib figure out."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, PercentFormatter

from moa_ray.calibration import Calibration, Quality
from moa_ray.figures import BLUE, GREEN, GREY, INK, bare


def reliability(found: Calibration) -> Figure:
    """The reliability diagram before and after temperature scaling, with the number of treatments in each bin below."""
    shown = [("as predicted", found.before, BLUE)]
    if found.after is not None:
        shown.append(("with a temperature fitted on other compounds", found.after, GREEN))
    figure = Figure(figsize=(4.5 * len(shown), 5.6), layout=ConstrainedLayoutEngine(wspace=0.06))
    grid = figure.subplots(2, len(shown), squeeze=False, sharex=True, sharey="row", height_ratios=[4, 1])
    most = max(int(quality.bins["n"].max()) for _, quality, _ in shown)
    for (upper, lower), (title, quality, colour) in zip(grid.T, shown, strict=True):
        _points(upper, quality, colour)
        _counts(lower, quality, colour, most)
        upper.set_title(f"{title}\ncalibration error {quality.error:.3f}", fontsize=10)
    grid[0, 0].set_ylabel("right, by treatment")
    grid[1, 0].set_ylabel("treatments")
    return figure


def _points(axes: Axes, quality: Quality, colour: str) -> None:
    bare(axes)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.6)
    bins = quality.bins
    axes.vlines(bins["confidence"], bins["wilson_low"], bins["wilson_high"], color=colour, linewidth=1.6, alpha=0.6)
    sizes = 20 + 160 * bins["n"] / quality.n  # the share of the treatments
    axes.scatter(bins["confidence"], bins["accuracy"], s=sizes, color=colour, zorder=3)
    axes.set(xlim=(0, 1.02), ylim=(-0.02, 1.04))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    axes.grid(color="#E6E6E6")
    axes.set_axisbelow(True)


def _counts(axes: Axes, quality: Quality, colour: str, most: int) -> None:
    bare(axes)
    bins = quality.bins
    axes.bar(bins["low"], bins["n"], width=bins["high"] - bins["low"], align="edge", color=colour, edgecolor="white")
    for low, high, n in zip(bins["low"], bins["high"], bins["n"], strict=True):
        axes.text((low + high) / 2, n, str(n), ha="center", va="bottom", fontsize=8, color=INK)
    axes.set(xlabel="confidence", ylim=(0, 1.25 * most))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))
