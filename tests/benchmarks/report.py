"""What a report over a large ledger takes: every trial of a grid finished, each with 12 treatments in two replicates.

The ledger is written by the real one, with tables that nobody trained. The report is drawn by its command in a process
of its own, so that its time is all of it and its memory is its alone.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import made
from .results import Row, write

FOLDS, REPLICATES, TILES, EPOCHS = 100, 2, 4, 3
SECONDS, GIGABYTES = 60, 4


def draw(out: Path) -> tuple[float, float]:
    """Seconds and GB that the command takes."""
    begun = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "moa_ray.report", str(out)])
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, f"the report ended with status {status}"
    return time.monotonic() - begun, used.ru_maxrss * 1024 / 1e9


def main() -> None:
    """Run, and write what was found beside this file."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--trials", type=int, default=10_000)
    arguments.add_argument("--keep", type=Path, help="a folder for the ledger, used again where it is there")
    given = arguments.parse_args()
    folds = made.folds(min(FOLDS, given.trials))
    with tempfile.TemporaryDirectory(prefix="moa_ray-report-") as scratch:
        out = given.keep or Path(scratch, "out")
        sweep = made.sweep(out, candidates=given.trials // len(folds), epochs=EPOCHS)
        if not out.exists():
            made.begin(sweep, folds)
            made.fill(sweep, folds, REPLICATES, TILES, EPOCHS)
        seconds, gigabytes = draw(out)
        page = (out / "report.html").stat().st_size / 1e6
    size = f"report, {len(sweep.grid_recipes) * len(folds)} trials x {made.TREATMENTS} treatments"
    rows = [
        Row(f"{size}: {seconds:.0f} s", f"{SECONDS} s", seconds / SECONDS, "under 1"),
        Row(f"the same: {gigabytes:.1f} GB", f"{GIGABYTES} GB", gigabytes / GIGABYTES, "under 1"),
    ]
    notes = f"{len(sweep.grid_recipes)} candidates on {len(folds)} folds, {REPLICATES * TILES} tiles a treatment. "
    notes += f"report.html has {page:.1f} MB."
    write("report", "What a report over a large ledger takes", "python -m tests.benchmarks.report", rows, notes)


if __name__ == "__main__":
    main()
