"""Calibration: whether the headline's candidate is right as often as it says, before and after temperature scaling."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from moa_ray.reporting.evidence import Evidence
from moa_ray.reporting.figures import BLUE, GREEN, GREY, INK, bare, percent_axis
from moa_ray.reporting.html_table import HtmlTable, decimals, percent
from moa_ray.reporting.section import Section
from moa_ray.statistics import calibration
from moa_ray.statistics.calibration import Quality


@dataclass(frozen=True)
class Calibration(Section):
    """Calibration on the treatments that the headline is about.

    Attributes
    ----------
    result : moa_ray.statistics.calibration.Calibration
        Before and after temperature scaling.
    """

    template: ClassVar[str] = "sections/calibration.html"
    absent: ClassVar[Mapping[str, Any]] = {"calibration": None}

    result: calibration.Calibration

    @classmethod
    def of(cls, evidence: Evidence) -> Self | None:
        if evidence.best is None or evidence.judged.empty:
            return None
        return cls(calibration.calibrate(evidence.judged))

    def figures(self) -> dict[str, Figure]:
        return {"calibration": reliability(self.result)}

    def summary(self) -> dict[str, Any]:
        qualities = {"before": self.result.before, "after": self.result.after}
        numbers = {when: None if quality is None else _plain(quality) for when, quality in qualities.items()}
        return {"calibration": {**numbers, "temperatures": dict(self.result.temperatures)}}

    @property
    def temperatures(self) -> tuple[float, float]:
        """The lowest and the highest temperature of any compound."""
        return min(self.result.temperatures.values()), max(self.result.temperatures.values())

    @property
    def table(self) -> HtmlTable:
        """Calibration before and after temperature scaling, one column each."""
        shown = {"as predicted": self.result.before, "with a temperature": self.result.after}
        columns = {name: quality for name, quality in shown.items() if quality is not None}
        rows: list[tuple[str, Callable[[Quality], str]]] = [
            ("mean confidence", lambda quality: percent(quality.confidence)),
            ("right", lambda quality: f"{percent(quality.accuracy)} of {quality.n}"),
            ("expected calibration error", lambda quality: decimals(quality.error)),
            (
                f"its 95 % interval over {self.result.before.compounds} compounds",
                lambda quality: f"{decimals(quality.error_low)} to {decimals(quality.error_high)}",
            ),
            ("of a calibrated network, by chance", lambda quality: decimals(quality.chance)),
            ("negative log-likelihood (nats)", lambda quality: decimals(quality.log_loss)),
            ("Brier score (0 to 2)", lambda quality: decimals(quality.brier)),
        ]
        cells = [[name, *(form(quality) for quality in columns.values())] for name, form in rows]
        return HtmlTable(["", *columns], cells, [False, *[True] * len(columns)])


def _plain(quality: Quality) -> dict[str, Any]:
    return {**dataclasses.asdict(quality), "bins": quality.bins.to_dict("records")}


def reliability(result: calibration.Calibration) -> Figure:
    """Draw the reliability diagram before and after temperature scaling.

    Parameters
    ----------
    result : moa_ray.statistics.calibration.Calibration
        Of some treatments.

    Returns
    -------
    Figure
        One diagram each, with the number of treatments in each bin below.
    """
    shown = [("as predicted", result.before, BLUE)]
    if result.after is not None:
        shown.append(("with a temperature fitted on other compounds", result.after, GREEN))
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
    percent_axis(axes, "x", "y")
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
