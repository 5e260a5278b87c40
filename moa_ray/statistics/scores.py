"""Score tables of treatments: accuracy, F1, log loss, calibration error, confusion."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import xlogy
from sklearn.metrics import confusion_matrix, f1_score

from moa_ray.common.open_set import closed_set
from moa_ray.common.schema import CANDIDATE, COMPOUND, LABEL, labels_of, require_columns
from moa_ray.statistics import intervals
from moa_ray.statistics.aggregation import (
    PREDICTED,
    Aggregation,
    over_wells,
    predicted,
    probabilities,
    renormalise,
    wells,
)
from moa_ray.statistics.intervals import wilson
from moa_ray.statistics.units import unit_of

SCORES = (
    *("k", "n", "treatment_accuracy", "wilson_low", "wilson_high", "compounds", "compound_low", "compound_high"),
    *("well_accuracy", "tile_accuracy", "macro_f1", "log_loss", "calibration_error"),
)
NOT_PREDICTED = "(not predicted)"  # stands where a predicted label would
# Scores where no row counts.
NOTHING_SCORED: Mapping[str, float] = {**dict.fromkeys(SCORES, float("nan")), "k": 0, "n": 0, "compounds": 0}


def accuracy(table: pd.DataFrame) -> float:
    """Return the share of rows whose most probable label is the true one.

    Parameters
    ----------
    table : DataFrame
        With the true label and one ``prob_<label>`` per class.

    Returns
    -------
    float
        0 to 1.
    """
    return float((predicted(table) == table[LABEL]).mean())


def macro_f1(table: pd.DataFrame, missing: pd.DataFrame | None = None) -> float:
    """Return the mean of the labels' F1 scores, over the labels that occur as true or predicted ones.

    Parameters
    ----------
    table : DataFrame
        With the true label and one ``prob_<label>`` per class.
    missing : DataFrame, optional
        Rows that were to be predicted and were not, with their true label: each is one that its label lacks.

    Returns
    -------
    float
        0 to 1.
    """
    absent = [] if missing is None else list(missing[LABEL])
    true, taken = [*table[LABEL], *absent], [*predicted(table), *[NOT_PREDICTED] * len(absent)]
    labels = sorted({*true, *taken} - ({NOT_PREDICTED} if absent else set()))
    return float(f1_score(true, taken, labels=labels, average="macro", zero_division=0))


def losses(table: pd.DataFrame) -> NDArray[np.float64]:
    """Return the negative log of each row's renormalised probability of the true label.

    Parameters
    ----------
    table : DataFrame
        With the true label and one ``prob_<label>`` per class.

    Returns
    -------
    ndarray of float64, shape (n_rows,)
        Nats; finite, since probabilities are clipped as scikit-learn clips them.
    """
    number = pd.Index(labels_of(table)).get_indexer(table[LABEL])
    true = probabilities(renormalise(table))[np.arange(len(table)), number]
    eps = np.finfo(np.float64).eps
    nats: NDArray[np.float64] = -xlogy(1.0, np.clip(true, eps, 1 - eps))
    return nats


def log_loss(table: pd.DataFrame) -> float:
    """Return the mean of `losses`.

    Parameters
    ----------
    table : DataFrame
        With the true label and one ``prob_<label>`` per class.

    Returns
    -------
    float
        Nats.
    """
    return float(losses(table).mean())


def calibration_error(table: pd.DataFrame, bins: int = 10) -> float:
    """Return the expected calibration error, weighted by rows: the mean gap of accuracy and confidence over bins.

    Parameters
    ----------
    table : DataFrame
        With the true label and one ``prob_<label>`` per class.
    bins : int
        Bins of equal width between 0 and 1.

    Returns
    -------
    float
        0 to 1.

    References
    ----------
    Naeini, Cooper and Hauskrecht 2015; Guo et al. 2017, "On calibration of modern neural networks".
    """
    return float(np.abs(calibration_gaps(table, bins).sum(axis=0)).sum() / len(table))


def calibration_gaps(table: pd.DataFrame, bins: int = 10) -> NDArray[np.float64]:
    """Return what each row adds to the gap of its bin of confidence: 1 or 0 for right or wrong, less its confidence.

    Parameters
    ----------
    table : DataFrame
        With the true label and one ``prob_<label>`` per class.
    bins : int
        Bins of equal width between 0 and 1.

    Returns
    -------
    ndarray of float64, shape (n_rows, bins)
        Zero outside the row's own bin.
    """
    confidence, right = confidences(table)
    gaps = np.zeros((len(table), bins))
    gaps[np.arange(len(table)), confidence_bin(confidence, bins)] = right - confidence
    return gaps


def confidences(table: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the highest renormalised probability of each row, and whether its label is the true one.

    Parameters
    ----------
    table : DataFrame
        With the true label and one ``prob_<label>`` per class.

    Returns
    -------
    confidence : ndarray of float64, shape (n_rows,)
        0 to 1.
    right : ndarray of bool, shape (n_rows,)
        Whether the most probable label is the true one.
    """
    return probabilities(renormalise(table)).max(axis=1), (predicted(table) == table[LABEL]).to_numpy(dtype=bool)


def confidence_bin(confidence: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Return the bin of equal width that each confidence lies in; a confidence of 1 lies in the last one.

    Parameters
    ----------
    confidence : ndarray of float64, shape (n,)
        0 to 1.
    bins : int
        Aggregation many bins there are.

    Returns
    -------
    ndarray of int64, shape (n,)
        0 to ``bins - 1``.
    """
    return np.minimum((confidence * bins).astype(np.int64), bins - 1)


def confusion(table: pd.DataFrame, labels: Sequence[str], missing: pd.DataFrame | None = None) -> pd.DataFrame:
    """Count how many rows of each true label were taken for each label.

    Parameters
    ----------
    table : DataFrame
        With the true label and one ``prob_<label>`` per class.
    labels : sequence of str
        The labels, in the order of rows and columns.
    missing : DataFrame, optional
        Rows that were to be predicted and were not, with their true label.

    Returns
    -------
    DataFrame of int, one row per true label, one column per predicted label
        Where rows are missing, a last column `NOT_PREDICTED` counts them.
    """
    counts = confusion_matrix(table[LABEL], predicted(table), labels=list(labels))
    matrix = pd.DataFrame(
        counts, index=pd.Index(labels, name=LABEL, dtype=str), columns=pd.Index(labels, name=PREDICTED, dtype=str)
    )
    if missing is None or missing.empty:
        return matrix
    return matrix.assign(**{NOT_PREDICTED: missing[LABEL].value_counts().reindex(list(labels)).fillna(0).astype(int)})


def majority(table: pd.DataFrame) -> tuple[str, int, int]:
    """Return the most frequent true label and how many rows carry it: the baseline of always saying that label.

    Parameters
    ----------
    table : DataFrame
        With the true label.

    Returns
    -------
    label : str
        The first in alphabetical order where several are most frequent.
    k : int
        Rows that carry it.
    n : int
        All rows.
    """
    counts = table[LABEL].value_counts()
    label = min(counts.index[counts == counts.max()])
    return str(label), int(counts[label]), len(table)


def scores(
    predictions: pd.DataFrame, how: Aggregation = "median", missing: pd.DataFrame | None = None
) -> dict[str, float]:
    """Score one candidate's tile predictions over treatments, wells and tiles, without those of the open set.

    Parameters
    ----------
    predictions : DataFrame, one row per tile
        As `aggregation.wells` takes them, of one candidate.
    how : {"median", "mean"}
        Reduction over tiles, then over wells.
    missing : DataFrame, optional
        Treatments that the candidate was to predict and did not, as `moa_ray.statistics.unpredicted` lists them. They
        count as not right.

    Returns
    -------
    dict of float
        ``k``, ``n``: treatments right, and all. ``treatment_accuracy``, ``wilson_low``, ``wilson_high``: k of n and its
        95 % Wilson interval. ``compounds``, ``compound_low``, ``compound_high``: how many there are, and the 95 %
        interval of a bootstrap that draws them. ``well_accuracy``, ``tile_accuracy``: the share right over wells and
        over tiles. ``macro_f1``: over treatments. ``log_loss`` (nats), ``calibration_error``: over the treatments
        that were predicted. Where none was they are `NOTHING_SCORED`.

    Raises
    ------
    ValueError
        If there is not exactly one candidate, and as `aggregation.wells` does.
    """
    require_columns(predictions, [CANDIDATE], "predictions")
    if predictions[CANDIDATE].nunique() != 1:
        raise ValueError(f"scores: predictions of one candidate, but got {predictions[CANDIDATE].nunique()}")
    tiles = closed_set(predictions)
    if tiles.empty:
        return dict(NOTHING_SCORED)
    by_well = wells(tiles, how)
    table = over_wells(by_well, how, unit=unit_of(tiles))
    values = {**treatment_scores(table, missing), "well_accuracy": accuracy(by_well), "tile_accuracy": accuracy(tiles)}
    return {name: values[name] for name in SCORES}


def treatment_scores(table: pd.DataFrame, missing: pd.DataFrame | None = None) -> dict[str, float]:
    """Return those of `scores` that are over treatments.

    Parameters
    ----------
    table : DataFrame, one row per treatment
        Of one candidate, as `aggregation.treatments` makes it.
    missing : DataFrame, optional
        As `scores` takes it.

    Returns
    -------
    dict of float
        Named as in `scores`.
    """
    absent = table.iloc[:0] if missing is None else missing
    compounds = [*table[COMPOUND], *absent[COMPOUND]]
    right = np.array([*(table[PREDICTED] == table[LABEL]), *[False] * len(absent)], dtype=bool)
    k, n = int(right.sum()), len(right)
    low, high = wilson(k, n)
    compound_low, compound_high = intervals.accuracy_interval(right, compounds)
    return {
        **{"k": k, "n": n, "treatment_accuracy": k / n, "wilson_low": low, "wilson_high": high},
        **{"compounds": len(set(compounds)), "compound_low": compound_low, "compound_high": compound_high},
        **{
            "macro_f1": macro_f1(table, absent),
            "log_loss": log_loss(table),
            "calibration_error": calibration_error(table),
        },
    }
