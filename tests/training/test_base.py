"""Class weights and schedules against scikit-learn and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lazy import Lazy

from moa_ray.config.recipe import Recipe

base = Lazy("moa_ray.training.base")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40))
def test_class_weights_are_those_of_scikit_learn(labels):
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array(labels)
    weights = base.class_weights(labels, 5)
    present = np.unique(labels)
    np.testing.assert_allclose(weights[present], compute_class_weight("balanced", classes=present, y=labels), rtol=1e-6)
    assert (np.delete(weights, present) == 0).all()
    np.testing.assert_allclose(weights[labels].sum(), len(labels), rtol=1e-5)


@pytest.mark.parametrize(
    ("schedule", "epochs", "expected"),
    [
        ("constant", 3, [1, 1, 1]),
        ("step", 3, [1, 0.1, 0.01]),
        ("step", 7, [1, 1, 1, 0.1, 0.1, 0.01, 0.01]),
        ("step", 1, [1]),
        ("cosine", 4, [1, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4]),
        ("cosine", 1, [1]),
    ],
)
def test_the_schedule_by_hand(schedule, epochs, expected):
    recipe = Recipe(schedule=schedule, epochs=epochs, learning_rate=0.04)
    rates = [base.learning_rate(recipe, epoch) for epoch in range(1, epochs + 1)]
    np.testing.assert_allclose(rates, 0.04 * np.array(expected), rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 400))
def test_the_step_schedule_has_three_parts_of_equal_length(thirds):
    recipe = Recipe(schedule="step", epochs=3 * thirds, learning_rate=1.0)
    rates = np.array([base.learning_rate(recipe, epoch) for epoch in range(1, 3 * thirds + 1)])
    np.testing.assert_allclose(rates, np.repeat([1, 0.1, 0.01], thirds))
