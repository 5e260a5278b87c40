"""The process that trains: what it gives back, what it survives, and that it grows no further."""

import dataclasses
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

from moa_ray.common.schema import COMPOUND, CONCENTRATION, FIELD, LABEL, PLATE, TILE, WELL, probability_columns
from moa_ray.config.recipe import NO_AUGMENTATION, Recipe
from moa_ray.execution.out_of_memory import is_out_of_memory
from moa_ray.execution.trial_data import EPOCH, OUTCOME, TrialData, WorkerSettings
from moa_ray.execution.worker import Worker, _lost
from moa_ray.screens.folds import Fold
from moa_ray.statistics import scores as statistics_scores

pytestmark = pytest.mark.slow

RECIPE = Recipe(backbone="SmallCNN", weights="random", image_size=16, epochs=2, batch_size=4, augment=NO_AUGMENTATION)
FOLDS = [f"compound=c{number}" for number in range(8)]


@pytest.fixture(scope="module")
def trial_data(tmp_path_factory: pytest.TempPathFactory) -> TrialData:
    """Eight compounds of two labels, four tiles each."""
    number = np.arange(32)
    table = pd.DataFrame(
        {
            PLATE: "P1",
            WELL: [f"B{index:02}" for index in number],
            FIELD: "1",
            TILE: "0-0",
            COMPOUND: [f"c{index // 4}" for index in number],
            CONCENTRATION: 1.0,
            LABEL: np.where(number // 4 % 2, "A", "B"),
            "row": number,
        }
    )
    path = tmp_path_factory.mktemp("tiles") / "tiles-16.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (32, 16, 16, 3), dtype=np.uint8))
    folds = {fold: Fold(fold, COMPOUND, fold.removeprefix("compound=")) for fold in FOLDS}
    return TrialData(table, ("A", "B"), folds, {16: path}, seed=0)


@pytest.fixture(scope="module")
def worker(trial_data: TrialData) -> Iterator[Worker]:
    """One worker for all tests: whatever happened to it, the next trial must go well."""
    worker = Worker(WorkerSettings(trial_data), no_weights)
    yield worker
    worker.close()


def no_weights(*key: Any) -> list[Any]:
    raise AssertionError(f"nobody should ask for the weights of {key}")


def run(worker: Worker, recipe: Recipe = RECIPE, fold: str = FOLDS[0]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The epochs of one trial, and how it ended."""
    worker.start(recipe, fold)
    results = [worker.step()]
    while OUTCOME not in results[-1]:
        results.append(worker.step())
    return [result[EPOCH] for result in results if EPOCH in result], results[-1][OUTCOME]


def process(worker: Worker) -> psutil.Process:
    return psutil.Process(worker._process.pid)


def test_a_trial_gives_its_epochs_and_the_predictions_of_its_fold(worker: Worker) -> None:
    epochs, outcome = run(worker)
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    assert (outcome["status"], outcome["epochs"]) == ("finished", 2)
    assert list(outcome["history"]["loss"]) == [epoch["loss"] for epoch in epochs]
    assert set(outcome["predictions"][COMPOUND]) == {"c0"}
    assert outcome["seconds"] >= outcome["setup_seconds"] + sum(epoch["seconds"] for epoch in epochs) > 0


def test_another_trial_of_the_same_model_finds_the_process_warm_and_its_results_are_a_cold_ones(
    worker: Worker, trial_data: TrialData
) -> None:
    other = dataclasses.replace(RECIPE, learning_rate=0.1, dropout=0.5, momentum=0.5)
    run(worker, other, FOLDS[1])
    pid = process(worker).pid
    _, warm = run(worker, RECIPE, FOLDS[2])
    assert process(worker).pid == pid
    cold = Worker(WorkerSettings(trial_data), no_weights)
    _, expected = run(cold, RECIPE, FOLDS[2])
    cold.close()
    columns = probability_columns(expected["predictions"])
    pd.testing.assert_frame_equal(warm["predictions"][columns], expected["predictions"][columns])


def test_held_out_tiles_are_predicted_after_each_epoch_that_is_asked_for_and_nothing_else_changes(
    worker: Worker, trial_data: TrialData
) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=3)
    _, expected = run(worker, recipe)
    whole = Fold("label=A", LABEL, "A", (COMPOUND,))
    with_label = dataclasses.replace(trial_data, folds={**trial_data.folds, whole.name: whole})
    evaluating = Worker(WorkerSettings(with_label, evaluate_every=2), no_weights)
    epochs, outcome = run(evaluating, recipe)
    _, unknown = run(evaluating, recipe, whole.name)
    evaluating.close()
    pd.testing.assert_frame_equal(outcome["predictions"], expected["predictions"])
    assert ["held_out_accuracy" in epoch for epoch in epochs] == [False, True, True]
    scores = statistics_scores.scores(expected["predictions"])
    last = outcome["history"].iloc[-1]
    assert last["held_out_accuracy"] == scores["treatment_accuracy"]
    assert last["held_out_tile_accuracy"] == scores["tile_accuracy"]
    assert "held_out_accuracy" not in expected["history"]
    # Of a label that is held out whole nothing can be right, so that there is nothing to evaluate.
    assert set(unknown["predictions"][LABEL]) == {"A"}
    assert "held_out_accuracy" not in unknown["history"]


def test_samples_come_with_the_predictions_and_change_nothing(worker: Worker, trial_data: TrialData) -> None:
    recipe = dataclasses.replace(RECIPE, dropout=0.5)
    _, plain = run(worker, recipe)
    assert plain["samples"] is None
    sampling = Worker(WorkerSettings(trial_data, samples={"mc_dropout": 3}), no_weights)
    _, outcome = run(sampling, recipe)
    _, nothing = run(sampling, RECIPE)  # as a linear probe, whose head has no dropout
    _, again = run(sampling, recipe)
    sampling.close()
    pd.testing.assert_frame_equal(outcome["predictions"], plain["predictions"])
    pd.testing.assert_frame_equal(again["samples"], outcome["samples"])
    assert nothing["samples"] is None
    for number, rows in outcome["samples"].groupby("sample"):
        columns = list(plain["predictions"].drop(columns=probability_columns(plain["predictions"])).columns)
        pd.testing.assert_frame_equal(rows[columns].reset_index(drop=True), plain["predictions"][columns])
        assert (number in (0, 1, 2), set(rows["method"])) == (True, {"mc_dropout"})
        np.testing.assert_allclose(rows[probability_columns(rows)].sum(axis=1), 1, atol=1e-5)


def test_members_of_an_ensemble_differ_on_the_same_fold(worker: Worker) -> None:
    tables = [run(worker, dataclasses.replace(RECIPE, seed=seed))[1]["predictions"] for seed in (1, 2, 1)]
    columns = probability_columns(tables[0])
    pd.testing.assert_frame_equal(tables[0], tables[2])
    assert not np.isclose(tables[0][columns], tables[1][columns]).all()
    assert list(tables[0][WELL]) == list(tables[1][WELL])


def test_a_process_ends_when_another_model_must_be_compiled(worker: Worker) -> None:
    run(worker)
    old = process(worker)
    _, outcome = run(worker, dataclasses.replace(RECIPE, optimizer="adam"))
    assert outcome["status"] == "finished"
    assert not old.is_running()
    assert process(worker).pid != old.pid


def test_a_trial_that_was_left_in_its_middle_leaves_nothing_behind(worker: Worker) -> None:
    _, expected = run(worker, RECIPE, FOLDS[3])
    worker.start(RECIPE, FOLDS[4])
    assert OUTCOME not in worker.step()
    _, outcome = run(worker, RECIPE, FOLDS[3])
    pd.testing.assert_frame_equal(outcome["predictions"], expected["predictions"])


def test_a_process_that_the_system_kills_is_out_of_memory_and_the_next_trial_goes_well(worker: Worker) -> None:
    worker.start(RECIPE, FOLDS[0])
    worker.step()
    process(worker).kill()
    outcome = worker.step()[OUTCOME]
    assert outcome["status"] == "out_of_memory"
    assert "resources.concurrent" in outcome["error"]
    assert run(worker)[1]["status"] == "finished"


def test_a_process_that_dies_of_itself_is_a_crash_and_the_next_trial_goes_well(worker: Worker) -> None:
    worker.start(RECIPE, FOLDS[0])
    worker.step()
    process(worker).send_signal(signal.SIGTERM)
    outcome = worker.step()[OUTCOME]
    assert outcome["status"] == "crashed"
    assert outcome["error"].startswith("the training process ended with status -15")
    assert run(worker)[1]["status"] == "finished"


def test_an_error_is_a_crash_that_names_it_and_the_next_trial_has_a_new_process(trial_data: TrialData) -> None:
    broken = dataclasses.replace(trial_data, table=trial_data.table.assign(row=[*range(31), 99]))
    worker = Worker(WorkerSettings(broken), no_weights)
    old = process(worker)
    _, outcome = run(worker)
    assert outcome["status"] == "crashed"
    assert "IndexError" in outcome["error"].partition("\n")[0]
    assert not outcome["recurs"]
    assert not old.is_running()
    worker.close()


def test_an_error_of_the_data_is_a_crash_that_would_come_again(trial_data: TrialData) -> None:
    """Two treatments in a well, which cannot be split into wells to watch and wells to train on."""
    table = trial_data.table.copy()
    table.loc[9, [WELL, COMPOUND]] = [table.at[8, WELL], "c9"]
    worker = Worker(WorkerSettings(dataclasses.replace(trial_data, table=table, validation_share=0.3)), no_weights)
    _, outcome = run(worker)
    worker.close()
    assert outcome["status"] == "crashed"
    assert "rows repeat a key" in outcome["error"]
    assert outcome["recurs"]


def test_a_fold_of_which_no_tile_is_left_predicts_nothing(trial_data: TrialData) -> None:
    table = trial_data.table[trial_data.table[COMPOUND] != "c0"]
    worker = Worker(WorkerSettings(dataclasses.replace(trial_data, table=table), evaluate_every=1), no_weights)
    _, outcome = run(worker)
    worker.close()
    assert outcome["status"] == "finished"
    assert outcome["predictions"].empty


def test_a_loss_that_is_no_number_is_a_divergence_and_the_process_stays(worker: Worker) -> None:
    run(worker)
    pid = process(worker).pid
    _, outcome = run(worker, dataclasses.replace(RECIPE, learning_rate=1e30))
    assert outcome["status"] == "diverged"
    assert "lower the learning rate" in outcome["error"]
    assert process(worker).pid == pid


def test_weights_are_asked_of_whoever_began_the_process(trial_data: TrialData, tmp_path: Path) -> None:
    from moa_ray.training.models import backbone

    weights, asked = backbone("SmallCNN", 16).get_weights(), []

    def pretrained(*key: Any) -> list[Any]:
        asked.append(key)
        return weights

    worker = Worker(WorkerSettings(trial_data), pretrained)
    frozen = dataclasses.replace(RECIPE, weights="some file", freeze=1.0)
    outcomes = [run(worker, frozen, fold)[1]["status"] for fold in FOLDS[:2]]
    worker.close()
    assert outcomes == ["finished", "finished"]
    assert asked == [("SmallCNN", "some file", 16)]  # once: the process holds them from then on


def test_a_process_computes_with_as_many_threads_as_it_was_given_cpus(trial_data: TrialData) -> None:
    threads = {}
    for cpus in (1, 4):
        worker = Worker(WorkerSettings(trial_data, cpus=cpus), no_weights)
        run(worker)
        threads[cpus] = process(worker).num_threads()
        worker.close()
    assert threads[4] >= threads[1] + 3


def test_a_process_ends_with_its_parent() -> None:
    """Also where the parent is killed and can close nothing."""
    code = (
        "import sys, pandas as pd; from moa_ray.execution.worker import *; "
        "from moa_ray.execution.trial_data import TrialData; "
        "worker = Worker(WorkerSettings(TrialData(pd.DataFrame(), (), {}, {}, 0)), print); "
        "print(worker._process.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    psutil.wait_procs([child], timeout=60)
    assert not child.is_running()


def test_memory_is_flat_over_fifty_trials(trial_data: TrialData) -> None:
    """Of the process while it keeps its model, and of its parent however often processes change."""
    worker = Worker(WorkerSettings(trial_data), no_weights)
    driver = psutil.Process(os.getpid())
    memory: list[tuple[int, int]] = []
    recipes = [RECIPE, dataclasses.replace(RECIPE, learning_rate=0.3, dropout=0.3, momentum=0.2)]
    for trial in range(50):
        run(worker, recipes[trial % 2], FOLDS[trial % len(FOLDS)])
        memory.append((process(worker).memory_info().rss, driver.memory_info().rss))
    worker.close()
    child, parent = np.array(memory).T
    assert child[-10:].mean() < 1.02 * child[10:20].mean()
    assert parent[-10:].mean() < 1.02 * parent[10:20].mean()


@dataclasses.dataclass(frozen=True)
class Failing(TrialData):
    """TrialData with which one fold's training fails in the middle of its second epoch.

    how : what fails then
    """

    how: Callable[[], None] = no_weights

    def seeds(self, fold: str, member: int | None = None) -> list[int]:
        """Called in the process that trains, before a trial begins there."""
        if fold == FOLDS[5]:
            import keras

            fit, how = keras.Model.fit, self.how

            class Fails(keras.callbacks.Callback):  # type: ignore[misc]
                def on_train_batch_end(self, batch: int, logs: object = None) -> None:
                    if batch == 1 and keras.ops.convert_to_numpy(self.model.optimizer.iterations) > 8:
                        how()

            def failing(model: Any, *arguments: Any, callbacks: Any = (), **more: Any) -> Any:
                return fit(model, *arguments, callbacks=[*callbacks, Fails()], **more)

            keras.Model.fit = failing
        return super().seeds(fold, member)


def out_of_gpu_memory() -> None:
    """As TensorFlow raises it on a GPU."""
    import tensorflow as tf

    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[32,64,112,112]")


def aborted_for_memory() -> None:
    """As C++ ends a process that cannot allocate."""
    sys.stderr.write("terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n")
    sys.stderr.flush()
    os.abort()


@pytest.mark.parametrize("how", [out_of_gpu_memory, aborted_for_memory])
def test_memory_that_runs_out_in_mid_fit_is_an_outcome_and_the_next_trial_is_as_on_a_fresh_worker(
    how: Callable[[], None], worker: Worker, trial_data: TrialData
) -> None:
    _, expected = run(worker, RECIPE, FOLDS[2])
    parts = {field.name: getattr(trial_data, field.name) for field in dataclasses.fields(trial_data)}
    failing = Worker(WorkerSettings(Failing(**parts, how=how)), no_weights)
    first, old = run(failing, RECIPE, FOLDS[2])[1], process(failing)
    epochs, outcome = run(failing, RECIPE, FOLDS[5])
    _, after = run(failing, RECIPE, FOLDS[2])
    failing.close()
    assert (len(epochs), outcome["status"]) == (1, "out_of_memory")
    assert "OOM when allocating" in outcome["error"] or "bad_alloc" in outcome["error"]
    assert not old.is_running()
    for other in (first, after):
        pd.testing.assert_frame_equal(other["predictions"], expected["predictions"])


def test_the_end_of_a_process_in_words() -> None:
    assert _lost(-signal.SIGKILL)["status"] == "out_of_memory"
    assert _lost(1) == {"status": "crashed", "error": "the training process ended with status 1"}
    aborted = _lost(-signal.SIGABRT, "terminate called after throwing an instance of 'std::bad_alloc'")
    assert aborted["status"] == "out_of_memory"
    assert "bad_alloc" in aborted["error"]


def caused_by(cause: Exception) -> Exception:
    error = RuntimeError("a layer failed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError("no"), True),
        (type("ResourceExhaustedError", (Exception,), {})("OOM when allocating"), True),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("failed call to cuInit: CUDA_ERROR_OUT_OF_MEMORY"), True),
        (type("InternalError", (Exception,), {})("Dst tensor is not initialized."), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), True),
        (caused_by(MemoryError("no")), True),
        (caused_by(KeyError("no")), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("shapes differ"), False),
    ],
)
def test_running_out_of_memory_is_told_from_a_crash(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected
