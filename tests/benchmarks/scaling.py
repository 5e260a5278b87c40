"""Do two worker hosts do twice the trials of one? Trials that sleep, so that the cores of one machine suffice.

    python -m tests.benchmarks.scaling                  # scaling.md; needs root, see tests/cluster/hosts.py

The hosts are those of the cluster test: network namespaces joined by a bridge. The head only drives; each worker has
two slots. A trial is a real one, through Ray Tune, but for its worker, which sleeps and then has its tables at once.
What counts is the time from when every slot has a trial until the last one is given out: no slot is idle in between,
and the starts of processes, which share the cores of one machine here, are left out.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from moa_ray.execution import cluster, tune
from moa_ray.execution.cluster import Slots
from moa_ray.search.grid import Grid
from moa_ray.search.plan import Assignment
from moa_ray.tracking.results import Result

from . import driver, made
from .results import Row, write

if TYPE_CHECKING:
    from tests.cluster.hosts import Hosts

REPOSITORY = Path(__file__).parents[2]
TRIALS, SECONDS, SLOTS = 64, 0.5, 2  # of a trial; of a host


class Asleep(driver.IdleWorker):
    """Takes its time."""

    seconds = SECONDS

    def step(self) -> dict[str, Any]:
        """The only epoch."""
        time.sleep(self.seconds)
        return super().step()


class Sleeper(tune.FoldTrainable):
    """The real trainable, with a worker that sleeps."""

    def setup(self, config: dict[str, Any]) -> None:  # type: ignore[override]
        """No process is begun."""
        self._worker: Any = Asleep()
        self.reset_config(config)


class Clock:
    """A callback that notes when trials began, from when on every slot had one, and how many ran at a time at most."""

    def __init__(self, slots: int) -> None:
        self.begun: list[float] = []
        self.at_a_time = 0
        self._slots, self._running = slots, 0

    def started(self, assignment: Assignment) -> None:
        """One more runs."""
        self._running += 1
        self.at_a_time = max(self.at_a_time, self._running)
        if self.begun or self._running == self._slots:
            self.begun.append(time.monotonic())

    def epoch(self, assignment: Assignment, epoch: Mapping[str, Any]) -> None:
        """Not noted."""

    def ended(self, result: Result, final: bool) -> None:
        """One less."""
        assert result.status == "finished", result
        self._running -= 1


class Driven(NamedTuple):
    """How trials went: so many an hour once every slot had one, and at most so many at a time."""

    hourly: float
    at_a_time: int


def drive(trials: int, slots: int) -> Driven:
    """Run trials on the cluster that this machine is the head of."""
    folds = made.folds(trials)
    sweep = made.sweep(Path("unused"), candidates=1, epochs=1)
    clock, plan = Clock(slots), Grid(itertools.product(sweep.grid_recipes, folds), retries=0)
    with cluster.connect("auto"):
        tune.run(plan, Sleeper, Slots(1, 0, slots), [clock])
    return Driven(3600 * (len(clock.begun) - 1) / (clock.begun[-1] - clock.begun[0]), clock.at_a_time)


def measure(hosts: "Hosts", trials: int, seconds: float = SECONDS) -> list[Driven]:
    """Run trials with one worker host, with two, and so on to all. Nothing runs on the hosts before, Ray after."""
    head, *workers = hosts.others
    ray = "env RAY_AUTH_MODE=disabled .venv/bin/ray"
    head.run(f"{ray} start --head --port=6379 --num-cpus=0 --include-dashboard=false")
    driven = []
    for number, worker in enumerate(workers, 1):
        worker.run(f"{ray} start --address={head.address}:6379 --num-cpus={SLOTS}")
        command = [
            sys.executable,
            "-m",
            "tests.benchmarks.scaling",
            "--drive",
            str(SLOTS * number),
            "--trials",
            str(trials),
            "--seconds",
            str(seconds),
        ]
        output = head.run(f"env -C {REPOSITORY} RAY_AUTH_MODE=disabled {' '.join(command)}")
        driven.append(Driven(*json.loads(output.splitlines()[-1])))
    return driven


def main() -> None:
    """Run, and write what was found beside this file."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--trials", type=int, default=TRIALS)
    arguments.add_argument("--seconds", type=float, default=SECONDS)
    arguments.add_argument("--drive", type=int, metavar="SLOTS", help=argparse.SUPPRESS)  # asked of the head
    given = arguments.parse_args()
    if given.drive:
        Asleep.seconds = given.seconds
        print(json.dumps(drive(given.trials, given.drive)))
        return
    from tests.cluster import hosts

    with tempfile.TemporaryDirectory(prefix="moa_ray-hosts-") as folder, hosts.made(Path(folder)) as running:
        one, two = (driven.hourly for driven in measure(running, given.trials, given.seconds))
    row = Row(f"2 worker hosts: {two:.0f} trials an hour", f"1 worker host: {one:.0f}", two / one, "at least 1.9")
    notes = f"{given.trials} trials of {given.seconds:g} s each; {SLOTS} slots a host."
    write("scaling", "Trials an hour with more hosts", "python -m tests.benchmarks.scaling", [row], notes)


if __name__ == "__main__":
    main()
