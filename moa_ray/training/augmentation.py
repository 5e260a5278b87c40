"""Augmentation as Keras layers: random per image, on the accelerator, active in training only, on every backend.

Images are float (batch, height, width, channels) on the 0..255 scale. Each layer draws from its own seed generator,
whose state a trial sets anew, so that the same seed and fold give the same draws whatever runs beside it. How much a
layer does is held in variables: `assign` gives them other values, and nothing is traced again.
Source: Kensert et al. 2019, supplement.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from moa_ray.recipe import Augmentation

Tensor = Any


class _RandomLayer(keras.layers.Layer):  # type: ignore[misc]
    """Passes images on unchanged outside training."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.seed_generator = keras.random.SeedGenerator(seed=0)

    def call(self, images: Tensor, training: bool = False) -> Tensor:
        return self.augment(images) if training else images

    def augment(self, images: Tensor) -> Tensor:
        """The images, changed at random."""
        raise NotImplementedError

    def _setting(self, name: str, values: float | tuple[float, ...]) -> Any:
        """A variable that holds numbers of the augmentation."""
        initial = keras.initializers.Constant(np.asarray(values, dtype="float32"))
        return self.add_weight(np.shape(values), initial, trainable=False, autocast=False, name=name)

    def _heads(self, images: Tensor, probability: Any) -> Tensor:
        """One coin a image, shape (batch, 1, 1, 1)."""
        draws = keras.random.uniform((ops.shape(images)[0], 1, 1, 1), seed=self.seed_generator)
        return draws < probability


class Orientations(_RandomLayer):
    """One of the eight rotations and mirrors, drawn evenly; images must be square."""

    def build(self, shape: tuple[Any, ...]) -> None:
        """Where each pixel of each orientation comes from; to look it up costs a third of turning images whole."""
        height, width, channels = shape[1:]
        pixels = np.arange(height * width, dtype="int32").reshape(height, width)
        mirrored = [part for whole in (pixels, pixels[::-1]) for part in (whole, whole[:, ::-1])]
        self.sources = np.stack([*mirrored, *(part.T for part in mirrored)]).reshape(8, -1)
        self.channels = channels

    def augment(self, images: Tensor) -> Tensor:
        """Three coins: mirror left-right, mirror up-down, transpose. Together they make all eight."""
        count = ops.shape(images)[0]
        coins = [ops.cast(self._heads(images, 0.5), "int32") for _ in range(3)]
        orientation = ops.reshape(coins[0] + 2 * coins[1] + 4 * coins[2], (count,))
        first = ops.expand_dims(ops.arange(count, dtype="int32") * self.sources.shape[1], 1)
        sources = ops.reshape(ops.take(self.sources, orientation, axis=0) + first, (-1,))
        turned = ops.take(ops.reshape(images, (-1, self.channels)), sources, axis=0)
        return ops.reshape(turned, ops.shape(images))


class ChannelJitter(_RandomLayer):
    """Each channel of each image times one of some factors, drawn evenly."""

    def __init__(self, factors: tuple[float, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factors = tuple(factors)
        self.factors_held = self._setting("factors", self.factors)

    def augment(self, images: Tensor) -> Tensor:
        """The images times their factors."""
        shape = (ops.shape(images)[0], 1, 1, images.shape[-1])
        drawn = keras.random.randint(shape, 0, len(self.factors), seed=self.seed_generator)
        return images * ops.take(ops.convert_to_tensor(self.factors_held), drawn)


class MeanFilter(_RandomLayer):
    """A 3 x 3 mean filter on some images; the border is continued by its mirror image."""

    def __init__(self, probability: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.probability = probability
        self.probability_held = self._setting("probability", probability)

    def augment(self, images: Tensor) -> Tensor:
        """The images, some of them blurred: means over rows, then over columns."""
        height, width = images.shape[1:3]
        padded = ops.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        rows = (padded[:, :height] + padded[:, 1 : height + 1] + padded[:, 2:]) / 3.0
        means = (rows[:, :, :width] + rows[:, :, 1 : width + 1] + rows[:, :, 2:]) / 3.0
        return ops.where(self._heads(images, self.probability_held), means, images)


class GaussianNoise(_RandomLayer):
    """Gaussian noise of a variance, in squared grey levels, on some images."""

    def __init__(self, probability: float, variance: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.probability, self.variance = probability, variance
        self.probability_held = self._setting("probability", probability)
        self.variance_held = self._setting("variance", variance)

    def augment(self, images: Tensor) -> Tensor:
        """The images, some of them with noise."""
        noise = keras.random.normal(ops.shape(images), seed=self.seed_generator) * ops.sqrt(self.variance_held)
        return ops.where(self._heads(images, self.probability_held), images + noise, images)


class ClipToGrey(_RandomLayer):
    """Values back into 0..255."""

    def augment(self, images: Tensor) -> Tensor:
        """The images, clipped."""
        return ops.clip(images, 0.0, 255.0)


def layers(augmentation: Augmentation) -> list[keras.layers.Layer]:
    """The layers that an augmentation asks for, in the paper's order; what is switched off is not there."""
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
    """Give the layers of a model the numbers of an augmentation with the same parts switched on."""
    for layer in model.layers:
        if isinstance(layer, ChannelJitter):
            layer.factors_held.assign(augmentation.channel_jitter)
        elif isinstance(layer, MeanFilter):
            layer.probability_held.assign(augmentation.blur)
        elif isinstance(layer, GaussianNoise):
            layer.probability_held.assign(augmentation.noise)
            layer.variance_held.assign(augmentation.noise_variance)
