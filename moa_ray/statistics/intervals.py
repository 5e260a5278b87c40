"""Compute intervals and tests for shares of treatments that are right.

Doses of one compound are right or wrong together, so a method that takes treatments as independent is overconfident.
Except for Wilson's interval and McNemar's test, which take rows as independent and say so, whole compounds are drawn or
flipped here. All functions are pure functions over arrays.
"""

from collections.abc import Collection, Hashable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from moa_ray.common.random_streams import Stream, rng

SAMPLES = 2000  # of a bootstrap


def accuracy_interval(
    right: ArrayLike, groups: Collection[Hashable], seed: int = 0, samples: int = SAMPLES, level: float = 0.95
) -> tuple[float, float]:
    """Return the percentile interval of the share of rows that are right, over a bootstrap that draws whole groups.

    Parameters
    ----------
    right : array_like, shape (n_rows,)
        1 or True where a row is right.
    groups : collection of hashable, length n_rows
        The exchangeable unit of each row, its compound.
    seed : int
        One for all tables, so that equal tables have equal intervals.
    samples : int
        Bootstrap samples.
    level : float
        Coverage, 0 to 1.

    Returns
    -------
    low, high : float
        (0, 1) for a single group, which says nothing of others.

    Notes ----- The interval has no width where all rows are right, or all wrong: the samples then know of nothing else.
    Below some ten groups it is too narrow.

    References
    ----------
    Davison and Hinkley 1997, Bootstrap methods and their application, section 3.8 (clusters drawn whole).
    """
    tallies = sums(np.column_stack([np.asarray(right, dtype=np.float64), np.ones(len(groups))]), groups)
    if len(tallies) < 2:
        return 0.0, 1.0
    k, n = (drawn(len(tallies), seed, samples) @ tallies).T
    low, high = np.quantile(k / n, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def drawn(n: int, seed: int = 0, samples: int = SAMPLES) -> NDArray[np.int64]:
    """Count how often each of n groups is in each bootstrap sample.

    Parameters
    ----------
    n : int
        How many groups there are.
    seed : int
        Seed of the draws.
    samples : int
        Bootstrap samples.

    Returns
    -------
    ndarray of int64, shape (samples, n)
        Each row sums to n.
    """
    places = rng(seed, Stream.BOOTSTRAP).integers(0, n, (samples, n))
    flat = places + n * np.arange(samples)[:, None]
    return np.bincount(flat.ravel(), minlength=samples * n).reshape(samples, n)


def sums(values: NDArray[Any], groups: Collection[Hashable]) -> NDArray[np.float64]:
    """Add up the rows of each group, in the order of the groups' names, whatever the order of the rows.

    Parameters
    ----------
    values : ndarray, shape (n_rows, ...)
        What is added up.
    groups : collection of hashable, length n_rows
        The group of each row.

    Returns
    -------
    ndarray of float64, shape (n_groups, ...)
    """
    codes, names = pd.factorize(pd.Series(list(groups)), sort=True)
    total = np.zeros((len(names), *values.shape[1:]))
    np.add.at(total, codes, values)
    return total


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test, which takes cases as independent.

    Parameters
    ----------
    only_first : int
        Cases that only the first of two got right.
    only_second : int
        Cases that only the second got right.

    Returns
    -------
    float
        1 where there is no discordant case.

    References
    ----------
    McNemar 1947; the exact form is a sign test on the discordant pairs.
    """
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def sign_flip(differences: NDArray[np.int64]) -> float:
    """Return the two-sided p-value of the permutation test that flips the sign of whole groups' differences.

    If neither of two is better, each group's difference has either sign with the same chance. Differences of counts are
    whole numbers, so the chances of all sums come from adding one group after the other, and all 2^n flips count: the
    p-value is exact for any number of groups.

    Parameters
    ----------
    differences : ndarray of int64, shape (n_groups,)
        Treatments of each group that one got right, less those that the other did.

    Returns
    -------
    float
        0 to 1.

    References
    ----------
    Good 2005, Permutation, parametric and bootstrap tests of hypotheses, chapter 3.
    """
    sizes = np.abs(differences[differences != 0])
    chances = np.ones(1)  # that the groups that keep their sign add up to 0, 1, ...
    for size in sizes:
        longer = np.zeros(len(chances) + size)
        longer[: len(chances)] += chances / 2
        longer[size:] += chances / 2
        chances = longer
    flipped = 2 * np.arange(len(chances)) - sizes.sum()
    return min(1.0, float(chances[np.abs(flipped) >= abs(differences.sum())].sum()))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Correct p-values for how many there are; missing ones stay missing and do not count.

    Where hypotheses with a corrected value below a level are rejected, the chance of any false rejection is below it.

    Parameters
    ----------
    p_values : array_like of float, shape (n,)
        NaN where a value is missing.

    Returns
    -------
    ndarray of float64, shape (n,)

    References
    ----------
    Holm 1979.
    """
    values = np.asarray(p_values, dtype=np.float64)
    present = np.flatnonzero(~np.isnan(values))
    order = present[np.argsort(values[present], kind="stable")]
    corrected = np.full(values.shape, np.nan)
    corrected[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)))
    return corrected


def wilson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's interval of a share k of n, which takes the cases as independent.

    Parameters
    ----------
    k : int
        Cases that are right.
    n : int
        All cases.
    level : float
        Coverage, 0 to 1.

    Returns
    -------
    low, high : float
        (0, 1) where n is 0.

    References
    ----------
    Wilson 1927.
    """
    if n == 0:
        return 0.0, 1.0
    interval = binomtest(int(k), int(n)).proportion_ci(confidence_level=level, method="wilson")
    return float(interval.low), float(interval.high)
