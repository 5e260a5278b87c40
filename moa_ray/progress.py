"""How a sweep goes, on one screen refreshed in place; plain lines where the output is no terminal."""

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from moa_ray import downloads
from moa_ray.ledger import Result
from moa_ray.race import Assignment

_PLAIN_LINES = 20  # a sweep's log shows about this many lines of progress, however many trials it has


def duration(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Board:
    """A listener that shows trials done, running and failed, time gone and expected, and the best candidate so far.

    at_most : trials of the study; `done` of them were in the ledger before
    exact : whether all of them will be run
    best : says in words which candidate leads
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
        self._begun = time.monotonic()
        self._live = Live(console=console, get_renderable=self._screen, refresh_per_second=2, transient=True)

    def __enter__(self) -> "Board":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()
        if not self._exact and not self._console.is_terminal:
            self._console.print(self._summary(), soft_wrap=True)

    def started(self, assignment: Assignment) -> None:
        """A worker has begun."""
        self._running[assignment.key] = "starting"

    def epoch(self, assignment: Assignment, epoch: Mapping[str, Any]) -> None:
        """An epoch is done."""
        watched = epoch.get("validation_accuracy")
        accuracy = f"accuracy {epoch['accuracy']:.2f}" + (f", validation {watched:.2f}" if watched is not None else "")
        self._running[assignment.key] = f"epoch {epoch['epoch']} of {assignment.recipe.epochs}, {accuracy}"

    def ended(self, result: Result, final: bool) -> None:
        """An attempt has ended."""
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
        words = [
            f"{self._done} of {bound}{self._at_most()} trials",
            f"{len(self._running)} running",
            f"{failed} failed",
        ]
        elapsed = time.monotonic() - self._begun
        words.append(f"{duration(elapsed)} gone")
        if self._done > self._before:
            rest = elapsed / (self._done - self._before) * (self._at_most() - self._done)
            words.append(f"{bound or 'about '}{duration(rest)} to go")
        return ", ".join(words) + f"; {self._best()}"

    def _screen(self) -> Group:
        bar = Progress(BarColumn(bar_width=None), MofNCompleteColumn(), expand=True)
        bar.add_task("", total=self._at_most(), completed=self._done)
        running = Table.grid(padding=(0, 2))
        for (candidate, fold), state in self._running.items():
            running.add_row(Text(candidate), Text(fold), Text(state))
        return Group(Text(self._summary()), bar, running)


@contextlib.contextmanager
def field_progress(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback (fields done, fields in all) that draws a bar, or a line each tenth without a terminal."""
    bar = _counting(console, "preparing tiles", "fields")
    task = bar.add_task("", total=None, rate="")
    begun = time.monotonic()
    before = read = 0

    def show(done: int, total: int) -> None:
        nonlocal before, read
        read += done == before + 1  # what was finished before comes all at once
        before = done
        rate = f"{read / max(time.monotonic() - begun, 1e-9):.0f} a second"
        bar.update(task, total=total, completed=done, rate=rate)
        if not console.is_terminal and done and (done % math.ceil(total / 10) == 0 or done == total):
            console.print(f"preparing tiles: {done} of {total} fields, {rate}")

    with bar:
        yield show


@contextlib.contextmanager
def features_progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a callback (of what, tiles done, tiles in all) that draws a bar for each set, or a line each quarter."""
    bar = _counting(console, "taking features of {task.description}", "tiles")
    tasks: dict[str, tuple[TaskID, float]] = {}
    said: dict[str, int] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total, rate=""), time.monotonic()
        task, begun = tasks[what]
        rate = f"{done / max(time.monotonic() - begun, 1e-9):.0f} a second"
        bar.update(task, completed=done, rate=rate)
        quarter = 4 * done // total
        if not console.is_terminal and quarter > said.get(what, 0):
            said[what] = quarter
            console.print(f"taking features of {what}: {done} of {total} tiles, {rate}", markup=False)

    with bar:
        yield show


@contextlib.contextmanager
def download_progress(console: Console) -> Iterator[Callable[[downloads.Progress], None]]:
    """Yield a callback that draws a bar over bytes with the files done, or a line each tenth without a terminal."""
    bar = Progress(
        TextColumn("downloading"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[files]}"),
        console=console,
        disable=not console.is_terminal,
    )
    task: TaskID | None = None
    said = 0

    def show(now: downloads.Progress) -> None:
        nonlocal task, said
        files = f"{now.files} of {now.of_files} files"
        if task is None:  # what came in an earlier call does not count as speed
            task = bar.add_task("", total=now.of_bytes, completed=now.bytes, files=files)
        bar.update(task, completed=now.bytes, files=files)
        tenth = 10 * now.bytes // now.of_bytes if now.of_bytes else 0
        tenth = min(tenth, 10 if now.files == now.of_files else 9)  # the last line counts every file
        if not console.is_terminal and tenth > said:
            said = tenth
            console.print(f"downloading: {now.bytes / 1e6:.1f} of {now.of_bytes / 1e6:.1f} MB, {files}")

    with bar:
        yield show


def _counting(console: Console, doing: str, things: str) -> Progress:
    """A bar that counts things and their rate; nothing without a terminal."""
    return Progress(
        TextColumn(doing),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(things),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
