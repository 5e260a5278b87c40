"""Samples of trained networks: dropout alone is at work, nothing is traced again, and a seed gives them again."""

import dataclasses

import numpy as np
import pytest
from lazy import Lazy
from painted import network

from moa_ray import training as core
from moa_ray.config.backbones import has_dropout
from moa_ray.config.recipe import NO_AUGMENTATION, Recipe
from moa_ray.training.data import Data, Split

keras = Lazy("keras")
layers, mc_dropout, models = (Lazy(f"moa_ray.training.{name}") for name in ("layers", "mc_dropout", "models"))

SIZE, N, CLASSES = 16, 24, ("round", "long", "split")
# Augmentation is on: were it at work while sampling, equal masks would not give equal probabilities.
RECIPE = Recipe("SmallCNN", "random", SIZE, epochs=1, batch_size=4, dropout=0.5)
HEAD = Recipe("SmallCNN", "a.h5", SIZE, epochs=2, batch_size=4, dropout=0.5, freeze="all", augment=NO_AUGMENTATION)
SPLIT = Split(np.arange(16), np.arange(0), np.arange(16, N))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 256, (N, SIZE, SIZE, 3), dtype=np.uint8)
    features = {HEAD.features_key: rng.random((1, N, 128), dtype=np.float32)}
    return Data({SIZE: tiles}, np.arange(N) % len(CLASSES), CLASSES, features)


@pytest.fixture(scope="module")
def warm(data):
    return core.Trainer(data)


def trained(trainer, recipe=RECIPE, seed=1):
    trial = trainer.start(recipe, SPLIT, [seed])
    list(trial.epochs())
    return trial


@pytest.fixture
def trial(warm):
    return trained(warm)


@pytest.fixture(scope="module")
def head(data):
    """A head under way, and the layer that it is."""
    trainer = core.Trainer(data)
    trial = trained(trainer, HEAD)
    return trial, network(trainer).get_layer("probabilities")


def test_samples_differ_and_a_tile_has_the_same_whatever_shares_its_batch(trial):
    """Statistics of a batch, masks by tile or augmentation would make a tile's samples depend on its company."""
    samples = trial.samples("mc_dropout", SPLIT.test, 5)
    assert samples.shape == (5, len(SPLIT.test), len(CLASSES))
    assert len(np.unique(samples[:, 0, 0])) == 5
    for rows in (SPLIT.test[::-1], SPLIT.test[:1], np.array([0, 20, 20])):
        again = trial.samples("mc_dropout", rows, 5)
        for place, row in enumerate(rows):
            if row in SPLIT.test:
                np.testing.assert_allclose(again[:, place], samples[:, row - SPLIT.test[0]], atol=1e-5)


def test_sampling_leaves_the_model_as_it_was(trial, warm):
    before = [np.array(variable) for variable in network(warm).variables]
    expected = trial.predict(SPLIT.test)
    trial.samples("mc_dropout", SPLIT.test, 2)
    for variable, value in zip(network(warm).variables, before, strict=True):
        np.testing.assert_array_equal(np.array(variable), value, err_msg=variable.path)
    np.testing.assert_array_equal(trial.predict(SPLIT.test), expected)


def test_warm_trainer_traces_nothing_again_and_gives_a_trial_the_samples_of_a_cold_one(data, monkeypatch):
    """A layer's Python is run while tracing alone."""
    calls = []
    plain = mc_dropout.Thinned.call
    monkeypatch.setattr(mc_dropout.Thinned, "call", lambda self, x: calls.append(1) or plain(self, x))
    trainer = core.Trainer(data)
    cold = trained(trainer).samples("mc_dropout", SPLIT.test, 3)
    traced = len(calls)
    assert traced > 0
    other = trained(trainer, dataclasses.replace(RECIPE, dropout=0.2), 2).samples("mc_dropout", SPLIT.test[:5], 4)
    assert not np.isclose(other[:3], cold[:, :5]).all()
    np.testing.assert_array_equal(trained(trainer).samples("mc_dropout", SPLIT.test, 3), cold)
    assert len(calls) == traced


def test_samples_of_a_head_are_those_of_its_weights_and_the_drawn_masks(data, head):
    from scipy.special import softmax

    trial, layer = head
    samples = trial.samples("mc_dropout", SPLIT.test, 4)
    kernel, bias = np.array(layer.kernel), np.array(layer.bias)
    rng = np.random.default_rng([1, 0, 2])
    for sample in samples:
        mask = (rng.random(128) >= 0.5) / 0.5
        thinned = data.features[HEAD.features_key][0][SPLIT.test] * mask
        np.testing.assert_allclose(sample, softmax(thinned @ kernel + bias, axis=1), rtol=1e-4)


def test_heads_around_a_trained_one_differ_and_lie_around_it(head):
    trial, _ = head
    samples = trial.samples("laplace", SPLIT.test, 20)
    assert samples.shape == (20, len(SPLIT.test), len(CLASSES))
    assert len(np.unique(samples[:, 0, 0])) == 20
    np.testing.assert_array_equal(samples, trial.samples("laplace", SPLIT.test, 20))
    assert samples.min(axis=0)[0, 0] < trial.predict(SPLIT.test)[0, 0] < samples.max(axis=0)[0, 0]


def test_no_held_out_tile_gives_no_samples(trial):
    assert trial.samples("mc_dropout", SPLIT.test[:0], 3).shape == (3, 0, len(CLASSES))


def test_dropout_within_a_backbone_is_thinned_too():
    """A block of an EfficientNet is dropped whole, by one factor."""
    pixels = keras.Input((4, 4, 2))
    inner = keras.layers.Dropout(0.5, noise_shape=(None, 1, 1, 1))(pixels)
    backbone = keras.Model(pixels, keras.layers.BatchNormalization()(inner), name="backbone")
    entry = keras.Input((4, 4, 2))
    pooled = keras.layers.GlobalAveragePooling2D()(backbone(entry))
    model = keras.Model(entry, layers.Dropout(0.25, name="dropout")(pooled))
    model.compile(jit_compile=False)
    thinning = mc_dropout.Thinning(model)
    samples = thinning.predict([np.ones((3, 4, 4, 2), np.float32)], 50, np.random.default_rng(0))
    rng, scale = np.random.default_rng(0), 1 / np.sqrt(1 + 1e-3)
    for sample in samples:
        block = (rng.random((1, 1, 1)) >= 0.5) / 0.5
        head = (rng.random(2) >= 0.25) / 0.75
        np.testing.assert_allclose(sample, np.tile(block.item() * head * scale, (3, 1)), rtol=1e-5)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("MobileNetV2", "EfficientNetB0", "EfficientNetV2B0")]


@pytest.mark.parametrize("name", ["SmallCNN", *SLOW])
def test_backbones_that_have_dropout_are_known_by_name(name):
    kinds = [type(layer) for layer in models.backbone(name, 32).layers]
    assert has_dropout(name) == (keras.layers.Dropout in kinds)
