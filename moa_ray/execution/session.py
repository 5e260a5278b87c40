"""The training process: serve requests of the worker that started it.

It is started as ``python -m moa_ray.execution.session`` by `moa_ray.execution.worker.Worker`.
"""

import dataclasses
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moa_ray.common import child_process, open_set
from moa_ray.common.errors import InputError
from moa_ray.common.schema import BACKBONE, CANDIDATE, FOLD, METHOD, SAMPLE, metadata_columns, probability_column
from moa_ray.execution.out_of_memory import is_out_of_memory
from moa_ray.execution.trial_data import EPOCH, OUTCOME, PRETRAINED, Request, WorkerSettings
from moa_ray.statistics.scores import scores


def main() -> None:
    """Serve requests from the parent process until the connection closes."""
    connection = child_process.connection_to_parent()
    if connection is None:
        return
    import moa_ray.training.trainer  # noqa: F401 - takes seconds, while nobody waits

    try:
        session = _Session(connection.recv(), connection)
        while True:
            connection.send(("", session.step(connection.recv())))
    except EOFError:
        return


class _Session:
    """Train one trial after the other on one compiled model."""

    def __init__(self, settings: WorkerSettings, connection: Connection) -> None:
        self._settings, self._trial_data = settings, settings.trial_data
        self._connection = connection
        self._trainer: Any = None

    def step(self, request: Request | None) -> dict[str, Any]:
        """Train one epoch, or all, of the requested trial, or else of the one under way."""
        from moa_ray.training.data import Diverged

        begun = time.monotonic()
        try:
            if request is not None:
                self._history: list[dict[str, Any]] = []
                self._seconds = self._setup_seconds = 0.0
                self._recipe, self._fold, self._whole = request
                self._start_trial()
                self._setup_seconds = time.monotonic() - begun
            for _ in range(self._recipe.epochs if self._whole else 1):
                epoch = dataclasses.asdict(next(self._epochs))
                self._history.append(epoch)
                predictions = self._evaluate(epoch)
            outcome = None
            if predictions is not None:
                outcome = {"status": "finished", "predictions": predictions, "samples": self._samples()}
        except Diverged as error:
            epoch, outcome = None, {"status": "diverged", "error": str(error)}
        except Exception as error:
            epoch, outcome = None, self._failure(error)
        self._seconds += time.monotonic() - begun
        result: dict[str, Any] = {EPOCH: epoch} if epoch else {}
        if outcome is None:
            return result
        seconds = {"seconds": self._seconds, "setup_seconds": self._setup_seconds}
        return {
            **result,
            OUTCOME: {**outcome, **seconds, "history": pd.DataFrame(self._history), "epochs": len(self._history)},
        }

    def _start_trial(self) -> None:
        from moa_ray.training.data import Split

        if self._trainer is None:
            self._trainer = self._new_trainer()
        rows = self._trial_data.table["row"].to_numpy()
        positions = self._split()
        self._test = self._trial_data.table.iloc[positions["test"]]
        split = Split(**{part: rows[index] for part, index in positions.items()})
        seeds = self._trial_data.seeds(self._fold, self._recipe.seed)
        self._training = self._trainer.start(self._recipe, split, seeds)
        self._epochs = self._training.epochs(self._settings.evaluate_every)

    def _split(self) -> dict[str, NDArray[np.int64]]:
        """Return the rows of the fold's parts; what is wrong with the table is an error of the data."""
        try:
            return self._trial_data.split(self._fold)
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"fold {self._fold}: {error}") from error

    def _new_trainer(self) -> Any:
        from moa_ray.training import devices
        from moa_ray.training.data import Data
        from moa_ray.training.trainer import Trainer

        tiles = {size: _mapped(path) for size, path in self._trial_data.tiles.items()}
        features = {key: _mapped(path) for key, path in self._settings.features.items()}
        data = Data(tiles, self._trial_data.labels(), self._trial_data.classes, features)
        room = self._settings.tiles_share * min(self._settings.gpus, 1.0) * devices.gpu_memory()
        return Trainer(data, self._ask_pretrained, on_device=int(room))

    def _ask_pretrained(self, *key: Any) -> list[NDArray[Any]]:
        self._connection.send((PRETRAINED, key))
        weights: list[NDArray[Any]] = self._connection.recv()
        return weights

    def _evaluate(self, epoch: dict[str, Any]) -> pd.DataFrame | None:
        """Return the predictions after the last epoch; add the held-out accuracies to epochs that are to have them."""
        number, every = len(self._history), self._settings.evaluate_every
        done = number == self._recipe.epochs
        evaluated = every is not None and (done or number % every == 0)
        if not done and not evaluated:
            return None
        predictions = self._predictions()
        held_out = scores(predictions, self._settings.aggregate) if evaluated and len(predictions) else {"n": 0}
        if held_out["n"]:
            epoch["held_out_accuracy"] = held_out["treatment_accuracy"]
            epoch["held_out_tile_accuracy"] = held_out["tile_accuracy"]
        return predictions if done else None

    def _predictions(self) -> pd.DataFrame:
        """Return one row per held-out tile: its metadata, the fold, the candidate, and a probability for each label."""
        probabilities = self._training.predict(self._test["row"].to_numpy())
        return pd.concat([self._keys(), self._labelled(probabilities)], axis=1)

    def _samples(self) -> pd.DataFrame | None:
        """Return one row per held-out tile and sample: as the predictions, with the method and the sample's number."""
        rows, keys, tables = self._test["row"].to_numpy(), self._keys(), []
        for method, draws in self._settings.samples.items():
            if method not in self._training.methods:
                continue  # every candidate can be sampled, but a linear probe need not
            drawn = self._training.samples(method, rows, draws)
            repeated = keys.iloc[np.tile(np.arange(len(keys)), draws)].reset_index(drop=True)
            repeated = repeated.assign(**{METHOD: method, SAMPLE: np.repeat(np.arange(draws), len(keys))})
            tables.append(pd.concat([repeated, self._labelled(drawn.reshape(-1, drawn.shape[-1]))], axis=1))
        return pd.concat(tables, ignore_index=True) if tables else None

    def _keys(self) -> pd.DataFrame:
        """Return the columns that name the held-out tiles, the fold and the candidate."""
        keys = self._test[metadata_columns(self._test)].reset_index(drop=True)
        names = {FOLD: self._fold, CANDIDATE: self._recipe.candidate, BACKBONE: self._recipe.backbone}
        return open_set.with_marks(keys.assign(**names))

    def _labelled(self, probabilities: NDArray[np.float32]) -> pd.DataFrame:
        return pd.DataFrame(probabilities, columns=[probability_column(label) for label in self._trial_data.classes])

    def _failure(self, error: Exception) -> dict[str, Any]:
        text = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
        if not is_out_of_memory(error):
            return {"status": "crashed", "error": text, "recurs": isinstance(error, InputError)}
        if 0 < self._settings.gpus < 1:
            text = (
                f"{int(1 / self._settings.gpus)} trials share a GPU and do not fit into its memory together; raise "
                f"resources.gpus, which is {self._settings.gpus:g}, or lower batch_size\n{text}"
            )
        return {"status": "out_of_memory", "error": text}


def _mapped(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


if __name__ == "__main__":
    main()
