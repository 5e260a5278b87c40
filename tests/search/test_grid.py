"""The grid runs everything once, and stops nothing."""

from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import STATUSES, ended

from moa_ray.config.recipe import Recipe
from moa_ray.search.grid import Grid
from moa_ray.search.plan import Assignment
from moa_ray.tracking.results import SETTLED

RECIPES = [Recipe(backbone="SmallCNN", learning_rate=rate) for rate in (0.1, 0.01)]
TODO = [(recipe, fold) for recipe in RECIPES for fold in ("a", "b", "c")]


# Four backbones, so that each compiles a model of its own, two recipes each.
MIXED = [
    (Recipe(backbone=backbone, learning_rate=rate), fold)
    for backbone in ("ResNet50", "InceptionV3", "Xception", "VGG16")
    for rate in (0.1, 0.01)
    for fold in ("a", "b", "c", "d", "e")
]


def test_trials_are_asked_for_in_order_and_then_nothing_is() -> None:
    grid = Grid(TODO, retries=0)
    asked = [grid.ask() for _ in range(len(TODO) + 1)]
    assert [(assignment.recipe, assignment.fold) for assignment in asked if assignment] == TODO
    assert asked[-1] is None
    assert not grid.finished
    assert grid.at_most == len(TODO)


def test_crash_is_tried_again_after_all_others_and_divergence_is_not() -> None:
    grid = Grid(TODO[:3], retries=1)
    first, second = grid.ask(), grid.ask()
    assert first is not None
    assert second is not None
    assert not grid.tell(first, ended(first, "crashed"))
    assert grid.tell(second, ended(second, "diverged"))
    third, again = grid.ask(), grid.ask()
    assert third is not None
    assert again is not None
    assert (third.fold, again.fold, again.attempt) == ("c", "a", 2)
    assert grid.tell(again, ended(again, "crashed"))
    assert grid.tell(third, ended(third))
    assert grid.finished


def test_what_fails_by_its_data_is_not_tried_again() -> None:
    grid = Grid(TODO[:1], retries=2)
    first = grid.ask()
    assert first is not None
    assert grid.tell(first, ended(first, "crashed", recurs=True))
    assert grid.finished


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), slots=st.integers(1, 8))
def test_a_worker_keeps_its_model_as_long_as_others_can_take_the_rest(seed: int, slots: int) -> None:
    """Workers that take turns at random: one changes its model only when nothing is left for it."""
    rng = np.random.default_rng(seed)
    grid, warm, running = Grid(MIXED, retries=0), dict.fromkeys(range(slots)), {}
    left = [recipe.signature for recipe, _ in MIXED]
    while not grid.finished:
        for worker in set(warm) - set(running):
            if (assignment := grid.ask(warm[worker])) is None:
                continue
            signature = assignment.recipe.signature
            if signature != warm[worker]:
                assert warm[worker] not in left
            left.remove(signature)
            running[worker], warm[worker] = assignment, signature
        assignment = running.pop(rng.choice(sorted(running)))
        grid.tell(assignment, ended(assignment))
    assert left == []


def test_workers_begin_with_models_of_their_own() -> None:
    grid = Grid(MIXED, retries=0)
    first = [grid.ask() for _ in range(5)]
    assert len({assignment.recipe.backbone for assignment in first if assignment}) == 4


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
        final_now = grid.tell(assignment, ended(assignment, status))
        assert final_now == (status in SETTLED or assignment.attempt == retries + 1)
        if final_now:
            final.append(assignment.key)
    assert sorted(final) == sorted((recipe.candidate, fold) for recipe, fold in TODO)
    assert max(attempts.values()) <= retries + 1


ROOMS = {"ResNet50": 2, "InceptionV3": 1, "Xception": 0, "VGG16": 3}  # trials of each that nodes hold at once


def has_room(running: Sequence[Assignment]) -> Callable[[Recipe], bool]:
    """While nothing runs, one of any recipe may."""

    def room(recipe: Recipe) -> bool:
        alike = [assignment for assignment in running if assignment.recipe.backbone == recipe.backbone]
        return not running or len(alike) < ROOMS[recipe.backbone]

    return room


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32))
def test_only_what_has_room_is_begun_and_no_node_idles_for_what_has_none(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid, running, left = Grid(MIXED, retries=0), list[Assignment](), [recipe.backbone for recipe, _ in MIXED]
    while not grid.finished:
        while (assignment := grid.ask(None, room := has_room(running))) is not None:
            assert room(assignment.recipe)
            running.append(assignment)
            left.remove(assignment.recipe.backbone)
        begun = [assignment.recipe.backbone for assignment in running]
        assert all(begun.count(backbone) >= ROOMS[backbone] for backbone in left)
        assignment = running.pop(rng.integers(len(running)))
        grid.tell(assignment, ended(assignment))
    assert left == []
