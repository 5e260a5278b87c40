"""Callbacks that are told of trials on the driver: the ledger, the running best and the progress."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import pandas as pd
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress
from rich.table import Table
from rich.text import Text

from moa_ray.common.schema import CANDIDATE, LABEL
from moa_ray.common.text import duration
from moa_ray.search.plan import Assignment
from moa_ray.search.proposer import Journal
from moa_ray.search.race import Race
from moa_ray.statistics import aggregation
from moa_ray.tracking.ledger import Ledger
from moa_ray.tracking.results import Result
from moa_ray.tracking.tracker import Tracker

_PLAIN_LINES = 20  # a sweep's log shows about this many lines of progress, however many trials it has


class ProgressCallback:
    """Show trials done, running and failed, time elapsed and expected, and the best candidate so far.

    A context manager: progress is shown while it is open.

    Parameters
    ----------
    console : Console
        Where it is shown: in place on a terminal, else in about twenty lines.
    at_most : callable
        Returns how many trials there will have been at the end, at most.
    done : int
        Trials that were in the ledger before.
    best : callable
        Returns in words which candidate leads.
    exact : bool
        Whether all of the trials will be run.
    """

    def __init__(
        self, console: Console, at_most: Callable[[], int], done: int, best: Callable[[], str], exact: bool = True
    ) -> None:
        self._console = console
        self._at_most = at_most
        self._exact = exact
        self._before = self._done = done
        self._failed: Counter[str] = Counter()
        self._running: dict[tuple[str, str], str] = {}
        self._best = best
        self._started_at = time.monotonic()
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=2, transient=True)

    def __enter__(self) -> "ProgressCallback":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()
        if not self._exact and not self._console.is_terminal:
            self._console.print(self._summary(), soft_wrap=True)

    def started(self, assignment: Assignment) -> None:
        """Show a trial that has started.

        Parameters
        ----------
        assignment : Assignment
            The trial.
        """
        self._running[assignment.key] = "starting"

    def epoch(self, assignment: Assignment, epoch: Mapping[str, Any]) -> None:
        """Show the epoch that a trial has trained.

        Parameters
        ----------
        assignment : Assignment
            The trial.
        epoch : mapping of str to Any
            Its figures.
        """
        validation = epoch.get("validation_accuracy")
        accuracy = f"accuracy {epoch['accuracy']:.2f}"
        accuracy += f", validation {validation:.2f}" if validation is not None else ""
        self._running[assignment.key] = f"epoch {epoch['epoch']} of {assignment.recipe.epochs}, {accuracy}"

    def ended(self, result: Result, final: bool) -> None:
        """Count a trial that has ended, and say why it failed where it did.

        Parameters
        ----------
        result : Result
            How it ended.
        final : bool
            Whether no further attempt follows.
        """
        self._running.pop(result.key, None)
        if result.status not in ("finished", "stopped"):
            follows = "given up" if final else "will be tried again"
            first_line = (result.error or "").strip().partition("\n")[0]
            self._console.print(
                Text(f"{result.candidate} {result.fold}: {result.status} ({follows}): {first_line}", style="red")
            )
        if not final:
            return
        self._done += 1
        self._failed[result.status] += result.status not in ("finished", "stopped")
        every = math.ceil(self._at_most() / _PLAIN_LINES)
        if not self._console.is_terminal and (self._done % every == 0 or self._done == self._at_most()):
            self._console.print(self._summary(), soft_wrap=True)

    def _summary(self) -> str:
        failed = sum(self._failed.values())
        bound = "" if self._exact else "at most "
        parts = [
            f"{self._done} of {bound}{self._at_most()} trials",
            f"{len(self._running)} running",
            f"{failed} failed",
        ]
        elapsed = time.monotonic() - self._started_at
        parts.append(f"{duration(elapsed)} gone")
        if self._done > self._before:
            rest = elapsed / (self._done - self._before) * (self._at_most() - self._done)
            parts.append(f"{bound or 'about '}{duration(rest)} to go")
        return ", ".join(parts) + f"; {self._best()}"

    def _table(self) -> Group:
        bar = Progress(BarColumn(bar_width=None), MofNCompleteColumn(), expand=True)
        bar.add_task("", total=self._at_most(), completed=self._done)
        running = Table.grid(padding=(0, 2))
        for (candidate, fold), state in self._running.items():
            running.add_row(Text(candidate), Text(fold), Text(state))
        return Group(Text(self._summary()), bar, running)


class RunningBest:
    """Track which candidate leads so far: of those with the most treatments predicted, the one with the most right.

    Parameters
    ----------
    aggregate : str
        How predictions of tiles become those of treatments.
    """

    def __init__(self, aggregate: aggregation.Aggregation) -> None:
        self._aggregate = aggregate
        self._right: dict[str, int] = {}
        self._treatments: dict[str, int] = {}

    def add(self, predictions: pd.DataFrame) -> None:
        """Count finished trials, each by itself.

        Parameters
        ----------
        predictions : DataFrame
            Tile predictions of one or more trials.
        """
        if predictions.empty:
            return
        table = aggregation.treatments(predictions, self._aggregate, apart=True)
        right = table[aggregation.PREDICTED] == table[LABEL]
        for candidate, rows in right.groupby(table[CANDIDATE]):
            self._right[candidate] = self._right.get(candidate, 0) + int(rows.sum())
            self._treatments[candidate] = self._treatments.get(candidate, 0) + len(rows)

    def words(self) -> str:
        """Return the leading candidate in words.

        Returns
        -------
        str
            Its name, and how many treatments it has right.
        """
        if not self._right:
            return "no result yet"
        best = max(self._right, key=lambda name: (self._treatments[name], self._right[name]))
        return f"leading: {best}, {self._right[best]} of {self._treatments[best]} treatments right"


class LedgerCallback:
    """Write what has ended for good into the ledger, and pass it on to MLflow.

    Parameters
    ----------
    ledger : Ledger
        The ledger of the study, open.
    tracker : Tracker
        Sends trials to MLflow.
    leader : RunningBest
        Counts what was predicted.
    """

    def __init__(self, ledger: Ledger, tracker: Tracker, leader: RunningBest) -> None:
        self.leader = leader
        self._ledger = ledger
        self._tracker = tracker
        self._race: tuple[Race, Journal] | None = None

    def follow(self, race: Race, journal: Journal) -> None:
        """Keep Optuna's journal of a race, from now on.

        Parameters
        ----------
        race : Race
            The plan of the search.
        journal : Journal
            Optuna's store of it.
        """
        self._race = race, journal
        journal.update(race.standings)

    def started(self, assignment: Assignment) -> None:
        """Note in the journal that a candidate is there; nothing is recorded of a trial that has only started.

        Parameters
        ----------
        assignment : Assignment
            The trial.
        """
        self._update_journal()

    def epoch(self, assignment: Assignment, epoch: Mapping[str, Any]) -> None:
        """Record nothing: the history comes with the result, whole.

        Parameters
        ----------
        assignment : Assignment
            The trial.
        epoch : mapping of str to Any
            Its figures.
        """

    def ended(self, result: Result, final: bool) -> None:
        """Record the trial, unless it will be tried again.

        Parameters
        ----------
        result : Result
            How it ended.
        final : bool
            Whether no further attempt follows.
        """
        if final:
            self._ledger.write(result)
            if result.predictions is not None:
                self.leader.add(result.predictions)
            self._tracker.trial(result)
        self._update_journal()

    def _update_journal(self) -> None:
        if self._race is not None:
            race, journal = self._race
            journal.update(race.standings)


class TrialCallback(Protocol):
    """What a callback that is told of trials must do."""

    def started(self, assignment: Assignment) -> None:
        """Hear that a worker has started a trial.

        Parameters
        ----------
        assignment : Assignment
            The trial.
        """

    def epoch(self, assignment: Assignment, epoch: Mapping[str, Any]) -> None:
        """Hear that a trial has trained an epoch.

        Parameters
        ----------
        assignment : Assignment
            The trial.
        epoch : mapping of str to Any
            Its figures.
        """

    def ended(self, result: Result, final: bool) -> None:
        """Hear that an attempt has ended.

        Parameters
        ----------
        result : Result
            How it ended.
        final : bool
            Whether no further attempt follows.
        """
