"""Trials on Ray Tune: the only file that imports Ray.

The driver asks a plan for assignments, Ray Tune gives each to a worker that fits one recipe on one fold, and the driver
takes what the worker returns. Workers write nothing; Tune's own snapshots are not used, the ledger is what is read.
"""

import contextlib
import dataclasses
import functools
import logging
import os
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd

# Ray reads these when it is imported. Nothing of Tune's own is worth a file, a table or a report on the terminal.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
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
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from moa_ray.ledger import Result, Status
from moa_ray.race import Assignment, Plan
from moa_ray.recipe import Recipe
from moa_ray.spec import Asha
from moa_ray.study import Material
from moa_ray.tables import BACKBONE, CANDIDATE, FOLD, metadata_columns, probability_column

# A trial that ends leaves this in Tune's last result; the driver takes it out before Tune keeps it.
_OUTCOME = "outcome"
# What each result says of its epoch; Tune adds much of its own beside it.
_EPOCH = "epoch"
_NEVER = 10**9  # epochs


class Listener(Protocol):
    """Who wants to know how the trials go, on the driver."""

    def started(self, assignment: Assignment) -> None:
        """A worker has begun."""

    def epoch(self, assignment: Assignment, epoch: Mapping[str, Any]) -> None:
        """An epoch is done."""

    def ended(self, result: Result, final: bool) -> None:
        """An attempt has ended; `final` where no further attempt follows."""


@dataclass(frozen=True)
class Slots:
    """What each trial gets and how many run at once."""

    cpus: float
    gpus: float
    concurrent: int


@contextlib.contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Ray: the cluster at an address, or one of this machine alone that ends with the block."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true", "PYTHONWARNINGS": "ignore"}
    address = address or os.environ.get("RAY_ADDRESS") or "local"  # Ray sets the variable for submitted jobs
    local = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address, runtime_env={"env_vars": environment}, **quiet, **local)
    except ConnectionError as error:
        raise ValueError(f"--address {address}: no Ray cluster answers there: {error}") from None
    for name in ("ray.tune", "ray.train", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        ray.shutdown()


def slots(
    cpus: int | Literal["auto"], gpus: float | Literal["auto"], concurrent: int | None, open_cluster: bool
) -> Slots:
    """What each trial gets: one GPU where the cluster has any, else CPUs alone.

    Raises ValueError where this machine alone can never hold a trial; a cluster may still grow.
    """
    have = ray.cluster_resources()
    all_cpus, all_gpus = have.get("CPU", 1.0), have.get("GPU", 0.0)
    gpus = (1.0 if all_gpus else 0.0) if gpus == "auto" else gpus
    if cpus == "auto":
        # With GPUs the CPUs are shared out among them. Without, few CPUs a trial are best: small steps scale badly.
        cpus = max(1, int(all_cpus * gpus / all_gpus)) if gpus and all_gpus else max(1, int(all_cpus) // 8)
    for name, asked, available in (("gpus", gpus, all_gpus), ("cpus", cpus, all_cpus)):
        if asked > available and not open_cluster:
            raise ValueError(f"resources.{name}: each trial asks for {asked:g}, but this machine has {available:g}")
    fit = int(all_cpus // cpus) if not gpus else int(min(all_cpus // cpus, all_gpus / gpus))
    return Slots(float(cpus), float(gpus), concurrent or max(1, fit))


def run(
    plan: Plan,
    material: Material,
    recipes: list[Recipe],
    slots: Slots,
    listeners: list[Listener],
    scheduler: TrialScheduler | None = None,
) -> None:
    """Run a plan to its end, telling the listeners; what a trial does wrong is its own result, not an exception here.

    recipes : one for each set of pretrained weights that the plan may ask for
    scheduler : which trials stop at an epoch; by default none
    Raises ValueError where pretrained weights cannot be had.
    """
    weights = _share_pretrained(recipes)
    arrays = _share_tiles(material) if len(ray.nodes()) > 1 else {}
    trainable = tune.with_parameters(FoldTrainable, material=material, arrays=arrays, weights=weights)
    conductor = _Conductor(plan, listeners)
    with tempfile.TemporaryDirectory(prefix="moa_ray-tune-") as scratch:
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": slots.cpus, "gpu": slots.gpus}),
            tune_config=tune.TuneConfig(
                search_alg=_Asker(conductor),
                scheduler=scheduler or FIFOScheduler(),
                num_samples=-1,
                max_concurrent_trials=slots.concurrent,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=scratch,
                verbose=0,
                callbacks=[_Taker(conductor)],
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        ).fit()
    assert plan.finished, "Tune ended before the plan did"


class FoldAsha(FIFOScheduler):  # type: ignore[misc]
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
            results = [
                {_EPOCH + "/" + name: value for name, value in row.items()} for row in history.to_dict("records")
            ]
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
                time_attr=f"{_EPOCH}/epoch",
                metric=f"{_EPOCH}/validation_loss",
                mode="min",
                max_t=_NEVER,
                grace_period=self._settings.grace_epochs,
                reduction_factor=self._settings.reduction_factor,
            )
        return self._folds[fold]


class FoldTrainable(tune.Trainable):  # type: ignore[misc]
    """One recipe on one fold; one step is one epoch, and the last one predicts the held-out tiles."""

    def setup(
        self, config: dict[str, Any], material: Material, arrays: Mapping[int, Any], weights: Mapping[Any, Any]
    ) -> None:
        """Import Keras with as many threads as this worker has CPUs, and open the tiles."""
        cpus = str(max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1))))
        os.environ |= {"OMP_NUM_THREADS": cpus, "TF_NUM_INTRAOP_THREADS": cpus, "TF_NUM_INTEROP_THREADS": "1"}
        from moa_ray.training import Data, Trainer

        self._material = material
        tiles = {size: _open_tiles(path, arrays.get(size)) for size, path in material.tiles.items()}
        data = Data(tiles=tiles, labels=material.labels(), classes=material.classes)
        self._new_trainer = functools.partial(Trainer, data, lambda *key: list(ray.get(weights[key])))
        self._trainer = self._new_trainer()
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial; the compiled model stays."""
        self._recipe = Recipe.from_dict(new_config["recipe"])
        self._fold = new_config["fold"]
        self._training: Any = None
        self._history: list[dict[str, Any]] = []
        self._seconds = 0.0
        return True

    def step(self) -> dict[str, Any]:
        """One epoch. What goes wrong is returned, so that the driver learns which kind it was."""
        from moa_ray.training import Diverged

        begun = time.monotonic()
        try:
            if self._training is None:
                self._begin()
            epoch = dataclasses.asdict(next(self._epochs))
            self._history.append(epoch)
            done = len(self._history) == self._recipe.epochs
            outcome = {"status": "finished", "predictions": self._predictions()} if done else None
        except Diverged as error:
            epoch, outcome = None, {"status": "diverged", "error": str(error)}
        except Exception as error:
            # A model that failed is not trusted with the next trial.
            self._trainer = self._new_trainer()
            status = "out_of_memory" if _is_out_of_memory(error) else "crashed"
            text = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
            epoch, outcome = None, {"status": status, "error": text}
        self._seconds += time.monotonic() - begun
        result = {_EPOCH: epoch} if epoch else {}
        if outcome is None:
            return result
        outcome |= {"history": pd.DataFrame(self._history), "seconds": self._seconds, "epochs": len(self._history)}
        return {**result, "done": True, _OUTCOME: outcome}

    def _begin(self) -> None:
        from moa_ray.training import Split

        rows = self._material.table["row"].to_numpy()
        positions = self._material.split(self._fold)
        self._test = self._material.table.iloc[positions["test"]]
        split = Split(**{part: rows[index] for part, index in positions.items()})
        self._training = self._trainer.start(self._recipe, split, self._material.seeds(self._fold))
        self._epochs = self._training.epochs()

    def _predictions(self) -> pd.DataFrame:
        """One row a held-out tile: its metadata, the fold, the candidate, and a probability for each label."""
        keys = self._test[metadata_columns(self._test)].reset_index(drop=True)
        names = {FOLD: self._fold, CANDIDATE: self._recipe.candidate, BACKBONE: self._recipe.backbone}
        probabilities = pd.DataFrame(
            self._training.predict(self._test["row"].to_numpy()),
            columns=[probability_column(label) for label in self._material.classes],
        )
        return pd.concat([keys.assign(**names), probabilities], axis=1)


class _Conductor:
    """Brings the plan's assignments together with Tune's trials."""

    def __init__(self, plan: Plan, listeners: list[Listener]) -> None:
        self.plan = plan
        self.listeners = listeners
        self.assignments: dict[str, Assignment] = {}
        self._histories: dict[str, list[dict[str, Any]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its settings for a restore that we never make."""
        return {}

    def epoch(self, trial_id: str, epoch: dict[str, Any]) -> None:
        self._histories.setdefault(trial_id, []).append(epoch)
        for listener in self.listeners:
            listener.epoch(self.assignments[trial_id], epoch)

    def stop(self, trial_id: str) -> None:
        """The scheduler ended it; what it did so far is known here alone."""
        history = pd.DataFrame(self._histories[trial_id])
        self.end(trial_id, "stopped", history=history, epochs=len(history), seconds=float(history["seconds"].sum()))

    def end(self, trial_id: str, status: Status, **details: Any) -> None:
        self._histories.pop(trial_id, None)
        assignment = self.assignments.pop(trial_id)
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
        assignment = self._conductor.plan.ask()
        if assignment is None:
            return str(Searcher.FINISHED) if self._conductor.plan.finished else None
        self._conductor.assignments[trial_id] = assignment
        return {
            "recipe": assignment.recipe.as_dict(),
            "fold": assignment.fold,
            "stoppable": assignment.stoppable,
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: `_Taker` has the outcome, which Tune does not pass on here."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is what a restart reads."""


class _Taker(tune.Callback):  # type: ignore[misc]
    """Takes outcomes out of Tune's results on the driver."""

    def __init__(self, conductor: _Conductor) -> None:
        self._conductor = conductor

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        for listener in self._conductor.listeners:
            listener.started(self._conductor.assignments[trial.trial_id])

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        outcome = result.pop(_OUTCOME, None)
        if _EPOCH in result:
            self._conductor.epoch(trial.trial_id, result[_EPOCH])
        if outcome is not None:
            self._conductor.end(trial.trial_id, **outcome)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if trial.trial_id in self._conductor.assignments:
            self._conductor.stop(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        # The worker itself was lost: the node died, the machine ran out of memory, or its set-up failed.
        text = str(trial.get_error() or "the worker was lost")
        if trial.trial_id in self._conductor.assignments:
            status: Status = "out_of_memory" if "OutOfMemory" in text else "crashed"
            self._conductor.end(trial.trial_id, status, error=text)


def _is_out_of_memory(error: Exception) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "ResourceExhaustedError", "OutOfMemoryError"}) or "RESOURCE_EXHAUSTED" in str(
        error
    )


def _open_tiles(path: Path, reference: Any) -> np.ndarray:
    """The tiles without a copy: mapped from the store where this node has it, else from Ray's object store."""
    if path.exists():
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        return array
    fetched: np.ndarray = ray.get(reference)
    return fetched


def _share_tiles(material: Material) -> dict[int, Any]:
    """The tiles in Ray's object store, as plain arrays: it would copy a memory map for every worker."""
    return {
        size: ray.put(np.asarray(np.load(path, mmap_mode="r", allow_pickle=False)))
        for size, path in material.tiles.items()
    }


def _share_pretrained(recipes: list[Recipe]) -> dict[tuple[str, str, int], Any]:
    """Read each set of pretrained weights once, on the driver's node, into the object store."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    load = ray.remote(num_cpus=0, max_calls=1, max_retries=0, scheduling_strategy=here)(_read_pretrained)
    wanted = dict.fromkeys(
        (recipe.backbone, recipe.weights, int(recipe.image_size)) for recipe in recipes if recipe.weights != "random"
    )
    # A worker's own folder is not the one that the sweep was started in.
    shared = {
        (name, weights, size): load.remote(
            name, weights if weights == "imagenet" else str(Path(weights).resolve()), size
        )
        for name, weights, size in wanted
    }
    for reference in shared.values():
        try:
            ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
    return shared


def _read_pretrained(backbone: str, weights: str, size: int) -> list[np.ndarray]:
    """In a process of its own, so that the driver does not hold Keras and its backend in memory."""
    from moa_ray.models import pretrained

    return pretrained(backbone, weights, size)
