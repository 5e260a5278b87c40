"""Show the progress of counted work: bars in place, or plain lines where the output is no terminal."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator

from rich.console import Console
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

from moa_ray.screens import downloads


@contextlib.contextmanager
def field_progress(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Show how many fields have been prepared: a bar, or a line each tenth without a terminal.

    Parameters
    ----------
    console : Console
        Where it is shown.

    Yields
    ------
    callable
        Takes the fields done and the fields in all.
    """
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
    """Show how many tiles have frozen features: a bar for each set, or a line each quarter without a terminal.

    Parameters
    ----------
    console : Console
        Where it is shown.

    Yields
    ------
    callable
        Takes the name of the set, the tiles done and the tiles in all.
    """
    bar = _counting(console, "taking features of {task.description}", "tiles")
    tasks: dict[str, tuple[TaskID, float]] = {}
    shown: dict[str, int] = {}

    def show(features: str, done: int, total: int) -> None:
        if features not in tasks:
            tasks[features] = bar.add_task(features, total=total, rate=""), time.monotonic()
        task, begun = tasks[features]
        rate = f"{done / max(time.monotonic() - begun, 1e-9):.0f} a second"
        bar.update(task, completed=done, rate=rate)
        quarter = 4 * done // total
        if not console.is_terminal and quarter > shown.get(features, 0):
            shown[features] = quarter
            console.print(f"taking features of {features}: {done} of {total} tiles, {rate}", markup=False)

    with bar:
        yield show


@contextlib.contextmanager
def download_progress(console: Console) -> Iterator[Callable[[downloads.Progress], None]]:
    """Show how much has been downloaded: a bar over bytes with the files done, or a line each tenth without a terminal.

    Parameters
    ----------
    console : Console
        Where it is shown.

    Yields
    ------
    callable
        Takes a `downloads.Progress`.
    """
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
    shown_tenths = of_files = 0

    def show(now: downloads.Progress) -> None:
        nonlocal task, shown_tenths, of_files
        if now.of_files > of_files:  # a bucket's tables come before it is known which images are needed
            shown_tenths, of_files = 0, now.of_files
        files = f"{now.files} of {now.of_files} files"
        if task is None:  # what came in an earlier call does not count as speed
            task = bar.add_task("", total=now.of_bytes, completed=now.bytes, files=files)
        bar.update(task, total=now.of_bytes, completed=now.bytes, files=files)
        tenth = 10 * now.bytes // now.of_bytes if now.of_bytes else 0
        tenth = min(tenth, 10 if now.files == now.of_files else 9)  # the last line counts every file
        if not console.is_terminal and tenth > shown_tenths:
            shown_tenths = tenth
            console.print(f"downloading: {now.bytes / 1e6:.1f} of {now.of_bytes / 1e6:.1f} MB, {files}")

    with bar:
        yield show


def _counting(console: Console, doing: str, things: str) -> Progress:
    """Make a bar that counts things and their rate; it shows nothing without a terminal."""
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
