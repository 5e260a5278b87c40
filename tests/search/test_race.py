"""Plans: the grid runs everything once; the race gives more folds to those that may still win."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_ray import metrics, race
from moa_ray.ledger import SETTLED, Proposal, Result, Status
from moa_ray.race import Assignment, Grid, Race, Standing
from moa_ray.recipe import Recipe
from moa_ray.spec import Optuna
from moa_ray.tables import BACKBONE, CANDIDATE, COMPOUND, CONCENTRATION, FIELD, FOLD, LABEL, PLATE, TILE, WELL

RECIPES = [Recipe(backbone="SmallCNN", learning_rate=rate) for rate in (0.1, 0.01)]
TODO = [(recipe, fold) for recipe in RECIPES for fold in ("a", "b", "c")]
STATUSES: list[Status] = ["finished", "stopped", "diverged", "out_of_memory", "crashed"]


# Four backbones, so that each compiles a model of its own, two recipes each.
MIXED = [
    (Recipe(backbone=backbone, learning_rate=rate), fold)
    for backbone in ("ResNet50", "InceptionV3", "Xception", "VGG16")
    for rate in (0.1, 0.01)
    for fold in ("a", "b", "c", "d", "e")
]


def ended(assignment: Assignment, status: Status = "finished") -> Result:
    return Result(*assignment.key, status, assignment.recipe.as_dict(), assignment.attempt, epochs=2)


# The grid


def test_trials_are_asked_for_in_order_and_then_nothing_is() -> None:
    grid = Grid(TODO, retries=0)
    asked = [grid.ask() for _ in range(len(TODO) + 1)]
    assert [(one.recipe, one.fold) for one in asked if one] == TODO
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
    assert len({one.recipe.backbone for one in first if one}) == 4


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
        return not running or [one.recipe.backbone for one in running].count(recipe.backbone) < ROOMS[recipe.backbone]

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
        begun = [one.recipe.backbone for one in running]
        assert all(begun.count(backbone) >= ROOMS[backbone] for backbone in left)
        assignment = running.pop(rng.integers(len(running)))
        grid.tell(assignment, ended(assignment))
    assert left == []


# The race

SEARCH = tuple("abcdefghijkl")
CONFIRM = tuple("xyz")
CANDIDATES = [Recipe(backbone="SmallCNN", learning_rate=0.001 * (1 + n)) for n in range(12)]


def losses(seed: int) -> dict[tuple[str, str], float]:
    """A loss for each candidate and fold: fold difficulty, candidate quality, noise."""
    rng = np.random.default_rng(seed)
    difficulty = dict(zip((*SEARCH, *CONFIRM), rng.normal(0, 1, 15), strict=True))
    quality = dict(zip([recipe.candidate for recipe in CANDIDATES], rng.normal(0, 0.3, 12), strict=True))
    return {
        (name, fold): 5 + quality[name] + difficulty[fold] + rng.normal(0, 0.1)
        for name in quality
        for fold in difficulty
    }


def proposals(n: int = len(CANDIDATES)) -> Callable[[Sequence[Standing]], Proposal | None]:
    return lambda standings: Proposal(len(standings), CANDIDATES[len(standings)]) if len(standings) < n else None


def rules(**changes: object) -> Optuna:
    return Optuna.model_validate({"mode": "optuna", "space": {}, "candidates": len(CANDIDATES), **changes})


def start(table: dict[tuple[str, str], float], retries: int = 0, **changes: object) -> Race:
    return Race(proposals(), rules(**changes), SEARCH, CONFIRM, lambda result: table[result.key], retries)


def run(
    plan: Race, slots: int, rng: np.random.Generator, status: Callable[[Assignment], Status] = lambda _: "finished"
) -> list[tuple[Assignment, Result]]:
    """Drive a race to its end, trials ending in any order; every trial that ended for good."""
    running: list[Assignment] = []
    done = []
    while not plan.finished:
        while len(running) < slots and (assignment := plan.ask()) is not None:
            running.append(assignment)
        if not running:
            assert plan.finished
            break
        assignment = running.pop(rng.integers(len(running)))
        result = ended(assignment, status(assignment))
        if plan.tell(assignment, result):
            done.append((assignment, result))
    return done


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), slots=st.integers(1, 6), confirm=st.integers(0, 3))
def test_a_race_ends_with_its_best_confirmed_and_no_trial_twice(seed: int, slots: int, confirm: int) -> None:
    plan = start(losses(seed), confirm=confirm)
    done = run(plan, slots, np.random.default_rng(seed))
    keys = [assignment.key for assignment, _ in done]
    assert len(set(keys)) == len(keys) <= plan.at_most
    first = [(recipe.candidate, fold) for recipe in CANDIDATES for fold in SEARCH[:4]]
    assert set(first) <= set(keys)
    assert len(plan.ranking) >= 2
    for name in plan.ranking[: 1 + confirm]:
        assert {fold for candidate, fold in keys if candidate == name} == {*SEARCH, *CONFIRM}
    assert {standing.state for standing in plan.standings} <= {"complete", "stopped"}
    assert all(standing.why for standing in plan.standings if standing.state == "stopped")


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32))
def test_who_is_best_on_equal_folds_goes_on(seed: int) -> None:
    """At one slot, by a slow loop over the first rung."""
    table = losses(seed)
    plan = start(table)
    run(plan, 1, np.random.default_rng(seed))
    ranked = sorted(CANDIDATES, key=lambda recipe: sum(table[recipe.candidate, fold] for fold in SEARCH[:4]))
    best = [recipe.candidate for recipe in ranked[:4]]
    assert set(best) <= set(plan.ranking)
    mean = {name: np.mean([table[name, fold] for fold in SEARCH]) for name in plan.ranking}
    assert plan.ranking == sorted(plan.ranking, key=lambda name: mean[name])


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), slots=st.integers(1, 4))
def test_a_confirm_fold_never_changes_the_winner(seed: int, slots: int) -> None:
    table = losses(seed)
    rng = np.random.default_rng(seed + 1)
    other = {key: rng.normal() if key[1] in CONFIRM else value for key, value in table.items()}
    winners = []
    for one in (table, other):
        plan = start(one)
        run(plan, slots, np.random.default_rng(seed))
        winners.append(plan.ranking)
    assert winners[0] == winners[1]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), stop=st.integers(0, 100))
def test_a_race_that_was_killed_ends_as_one_that_was_not(seed: int, stop: int) -> None:
    """At one slot: whatever the ledger holds, the rest is as it would have been."""
    table = losses(seed)
    whole = run(start(table), 1, np.random.default_rng(0))
    before = whole[:stop]
    known: dict[str, Proposal] = {}
    for assignment, _ in before:
        known.setdefault(assignment.recipe.candidate, Proposal(len(known), assignment.recipe))
    plan = Race(
        proposals(),
        rules(),
        SEARCH,
        CONFIRM,
        lambda result: table[result.key],
        known=list(known.values()),
        done=[result for _, result in before],
    )
    after = run(plan, 1, np.random.default_rng(0))
    assert [assignment.key for assignment, _ in [*before, *after]] == [assignment.key for assignment, _ in whole]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), slots=st.integers(1, 4), retries=st.integers(0, 2))
def test_whatever_fails_the_race_ends_and_no_failed_candidate_is_ranked(seed: int, slots: int, retries: int) -> None:
    rng = np.random.default_rng(seed)
    plan = start(losses(seed), retries=retries)
    done = run(plan, slots, rng, lambda _: STATUSES[rng.choice(5, p=[0.8, 0.05, 0.05, 0.05, 0.05])])
    failed = {r.candidate for a, r in done if r.status != "finished" and a.fold in SEARCH}
    assert not failed & set(plan.ranking)
    states = {s.proposal.recipe.candidate: s for s in plan.standings}
    assert all(states[name].state in ("stopped", "failed") and states[name].why for name in failed)


def test_a_candidate_whose_folds_all_failed_has_failed_and_one_that_asha_stopped_is_stopped() -> None:
    kinds: dict[str, Status] = {CANDIDATES[0].candidate: "diverged", CANDIDATES[1].candidate: "stopped"}
    plan = start(losses(0))
    run(plan, 1, np.random.default_rng(0), lambda a: kinds.get(a.recipe.candidate, "finished"))
    first, second, *_ = plan.standings
    assert (first.state, first.why) == ("failed", "diverged on a, after 2 epochs")
    assert (second.state, second.why) == ("stopped", "stopped by ASHA on a, after 2 epochs")
    assert first.losses == second.losses == ()


def test_only_first_folds_may_be_stopped_at_an_epoch() -> None:
    for asha, expected in (
        ({}, {"a"}),
        ({"folds": 3}, set(SEARCH[:3])),
        ({"folds": 9}, set(SEARCH[:4])),
        (None, set()),
    ):
        done = run(start(losses(0), asha=asha), 1, np.random.default_rng(0))
        assert {assignment.fold for assignment, _ in done if assignment.stoppable} == expected


def test_without_a_race_every_candidate_gets_all_search_folds() -> None:
    plan = start(losses(0), race=None)
    done = run(plan, 3, np.random.default_rng(0))
    assert len([a for a, _ in done if a.fold in SEARCH]) == len(CANDIDATES) * len(SEARCH)
    assert len(plan.ranking) == len(CANDIDATES)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), slots=st.integers(2, 6))
def test_no_slot_idles_while_candidates_come_in(seed: int, slots: int) -> None:
    rng = np.random.default_rng(seed)
    plan = start(losses(seed))
    running: list[Assignment] = []
    while len(plan.standings) < len(CANDIDATES):
        while len(running) < slots:
            assignment = plan.ask()
            assert assignment is not None
            running.append(assignment)
        assignment = running.pop(rng.integers(len(running)))
        plan.tell(assignment, ended(assignment))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32))
def test_candidates_that_only_one_node_holds_are_raced_as_all_and_few_are_proposed_meanwhile(seed: int) -> None:
    """Every second candidate is large; of these one runs at a time, beside three others."""
    rng, large = np.random.default_rng(seed), set(CANDIDATES[::2])
    table = losses(seed)
    plan, running, done = start(table), list[Assignment](), list[tuple[str, str]]()

    def room(recipe: Recipe) -> bool:
        alike = [one for one in running if (one.recipe in large) == (recipe in large)]
        return not running or len(alike) < (1 if recipe in large else 3)

    while not plan.finished:
        while (assignment := plan.ask(None, room)) is not None:
            assert room(assignment.recipe)
            running.append(assignment)
        begun = {key[0] for key in done} | {one.recipe.candidate for one in running}
        assert len(plan.standings) - len(begun) <= 4
        if running:
            assignment = running.pop(rng.integers(len(running)))
            plan.tell(assignment, ended(assignment))
            done.append(assignment.key)
    first = set(SEARCH[:4])
    assert all(first <= {fold for name, fold in done if name == one.candidate} for one in CANDIDATES)
    assert len(done) == len(set(done))
    assert {fold for name, fold in done if name == plan.ranking[0]} == {*SEARCH, *CONFIRM}


def test_a_report_sees_where_everyone_stood() -> None:
    table = losses(3)
    plan = start(table)
    done = run(plan, 1, np.random.default_rng(0))
    known = [standing.proposal for standing in plan.standings]
    again = Race.replay(
        rules(), SEARCH, CONFIRM, lambda result: table[result.key], known, [result for _, result in done]
    )
    assert again.ranking == plan.ranking
    assert [(s.state, s.why) for s in again.standings] == [(s.state, s.why) for s in plan.standings]


def test_candidate_whose_trials_the_ledger_had_before_it_was_proposed_runs_none_of_them_again() -> None:
    """It equals a first look, say."""
    table = losses(4)
    first = CANDIDATES[0]
    early = [Result(first.candidate, fold, "finished", first.as_dict(), epochs=2) for fold in SEARCH]
    other = Result("look", "a", "finished", {})
    plan = Race(
        proposals(2), rules(candidates=2), SEARCH, CONFIRM, lambda result: table[result.key], done=[*early, other]
    )
    done = run(plan, 1, np.random.default_rng(0))
    assert not [a for a, _ in done if a.recipe == first and a.fold in SEARCH]
    assert plan.standings[0].losses == tuple(table[first.candidate, fold] for fold in SEARCH)
    assert len(plan.standings) == 2


def test_one_beyond_doubt_worse_does_not_go_on_though_its_place_would_do() -> None:
    """Three rungs; second best, but worse than the best on each of the first six folds."""
    table = {(recipe.candidate, fold): 1.0 + 0.1 * n for n, recipe in enumerate(CANDIDATES) for fold in SEARCH}
    table |= {(recipe.candidate, fold): 1.0 for recipe in CANDIDATES for fold in CONFIRM}
    plan = start(table, race={"first_folds": 2, "reduction_factor": 3, "keep": 3})
    run(plan, 1, np.random.default_rng(0))
    assert plan.ranking == [CANDIDATES[0].candidate]
    assert plan.standings[1].why == f"worse than {CANDIDATES[0].candidate} on the same 6 folds (Wilcoxon, p < 0.05)"


@pytest.mark.parametrize("objective", ["treatment_accuracy", "treatment_log_loss"])
def test_trials_measured_together_are_those_measured_alone(objective: str) -> None:
    rng = np.random.default_rng(0)
    tables = {}
    for candidate in ("m", "n"):
        for fold in ("f", "g"):  # two weeks of the same treatments
            rows = pd.DataFrame({PLATE: fold, WELL: [f"A{number:02}" for number in range(40)], FIELD: "1", TILE: "0"})
            rows = rows.assign(**{COMPOUND: "c", CONCENTRATION: np.arange(40) % 20, LABEL: "x"})
            rows = rows.assign(**{FOLD: fold, CANDIDATE: candidate, BACKBONE: "b"})
            tables[candidate, fold] = rows.assign(prob_x=rng.random(40), prob_y=rng.random(40))
    together = race.loss(objective, "median", pd.concat(tables.values()))
    alone = race.loss(objective, "median")
    for key, rows in tables.items():
        assert together(Result(*key, "finished", {})) == alone(Result(*key, "finished", {}, predictions=rows))


@pytest.mark.parametrize(("objective", "expected"), [("treatment_accuracy", 0.5), ("treatment_log_loss", None)])
def test_the_objective_is_over_the_treatments_of_a_fold(objective: str, expected: float | None) -> None:
    rows = pd.DataFrame(
        {
            PLATE: "P",
            WELL: ["A01", "A01", "A02"],
            FIELD: ["1", "2", "1"],
            TILE: "0",
            COMPOUND: "c",
            CONCENTRATION: [1.0, 1.0, 2.0],
            LABEL: "x",
            FOLD: "f",
            CANDIDATE: "n",
            BACKBONE: "b",
            "prob_x": [0.8, 0.6, 0.1],
            "prob_y": [0.2, 0.4, 0.9],
        }
    )
    result = Result("n", "f", "finished", {}, predictions=rows)
    value = race.loss(objective, "median")(result)
    slow = -np.mean(np.log([0.7, 0.1]))
    assert value == pytest.approx(slow if expected is None else expected)
    assert metrics.treatments(rows)["predicted"].tolist() == ["x", "y"]
