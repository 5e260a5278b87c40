"""Choose the folds that a search may look at, and their order."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd

from moa_ray.common.errors import InputError
from moa_ray.common.random_streams import Stream, rng
from moa_ray.common.schema import LABEL
from moa_ray.screens.folds import Fold


def search_order(folds: Sequence[Fold], fields: pd.DataFrame, which: str | Sequence[str], seed: int) -> list[str]:
    """Return the folds that a search may look at, in the order in which every candidate gets them.

    The order is shuffled and balanced: each label's turn comes before any label's second one. A fold that scores
    nothing, as one that holds out a label with no known compound beside it, tells a search nothing and is left out.

    Parameters
    ----------
    folds : sequence of Fold
        Those that can be trained.
    fields : DataFrame, one row per field
        The labelled rows of the field table.
    which : {"one_per_label", "all"} or sequence of str
        Which folds; a sequence names held-out groups or folds.
    seed : int
        The sweep's seed.

    Returns
    -------
    list of str
        Names of folds.

    Raises
    ------
    InputError
        If there is no such group.
    """
    scored = {fold: frozenset(fields[LABEL].iloc[fold.scored(fields)]) for fold in folds}
    folds = [fold for fold in folds if scored[fold]]
    labels = {fold.name: scored[fold] for fold in folds}
    order = _balanced(labels, rng(seed, Stream.FOLD_ORDER))
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


def _balanced(labels: Mapping[str, frozenset[Hashable]], generator: np.random.Generator) -> list[str]:
    """Shuffle folds so that the labels take turns."""
    waiting = [list(labels)[place] for place in generator.permutation(len(labels))]
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
    names = {alias: fold.name for fold in folds for alias in (fold.name, fold.name.partition("=")[2])}
    missing = [name for name in which if name not in names]
    if missing:
        groups = ", ".join(fold.name.partition("=")[2] for fold in folds)
        raise InputError(f"folds.search: no group {missing[0]!r} can be held out; there are {groups}")
    return {names[name] for name in which}
