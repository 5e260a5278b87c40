"""Measure uncertainty: how unsure each prediction of a treatment is, and what that is worth.

Two things make an uncertainty worth having. Treatments that it calls unsure are the wrong ones, so that accuracy rises
as they are rejected. And treatments whose mechanism no network has learnt are called unsure, so that they stand out.

A method makes the probabilities: ``single`` is the treatments table itself; the others give several samples of each
treatment's probabilities, whose mean predicts. Entropies are in nats. All functions are pure functions over tables.

References
----------
Depeweg et al. 2018 (decomposition); Nadeem, Zucker and Hanczar 2010 (accuracy-rejection curves).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import entr
from sklearn.metrics import roc_auc_score

from moa_ray.common.open_set import marks
from moa_ray.common.random_streams import Stream, rng
from moa_ray.common.schema import (
    BACKBONE,
    CANDIDATE,
    COMPOUND,
    FOLD,
    LABEL,
    METHOD,
    SAMPLE,
    probability_columns,
    require_columns,
)
from moa_ray.statistics import aggregation
from moa_ray.statistics.conformal import CREDIBILITY
from moa_ray.statistics.units import unit_key

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


def measures(treatments: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """Measure the uncertainty of each treatment by each method.

    Parameters
    ----------
    treatments : DataFrame, one row per candidate and treatment
        As `aggregation.treatments` makes it, renormalised here; a column ``credibility`` is taken along.
    samples : DataFrame
        The same rows for each method and sample; may be empty.

    Returns
    -------
    DataFrame, one row per candidate, method and treatment
        The label, the predicted one, and each of `MEASURES` that there is. A treatment of ``single`` has one sample:
        its mutual information is 0. A treatment that was predicted as a known and as an unknown one has two rows, told
        apart by ``unknown``.

    Raises
    ------
    InputError
        If a column is missing.
    """
    methods = [treatments.assign(**{METHOD: SINGLE, SAMPLE: 0}), samples]
    tables = [_measured(table) for table in methods if len(table)]
    joined = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[CANDIDATE, METHOD, UNKNOWN])
    if CREDIBILITY in treatments:
        joined[INCREDIBILITY] = (1 - joined.pop(CREDIBILITY).astype(np.float64)).round(_DIGITS)
    return joined


def _measured(samples: pd.DataFrame) -> pd.DataFrame:
    key = [CANDIDATE, METHOD, *([FOLD] if FOLD in samples else []), *unit_key(samples)]
    require_columns(samples, [*key, SAMPLE, LABEL, *probability_columns(samples)], "samples")
    rows = aggregation.renormalise(samples).reset_index(drop=True)
    columns = probability_columns(rows)
    each = entr(rows[columns].to_numpy(dtype=np.float64)).sum(axis=1)
    groups = rows.assign(_entropy=each).groupby(key, sort=False, dropna=False)
    first, mean = groups.head(1), groups[columns].mean()
    kept = [name for name in (*key, BACKBONE, LABEL, CREDIBILITY) if name in rows]
    predictive, expected = entr(mean.to_numpy()).sum(axis=1), groups["_entropy"].mean().to_numpy()
    values_of = {
        DOUBT: 1 - mean.to_numpy().max(axis=1),
        PREDICTIVE: predictive,
        EXPECTED: expected,
        MUTUAL: np.maximum(predictive - expected, 0),
    }
    predicted = aggregation.predicted(mean).to_numpy()
    told = {aggregation.PREDICTED: predicted, RIGHT: predicted == first[LABEL], UNKNOWN: marks(first)}
    return first[kept].assign(**told, **{name: values.round(_DIGITS) for name, values in values_of.items()})


def used(measured: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the methods of a table of measures with those measures that say anything: one sample has a single entropy.

    Parameters
    ----------
    measured : DataFrame
        As `measures` makes it.

    Returns
    -------
    list of (str, str)
        Method and measure.
    """
    pairs = [(method, measure) for method in dict.fromkeys(measured[METHOD]) for measure in MEASURES]
    return [pair for pair in pairs if _is_informative(measured[measured[METHOD] == pair[0]], *pair)]


def _is_informative(rows: pd.DataFrame, method: str, measure: str) -> bool:
    if method == SINGLE and measure in (EXPECTED, MUTUAL):
        return False
    return measure in rows and bool(rows[measure].notna().all())


@dataclass(frozen=True)
class Rejection:
    """An accuracy-rejection curve.

    Attributes
    ----------
    method, measure : str
        How the probabilities were made, and which uncertainty orders the treatments.
    accuracies : ndarray of float64, shape (n,)
        Accuracy of the 1, 2, ..., n surest treatments; among equally unsure ones the mean over all their orders.
    """

    method: str
    measure: str
    accuracies: NDArray[np.float64]

    @property
    def area(self) -> float:
        """Return the mean of the accuracies: the accuracy itself where the order tells nothing."""
        return float(self.accuracies.mean())

    def kept(self, share: float) -> float:
        """Return the accuracy where at least a share of the treatments is kept, the surest ones.

        Parameters
        ----------
        share : float
            0 to 1.

        Returns
        -------
        float
            0 to 1.
        """
        n = len(self.accuracies)
        return float(self.accuracies[int(np.ceil(round(share * n, 9))) - 1])


def rejection(uncertainty: NDArray[np.float64], right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the accuracy of the 1, 2, ..., n surest rows; each of equally unsure ones counts as their mean.

    Parameters
    ----------
    uncertainty : ndarray of float64, shape (n,)
        Higher is less sure.
    right : ndarray of bool, shape (n,)
        Whether each row is right.

    Returns
    -------
    ndarray of float64, shape (n,)

    Raises
    ------
    ValueError
        If there is no row.
    """
    if not len(right):
        raise ValueError("rejection: at least one treatment is needed, but got none")
    shared = pd.Series(right, dtype=np.float64).groupby(np.asarray(uncertainty)).transform("mean").to_numpy()
    order = np.argsort(uncertainty, kind="stable")
    accuracies: NDArray[np.float64] = np.cumsum(shared[order]) / np.arange(1, len(right) + 1)
    return accuracies


def rejections(measured: pd.DataFrame) -> list[Rejection]:
    """Return the curve of each method and measure of one candidate, over its known treatments.

    Parameters
    ----------
    measured : DataFrame
        As `measures` makes it, of one candidate.

    Returns
    -------
    list of Rejection
    """
    known = measured[~measured[UNKNOWN].to_numpy(dtype=bool)]
    return [
        Rejection(method, measure, rejection(rows[measure].to_numpy(), rows[RIGHT].to_numpy()))
        for method, measure in used(known)
        for rows in [known[known[METHOD] == method]]
    ]


def best_possible(right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the curve of an uncertainty that ranks every wrong row behind every right one.

    Parameters
    ----------
    right : ndarray of bool, shape (n,)
        Whether each row is right.

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    return rejection(1.0 - np.asarray(right, dtype=np.float64), right)


@dataclass(frozen=True)
class Separation:
    """How well an uncertainty tells unknown treatments from known ones.

    Attributes
    ----------
    method, measure : str
        How the probabilities were made, and which uncertainty is judged.
    auroc : float
        Share of all pairs of a known and an unknown treatment in which the unknown one is less sure; equal ones count
        half.
    low, high : float
        95 % percentile interval over bootstrap samples of compounds.
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
    """Return the area under the ROC curve of an uncertainty, unknown against known rows, and its interval.

    Compounds are drawn with replacement, each with all its rows, for doses of one compound are not independent. Samples
    without known or without unknown rows are drawn again.

    Parameters
    ----------
    uncertainty : ndarray of float64, shape (n,)
        Higher is less sure.
    unknown : ndarray of bool, shape (n,)
        Whether each row is unknown.
    compounds : sequence of hashable, length n
        The compound of each row.
    seed : int
        Seed of the draws.
    samples : int
        Bootstrap samples.
    level : float
        Coverage of the interval, 0 to 1.

    Returns
    -------
    auroc, low, high : float
        0 to 1.

    Raises
    ------
    ValueError
        If there are not both kinds of rows.
    """
    if not unknown.any() or unknown.all():
        raise ValueError(
            f"separation: known and unknown rows are needed, but {int(unknown.sum())} of {len(unknown)} are unknown"
        )
    area = float(roc_auc_score(unknown, uncertainty))
    number, names = pd.factorize(pd.Series(list(compounds)))
    won = _won(np.asarray(uncertainty), unknown, number, len(names))
    pairs = np.outer(*(np.bincount(number[rows], minlength=len(names)) for rows in (unknown, ~unknown)))
    generator = rng(seed, Stream.BOOTSTRAP)
    areas: list[float] = []
    while len(areas) < samples:
        drawn = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names))
        if total := drawn @ pairs @ drawn:
            areas.append(float(drawn @ won @ drawn / total))
    low, high = np.quantile(areas, [(1 - level) / 2, (1 + level) / 2])
    return area, float(low), float(high)


def _won(
    uncertainty: NDArray[np.float64], unknown: NDArray[np.bool_], number: NDArray[np.intp], count: int
) -> NDArray[np.float64]:
    """Count pairs in which the unknown row is less sure, by the compound of the unknown row and that of the known one.

    A bootstrap sample is then a product; asking scikit-learn a thousand times takes seconds for each uncertainty.
    """
    gap = uncertainty[unknown][:, None] - uncertainty[~unknown][None, :]
    won = np.zeros((count, count))
    np.add.at(won, (number[unknown][:, None], number[~unknown][None, :]), (np.sign(gap) + 1) / 2)
    return won


def separations(measured: pd.DataFrame, seed: int) -> list[Separation]:
    """Return how well each method and measure of one candidate tells the unknown apart; none without both kinds.

    Parameters
    ----------
    measured : DataFrame
        As `measures` makes it, of one candidate.
    seed : int
        Seed of the draws.

    Returns
    -------
    list of Separation
    """
    separated = []
    for method, measure in used(measured):
        rows = measured[measured[METHOD] == method]
        unknown = rows[UNKNOWN].to_numpy(dtype=bool)
        if unknown.any() and not unknown.all():
            separated.append(
                Separation(method, measure, *separation(rows[measure].to_numpy(), unknown, list(rows[COMPOUND]), seed))
            )
    return separated
