"""What the driver does for a trial that does nothing, and whether that grows with the trials that are done.

The trials are those of a grid on two slots of a local Ray, with all that a sweep has on the driver: the ledger, the
board, the leader and, where it is on, MLflow. What is a worker's, a training, does nothing here: it returns tables that
nobody trained. Every figure is of a process of its own. Ray's start and the making of MLflow's store do not count, and
waiting for what MLflow has not been sent at the end does.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from rich.console import Console

from moa_ray import cluster, tuning
from moa_ray.cluster import Slots
from moa_ray.ledger import Ledger, Result
from moa_ray.progress import Board
from moa_ray.race import Assignment, Grid
from moa_ray.recipe import Recipe
from moa_ray.sweep import Leader, Recorder
from moa_ray.tracking import Tracker
from moa_ray.worker import EPOCH, OUTCOME
from tests.benchmarks import made
from tests.benchmarks.results import Row, write

FOLDS = 100


class Idle(tuning.FoldTrainable):
    """The real trainable, with a worker that has its tables at once."""

    def setup(self, config: dict[str, Any]) -> None:  # type: ignore[override]
        """No process is begun."""
        self._worker: Any = IdleWorker()
        self.reset_config(config)


class IdleWorker:
    """Returns what a worker returns."""

    def start(self, recipe: Recipe, fold: str) -> None:
        """Take the next trial."""
        self._recipe, self._fold, self._epoch = recipe, fold, 0

    def step(self) -> dict[str, Any]:
        """One epoch, and with the last one the outcome."""
        history = made.history(self._recipe.epochs)
        result: dict[str, Any] = {EPOCH: history.iloc[self._epoch].to_dict()}
        self._epoch += 1
        if self._epoch < self._recipe.epochs:
            return result
        predictions = made.predictions(self._recipe, self._fold, 1, 1, np.random.default_rng(0))
        outcome = {"status": "finished", "predictions": predictions, "history": history, "epochs": self._epoch}
        return {**result, OUTCOME: {**outcome, "seconds": 1.0, "setup_seconds": 0.1}}

    def close(self) -> None:
        """There is no process to end."""


class NoTracker(Tracker):
    """Tracking that is off."""

    def __init__(self) -> None:
        """Nothing is opened."""

    def trial(self, result: Result) -> None:
        """Nothing is sent."""

    def finish(self, *_: Any, **__: Any) -> bool:
        """Nothing is waited for."""
        return True


class Clock:
    """A listener that notes when the first trial began, and when each ended."""

    def __init__(self) -> None:
        self.begun: float | None = None
        self.ends: list[float] = []

    def started(self, assignment: Assignment) -> None:
        """Its worker is there."""
        self.begun = self.begun or time.monotonic()

    def epoch(self, assignment: Assignment, epoch: Mapping[str, Any]) -> None:
        """Not noted."""

    def ended(self, result: Result, final: bool) -> None:
        """One more."""
        self.ends.append(time.monotonic())


def begin_tracking(book: Ledger) -> Tracker:
    """A tracker of a store that is there already."""
    first, second = (Tracker(book, "made", None, "made", print) for _ in range(2))
    first.begin({"seed": 0})
    assert first.finish({}, [])
    second.begin({"seed": 0})
    return second


def drive(out: Path, trials: int, epochs: int, tracked: bool) -> dict[str, float]:
    """Seconds a trial over all and over the last tenth, and the driver's memory in bytes, of one run to its end."""
    folds = made.folds(min(FOLDS, trials))
    sweep = made.sweep(out, candidates=-(-trials // len(folds)), epochs=epochs)
    book = made.begin(sweep, folds)
    todo = list(itertools.islice(itertools.product(sweep.recipes, folds), trials))
    tracker = begin_tracking(book) if tracked else NoTracker()
    leader, clock, plan = Leader(sweep.aggregate), Clock(), Grid(todo, retries=0)
    board = Board(Console(file=sys.stderr), lambda: plan.at_most, 0, leader.words)
    with cluster.connect(None), board:
        tuning.run(plan, Idle, Slots(1, 0, 2), [Recorder(book, tracker, leader), board, clock])
        assert tracker.finish({}, [])
        ended = time.monotonic()
    assert len(list(book.root.glob("*/*/result.json"))) == trials
    assert clock.begun is not None
    tenth = max(1, trials // 10)
    return {
        "seconds": (ended - clock.begun) / trials,
        "last": (clock.ends[-1] - clock.ends[-1 - tenth]) / tenth,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def measure(trials: int, epochs: int, tracked: bool) -> dict[str, float]:
    """The same in a process of its own."""
    options = ["--one", str(trials), "--epochs", str(epochs), *(["--tracked"] if tracked else [])]
    command = [sys.executable, "-m", "tests.benchmarks.driver", *options]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    print(f"{trials} trials of {epochs} epochs, MLflow {'on' if tracked else 'off'}: {found}", flush=True)
    return found


def main() -> None:
    """Run, and write what was found beside this file."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--trials", type=int, default=10_000)
    arguments.add_argument("--against", type=int, default=1_000)
    arguments.add_argument("--tracked-trials", type=int, default=300)
    arguments.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments.add_argument("--epochs", type=int, default=1, help=argparse.SUPPRESS)
    arguments.add_argument("--tracked", action="store_true", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.one:
        with tempfile.TemporaryDirectory(prefix="moa_ray-driver-") as folder:
            print(json.dumps(drive(Path(folder, "out"), given.one, given.epochs, given.tracked)))
        return


if __name__ == "__main__":
    main()
