"""A sweep that was run before the package had wings still opens: its ledger, its tables, its tiles, and it goes on.

`tests/data/before_house/sweep` says what it is.
"""

import collections
import json
import os
import shutil
import tarfile
from pathlib import Path

import pandas as pd
import pytest
from commands import run_here, times

from moa_ray.common.schema import OPEN_SET
from moa_ray.config.sweep_file import load
from moa_ray.reporting.write import write
from moa_ray.study import Study
from moa_ray.tracking.ledger import Ledger
from moa_ray.tracking.results import TrialKind

PAINTED_AT = 1577836800
TABLES = ("conformal", "predictions", "treatment_samples", "treatments", "uncertainty")

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def out(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """OUT as the old code left it, below a folder that has the sweep file, the weights and the tiles too."""
    old = repo / "tests" / "data" / "before_house" / "sweep"
    for name in ("sweep.yaml", "small.weights.h5"):
        shutil.copy(old / name, tmp_path)
    with tarfile.open(old / "sweep.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return Path("out")


def test_an_old_ledger_is_read_with_the_kinds_of_its_trials(out: Path) -> None:
    ledger = Ledger(out)
    results = list(ledger.results())
    assert collections.Counter((result.kind, result.status) for result in results) == {
        (TrialKind.LINEAR_PROBE, "finished"): 2,
        (TrialKind.ENSEMBLE_MEMBER, "diverged"): 1,
        (TrialKind.ENSEMBLE_MEMBER, "finished"): 9,
    }
    assert [proposal.number for proposal in ledger.proposals()] == [0, 1, 2]
    tables = ledger.table("predictions", results), ledger.table("samples", results)
    assert [len(table) for table in tables] == [11 * 16, 9 * 16 * 2]
    assert not any(table[OPEN_SET].any() for table in tables)


def test_the_report_of_an_old_ledger_has_the_numbers_that_it_had(out: Path) -> None:
    old = {name: pd.read_parquet(out / f"{name}.parquet") for name in TABLES}
    leaderboard, summary = pd.read_csv(out / "leaderboard.csv"), json.loads((out / "summary.json").read_text())
    write(out)
    for name, table in old.items():
        pd.testing.assert_frame_equal(pd.read_parquet(out / f"{name}.parquet")[table.columns], table)
    pd.testing.assert_frame_equal(pd.read_csv(out / "leaderboard.csv"), leaderboard)
    now = json.loads((out / "summary.json").read_text())
    # The old search for a temperature that lies at its bound stopped just short of it.
    for part in ("temperatures", "after"):
        tempered, tempered_before = (pd.Series(each["calibration"].pop(part), dtype=object) for each in (now, summary))
        pd.testing.assert_series_equal(tempered, tempered_before, check_exact=False, rtol=2e-6, atol=0)
    # What the code before did not know is empty.
    assert [now.pop(name) for name in ("treatments_not_predicted", "rows_left_out")] == [[], []]
    assert now.pop("dropped") == {"by_plate_and_compound": []}
    assert now == summary


@pytest.mark.slow
def test_an_old_sweep_that_is_run_again_trains_nothing(out: Path) -> None:
    Study.open(load(Path("sweep.yaml"), []))  # paints the screen
    for path in Path("painted").rglob("*"):
        os.utime(path, (PAINTED_AT, PAINTED_AT))
    ledger, tiles = times(out), {path: path.stat().st_mtime_ns for path in Path("tiles").rglob("*.npy")}
    output = run_here(Path("sweep.yaml"))
    assert times(out) == ledger
    assert {path: path.stat().st_mtime_ns for path in Path("tiles").rglob("*.npy")} == tiles
    assert "preparing tiles" not in output
