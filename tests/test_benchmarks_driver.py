"""The machinery of the benchmarks of the driver and of the report: what is made up is what a sweep would leave."""

from pathlib import Path

import numpy as np
import pytest
from benchmarks import driver, made

from moa_ray.reporting import write
from moa_ray.statistics import aggregation


def test_a_made_fold_has_twelve_treatments_of_one_label(tmp_path: Path) -> None:
    recipe = made.sweep(tmp_path, candidates=1, epochs=1).grid_recipes[0]
    table = made.predictions(recipe, "compound=c013", 2, 4, np.random.default_rng(0))
    found = aggregation.treatments(table)
    assert (len(found), set(found["replicates"]), set(found["tiles"])) == (12, {2}, {8})
    assert set(found["Metadata_Label"]) == {made.LABELS[1]}


def test_the_idle_worker_returns_what_a_worker_does(tmp_path: Path) -> None:
    worker = driver.IdleWorker()
    worker.start(made.sweep(tmp_path, candidates=1, epochs=2).grid_recipes[0], "compound=c000")
    first, last = worker.step(), worker.step()
    assert list(first) == ["epoch"]
    assert last["outcome"]["status"] == "finished"
    assert len(last["outcome"]["history"]) == 2


@pytest.mark.slow
def test_a_made_ledger_is_reported_whole(tmp_path: Path) -> None:
    sweep, folds = made.sweep(tmp_path / "out", candidates=2, epochs=2), made.folds(3)
    made.begin(sweep, folds)
    made.fill(sweep, folds, replicates=1, tiles=1, epochs=2)
    written = write.write(sweep.out)
    assert written.summary["trials"] == {"finished": 6}
    assert written.summary["best"]["n"] == 3 * made.TREATMENTS


@pytest.fixture
def ray_finds_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_finds_the_benchmark")
def test_a_tracked_run_ends_and_starts_again_with_nothing_missing(tmp_path: Path) -> None:
    found = driver.drive(tmp_path / "out", trials=4, epochs=1, tracked=True)
    assert min(found.values()) > 0
    assert set(driver.start_again(tmp_path / "out", trials=4)) == {"read", "send", "find"}
