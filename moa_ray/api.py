"""Run a sweep from Python: one call, and an object that finds what the sweep left.

from moa_ray import run_sweep

result = run_sweep("sweeps/demo.yaml", "recipe.epochs=2")
result.leaderboard
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from moa_ray import cli
from moa_ray.common.uri import Place
from moa_ray.config import sweep_file
from moa_ray.progress import download_progress
from moa_ray.study import Study


@dataclass(frozen=True)
class SweepResult:
    """What a sweep left in OUT; tables are read when they are first asked for.

    ``SweepResult(Path("runs/demo"))`` opens the OUT of a sweep that was run before.

    Attributes
    ----------
    out : Path
        OUT; where the sweep file names a bucket, this machine's copy of it.
    place : Path or Uri, optional
        OUT as the sweep file names it.
    runs : str
        The command that shows the runs in MLflow, or the address of the server that does.
    finished : bool
        Whether the number is final: every trial of a ranked candidate has settled, and the headline's candidate
        finished all folds.
    sent : bool
        Whether all files are where they belong, in a bucket too.
    unfinished : str
        Why the number is not final, a clause; empty where it is.
    """

    out: Path
    place: Place | None = None
    runs: str = ""
    finished: bool = True
    sent: bool = True
    unfinished: str = ""

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The headline numbers, as ``summary.json`` holds them."""
        summary: dict[str, Any] = json.loads((self.out / "summary.json").read_text(encoding="utf-8"))
        return summary

    @property
    def headline(self) -> str:
        """The result in one sentence."""
        return str(self.summary["headline"])

    @cached_property
    def leaderboard(self) -> pd.DataFrame:
        """One row per candidate, best first."""
        return pd.read_csv(self.out / "leaderboard.csv")

    @cached_property
    def treatments(self) -> pd.DataFrame:
        """One row per candidate and treatment: label, predicted label, probabilities, replicates, tiles."""
        return pd.read_parquet(self.out / "treatments.parquet")

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row per candidate and held-out tile."""
        return pd.read_parquet(self.out / "predictions.parquet")

    @property
    def report(self) -> Path:
        """The page, one file."""
        return self.out / "report.html"

    @property
    def figures(self) -> list[Path]:
        """The figures of the page, as SVG and PNG."""
        return sorted((self.out / "figures").iterdir())


def open_study(
    path: str | Path,
    overrides: Sequence[str] = (),
    fresh: bool = False,
    console: Console | None = None,
    paint: bool = True,
) -> Study:
    """Read a sweep file and open its screen, without starting anything.

    Parameters
    ----------
    path : str or Path
        The sweep file.
    overrides : sequence of str
        ``KEY=VALUE``, each sets one value of the file by its dotted path.
    fresh : bool
        Take a new folder beside OUT.
    console : Console, optional
        Where the progress of downloads is shown.
    paint : bool
        Paint the screen where it is a painted one and not there yet; else nothing is written.

    Returns
    -------
    Study

    Raises
    ------
    InputError
        If the sweep file is wrong, or the screen cannot be opened.
    """
    sweep = sweep_file.load(Path(path), list(overrides))
    if fresh:
        from moa_ray.tracking import ledger  # a plan needs none

        sweep = sweep.model_copy(update={"out": ledger.fresh(sweep.out)})
    with download_progress(console or cli.console()) as progress:
        return Study.open(sweep, progress, paint)


def run_sweep(
    path: str | Path,
    *overrides: str,
    address: str | None = None,
    fresh: bool = False,
    console: Console | None = None,
    command: str | None = None,
) -> SweepResult:
    """Run a sweep, or what is missing of it, and return what it left.

    Parameters
    ----------
    path : str or Path
        The sweep file.
    *overrides : str
        ``KEY=VALUE``, each sets one value of the file by its dotted path.
    address : str, optional
        A Ray cluster, e.g. ``auto``; by default this machine alone.
    fresh : bool
        Start over in a new folder beside OUT; deletes nothing.
    console : Console, optional
        Where progress and warnings are shown; by default standard output.
    command : str, optional
        What the report shows as the command; by default the one that does the same.

    Returns
    -------
    SweepResult

    Raises
    ------
    InputError
        If the sweep file or the data are wrong; the message names every problem.
    StuckError
        If the cluster cannot go on. The ledger is whole, and the same call goes on.
    """
    console = console or cli.console()
    study = open_study(path, overrides, fresh, console)
    study.require_sound()
    from moa_ray import orchestration  # loads Ray and matplotlib, which take seconds: not where the input is wrong
    from moa_ray.tracking import tracker
    from moa_ray.tracking.bucket_sync import BucketSync

    for warning in study.warnings:
        cli.warn(console, warning)
    typed = command or shlex.join(["python", "-m", "moa_ray.sweep", str(path), *overrides])
    with BucketSync(study.sweep.out, partial(cli.warn, console)) as bucket_sync:
        written = orchestration.run(study, bucket_sync, address, console, typed)
    out, place = bucket_sync.folder, study.sweep.out
    runs = tracker.ui_command(out, study.sweep.tracking.uri)
    return SweepResult(out, place, runs, written.finished, bucket_sync.complete, written.unfinished)
