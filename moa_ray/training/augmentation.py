"""Augment images by Keras layers: random per image, on the accelerator, in training only, on every backend.

Images are float (batch, height, width, channels) on the 0..255 scale. Each layer draws from its own seed generator,
whose state a trial sets anew, so that the same seed and fold give the same draws whatever runs beside it. How much a
layer does is held in variables: `assign` gives them other values, and nothing is traced again.

References
----------
Kensert, Harrison and Spjuth 2019, supplement.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from moa_ray.config.recipe import Augmentation

Tensor = Any


class _RandomLayer(keras.layers.Layer):  # type: ignore[misc]
    """Passes images on unchanged outside training; draws from a seed generator of its own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.seed_generator = keras.random.SeedGenerator(seed=0)

    def call(self, images: Tensor, training: bool = False) -> Tensor:
        """Augment images where it is training.

        Parameters
        ----------
        images : tensor of shape (batch, height, width, channels)
            Grey levels, float32.
        training : bool
            Whether anything is done.

        Returns
        -------
        tensor of the same shape
        """
        return self.augment(images) if training else images

    def augment(self, images: Tensor) -> Tensor:
        """Change images at random.

        Parameters
        ----------
        images : tensor of shape (batch, height, width, channels)
            Grey levels, float32.

        Returns
        -------
        tensor of the same shape
        """
        raise NotImplementedError

    def _setting(self, name: str, values: float | tuple[float, ...]) -> Any:
        """A variable that holds numbers of the augmentation, which a trial assigns."""
        initial = keras.initializers.Constant(np.asarray(values, dtype="float32"))
        return self.add_weight(np.shape(values), initial, trainable=False, autocast=False, name=name)

    def _coins(self, images: Tensor, probability: Any) -> Tensor:
        """One draw per image that is true with a probability, shape (batch, 1, 1, 1)."""
        draws = keras.random.uniform((ops.shape(images)[0], 1, 1, 1), seed=self.seed_generator)
        return draws < probability


class Orientations(_RandomLayer):
    """Turn and mirror each image into one of its eight orientations, drawn evenly; images must be square."""

    def build(self, shape: tuple[Any, ...]) -> None:
        """List where each pixel of each orientation comes from; to look it up costs a third of turning images whole.

        Parameters
        ----------
        shape : tuple
            Of the images, (batch, height, width, channels).
        """
        height, width, channels = shape[1:]
        pixels = np.arange(height * width, dtype="int32").reshape(height, width)
        mirrored = [part for whole in (pixels, pixels[::-1]) for part in (whole, whole[:, ::-1])]
        self.sources = np.stack([*mirrored, *(part.T for part in mirrored)]).reshape(8, -1)
        self.channels = channels

    def augment(self, images: Tensor) -> Tensor:
        """Draw three coins: mirror left-right, mirror up-down, transpose. Together they make all eight orientations.

        Parameters
        ----------
        images : tensor of shape (batch, height, width, channels)
            Grey levels, float32.

        Returns
        -------
        tensor of the same shape
        """
        count = ops.shape(images)[0]
        coins = [ops.cast(self._coins(images, 0.5), "int32") for _ in range(3)]
        orientation = ops.reshape(coins[0] + 2 * coins[1] + 4 * coins[2], (count,))
        first = ops.expand_dims(ops.arange(count, dtype="int32") * self.sources.shape[1], 1)
        sources = ops.reshape(ops.take(self.sources, orientation, axis=0) + first, (-1,))
        turned = ops.take(ops.reshape(images, (-1, self.channels)), sources, axis=0)
        return ops.reshape(turned, ops.shape(images))


class ChannelJitter(_RandomLayer):
    """Multiply each channel of each image by one of some factors, drawn evenly.

    Parameters
    ----------
    factors : tuple of float
        One that occurs twice is drawn twice as often.
    **kwargs : Any
        Arguments of `keras.layers.Layer`; the dtype is always float32.
    """

    def __init__(self, factors: tuple[float, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factors = tuple(factors)
        self.factors_variable = self._setting("factors", self.factors)

    def augment(self, images: Tensor) -> Tensor:
        """Multiply images by their factors.

        Parameters
        ----------
        images : tensor of shape (batch, height, width, channels)
            Grey levels, float32.

        Returns
        -------
        tensor of the same shape
        """
        shape = (ops.shape(images)[0], 1, 1, images.shape[-1])
        drawn = keras.random.randint(shape, 0, len(self.factors), seed=self.seed_generator)
        return images * ops.take(ops.convert_to_tensor(self.factors_variable), drawn)


class MeanFilter(_RandomLayer):
    """Blur some images by a 3 x 3 mean filter; the border is continued by its mirror image.

    Parameters
    ----------
    probability : float
        That an image is blurred, in [0, 1].
    **kwargs : Any
        Arguments of `keras.layers.Layer`; the dtype is always float32.
    """

    def __init__(self, probability: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.probability = probability
        self.probability_variable = self._setting("probability", probability)

    def augment(self, images: Tensor) -> Tensor:
        """Blur some images: means over rows, then over columns.

        Parameters
        ----------
        images : tensor of shape (batch, height, width, channels)
            Grey levels, float32.

        Returns
        -------
        tensor of the same shape
        """
        height, width = images.shape[1:3]
        padded = ops.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        rows = (padded[:, :height] + padded[:, 1 : height + 1] + padded[:, 2:]) / 3.0
        means = (rows[:, :, :width] + rows[:, :, 1 : width + 1] + rows[:, :, 2:]) / 3.0
        return ops.where(self._coins(images, self.probability_variable), means, images)


class GaussianNoise(_RandomLayer):
    """Add Gaussian noise to some images.

    Parameters
    ----------
    probability : float
        That an image gets noise, in [0, 1].
    variance : float
        Of the noise, squared grey levels.
    **kwargs : Any
        Arguments of `keras.layers.Layer`; the dtype is always float32.
    """

    def __init__(self, probability: float, variance: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.probability, self.variance = probability, variance
        self.probability_variable = self._setting("probability", probability)
        self.variance_variable = self._setting("variance", variance)

    def augment(self, images: Tensor) -> Tensor:
        """Add noise to some images.

        Parameters
        ----------
        images : tensor of shape (batch, height, width, channels)
            Grey levels, float32.

        Returns
        -------
        tensor of the same shape
        """
        noise = keras.random.normal(ops.shape(images), seed=self.seed_generator) * ops.sqrt(self.variance_variable)
        return ops.where(self._coins(images, self.probability_variable), images + noise, images)


class ClipToGrey(_RandomLayer):
    """Clip values to 0..255."""

    def augment(self, images: Tensor) -> Tensor:
        """Clip images.

        Parameters
        ----------
        images : tensor of shape (batch, height, width, channels)
            Grey levels, float32.

        Returns
        -------
        tensor of the same shape
        """
        return ops.clip(images, 0.0, 255.0)


def layers(augmentation: Augmentation) -> list[keras.layers.Layer]:
    """Build the layers that an augmentation asks for, in the paper's order.

    Parameters
    ----------
    augmentation : Augmentation
        What is switched off gets no layer.

    Returns
    -------
    list of keras.layers.Layer
    """
    chosen: list[keras.layers.Layer] = []
    if augmentation.orientations:
        chosen.append(Orientations())
    if augmentation.channel_jitter:
        chosen.append(ChannelJitter(augmentation.channel_jitter))
    if augmentation.blur:
        chosen.append(MeanFilter(augmentation.blur))
    if augmentation.noise and augmentation.noise_variance:
        chosen.append(GaussianNoise(augmentation.noise, augmentation.noise_variance))
    return [*chosen, ClipToGrey()] if chosen else []


def assign(model: keras.Model, augmentation: Augmentation) -> None:
    """Assign the numbers of an augmentation to the layers of a model.

    Parameters
    ----------
    model : keras.Model
        Built for an augmentation with the same parts switched on; changed in place.
    augmentation : Augmentation
        The trial's.
    """
    for layer in model.layers:
        if isinstance(layer, ChannelJitter):
            layer.factors_variable.assign(augmentation.channel_jitter)
        elif isinstance(layer, MeanFilter):
            layer.probability_variable.assign(augmentation.blur)
        elif isinstance(layer, GaussianNoise):
            layer.probability_variable.assign(augmentation.noise)
            layer.variance_variable.assign(augmentation.noise_variance)
