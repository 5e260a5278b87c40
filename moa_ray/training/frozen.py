"""Take the features of tiles with a frozen backbone, once for all trials of its linear probes."""

import numpy as np
from numpy.typing import NDArray

from moa_ray.config.recipe import Recipe
from moa_ray.training import devices, models
from moa_ray.training.batches import filled


def extract_features(recipe: Recipe, tiles: NDArray[np.uint8], weights: models.Weights) -> NDArray[np.float32]:
    """Compute the pooled features of tiles.

    Parameters
    ----------
    recipe : Recipe
        Of a linear probe.
    tiles : ndarray of shape (n, size, size, 3), uint8
        The tiles.
    weights : list of ndarray
        The backbone's.

    Returns
    -------
    ndarray of shape (orientations, n, channels), float32
        The tile as it is comes first.
    """
    return FeatureExtractor(recipe, weights, len(tiles))(tiles)


class FeatureExtractor:
    """A frozen backbone that gives the features of some tiles after others.

    Parameters
    ----------
    recipe : Recipe
        Of a linear probe.
    weights : list of ndarray
        The backbone's.
    rows : int
        Tiles of one call at most; the batch is chosen by it.
    """

    def __init__(self, recipe: Recipe, weights: models.Weights, rows: int) -> None:
        self._model = models.build_extractor(recipe)
        self._model.get_layer("backbone").set_weights(weights)
        self._orientations, self._batch = recipe.features_key[-1], devices.prediction_batch(recipe, rows)

    def __call__(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute the pooled features of tiles.

        Parameters
        ----------
        tiles : ndarray of shape (n, size, size, 3), uint8
            The tiles.

        Returns
        -------
        ndarray of shape (orientations, n, channels), float32
            The tile as it is comes first.
        """
        features = np.empty((self._orientations, len(tiles), self._model.output_shape[-1]), dtype=np.float32)
        for begin in range(0, len(tiles), self._batch):
            rows = np.arange(begin, min(begin + self._batch, len(tiles)))
            batch = tiles[filled(rows, self._batch)]
            for orientation in range(self._orientations):
                turned = np.ascontiguousarray(_turned(batch, orientation))
                features[orientation, rows] = self._model.predict_on_batch(turned)[: len(rows)]
        return features


def _turned(batch: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Tiles in one of eight orientations: four rotations, then their mirror images."""
    turned = np.rot90(batch, orientation % 4, axes=(1, 2))
    return turned if orientation < 4 else turned[:, :, ::-1]
