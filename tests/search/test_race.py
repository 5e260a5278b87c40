"""The race gives more folds to those that may still win."""

from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import STATUSES, ended

from moa_ray.config.recipe import Recipe
from moa_ray.config.search import OptunaSettings
from moa_ray.search.plan import Assignment
from moa_ray.search.race import Race
from moa_ray.search.standing import Standing
from moa_ray.tracking.results import Proposal, Result, Status

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


def rules(**changes: object) -> OptunaSettings:
    return OptunaSettings.model_validate({"mode": "optuna", "space": {}, "candidates": len(CANDIDATES), **changes})


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
    for losses_of in (table, other):
        plan = start(losses_of)
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
    proposed: dict[str, Proposal] = {}
    for assignment, _ in before:
        proposed.setdefault(assignment.recipe.candidate, Proposal(len(proposed), assignment.recipe))
    plan = Race(
        proposals(),
        rules(),
        SEARCH,
        CONFIRM,
        lambda result: table[result.key],
        proposals=list(proposed.values()),
        results=[result for _, result in before],
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
        alike = [assignment for assignment in running if (assignment.recipe in large) == (recipe in large)]
        return not running or len(alike) < (1 if recipe in large else 3)

    while not plan.finished:
        while (assignment := plan.ask(None, room)) is not None:
            assert room(assignment.recipe)
            running.append(assignment)
        begun = {key[0] for key in done} | {assignment.recipe.candidate for assignment in running}
        assert len(plan.standings) - len(begun) <= 4
        if running:
            assignment = running.pop(rng.integers(len(running)))
            plan.tell(assignment, ended(assignment))
            done.append(assignment.key)
    first = set(SEARCH[:4])
    assert all(first <= {fold for name, fold in done if name == recipe.candidate} for recipe in CANDIDATES)
    assert len(done) == len(set(done))
    assert {fold for name, fold in done if name == plan.ranking[0]} == {*SEARCH, *CONFIRM}


def test_a_report_sees_where_everyone_stood() -> None:
    table = losses(3)
    plan = start(table)
    done = run(plan, 1, np.random.default_rng(0))
    proposed = [standing.proposal for standing in plan.standings]
    again = Race.replay(
        rules(), SEARCH, CONFIRM, lambda result: table[result.key], proposed, [result for _, result in done]
    )
    assert again.ranking == plan.ranking
    assert [(s.state, s.why) for s in again.standings] == [(s.state, s.why) for s in plan.standings]


def test_candidate_whose_trials_the_ledger_had_before_it_was_proposed_runs_none_of_them_again() -> None:
    """It equals a linear probe, say."""
    table = losses(4)
    first = CANDIDATES[0]
    early = [Result(first.candidate, fold, "finished", first.as_dict(), epochs=2) for fold in SEARCH]
    other = Result("probe", "a", "finished", {})
    plan = Race(
        proposals(2), rules(candidates=2), SEARCH, CONFIRM, lambda result: table[result.key], results=[*early, other]
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
