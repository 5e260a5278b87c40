"""Which candidate runs on which fold next.

A plan is asked for assignments and told how they ended; it knows nothing of Ray, nor of where recipes come from. `Grid`
runs everything and stops nothing. `Race` gives a candidate more folds only while it may still win:

1. Every candidate gets the same first folds.
2. The scores of those that have done a rung's folds are compared over these folds alone, so that an easy fold favours
   nobody. The best ``1 / reduction_factor`` go on to the next rung, which has ``reduction_factor`` times the folds; the
   others wait, and go on when enough worse ones came in. Once all candidates are proposed, at least ``keep`` go on.
3. From six folds on, one that a Wilcoxon test paired by fold finds worse than the best does not go on. On fewer folds
   no test decides.
4. A candidate with a fold that did not finish (ASHA stopped it, it diverged) cannot be compared and gets no more.
5. The best of those that did all search folds, and some runners-up, are trained on the folds that the race never saw.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moa_ray import metrics, selection, unknowns
from moa_ray.ledger import SETTLED, Proposal, Result, Status
from moa_ray.recipe import Recipe
from moa_ray.spec import Optuna
from moa_ray.spec import Race as Rules
from moa_ray.tables import CANDIDATE, FOLD, LABEL

Signature = tuple[Any, ...]  # see `Recipe.signature`

# Candidates that wait for a node that holds them, until which others are still proposed: nodes that hold others should
# not idle, and a proposal is the better the more is known.
_HELD_UP = 4


@dataclass(frozen=True)
class Assignment:
    """One attempt at one trial: a recipe on a fold. The first attempt has number 1.

    stoppable : whether the trial may be stopped at an epoch where it is worse than others of its fold
    """

    recipe: Recipe
    fold: str
    attempt: int = 1
    stoppable: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """(candidate, fold)"""
        return self.recipe.candidate, self.fold


HasRoom = Callable[[Recipe], bool]


def _anything(recipe: Recipe) -> bool:
    return True


class Plan(Protocol):
    """What `moa_ray.tuning` asks of a search."""

    def ask(self, warm: Signature | None = None, has_room: HasRoom = _anything) -> Assignment | None:
        """The next assignment, or None while there is none to give.

        warm : what the worker that will take it has compiled; it keeps that as long as others can take the rest
        has_room : whether a trial of a recipe could be begun now; while nothing runs, one of any recipe could
        """

    def tell(self, assignment: Assignment, result: Result) -> bool:
        """Take note of how an assignment ended; True where that is final and no further attempt follows."""

    @property
    def finished(self) -> bool:
        """Whether nothing will be asked any more."""

    @property
    def at_most(self) -> int:
        """Trials that will have been done at the end, at most."""


class Grid:
    """Every recipe on every fold. A worker gets what its compiled model can take while there is any, else that of which
    most is waiting for each worker that is at it.

    A trial that did not settle (it crashed, or ran out of memory) is tried again after those that wait, at most
    `retries` times.
    """

    def __init__(self, todo: Iterable[tuple[Recipe, str]], retries: int, done: int = 0) -> None:
        self._waiting: dict[Signature, deque[Assignment]] = {}
        for recipe, fold in todo:
            self._wait(Assignment(recipe, fold))
        self._running: dict[tuple[str, str], Signature] = {}
        self._retries = retries
        self._total = sum(map(len, self._waiting.values())) + done

    @property
    def at_most(self) -> int:
        """Trials that will have been done at the end."""
        return self._total

    def ask(self, warm: Signature | None = None, has_room: HasRoom = _anything) -> Assignment | None:
        """The next assignment, or None while all that is left is running or has no room."""
        open_ = [signature for signature, queue in self._waiting.items() if queue and has_room(queue[0].recipe)]
        if not open_:
            return None
        if warm is None or warm not in open_:
            busy = Counter(self._running.values())
            warm = max(open_, key=lambda signature: len(self._waiting[signature]) / (1 + busy[signature]))
        assignment = self._waiting[warm].popleft()
        self._running[assignment.key] = assignment.recipe.signature
        return assignment

    def tell(self, assignment: Assignment, result: Result) -> bool:
        """Take note of how an assignment ended; True where no further attempt follows."""
        self._running.pop(assignment.key)
        if result.status in SETTLED or assignment.attempt > self._retries:
            return True
        self._wait(Assignment(assignment.recipe, assignment.fold, assignment.attempt + 1))
        return False

    @property
    def finished(self) -> bool:
        """Whether every trial has ended for good."""
        return not any(self._waiting.values()) and not self._running

    def _wait(self, assignment: Assignment) -> None:
        self._waiting.setdefault(assignment.recipe.signature, deque()).append(assignment)


State = Literal["running", "waiting", "stopped", "failed", "complete"]


@dataclass(frozen=True)
class Standing:
    """Where a candidate stands in the race.

    losses : on the search folds that it finished, in the race's order; lower is better
    why : where and why it was stopped; empty while it was not
    """

    proposal: Proposal
    state: State
    losses: tuple[float, ...]
    why: str


Loss = Callable[[Result], float]
Propose = Callable[[Sequence[Standing]], Proposal | None]


@dataclass(eq=False)
class _Runner:
    """A candidate in the race.

    means : by a number of folds, over so many first search folds; a candidate is ranked again with each trial's end
    """

    proposal: Proposal
    rung: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    ended: dict[str, Status] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    out: str = ""
    means: dict[int, float] = field(default_factory=dict)

    def over(self, folds: Sequence[str]) -> NDArray[np.float64]:
        return np.array([self.losses[fold] for fold in folds])

    def mean(self, folds: Sequence[str]) -> float | None:
        """Over the first search folds; None while one of them is not finished."""
        if len(folds) not in self.means and all(fold in self.losses for fold in folds):
            self.means[len(folds)] = float(self.over(folds).mean())
        return self.means.get(len(folds))


class Race:
    """Candidates race through the search folds; the winner is confirmed on the others.

    propose : the next candidate, given how the others stand; None when there is no further one
    search : the folds that the choice may look at, in the order in which every candidate gets them
    confirm : the folds that it may not
    loss : of a finished trial, lower is better
    known, done : what an earlier start left in the ledger
    """

    def __init__(
        self,
        propose: Propose,
        settings: Optuna,
        search: Sequence[str],
        confirm: Sequence[str],
        loss: Loss,
        retries: int = 0,
        known: Iterable[Proposal] = (),
        done: Iterable[Result] = (),
    ) -> None:
        self._propose, self._settings, self._loss, self._retries = propose, settings, loss, retries
        self._search, self._confirm = list(search), list(confirm)
        self._rules = settings.race or Rules(first_folds=len(self._search))
        self._rungs = selection.rungs(len(self._search), self._rules.first_folds, self._rules.reduction_factor)
        self._runners: dict[str, _Runner] = {}
        self._again: deque[Assignment] = deque()
        self._exhausted = False
        self._over = False
        self._earlier: dict[str, list[Result]] = {}
        for result in done:
            self._earlier.setdefault(result.candidate, []).append(result)
        for proposal in sorted(known, key=lambda proposal: proposal.number):
            self._admit(proposal)

    @classmethod
    def replay(
        cls,
        settings: Optuna,
        search: Sequence[str],
        confirm: Sequence[str],
        loss: Loss,
        known: Sequence[Proposal],
        done: Iterable[Result],
    ) -> "Race":
        """A race as far as a ledger tells, for a report: nothing new is proposed."""
        race = cls(lambda _: None, settings, search, confirm, loss, known=known, done=done)
        race._exhausted = True
        race.ask()
        return race

    # What tuning asks -------------------------------------------------------------------------------------------------

    def ask(self, warm: Signature | None = None, has_room: HasRoom = _anything) -> Assignment | None:
        """The next assignment, or None while there is none to give, or none that has room."""
        again = next((assignment for assignment in self._again if has_room(assignment.recipe)), None)
        if again is not None:
            self._again.remove(again)
            self._runners[again.recipe.candidate].running.add(again.fold)
            return again
        while True:
            held_up = 0
            for runner in sorted(self._runners.values(), key=partial(_turn, warm=warm)):
                fold = self._next_fold(runner)
                if fold is not None and has_room(runner.proposal.recipe):
                    runner.running.add(fold)
                    return Assignment(runner.proposal.recipe, fold, stoppable=fold in self.stoppable_folds)
                held_up += fold is not None
            if self._promote() or (held_up < _HELD_UP and self._enter()):
                continue
            return self._ask_confirmation(has_room)

    def tell(self, assignment: Assignment, result: Result) -> bool:
        """Take note of how an assignment ended; True where no further attempt follows."""
        runner = self._runners[result.candidate]
        runner.running.discard(result.fold)
        if result.status not in SETTLED and assignment.attempt <= self._retries and not runner.out:
            again = Assignment(assignment.recipe, assignment.fold, assignment.attempt + 1, assignment.stoppable)
            self._again.append(again)
            return False
        self._note(result)
        return True

    @property
    def finished(self) -> bool:
        """Whether the race is run and confirmed."""
        return self._over

    @property
    def at_most(self) -> int:
        """Trials that will have been done at the end, at most."""
        candidates = len(self._runners) if self._exhausted else max(self._settings.candidates, len(self._runners))
        return candidates * len(self._search) + (1 + self._settings.confirm) * len(self._confirm)

    # What a report asks -----------------------------------------------------------------------------------------------

    @property
    def stoppable_folds(self) -> list[str]:
        """The folds on which a candidate is new, and may be stopped at an epoch."""
        return self._search[: min(self._settings.asha.folds, self._rungs[0])] if self._settings.asha else []

    @property
    def standings(self) -> list[Standing]:
        """Every candidate, in the order of their proposal."""
        places = cache(lambda rung: {runner: number + 1 for number, runner in enumerate(self._ranked(rung))})
        return [self._standing(runner, places) for runner in self._runners.values()]

    @property
    def ranking(self) -> list[str]:
        """The candidates that finished all search folds, best first."""
        return [runner.proposal.recipe.candidate for runner in self._by_mean(self._search)]

    # The rule ---------------------------------------------------------------------------------------------------------

    def _next_fold(self, runner: _Runner) -> str | None:
        if runner.out:
            return None
        folds = self._search[: self._rungs[runner.rung]]
        return next((fold for fold in folds if fold not in runner.ended and fold not in runner.running), None)

    def _promote(self) -> bool:
        """Let one waiting candidate go on, if one may; while more may come, only into a place that is safe."""
        closing = not self._may_enter()
        levels = range(len(self._rungs) - 1)
        for rung in levels if closing else reversed(levels):
            ranked = self._ranked(rung)
            share = len(ranked) / self._rules.reduction_factor
            places = max(self._rules.keep, math.ceil(share)) if closing else math.floor(share)
            folds = self._search[: self._rungs[rung]]
            for runner in ranked[:places]:
                if runner.rung != rung or runner.out:
                    continue
                if selection.is_worse(runner.over(folds), ranked[0].over(folds)):
                    best = ranked[0].proposal.recipe.candidate
                    runner.out = f"worse than {best} on the same {len(folds)} folds (Wilcoxon, p < {selection.LEVEL})"
                    continue
                runner.rung += 1
                return True
        return False

    def _ranked(self, rung: int) -> list[_Runner]:
        """Those that did the folds of a rung, best first by the mean over these folds."""
        return self._by_mean(self._search[: self._rungs[rung]])

    def _by_mean(self, folds: Sequence[str]) -> list[_Runner]:
        means = ((runner.mean(folds), runner.proposal.number, runner) for runner in self._runners.values())
        return [runner for *_, runner in sorted(one for one in means if one[0] is not None)]

    def _may_enter(self) -> bool:
        return not self._exhausted and len(self._runners) < self._settings.candidates

    def _enter(self) -> bool:
        if not self._may_enter():
            return False
        proposal = self._propose(self.standings)
        if proposal is None:
            self._exhausted = True
            return self._promote()
        self._admit(proposal)
        return True

    def _ask_confirmation(self, has_room: HasRoom) -> Assignment | None:
        """The winner and the runners-up on the folds that nothing was chosen by.

        While the last search trials run, a slot that would idle begins with those that lead.
        """
        for candidate in self.ranking[: 1 + self._settings.confirm]:
            runner = self._runners[candidate]
            for fold in self._confirm:
                done = fold in runner.ended or fold in runner.running
                if not done and has_room(runner.proposal.recipe):
                    runner.running.add(fold)
                    return Assignment(runner.proposal.recipe, fold)
        self._over = not any(runner.running for runner in self._runners.values()) and not self._again
        return None

    # Bookkeeping ------------------------------------------------------------------------------------------------------

    def _admit(self, proposal: Proposal) -> None:
        """Take a candidate in, with what the ledger has of it: where it equals a first look, before it was proposed."""
        self._runners[proposal.recipe.candidate] = _Runner(proposal)
        for result in self._earlier.pop(proposal.recipe.candidate, ()):
            self._note(result)

    def _note(self, result: Result) -> None:
        runner = self._runners[result.candidate]
        runner.ended[result.fold] = result.status
        if result.fold not in self._search:
            return
        if result.status == "finished":
            runner.losses[result.fold] = self._loss(result)
            # A start that goes on: who was let on to a rung is seen by the folds it did there.
            place = self._search.index(result.fold)
            runner.rung = max(runner.rung, next(i for i, size in enumerate(self._rungs) if place < size))
        else:
            kind = "stopped by ASHA" if result.status == "stopped" else result.status
            runner.out = runner.out or f"{kind} on {result.fold}, after {result.epochs} epochs"

    def _is_complete(self, runner: _Runner) -> bool:
        return runner.mean(self._search) is not None

    def _standing(self, runner: _Runner, places: Callable[[int], Mapping[_Runner, int]]) -> Standing:
        losses = tuple(runner.losses[fold] for fold in self._search if fold in runner.losses)
        return Standing(runner.proposal, self._state(runner), losses, runner.out or self._place(runner, places))

    def _state(self, runner: _Runner) -> State:
        if self._is_complete(runner):
            return "complete"
        if runner.out:
            failed = {"diverged", "out_of_memory", "crashed"}
            return "failed" if runner.ended and set(runner.ended.values()) <= failed else "stopped"
        if runner.running or self._next_fold(runner) is not None:
            return "running"
        return "stopped" if self._over else "waiting"

    def _place(self, runner: _Runner, places: Callable[[int], Mapping[_Runner, int]]) -> str:
        """Why a candidate that waits was not let on."""
        if self._is_complete(runner) or self._next_fold(runner) is not None or runner.running:
            return ""
        ranked = places(runner.rung)
        return f"number {ranked[runner]} of {len(ranked)} on the first {self._rungs[runner.rung]} folds"


def _turn(runner: _Runner, warm: Signature | None) -> tuple[bool, int, int]:
    """Whose turn it is: of those that a worker's compiled model can take, then of all, who has come furthest."""
    return runner.proposal.recipe.signature != warm, -runner.rung, runner.proposal.number


def loss(objective: str, how: metrics.How, done: pd.DataFrame | None = None) -> Loss:
    """What a finished trial's objective comes to, lower being better: over the treatments of its fold.

    done : predictions of trials that are measured here, together: thousands in seconds
    """
    known = {} if done is None else _losses(objective, how, done)

    def of(result: Result) -> float:
        if result.key in known:
            return known[result.key]
        assert result.predictions is not None, f"{result.key} finished without predictions"
        return _losses(objective, how, result.predictions)[result.key]

    return of


def _losses(objective: str, how: metrics.How, predictions: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Each trial's loss by its key, exactly as if it were measured alone."""
    if predictions.empty:
        return {}
    table = metrics.treatments(unknowns.known(predictions), how, apart=True)
    trials = table.groupby([CANDIDATE, FOLD]).indices
    if objective == "treatment_accuracy":
        right = (table[metrics.PREDICTED] == table[LABEL]).to_numpy()
        return {key: 1 - float(right[rows].mean()) for key, rows in trials.items()}
    losses = metrics.losses(table)
    return {key: float(losses[rows].mean()) for key, rows in trials.items()}
