"""Confusion matrices: how many treatments of each label were taken for each other label."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from moa_ray.common.schema import BACKBONE, CANDIDATE
from moa_ray.reporting.evidence import Evidence
from moa_ray.reporting.figures import BLUE, INK, plain_text, room
from moa_ray.reporting.section import Section
from moa_ray.statistics import scores

MOST_MATRICES = 6
_SHADES = LinearSegmentedColormap.from_list("shades", ["#E3EEF6", BLUE])
_WORD = re.compile(r"\w[\w'’-]*")
_SHORT_LABEL = 5  # letters; a label as short as this is its own abbreviation


@dataclass(frozen=True)
class Confusion(Section):
    """A confusion matrix of the best candidate of each backbone.

    Attributes
    ----------
    evidence : Evidence
        What the report stands on.
    candidates : sequence of str
        The candidates shown.
    """

    template: ClassVar[str] = "sections/confusion.html"

    evidence: Evidence
    candidates: Sequence[str]

    @classmethod
    def of(cls, evidence: Evidence) -> Self | None:
        rows = evidence.leaderboard
        shown = rows["complete"] if evidence.search and rows["complete"].any() else rows["n"] > 0
        candidates = list(rows[shown].drop_duplicates(BACKBONE)[CANDIDATE].head(MOST_MATRICES))
        return cls(evidence, candidates) if candidates else None

    def figures(self) -> dict[str, Figure]:
        return {f"confusion-{candidate}": matrix_of(self.evidence, candidate) for candidate in self.candidates}

    @property
    def unfinished(self) -> Collection[str]:
        """The candidates that have not all treatments."""
        rows = self.evidence.leaderboard
        return set(rows.loc[~rows["complete"], CANDIDATE])


def matrix_of(evidence: Evidence, candidate: str) -> Figure:
    """Draw the confusion matrix of one candidate.

    Parameters
    ----------
    evidence : Evidence
        What the report stands on.
    candidate : str
        The candidate's name.

    Returns
    -------
    Figure
        As `confusion` draws it.
    """
    missing = evidence.unpredicted_of(candidate)
    return confusion(scores.confusion(evidence.treatments_of(candidate), evidence.labels, missing))


def confusion(counts: pd.DataFrame) -> Figure:
    """Draw how many treatments of each true label (rows) were taken for each label (columns); zeros are left out.

    The shade is the share of the row. Labels are abbreviated as `abbreviations` does; their names and numbers of
    treatments stand beside.

    Parameters
    ----------
    counts : DataFrame
        As `scores.confusion` makes it; a column beyond the labels is of treatments that were not predicted.

    Returns
    -------
    Figure
        The matrix to the left, the names to the right.
    """
    labels, n, columns = list(counts.index), len(counts), counts.shape[1]
    short = abbreviations(labels)
    names = [plain_text(short[label]) for label in labels]
    totals = counts.sum(axis=1).to_numpy()
    key = [
        (plain_text(short[label]), f"{plain_text(label)} ({total})")
        for label, total in zip(labels, totals, strict=True)
    ]
    beside, letters = room(text for _, text in key) + 0.3, room(names)
    side = max(0.42 * n, 1.2)
    wide = side * columns / n
    figure = Figure(figsize=(wide + letters + 0.9 + beside, max(side, 0.25 * n) + letters + 0.5), layout="constrained")
    axes, listed = figure.subplots(1, 2, width_ratios=[wide + letters + 0.6, beside])
    shares = np.divide(counts.to_numpy(), totals[:, None], out=np.zeros((n, columns)), where=totals[:, None] > 0)
    axes.imshow(np.ma.masked_equal(shares, 0), cmap=_SHADES, vmin=0, vmax=1, aspect="auto")
    for row, column in np.argwhere(counts.to_numpy() > 0):
        ink = "white" if shares[row, column] > 0.55 else INK
        axes.text(column, row, str(counts.iat[row, column]), ha="center", va="center", color=ink, fontsize=10)
    axes.set_xticks(range(columns), [*names, *map(plain_text, counts.columns[n:])], rotation=90)
    axes.set_yticks(range(n), names)
    axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#D9D9D9", linewidth=0.6)
    axes.tick_params(which="both", length=0)
    axes.set(xlabel="predicted", ylabel="true")
    for spine in axes.spines.values():
        spine.set_color("#D9D9D9")
    _list_key(listed, key, letters / (beside + letters))
    return figure


def _list_key(axes: Axes, key: Sequence[tuple[str, str]], indent: float) -> None:
    """Write what the abbreviations stand for, a line each."""
    axes.set(xlim=(0, 1), ylim=(len(key) - 0.5, -0.5))
    axes.set_axis_off()
    for row, (short, name) in enumerate(key):
        axes.text(0, row, short, va="center", fontsize=9, fontweight="bold", color=INK)
        axes.text(indent, row, name, va="center", fontsize=9, color=INK)


def abbreviations(labels: Sequence[str]) -> dict[str, str]:
    """Abbreviate each label differently: MD for Microtubule destabilizers, Epi for Epithelial.

    Several words become their initials, in capitals; a word with a digit stays whole, since it is a name (Eg5
    inhibitors: Eg5I). A single word becomes three letters; up to five letters stay as they are. Where two labels come
    to the same, both take a letter more of each word until they differ.

    Parameters
    ----------
    labels : sequence of str
        All different.

    Returns
    -------
    dict of str to str
        The abbreviation of each label, in the same order.
    """
    letters = dict.fromkeys(labels, 0)
    while True:
        short = {label: _abbreviated(label, more) for label, more in letters.items()}
        taken = list(short.values())
        longer = [label for label in labels if taken.count(short[label]) > 1 and short[label] != label]
        if not longer:
            return short
        for label in longer:
            letters[label] += 1


def _abbreviated(label: str, more: int) -> str:
    words = _WORD.findall(label)
    if len(label) <= _SHORT_LABEL or not words or more >= len(label):
        return label
    if len(words) == 1:
        return str(words[0][: 3 + more])
    parts: list[str] = [word if any(map(str.isdigit, word)) else word[: 1 + more] for word in words]
    return "".join(part[0].upper() + part[1:] for part in parts)
