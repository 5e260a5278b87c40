"""Where a candidate stands in the race."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moa_ray.search.plan import Assignment
from moa_ray.tracking.results import Proposal, Status, TrialKind

State = Literal["running", "waiting", "stopped", "failed", "complete"]


@dataclass(frozen=True)
class Standing:
    """Where a candidate stands in the race.

    Attributes
    ----------
    proposal : Proposal
        The candidate.
    state : {"running", "waiting", "stopped", "failed", "complete"}
        ``waiting`` may still go on; ``complete`` did all search folds.
    losses : tuple of float
        On the search folds that it finished, in the race's order; lower is better.
    why : str
        Where and why it was stopped; empty while it was not.
    """

    proposal: Proposal
    state: State
    losses: tuple[float, ...]
    why: str


Propose = Callable[[Sequence[Standing]], Proposal | None]


@dataclass(eq=False)
class Runner:
    """What a race notes of one candidate.

    Attributes
    ----------
    proposal : Proposal
        The candidate.
    rung : int
        Index of the rung that it has been let on to.
    losses : dict of str to float
        Its loss on each search fold that it finished.
    ended : dict of str to Status
        How its trials ended, by fold, confirm folds included.
    running : set of str
        Folds that it is on.
    out : str
        Why it gets no more folds; empty while it may.
    means : dict of int to float
        By a number of folds, its mean loss over so many first search folds, kept since a candidate is ranked again
        with each trial's end.
    """

    proposal: Proposal
    rung: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    ended: dict[str, Status] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    out: str = ""
    means: dict[int, float] = field(default_factory=dict)

    def assignment(self, fold: str, stoppable: bool = False) -> Assignment:
        """Begin a fold.

        Parameters
        ----------
        fold : str
            Name of the fold.
        stoppable : bool
            Whether the trial may be stopped at an epoch.

        Returns
        -------
        Assignment
            The first attempt; the fold counts as running from now on.
        """
        self.running.add(fold)
        recipe = self.proposal.recipe
        return Assignment(recipe, fold, stoppable=stoppable, kind=TrialKind.of(recipe))

    def over(self, folds: Sequence[str]) -> NDArray[np.float64]:
        """Return the losses on some folds.

        Parameters
        ----------
        folds : sequence of str
            Folds that it finished.

        Returns
        -------
        ndarray of float64, shape (n_folds,)
        """
        return np.array([self.losses[fold] for fold in folds])

    def mean(self, folds: Sequence[str]) -> float | None:
        """Return the mean loss over the first search folds.

        Parameters
        ----------
        folds : sequence of str
            So many first search folds.

        Returns
        -------
        float or None
            None while one of them is not finished.
        """
        if len(folds) not in self.means and all(fold in self.losses for fold in folds):
            self.means[len(folds)] = float(self.over(folds).mean())
        return self.means.get(len(folds))
