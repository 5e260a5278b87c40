"""Match the assignments of a plan with the trials of Ray Tune. Ray itself is not needed here."""

import time
from collections.abc import Callable
from typing import Any

import pandas as pd

from moa_ray.execution.callbacks import TrialCallback
from moa_ray.execution.capacity import Capacity, Demand, Slots
from moa_ray.search.plan import Assignment, Plan, Signature
from moa_ray.tracking.results import Result, Status

_ASK_EVERY = 2.0  # seconds before the capacity of the cluster is asked again


class Conductor:
    """Match the plan's assignments with Tune's trials, and tell the callbacks of them.

    Parameters
    ----------
    plan : Plan
        Says which trial runs next, and is told how it ended.
    slots : Slots
        What each trial gets, and how many may run at once.
    callbacks : list of TrialCallback
        Told of each trial, in this order.
    ask_capacity : callable
        Returns what the cluster has now.

    Attributes
    ----------
    assignments : dict of str to Assignment
        The trials that run or wait, by Tune's id.
    started : set of str
        Tune's ids of those that have a worker.
    """

    def __init__(
        self, plan: Plan, slots: Slots, callbacks: list[TrialCallback], ask_capacity: Callable[[], Capacity]
    ) -> None:
        self.plan, self.slots, self.callbacks = plan, slots, callbacks
        self.assignments: dict[str, Assignment] = {}
        # Those of them for which there is a worker.
        self.started: set[str] = set()
        # The compiled model of the worker that Tune keeps for the next trial: the one that became free first.
        self._free: Signature | None = None
        self._histories: dict[str, list[dict[str, Any]]] = {}
        self._ask_capacity = ask_capacity
        self._capacity, self._asked = Capacity(()), float("-inf")

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its settings for a restore that is never made."""
        return {}

    def ask(self, trial_id: str) -> Assignment | None:
        """Return the assignment for the next of Tune's trials.

        Parameters
        ----------
        trial_id : str
            Tune's id of the trial.

        Returns
        -------
        Assignment or None
            None where the plan has none to give now, or the cluster has no room for it.
        """
        room = {demand for demand in self.slots.demands if self._has_room(demand)}
        if not room:  # a plan that is asked may propose
            return None
        assignment = self.plan.ask(self._free, lambda recipe: self.slots.of(recipe.backbone) in room)
        if assignment is not None:
            self.assignments[trial_id] = assignment
            self._free = None
        return assignment

    def _has_room(self, demand: Demand) -> bool:
        if time.monotonic() - self._asked > _ASK_EVERY:
            self._capacity, self._asked = self._ask_capacity(), time.monotonic()
        begun = [self.demand(assignment) for assignment in self.assignments.values()]
        return self.slots.may_begin(self._capacity, begun, demand)

    def demand(self, assignment: Assignment) -> Demand:
        """Return what a trial requests.

        Parameters
        ----------
        assignment : Assignment
            The trial.

        Returns
        -------
        Demand
            By its backbone.
        """
        return self.slots.of(assignment.recipe.backbone)

    @property
    def waiting(self) -> list[Demand]:
        """What the trials request that have no worker, and what none may request since no node has it."""
        waiting = [trial for trial_id, trial in self.assignments.items() if trial_id not in self.started]
        demands = set(map(self.demand, waiting))
        return [*demands, *(other for other in self.slots.demands - demands if not self._capacity.fits(other))]

    def epoch(self, trial_id: str, epoch: dict[str, Any]) -> None:
        """Keep an epoch of a trial, and tell the callbacks of it.

        Parameters
        ----------
        trial_id : str
            Tune's id of the trial.
        epoch : dict of str to Any
            Its figures.
        """
        self._histories.setdefault(trial_id, []).append(epoch)
        for callback in self.callbacks:
            callback.epoch(self.assignments[trial_id], epoch)

    def stop(self, trial_id: str) -> None:
        """End a trial that the scheduler stopped; what it did so far is known here alone.

        Parameters
        ----------
        trial_id : str
            Tune's id of the trial.
        """
        history = pd.DataFrame(self._histories[trial_id])
        self.end(trial_id, "stopped", history=history, epochs=len(history), seconds=float(history["seconds"].sum()))

    def end(self, trial_id: str, status: Status, lost: bool = False, **details: Any) -> None:
        """Tell the plan and the callbacks how a trial ended.

        Parameters
        ----------
        trial_id : str
            Tune's id of the trial.
        status : str
            How it ended, as `Result.status`.
        lost : bool
            Whether its worker has ended too.
        **details : Any
            Further fields of `Result`.
        """
        self._histories.pop(trial_id, None)
        assignment = self.assignments.pop(trial_id)
        self.started.discard(trial_id)
        if not lost and self._free is None:
            self._free = assignment.recipe.signature
        candidate, fold = assignment.key
        recipe = assignment.recipe.as_dict()
        result = Result(candidate, fold, status, recipe, assignment.kind, assignment.attempt, **details)
        final = self.plan.tell(assignment, result)
        for callback in self.callbacks:
            callback.ended(result, final)
