"""Monte Carlo dropout: predictions of networks that their dropout layers have thinned.

One sample is one thinned network, that predicts all tiles. A treatment is the median over many tiles, over which masks
drawn for each tile would average out. Only dropout layers are at work: batch normalisation uses its moving averages,
and nothing is augmented. Masks are NumPy's draws, so that they are the same on any backend.
Source: Gal and Ghahramani 2016, "Dropout as a Bayesian approximation".
"""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from moa_ray.models import Dropout

_KINDS = (Dropout, keras.layers.Dropout)


class Thinned(keras.layers.Layer):  # type: ignore[misc]
    """Stands for a dropout layer: a factor for each value, the same for all tiles, held in a variable."""

    def __init__(self, layer: Any) -> None:
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        self._rate_of = layer

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shared = getattr(self._rate_of, "noise_shape", None) or [None] * len(input_shape)
        shape = [size if noise is None else noise for size, noise in zip(input_shape, shared, strict=True)][1:]
        self.mask = self.add_weight(shape, "ones", trainable=False, name="mask")

    def call(self, inputs: Any) -> Any:
        return inputs * keras.ops.cast(self.mask, inputs.dtype)

    def draw(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """A mask: 0 for what is dropped, else what keeps the mean."""
        rate = float(np.asarray(self._rate_of.rate))
        mask: NDArray[np.float32] = ((rng.random(self.mask.shape) >= rate) / (1 - rate)).astype(np.float32)
        return mask


class Thinning:
    """A compiled model with thinned layers in place of its dropout layers; it shares all others, and their weights."""

    def __init__(self, model: keras.Model) -> None:
        self._layers: list[Thinned] = []
        # Of a compiled model Keras would clone the optimizer too.
        plain = keras.Model(model.inputs, model.outputs)
        self._network = keras.models.clone_model(plain, clone_function=self._thinned)
        self._network.jit_compile = model.jit_compile

    def predict(self, batches: Iterable[Any], draws: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Probabilities of the rows of all batches, (draws, rows, classes)."""
        masks = [[layer.draw(rng) for layer in self._layers] for _ in range(draws)]
        # A batch is read once, and not once a sample.
        return np.concatenate([self._samples(batch, masks) for batch in batches], axis=1)

    def _samples(self, batch: Any, masks: list[list[NDArray[np.float32]]]) -> NDArray[np.float32]:
        taken = []
        for drawn in masks:
            for layer, mask in zip(self._layers, drawn, strict=True):
                layer.mask.assign(mask)
            taken.append(np.asarray(self._network.predict_on_batch(batch), dtype=np.float32))
        return np.stack(taken)

    def _thinned(self, layer: Any) -> Any:
        if isinstance(layer, _KINDS):
            self._layers.append(Thinned(layer))
            return self._layers[-1]
        if isinstance(layer, keras.Model) and any(isinstance(inner, _KINDS) for inner in layer.layers):
            return keras.models.clone_model(layer, clone_function=self._thinned)
        return layer
