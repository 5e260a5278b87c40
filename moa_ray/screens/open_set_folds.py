"""Unknown mechanisms: a label is held out whole, and beside it compounds of the other labels.

A compound whose label is in no training fold cannot be predicted rightly. What a screener needs is that the network
is less sure of it than of a compound whose label it has learnt. So each fold of ``folds.hold_out: label`` predicts two
parts with one network: all compounds of the label, *unknown*, and some compounds of other labels, *known*. Over all
folds each compound is known once, where its label has another compound to be learnt from. Accuracies are of the known
rows alone.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moa_ray.tables import COMPOUND, FOLD, LABEL

WORD = "label"  # as the sweep file says it
ALONE = "no other compound of its label is left to learn from, so it is held out as an unknown mechanism alone"

_PREFIX = f"{WORD}="


def beside(fields: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """For each label the compounds of other labels that are held out with it, sorted; a compound stands once at most.

    Each label keeps a compound to be learnt from in every fold. It gives as few as can be to one fold, and the folds
    get about equally many. A compound of several labels is placed where all of these can still be learnt.

    fields : the labelled rows of a field table
    """
    carried = {str(name): frozenset(map(str, own)) for name, own in fields.groupby(COMPOUND)[LABEL].unique().items()}
    labels = sorted(frozenset().union(*carried.values()))
    left = {label: Counter(one for own in carried.values() if label not in own for one in own) for label in labels}
    placed: dict[str, list[str]] = {label: [] for label in labels}
    taken: dict[str, Counter[str]] = {label: Counter() for label in labels}
    for compound in _by_turns(carried):
        own = carried[compound]
        folds = [label for label in labels if _may_join(own, label, left[label])]
        if not folds:
            continue
        fold = min(folds, key=lambda label: (sum(taken[label][one] for one in own), len(placed[label]), label))
        placed[fold].append(compound)
        left[fold].subtract(own)
        taken[fold].update(own)
    return {label: tuple(sorted(names)) for label, names in placed.items()}


def _by_turns(carried: Mapping[str, frozenset[str]]) -> list[str]:
    """Compounds in an order in which each label's turn comes before any label's second one."""
    turns: Counter[frozenset[str]] = Counter()
    keyed = []
    for compound in sorted(carried):
        keyed.append((turns[carried[compound]], sorted(carried[compound]), compound))
        turns[carried[compound]] += 1
    return [compound for *_, compound in sorted(keyed)]


def _may_join(own: frozenset[str], label: str, left: Mapping[str, int]) -> bool:
    """Whether a compound may be held out with a label: of several labels left to learn, its own keep a compound."""
    return label not in own and sum(count > 0 for count in left.values()) > 1 and all(left[one] > 1 for one in own)


# The two parts of a table of predictions ------------------------------------------------------------------------------


def holds_out_labels(predictions: pd.DataFrame) -> bool:
    """Whether the folds of a table held out labels; all its folds are of one kind, and one without folds did not."""
    return FOLD in predictions and len(predictions) > 0 and str(predictions[FOLD].iat[0]).startswith(_PREFIX)


def are_unknown(predictions: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows are of a label that their fold held out whole.

    predictions : of tiles, wells or treatments
    """
    if not holds_out_labels(predictions):
        return np.zeros(len(predictions), dtype=np.bool_)
    found: NDArray[np.bool_] = (predictions[FOLD] == _PREFIX + predictions[LABEL]).to_numpy(dtype=np.bool_)
    return found


def known(predictions: pd.DataFrame) -> pd.DataFrame:
    """The rows that can be right: all but those of a label that their fold held out whole."""
    return predictions[~are_unknown(predictions)] if holds_out_labels(predictions) else predictions


def unknown(predictions: pd.DataFrame) -> pd.DataFrame:
    """The rows that cannot be right."""
    return predictions[are_unknown(predictions)]
