"""Intervals and tests for shares of treatments that are right, with whole compounds as what is exchangeable.

Doses of one compound are right or wrong together, so what takes treatments as independent is too sure of itself. Here
compounds are drawn, or flipped, whole. Pure functions over arrays; `moa_ray.metrics.wilson` stands beside.
"""

from collections.abc import Collection, Hashable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

SAMPLES = 2000  # of a bootstrap


# The bootstrap --------------------------------------------------------------------------------------------------------


def accuracy_interval(
    right: ArrayLike, groups: Collection[Hashable], seed: int = 0, samples: int = SAMPLES, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the share of rows that are right, over samples that draw whole groups with replacement.

    It has no width where all rows are right, or all wrong: the samples then know of nothing else. Below some ten groups
    it is too narrow. One group alone says nothing of others: (0, 1).

    right : one value a row, 1 or True where it is right
    groups : of each row, what is exchangeable: its compound
    seed : one for all tables, so that equal tables have equal intervals
    Source: Davison and Hinkley 1997, section 3.8 (clusters drawn whole).
    """
    tallies = sums(np.column_stack([np.asarray(right, dtype=np.float64), np.ones(len(groups))]), groups)
    if len(tallies) < 2:
        return 0.0, 1.0
    k, n = (drawn(len(tallies), seed, samples) @ tallies).T
    low, high = np.quantile(k / n, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def drawn(n: int, seed: int = 0, samples: int = SAMPLES) -> NDArray[np.int64]:
    """How often each of n groups is in each bootstrap sample: an array of shape (samples, n), rows sum to n."""
    places = np.random.default_rng([seed, 3]).integers(0, n, (samples, n))
    own = places + n * np.arange(samples)[:, None]
    return np.bincount(own.ravel(), minlength=samples * n).reshape(samples, n)


def sums(values: NDArray[Any], groups: Collection[Hashable]) -> NDArray[np.float64]:
    """The rows of each group added up, in the order of the groups' names, whatever the order of the rows."""
    codes, names = pd.factorize(pd.Series(list(groups)), sort=True)
    total = np.zeros((len(names), *values.shape[1:]))
    np.add.at(total, codes, values)
    return total


# Two candidates -------------------------------------------------------------------------------------------------------


def mcnemar(only_one: int, only_other: int) -> float:
    """Two-sided p-value of the exact test on the cases where only one of two is right.

    It takes cases as independent.
    Source: McNemar 1947; the exact form is a sign test on the discordant pairs.
    """
    discordant = only_one + only_other
    return float(binomtest(only_one, discordant, 0.5).pvalue) if discordant else 1.0


def sign_flip(differences: NDArray[np.int64]) -> float:
    """Two-sided p-value of the permutation test that flips the sign of whole groups' differences.

    If neither of two is better, each group's difference has either sign with the same chance. Differences of counts are
    whole numbers, so the chances of all sums come from adding one group after the other, and all 2^n flips count: the
    p-value is exact for any number of groups.

    differences : of each group, treatments that one got right less those that the other did
    Source: Good 2005, Permutation, parametric and bootstrap tests of hypotheses, chapter 3.
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
    """The p-values corrected for how many there are; missing ones stay missing and do not count.

    One that is below a level has its hypothesis rejected where the chance of any false rejection is below that level.
    Source: Holm 1979.
    """
    values = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    corrected = np.full(values.shape, np.nan)
    corrected[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)))
    return corrected
