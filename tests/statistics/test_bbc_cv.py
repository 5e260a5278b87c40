"""Choosing: which folds, which rung, who is worse, and what the choice costs."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_ray.folds import make_folds
from moa_ray.selection import bbc_cv, is_worse, rungs, search_order
from moa_ray.tables import COMPOUND, LABEL, WEEK


def fields(labels: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame({COMPOUND: list(labels), LABEL: list(labels.values())})


SCREEN = fields({"a1": "A", "a2": "A", "a3": "A", "b1": "B", "b2": "B", "c1": "C", "c2": "C", "c3": "C", "c4": "C"})
FOLDS = make_folds(SCREEN, "compound")


@given(st.integers(0, 2**31))
def test_each_labels_turn_comes_before_any_labels_second(seed: int) -> None:
    order = [name.partition("=")[2] for name in search_order(FOLDS, SCREEN, "all", seed)]
    assert sorted(order) == sorted(SCREEN[COMPOUND])
    assert {name[0] for name in order[:3]} == {"a", "b", "c"}
    assert {name[0] for name in order[3:6]} == {"a", "b", "c"}
    assert [name[0] for name in order[8:]] == ["c"]


@given(st.integers(0, 2**31))
def test_one_fold_a_label_is_the_beginning_of_the_order_of_all(seed: int) -> None:
    few, every = (search_order(FOLDS, SCREEN, which, seed) for which in ("one_per_label", "all"))
    assert few == every[:3]


def test_the_order_depends_on_the_seed() -> None:
    assert len({tuple(search_order(FOLDS, SCREEN, "all", seed)) for seed in range(20)}) > 10


def test_folds_with_several_labels_cover_every_label_once() -> None:
    table = pd.DataFrame({WEEK: ["1", "1", "2", "2", "3", "3"], LABEL: ["A", "B", "B", "C", "A", "C"]})
    chosen = search_order(make_folds(table, "week"), table, "one_per_label", 0)
    assert len(chosen) == 2


def test_named_groups_are_taken_and_an_unknown_one_is_named() -> None:
    assert set(search_order(FOLDS, SCREEN, ["a2", "compound=c1"], 0)) == {"compound=a2", "compound=c1"}
    with pytest.raises(ValueError, match=r"folds\.search: no group 'a9' can be held out; there are a1, a2"):
        search_order(FOLDS, SCREEN, ["a9"], 0)


@given(st.integers(1, 60), st.integers(1, 12), st.floats(1.1, 5))
def test_rungs_grow_to_all_folds(n_folds: int, first: int, factor: float) -> None:
    sizes = rungs(n_folds, first, factor)
    assert sizes[0] == min(first, n_folds)
    assert sizes[-1] == n_folds
    assert all(np.diff(sizes) > 0)


def test_rungs_by_hand() -> None:
    assert rungs(38, 4, 3) == [4, 12, 38]
    assert rungs(12, 4, 3) == [4, 12]
    assert rungs(3, 4, 3) == [3]
    assert rungs(13, 4, 3) == [4, 13]


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5)), min_size=1, max_size=5))
def test_no_test_decides_on_fewer_than_six_folds(pairs: list[tuple[float, float]]) -> None:
    losses, best = np.array(pairs).T
    assert not is_worse(losses, best)


def test_six_folds_that_are_all_worse_decide() -> None:
    best = np.arange(6.0)
    assert is_worse(best + np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), best)
    assert not is_worse(best - 0.1, best)
    assert not is_worse(best, best)
    assert not is_worse(best + np.array([1, -1.1, 1.2, -1.3, 1.4, -1.5]), best)


def slow_bbc(right: pd.DataFrame, groups: list[str], seed: int, samples: int) -> float:
    """The definition, group by group."""
    rng = np.random.default_rng([seed, 2])
    names = list(dict.fromkeys(groups))
    scores: list[float] = []
    while len(scores) < samples:
        drawn = [names[i] for i in rng.integers(len(names), size=len(names))]
        if set(drawn) == set(names):
            continue
        inside = {c: sum(right[c][[g == d for g in groups]].sum() for d in drawn) for c in right}
        best = max(inside, key=lambda c: inside[c])
        scores.append(float(right[best][[g not in drawn for g in groups]].mean()))
    return float(np.mean(scores))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(1, 4))
def test_bbc_cv_is_its_definition(seed: int, n_groups: int, n_candidates: int) -> None:
    rng = np.random.default_rng(seed)
    groups = [f"g{i}" for i in range(n_groups) for _ in range(1 + i % 3)]
    right = pd.DataFrame(rng.integers(0, 2, (len(groups), n_candidates)).astype(float))
    assert bbc_cv(right, groups, seed, samples=60).accuracy == pytest.approx(slow_bbc(right, groups, seed, 60))


def test_bbc_cv_takes_the_luck_of_the_best_of_many_away() -> None:
    """Sixty candidates that guess between two labels: the best one looks good, the procedure is worth one half."""
    apparent, corrected = [], []
    for seed in range(12):
        right = pd.DataFrame(np.random.default_rng(seed).integers(0, 2, (30, 60)).astype(float))
        apparent.append(right.mean().max())
        corrected.append(bbc_cv(right, list(range(30)), seed, samples=200).accuracy)
    assert np.mean(apparent) > 0.68
    assert abs(np.mean(corrected) - 0.5) < 0.06


def test_bbc_cv_of_one_candidate_keeps_its_accuracy() -> None:
    right = pd.DataFrame({"only": [1.0, 0, 1, 1, 0, 1, 1, 1, 0, 1]})
    corrected = bbc_cv(right, list(range(10)), 0, samples=4000)
    assert corrected.accuracy == pytest.approx(0.7, abs=0.02)
    assert corrected.low < 0.7 < corrected.high
