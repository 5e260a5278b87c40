"""The process that trains, one for each slot. It is ended when another model must be compiled.

TensorFlow never gives back what it traced: measured with Keras 3.15 on TensorFlow, a network compiled in place of
another leaves about 200 MB behind, whatever is cleared and collected. A process that ends gives all of it back, on a
GPU too, and when the system kills it for want of memory, whoever asked it for an epoch is still there to say so.
"""

import dataclasses
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moa_ray import metrics, process, unknowns
from moa_ray.ledger import Status
from moa_ray.recipe import Recipe
from moa_ray.study import Material
from moa_ray.tables import BACKBONE, CANDIDATE, FOLD, METHOD, SAMPLE, metadata_columns, probability_column

# What a step returns: the epoch that it did, and with the last one how the trial ended.
EPOCH, OUTCOME = "epoch", "outcome"
_PRETRAINED = "pretrained"
_LAST_WORDS = 2000  # bytes

Pretrained = Callable[[str, str, int], list[NDArray[Any]]]


@dataclass(frozen=True)
class Bench:
    """What a process works with.

    features : for each `Recipe.features_key` the file of a frozen backbone's features
    cpus : threads that it uses
    gpus : share of a GPU that it has; 0 without one
    tiles_share : share of its GPU memory that tiles may take
    evaluate_every : the held-out tiles are predicted after each so many epochs, too; None for after the last alone
    aggregate : how tiles become treatments then
    samples : how often the held-out tiles are predicted besides after the last epoch, by method
    """

    material: Material
    features: Mapping[tuple[Any, ...], Path] = field(default_factory=dict)
    cpus: int = 1
    gpus: float = 0.0
    tiles_share: float = 0.5
    evaluate_every: int | None = None
    aggregate: metrics.How = "median"
    samples: Mapping[str, int] = field(default_factory=dict)


class Worker:
    """The process as seen by who asks it.

    pretrained : (backbone, weights, image size) to the backbone's weights
    """

    def __init__(self, bench: Bench, pretrained: Pretrained) -> None:
        self._bench, self._pretrained = bench, pretrained
        self._signature: tuple[Any, ...] | None = None
        self._begin()

    def start(self, recipe: Recipe, fold: str, whole: bool = False) -> None:
        """Take the next trial. A process that holds another model makes way for a new one.

        whole : whether a step is the whole trial
        """
        if self._signature not in (None, recipe.signature):
            self.close()
            self._begin()
        self._signature = recipe.signature
        self._ask: tuple[Recipe, str, bool] | None = (recipe, fold, whole)

    def step(self) -> dict[str, Any]:
        """Train an epoch, or all; with the last one predict the held-out tiles. What goes wrong is an outcome too."""
        try:
            self._connection.send(self._ask)
            self._ask = None
            while True:
                kind, asked = self._connection.recv()
                if kind != _PRETRAINED:
                    break
                self._connection.send(self._pretrained(*asked))
            value: dict[str, Any] = asked
        except (EOFError, OSError):
            value = {OUTCOME: _lost(self._process.wait(), self._last_words())}
        if value.get(OUTCOME, {}).get("status") in ("crashed", "out_of_memory"):
            # A process in which something failed is not trusted with the next trial.
            self.close()
            self._begin()
        return value

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.kill()
        self._process.wait()
        self._said.close()

    def _begin(self) -> None:
        self._signature = None
        threads = str(self._bench.cpus)
        environment = {
            "OMP_NUM_THREADS": threads,
            "TF_NUM_INTRAOP_THREADS": threads,
            "TF_NUM_INTEROP_THREADS": "1",
        }
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - it is open as long as the process lives
        self._process, self._connection = process.begin("moa_ray.worker", environment, stderr=self._said)
        self._connection.send(self._bench)

    def _last_words(self) -> str:
        """The end of what the process said on stderr, where C++ says why it aborts."""
        self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - _LAST_WORDS))
        return self._said.read().decode(errors="replace").strip()


def _lost(status: int, last_words: str = "") -> dict[str, Any]:
    """The outcome of a trial whose process is gone; it may have said why."""
    if status == -signal.SIGKILL:
        text = (
            "the training process was killed, as the system does where memory runs out; give a trial fewer neighbours"
        )
        return {"status": "out_of_memory", "error": f"{text} (resources.concurrent) or a smaller batch_size"}
    kind: Status = "out_of_memory" if _tells_of_memory(last_words) else "crashed"
    return {"status": kind, "error": f"the training process ended with status {status}\n{last_words}".strip()}


# Inside the process ---------------------------------------------------------------------------------------------------


def main() -> None:
    """Do what comes through a socket until it is closed."""
    connection = process.connection_to_parent()
    if connection is None:
        return
    import moa_ray.training  # noqa: F401 - takes seconds, while nobody waits

    try:
        session = _Session(connection.recv(), connection)
        while True:
            connection.send(("", session.step(connection.recv())))
    except EOFError:
        return


class _Session:
    """One trial after the other on one warm model."""

    def __init__(self, bench: Bench, connection: Connection) -> None:
        self._bench, self._material = bench, bench.material
        self._connection = connection
        self._trainer: Any = None

    def step(self, given: tuple[Recipe, str, bool] | None) -> dict[str, Any]:
        """One epoch, or all, of the trial that is given, or else of the last one."""
        from moa_ray.training import Diverged

        begun = time.monotonic()
        try:
            if given is not None:
                self._history: list[dict[str, Any]] = []
                self._seconds = self._setup_seconds = 0.0
                self._recipe, self._fold, self._whole = given
                self._begin()
                self._setup_seconds = time.monotonic() - begun
            for _ in range(self._recipe.epochs if self._whole else 1):
                epoch = dataclasses.asdict(next(self._epochs))
                self._history.append(epoch)
                predictions = self._predicted(epoch)
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

    def _begin(self) -> None:
        from moa_ray.training import Split

        if self._trainer is None:
            self._trainer = self._new_trainer()
        rows = self._material.table["row"].to_numpy()
        positions = self._material.split(self._fold)
        self._test = self._material.table.iloc[positions["test"]]
        split = Split(**{part: rows[index] for part, index in positions.items()})
        seeds = self._material.seeds(self._fold, self._recipe.seed)
        self._training = self._trainer.start(self._recipe, split, seeds)
        self._epochs = self._training.epochs(self._bench.evaluate_every)

    def _new_trainer(self) -> Any:
        from moa_ray import models
        from moa_ray.training import Data, Trainer

        tiles = {size: _mapped(path) for size, path in self._material.tiles.items()}
        features = {key: _mapped(path) for key, path in self._bench.features.items()}
        data = Data(tiles, self._material.labels(), self._material.classes, features)
        room = self._bench.tiles_share * min(self._bench.gpus, 1.0) * models.gpu_memory()
        return Trainer(data, self._ask_pretrained, on_device=int(room))

    def _ask_pretrained(self, *key: Any) -> list[NDArray[Any]]:
        self._connection.send((_PRETRAINED, key))
        weights: list[NDArray[Any]] = self._connection.recv()
        return weights

    def _predicted(self, epoch: dict[str, Any]) -> pd.DataFrame | None:
        """The predictions after the last epoch. What an epoch's come to is added to it where it is to be evaluated."""
        number, every = len(self._history), self._bench.evaluate_every
        done = number == self._recipe.epochs
        evaluated = every is not None and (done or number % every == 0)
        if not done and not evaluated:
            return None
        predictions = self._predictions()
        scored = unknowns.known(predictions)
        if evaluated and len(scored):
            scores = metrics.scores(scored, self._bench.aggregate)
            epoch["held_out_accuracy"] = scores["treatment_accuracy"]
            epoch["held_out_tile_accuracy"] = scores["tile_accuracy"]
        return predictions if done else None

    def _predictions(self) -> pd.DataFrame:
        """One row a held-out tile: its metadata, the fold, the candidate, and a probability for each label."""
        probabilities = self._training.predict(self._test["row"].to_numpy())
        return pd.concat([self._named(), self._labelled(probabilities)], axis=1)

    def _samples(self) -> pd.DataFrame | None:
        """One row a held-out tile and sample: as the predictions are, with the method and the sample's number."""
        rows, named, tables = self._test["row"].to_numpy(), self._named(), []
        for method, draws in self._bench.samples.items():
            if not _can_be_sampled(self._recipe, method):
                continue
            drawn = self._training.samples(method, rows, draws)
            keys = named.iloc[np.tile(np.arange(len(named)), draws)].reset_index(drop=True)
            keys = keys.assign(**{METHOD: method, SAMPLE: np.repeat(np.arange(draws), len(named))})
            tables.append(pd.concat([keys, self._labelled(drawn.reshape(-1, drawn.shape[-1]))], axis=1))
        return pd.concat(tables, ignore_index=True) if tables else None

    def _named(self) -> pd.DataFrame:
        """What names the held-out tiles and who predicts them."""
        keys = self._test[metadata_columns(self._test)].reset_index(drop=True)
        names = {FOLD: self._fold, CANDIDATE: self._recipe.candidate, BACKBONE: self._recipe.backbone}
        return keys.assign(**names)

    def _labelled(self, probabilities: NDArray[np.float32]) -> pd.DataFrame:
        return pd.DataFrame(probabilities, columns=[probability_column(label) for label in self._material.classes])

    def _failure(self, error: Exception) -> dict[str, Any]:
        text = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
        if not is_out_of_memory(error):
            return {"status": "crashed", "error": text}
        if 0 < self._bench.gpus < 1:
            text = (
                f"{int(1 / self._bench.gpus)} trials share a GPU and do not fit into its memory together; raise "
                f"resources.gpus, which is {self._bench.gpus:g}, or lower batch_size\n{text}"
            )
        return {"status": "out_of_memory", "error": text}


def _can_be_sampled(recipe: Recipe, method: str) -> bool:
    """Whether a method says anything of a recipe. A sweep's own recipes all can be; heads of a first look need not."""
    return {"mc_dropout": recipe.has_dropout, "laplace": recipe.freeze == "all"}[method]


# What libraries say, of a GPU's memory or the machine's, where the kind of the error does not tell.
_OF_MEMORY = (
    "out of memory",  # PyTorch, XLA
    "out_of_memory",  # CUDA
    "resource_exhausted",  # XLA, JAX
    "oom when allocating",  # TensorFlow
    "dst tensor is not initialized",  # TensorFlow, where a copy to a GPU finds no room
    "status_alloc_failed",  # cuDNN, cuBLAS
    "allocate memory",  # PyTorch on a CPU, the system
    "failed to allocate",  # CUDA's allocators
    "bad_alloc",  # C++, which ends the process with it
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of any backend, or what caused it, says that memory ran out."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"MemoryError", "ResourceExhaustedError", "OutOfMemoryError"} or _tells_of_memory(str(error)):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def _tells_of_memory(text: str) -> bool:
    return any(phrase in text.lower() for phrase in _OF_MEMORY)


def _mapped(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


if __name__ == "__main__":
    main()
