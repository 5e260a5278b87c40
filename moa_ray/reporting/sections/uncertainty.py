"""Uncertainty: whether the treatments kept are right more often as the most uncertain ones are set aside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from moa_ray.common.schema import METHOD
from moa_ray.reporting import judged_uncertainty
from moa_ray.reporting.evidence import Evidence
from moa_ray.reporting.figures import CURVES, GREY, canvas, percent_axis
from moa_ray.reporting.html_table import HtmlTable, percent
from moa_ray.reporting.judged_uncertainty import METHODS, JudgedUncertainty
from moa_ray.reporting.section import Section
from moa_ray.statistics.uncertainty import KEPT, MEASURES, PREDICTIVE, Rejection

_STYLES: tuple[Literal["-", "--", "-.", ":"], ...] = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Uncertainty(Section):
    """Measures of uncertainty of all candidates, and what they are worth to reject treatments by.

    Attributes
    ----------
    measures : DataFrame
        One row a candidate, treatment and method, as `moa_ray.statistics.uncertainty.measures` makes it.
    samples : DataFrame
        What each sample of a method said of each treatment; may be empty.
    judged : JudgedUncertainty or None
        Of the headline's candidate; None where nothing was predicted.
    """

    template: ClassVar[str] = "sections/uncertainty.html"
    absent: ClassVar[Mapping[str, Any]] = {"uncertainty": None}

    measures: pd.DataFrame
    samples: pd.DataFrame
    judged: JudgedUncertainty | None

    @classmethod
    def of(cls, evidence: Evidence) -> Self:
        return cls(evidence.measures, evidence.samples, evidence.uncertainty)

    def figures(self) -> dict[str, Figure]:
        if self.judged is None or not self.judged.rejections:
            return {}
        return {"accuracy_rejection": accuracy_rejection(_named(self.judged.rejections), self.judged.best_possible)}

    def tables(self) -> dict[str, pd.DataFrame]:
        tables = {"uncertainty.parquet": self.measures}
        if len(self.samples):
            tables["treatment_samples.parquet"] = self.samples
        return tables

    def summary(self) -> dict[str, Any]:
        judged = self.judged
        if judged is None:
            return {}
        rejection = [
            {
                **{METHOD: curve.method, "measure": curve.measure, "n": len(curve.accuracies), "area": curve.area},
                **{f"accuracy_{100 * share:.0f}": curve.kept(share) for share in KEPT},
            }
            for curve in judged.rejections
        ]
        unknown = {**judged.counts, "auroc": [vars(separation) for separation in judged.separations]}
        return {
            "uncertainty": {
                "rejection": rejection,
                "best_possible_area": float(judged.best_possible.mean()) if rejection else None,
                "unknown": unknown if judged.separations else None,
            }
        }

    @property
    def table(self) -> HtmlTable:
        """Accuracy by the share that is kept, a row a method and measure."""
        shares = ["all" if share == 1 else f"{100 * share:.0f} % kept" for share in KEPT]
        rows = [
            [*judged_uncertainty.names(curve), f"{curve.area:.3f}", *(percent(curve.kept(share)) for share in KEPT)]
            for curve in (self.judged.rejections if self.judged else ())
        ]
        numeric = [False, False, *[True] * (1 + len(KEPT))]
        return HtmlTable(["method", "uncertainty", "area", *shares], rows, numeric)


def _named(curves: Sequence[Rejection]) -> list[tuple[str, Rejection]]:
    """One method with all its measures; of several methods one measure each, so that they can be told apart."""
    if len({curve.method for curve in curves}) == 1:
        return [(MEASURES[curve.measure], curve) for curve in curves]
    return [(METHODS.get(curve.method, curve.method), curve) for curve in curves if curve.measure == PREDICTIVE]


def accuracy_rejection(curves: Sequence[tuple[str, Rejection]], best: NDArray[np.float64]) -> Figure:
    """Draw the accuracy of what is kept by the share that is rejected.

    Parameters
    ----------
    curves : sequence of tuple of str and Rejection
        A named curve for each method or measure.
    best : ndarray of float, shape (n,)
        The curve of an uncertainty that knows what is wrong, in grey; the dotted line is no order at all.

    Returns
    -------
    Figure
        One pair of axes.
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
    lowest = min(best[-1], *(curve.accuracies.min() for _, curve in curves))
    axes.set(xlim=(0, 1), ylim=(max(0.0, np.floor(10 * lowest - 1) / 10), 1.02))
    for share in KEPT[1:]:
        axes.axvline(1 - share, color="#E6E6E6", zorder=0)
    percent_axis(axes, "x", "y")
    return figure


def _rejected(n: int) -> NDArray[np.float64]:
    """Share that is rejected where 1, 2, ..., n treatments are kept."""
    shares: NDArray[np.float64] = 1 - np.arange(1, n + 1) / n
    return shares
