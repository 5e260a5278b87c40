"""A plan that runs every recipe on every fold and stops none."""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import replace

from moa_ray.config.recipe import Recipe
from moa_ray.search.plan import Assignment, HasRoom, Signature, any_recipe
from moa_ray.tracking.results import Result, TrialKind


class Grid:
    """Every recipe on every fold.

    Parameters
    ----------
    todo : iterable of (Recipe, str)
        Recipes with the names of the folds that they lack.
    retries : int
        How often a trial that did not settle (it crashed, or ran out of memory) is tried again; never one that failed
        by its data.
    done : int
        Trials of the grid that are in the ledger already.
    kind : TrialKind or None
        What the trials are run for; None where each recipe says it (`TrialKind.of`).

    Notes
    -----
    A worker gets what its compiled model can take while there is any, else that of which most is waiting for each
    worker that is at it. A trial is tried again after those that wait.
    """

    def __init__(
        self, todo: Iterable[tuple[Recipe, str]], retries: int, done: int = 0, kind: TrialKind | None = None
    ) -> None:
        self._waiting: dict[Signature, deque[Assignment]] = {}
        for recipe, fold in todo:
            self._wait(Assignment(recipe, fold, kind=kind or TrialKind.of(recipe)))
        self._running: dict[tuple[str, str], Signature] = {}
        self._retries = retries
        self._total = sum(map(len, self._waiting.values())) + done

    @property
    def at_most(self) -> int:
        """Number of trials that will have been done at the end."""
        return self._total

    def ask(self, warm: Signature | None = None, has_room: HasRoom = any_recipe) -> Assignment | None:
        """Take the next assignment.

        Parameters
        ----------
        warm : tuple or None
            Signature of what the worker that will take it has compiled.
        has_room : callable
            Whether a trial of a recipe could be begun now.

        Returns
        -------
        Assignment or None
            None while all that is left is running or has no room.
        """
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
        """Take note of how an assignment ended.

        Parameters
        ----------
        assignment : Assignment
            As `ask` gave it.
        result : Result
            How it ended.

        Returns
        -------
        bool
            True where no further attempt follows.
        """
        self._running.pop(assignment.key)
        if result.is_settled or result.recurs or assignment.attempt > self._retries:
            return True
        self._wait(replace(assignment, attempt=assignment.attempt + 1))
        return False

    @property
    def finished(self) -> bool:
        """Whether every trial has ended for good."""
        return not any(self._waiting.values()) and not self._running

    def _wait(self, assignment: Assignment) -> None:
        self._waiting.setdefault(assignment.recipe.signature, deque()).append(assignment)
