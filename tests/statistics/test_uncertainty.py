"""Uncertainty: entropies, what rejecting the unsure gains, and telling the unknown apart."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from moa_ray.common.schema import BACKBONE, CANDIDATE, COMPOUND, CONCENTRATION, FOLD, LABEL
from moa_ray.statistics import uncertainty
from moa_ray.statistics.uncertainty import (
    DOUBT,
    EXPECTED,
    INCREDIBILITY,
    METHOD,
    MUTUAL,
    PREDICTIVE,
    RIGHT,
    SAMPLE,
    SINGLE,
    UNKNOWN,
)

few = settings(max_examples=30, deadline=None)
NOTHING = pd.DataFrame()
shares = st.lists(st.floats(0.01, 1), min_size=3, max_size=3)


def treatments(rows: list[list[float]], label: str = "x", fold: str = "compound=c") -> pd.DataFrame:
    """A treatment of a compound of its own for each row of probabilities of x, y and z."""
    table = pd.DataFrame(np.array(rows), columns=["prob_x", "prob_y", "prob_z"])
    names = {COMPOUND: [f"c{i}" for i in range(len(rows))], CONCENTRATION: 1.0, LABEL: label, FOLD: fold}
    return table.assign(**names, **{CANDIDATE: "m", BACKBONE: "b"})


def sampled(rows: list[list[list[float]]]) -> pd.DataFrame:
    """Samples of the same treatments."""
    tables = [treatments(sample).assign(**{METHOD: "laplace", SAMPLE: i}) for i, sample in enumerate(rows)]
    return pd.concat(tables, ignore_index=True)


# Of each treatment ----------------------------------------------------------------------------------------------------


def test_entropies_of_even_and_certain_rows() -> None:
    found = uncertainty.measures(treatments([[1, 1, 1], [0, 1, 0], [0.5, 0.5, 0]]), NOTHING)
    assert found[PREDICTIVE].tolist() == pytest.approx([math.log(3), 0, math.log(2)])
    assert found[DOUBT].tolist() == pytest.approx([2 / 3, 0, 0.5])
    assert found[MUTUAL].tolist() == [0, 0, 0]
    assert found[RIGHT].tolist() == [True, False, True]


@few
@given(st.lists(st.lists(shares, min_size=2, max_size=2), min_size=1, max_size=5))
def test_measures_of_samples_are_what_a_slow_loop_finds(rows: list[list[list[float]]]) -> None:
    found = uncertainty.measures(treatments(rows[0]), sampled(rows))
    for number, (_, row) in enumerate(found[found[METHOD] == "laplace"].iterrows()):
        own = [[share / sum(sample[number]) for share in sample[number]] for sample in rows]
        mean = [sum(column) / len(own) for column in zip(*own, strict=True)]
        predictive = -sum(p * math.log(p) for p in mean)
        expected = sum(-sum(p * math.log(p) for p in sample) for sample in own) / len(own)
        assert row[PREDICTIVE] == pytest.approx(predictive, abs=1e-9)
        assert row[EXPECTED] == pytest.approx(expected, abs=1e-9)
        assert row[MUTUAL] == pytest.approx(max(predictive - expected, 0), abs=1e-9)
        assert row[DOUBT] == pytest.approx(1 - max(mean), abs=1e-9)
        assert row[MUTUAL] >= 0


def test_equal_samples_contradict_nobody() -> None:
    found = uncertainty.measures(treatments([[3, 2, 1]]), sampled([[[3, 2, 1]]] * 4))
    assert found[MUTUAL].tolist() == [0, 0]
    assert found[PREDICTIVE].iloc[0] == found[PREDICTIVE].iloc[1] == found[EXPECTED].iloc[1]


def test_samples_that_are_each_certain_differ_in_mutual_information_alone() -> None:
    found = uncertainty.measures(NOTHING, sampled([[[1, 0, 0]], [[0, 1, 0]]]))
    assert found[EXPECTED].tolist() == [0]
    assert found[MUTUAL].tolist() == pytest.approx([math.log(2)])


def test_samples_predict_by_their_mean() -> None:
    samples = sampled([[[0.6, 0.4, 0]], [[0.6, 0.4, 0]], [[0, 1, 0]]])
    found = uncertainty.measures(treatments([[0.6, 0.4, 0]]), samples)
    assert found["predicted"].tolist() == ["x", "y"]
    assert found[RIGHT].tolist() == [True, False]


def test_a_treatment_known_in_one_fold_and_unknown_in_another_has_two_rows() -> None:
    known, unknown = (treatments([[3, 2, 1]], fold=fold) for fold in ("label=y", "label=x"))
    both = pd.concat([known, unknown], ignore_index=True)
    samples = pd.concat([both.assign(**{METHOD: "laplace", SAMPLE: i}) for i in range(2)], ignore_index=True)
    found = uncertainty.measures(both, samples)
    assert found[[METHOD, UNKNOWN]].values.tolist() == [
        [name, mark] for name in (SINGLE, "laplace") for mark in (False, True)
    ]


def test_credibility_is_one_more_uncertainty_where_all_treatments_have_it() -> None:
    table = treatments([[3, 2, 1], [1, 2, 3]]).assign(credibility=[0.75, 0.5])
    found = uncertainty.measures(table, NOTHING)
    assert found[INCREDIBILITY].tolist() == [0.25, 0.5]
    assert (SINGLE, INCREDIBILITY) in uncertainty.used(found)
    lacking = uncertainty.measures(table.assign(credibility=[0.75, None]), NOTHING)
    assert uncertainty.used(lacking) == [(SINGLE, DOUBT), (SINGLE, PREDICTIVE)]


# Rejecting the unsure -------------------------------------------------------------------------------------------------


@few
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6))
def test_equally_unsure_rows_count_as_their_mean_over_all_orders(rows: list[tuple[int, bool]]) -> None:
    curves = []
    for order in itertools.permutations(rows):
        right = [row[1] for row in sorted(order, key=lambda row: row[0])]
        curves.append([sum(right[:kept]) / kept for kept in range(1, len(rows) + 1)])
    unsure, right = (np.array(column) for column in zip(*rows, strict=True))
    assert uncertainty.rejection(unsure.astype(float), right) == pytest.approx(np.mean(curves, axis=0))


def test_an_uncertainty_that_knows_what_is_wrong_keeps_only_right_ones() -> None:
    right = np.array([True, False, True, True, False])
    expected = [1, 1, 1, 3 / 4, 3 / 5]
    assert uncertainty.best_possible(right) == pytest.approx(expected)
    assert uncertainty.rejection(np.array([0.1, 0.9, 0.2, 0.3, 0.8]), right) == pytest.approx(expected)


def test_a_constant_uncertainty_is_flat_at_the_accuracy() -> None:
    right = np.array([True, False, True, True])
    curve = uncertainty.Rejection(SINGLE, DOUBT, uncertainty.rejection(np.ones(4), right))
    assert curve.accuracies == pytest.approx([0.75] * 4)
    assert curve.area == pytest.approx(0.75)


@pytest.mark.parametrize(("share", "kept"), [(1.0, 10), (0.9, 9), (0.8, 8), (0.7, 7), (0.75, 8), (0.01, 1)])
def test_at_least_the_share_that_is_named_is_kept(share: float, kept: int) -> None:
    curve = uncertainty.Rejection(SINGLE, DOUBT, np.arange(1, 11) / 10)
    assert curve.kept(share) == kept / 10


def test_unknown_treatments_are_no_part_of_a_curve() -> None:
    both = [treatments([[3, 2, 1], [1, 2, 3]], fold="label=y"), treatments([[3, 2, 1]], fold="label=x")]
    found = uncertainty.measures(pd.concat(both), NOTHING)
    assert {len(curve.accuracies) for curve in uncertainty.rejections(found)} == {2}


def test_a_curve_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one treatment is needed"):
        uncertainty.rejection(np.array([]), np.array([], dtype=bool))


# Telling the unknown apart --------------------------------------------------------------------------------------------


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Uncertainties with ties, of known and unknown rows of a few compounds."""
    rows = draw(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.sampled_from("abcd")), min_size=2, max_size=12))
    rows += [(2, True, "a"), (2, False, "b")]
    unsure, unknown, compounds = (list(column) for column in zip(*rows, strict=True))
    return np.array(unsure, dtype=float), np.array(unknown), compounds


@few
@given(pairs())
def test_the_area_is_the_share_of_pairs_in_which_the_unknown_is_less_sure(rows) -> None:
    unsure, unknown, compounds = rows
    won = [
        1.0 if unsure[i] > unsure[j] else 0.5 if unsure[i] == unsure[j] else 0.0
        for i, j in itertools.product(np.flatnonzero(unknown), np.flatnonzero(~unknown))
    ]
    area, low, high = uncertainty.separation(unsure, unknown, compounds, seed=0, samples=50)
    assert area == pytest.approx(np.mean(won))
    assert 0 <= low <= high <= 1


def test_the_interval_is_that_of_a_slow_bootstrap_with_scikit_learn() -> None:
    rng = np.random.default_rng(5)
    compounds = [f"c{i}" for i in range(9) for _ in range(4)]
    unknown = np.array([False, False, True, False] * 9)
    unsure = (rng.integers(0, 6, 36) + 2 * unknown).astype(float)
    names, draws = list(dict.fromkeys(compounds)), np.random.default_rng([3, 3])
    areas = []
    for _ in range(60):
        drawn = [names[i] for i in draws.integers(len(names), size=len(names))]
        rows = [row for name in drawn for row, compound in enumerate(compounds) if compound == name]
        areas.append(roc_auc_score(unknown[rows], unsure[rows]))
    _, low, high = uncertainty.separation(unsure, unknown, compounds, seed=3, samples=60)
    assert (low, high) == pytest.approx(tuple(np.quantile(areas, [0.025, 0.975])))


def test_samples_without_both_kinds_are_drawn_again() -> None:
    unsure, unknown = np.array([0.1, 0.9]), np.array([False, True])
    assert uncertainty.separation(unsure, unknown, ["a", "b"], seed=0, samples=20) == (1.0, 1.0, 1.0)


def test_known_rows_alone_cannot_be_told_from_anything() -> None:
    with pytest.raises(ValueError, match="0 of 2 are unknown"):
        uncertainty.separation(np.zeros(2), np.zeros(2, dtype=bool), ["a", "b"], seed=0)
    assert uncertainty.separations(uncertainty.measures(treatments([[3, 2, 1]]), NOTHING), seed=0) == []


@few
@given(pairs(), st.randoms(use_true_random=False))
def test_the_area_ignores_row_order(rows, order) -> None:
    unsure, unknown, compounds = rows
    shuffled = order.sample(range(len(unsure)), len(unsure))
    again = uncertainty.separation(unsure[shuffled], unknown[shuffled], [compounds[i] for i in shuffled], 0, samples=5)
    assert again[0] == uncertainty.separation(unsure, unknown, compounds, 0, samples=5)[0]
