"""The linear probe: train a head alone, on features that a frozen backbone gave before (``freeze: all``).

A step of a head is shorter than a call of Keras, so that an epoch is one call of what is compiled, and many epochs one
call of ``fit``.
"""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from moa_ray.common.random_streams import OUTSIDE_EPOCHS, TrialStream, rng
from moa_ray.config.recipe import Recipe
from moa_ray.training import laplace, models
from moa_ray.training.base import BaseTraining, Sampler
from moa_ray.training.batches import filled
from moa_ray.training.data import Data, Rows

# Rows of features that one call of `fit` takes over its epochs: to begin one takes longer than an epoch of a head.
_ROWS_AT_ONCE = 4_000_000


class LinearProbe(BaseTraining):
    """A trial that trains a head on frozen features."""

    @staticmethod
    def held(recipe: Recipe, data: Data, on_device: int) -> NDArray[Any] | None:
        """Choose what the network holds in the device's memory.

        Parameters
        ----------
        recipe : Recipe
            The trial's.
        data : Data
            The tiles and their features.
        on_device : int
            Not looked at: features are few.

        Returns
        -------
        ndarray of shape (orientations * n, channels), float32
            The features of all orientations, the tiles as they are first.
        """
        features = data.features[recipe.features_key]
        return features.reshape(-1, features.shape[-1])

    @staticmethod
    def network(recipe: Recipe, n_classes: int, array: NDArray[Any] | None) -> keras.Model:
        """Build the network.

        Parameters
        ----------
        recipe : Recipe
            The trial's.
        n_classes : int
            Number of classes.
        array : ndarray of shape (n, channels), float32
            The features that it holds.

        Returns
        -------
        keras.Model
        """
        assert array is not None
        return models.build_head(recipe, n_classes, array)

    @staticmethod
    def loads_backbone(recipe: Recipe) -> bool:
        """Tell that no pretrained weights are assigned: the features were taken with them.

        Parameters
        ----------
        recipe : Recipe
            The trial's.

        Returns
        -------
        bool
            False.
        """
        return False

    @property
    def methods(self) -> tuple[str, ...]:
        """The sampling methods that say anything of this trial's network."""
        return (*super().methods, "laplace")

    def _epochs_at_once(self, stop_every: int | None) -> int:
        most = max(1, _ROWS_AT_ONCE // len(self._split.train))
        if stop_every is None:
            return most
        return stop_every if stop_every <= most else 1

    def _to_fit(self, epochs: range) -> dict[str, Any]:
        size = self._recipe.batch_size
        orders = [filled(self._shuffled(epoch), size) for epoch in epochs]
        batches = len(orders[0]) // size
        self._compile_epoch(batches)
        labels = self._data.labels[np.concatenate(orders)]
        return {
            "x": np.concatenate([self._turned(rows, epoch) for rows, epoch in zip(orders, epochs, strict=True)]),
            "y": labels,
            "sample_weight": self._weights[labels],
            "batch_size": size,
            "steps_per_epoch": batches,
            "epochs": len(epochs),
        }

    def _compile_epoch(self, batches: int) -> None:
        """Make the next call of ``fit`` run epochs of so many batches, each as one compiled call."""
        self._model.steps_per_execution = batches
        self._model.train_function = self._compiled.epochs.get(batches)
        self._model.make_train_function()
        self._compiled.epochs[batches] = self._model.train_function

    def _turned(self, rows: Rows, epoch: int) -> NDArray[np.int32]:
        """Rows of the held features: each tile in an orientation that the epoch draws for it."""
        generator = rng(self._seed, epoch, TrialStream.ORIENTATIONS)
        orientations = generator.integers(self._recipe.features_key[-1], size=len(rows))
        return (rows + len(self._data.labels) * orientations).astype("int32")

    def _probabilities(self, rows: Rows) -> NDArray[np.float32]:
        # A head is done before Keras' `predict` has begun.
        return np.concatenate([np.asarray(self._model.predict_on_batch(batch)) for batch in self._batches(rows)])

    def _batches(self, rows: Rows) -> Iterator[Any]:
        size = self._prediction_batch(rows)
        whole = filled(rows, size).astype("int32")
        yield from np.split(whole, len(whole) // size)

    def _samplers(self) -> dict[str, Sampler]:
        return {**super()._samplers(), "laplace": self._redrawn}

    def _redrawn(self, rows: Rows, draws: int) -> NDArray[np.float32]:
        """Probabilities by heads around the trained one, on the features of the tiles as they are."""
        features = self._data.features[self._recipe.features_key][0]
        head, train = self._model.get_layer("probabilities"), self._split.train
        weights = self._weights[self._data.labels[train]]
        posterior = laplace.fit(features[train], weights, np.asarray(head.kernel), np.asarray(head.bias))
        return posterior.predict(features[rows], draws, rng(self._seed, OUTSIDE_EPOCHS, TrialStream.LAPLACE))
