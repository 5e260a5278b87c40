"""Choosing among candidates: on which folds, by which rule, and what the choice costs in honesty."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from moa_ray.folds import Fold
from moa_ray.tables import LABEL

# Below, a paired Wilcoxon test over n folds cannot reach 2^-n = 0.03, whatever the scores are.
FEWEST_TESTED = 6
LEVEL = 0.05


# Folds ----------------------------------------------------------------------------------------------------------------


def search_order(folds: Sequence[Fold], fields: pd.DataFrame, which: str | Sequence[str], seed: int) -> list[str]:
    """The folds that a search may look at, in the order in which every candidate gets them.

    The order is shuffled and balanced: each label's turn comes before any label's second one. A fold that scores
    nothing, as one that holds out a label with no known compound beside it, tells a search nothing and is left out.

    folds : those that can be trained
    fields : the labelled rows of the field table
    which : ``one_per_label``, ``all``, or held-out groups
    Raises ValueError if there is no such group.
    """
    scored = {fold: frozenset(fields[LABEL].iloc[fold.scored(fields)]) for fold in folds}
    folds = [fold for fold in folds if scored[fold]]
    labels = {fold.name: scored[fold] for fold in folds}
    order = _balanced(labels, np.random.default_rng([seed, 1]))
    if which == "all":
        return order
    if which == "one_per_label":
        covered: set[Hashable] = set()
        chosen = []
        for name in order:
            if labels[name] - covered:
                chosen.append(name)
                covered |= labels[name]
        return chosen
    return [name for name in order if name in _named(folds, which)]


def _balanced(labels: Mapping[str, frozenset[Hashable]], rng: np.random.Generator) -> list[str]:
    waiting = [list(labels)[place] for place in rng.permutation(len(labels))]
    turns: dict[Hashable, int] = {}
    order = []
    while waiting:
        # The first of those whose labels have had the fewest turns.
        name = min(waiting, key=lambda name: sum(turns.get(label, 0) for label in labels[name]) / len(labels[name]))
        waiting.remove(name)
        order.append(name)
        turns |= {label: turns.get(label, 0) + 1 for label in labels[name]}
    return order


def _named(folds: Sequence[Fold], which: str | Sequence[str]) -> set[str]:
    known = {alias: fold.name for fold in folds for alias in (fold.name, fold.name.partition("=")[2])}
    unknown = [name for name in which if name not in known]
    if unknown:
        groups = ", ".join(fold.name.partition("=")[2] for fold in folds)
        raise ValueError(f"folds.search: no group {unknown[0]!r} can be held out; there are {groups}")
    return {known[name] for name in which}


# Racing ---------------------------------------------------------------------------------------------------------------


def rungs(n_folds: int, first: int, factor: float) -> list[int]:
    """Folds done at each rung, growing by a factor up to all; a last step smaller than the first joins the one before.

    >>> rungs(38, 4, 3)
    [4, 12, 38]
    """
    sizes = [min(first, n_folds)]
    while sizes[-1] < n_folds:
        sizes.append(min(n_folds, int(np.ceil(sizes[-1] * factor))))
    if len(sizes) > 2 and sizes[-1] - sizes[-2] < first:
        del sizes[-2]
    return sizes


def is_worse(losses: NDArray[np.float64], best: NDArray[np.float64]) -> bool:
    """Whether losses on some folds are worse than the best candidate's on the same folds beyond doubt.

    A one-sided Wilcoxon signed-rank test, paired by fold, at 5 %; on fewer than six folds never.
    """
    if len(losses) < FEWEST_TESTED or np.array_equal(losses, best):
        return False
    return bool(wilcoxon(losses, best, alternative="greater").pvalue < LEVEL)


# What the choice costs ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Corrected:
    """Accuracy of the procedure that trains every candidate and keeps the best.

    accuracy, low, high : mean and 95 % percentile interval over bootstrap samples
    """

    accuracy: float
    low: float
    high: float
    samples: int


def bbc_cv(
    right: pd.DataFrame, groups: Sequence[Hashable], seed: int, samples: int = 1000, level: float = 0.95
) -> Corrected:
    """Bootstrap bias-corrected cross-validation: what is left of the best candidate's accuracy without its luck.

    Groups are drawn with replacement; the candidate that is best on those drawn is scored on those not drawn. Nothing
    is trained again.

    right : one row a treatment, one column a candidate: 1 where it was right, else 0
    groups : of each row, what is exchangeable: its compound
    Source: Tsamardinos, Greasidou and Borboudakis 2018, Machine Learning 107.
    """
    values = right.to_numpy(dtype=np.float64)
    codes, names = pd.factorize(pd.Series(list(groups)))
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, codes, values)
    counts = np.bincount(codes, minlength=len(names)).astype(np.float64)
    assert len(names) > 1, "one group alone leaves none to score on"
    rng = np.random.default_rng([seed, 2])
    scores: list[float] = []
    while len(scores) < samples:
        drawn = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        left = drawn == 0
        if not left.any():
            continue
        best = int(np.argmax(drawn @ sums))
        scores.append(sums[left, best].sum() / counts[left].sum())
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return Corrected(float(np.mean(scores)), float(low), float(high), samples)
