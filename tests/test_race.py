"""The grid: every trial once, failures again at the end."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_ray.ledger import SETTLED, Status
from moa_ray.race import Grid
from moa_ray.recipe import Recipe

RECIPES = [Recipe(backbone="SmallCNN", learning_rate=rate) for rate in (0.1, 0.01)]
TODO = [(recipe, fold) for recipe in RECIPES for fold in ("a", "b", "c")]
STATUSES: list[Status] = ["finished", "diverged", "out_of_memory", "crashed"]


def test_trials_are_asked_for_in_order_and_then_nothing_is() -> None:
    grid = Grid(TODO, retries=0)
    asked = [grid.ask() for _ in range(len(TODO) + 1)]
    assert [(one.recipe, one.fold) for one in asked if one] == TODO
    assert asked[-1] is None
    assert not grid.finished


def test_crash_is_tried_again_after_all_others_and_divergence_is_not() -> None:
    grid = Grid(TODO[:3], retries=1)
    first, second = grid.ask(), grid.ask()
    assert first is not None
    assert second is not None
    assert not grid.tell(first, "crashed")
    assert grid.tell(second, "diverged")
    third, again = grid.ask(), grid.ask()
    assert third is not None
    assert again is not None
    assert (third.fold, again.fold, again.attempt) == ("c", "a", 2)
    assert grid.tell(again, "crashed")
    assert grid.tell(third, "finished")
    assert grid.finished


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), retries=st.integers(0, 3), slots=st.integers(1, 4))
def test_every_trial_ends_for_good_exactly_once(seed: int, retries: int, slots: int) -> None:
    rng = np.random.default_rng(seed)
    grid, running, final = Grid(TODO, retries), [], []
    attempts: dict[tuple[str, str], int] = {}
    while not grid.finished:
        while len(running) < slots and (assignment := grid.ask()) is not None:
            running.append(assignment)
            attempts[assignment.key] = attempts.get(assignment.key, 0) + 1
            assert assignment.attempt == attempts[assignment.key]
        assignment = running.pop(rng.integers(len(running)))
        status = STATUSES[rng.integers(len(STATUSES))]
        ended = grid.tell(assignment, status)
        assert ended == (status in SETTLED or assignment.attempt == retries + 1)
        if ended:
            final.append(assignment.key)
    assert sorted(final) == sorted((recipe.candidate, fold) for recipe, fold in TODO)
    assert max(attempts.values()) <= retries + 1
