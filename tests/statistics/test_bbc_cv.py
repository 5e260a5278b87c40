"""What the choice among candidates costs in honesty."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_ray.statistics.bbc_cv import bbc_cv


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
