"""A plan that gives a candidate more folds only while it may still win.

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
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial

from moa_ray.config.search import OptunaSettings, RaceSettings
from moa_ray.search.objective import Loss
from moa_ray.search.plan import Assignment, HasRoom, Signature, any_recipe
from moa_ray.search.standing import Propose, Runner, Standing, State
from moa_ray.search.successive_halving import LEVEL, is_worse, rungs
from moa_ray.tracking.results import Proposal, Result

# Candidates that wait for a node that holds them, until which others are still proposed: nodes that hold others should
# not idle, and a proposal is the better the more is known.
_HELD_UP = 4


class Race:
    """Candidates race through the search folds; the winner is confirmed on the others.

    Parameters
    ----------
    propose : callable
        Returns the next candidate, given how the others stand; None when there is no further one.
    settings : OptunaSettings
        The section ``search`` of the sweep file.
    search : sequence of str
        The folds that the choice may look at, in the order in which every candidate gets them.
    confirm : sequence of str
        The folds that it may not.
    loss : callable
        The loss of a finished trial; lower is better.
    retries : int
        How often a trial that did not settle is tried again; never one that failed by its data.
    proposals : iterable of Proposal
        Candidates that an earlier start left in the ledger.
    results : iterable of Result
        Settled trials that it left there; those of no candidate are kept until one is proposed that they belong to.
    """

    def __init__(
        self,
        propose: Propose,
        settings: OptunaSettings,
        search: Sequence[str],
        confirm: Sequence[str],
        loss: Loss,
        retries: int = 0,
        proposals: Iterable[Proposal] = (),
        results: Iterable[Result] = (),
    ) -> None:
        self._propose, self._settings, self._loss, self._retries = propose, settings, loss, retries
        self._search, self._confirm = list(search), list(confirm)
        self._rules = settings.race or RaceSettings(first_folds=len(self._search))
        self._rungs = rungs(len(self._search), self._rules.first_folds, self._rules.reduction_factor)
        self._runners: dict[str, Runner] = {}
        self._again: deque[Assignment] = deque()
        self._exhausted = False
        self._over = False
        self._earlier: dict[str, list[Result]] = {}
        for result in results:
            self._earlier.setdefault(result.candidate, []).append(result)
        for proposal in sorted(proposals, key=lambda proposal: proposal.number):
            self._admit(proposal)

    @classmethod
    def replay(
        cls,
        settings: OptunaSettings,
        search: Sequence[str],
        confirm: Sequence[str],
        loss: Loss,
        proposals: Sequence[Proposal],
        results: Iterable[Result],
    ) -> "Race":
        """Replay a race as far as a ledger tells, for a report: nothing new is proposed.

        Parameters
        ----------
        settings : OptunaSettings
            The section ``search`` of the sweep file.
        search : sequence of str
            The folds that the choice may look at, in the order in which every candidate gets them.
        confirm : sequence of str
            The folds that it may not.
        loss : callable
            The loss of a finished trial; lower is better.
        proposals : sequence of Proposal
            Candidates of the ledger.
        results : iterable of Result
            Its settled trials.

        Returns
        -------
        Race
            With the standings that the ledger leads to.
        """
        race = cls(lambda _: None, settings, search, confirm, loss, proposals=proposals, results=results)
        race._exhausted = True
        race.ask()
        return race

    # What trials ask --------------------------------------------------------------------------------------------------

    def ask(self, warm: Signature | None = None, has_room: HasRoom = any_recipe) -> Assignment | None:
        """Take the next assignment.

        Candidates that a worker's compiled model can take come first, then who has come furthest.

        Parameters
        ----------
        warm : tuple or None
            Signature of what the worker that will take it has compiled.
        has_room : callable
            Whether a trial of a recipe could be begun now.

        Returns
        -------
        Assignment or None
            None while there is none to give, or none that has room.
        """
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
                    return runner.assignment(fold, stoppable=fold in self.stoppable_folds)
                held_up += fold is not None
            if self._promote() or (held_up < _HELD_UP and self._enter()):
                continue
            return self._ask_confirmation(has_room)

    def tell(self, assignment: Assignment, result: Result) -> bool:
        """Take note of how an assignment ended.

        Parameters
        ----------
        assignment : Assignment
            As `ask` gave it.
        result : Result
            How it ended; a finished one with its predictions.

        Returns
        -------
        bool
            True where no further attempt follows.
        """
        runner = self._runners[result.candidate]
        runner.running.discard(result.fold)
        may_do_better = not result.is_settled and not result.recurs and not runner.out
        if may_do_better and assignment.attempt <= self._retries:
            self._again.append(replace(assignment, attempt=assignment.attempt + 1))
            return False
        self._note(result)
        return True

    @property
    def finished(self) -> bool:
        """Whether the race is run and confirmed."""
        return self._over

    @property
    def at_most(self) -> int:
        """Upper bound of the number of trials that will have been done at the end."""
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

    def _next_fold(self, runner: Runner) -> str | None:
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
                if is_worse(runner.over(folds), ranked[0].over(folds)):
                    best = ranked[0].proposal.recipe.candidate
                    runner.out = f"worse than {best} on the same {len(folds)} folds (Wilcoxon, p < {LEVEL})"
                    continue
                runner.rung += 1
                return True
        return False

    def _ranked(self, rung: int) -> list[Runner]:
        """Those that did the folds of a rung, best first by the mean over these folds."""
        return self._by_mean(self._search[: self._rungs[rung]])

    def _by_mean(self, folds: Sequence[str]) -> list[Runner]:
        means = ((runner.mean(folds), runner.proposal.number, runner) for runner in self._runners.values())
        return [runner for *_, runner in sorted(ranked for ranked in means if ranked[0] is not None)]

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
                    return runner.assignment(fold)
        self._over = not any(runner.running for runner in self._runners.values()) and not self._again
        return None

    # Bookkeeping ------------------------------------------------------------------------------------------------------

    def _admit(self, proposal: Proposal) -> None:
        """Take a candidate in, with what the ledger has of it: a linear probe may have had its recipe before."""
        self._runners[proposal.recipe.candidate] = Runner(proposal)
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

    def _is_complete(self, runner: Runner) -> bool:
        return runner.mean(self._search) is not None

    def _standing(self, runner: Runner, places: Callable[[int], Mapping[Runner, int]]) -> Standing:
        losses = tuple(runner.losses[fold] for fold in self._search if fold in runner.losses)
        return Standing(runner.proposal, self._state(runner), losses, runner.out or self._place(runner, places))

    def _state(self, runner: Runner) -> State:
        if self._is_complete(runner):
            return "complete"
        if runner.out:
            failed = {"diverged", "out_of_memory", "crashed", "lost"}
            return "failed" if runner.ended and set(runner.ended.values()) <= failed else "stopped"
        if runner.running or self._next_fold(runner) is not None:
            return "running"
        return "stopped" if self._over else "waiting"

    def _place(self, runner: Runner, places: Callable[[int], Mapping[Runner, int]]) -> str:
        """Why a candidate that waits was not let on."""
        if self._is_complete(runner) or self._next_fold(runner) is not None or runner.running:
            return ""
        ranked = places(runner.rung)
        return f"number {ranked[runner]} of {len(ranked)} on the first {self._rungs[runner.rung]} folds"


def _turn(runner: Runner, warm: Signature | None) -> tuple[bool, int, int]:
    """Sort key: runners whose recipe fits the warm model first, then by rung reached, then by their number."""
    return runner.proposal.recipe.signature != warm, -runner.rung, runner.proposal.number
