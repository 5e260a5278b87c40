"""The treatments that went wrong, the surest mistake first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moa_ray.common.schema import (
    CANDIDATE,
    CONCENTRATION,
    FOLD,
    LABEL,
    labels_of,
    probability_column,
)
from moa_ray.reporting.evidence import Evidence
from moa_ray.reporting.figures import GREEN, GREY, ORANGE, bare, plain_text, room
from moa_ray.reporting.html_table import HtmlTable
from moa_ray.reporting.section import Section
from moa_ray.statistics import aggregation
from moa_ray.statistics.units import unit_key, unit_name
from moa_ray.statistics.unpredicted import REASON, no_unpredicted

_MOST_DRAWN = 24


@dataclass(frozen=True)
class Mistakes(Section):
    """What the headline's candidate got wrong.

    Attributes
    ----------
    evidence : Evidence
        What the report stands on.
    treatments : DataFrame
        Those of the candidate.
    mistakes : DataFrame
        The wrong ones, by falling probability of the predicted label.
    missing : DataFrame
        The treatments that it was to predict and did not.
    """

    template: ClassVar[str] = "sections/mistakes.html"
    absent: ClassVar[Mapping[str, Any]] = {"treatments_not_predicted": []}
    most_drawn: ClassVar[int] = _MOST_DRAWN

    evidence: Evidence
    treatments: pd.DataFrame
    mistakes: pd.DataFrame
    missing: pd.DataFrame = field(default_factory=no_unpredicted)

    @classmethod
    def of(cls, evidence: Evidence) -> Self | None:
        if evidence.best is None:
            return None
        treatments = evidence.treatments_of(evidence.best[CANDIDATE])
        return cls(evidence, treatments, surest_mistakes(treatments), evidence.judged_unpredicted)

    def figures(self) -> dict[str, Figure]:
        return {"wrong_treatments": wrong_treatments(self.treatments)} if len(self.mistakes) else {}

    def summary(self) -> dict[str, Any]:
        columns = [*unit_key(self.missing), LABEL, FOLD, REASON]
        return {"treatments_not_predicted": self.missing[columns].to_dict("records")}

    @property
    def not_predicted(self) -> HtmlTable:
        """Every treatment that counts as not right for want of a prediction, with the reason."""
        rows = [
            [unit_name(row), f"{row[CONCENTRATION]:g}", row[LABEL], row[FOLD], row[REASON]]
            for row in self.missing.to_dict("records")
        ]
        headings = ["compound", "µmol/L", "true label", "fold", "reason"]
        return HtmlTable(headings, rows, [False, True, False, False, False])

    @property
    def table(self) -> HtmlTable:
        """Every wrong treatment, with how many candidates got it wrong."""
        leaderboard, treatments = self.evidence.leaderboard, self.evidence.treatments
        complete = set(leaderboard.loc[leaderboard["complete"], CANDIDATE])
        compared = treatments[treatments[CANDIDATE].isin(complete)] if complete else treatments
        headings = ["compound", "µmol/L", "true label", "its probability", "predicted label", "its probability"]
        counted = [name for name in (aggregation.REPLICATES, aggregation.TILES) if name in treatments]
        headings += [{aggregation.REPLICATES: "wells"}.get(name, name) for name in counted] + ["candidates wrong here"]
        rows = []
        for _, row in self.mistakes.iterrows():
            key = unit_key(compared)
            same = compared[(compared[key] == row[key]).all(axis=1)]
            wrong = int((same[aggregation.PREDICTED] != same[LABEL]).sum())
            true, taken = (f"{row[probability_column(row[name])]:.3f}" for name in (LABEL, aggregation.PREDICTED))
            cells = [unit_name(row), f"{row[CONCENTRATION]:g}", row[LABEL], true, row[aggregation.PREDICTED], taken]
            rows.append([*cells, *(str(row[name]) for name in counted), f"{wrong} of {len(same)}"])
        return HtmlTable(headings, rows, [False, True, False, True, False, True, *[True] * len(counted), True])


def wrong_treatments(treatments: pd.DataFrame, most: int = _MOST_DRAWN, labels_each: int = 3) -> Figure:
    """Draw the probabilities of treatments that were taken for another label, the surest mistake first.

    Parameters
    ----------
    treatments : DataFrame
        Of one candidate, as `aggregation.treatments` makes it.
    most : int
        How many mistakes are drawn.
    labels_each : int
        How many of the most probable labels a panel has, beside the true one.

    Returns
    -------
    Figure
        One panel a mistake.
    """
    wrong = surest_mistakes(treatments).head(most)
    columns = min(2, max(1, len(wrong)))
    rows = max(1, -(-len(wrong) // columns))
    names = [*wrong[LABEL], *labels_of(wrong)]
    figure = Figure(figsize=((room(names) + 2.9) * columns, 1.45 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(wrong) :]:
        axes.set_axis_off()
    if wrong.empty:
        grid[0, 0].text(0.5, 0.5, "no treatment went wrong", ha="center", va="center")
    for axes, (_, treatment) in zip(grid.flat, wrong.iterrows(), strict=False):
        _bars(axes, treatment, _panel_labels(treatment, labels_of(wrong), labels_each))
        # Bars are equally thick in every panel, with or without an additional true label.
        axes.set(xlim=(0, 1.2), ylim=(labels_each + 0.6, -0.6))
    return figure


def surest_mistakes(treatments: pd.DataFrame) -> pd.DataFrame:
    """Select the treatments that went wrong.

    Parameters
    ----------
    treatments : DataFrame
        Of one candidate, as `aggregation.treatments` makes it.

    Returns
    -------
    DataFrame
        By falling probability of the predicted label.
    """
    wrong = treatments[treatments[aggregation.PREDICTED] != treatments[LABEL]]
    columns = [probability_column(label) for label in labels_of(wrong)]
    return wrong.loc[wrong[columns].max(axis=1).sort_values(ascending=False, kind="stable").index]


def _panel_labels(treatment: pd.Series, labels: Sequence[str], labels_each: int) -> list[str]:
    ordered = sorted(labels, key=lambda label: -treatment[probability_column(label)])
    shown = ordered[:labels_each]
    return shown if treatment[LABEL] in shown else [*shown, treatment[LABEL]]


def _bars(axes: Axes, treatment: pd.Series, labels: Sequence[str]) -> None:
    values = [float(treatment[probability_column(label)]) for label in labels]
    is_true = [label == treatment[LABEL] for label in labels]
    colours = [
        GREEN if true else ORANGE if label == treatment[aggregation.PREDICTED] else GREY
        for label, true in zip(labels, is_true, strict=True)
    ]
    axes.barh(range(len(labels)), values, color=colours, height=0.72)
    for row, value in enumerate(values):
        axes.text(value + 0.015, row, f"{value:.2f}" + (" (true)" if is_true[row] else ""), va="center", fontsize=9)
    axes.set_yticks(range(len(labels)), [plain_text(label) for label in labels], fontsize=9)
    for tick, true in zip(axes.get_yticklabels(), is_true, strict=True):
        tick.set_fontweight("bold" if true else "normal")
    dose = f", {treatment[CONCENTRATION]:g} µmol/L" if treatment[CONCENTRATION] else ""
    title = plain_text(unit_name(treatment)) + dose
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xticks([])
    axes.tick_params(length=0, labelsize=9)
    bare(axes)
    axes.spines["bottom"].set_visible(False)
