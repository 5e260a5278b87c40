"""Monte Carlo dropout: predictions of networks that their dropout layers have thinned.

One sample is one thinned network, that predicts all tiles. A treatment is the median over many tiles, over which masks
drawn for each tile would average out. Only dropout layers are at work: batch normalisation uses its moving averages,
and nothing is augmented. Masks are NumPy's draws, so that they are the same on any backend.

References
----------
Gal and Ghahramani 2016, "Dropout as a Bayesian approximation".
"""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from moa_ray.training.layers import Dropout

_KINDS = (Dropout, keras.layers.Dropout)


class Thinned(keras.layers.Layer):  # type: ignore[misc]
    """Stand in for a dropout layer: a factor for each value, the same for all tiles, held in a variable.

    Parameters
    ----------
    layer : keras.layers.Layer
        The dropout layer; its rate is read at each draw.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        self._rate_of = layer

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Add the mask, all ones: a factor for each value that the dropout layer drops by itself.

        Parameters
        ----------
        input_shape : tuple of int or None
            Of the layer's inputs, the batch first.
        """
        shared = getattr(self._rate_of, "noise_shape", None) or [None] * len(input_shape)
        shape = [size if noise is None else noise for size, noise in zip(input_shape, shared, strict=True)][1:]
        self.mask = self.add_weight(shape, "ones", trainable=False, name="mask")

    def call(self, inputs: Any) -> Any:
        """Multiply inputs by the mask.

        Parameters
        ----------
        inputs : tensor of shape (batch, ...)
            What the dropout layer would see.

        Returns
        -------
        tensor of the same shape
        """
        return inputs * keras.ops.cast(self.mask, inputs.dtype)

    def draw(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """Draw a mask.

        Parameters
        ----------
        rng : Generator
            Draws what is dropped.

        Returns
        -------
        ndarray, float32
            0 for what is dropped, else the factor that keeps the mean, ``1 / (1 - rate)``.
        """
        rate = float(np.asarray(self._rate_of.rate))
        mask: NDArray[np.float32] = ((rng.random(self.mask.shape) >= rate) / (1 - rate)).astype(np.float32)
        return mask


class Thinning:
    """A copy of a network with thinned layers in place of its dropout layers; all other layers are shared.

    Parameters
    ----------
    model : keras.Model
        A compiled network; its weights at the time of `predict` count.
    """

    def __init__(self, model: keras.Model) -> None:
        self._layers: list[Thinned] = []
        # Of a compiled model Keras would clone the optimizer too.
        uncompiled = keras.Model(model.inputs, model.outputs)
        self._network = keras.models.clone_model(uncompiled, clone_function=self._thinned)
        self._network.jit_compile = model.jit_compile

    def predict(self, batches: Iterable[Any], draws: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Predict the rows of all batches with networks that are thinned at random.

        Parameters
        ----------
        batches : iterable
            Inputs of the network.
        draws : int
            How many networks are drawn.
        rng : Generator
            Draws their masks.

        Returns
        -------
        ndarray of shape (draws, rows, classes), float32
            Probabilities.
        """
        masks = [[layer.draw(rng) for layer in self._layers] for _ in range(draws)]
        # A batch is read once, and not once a sample.
        return np.concatenate([self._samples(batch, masks) for batch in batches], axis=1)

    def _samples(self, batch: Any, masks: list[list[NDArray[np.float32]]]) -> NDArray[np.float32]:
        """Probabilities of one batch by each network."""
        samples = []
        for drawn in masks:
            for layer, mask in zip(self._layers, drawn, strict=True):
                layer.mask.assign(mask)
            samples.append(np.asarray(self._network.predict_on_batch(batch), dtype=np.float32))
        return np.stack(samples)

    def _thinned(self, layer: Any) -> Any:
        """Keras' ``clone_function``: what stands in the copy for a layer."""
        if isinstance(layer, _KINDS):
            self._layers.append(Thinned(layer))
            return self._layers[-1]
        if isinstance(layer, keras.Model) and any(isinstance(inner, _KINDS) for inner in layer.layers):
            return keras.models.clone_model(layer, clone_function=self._thinned)
        return layer
