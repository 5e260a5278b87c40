"""Open set: whether treatments of a mechanism that no network has learnt stand out by their uncertainty."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from moa_ray.common.schema import COMPOUND, CONCENTRATION, METHOD
from moa_ray.reporting import judged_uncertainty
from moa_ray.reporting.evidence import Evidence
from moa_ray.reporting.figures import BLUE, INK, ORANGE, bare, canvas, room
from moa_ray.reporting.html_table import HtmlTable
from moa_ray.reporting.judged_uncertainty import JudgedUncertainty
from moa_ray.reporting.section import Section
from moa_ray.statistics import uncertainty
from moa_ray.statistics.uncertainty import DOUBT, MEASURES, PREDICTIVE, RIGHT, SINGLE, UNKNOWN, Separation

MEANINGS = {
    DOUBT: "how far the most probable label is from certain",
    PREDICTIVE: "how evenly the probabilities are spread over the labels",
    uncertainty.EXPECTED: "the same within one sample, on average: what the images leave open",
    uncertainty.MUTUAL: "how much the samples contradict each other: what the training left open",
    uncertainty.INCREDIBILITY: "how strange the treatment is beside those of every label, by conformal prediction",
}


@dataclass(frozen=True)
class OpenSet(Section):
    """Known against unknown treatments; its numbers stand in summary.json under ``uncertainty``.

    Attributes
    ----------
    judged : JudgedUncertainty
        Of the headline's candidate.
    """

    template: ClassVar[str] = "sections/open_set.html"

    judged: JudgedUncertainty

    @classmethod
    def of(cls, evidence: Evidence) -> Self | None:
        judged = evidence.uncertainty
        return cls(judged) if judged and judged.separations else None

    def figures(self) -> dict[str, Figure]:
        separations, measured = self.judged.separations, self.judged.measured
        single = [separation.measure for separation in separations if separation.method == SINGLE]
        rows = measured[measured[METHOD] == SINGLE]
        named = [("\n".join(judged_uncertainty.names(separation)), separation) for separation in separations]
        return {
            "unknown_treatments": known_and_unknown(rows, {name: MEASURES[name] for name in single}),
            "unknown_auroc": areas(named),
        }

    @property
    def headline(self) -> Separation | None:
        """The separation by the highest probability; always this one: to name the best of several is optimistic."""
        for separation in self.judged.separations:
            if (separation.method, separation.measure) == (SINGLE, DOUBT):
                return separation
        return None

    @property
    def table(self) -> HtmlTable:
        """The pairs told apart, a row a method and measure."""
        headings = ["method", "uncertainty", "what it says", "of 100 pairs", "AUROC", "95 % interval"]
        rows = [
            [
                *judged_uncertainty.names(separation),
                MEANINGS[separation.measure],
                *(f"{100 * separation.auroc:.0f}", f"{separation.auroc:.3f}"),
                f"{separation.low:.3f} to {separation.high:.3f}",
            ]
            for separation in self.judged.separations
        ]
        return HtmlTable(headings, rows, [False, False, False, True, True, True])


def known_and_unknown(measured: pd.DataFrame, measures: Mapping[str, str]) -> Figure:
    """Draw how uncertain known and unknown treatments are; the bar is the median.

    Parameters
    ----------
    measured : DataFrame
        Of one candidate and method, as `uncertainty.measures` makes it.
    measures : mapping of str to str
        Columns of it and their names.

    Returns
    -------
    Figure
        One panel a measure, one dot a treatment.
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
    """Draw dots beside each other, in the order of the treatments, so that the same table gives the same picture."""
    values = rows[column].to_numpy(dtype=np.float64)
    rank = rows[[COMPOUND, CONCENTRATION]].apply(tuple, axis=1).rank(method="first").to_numpy()
    x = place + 0.3 * (2 * (rank - 0.5) / max(len(rank), 1) - 1)
    colour = ORANGE if right is None else BLUE
    solid = np.ones(len(values), dtype=bool) if right is None else right
    axes.plot(x[solid], values[solid], "o", color=colour, markersize=4, alpha=0.7)
    axes.plot(x[~solid], values[~solid], "o", color=colour, markerfacecolor="white", markersize=4, alpha=0.9)
    axes.plot([place - 0.38, place + 0.38], [np.median(values)] * 2, color=INK, linewidth=2)


def areas(named: Sequence[tuple[str, Separation]]) -> Figure:
    """Draw the AUROC of each method and measure with its 95 % interval; the dotted line is guessing.

    Parameters
    ----------
    named : sequence of tuple of str and Separation
        At least one.

    Returns
    -------
    Figure
        One row a method and measure.
    """
    figure, axes = canvas(room(line for name, _ in named for line in name.split("\n")) + 4.6, 0.5 * len(named) + 1.2)
    for row, (_, separation) in enumerate(named):
        axes.plot([separation.low, separation.high], [row, row], color=BLUE, linewidth=2.2, solid_capstyle="butt")
        axes.plot(separation.auroc, row, "o", color=BLUE, markersize=8)
        axes.text(1.02, row, f"{separation.auroc:.3f}", va="center", fontsize=9, color=INK)
    axes.set_yticks(range(len(named)), [name for name, _ in named], fontsize=9)
    lowest = min(0.4, *(separation.low for _, separation in named))
    axes.set(xlim=(max(0.0, lowest - 0.02), 1), ylim=(len(named) - 0.5, -0.5))
    axes.set_xlabel("AUROC: pairs in which the unknown treatment is the less sure one")
    axes.axvline(0.5, color=ORANGE, linestyle=":", linewidth=1.8)
    axes.grid(axis="x", color="#E6E6E6")
    return figure
