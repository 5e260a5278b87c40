"""Intervals and tests against SciPy, against all flips one by one, and against the definitions as slow loops."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_ray.statistics import intervals

few = settings(max_examples=40, deadline=None)

right_of_groups = st.lists(st.tuples(st.booleans(), st.sampled_from("abcdef")), min_size=1, max_size=25)


# The bootstrap --------------------------------------------------------------------------------------------------------


@few
@given(right_of_groups, st.integers(0, 99))
def test_the_bootstrap_draws_whole_groups(rows: list[tuple[bool, str]], seed: int) -> None:
    right, groups = [hit for hit, _ in rows], [group for _, group in rows]
    names, samples = sorted(set(groups)), 30
    shares = []
    for drawn in np.random.default_rng([seed, 3]).integers(0, len(names), (samples, len(names))):
        hits = [hit for place in drawn for hit, group in rows if group == names[place]]
        shares.append(sum(hits) / len(hits))
    expected = (0.0, 1.0) if len(names) == 1 else tuple(np.quantile(shares, [0.025, 0.975]))
    assert intervals.accuracy_interval(right, groups, seed, samples) == pytest.approx(expected)


def test_the_bootstrap_is_scipys() -> None:
    rng = np.random.default_rng(0)
    n = rng.integers(1, 8, 30)
    k = rng.binomial(n, 0.8)
    right = [place < hits for hits, rows in zip(k, n, strict=True) for place in range(rows)]
    groups = [f"compound {number:02}" for number, rows in enumerate(n) for _ in range(rows)]
    found = scipy.stats.bootstrap(
        (k, n),
        lambda k, n, axis: k.sum(axis=axis) / n.sum(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=intervals.SAMPLES,
        rng=np.random.default_rng([0, 3]),
    ).confidence_interval
    assert intervals.accuracy_interval(right, groups) == pytest.approx((found.low, found.high))


@few
@given(right_of_groups, st.randoms(use_true_random=False))
def test_the_bootstrap_does_not_depend_on_row_order(rows: list[tuple[bool, str]], order) -> None:
    shuffled = order.sample(rows, len(rows))
    first, second = (intervals.accuracy_interval(*zip(*table, strict=True)) for table in (rows, shuffled))
    assert first == second


def test_doses_that_are_right_or_wrong_together_widen_the_interval() -> None:
    right = [number % 3 > 0 for number in range(20) for _ in range(5)]
    together = intervals.accuracy_interval(right, [number for number in range(20) for _ in range(5)])
    apart = intervals.accuracy_interval(right, list(range(100)))
    assert np.diff(together) > 1.5 * np.diff(apart)


# Two candidates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "other"), [(0, 0), (1, 0), (5, 0), (0, 6), (3, 9), (7, 7), (20, 11)])
def test_mcnemar_is_the_sum_over_all_splits_as_uneven(one: int, other: int) -> None:
    n = one + other
    splits = [k for k in range(n + 1) if abs(2 * k - n) >= abs(one - other)]
    assert intervals.mcnemar(one, other) == pytest.approx(sum(math.comb(n, k) for k in splits) / 2**n)


@few
@given(st.lists(st.integers(-7, 7), max_size=9))
def test_the_permutation_counts_every_flip(differences: list[int]) -> None:
    found = abs(sum(differences))
    flips = list(itertools.product([-1, 1], repeat=len(differences)))
    extreme = sum(abs(sum(map(math.prod, zip(flip, differences, strict=True)))) >= found for flip in flips)
    assert intervals.sign_flip(np.array(differences, dtype=np.int64)) == pytest.approx(extreme / len(flips))


def test_the_permutation_of_many_groups_is_scipys_drawn_one() -> None:
    differences = np.random.default_rng(1).integers(-3, 5, 60)
    drawn = scipy.stats.permutation_test(
        (differences,),
        lambda sample, axis: np.abs(sample.sum(axis=axis)),
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(2),
    ).pvalue
    assert intervals.sign_flip(differences) == pytest.approx(drawn, abs=4 * math.sqrt(drawn / 20_000))


def test_groups_with_one_treatment_each_make_the_permutation_mcnemars_test() -> None:
    differences = np.array([1] * 9 + [-1] * 3 + [0] * 20)
    assert intervals.sign_flip(differences) == pytest.approx(intervals.mcnemar(9, 3))


@few
@given(st.lists(st.one_of(st.just(math.nan), st.sampled_from([0.0, 0.001, 0.01, 0.012, 0.04, 0.3, 1.0])), max_size=9))
def test_holm_rejects_what_its_steps_reject(p_values: list[float]) -> None:
    corrected = intervals.holm(p_values)
    known = sorted(value for value in p_values if not math.isnan(value))
    for level in (0.0015, 0.011, 0.025, 0.055, 0.11, 0.25, 0.95):
        limit = -1.0
        for step, value in enumerate(known):
            if value > level / (len(known) - step):
                break
            limit = value
        rejected = [value <= limit for value in p_values]
        assert [bool(value <= level) for value in corrected] == rejected
