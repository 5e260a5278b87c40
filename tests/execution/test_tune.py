"""Trials on a real Ray of this machine: resources, shared tiles, and what goes wrong in a worker."""

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

from moa_ray.common.schema import COMPOUND, CONCENTRATION, FIELD, LABEL, PLATE, TILE, WELL
from moa_ray.config.recipe import Recipe
from moa_ray.config.resources import Resources
from moa_ray.execution import capacity, cluster, sharing, tune
from moa_ray.execution.capacity import Slots
from moa_ray.execution.trial_data import OUTCOME, TrialData, WorkerSettings
from moa_ray.screens.folds import Fold
from moa_ray.search.grid import Grid
from moa_ray.search.plan import Assignment
from moa_ray.tracking.results import Result

pytestmark = pytest.mark.ray

RECIPE = Recipe(backbone="SmallCNN", weights="random", image_size=32, epochs=1, batch_size=4)


class Notes:
    """A callback that keeps what it hears, and which processes train meanwhile."""

    def __init__(self) -> None:
        self.ends: list[tuple[Result, bool]] = []
        self.epochs: list[Mapping[str, Any]] = []
        self.processes: set[int] = set()

    def started(self, assignment: Assignment) -> None:
        """Not kept."""

    def epoch(self, assignment: Assignment, epoch: Mapping[str, Any]) -> None:
        self.epochs.append(epoch)

    def ended(self, result: Result, final: bool) -> None:
        self.ends.append((result, final))
        for process in psutil.Process().children(recursive=True):  # another sweep may run on this machine
            with suppress(psutil.Error):  # it has just ended
                self.processes |= {process.pid} if "moa_ray.execution.session" in process.cmdline() else set()


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    with cluster.connect(None):
        yield


@pytest.fixture
def trial_data(tmp_path: Path) -> TrialData:
    """Four compounds of two labels, one tile each, told apart by their brightness."""
    table = pd.DataFrame(
        {
            PLATE: "P1",
            WELL: ["B02", "B03", "B04", "B05"],
            FIELD: "1",
            TILE: "0-0",
            COMPOUND: ["a1", "a2", "b1", "b2"],
            CONCENTRATION: 1.0,
            LABEL: ["A", "A", "B", "B"],
            "row": np.arange(4),
        }
    )
    tiles = np.zeros((4, 32, 32, 3), dtype=np.uint8)
    tiles[2:] = 200
    np.save(tmp_path / "tiles-32.npy", tiles)
    folds = {f"compound={name}": Fold(f"compound={name}", COMPOUND, name) for name in table[COMPOUND]}
    return TrialData(table, ("A", "B"), folds, {32: tmp_path / "tiles-32.npy"}, seed=0)


def run(
    trial_data: TrialData,
    folds: list[str],
    retries: int = 0,
    recipes: Sequence[Recipe] = (RECIPE,),
    concurrent: int = 1,
) -> Notes:
    notes = Notes()
    plan = Grid([(recipe, fold) for recipe in recipes for fold in folds], retries)
    slots = Slots(1, 0, concurrent)
    tune.run(plan, tune.trainable(WorkerSettings(trial_data), list(recipes)), slots, [notes])
    return notes


def test_each_fold_comes_back_with_its_own_tiles(trial_data: TrialData) -> None:
    notes = run(trial_data, list(trial_data.folds))
    assert [final for _, final in notes.ends] == [True] * 4
    for result, _ in notes.ends:
        assert result.status == "finished"
        assert result.predictions is not None
        assert result.history is not None
        assert list("compound=" + result.predictions[COMPOUND]) == [result.fold]
        assert len(result.history) == RECIPE.epochs
    assert len(notes.epochs) == 4


def test_each_of_two_workers_keeps_its_model_to_the_end(trial_data: TrialData) -> None:
    recipes = [RECIPE, dataclasses.replace(RECIPE, optimizer="adam")]
    notes = run(trial_data, list(trial_data.folds), recipes=recipes, concurrent=2)
    assert sorted(result.status for result, _ in notes.ends) == ["finished"] * 8
    assert len(notes.processes) <= 3  # where one worker is done early it helps the other


def test_processes_end_with_the_run(trial_data: TrialData) -> None:
    notes = run(trial_data, ["compound=a1"])
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in notes.processes if psutil.pid_exists(pid)], timeout=60)
    assert alive == []


def test_trial_that_fails_is_tried_again_and_then_reported_with_its_error(trial_data: TrialData) -> None:
    trial_data.tiles[32].write_bytes(b"no array")
    notes = run(trial_data, ["compound=a1"], retries=1)
    assert [(result.status, result.attempts, final) for result, final in notes.ends] == [
        ("crashed", 1, False),
        ("crashed", 2, True),
    ]
    assert all(result.error for result, _ in notes.ends)


def test_error_in_training_is_a_crash_that_names_it(trial_data: TrialData) -> None:
    broken = TrialData(
        trial_data.table.assign(row=[0, 1, 2, 9]), trial_data.classes, trial_data.folds, trial_data.tiles, 0
    )
    notes = run(broken, ["compound=a1"])
    (result, final), *_ = notes.ends
    assert (result.status, final) == ("crashed", True)
    assert "IndexError" in str(result.error)


def test_worker_that_is_starting_is_kept_while_the_trials_of_another_end(tmp_path: Path) -> None:
    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.01)

    class Apart(tune.FoldTrainable):
        """The worker that comes first does most of the trials while the second is starting, and leaves it one."""

        def setup(self, config: dict[str, Any]) -> None:  # type: ignore[override]
            (tmp_path / f"begun {os.getpid()}").touch()
            try:
                (tmp_path / "first").mkdir()
                self.first = True
            except FileExistsError:
                self.first = False
                wait(lambda: len(list(tmp_path.glob("trial *"))) >= 3)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            return True

        def step(self) -> dict[str, Any]:
            wait(lambda: len(list(tmp_path.glob("begun *"))) >= 2)
            if self.first and len(list(tmp_path.glob("trial *"))) == 3:
                wait(lambda: (tmp_path / "second").exists())
            (tmp_path / (f"trial {time.monotonic_ns()}" if self.first else "second")).touch()
            return {OUTCOME: {"status": "finished"}, "done": True}

        def cleanup(self) -> None:
            """There is no process to end."""

    notes = Notes()
    folds = [f"compound=c00{number}" for number in range(6)]
    tune.run(Grid([(RECIPE, fold) for fold in folds], 0), Apart, capacity.Slots(1, 0, 2), [notes])
    assert [result.status for result, _ in notes.ends] == ["finished"] * 6
    assert len(list(tmp_path.glob("begun *"))) == 2


def test_file_that_a_node_lacks_comes_from_the_object_store_once(
    trial_data: TrialData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "node"))
    (tmp_path / "node").mkdir()
    path = trial_data.tiles[32]
    (reference,) = sharing.share_files([path]).values()
    elsewhere = tmp_path / "elsewhere" / "tiles-32.npy"
    copy = sharing.on_this_node(elsewhere, {elsewhere: reference})
    assert np.array_equal(np.load(copy), np.load(path))
    assert sharing.on_this_node(elsewhere, {}) == copy
    assert sharing.on_this_node(path, {}) == path


def test_gpu_that_this_machine_lacks_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"resources: each trial of ResNet50 asks for 1 CPU, 0\.5 GPU, .* 1 node with"):
        cluster.slots(Resources(gpus=0.5), ["ResNet50"], None)
    assert cluster.slots(Resources(cpus=1), ["ResNet50"], None) == Slots(1.0, 0.0, None)


def test_ray_that_a_command_begins_is_this_machine_alone() -> None:
    assert cluster.is_alone()
