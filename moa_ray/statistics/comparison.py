"""Candidates against the best of them: which are worse, and which cannot be told from it.

Two are compared on the treatments that both have, predicted from the same folds, and on no others. The best is best by
the same treatments, by luck in part, so that it looks better than it is: a candidate that cannot be told from it in
spite of that cannot be told from it; one that is found worse may be so a little less surely than its p-value says.
"""

import numpy as np
import pandas as pd

from moa_ray.intervals import holm, mcnemar, sign_flip, sums
from moa_ray.metrics import PREDICTED
from moa_ray.tables import CANDIDATE, COMPOUND, FOLD, LABEL, TREATMENT

LEVEL = 0.05
BEST, WORSE, BETTER, ALIKE = "best", "worse", "better", "not distinguishable"

COLUMNS = ("compared", "behind", "mcnemar_p", "permutation_p", "mcnemar_holm", "permutation_holm", "against_best")


def right(treatments: pd.DataFrame) -> pd.DataFrame:
    """One row a treatment, one column a candidate: 1 where it was right, 0 where not, missing where it was not asked.

    Where folds are known, a treatment that was predicted from other folds is another row.
    """
    key = [*TREATMENT, FOLD] if FOLD in treatments else TREATMENT
    hit = (treatments[PREDICTED] == treatments[LABEL]).astype(float)
    return treatments.assign(hit=hit).pivot(index=key, columns=CANDIDATE, values="hit")


def against_best(board: pd.DataFrame, treatments: pd.DataFrame) -> pd.DataFrame:
    """The leaderboard with each candidate compared to the first one that has treatments.

    compared : treatments that both have
    behind : of these, how many more the best one got right
    mcnemar_p : exact, two-sided, paired by treatment; takes treatments as independent
    permutation_p : exact, two-sided, flips whole compounds
    mcnemar_holm, permutation_holm : the same, corrected for the number of candidates compared
    against_best : best, or by `permutation_holm` at 5 % worse, better or not distinguishable; empty where there is
        nothing to compare

    board : best first, with candidate and n
    treatments : of all candidates, those that the leaderboard is about; may be empty
    """
    scored = list(board.loc[board["n"] > 0, CANDIDATE])
    rows = _compared(right(treatments), scored[0], scored[1:]) if scored else []
    found = pd.DataFrame(rows, columns=[CANDIDATE, *COLUMNS[:4]]).astype(dict.fromkeys(COLUMNS[:4], float))
    joined = board.merge(found, on=CANDIDATE, how="left", validate="one_to_one")
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
    """Of each candidate the first four columns of `against_best`; the best one has no p-values."""
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
    """What the corrected p-value of the permutation cannot go below, however bad one of some candidates is."""
    return min(1.0, candidates * 2.0 ** (1 - compounds))
