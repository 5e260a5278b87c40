"""Whole sweeps on a painted screen: what they leave, and that nothing is lost or done twice."""

import signal
from pathlib import Path
from typing import Any

import factories
import pandas as pd
import psutil
import pytest
from commands import (
    PATIENCE,
    QUICK,
    attempt_here,
    killed,
    predictions,
    results,
    run,
    run_here,
    start,
    times,
    until,
    until_true,
)

from moa_ray.common.schema import TILE_KEY, probability_columns
from moa_ray.execution.callbacks import ProgressCallback

pytestmark = pytest.mark.usefixtures("one_ray")


@pytest.fixture(scope="module")
def sweep_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two labels, two compounds each, 32 pixels: 4 folds of one recipe."""
    recipe = factories.recipe(epochs=2, learning_rate=0.01)
    return factories.sweep_file(tmp_path_factory.mktemp("sweep"), recipe=recipe, resources={"concurrent": 1})


@pytest.fixture(scope="module")
def undisturbed(sweep_file: Path) -> Path:
    """OUT of a sweep by the command line that nothing disturbed."""
    run(sweep_file)
    return sweep_file.parent / "out"


def test_sweep_leaves_all_that_the_design_names(undisturbed: Path) -> None:
    names = {path.name for path in undisturbed.iterdir()}
    assert names >= {
        "sweep.yaml",
        "ledger",
        "predictions.parquet",
        "treatments.parquet",
        "leaderboard.csv",
        "summary.json",
        "report.html",
        "figures",
        "mlflow.db",
        "mlartifacts",
    }
    assert len(results(undisturbed)) == 4
    assert {result["status"] for result in results(undisturbed)} == {"finished"}


def test_every_tile_is_predicted_once_and_probabilities_sum_to_one(undisturbed: Path) -> None:
    table = predictions(undisturbed)
    tiles = pd.read_parquet(next((undisturbed.parent / "tiles").glob("*/tiles.parquet")))
    assert len(table) == len(tiles)
    assert set(map(tuple, table[TILE_KEY].to_numpy())) == set(map(tuple, tiles[TILE_KEY].to_numpy()))
    assert table[probability_columns(table)].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)


def test_finished_sweep_run_again_trains_nothing(undisturbed: Path, sweep_file: Path) -> None:
    before = times(undisturbed)
    run_here(sweep_file)
    assert times(undisturbed) == before


def test_mlflow_has_each_run_once_and_none_running(undisturbed: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{undisturbed / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 1 + 1 + 4
    assert {run.info.status for run in runs} == {"FINISHED"}


@pytest.fixture
def broken_off(sweep_file: Path, tmp_path: Path) -> tuple[Path, dict[Path, int]]:
    """OUT of a sweep whose driver was killed after its first trial, and the files of what was finished."""
    out = tmp_path / "killed"
    killed(sweep_file, out, 1)
    return out, times(out)


def test_killed_driver_goes_on_and_equals_an_undisturbed_sweep(
    broken_off: tuple[Path, dict[Path, int]], undisturbed: Path, sweep_file: Path
) -> None:
    out, finished = broken_off
    assert 1 <= len(results(out)) < 4
    run_here(sweep_file, f"out={out}")
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    pd.testing.assert_frame_equal(predictions(out), predictions(undisturbed), atol=1e-6)


def test_killed_worker_costs_its_trial_one_attempt(
    sweep_file: Path, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, killed_actors = tmp_path / "out", []
    epoch = ProgressCallback.epoch

    def actors() -> list[psutil.Process]:
        family = psutil.Process().children(recursive=True)
        return [child for child in family if any("Trainable" in word for word in _words(child))]

    def kill_in_the_middle(callback: ProgressCallback, *arguments: Any) -> None:
        """Kill the actor of the second trial once its first epoch is told."""
        epoch(callback, *arguments)
        if len(results(out)) == 1 and not killed_actors:
            until_true(lambda: len(actors()) == 1)  # its name is changed by Ray with each step
            (actor,) = actors()
            actor.kill()
            killed_actors.append(actor.pid)

    monkeypatch.setattr(ProgressCallback, "epoch", kill_in_the_middle)
    run_here(sweep_file, f"out={out}", "resources.retries=1")
    assert len(killed_actors) == 1
    assert sorted(result["attempts"] for result in results(out)) == [1, 1, 1, 2]
    pd.testing.assert_frame_equal(predictions(out), predictions(undisturbed), atol=1e-6)


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_or_stopped_job_leaves_the_ledger_intact_and_says_130(
    number: signal.Signals, sweep_file: Path, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    out = tmp_path / "out"
    process = start(sweep_file, f"out={out}", program=QUICK)
    until(lambda: len(results(out)) >= 1, process)
    stopped = [psutil.Process(process.pid)]
    if number == signal.SIGTERM:  # `ray job stop` sends it to all that the command has started
        stopped += [child for child in stopped[0].children() if "moa_ray.tracking.mlflow_runs" in _words(child)]
        assert len(stopped) == 2
    for process_to_stop in stopped:
        process_to_stop.send_signal(number)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert "MLflow" not in output
    assert not list(out.glob("ledger/.writing-*"))
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert "KILLED" in {run.info.status for run in runs}
    assert "RUNNING" not in {run.info.status for run in runs}


@pytest.mark.usefixtures("quick_trials_here")
def test_recipe_that_diverges_fails_alone(sweep_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    output = run_here(
        sweep_file,
        f"out={out}",
        "recipe={backbone: SmallCNN, weights: random, image_size: 32}",
        "search.space.learning_rate=[0.01, 1e30]",
        "recipe.epochs=1",
    )
    ends = [(result["recipe"]["learning_rate"], result["status"]) for result in results(out)]
    assert sorted(ends) == [(0.01, "finished")] * 4 + [(1e30, "diverged")] * 4
    assert "epoch 1" in output


@pytest.mark.usefixtures("quick_trials_here")
def test_mlflow_that_is_down_stops_nothing_and_is_caught_up(
    sweep_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    out = tmp_path / "out"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    output = run_here(sweep_file, f"out={out}", "tracking.uri=http://127.0.0.1:9", "recipe.epochs=1")
    assert output.count("cannot be reached") == 1
    store = f"sqlite:///{tmp_path / 'later.db'}"
    run_here(sweep_file, f"out={out}", f"tracking.uri={store}", "recipe.epochs=1")
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 6


@pytest.mark.usefixtures("quick_trials_here")
def test_changed_sweep_is_refused_with_its_keys_and_fresh_starts_beside(undisturbed: Path, sweep_file: Path) -> None:
    status, output = attempt_here(sweep_file, "seed=4")
    assert status == 2
    assert "seed" in output
    assert "--fresh" in output
    assert "Traceback" not in output
    run_here(sweep_file, "seed=4", "recipe.epochs=1", "--fresh")
    assert len(results(undisturbed.with_name("out-2"))) == 4


def test_resources_that_this_machine_lacks_are_refused(sweep_file: Path, tmp_path: Path) -> None:
    status, output = attempt_here(sweep_file, f"out={tmp_path / 'out'}", "resources.gpus=9")
    assert status == 2
    assert "resources: each trial of SmallCNN asks for 1 CPU, 9 GPUs, which no node has" in output


def test_plan_starts_nothing(sweep_file: Path, tmp_path: Path) -> None:
    status, output = attempt_here(sweep_file, f"out={tmp_path / 'out'}", "--plan")
    assert status == 0
    assert "trials       4" in output
    assert not (tmp_path / "out").exists()


def test_weights_that_do_not_fit_are_said_before_any_trial(sweep_file: Path, tmp_path: Path) -> None:
    weights = tmp_path / "other.weights.h5"
    weights.write_bytes(b"no weights")
    status, output = attempt_here(sweep_file, f"out={tmp_path / 'out'}", f"recipe.weights={weights}")
    assert status == 2
    assert str(weights) in output
    assert "Traceback" not in output
    assert not results(tmp_path / "out")
