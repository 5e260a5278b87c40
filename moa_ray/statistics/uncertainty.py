"""Uncertainty: how unsure each prediction of a treatment is, and what that is worth. Pure functions over tables.

Two things make an uncertainty worth having. Treatments that it calls unsure are the wrong ones, so that accuracy rises
as they are rejected. And treatments whose mechanism no network has learnt are called unsure, so that they stand out.

A method makes the probabilities: ``single`` is the treatments table itself; the others give several samples of each
treatment's probabilities, whose mean predicts. Entropies are in nats.
Sources: Depeweg et al. 2018 (decomposition); Nadeem, Zucker and Hanczar 2010 (accuracy-rejection curves).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import entr
from sklearn.metrics import roc_auc_score

from moa_ray import metrics, unknowns
from moa_ray.conformal import CREDIBILITY
from moa_ray.tables import (
    BACKBONE,
    CANDIDATE,
    COMPOUND,
    FOLD,
    LABEL,
    METHOD,
    SAMPLE,
    TREATMENT,
    probability_columns,
    require_columns,
)

SINGLE = "single"
RIGHT, UNKNOWN = "right", "unknown"
DOUBT = "one_minus_max"
PREDICTIVE, EXPECTED, MUTUAL = "predictive_entropy", "expected_entropy", "mutual_information"
INCREDIBILITY = "one_minus_credibility"  # where the treatments carry the credibility

# Higher is less sure.
MEASURES = {
    DOUBT: "1 − highest probability",
    PREDICTIVE: "predictive entropy",
    EXPECTED: "expected entropy",
    MUTUAL: "mutual information",
    INCREDIBILITY: "1 − conformal credibility",
}
KEPT = (1.0, 0.9, 0.8, 0.7)  # shares of the treatments whose accuracy is named

_DIGITS = 12  # what differs by less than rounding is a tie


# Of each treatment ----------------------------------------------------------------------------------------------------


def measures(treatments: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """One row a candidate, method and treatment: the label, the predicted one, and each of `MEASURES` that there is.

    treatments : as `metrics.treatments` makes it, renormalised here; a column `credibility` is taken along
    samples : the same rows for each method and sample; may be empty
    A treatment of ``single`` has one sample: its mutual information is 0. A treatment that was predicted as a known and
    as an unknown one has two rows, told apart by `unknown`.
    Raises ValueError if a column is missing.
    """
    methods = [treatments.assign(**{METHOD: SINGLE, SAMPLE: 0}), samples]
    tables = [_measured(table) for table in methods if len(table)]
    joined = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[CANDIDATE, METHOD, UNKNOWN])
    if CREDIBILITY in treatments:
        joined[INCREDIBILITY] = (1 - joined.pop(CREDIBILITY).astype(np.float64)).round(_DIGITS)
    return joined


def _measured(samples: pd.DataFrame) -> pd.DataFrame:
    key = [CANDIDATE, METHOD, *([FOLD] if FOLD in samples else []), *TREATMENT]
    require_columns(samples, [*key, SAMPLE, LABEL, *probability_columns(samples)], "samples")
    rows = metrics.renormalise(samples).reset_index(drop=True)
    columns = probability_columns(rows)
    each = entr(rows[columns].to_numpy(dtype=np.float64)).sum(axis=1)
    groups = rows.assign(_entropy=each).groupby(key, sort=False, dropna=False)
    first, mean = groups.head(1), groups[columns].mean()
    kept = [name for name in (*key, BACKBONE, LABEL, CREDIBILITY) if name in rows]
    predictive, expected = entr(mean.to_numpy()).sum(axis=1), groups["_entropy"].mean().to_numpy()
    found = {
        DOUBT: 1 - mean.to_numpy().max(axis=1),
        PREDICTIVE: predictive,
        EXPECTED: expected,
        MUTUAL: np.maximum(predictive - expected, 0),
    }
    predicted = metrics.predicted(mean).to_numpy()
    marks = {metrics.PREDICTED: predicted, RIGHT: predicted == first[LABEL], UNKNOWN: unknowns.are_unknown(first)}
    return first[kept].assign(**marks, **{name: values.round(_DIGITS) for name, values in found.items()})


def used(measured: pd.DataFrame) -> list[tuple[str, str]]:
    """The methods of a table of measures with the measures that say anything: one sample has a single entropy."""
    pairs = [(method, measure) for method in dict.fromkeys(measured[METHOD]) for measure in MEASURES]
    return [pair for pair in pairs if _says(measured[measured[METHOD] == pair[0]], *pair)]


def _says(mine: pd.DataFrame, method: str, measure: str) -> bool:
    if method == SINGLE and measure in (EXPECTED, MUTUAL):
        return False
    return measure in mine and bool(mine[measure].notna().all())


# Rejecting the unsure -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rejection:
    """An accuracy-rejection curve.

    accuracies : of the 1, 2, ..., n surest treatments; among equally unsure ones the mean over all their orders
    """

    method: str
    measure: str
    accuracies: NDArray[np.float64]

    @property
    def area(self) -> float:
        """The mean of the accuracies: the accuracy itself where the order tells nothing."""
        return float(self.accuracies.mean())

    def kept(self, share: float) -> float:
        """Accuracy where at least this share of the treatments is kept, the surest ones."""
        n = len(self.accuracies)
        return float(self.accuracies[int(np.ceil(round(share * n, 9))) - 1])


def rejection(uncertainty: NDArray[np.float64], right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Accuracy of the 1, 2, ..., n surest rows; of equally unsure ones each counts as their mean.

    uncertainty : higher is less sure
    Raises ValueError if there is no row.
    """
    if not len(right):
        raise ValueError("rejection: at least one treatment is needed, but got none")
    shared = pd.Series(right, dtype=np.float64).groupby(np.asarray(uncertainty)).transform("mean").to_numpy()
    order = np.argsort(uncertainty, kind="stable")
    accuracies: NDArray[np.float64] = np.cumsum(shared[order]) / np.arange(1, len(right) + 1)
    return accuracies


def rejections(measured: pd.DataFrame) -> list[Rejection]:
    """The curve of each method and measure of one candidate, over its known treatments."""
    known = measured[~measured[UNKNOWN].to_numpy(dtype=bool)]
    return [
        Rejection(method, measure, rejection(mine[measure].to_numpy(), mine[RIGHT].to_numpy()))
        for method, measure in used(known)
        for mine in [known[known[METHOD] == method]]
    ]


def best_possible(right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The curve of an uncertainty that ranks every wrong row behind every right one."""
    return rejection(1.0 - np.asarray(right, dtype=np.float64), right)


# Telling the unknown apart --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Separation:
    """How well an uncertainty tells unknown treatments from known ones.

    auroc : share of all pairs of a known and an unknown treatment in which the unknown one is less sure; equal ones
        count half
    low, high : 95 % percentile interval over bootstrap samples of compounds
    """

    method: str
    measure: str
    auroc: float
    low: float
    high: float


def separation(
    uncertainty: NDArray[np.float64],
    unknown: NDArray[np.bool_],
    compounds: Sequence[Hashable],
    seed: int,
    samples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """The area under the ROC curve of an uncertainty, unknown against known rows, and its interval.

    Compounds are drawn with replacement, each with all its rows, for doses of one compound are not independent. Samples
    without known or without unknown rows are drawn again.

    compounds : of each row
    Raises ValueError if there are not both kinds of rows.
    """
    if not unknown.any() or unknown.all():
        raise ValueError(
            f"separation: known and unknown rows are needed, but {int(unknown.sum())} of {len(unknown)} are unknown"
        )
    area = float(roc_auc_score(unknown, uncertainty))
    number, names = pd.factorize(pd.Series(list(compounds)))
    won = _won(np.asarray(uncertainty), unknown, number, len(names))
    pairs = np.outer(*(np.bincount(number[rows], minlength=len(names)) for rows in (unknown, ~unknown)))
    rng = np.random.default_rng([seed, 3])
    areas: list[float] = []
    while len(areas) < samples:
        drawn = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        if total := drawn @ pairs @ drawn:
            areas.append(float(drawn @ won @ drawn / total))
    low, high = np.quantile(areas, [(1 - level) / 2, (1 + level) / 2])
    return area, float(low), float(high)


def _won(
    uncertainty: NDArray[np.float64], unknown: NDArray[np.bool_], number: NDArray[np.intp], count: int
) -> NDArray[np.float64]:
    """Pairs in which the unknown row is less sure, by the compound of the unknown row and that of the known one.

    A bootstrap sample is then a product; asking scikit-learn a thousand times takes seconds for each uncertainty.
    """
    gap = uncertainty[unknown][:, None] - uncertainty[~unknown][None, :]
    won = np.zeros((count, count))
    np.add.at(won, (number[unknown][:, None], number[~unknown][None, :]), (np.sign(gap) + 1) / 2)
    return won


def separations(measured: pd.DataFrame, seed: int) -> list[Separation]:
    """How well each method and measure of one candidate tells the unknown apart; none without both kinds."""
    found = []
    for method, measure in used(measured):
        mine = measured[measured[METHOD] == method]
        unknown = mine[UNKNOWN].to_numpy(dtype=bool)
        if unknown.any() and not unknown.all():
            found.append(
                Separation(method, measure, *separation(mine[measure].to_numpy(), unknown, list(mine[COMPOUND]), seed))
            )
    return found
