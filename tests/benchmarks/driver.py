"""What the driver does for a trial that does nothing, and whether that grows with the trials that are done.

The trials are those of a grid on two slots of a local Ray, with all that a sweep has on the driver: the ledger, the
board, the leader and, where it is on, MLflow in SQLite. What is a worker's, a training, does nothing here: it returns
tables that nobody trained. Every figure is of a process of its own. Time runs from the first trial's start, so that the
starts of Ray, of a worker and of MLflow's store do not count, until all is done and sent.

Two comparisons: many trials against few, MLflow off; and MLflow on against off, three epochs a trial. In both the two
sides take turns. Beside them stands what starting again takes where all trials are in the ledger: to read them, to send
all of them to an MLflow that has none, and to find in MLflow that none is missing.
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

from moa_ray.config.recipe import Recipe
from moa_ray.execution import cluster, tune
from moa_ray.execution.callbacks import LedgerCallback, ProgressCallback, RunningBest
from moa_ray.execution.capacity import Slots
from moa_ray.execution.trial_data import EPOCH, OUTCOME
from moa_ray.search.grid import Grid
from moa_ray.search.plan import Assignment
from moa_ray.tracking.ledger import Ledger
from moa_ray.tracking.results import Result
from moa_ray.tracking.tracker import Tracker

from . import made
from .results import Row, write

FOLDS = 100


class Idle(tune.FoldTrainable):
    """The real trainable, with a worker that has its tables at once."""

    def setup(self, config: dict[str, Any]) -> None:  # type: ignore[override]
        """No process is begun."""
        self._worker: Any = IdleWorker()
        self.reset_config(config)


class IdleWorker:
    """Returns what a worker returns."""

    def start(self, recipe: Recipe, fold: str, whole: bool = False) -> None:
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
    """Seconds a trial, over all and over the last tenth, and the driver's memory in MB, of one run to its end."""
    folds = made.folds(min(FOLDS, trials))
    sweep = made.sweep(out, candidates=-(-trials // len(folds)), epochs=epochs)
    book = made.begin(sweep, folds)
    todo = list(itertools.islice(itertools.product(sweep.grid_recipes, folds), trials))
    tracker = begin_tracking(book) if tracked else NoTracker()
    leader, clock, plan = RunningBest(sweep.aggregate), Clock(), Grid(todo, retries=0)
    board = ProgressCallback(Console(file=sys.stderr), lambda: plan.at_most, 0, leader.words)
    with cluster.connect(None), board:
        tune.run(plan, Idle, Slots(1, 0, 2), [LedgerCallback(book, tracker, leader), board, clock])
        assert tracker.finish({}, [])
        ended = time.monotonic()
    assert len(book.settled()) == trials
    assert clock.begun is not None
    tenth = max(1, trials // 10)
    return {
        "seconds": (ended - clock.begun) / trials,
        "last": (clock.ends[-1] - clock.ends[-1 - tenth]) / tenth,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def start_again(out: Path, trials: int) -> dict[str, float]:
    """Seconds that a start takes where every trial is in the ledger, and that MLflow takes, empty and up to date."""
    folds = made.folds(min(FOLDS, trials))
    sweep = made.sweep(out, candidates=-(-trials // len(folds)), epochs=1)
    begun = time.monotonic()
    book = made.begin(sweep, folds)
    settled = book.settled()
    RunningBest(sweep.aggregate).add(book.table("predictions", settled.values()))
    assert len(settled) == trials
    found = {"read": time.monotonic() - begun}
    for what in ("send", "find"):
        begun = time.monotonic()
        tracker = Tracker(book, "made", None, "made", print)
        tracker.begin({"seed": 0})
        assert tracker.finish({}, [])
        found[what] = time.monotonic() - begun
    return found


def measure(*options: str) -> dict[str, float]:
    """What a process of this file's finds."""
    command = [sys.executable, "-m", "tests.benchmarks.driver", *options]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    print(*options, found, file=sys.stderr, flush=True)
    return found


def growth(trials: int, against: int, scratch: Path) -> tuple[list[Row], str]:
    """Many trials against few, and a start again after many."""
    few, many = (["--one", str(number)] for number in (against, trials))
    found = [measure(*few), measure(*many, "--out", str(scratch / "out")), measure(*few)]
    again = measure("--again", str(trials), "--out", str(scratch / "out"))
    seconds, memory = ([one[name] for one in found] for name in ("seconds", "memory"))
    rows = [
        Row(
            f"{trials} trials: {1e3 * seconds[1]:.0f} ms a trial",
            f"{against} trials: {1e3 * mean(seconds[::2]):.0f} ms",
            seconds[1] / mean(seconds[::2]),
            "at most 1.3",
        ),
        Row(
            f"{trials} trials: the driver's memory, {memory[1]:.0f} MB",
            f"{against} trials: {mean(memory[::2]):.0f} MB",
            memory[1] / mean(memory[::2]),
            "at most 2",
        ),
    ]
    return rows, (
        f"The last tenth of the {trials} trials took {1e3 * found[1]['last']:.0f} ms a trial. Started again with "
        f"{trials} finished trials in the ledger: {again['read']:.0f} s to read them; while the driver goes on, "
        f"{again['send']:.0f} s to send all of them to MLflow, or {again['find']:.0f} s to find that none is missing."
    )


def tracking(trials: int, rounds: int) -> Row:
    """MLflow on against off."""
    options = ["--one", str(trials), "--epochs", "3"]
    found = [(measure(*options), measure(*options, "--tracked")) for _ in range(rounds)]
    off, on = (1 / mean(one["seconds"] for one in side) for side in zip(*found, strict=True))
    return Row(
        f"MLflow on, {trials} trials of 3 epochs: {on:.1f} trials a second", f"off: {off:.1f}", on / off, "at least 0.6"
    )


def main() -> None:
    """Run, and write what was found beside this file."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--trials", type=int, default=10_000)
    arguments.add_argument("--against", type=int, default=1_000)
    arguments.add_argument("--tracked-trials", type=int, default=300)
    arguments.add_argument("--rounds", type=int, default=3, help="of MLflow off and on")
    # What the process itself asks of others.
    arguments.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments.add_argument("--again", type=int, help=argparse.SUPPRESS)
    arguments.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments.add_argument("--epochs", type=int, default=1, help=argparse.SUPPRESS)
    arguments.add_argument("--tracked", action="store_true", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="moa_ray-driver-") as folder:
        out = given.out or Path(folder, "out")
        if given.one:
            print(json.dumps(drive(out, given.one, given.epochs, given.tracked)))
        elif given.again:
            print(json.dumps(start_again(out, given.again)))
        else:
            rows, notes = growth(given.trials, given.against, Path(folder))
            rows.append(tracking(given.tracked_trials, given.rounds))
            write("driver", "What the driver does for a trial", "python -m tests.benchmarks.driver", rows, notes)


if __name__ == "__main__":
    main()
