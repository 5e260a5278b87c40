"""Bootstrap bias-corrected cross-validation: correct the best candidate's accuracy for the choice."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from moa_ray.common.random_streams import Stream, rng


@dataclass(frozen=True)
class Corrected:
    """Accuracy of the procedure that trains every candidate and keeps the best.

    Attributes
    ----------
    accuracy : float
        Mean over bootstrap samples, 0 to 1.
    low, high : float
        95 % percentile interval over bootstrap samples.
    samples : int
        Bootstrap samples.
    """

    accuracy: float
    low: float
    high: float
    samples: int


def bbc_cv(
    right: pd.DataFrame, groups: Sequence[Hashable], seed: int, samples: int = 1000, level: float = 0.95
) -> Corrected:
    """Estimate what is left of the best candidate's accuracy without the luck of having been chosen.

    Groups are drawn with replacement; the candidate that is best on those drawn is scored on those not drawn. Nothing
    is trained again.

    Parameters
    ----------
    right : DataFrame, one row per treatment, one column per candidate
        1 where it was right, else 0.
    groups : sequence of hashable
        The exchangeable unit of each row, its compound.
    seed : int
        Seed of the draws.
    samples : int
        Bootstrap samples.
    level : float
        Coverage of the interval, 0 to 1.

    Returns
    -------
    Corrected

    References
    ----------
    Tsamardinos, Greasidou and Borboudakis 2018, Machine Learning 107.
    """
    values = right.to_numpy(dtype=np.float64)
    codes, names = pd.factorize(pd.Series(list(groups)))
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, codes, values)
    counts = np.bincount(codes, minlength=len(names)).astype(np.float64)
    assert len(names) > 1, "one group alone leaves none to score on"
    generator = rng(seed, Stream.BBC_CV)
    scores: list[float] = []
    while len(scores) < samples:
        drawn = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names))
        left = drawn == 0
        if not left.any():
            continue
        best = int(np.argmax(drawn @ sums))
        scores.append(sums[left, best].sum() / counts[left].sum())
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return Corrected(float(np.mean(scores)), float(low), float(high), samples)
