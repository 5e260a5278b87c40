"""How many folds each rung has, and who is worse beyond doubt."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moa_ray.search.successive_halving import is_worse, rungs


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
