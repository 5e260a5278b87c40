"""The rules of the race: how many folds each rung has, and when a candidate is worse beyond doubt.

References
----------
Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter optimization"; Li et al. 2020,
"A system for massively parallel hyperparameter tuning" (ASHA); Wilcoxon 1945 (the paired signed-rank test).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

# Below, a paired Wilcoxon test over n folds cannot reach 2^-n = 0.03, whatever the scores are.
FEWEST_TESTED = 6
LEVEL = 0.05


def rungs(n_folds: int, first: int, factor: float) -> list[int]:
    """Return the number of folds done at each rung, growing by a factor up to all folds.

    Parameters
    ----------
    n_folds : int
        All folds, at least 1.
    first : int
        Folds of the first rung; at most `n_folds` of them are used.
    factor : float
        Growth from rung to rung, above 1.

    Returns
    -------
    list of int
        Increasing, the last being `n_folds`. A last step smaller than the first joins the one before.

    Examples
    --------
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
    """Tell whether losses on some folds are worse than the best candidate's on the same folds beyond doubt.

    Parameters
    ----------
    losses : ndarray of float64, shape (n_folds,)
        The candidate's.
    best : ndarray of float64, shape (n_folds,)
        The best candidate's, on the same folds in the same order.

    Returns
    -------
    bool
        Whether a one-sided Wilcoxon signed-rank test, paired by fold, is significant at `LEVEL`; on fewer than
        `FEWEST_TESTED` folds never.
    """
    if len(losses) < FEWEST_TESTED or np.array_equal(losses, best):
        return False
    return bool(wilcoxon(losses, best, alternative="greater").pvalue < LEVEL)
