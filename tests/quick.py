"""Trials of milliseconds, for sweeps whose tests are about the order of trials and what is kept of them.

Everything of a sweep is real but the network: a softmax regression on each tile's mean and spread of each channel, in
NumPy, takes its place, so that no process has to import TensorFlow and compile. It obeys the protocol of
`moa_ray.training.data.Training`, depends on the recipe's learning rate and diverges where that is too large.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moa_ray.config.recipe import Recipe
from moa_ray.execution import tune
from moa_ray.execution.session import _mapped, _Session
from moa_ray.execution.trial_data import Request, WorkerSettings
from moa_ray.execution.tune import FoldTrainable
from moa_ray.sweep import main
from moa_ray.training.data import Data, Diverged, Epoch, Split


class QuickTraining:
    """One trial of softmax regression by gradient descent, an epoch a step over all training tiles."""

    methods = ()

    def __init__(self, inputs: NDArray[Any], labels: NDArray[np.int64], n_classes: int, recipe: Recipe, split: Split):
        self._inputs, self._recipe, self._split = inputs, recipe, split
        self._targets = np.eye(n_classes)[labels]
        self._weights = np.zeros((inputs.shape[1], n_classes))

    def epochs(self, stop_every: int | None = None) -> Iterator[Epoch]:
        """Take a step of gradient descent each."""
        for number in range(1, self._recipe.epochs + 1):
            loss, accuracy = self._figures(self._split.train)
            inputs = self._inputs[self._split.train]
            gradient = inputs.T @ (self._probabilities(self._split.train) - self._targets[self._split.train])
            self._weights = self._weights - self._recipe.learning_rate * gradient / len(inputs)
            if np.abs(self._weights).max() > 1e6:
                raise Diverged(number)
            watched = self._figures(self._split.validation) if len(self._split.validation) else (None, None)
            yield Epoch(number, loss, accuracy, *watched, self._recipe.learning_rate, 0.001, 1e3 * len(inputs))

    def predict(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Probabilities of the classes."""
        return self._probabilities(rows).astype(np.float32)

    def _figures(self, rows: NDArray[np.int64]) -> tuple[float, float]:
        probabilities, targets = self._probabilities(rows), self._targets[rows]
        right = (probabilities.argmax(axis=1) == targets.argmax(axis=1)).mean()
        return float(-np.log((probabilities * targets).sum(axis=1)).mean()), float(right)

    def _probabilities(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        scores = self._inputs[rows] @ self._weights
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)


class QuickTrainer:
    """Starts such trials on tiles, and linear probes on the features that they are to train on."""

    def __init__(self, data: Data) -> None:
        self._data = data

    def start(self, recipe: Recipe, split: Split, seeds: Sequence[int]) -> QuickTraining:
        """Return a trial at its beginning; it draws nothing, so that seeds change nothing."""
        if recipe.is_linear_probe:
            inputs = self._data.features[recipe.features_key][0].astype(np.float64)
        else:
            pixels = self._data.tiles[recipe.input_size].astype(np.float64) / 255
            inputs = np.concatenate([pixels.mean(axis=(1, 2)), pixels.std(axis=(1, 2))], axis=1)
        inputs = np.column_stack([inputs, np.ones(len(inputs))])
        return QuickTraining(inputs, self._data.labels, len(self._data.classes), recipe, split)


class QuickSession(_Session):
    """The requests of a worker, served in its own process."""

    def __init__(self, settings: WorkerSettings) -> None:
        super().__init__(settings, None)  # type: ignore[arg-type]

    def _new_trainer(self) -> QuickTrainer:
        tiles = {size: _mapped(path) for size, path in self._trial_data.tiles.items()}
        features = {key: _mapped(path) for key, path in self._settings.features.items()}
        return QuickTrainer(Data(tiles, self._trial_data.labels(), self._trial_data.classes, features))


class QuickWorker:
    """A worker without a training process."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._session = QuickSession(settings)
        self._request: Request | None = None

    def start(self, recipe: Recipe, fold: str, whole: bool = False) -> None:
        """Take the next trial."""
        self._request = (recipe, fold, whole)

    def step(self) -> dict[str, Any]:
        """Train an epoch of it."""
        request, self._request = self._request, None
        return self._session.step(request)

    def close(self) -> None:
        """There is no process to end."""


class QuickTrainable(FoldTrainable):
    """What Ray Tune runs, with such a worker."""

    def setup(self, config: dict[str, Any], settings: WorkerSettings, **shared: Any) -> None:  # type: ignore[override]
        """Begin with the first trial."""
        self._worker: Any = QuickWorker(replace(settings, cpus=1))
        self.reset_config(config)


if __name__ == "__main__":  # the command, with these trials, for tests that kill it
    tune.FoldTrainable = QuickTrainable  # type: ignore[misc]
    sys.exit(main(sys.argv[1:]))
