"""What the report says of uncertainty: the sections "Uncertainty" and "Unknown mechanisms"."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from moa_ray import figures_uncertainty, uncertainty
from moa_ray.sheet import Sheet, percent
from moa_ray.tables import CANDIDATE, COMPOUND, FOLD, METHOD, TREATMENT
from moa_ray.uncertainty import DOUBT, KEPT, MEASURES, PREDICTIVE, RIGHT, SINGLE, UNKNOWN, Rejection, Separation

METHODS = {
    SINGLE: "as predicted",
    "mc_dropout": "Monte Carlo dropout",
    "laplace": "last-layer Laplace",
    "ensemble": "deep ensemble",
}
WHAT = {
    DOUBT: "how far the most probable label is from certain",
    PREDICTIVE: "how evenly the probabilities are spread over the labels",
    uncertainty.EXPECTED: "the same within one sample, on average: what the images leave open",
    uncertainty.MUTUAL: "how much the samples contradict each other: what the training left open",
    uncertainty.INCREDIBILITY: "how strange the treatment is beside those of every label, by conformal prediction",
}


@dataclass(frozen=True)
class Unsure:
    """How unsure the headline's candidate is of the treatments that it is judged by.

    measured : as `uncertainty.measures` makes it, of this candidate alone
    seed : of the bootstrap
    """

    measured: pd.DataFrame
    seed: int

    @classmethod
    def of(cls, measured: pd.DataFrame, candidate: str, folds: Sequence[str] | None, seed: int) -> "Unsure":
        """The candidate's own rows of a table of measures, of some folds alone where these judge it."""
        mine = measured[measured[CANDIDATE] == candidate]
        return cls(mine if folds is None else mine[mine[FOLD].isin(folds)], seed)

    @cached_property
    def known(self) -> pd.DataFrame:
        """The rows that can be right."""
        return self.measured[~self.measured[UNKNOWN].to_numpy(dtype=bool)]

    @cached_property
    def unknown(self) -> pd.DataFrame:
        """The rows whose label no network had learnt."""
        return self.measured[self.measured[UNKNOWN].to_numpy(dtype=bool)]

    @cached_property
    def rejections(self) -> list[Rejection]:
        """A curve for each method and measure; none without known treatments."""
        return uncertainty.rejections(self.measured) if len(self.known) else []

    @cached_property
    def separations(self) -> list[Separation]:
        """Known against unknown, by each method and measure; none where no label was held out."""
        return uncertainty.separations(self.measured, self.seed)

    @property
    def sampled(self) -> bool:
        """Whether any method has several samples of each treatment."""
        return bool((self.measured[METHOD] != SINGLE).any())

    @cached_property
    def best_possible(self) -> NDArray[np.float64]:
        """The curve of an uncertainty that knows what is wrong, for the predictions as they are."""
        mine = self.known[self.known[METHOD] == SINGLE]
        return uncertainty.best_possible(mine[RIGHT].to_numpy(dtype=bool))

    def counts(self) -> dict[str, int]:
        """Treatments and compounds on either side."""
        sides = {"known": self.known, "unknown": self.unknown}
        treatments = {f"{name}_treatments": len(table[TREATMENT].drop_duplicates()) for name, table in sides.items()}
        return treatments | {f"{name}_compounds": table[COMPOUND].nunique() for name, table in sides.items()}

    def sentence(self) -> str:
        """The separation in plain words, by the highest probability alone; empty where no label was held out.

        Always by this one: to name the best of several would be optimistic.
        """
        for one in self.separations:
            if (one.method, one.measure) == (SINGLE, DOUBT):
                return (
                    f"Of 100 pairs of a known and an unknown treatment the network is less sure of the unknown one in "
                    f"{100 * one.auroc:.0f} (95 % interval {100 * one.low:.0f} to {100 * one.high:.0f}; 50 is no "
                    "better than guessing)."
                )
        return ""

    def plain(self) -> dict[str, Any]:
        """The numbers, for scripts."""
        return {
            "rejection": [
                {
                    **{METHOD: one.method, "measure": one.measure, "n": len(one.accuracies), "area": one.area},
                    **{f"accuracy_{100 * share:.0f}": one.kept(share) for share in KEPT},
                }
                for one in self.rejections
            ],
            "best_possible_area": float(self.best_possible.mean()) if self.rejections else None,
            "unknown": {**self.counts(), "auroc": [vars(one) for one in self.separations]}
            if self.separations
            else None,
        }


def rejection_sheet(unsure: Unsure) -> Sheet:
    """Accuracy by the share that is kept, a row a method and measure."""
    headings = [
        "method",
        "uncertainty",
        "area",
        *("all" if share == 1 else f"{100 * share:.0f} % kept" for share in KEPT),
    ]
    rows = [
        [*_names(one), f"{one.area:.3f}", *(percent(one.kept(share)) for share in KEPT)] for one in unsure.rejections
    ]
    return Sheet(headings, rows, [False, False, *[True] * (1 + len(KEPT))])


def separation_sheet(unsure: Unsure) -> Sheet:
    """Pairs told apart, a row a method and measure."""
    headings = ["method", "uncertainty", "what it says", "of 100 pairs", "AUROC", "95 % interval"]
    rows = [
        [
            *_names(one),
            WHAT[one.measure],
            f"{100 * one.auroc:.0f}",
            f"{one.auroc:.3f}",
            f"{one.low:.3f} to {one.high:.3f}",
        ]
        for one in unsure.separations
    ]
    return Sheet(headings, rows, [False, False, False, True, True, True])


def draw(unsure: Unsure) -> dict[str, Figure]:
    """The figures of both sections by their file names; those that there is no data for are left out."""
    drawn = {}
    if unsure.rejections:
        shown = _shown(unsure.rejections)
        drawn["accuracy_rejection"] = figures_uncertainty.accuracy_rejection(shown, unsure.best_possible)
    if unsure.separations:
        single = [one.measure for one in unsure.separations if one.method == SINGLE]
        rows = unsure.measured[unsure.measured[METHOD] == SINGLE]
        drawn["unknown_treatments"] = figures_uncertainty.known_and_unknown(
            rows, {name: MEASURES[name] for name in single}
        )
        drawn["unknown_auroc"] = figures_uncertainty.areas(
            [("\n".join(_names(one)), one) for one in unsure.separations]
        )
    return drawn


def _shown(curves: Sequence[Rejection]) -> list[tuple[str, Rejection]]:
    """One method with all its measures; of several methods one measure each, so that they can be told apart."""
    if len({one.method for one in curves}) == 1:
        return [(MEASURES[one.measure], one) for one in curves]
    return [(METHODS.get(one.method, one.method), one) for one in curves if one.measure == PREDICTIVE]


def _names(one: Rejection | Separation) -> tuple[str, str]:
    return METHODS.get(one.method, one.method), MEASURES[one.measure]
