"""Compare candidates with the best of them: which are worse, and which cannot be told from it.

Two are compared on the treatments that both have, predicted from the same folds, and on no others. The best is best by
the same treatments, by luck in part, so it looks better than it is. A candidate that cannot be distinguished from it in
spite of that is not distinguishable; one that is found worse may be so a little less surely than its p-value says.
"""

import numpy as np
import pandas as pd

from moa_ray.common.schema import CANDIDATE, COMPOUND, FOLD, LABEL
from moa_ray.statistics.aggregation import PREDICTED
from moa_ray.statistics.intervals import holm, mcnemar, sign_flip, sums
from moa_ray.statistics.units import unit_key

LEVEL = 0.05
BEST, WORSE, BETTER, ALIKE = "best", "worse", "better", "not distinguishable"

COLUMNS = ("compared", "behind", "mcnemar_p", "permutation_p", "mcnemar_holm", "permutation_holm", "against_best")


def right(treatments: pd.DataFrame) -> pd.DataFrame:
    """Lay out which treatments each candidate got right.

    Parameters
    ----------
    treatments : DataFrame, one row per candidate and treatment
        As `aggregation.treatments` makes it. Where it has folds, a treatment predicted from other folds is another row.

    Returns
    -------
    DataFrame of float, one row per treatment, one column per candidate
        1 where it was right, 0 where not, NaN where the candidate did not predict it.
    """
    key = [*unit_key(treatments), *([FOLD] if FOLD in treatments else [])]
    hit = (treatments[PREDICTED] == treatments[LABEL]).astype(float)
    return treatments.assign(hit=hit).pivot(index=key, columns=CANDIDATE, values="hit")


def against_best(board: pd.DataFrame, treatments: pd.DataFrame) -> pd.DataFrame:
    """Add to the leaderboard how each candidate compares with the first one that has treatments.

    Parameters
    ----------
    board : DataFrame
        The leaderboard, best first, with ``candidate`` and ``n``.
    treatments : DataFrame, one row per candidate and treatment
        Of all candidates, those that the leaderboard is about; may be empty.

    Returns
    -------
    DataFrame
        The leaderboard with ``compared`` (treatments that both have), ``behind`` (of these, how many more the best one
        got right), ``mcnemar_p`` (exact, two-sided, paired by treatment; takes treatments as independent),
        ``permutation_p`` (exact, two-sided, flips whole compounds), ``mcnemar_holm`` and ``permutation_holm``
        (corrected for the number of candidates compared), and ``against_best``: best, or by ``permutation_holm`` at 5 %
        worse, better or not distinguishable; empty where there is nothing to compare.
    """
    scored = list(board.loc[board["n"] > 0, CANDIDATE])
    rows = _compared(right(treatments), scored[0], scored[1:]) if scored else []
    compared = pd.DataFrame(rows, columns=[CANDIDATE, *COLUMNS[:4]]).astype(dict.fromkeys(COLUMNS[:4], float))
    joined = board.merge(compared, on=CANDIDATE, how="left", validate="one_to_one")
    joined["compared"] = joined["compared"].fillna(0).astype(int)
    joined["mcnemar_holm"], joined["permutation_holm"] = holm(joined["mcnemar_p"]), holm(joined["permutation_p"])
    rules = [
        (joined[CANDIDATE].isin(scored[:1]), BEST),
        (joined["compared"] == 0, ""),
        (joined["permutation_holm"] >= LEVEL, ALIKE),
        (joined["behind"] > 0, WORSE),
    ]
    joined["against_best"] = np.select([rule for rule, _ in rules], [word for _, word in rules], BETTER)
    return joined


def _compared(table: pd.DataFrame, best: str, others: list[str]) -> list[tuple[str, int, float, float, float]]:
    """Return the first four columns of `against_best` for each candidate; the best one has no p-values."""
    differences = table[others].rsub(table[best], axis=0).to_numpy(dtype=np.float64)
    by_compound = sums(np.nan_to_num(differences), table.index.get_level_values(COMPOUND)).astype(np.int64)
    rows = [(best, int(table[best].notna().sum()), 0.0, np.nan, np.nan)]
    for candidate, difference, flips in zip(others, differences.T, by_compound.T, strict=True):
        n = int((~np.isnan(difference)).sum())
        if n:
            p_value = mcnemar(int((difference > 0).sum()), int((difference < 0).sum()))
            rows.append((candidate, n, float(flips.sum()), p_value, sign_flip(flips)))
    return rows


def least_p(compounds: int, candidates: int) -> float:
    """Return the smallest corrected p-value that the permutation test can reach, however much worse a candidate is.

    Parameters
    ----------
    compounds : int
        Compounds whose signs are flipped.
    candidates : int
        Candidates that are compared, by which Holm's correction multiplies.

    Returns
    -------
    float
        0 to 1.
    """
    return min(1.0, candidates * 2.0 ** (1 - compounds))
