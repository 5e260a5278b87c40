"""Measure calibration: whether a network is right as often as it says, as predicted and with a temperature.

The unit is the treatment. Probabilities are renormalised medians (or those of a table made elsewhere), and their
logarithms stand for logits, since softmax gives the probabilities back; zeros are clipped as the log loss clips them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from moa_ray.common.random_streams import Stream, rng
from moa_ray.common.schema import COMPOUND, LABEL, labels_of, probability_columns
from moa_ray.statistics import aggregation, intervals, scores
from moa_ray.statistics.intervals import SAMPLES, drawn, sums

BINS = 10
# Temperatures lie within 1 / HOTTEST and HOTTEST: few compounds, all right, ask for a temperature of 0.
HOTTEST = 20.0


def brier(table: pd.DataFrame) -> float:
    """Return the Brier score: the mean squared distance of renormalised probabilities from the truth.

    Squares are summed over labels.

    Parameters
    ----------
    table : DataFrame
        With the true label and one ``prob_<label>`` per class.

    Returns
    -------
    float
        0 to 2.

    References
    ----------
    Brier 1950.
    """
    values = aggregation.renormalise(table)[probability_columns(table)].to_numpy(dtype=np.float64)
    return float(((values - _truth(table)) ** 2).sum(axis=1).mean())


@dataclass(frozen=True)
class Quality:
    """How well the probabilities of some treatments say how often they are right.

    Attributes
    ----------
    n, compounds : int
        Treatments, and how many compounds they are of.
    confidence, accuracy : float
        Mean highest probability, and share right.
    gap_low, gap_high : float
        95 % interval of accuracy less confidence, from a bootstrap over compounds.
    error, error_low, error_high : float
        Expected calibration error and its 95 % interval, from a bootstrap over compounds.
    chance : float
        The error that a calibrated network with the same confidences would show on average on as many treatments.
    log_loss : float
        Mean negative log-likelihood, nats.
    brier : float
        Brier score, 0 to 2.
    bins : DataFrame, one row per bin of confidence that has treatments
        As `reliability` makes it.
    """

    n: int
    compounds: int
    confidence: float
    accuracy: float
    gap_low: float
    gap_high: float
    error: float
    error_low: float
    error_high: float
    chance: float
    log_loss: float
    brier: float
    bins: pd.DataFrame


def temperatures(table: pd.DataFrame) -> dict[str, float]:
    """Fit a temperature for each compound on the treatments of all others.

    Parameters
    ----------
    table : DataFrame, one row per treatment
        Compound, label, probabilities.

    Returns
    -------
    dict of str to float
        The temperature of each compound.
    """
    logits, truth = _logits(table), _truth(table)
    compounds = table[COMPOUND].to_numpy(dtype=object)
    return {
        str(compound): _fit(logits[compounds != compound], truth[compounds != compound])
        for compound in sorted(set(compounds))
    }


@dataclass(frozen=True)
class Calibration:
    """Treatments of one candidate before and after temperature scaling.

    Attributes
    ----------
    before : Quality
        As predicted.
    after : Quality or None
        With a temperature for each compound, fitted on the others; None where there is a single compound.
    temperatures : mapping of str to float
        The temperature of each compound; empty where there is a single compound.
    """

    before: Quality
    after: Quality | None
    temperatures: Mapping[str, float]


def calibrate(table: pd.DataFrame) -> Calibration:
    """Measure one candidate's treatments before and after temperature scaling.

    Parameters
    ----------
    table : DataFrame, one row per treatment
        Compound, label, probabilities.

    Returns
    -------
    Calibration

    Notes ----- The networks that predicted the other compounds were trained on the held-out one, as always in
    cross-validation: only the temperature has seen nothing of it.
    """
    before = measure(table)
    if before.compounds < 2:
        return Calibration(before, None, {})
    fitted = temperatures(table)
    return Calibration(before, measure(scale(table, table[COMPOUND].map(fitted))), fitted)


def measure(table: pd.DataFrame, seed: int = 0, samples: int = SAMPLES) -> Quality:
    """Measure the calibration of one candidate's treatments; intervals come from a bootstrap over compounds.

    Parameters
    ----------
    table : DataFrame, one row per treatment
        Compound, label, probabilities.
    seed : int
        Seed of the draws.
    samples : int
        Bootstrap samples.

    Returns
    -------
    Quality
    """
    confidence, right = scores.confidences(table)
    return Quality(
        n=len(table),
        compounds=table[COMPOUND].nunique(),
        confidence=float(confidence.mean()),
        accuracy=float(right.mean()),
        error=scores.calibration_error(table, BINS),
        **_intervals(table, seed, samples),
        chance=_chance(confidence, seed, samples),
        log_loss=scores.log_loss(table),
        brier=brier(table),
        bins=reliability(table),
    )


def _intervals(table: pd.DataFrame, seed: int, samples: int) -> dict[str, float]:
    """Return the intervals of the gap and of the calibration error; a single compound says nothing of others."""
    tallies = sums(np.ones(len(table)), table[COMPOUND])
    if len(tallies) < 2:
        return {"gap_low": -1.0, "gap_high": 1.0, "error_low": 0.0, "error_high": 1.0}
    gaps = sums(scores.calibration_gaps(table, BINS), table[COMPOUND])
    counts = drawn(len(tallies), seed, samples)
    sampled = (counts @ gaps) / (counts @ tallies)[:, None]
    gap_low, gap_high = np.quantile(sampled.sum(axis=1), [0.025, 0.975])
    error_low, error_high = _reflected(np.abs(sampled).sum(axis=1), scores.calibration_error(table, BINS))
    named = {"gap_low": gap_low, "gap_high": gap_high, "error_low": error_low, "error_high": error_high}
    return {name: float(value) for name, value in named.items()}


def _reflected(sampled: NDArray[np.float64], estimate: float) -> tuple[float, float]:
    """Return the basic bootstrap's 95 % interval, clipped to 0 and 1.

    Few treatments make a calibration error larger than it is, and a sample of them larger still: percentiles would lie
    too high; reflected at the estimate they lie on the other side. In a simulation of a calibrated network (38
    compounds of 1 to 5 doses) the reflected interval held the truth in 62 % of the tables, the percentile interval in
    none; for a network that was not calibrated, in some 90 % either way.

    References
    ----------
    Davison and Hinkley 1997, section 5.2.1.
    """
    low, high = np.quantile(sampled, [0.025, 0.975])
    return float(np.clip(2 * estimate - high, 0, 1)), float(np.clip(2 * estimate - low, 0, 1))


def _chance(confidence: NDArray[np.float64], seed: int, samples: int) -> float:
    """Return the mean calibration error where each treatment is right with the chance that its confidence says."""
    right = rng(seed, Stream.CALIBRATION).random((samples, len(confidence))) < confidence
    place = np.identity(BINS)[scores.confidence_bin(confidence, BINS)]
    return float(np.abs((right - confidence) @ place).sum(axis=1).mean() / len(confidence))


def reliability(table: pd.DataFrame) -> pd.DataFrame:
    """Return the points of the reliability diagram.

    Parameters
    ----------
    table : DataFrame, one row per treatment
        With the true label and probabilities.

    Returns
    -------
    DataFrame, one row per bin of confidence that has treatments
        ``low``, ``high`` (of the bin), ``n``, ``confidence`` (mean), ``accuracy``, ``wilson_low``, ``wilson_high``.
    """
    confidence, right = scores.confidences(table)
    number = scores.confidence_bin(confidence, BINS)
    rows = []
    for place in np.unique(number):
        inside = number == place
        k, n = int(right[inside].sum()), int(inside.sum())
        low, high = intervals.wilson(k, n)
        rows.append((place / BINS, (place + 1) / BINS, n, confidence[inside].mean(), k / n, low, high))
    return pd.DataFrame(rows, columns=["low", "high", "n", "confidence", "accuracy", "wilson_low", "wilson_high"])


def _truth(table: pd.DataFrame) -> NDArray[np.float64]:
    """Return 1 at each row's true label, else 0."""
    number = pd.Index(labels_of(table)).get_indexer(table[LABEL])
    truth: NDArray[np.float64] = np.identity(len(labels_of(table)))[number]
    return truth


def temperature(table: pd.DataFrame) -> float:
    """Fit the temperature that makes the treatments of a table most likely, within 1/20 and 20.

    Parameters
    ----------
    table : DataFrame, one row per treatment
        With the true label and probabilities.

    Returns
    -------
    float

    References
    ----------
    Guo et al. 2017, "On calibration of modern neural networks".
    """
    return _fit(_logits(table), _truth(table))


def scale(table: pd.DataFrame, temperature: float | pd.Series) -> pd.DataFrame:
    """Scale the probabilities by a temperature: softmax(logits / temperature).

    Above 1 they are evened out, below 1 sharpened. No row's most probable label changes.

    Parameters
    ----------
    table : DataFrame
        With one ``prob_<label>`` per class.
    temperature : float or Series of float
        One for all rows, or one per row.

    Returns
    -------
    DataFrame
        A copy with new probabilities.
    """
    columns = probability_columns(table)
    scaled = softmax(_logits(table) / np.reshape(np.asarray(temperature, dtype=np.float64), (-1, 1)), axis=1)
    return table.assign(**dict(zip(columns, scaled.T, strict=True)))


def _logits(table: pd.DataFrame) -> NDArray[np.float64]:
    values = aggregation.renormalise(table)[probability_columns(table)].to_numpy(dtype=np.float64)
    logits: NDArray[np.float64] = np.log(np.maximum(values, np.finfo(np.float64).eps))
    return logits


def _fit(logits: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    # In the inverse temperature the loss is convex, so that one search within bounds finds the only minimum.
    def loss(inverse: float) -> float:
        return -float((log_softmax(inverse * logits, axis=1) * truth).sum())

    result = minimize_scalar(loss, bounds=(1 / HOTTEST, HOTTEST), method="bounded", options={"xatol": 1e-7})
    # The search comes near to a bound and never reaches it.
    return float(1 / min((result.x, 1 / HOTTEST, HOTTEST), key=loss))
