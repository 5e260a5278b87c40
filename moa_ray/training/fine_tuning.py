"""Fine-tuning: train a backbone with its head on pixels, augmented anew in each epoch."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from moa_ray.config.recipe import Recipe
from moa_ray.training import models
from moa_ray.training.base import BaseTraining
from moa_ray.training.batches import Batches
from moa_ray.training.data import Data, Rows


class FineTuning(BaseTraining):
    """A trial that trains a network on pixels."""

    @staticmethod
    def held(recipe: Recipe, data: Data, on_device: int) -> NDArray[Any] | None:
        """Choose what the network holds in the device's memory.

        Parameters
        ----------
        recipe : Recipe
            The trial's.
        data : Data
            The tiles.
        on_device : int
            Bytes of tiles that the device has room for.

        Returns
        -------
        ndarray of shape (n, size, size, 3), uint8, or None
            The tiles, where there is room for them; else they stream from the memory map.
        """
        tiles = data.tiles[recipe.input_size]
        return tiles if tiles.nbytes <= on_device else None

    @staticmethod
    def network(recipe: Recipe, n_classes: int, array: NDArray[Any] | None) -> keras.Model:
        """Build the network.

        Parameters
        ----------
        recipe : Recipe
            The trial's.
        n_classes : int
            Number of classes.
        array : ndarray, optional
            What it holds.

        Returns
        -------
        keras.Model
        """
        return models.build(recipe, n_classes, array)

    @staticmethod
    def loads_backbone(recipe: Recipe) -> bool:
        """Tell whether pretrained weights are assigned to the network's backbone.

        Parameters
        ----------
        recipe : Recipe
            The trial's.

        Returns
        -------
        bool
        """
        return recipe.weights != "random"

    def _epochs_at_once(self, stop_every: int | None) -> int:
        return 1

    def _to_fit(self, epochs: range) -> dict[str, Any]:
        return {"x": self._dataset(self._shuffled(epochs[0]), self._recipe.batch_size, self._weights)}

    def _probabilities(self, rows: Rows) -> NDArray[np.float32]:
        probabilities: NDArray[np.float32] = self._model.predict(
            self._dataset(rows, self._prediction_batch(rows)), verbose=0
        )
        return probabilities

    def _batches(self, rows: Rows) -> Iterator[Any]:
        dataset = self._dataset(rows, self._prediction_batch(rows))
        for number in range(len(dataset)):
            yield dataset[number][0]

    def _dataset(self, rows: Rows, size: int, weights: NDArray[np.float32] | None = None) -> Batches:
        tiles = None if self._compiled.looks_up else self._data.tiles[self._recipe.input_size]
        return Batches(tiles, self._data.labels, rows, size, weights)
