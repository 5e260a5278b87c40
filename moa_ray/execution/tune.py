"""Trials on Ray Tune.

The driver asks a plan for assignments, Ray Tune gives each to a worker that fits one recipe on one fold, and the driver
takes what the worker returns. Workers write nothing; Tune's own snapshots are not used, the ledger is what is read.
"""

import dataclasses
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

# Ray reads these when it is imported. Nothing of Tune's own is worth a file, a table or a report on the terminal.
os.environ |= {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "RAY_AIR_NEW_OUTPUT": "0",
}

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from moa_ray import cluster
from moa_ray.capacity import Capacity, Demand, Slots, Watch
from moa_ray.ledger import Result, Status
from moa_ray.race import Assignment, Plan, Signature
from moa_ray.recipe import Recipe
from moa_ray.spec import Asha
from moa_ray.worker import EPOCH, OUTCOME, Bench, Worker

_NEVER = 10**9  # epochs
_MANY = 10**6  # trials
_KNOWN_FOR = 2.0  # seconds for which what a cluster has is taken for known


class Listener(Protocol):
    """Who wants to know how the trials go, on the driver."""

    def started(self, assignment: Assignment) -> None:
        """A worker has begun."""

    def epoch(self, assignment: Assignment, epoch: Mapping[str, Any]) -> None:
        """An epoch is done."""

    def ended(self, result: Result, final: bool) -> None:
        """An attempt has ended; `final` where no further attempt follows."""


def trainable(bench: Bench, recipes: list[Recipe]) -> Any:
    """What Tune runs: recipes on folds, with all that they need within reach of every node.

    recipes : one for each set of pretrained weights that may be asked for
    Raises ValueError where pretrained weights cannot be had.
    """
    weights = cluster.share_pretrained(recipes)
    paths = [*bench.material.tiles.values(), *bench.features.values()]
    files = {} if cluster.is_alone() else cluster.share_files(paths)
    return tune.with_parameters(FoldTrainable, bench=bench, files=files, weights=weights)


def run(
    plan: Plan,
    trainable: Any,
    slots: Slots,
    listeners: list[Listener],
    scheduler: TrialScheduler | None = None,
    watch: Watch | None = None,
) -> None:
    """Run a plan to its end, telling the listeners; what a trial does wrong is its own result, not an exception here.

    As many trials run as the cluster holds at the time, and no more wait than make an autoscaler add nodes.

    scheduler : which trials stop at an epoch; by default none
    watch : told of trials that no node can hold, and may end the waiting
    """
    for name in ("ray.tune", "ray.train", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    conductor = _Conductor(plan, slots, listeners, watch.capacity if watch else cluster.capacity)
    with tempfile.TemporaryDirectory(prefix="moa_ray-tune-") as scratch:
        tune.Tuner(
            tune.with_resources(trainable, lambda config: tune.PlacementGroupFactory([config["resources"]])),
            tune_config=tune.TuneConfig(
                search_alg=_Asker(conductor),
                scheduler=scheduler or InOrder(),
                num_samples=-1,
                max_concurrent_trials=_MANY,  # the conductor says when there is room, here a number must stand
                reuse_actors=True,
                trial_dirname_creator=_folder,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=scratch,
                verbose=0,
                callbacks=[_Taker(conductor, watch)],
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        ).fit()
    assert plan.finished, "Tune ended before the plan did"


def _folder(trial: Trial) -> str:
    """The name of a trial's folder, which stays empty. By itself Tune puts every hyperparameter into it."""
    return str(trial.trial_id)


class InOrder(FIFOScheduler):  # type: ignore[misc]
    """Trials run in the order in which the plan gives them, and none is stopped."""

    def choose_trial_to_run(self, tune_controller: Any, **given: Any) -> Trial | None:
        """None: Tune begins those that wait by itself. To one that is chosen it gives the next worker that is free, and
        ends the one that is starting for it: a node that joins would serve only once no trial ends while it starts.
        """
        return None


class FoldAsha(InOrder):
    """ASHA for each fold by itself: a trial is compared with trials of the same fold only.

    Folds differ in difficulty: an easy one would set the cut-off for all. Only trials that the plan calls stoppable are
    compared at all. What is compared is the loss on the validation wells.
    """

    def __init__(self, settings: Asha) -> None:
        super().__init__()
        self._settings = settings
        self._folds: dict[str, AsyncHyperBandScheduler] = {}

    def replay(self, trials: Iterable[tuple[str, str, pd.DataFrame, bool]]) -> None:
        """Take note of what an earlier start left in the ledger, in the order in which it was begun.

        trials : candidate, fold, history, whether it was trained to its end
        """
        for candidate, fold, history, whole in trials:
            trial = Trial(
                "replayed", stub=True, trial_id=f"{candidate} {fold}", config={"fold": fold, "stoppable": True}
            )
            self.on_trial_add(None, trial)
            results = [{EPOCH + "/" + name: value for name, value in row.items()} for row in history.to_dict("records")]
            for result in results[:-1] if whole else results:
                self.on_trial_result(None, trial, result)
            if whole:
                self.on_trial_complete(None, trial, results[-1])
            else:
                self.on_trial_remove(None, trial)

    def on_trial_add(self, controller: Any, trial: Trial) -> None:
        if self._concerns(trial):
            self._of(trial).on_trial_add(controller, trial)

    def on_trial_result(self, controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if not self._concerns(trial):
            return str(TrialScheduler.CONTINUE)
        return str(self._of(trial).on_trial_result(controller, trial, result))

    def on_trial_complete(self, controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        if self._concerns(trial):
            self._of(trial).on_trial_complete(controller, trial, result)

    def on_trial_remove(self, controller: Any, trial: Trial) -> None:
        if self._concerns(trial):
            self._of(trial).on_trial_remove(controller, trial)

    def on_trial_error(self, controller: Any, trial: Trial) -> None:
        if self._concerns(trial):
            self._of(trial).on_trial_error(controller, trial)

    def _concerns(self, trial: Trial) -> bool:
        return bool(trial.config["stoppable"])

    def _of(self, trial: Trial) -> AsyncHyperBandScheduler:
        fold = trial.config["fold"]
        if fold not in self._folds:
            self._folds[fold] = AsyncHyperBandScheduler(
                time_attr=f"{EPOCH}/epoch",
                metric=f"{EPOCH}/validation_loss",
                mode="min",
                max_t=_NEVER,
                grace_period=self._settings.grace_epochs,
                reduction_factor=self._settings.reduction_factor,
            )
        return self._folds[fold]


class FoldTrainable(tune.Trainable):  # type: ignore[misc]
    """One recipe on one fold; one step is one epoch, or all of a head. The last one predicts the held-out tiles."""

    def setup(
        self, config: dict[str, Any], bench: Bench, files: Mapping[Path, Any], weights: Mapping[Any, Any]
    ) -> None:
        """Begin the process that trains, with as many threads as this worker has CPUs."""
        cpus, gpus = (config["resources"].get(name, 0) for name in ("CPU", "GPU"))
        here = {size: cluster.on_this_node(path, files) for size, path in bench.material.tiles.items()}
        features = {key: cluster.on_this_node(path, files) for key, path in bench.features.items()}
        material = dataclasses.replace(bench.material, tiles=here)
        bench = dataclasses.replace(bench, material=material, features=features, cpus=max(1, int(cpus)), gpus=gpus)
        self._worker = Worker(bench, lambda *key: list(ray.get(weights[key])))
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial; the compiled model stays where the recipe can take it."""
        recipe = Recipe.from_dict(new_config["recipe"])
        # A head is trained in less time than Tune takes to hear of its epochs, unless it has to.
        self._worker.start(recipe, new_config["fold"], recipe.freeze == "all" and not new_config["stoppable"])
        return True

    def step(self) -> dict[str, Any]:
        """One epoch. What goes wrong is returned, so that the driver learns which kind it was."""
        result = self._worker.step()
        return {**result, OUTCOME: _Quiet(result[OUTCOME]), "done": True} if OUTCOME in result else result

    def cleanup(self) -> None:
        """End the process with the worker."""
        self._worker.close()


class _Quiet(dict[str, Any]):
    """Values that are not spelled out: Tune makes log lines of every result, and drops them only then."""

    def __repr__(self) -> str:
        return "..."


class _Conductor:
    """Brings the plan's assignments together with Tune's trials."""

    def __init__(
        self, plan: Plan, slots: Slots, listeners: list[Listener], ask_capacity: Callable[[], Capacity]
    ) -> None:
        self.plan, self.slots, self.listeners = plan, slots, listeners
        self.assignments: dict[str, Assignment] = {}
        # Those of them for which there is a worker.
        self.started: set[str] = set()
        # What the worker has compiled that Tune keeps for the next trial: the one that became free first.
        self._free: Signature | None = None
        self._histories: dict[str, list[dict[str, Any]]] = {}
        self._ask_capacity = ask_capacity
        self._capacity, self._asked = Capacity(()), float("-inf")

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its settings for a restore that we never make."""
        return {}

    def ask(self, trial_id: str) -> Assignment | None:
        """The assignment for the next of Tune's trials; None where there is none, or no room for it."""
        room = {kind for kind in self.slots.kinds if self._has_room(kind)}
        if not room:  # a plan that is asked may propose
            return None
        assignment = self.plan.ask(self._free, lambda recipe: self.slots.of(recipe.backbone) in room)
        if assignment is not None:
            self.assignments[trial_id] = assignment
            self._free = None
        return assignment

    def _has_room(self, kind: Demand) -> bool:
        if time.monotonic() - self._asked > _KNOWN_FOR:
            self._capacity, self._asked = self._ask_capacity(), time.monotonic()
        return self.slots.may_begin(self._capacity, list(map(self.demand, self.assignments.values())), kind)

    def demand(self, assignment: Assignment) -> Demand:
        """What a trial asks for."""
        return self.slots.of(assignment.recipe.backbone)

    @property
    def waiting(self) -> list[Demand]:
        """What trials ask for that have no worker, and what none may ask for since no node has it."""
        held_up = {self.demand(one) for trial_id, one in self.assignments.items() if trial_id not in self.started}
        return [*held_up, *(kind for kind in self.slots.kinds - held_up if not self._capacity.fits(kind))]

    def epoch(self, trial_id: str, epoch: dict[str, Any]) -> None:
        self._histories.setdefault(trial_id, []).append(epoch)
        for listener in self.listeners:
            listener.epoch(self.assignments[trial_id], epoch)

    def stop(self, trial_id: str) -> None:
        """The scheduler ended it; what it did so far is known here alone."""
        history = pd.DataFrame(self._histories[trial_id])
        self.end(trial_id, "stopped", history=history, epochs=len(history), seconds=float(history["seconds"].sum()))

    def end(self, trial_id: str, status: Status, lost: bool = False, **details: Any) -> None:
        """A trial has ended; `lost` where its worker has too."""
        self._histories.pop(trial_id, None)
        assignment = self.assignments.pop(trial_id)
        self.started.discard(trial_id)
        if not lost and self._free is None:
            self._free = assignment.recipe.signature
        candidate, fold = assignment.key
        recipe = assignment.recipe.as_dict()
        result = Result(candidate, fold, status, recipe, attempts=assignment.attempt, **details)
        final = self.plan.tell(assignment, result)
        for listener in self.listeners:
            listener.ended(result, final)


class _Asker(Searcher):  # type: ignore[misc]
    """Tune's searcher interface over a plan."""

    def __init__(self, conductor: _Conductor) -> None:
        super().__init__()
        self._conductor = conductor

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        assignment = self._conductor.ask(trial_id)
        if assignment is None:
            return str(Searcher.FINISHED) if self._conductor.plan.finished else None
        return {
            "recipe": assignment.recipe.as_dict(),
            "fold": assignment.fold,
            "stoppable": assignment.stoppable,
            "resources": self._conductor.demand(assignment).amounts,
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: `_Taker` has the outcome, which Tune does not pass on here."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is what a restart reads."""


class _Taker(tune.Callback):  # type: ignore[misc]
    """Takes outcomes out of Tune's results on the driver."""

    def __init__(self, conductor: _Conductor, watch: Watch | None) -> None:
        self._conductor, self._watch = conductor, watch

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as of the conductor."""
        return {}

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        if self._watch is not None:
            self._watch.look(self._conductor.waiting, idle=not self._conductor.started)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._conductor.started.add(trial.trial_id)
        for listener in self._conductor.listeners:
            listener.started(self._conductor.assignments[trial.trial_id])

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        # The driver takes the outcome out before Tune keeps it.
        outcome = result.pop(OUTCOME, None)
        if EPOCH in result:
            self._conductor.epoch(trial.trial_id, result[EPOCH])
        if outcome is not None:
            self._conductor.end(trial.trial_id, **outcome)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if trial.trial_id in self._conductor.assignments:
            self._conductor.stop(trial.trial_id)
        _forget(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        # The worker itself was lost: the node died, the machine ran out of memory, or its set-up failed.
        text = str(trial.get_error() or "the worker was lost")
        if trial.trial_id in self._conductor.assignments:
            status: Status = "out_of_memory" if "OutOfMemory" in text else "crashed"
            self._conductor.end(trial.trial_id, status, lost=True, error=text)
        _forget(trial)


def _forget(trial: Trial) -> None:
    """Tune keeps every trial to the end, with the statistics of every number that it returned; they are most of it."""
    trial.metric_analysis.clear()
    trial.metric_n_steps.clear()
    trial.run_metadata.last_result.pop("config", None)
