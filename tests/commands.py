"""What tests of whole commands share: starting sweeps, waiting for what they do, and reading what they leave."""

import contextlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from moa_ray.common.schema import CANDIDATE, TILE_KEY

if TYPE_CHECKING:
    from moa_ray.tracking.results import Result

PATIENCE = 300  # seconds after which a sweep of seconds is taken for hung


COMMAND = ("-m", "moa_ray.sweep")
QUICK = (str(Path(__file__).with_name("quick.py")),)  # the same with trials of milliseconds


def start(sweep: Path, *more: str, program: Sequence[str] = COMMAND) -> "subprocess.Popen[str]":
    command = [sys.executable, *program, str(sweep), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def attempt(sweep: Path, *more: str) -> tuple[int, str]:
    """Exit status and output."""
    process = start(sweep, *more)
    output, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, output


def run(sweep: Path, *more: str) -> str:
    """Output of a sweep that must end well."""
    status, output = attempt(sweep, *more)
    assert status == 0, output
    return output


def attempt_here(sweep: Path, *more: str) -> tuple[int, str]:
    """Exit status and output of the same command in this process, on the Ray that it is connected to."""
    from moa_ray.sweep import main

    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        status = main([str(sweep), *more])
    return status, output.getvalue()


def run_here(sweep: Path, *more: str) -> str:
    """Output of such a sweep that must end well."""
    status, output = attempt_here(sweep, *more)
    assert status == 0, output
    return output


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Let figures be made but not rendered, which takes most of a report's time."""
    from moa_ray.reporting import figures

    patch.setattr(figures, "_bytes", lambda figure, kind, **options: b"not drawn")


def until(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    """Wait for a condition while the process lives."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, f"ended early: {process.communicate()[0]}"
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def until_true(condition: Callable[[], bool]) -> None:
    """Wait for what a thread of this process does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def stopped_here(sweep: Path, out: Path, after: int, *more: str) -> None:
    """A sweep of this process that Ctrl-C stops at the very moment at which so many trials are in its ledger.

    Cheaper than `killed`, for tests of what is gone on with; that a real kill leaves as much, others show.
    """
    from moa_ray.tracking.ledger import Ledger

    write = Ledger.write

    def write_and_stop(ledger: Ledger, result: "Result") -> None:
        write(ledger, result)
        if len(results(out)) == after:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "write", write_and_stop)
        status, output = attempt_here(sweep, f"out={out}", *more)
    assert status == 130, output
    assert len(results(out)) >= after


def killed(sweep: Path, out: Path, after: int, *more: str, program: Sequence[str] = COMMAND) -> None:
    """A sweep whose driver is killed once some trials have ended."""
    process = start(sweep, f"out={out}", *more, program=program)
    until(lambda: len(results(out)) >= after, process)
    process.kill()
    process.communicate()


def trials(out: Path, file: str) -> list[Path]:
    """Files of the trials in the ledger, but not of those that are being written."""
    return list(out.glob(f"ledger/[!.]*/*/{file}"))


def results(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in trials(out, "result.json")]


def times(out: Path) -> dict[Path, int]:
    """When each file of the trials was written."""
    return {path: path.stat().st_mtime_ns for path in trials(out, "*")}


def predictions(out: Path) -> pd.DataFrame:
    table = pd.read_parquet(out / "predictions.parquet")
    return table.sort_values([CANDIDATE, *TILE_KEY], ignore_index=True)
