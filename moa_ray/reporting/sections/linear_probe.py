"""Linear probes: a head on frozen features of each backbone, before any is fine-tuned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, ClassVar, Self

import pandas as pd
from matplotlib.figure import Figure

from moa_ray.common.schema import BACKBONE, CANDIDATE
from moa_ray.reporting.evidence import Evidence
from moa_ray.reporting.figures import BLUE, GREY, INK, accuracy_axes, canvas, plain_text, right_of_all, room
from moa_ray.reporting.html_table import HtmlTable, decimals, percent
from moa_ray.reporting.records import ProbeRecord
from moa_ray.reporting.section import Section
from moa_ray.reporting.sections.leaderboard import folds, wilson
from moa_ray.reporting.summary import plain

_KEPT = (CANDIDATE, BACKBONE, "weights", "image_size", "k", "n", "treatment_accuracy", "log_loss", "complete")


@dataclass(frozen=True)
class LinearProbe(Section):
    """How far the backbones get without fine-tuning, and which of them were dropped for it.

    Attributes
    ----------
    probe : ProbeRecord
        What was probed.
    """

    template: ClassVar[str] = "sections/linear_probe.html"
    absent: ClassVar[Mapping[str, Any]] = {"first_look": None}

    probe: ProbeRecord

    @classmethod
    def of(cls, evidence: Evidence) -> Self | None:
        return None if evidence.linear_probe is None else cls(evidence.linear_probe)

    def figures(self) -> dict[str, Figure]:
        probe = self.probe
        if not (probe.leaderboard["n"] > 0).any():
            return {}
        return {"first_look": probes(probe.leaderboard, probe.dropped, probe.majority)}

    def summary(self) -> dict[str, Any]:
        probe = self.probe
        rows = [plain({name: row[name] for name in _KEPT}) for row in probe.leaderboard.to_dict("records")]
        return {
            "first_look": {
                "looks": rows,
                "keep": probe.keep,
                "dropped": list(probe.dropped),
                "not_looked_at": list(probe.unseen),
            }
        }

    @property
    def table(self) -> HtmlTable:
        """The probes as they are printed, and what followed from them."""
        headings = ["backbone", "weights", "pixels", "right", "accuracy", "95 % interval", "log-loss", "folds", "then"]
        rows = [
            [
                *(str(row[BACKBONE]), PurePath(str(row["weights"])).name, str(row["image_size"])),
                *(f"{row['k']} of {row['n']}" if row["n"] else "–", percent(row["treatment_accuracy"]), wilson(row)),
                *(decimals(row["log_loss"]), folds(row)),
                "dropped" if row[BACKBONE] in self.probe.dropped else "went on",
            ]
            for row in self.probe.leaderboard.to_dict("records")
        ]
        return HtmlTable(headings, rows, [False, False, True, True, True, True, True, True, False])


def probes(leaderboard: pd.DataFrame, dropped: Sequence[str], baseline: float | None = None) -> Figure:
    """Draw the accuracy of heads on frozen features as bars with Wilson's 95 % intervals.

    Parameters
    ----------
    leaderboard : DataFrame
        As `moa_ray.statistics.leaderboard` makes it, with image_size.
    dropped : sequence of str
        Backbones that were dropped; their bars are grey.
    baseline : float or None
        Accuracy of the majority class, drawn as a line.

    Returns
    -------
    Figure
        One row a probe.
    """
    shown = leaderboard[leaderboard["n"] > 0].to_dict("records")
    names = [
        f"{row[BACKBONE]}, {row['image_size']} px\n{plain_text(PurePath(str(row['weights'])).name)}" for row in shown
    ]
    figure, axes = canvas(room(line for name in names for line in name.split("\n")) + 5.5, 0.55 * len(shown) + 1.2)
    for place, row in enumerate(shown):
        share, low, high = (row[name] for name in ("treatment_accuracy", "wilson_low", "wilson_high"))
        axes.barh(place, share, color=GREY if row[BACKBONE] in dropped else BLUE, height=0.55)
        axes.plot([low, high], [place, place], color=INK, linewidth=1.6)
        text = f"{right_of_all(row)}, log-loss {row['log_loss']:.3f}"
        axes.text(1.02, place, text, va="center", fontsize=9, color=INK)
    accuracy_axes(axes, names, baseline)
    return figure
