"""The leaderboard: all candidates by accuracy, and which of them cannot be told from the best."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, ClassVar, Self

import pandas as pd
from matplotlib.figure import Figure

from moa_ray.common.schema import BACKBONE, CANDIDATE
from moa_ray.reporting.evidence import Evidence
from moa_ray.reporting.figures import BLUE, GREY, INK, accuracy_axes, canvas, plain_text, right_of_all, room
from moa_ray.reporting.html_table import HtmlTable, decimals, p_value, percent, time_text, value_text
from moa_ray.reporting.section import Section
from moa_ray.statistics import comparison, scores
from moa_ray.statistics.leaderboard import hyperparameters
from moa_ray.statistics.unpredicted import with_unpredicted

MOST_ROWS = 50  # all are in leaderboard.csv
_WORDS_A_LINE = 3

_Column = tuple[str, bool, Callable[[Any], str]]  # heading, whether it holds numbers, a row's text


@dataclass(frozen=True)
class Leaderboard(Section):
    """All candidates, the best first.

    Attributes
    ----------
    evidence : Evidence
        What the report stands on.
    """

    template: ClassVar[str] = "sections/leaderboard.html"
    absent: ClassVar[Mapping[str, Any]] = {"not_distinguishable": []}
    most_rows: ClassVar[int] = MOST_ROWS

    evidence: Evidence

    @classmethod
    def of(cls, evidence: Evidence) -> Self:
        return cls(evidence)

    def figures(self) -> dict[str, Figure]:
        best = self.evidence.best
        if best is None:
            return {}
        own = (of(best[CANDIDATE]) for of in (self.evidence.treatments_of, self.evidence.unpredicted_of))
        _, k, n = scores.majority(with_unpredicted(*own))
        return {"leaderboard": accuracies(self.evidence.leaderboard, baseline=k / n)}

    def tables(self) -> dict[str, pd.DataFrame]:
        return {
            "treatments.parquet": with_unpredicted(self.evidence.treatments_with_sets, self.evidence.unpredicted),
            "leaderboard.csv": self.evidence.leaderboard,
        }

    def summary(self) -> dict[str, Any]:
        rows = self.evidence.leaderboard
        return {"not_distinguishable": list(rows.loc[rows["against_best"] == comparison.ALIKE, CANDIDATE])}

    @property
    def least_p(self) -> float:
        """What no corrected p-value of the permutation test can go below."""
        rows = self.evidence.leaderboard
        compared = int(rows["permutation_p"].notna().sum())
        return comparison.least_p(int(rows["compounds"].max()), compared) if compared else 0.0

    @property
    def table(self) -> HtmlTable:
        """The leaderboard as it is printed, results before hyperparameters; a name begins with the backbone."""
        leaderboard, elsewhere = self.evidence.leaderboard.head(MOST_ROWS), self.evidence.is_external
        trained: list[_Column] = [
            ("folds", True, folds),
            ("by well", True, lambda row: percent(row["well_accuracy"])),
            ("by tile", True, lambda row: percent(row["tile_accuracy"])),
            ("epochs", True, lambda row: str(row["epochs_trained"])),
            ("time", True, lambda row: time_text(row["seconds"])),
            ("weights", False, lambda row: PurePath(str(row["weights"])).name),
        ]
        tested: list[_Column] = [
            ("against the best", False, lambda row: row["against_best"] or "–"),
            ("fewer right", True, _behind),
            ("permutation p", True, lambda row: _corrected_p(row, "permutation_holm")),
            ("McNemar p", True, lambda row: _corrected_p(row, "mcnemar_holm")),
        ]
        columns: list[_Column] = [
            ("candidate", False, lambda row: str(row[CANDIDATE])),
            ("right", True, lambda row: f"{row['k']} of {row['n']}" if row["n"] else "–"),
            ("accuracy", True, lambda row: percent(row["treatment_accuracy"])),
            ("95 % Wilson", True, wilson),
            (f"95 % over {self.evidence.group}s", True, _over_compounds),
            *([("seeds", True, _seeds)] if "seeds" in leaderboard else []),
            *(tested if len(leaderboard) > 1 else []),
            *([] if elsewhere else trained[:3]),
            ("macro F1", True, lambda row: decimals(row["macro_f1"])),
            ("log-loss", True, lambda row: decimals(row["log_loss"])),
            ("calibration error", True, lambda row: decimals(row["calibration_error"])),
            *([("stopped", False, lambda row: str(row["stopped_why"]))] if self.evidence.search else []),
            *([("treatments", True, lambda row: f"{row['n']} of {row['n_treatments']}")] if elsewhere else trained[3:]),
            *((name, False, lambda row, name=name: value_text(row[name])) for name in hyperparameters(leaderboard)),
        ]
        rows = [[form(row) for _, _, form in columns] for row in leaderboard.to_dict("records")]
        return HtmlTable([heading for heading, _, _ in columns], rows, [numeric for _, numeric, _ in columns])


def wilson(row: Mapping[str, Any]) -> str:
    """Write Wilson's interval of a row of a leaderboard.

    Parameters
    ----------
    row : mapping of str to Any
        A row of a leaderboard.

    Returns
    -------
    str
        A dash where nothing was predicted.
    """
    return f"{percent(row['wilson_low'])} to {percent(row['wilson_high'])}" if row["n"] else "–"


def folds(row: Mapping[str, Any]) -> str:
    """Write how many folds a candidate finished, and how many it did not.

    Parameters
    ----------
    row : mapping of str to Any
        A row of a leaderboard.

    Returns
    -------
    str
        For example ``3 of 4, 1 failed``.
    """
    rest = "".join(f", {row[f'folds_{how}']} {how}" for how in ("stopped", "failed") if row[f"folds_{how}"])
    return f"{row['folds_finished']} of {row['n_folds']}{rest}"


def _seeds(row: Mapping[str, Any]) -> str:
    """The members of an ensemble, and the accuracies of the worst and the best."""
    if pd.isna(row["seeds"]):
        return "–"
    return f"{row['seeds']}: {percent(row['seed_accuracy_low'])} to {percent(row['seed_accuracy_high'])}"


def _over_compounds(row: Mapping[str, Any]) -> str:
    return f"{percent(row['compound_low'])} to {percent(row['compound_high'])}" if row["n"] else "–"


def _behind(row: Mapping[str, Any]) -> str:
    """By how many treatments the best one is ahead, of how many both have."""
    return "–" if pd.isna(row["permutation_p"]) else f"{row['behind']:.0f} of {row['compared']}"


def _corrected_p(row: Mapping[str, Any], name: str) -> str:
    return "–" if pd.isna(row[name]) else p_value(row[name])


def accuracies(leaderboard: pd.DataFrame, baseline: float | None = None, most: int = 30) -> Figure:
    """Draw the accuracy of the best candidates with Wilson's 95 % intervals; incomplete ones are hollow and say so.

    Parameters
    ----------
    leaderboard : DataFrame
        As `moa_ray.statistics.leaderboard` makes it.
    baseline : float or None
        Accuracy of the majority class, drawn as a line.
    most : int
        How many candidates are drawn.

    Returns
    -------
    Figure
        One row a candidate.
    """
    shown = leaderboard[leaderboard["n"] > 0].head(most)
    weights = ["weights"] if leaderboard["weights"].nunique() > 1 else []
    names = ["backbone", *weights, *hyperparameters(leaderboard)]
    if leaderboard[names].astype(str).duplicated().any():  # candidates that someone else named
        names = [CANDIDATE]
    called = [_in_words(row, names) for row in shown.to_dict("records")]
    lines = [line for name in called for line in name.split("\n")]
    height = (0.3 + 0.17 * -(-len(names) // _WORDS_A_LINE)) * len(shown) + 1.3
    figure, axes = canvas(room(lines) + 5.5, height)
    for place, row in enumerate(shown.to_dict("records")):
        share, low, high = (row[name] for name in ("treatment_accuracy", "wilson_low", "wilson_high"))
        colour = BLUE if row["complete"] else GREY
        fill = colour if row["complete"] else "white"
        axes.plot([low, high], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
        axes.plot(share, place, "o", color=colour, markerfacecolor=fill, markeredgewidth=1.8, markersize=8)
        axes.text(1.02, place, right_of_all(row), va="center", fontsize=9, color=INK)
    accuracy_axes(axes, called, baseline)
    return figure


def _in_words(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """A candidate in words, a few hyperparameters a line."""
    words = []
    for name in names:
        value = row[name]
        text = f"{value:g}" if isinstance(value, float) else plain_text(PurePath(str(value)).name)
        words.append(text if name in (CANDIDATE, BACKBONE, "weights") else f"{name} {text}")
    lines = [words[start : start + _WORDS_A_LINE] for start in range(0, len(words), _WORDS_A_LINE)]
    return "\n".join(", ".join(line) for line in lines)
