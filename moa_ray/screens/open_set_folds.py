"""Open-set folds: a label is held out whole, and beside it compounds of the other labels.

A compound whose label is in no training fold cannot be predicted rightly. What a screener needs is that the network is
less sure of it than of a compound whose label it has learnt. So each fold of ``folds.hold_out: label`` predicts two
parts with one network: all compounds of the label, *unknown*, and some compounds of other labels, *known*. Over all
folds each compound is known once, where its label has another compound to be learnt from. Accuracies are of the known
rows alone.
"""

from collections import Counter
from collections.abc import Collection, Mapping

import pandas as pd

from moa_ray.common.schema import COMPOUND, LABEL

ALONE = "no other compound of its label is left to learn from, so it is held out as an unknown mechanism alone"


def known_compounds(fields: pd.DataFrame, train_only: Collection[str] = ()) -> dict[str, tuple[str, ...]]:
    """Choose for each label the compounds of other labels that are held out with it.

    Parameters
    ----------
    fields : DataFrame, one row per field
        The labelled rows of a field table.
    train_only : collection of str
        Labels that are learnt and never held out.

    Returns
    -------
    dict of str to tuple of str
        For each other label compounds, sorted; a compound stands once at most.

    Notes
    -----
    Each label keeps a compound to be learnt from in every fold. It gives as few as possible to one fold, and the folds
    get about equally many. A compound of several labels is placed where all of these can still be learnt.
    """
    carried = {str(name): frozenset(map(str, own)) for name, own in fields.groupby(COMPOUND)[LABEL].unique().items()}
    labels = sorted(frozenset().union(*carried.values()))
    left = {label: Counter(other for own in carried.values() if label not in own for other in own) for label in labels}
    placed: dict[str, list[str]] = {label: [] for label in labels if label not in train_only}
    taken: dict[str, Counter[str]] = {label: Counter() for label in labels}
    for compound in _by_turns(carried):
        own = carried[compound]
        folds = [label for label in placed if _may_join(own, label, left[label])]
        if not folds or own <= set(train_only):
            continue
        fold = min(folds, key=lambda label: (sum(taken[label][name] for name in own), len(placed[label]), label))
        placed[fold].append(compound)
        left[fold].subtract(own)
        taken[fold].update(own)
    return {label: tuple(sorted(names)) for label, names in placed.items()}


def _by_turns(carried: Mapping[str, frozenset[str]]) -> list[str]:
    """Order compounds so that each label's first comes before any label's second one."""
    turns: Counter[frozenset[str]] = Counter()
    keyed = []
    for compound in sorted(carried):
        keyed.append((turns[carried[compound]], sorted(carried[compound]), compound))
        turns[carried[compound]] += 1
    return [compound for *_, compound in sorted(keyed)]


def _may_join(own: frozenset[str], label: str, left: Mapping[str, int]) -> bool:
    """Tell whether a compound may be held out with a label: several labels are left to learn, its own among them."""
    learnable = sum(count > 0 for count in left.values())
    return label not in own and learnable > 1 and all(left[name] > 1 for name in own)
