"""The protocol of plans: which trial runs next.

A plan is asked for assignments and told how they ended; it knows nothing of Ray, nor of where recipes come from.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from moa_ray.config.recipe import Recipe
from moa_ray.tracking.results import Result, TrialKind

Signature = tuple[Any, ...]  # see `Recipe.signature`
HasRoom = Callable[[Recipe], bool]


@dataclass(frozen=True)
class Assignment:
    """One attempt at one trial: a recipe on a fold.

    Attributes
    ----------
    recipe : Recipe
        The hyperparameters.
    fold : str
        Name of the fold.
    attempt : int
        Number of the attempt; the first is 1.
    stoppable : bool
        Whether the trial may be stopped at an epoch where it is worse than others of its fold.
    kind : TrialKind
        What the trial is run for.
    """

    recipe: Recipe
    fold: str
    attempt: int = 1
    stoppable: bool = False
    kind: TrialKind = TrialKind.CANDIDATE

    @property
    def key(self) -> tuple[str, str]:
        """Candidate and fold, the key of the trial."""
        return self.recipe.candidate, self.fold


def any_recipe(recipe: Recipe) -> bool:
    """Tell that there is room for any recipe.

    Parameters
    ----------
    recipe : Recipe
        Not looked at.

    Returns
    -------
    bool
        True.
    """
    return True


class Plan(Protocol):
    """What `moa_ray.execution.tune` asks of a search."""

    def ask(self, warm: Signature | None = None, has_room: HasRoom = any_recipe) -> Assignment | None:
        """Take the next assignment.

        Parameters
        ----------
        warm : tuple or None
            Signature of what the worker that will take it has compiled; the worker keeps that as long as others can
            take the rest.
        has_room : callable
            Whether a trial of a recipe could be begun now; while nothing runs, one of any recipe could.

        Returns
        -------
        Assignment or None
            None while there is none to give, or none that has room.
        """

    def tell(self, assignment: Assignment, result: Result) -> bool:
        """Take note of how an assignment ended.

        Parameters
        ----------
        assignment : Assignment
            As `ask` gave it.
        result : Result
            How it ended, with its predictions.

        Returns
        -------
        bool
            True where that is final and no further attempt follows.
        """

    @property
    def finished(self) -> bool:
        """Whether no assignment will be given any more."""

    @property
    def at_most(self) -> int:
        """Upper bound of the number of trials that will have been done at the end."""
