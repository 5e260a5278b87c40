"""Painted tiles that a small network tells apart at once, and the recipes that the tests of training share."""

import dataclasses

import numpy as np
from lazy import Lazy

from moa_ray.config.recipe import NO_AUGMENTATION, Recipe
from moa_ray.training.data import Data, Outcome, Split

training = Lazy("moa_ray.training")

SIZE = 16
CLASSES = ("round", "long", "split")
RECIPE = Recipe(
    backbone="SmallCNN", weights="random", image_size=SIZE, epochs=2, batch_size=8, learning_rate=0.02, dropout=0.2
)
HEAD = dataclasses.replace(RECIPE, freeze="all", augment=NO_AUGMENTATION, weights="a.h5", epochs=5)
SPLIT = Split(np.arange(37), np.arange(37, 45), np.arange(45, 60))
UNWATCHED = dataclasses.replace(SPLIT, validation=SPLIT.validation[:0])


def painted(n=60, seed=0):
    """Noise, with one channel a class brighter: a network separates them at once."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % len(CLASSES))
    tiles = rng.integers(0, 80, (n, SIZE, SIZE, 3), dtype=np.uint8)
    tiles[np.arange(n), :, :, labels] += 60
    return Data({SIZE: tiles}, labels, CLASSES)


def heads(data, recipe=HEAD):
    """A trainer on features that tell the labels in part."""
    rng = np.random.default_rng(3)
    features = rng.random((1, len(data.labels), 4), dtype=np.float32)
    features[0, np.arange(len(data.labels)), data.labels] += 0.5
    return training.Trainer(dataclasses.replace(data, features={recipe.features_key: features}))


def network(trainer):
    """The compiled network that a trainer keeps warm."""
    return trainer._compiled.network


def states(model):
    """A copy of everything that a model and its optimizer hold."""
    return {v.path: np.array(v) for v in [*model.variables, *model.optimizer.variables]}


def assert_same(outcome: Outcome, expected: Outcome) -> None:
    """To the bit, but for the seconds that it took."""
    np.testing.assert_array_equal(outcome.predictions, expected.predictions)
    measured = ["seconds", "images_per_second"]
    assert outcome.history.drop(columns=measured).equals(expected.history.drop(columns=measured))


def eight(image):
    """An image in all its orientations."""
    turned = [np.rot90(image, quarter) for quarter in range(4)]
    return turned + [np.fliplr(each) for each in turned]
