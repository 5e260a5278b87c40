"""Layers of the networks: input scaling, dropout and the head's penalty."""

import numpy as np
import pytest
from lazy import Lazy

from moa_ray.config.backbones import BACKBONES
from moa_ray.config.recipe import Recipe

keras = Lazy("keras")
layers, models = (Lazy(f"moa_ray.training.{name}") for name in ("layers", "models"))


@pytest.mark.parametrize("module", sorted({module for _, module in BACKBONES.values() if module}))
def test_input_scaling_is_the_modules_own(module, pixels):
    images = pixels.astype("float32")
    expected = getattr(keras.applications, module).preprocess_input(images.copy())
    np.testing.assert_allclose(np.asarray(layers.InputScaling(module)(images)), expected, rtol=1e-5, atol=1e-4)


def test_dropout_zeroes_its_share_in_training_alone_and_keeps_the_mean():
    ones = np.ones((200, 50), np.float32)
    layer = layers.Dropout(0.25)
    np.testing.assert_array_equal(np.asarray(layer(ones)), ones)
    dropped = np.asarray(layer(ones, training=True))
    np.testing.assert_allclose(np.unique(dropped), [0, 4 / 3], rtol=1e-6)
    assert abs((dropped == 0).mean() - 0.25) < 0.03  # 7 standard deviations


def test_the_penalty_is_the_factor_times_the_squares_of_the_heads_kernel(pixels):
    model = models.build(Recipe(backbone="SmallCNN", image_size=16, l2=0.01), 2)
    model(pixels[:2], training=True)
    kernel = np.asarray(model.get_layer("probabilities").kernel)
    np.testing.assert_allclose(float(model.losses[0]), 0.01 * (kernel**2).sum(), rtol=1e-5)
