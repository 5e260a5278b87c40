"""Run trials on Ray Tune.

The driver asks a plan for assignments, Ray Tune gives each to a worker that fits one recipe on one fold, and the driver
takes what the worker returns. Workers write nothing; Tune's own snapshots are not used, the ledger is what is read.
"""

import dataclasses
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from moa_ray.config.recipe import Recipe
from moa_ray.execution import cluster, sharing
from moa_ray.execution.callbacks import TrialCallback
from moa_ray.execution.capacity import Slots
from moa_ray.execution.conductor import Conductor
from moa_ray.execution.fold_asha import InOrder
from moa_ray.execution.trial_data import EPOCH, OUTCOME, WorkerSettings
from moa_ray.execution.watch import Watch
from moa_ray.execution.worker import Worker
from moa_ray.search.plan import Plan
from moa_ray.tracking.results import Status

# Ray reads these when it is imported. Nothing of Tune's own is worth a file, a table or a report on the terminal.
os.environ |= {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "RAY_AIR_NEW_OUTPUT": "0",
}
_MANY = 10**6  # trials


def trainable(settings: WorkerSettings, recipes: list[Recipe]) -> Any:
    """Return the trainable class that Tune runs, with all that it needs within reach of every node.

    Parameters
    ----------
    settings : WorkerSettings
        What the training processes work with.
    recipes : list of Recipe
        One for each set of pretrained weights that may be asked for.

    Returns
    -------
    type
        `FoldTrainable` with its parameters.

    Raises
    ------
    InputError
        If pretrained weights cannot be read.
    """
    weights = sharing.share_pretrained(recipes)
    paths = [*settings.trial_data.tiles.values(), *settings.features.values()]
    files = {} if cluster.is_alone() else sharing.share_files(paths)
    return tune.with_parameters(FoldTrainable, settings=settings, files=files, weights=weights)


def run(
    plan: Plan,
    trainable: Any,
    slots: Slots,
    callbacks: list[TrialCallback],
    scheduler: TrialScheduler | None = None,
    watch: Watch | None = None,
) -> None:
    """Run a plan to its end; a trial that fails is a result, not an exception here.

    As many trials run as the cluster holds at the time, and no more wait than make an autoscaler add nodes.

    Parameters
    ----------
    plan : Plan
        Says which trial runs next, and is told how it ended.
    trainable : type
        What `trainable` returned.
    slots : Slots
        What each trial gets, and how many may run at once.
    callbacks : list of TrialCallback
        Told of each trial, in this order.
    scheduler : TrialScheduler, optional
        Says which trials stop at an epoch; by default none does.
    watch : Watch, optional
        Told of trials that no node can hold; may end the waiting.

    Raises
    ------
    StuckError
        If the watch ends the waiting.
    """
    for name in ("ray.tune", "ray.train", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    conductor = Conductor(plan, slots, callbacks, watch.capacity if watch else cluster.capacity)
    with tempfile.TemporaryDirectory(prefix="moa_ray-tune-") as scratch:
        tune.Tuner(
            tune.with_resources(trainable, lambda config: tune.PlacementGroupFactory([config["resources"]])),
            tune_config=tune.TuneConfig(
                search_alg=_PlanSearcher(conductor),
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
                callbacks=[_OutcomeCallback(conductor, watch)],
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        ).fit()
    assert plan.finished, "Tune ended before the plan did"


def _folder(trial: Trial) -> str:
    """Return the name of a trial's folder, which stays empty; by itself Tune puts every hyperparameter into it."""
    return str(trial.trial_id)


class FoldTrainable(tune.Trainable):  # type: ignore[misc]
    """Train one recipe on one fold; one step is one epoch, or all of a linear probe, and the last one predicts."""

    def setup(
        self, config: dict[str, Any], settings: WorkerSettings, files: Mapping[Path, Any], weights: Mapping[Any, Any]
    ) -> None:
        """Start the training process, with as many threads as this worker has CPUs.

        Parameters
        ----------
        config : dict of str to Any
            The first trial, as `_PlanSearcher.suggest` makes it.
        settings : WorkerSettings
            What the process works with, with the driver's files.
        files : mapping of Path to ObjectRef
            The arrays of these files, for nodes that do not see them.
        weights : mapping of tuple to ObjectRef
            The pretrained weights by backbone, weights and image size.
        """
        cpus, gpus = (config["resources"].get(name, 0) for name in ("CPU", "GPU"))
        tiles = {size: sharing.on_this_node(path, files) for size, path in settings.trial_data.tiles.items()}
        features = {key: sharing.on_this_node(path, files) for key, path in settings.features.items()}
        trial_data = dataclasses.replace(settings.trial_data, tiles=tiles)
        settings = dataclasses.replace(
            settings, trial_data=trial_data, features=features, cpus=max(1, int(cpus)), gpus=gpus
        )
        self._worker = Worker(settings, lambda *key: list(ray.get(weights[key])))
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial; the compiled model stays where the recipe can take it.

        Parameters
        ----------
        new_config : dict of str to Any
            The trial.

        Returns
        -------
        bool
            True: Tune need not start another worker.
        """
        recipe = Recipe.from_dict(new_config["recipe"])
        # A head is trained in less time than Tune takes to hear of its epochs, unless it has to.
        self._worker.start(recipe, new_config["fold"], recipe.is_linear_probe and not new_config["stoppable"])
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch; what goes wrong is returned, so that the driver learns which kind of failure it was.

        Returns
        -------
        dict of str to Any
            What `Worker.step` returns, and ``done`` with the last one.
        """
        result = self._worker.step()
        return {**result, OUTCOME: _Unprinted(result[OUTCOME]), "done": True} if OUTCOME in result else result

    def cleanup(self) -> None:
        """End the training process with the worker."""
        self._worker.close()


class _Unprinted(dict[str, Any]):
    """Values that are not printed: Tune makes log lines of every result, and drops them only then."""

    def __repr__(self) -> str:
        return "..."


class _PlanSearcher(Searcher):  # type: ignore[misc]
    """Tune's searcher interface over a plan."""

    def __init__(self, conductor: Conductor) -> None:
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
        """Do nothing: `_OutcomeCallback` has the outcome, which Tune does not pass on here."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the ledger is what a restart reads."""


class _OutcomeCallback(tune.Callback):  # type: ignore[misc]
    """Take outcomes out of Tune's results on the driver."""

    def __init__(self, conductor: Conductor, watch: Watch | None) -> None:
        self._conductor, self._watch = conductor, watch

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing, as the conductor does."""
        return {}

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        if self._watch is not None:
            self._watch.look(self._conductor.waiting, idle=not self._conductor.started)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._conductor.started.add(trial.trial_id)
        for callback in self._conductor.callbacks:
            callback.started(self._conductor.assignments[trial.trial_id])

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
    """Drop what Tune keeps of every trial to the end: the statistics of every number that it returned."""
    trial.metric_analysis.clear()
    trial.metric_n_steps.clear()
    trial.run_metadata.last_result.pop("config", None)
