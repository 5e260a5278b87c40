"""Which candidate runs on which fold next.

A plan is asked for assignments and told how they ended; it knows nothing of Ray. `Grid` runs everything and stops
nothing. A plan that races candidates answers the same three questions.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from moa_ray.ledger import SETTLED, Status
from moa_ray.recipe import Recipe


@dataclass(frozen=True)
class Assignment:
    """One attempt at one trial: a recipe on a fold. The first attempt has number 1."""

    recipe: Recipe
    fold: str
    attempt: int = 1

    @property
    def key(self) -> tuple[str, str]:
        """(candidate, fold)"""
        return self.recipe.candidate, self.fold


class Plan(Protocol):
    """What `moa_ray.tuning` asks of a search."""

    def ask(self) -> Assignment | None:
        """The next assignment, or None while there is none to give."""

    def tell(self, assignment: Assignment, status: Status) -> bool:
        """Take note of how an assignment ended; True where that is final and no further attempt follows."""

    @property
    def finished(self) -> bool:
        """Whether nothing will be asked any more."""


class Grid:
    """Every recipe on every fold, recipe by recipe, so that a worker keeps its compiled model as long as it can.

    A trial that did not settle (it crashed, or ran out of memory) is tried again at the end, at most `retries` times.
    """

    def __init__(self, todo: Iterable[tuple[Recipe, str]], retries: int) -> None:
        self._waiting = deque(Assignment(recipe, fold) for recipe, fold in todo)
        self._running: set[tuple[str, str]] = set()
        self._retries = retries

    def ask(self) -> Assignment | None:
        """The next assignment, or None while all that is left is running."""
        if not self._waiting:
            return None
        assignment = self._waiting.popleft()
        self._running.add(assignment.key)
        return assignment

    def tell(self, assignment: Assignment, status: Status) -> bool:
        """Take note of how an assignment ended; True where no further attempt follows."""
        self._running.remove(assignment.key)
        if status in SETTLED or assignment.attempt > self._retries:
            return True
        self._waiting.append(Assignment(assignment.recipe, assignment.fold, assignment.attempt + 1))
        return False

    @property
    def finished(self) -> bool:
        """Whether every trial has ended for good."""
        return not self._waiting and not self._running
