"""What fine-tuning and the linear probe have in common: epochs with their figures, predictions and samples."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from moa_ray.common.random_streams import OUTSIDE_EPOCHS, TrialStream, rng
from moa_ray.config.recipe import Recipe
from moa_ray.training import devices
from moa_ray.training.compilation import CompiledModel
from moa_ray.training.data import Data, Diverged, Epoch, Rows, Split, Training

Sampler = Callable[[Rows, int], NDArray[np.float32]]


class BaseTraining(Training, ABC):
    """One trial under way on a compiled model.

    Parameters
    ----------
    compiled : CompiledModel
        Set to the beginning of this trial.
    data : Data
        The tiles.
    recipe : Recipe
        The hyperparameters.
    split : Split
        Rows to train on, to watch and to predict.
    seed : sequence of int
        All draws of the trial follow from it.
    """

    def __init__(self, compiled: CompiledModel, data: Data, recipe: Recipe, split: Split, seed: Sequence[int]) -> None:
        self._compiled, self._model = compiled, compiled.network
        self._data, self._recipe, self._split, self._seed = data, recipe, split, seed
        self._epoch = 0
        self._weights = class_weights(data.labels[split.train], len(data.classes))
        if recipe.class_weights == "none":
            self._weights = np.ones_like(self._weights)

    @property
    def methods(self) -> tuple[str, ...]:
        """The sampling methods that say anything of this trial's network."""
        return ("mc_dropout",) if self._recipe.has_dropout else ()

    def epochs(self, stop_every: int | None = None) -> Iterator[Epoch]:
        """Train, and yield each epoch as it is over; see `Training.epochs`.

        Parameters
        ----------
        stop_every : int, optional
            After each so many epochs no further one is trained before it is asked for.

        Yields
        ------
        Epoch

        Raises
        ------
        Diverged
            If the loss is no finite number, after the epochs before were yielded.
        """
        at_once = self._epochs_at_once(stop_every)
        for first in range(1, self._recipe.epochs + 1, at_once):
            epochs = range(first, min(first + at_once, self._recipe.epochs + 1))
            follower = _Follower(self, first)
            try:
                self._model.fit(**self._to_fit(epochs), verbose=0, shuffle=False, callbacks=[follower])
            except Diverged as error:
                yield from follower.epochs
                raise error
            yield from follower.epochs

    def predict(self, rows: Rows) -> NDArray[np.float32]:
        """Predict tiles with the network as it is; see `Training.predict`.

        Parameters
        ----------
        rows : ndarray of int64
            Rows of the tiles.

        Returns
        -------
        ndarray of shape (len(rows), n_classes), float32
            Probabilities of the classes, each row summing to 1.

        Raises
        ------
        Diverged
            If they are no finite numbers.
        """
        if not len(rows):
            return np.zeros((0, len(self._data.classes)), dtype=np.float32)
        return self._finite(np.asarray(self._probabilities(rows)[: len(rows)], dtype=np.float32))

    def samples(self, method: str, rows: Rows, draws: int) -> NDArray[np.float32]:
        """Predict tiles with networks that are drawn at random; see `Training.samples`.

        Parameters
        ----------
        method : str
            One of `methods`.
        rows : ndarray of int64
            Rows of the tiles.
        draws : int
            How many networks are drawn.

        Returns
        -------
        ndarray of shape (draws, len(rows), n_classes), float32
            Probabilities of the classes.

        Raises
        ------
        Diverged
            If they are no finite numbers.
        """
        if not len(rows):
            return np.zeros((draws, 0, len(self._data.classes)), dtype=np.float32)
        return self._finite(self._samplers()[method](rows, draws))

    @abstractmethod
    def _epochs_at_once(self, stop_every: int | None) -> int:
        """How many epochs one call of Keras' ``fit`` trains."""

    @abstractmethod
    def _to_fit(self, epochs: range) -> dict[str, Any]:
        """What Keras' ``fit`` is given for some epochs, one after the other."""

    @abstractmethod
    def _probabilities(self, rows: Rows) -> NDArray[np.float32]:
        """Probabilities of rows, and of those that fill up the last batch."""

    @abstractmethod
    def _batches(self, rows: Rows) -> Iterator[Any]:
        """What the network takes to predict rows, a batch at a time."""

    def _samplers(self) -> dict[str, Sampler]:
        return {"mc_dropout": self._thinned}

    def _thinned(self, rows: Rows, draws: int) -> NDArray[np.float32]:
        generator = rng(self._seed, OUTSIDE_EPOCHS, TrialStream.MC_DROPOUT)
        return self._compiled.thinning.predict(self._batches(rows), draws, generator)[:, : len(rows)]

    def _shuffled(self, epoch: int) -> Rows:
        """The training rows in the order of an epoch."""
        return rng(self._seed, epoch).permutation(self._split.train)

    def _prediction_batch(self, rows: Rows) -> int:
        return devices.prediction_batch(self._recipe, len(rows))

    def _finite(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        if not np.isfinite(probabilities).all():
            raise Diverged(self._epoch)
        return probabilities

    def _begin_epoch(self, epoch: int) -> float:
        """Set the learning rate of an epoch, and return it."""
        self._epoch = epoch
        rate = learning_rate(self._recipe, epoch)
        self._model.optimizer.learning_rate.assign(rate)
        return rate

    def _validate(self) -> tuple[float | None, float | None]:
        """Log-loss and accuracy on the validation rows."""
        rows = self._split.validation
        if not len(rows):
            return None, None
        probabilities = self.predict(rows)
        labels = self._data.labels[rows]
        true = np.clip(probabilities[np.arange(len(rows)), labels], 1e-7, 1.0)
        return float(-np.log(true).mean()), float((probabilities.argmax(axis=1) == labels).mean())


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """Return the learning rate of an epoch by the recipe's schedule.

    Parameters
    ----------
    recipe : Recipe
        Its learning rate is that of the first epoch.
    epoch : int
        Counted from 1.

    Returns
    -------
    float
    """
    done = (epoch - 1) / recipe.epochs
    factors = {
        "constant": 1.0,
        "step": 0.1 ** (3 * (epoch - 1) // recipe.epochs),
        "cosine": 0.5 * (1 + math.cos(math.pi * done)),
    }
    return recipe.learning_rate * factors[recipe.schedule]


def class_weights(labels: NDArray[np.int64], n_classes: int) -> NDArray[np.float32]:
    """Weigh classes by the inverse of their frequency.

    Parameters
    ----------
    labels : ndarray of shape (n,), int64
        Class index of each training tile.
    n_classes : int
        Number of classes.

    Returns
    -------
    ndarray of shape (n_classes,), float32
        n / (classes that occur x count) for each class; 0 for one that does not occur.
    """
    counts = np.bincount(labels, minlength=n_classes)
    present = counts > 0
    weights = np.zeros(n_classes, dtype=np.float32)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return weights


class _Follower(keras.callbacks.Callback):  # type: ignore[misc]
    """Goes along with a training: sets its learning rate, keeps its epochs, ends it at a loss that is no number."""

    def __init__(self, training: BaseTraining, first: int) -> None:
        super().__init__()
        self._training, self._first = training, first
        self.epochs: list[Epoch] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._begun = time.perf_counter()
        self._rate = self._training._begin_epoch(self._first + epoch)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if logs is not None and not math.isfinite(float(logs["loss"])):
            raise Diverged(self._first + len(self.epochs))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        seconds = time.perf_counter() - self._begun
        figures = float(logs["loss"]), float(logs["accuracy"]), *self._training._validate()
        speed = len(self._training._split.train) / seconds
        self.epochs.append(Epoch(self._first + epoch, *figures, self._rate, seconds, speed))
