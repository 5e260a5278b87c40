"""Heads on frozen features: what a frozen network's head learns, epochs at once, and folds on one warm model."""

import dataclasses

import numpy as np
import pytest
from lazy import Lazy
from painted import HEAD, RECIPE, SIZE, SPLIT, assert_same, heads

from moa_ray import training
from moa_ray.config.recipe import NO_AUGMENTATION
from moa_ray.training.data import Diverged

frozen, linear_probe, models = (Lazy(f"moa_ray.training.{name}") for name in ("frozen", "linear_probe", "models"))


@pytest.fixture(scope="module")
def warm(data):
    """One trainer for all tests that can share it."""
    return heads(data)


def test_training_on_features_is_training_the_head_of_a_frozen_network(data):
    recipe = dataclasses.replace(RECIPE, freeze="all", augment=NO_AUGMENTATION, dropout=0.0, weights="a.h5", epochs=3)
    weights = models.backbone("SmallCNN", SIZE).get_weights()
    features = frozen.extract_features(recipe, data.tiles[SIZE], weights)
    with_features = dataclasses.replace(data, features={recipe.features_key: features})
    probe = training.fit(training.Trainer(with_features), recipe, SPLIT, [1])
    whole = training.Trainer(data, lambda *_: weights)
    tuned = training.fit(whole, dataclasses.replace(recipe, freeze=1.0), SPLIT, [1])
    np.testing.assert_allclose(probe.predictions, tuned.predictions, atol=1e-4)
    measured = ["seconds", "images_per_second"]
    np.testing.assert_allclose(
        probe.history.drop(columns=measured), tuned.history.drop(columns=measured), rtol=1e-3, atol=1e-5
    )


def test_each_epoch_trains_on_an_orientation_of_each_tile_and_predicts_the_tile_itself(data):
    """Features that tell nothing but the orientation: only the tile as it is carries its label."""
    recipe = dataclasses.replace(HEAD, augment=dataclasses.replace(NO_AUGMENTATION, orientations=8), epochs=2)
    features = np.zeros((8, len(data.labels), 4), np.float32)
    features[:, :, 3] = np.arange(8)[:, None]
    trainer = training.Trainer(dataclasses.replace(data, features={recipe.features_key: features}))
    trial = trainer.start(recipe, SPLIT, [1])
    rows = [trial._to_fit(range(epoch, epoch + 1))["x"] for epoch in (1, 2)]
    for epoch, drawn in enumerate(rows, start=1):
        order = drawn[: len(SPLIT.train)] % len(data.labels)
        assert list(order) == list(trial._shuffled(epoch))
        assert sorted(order) == list(SPLIT.train)
        assert len(set(drawn // len(data.labels))) > 4
    assert list(rows[0] // len(data.labels)) != list(rows[1] // len(data.labels))
    assert list(np.concatenate(list(trial._batches(SPLIT.test)))[: len(SPLIT.test)]) == list(SPLIT.test)


def test_a_head_has_no_trained_backbone_to_write(data, warm, tmp_path):
    warm.start(HEAD, SPLIT, [1])
    with pytest.raises(ValueError, match="freeze is not all"):
        warm.save_backbone(tmp_path / "trained.weights.h5")


def test_a_head_stops_where_it_is_to_be_predicted(data, warm):
    """After two and after four epochs of five it predicts as a training of as many does."""
    recipe = dataclasses.replace(HEAD, schedule="constant")
    other = heads(data, recipe)
    trial = warm.start(recipe, SPLIT, [1])
    for epoch in trial.epochs(2):
        if epoch.epoch % 2 == 0:
            alone = training.fit(other, dataclasses.replace(recipe, epochs=epoch.epoch), SPLIT, [1])
            np.testing.assert_allclose(trial.predict(SPLIT.test), alone.predictions, atol=1e-6)
    assert epoch.epoch == recipe.epochs


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_epochs_of_a_head_at_once_are_epochs_one_by_one(data, dropout, monkeypatch):
    recipe = dataclasses.replace(HEAD, dropout=dropout, schedule="cosine", optimizer="adam")
    trainer = heads(data)
    at_once = training.fit(trainer, recipe, SPLIT, [1])
    monkeypatch.setattr(linear_probe, "_ROWS_AT_ONCE", 1)
    one_by_one = training.fit(trainer, recipe, SPLIT, [1])
    assert_same(at_once, one_by_one)
    assert list(at_once.history["epoch"]) == [1, 2, 3, 4, 5]
    assert at_once.history["learning_rate"].is_monotonic_decreasing
    assert at_once.history["validation_loss"].notna().all()


def test_heads_of_folds_of_other_sizes_do_not_disturb_each_other(data, warm):
    shorter = dataclasses.replace(SPLIT, train=SPLIT.train[:9])
    first = training.fit(warm, HEAD, SPLIT, [1])
    assert_same(training.fit(warm, HEAD, shorter, [1]), training.fit(heads(data), HEAD, shorter, [1]))
    assert_same(training.fit(warm, HEAD, SPLIT, [1]), first)


def test_a_head_that_diverges_keeps_the_epochs_before(data):
    # Each epoch multiplies the weights, until they are no numbers in one that is not the first.
    recipe = dataclasses.replace(HEAD, l2=1.0, learning_rate=1e4, momentum=0.0, epochs=30, dropout=0.0)
    epochs = heads(data).start(recipe, SPLIT, [1]).epochs()
    done = []
    with pytest.raises(Diverged) as error:
        done.extend(epoch.epoch for epoch in epochs)
    assert done == list(range(1, error.value.epoch))
    assert len(done) > 0


def test_a_frozen_recipe_refuses_what_changes_a_tiles_values():
    with pytest.raises(ValueError, match="freeze: all takes a tile's features once"):
        dataclasses.replace(RECIPE, freeze="all", weights="a.h5")
    with pytest.raises(ValueError, match="freeze: all needs weights"):
        dataclasses.replace(RECIPE, freeze="all", augment=NO_AUGMENTATION)


def test_only_a_head_can_be_sampled_around_its_weights(data, warm):
    assert warm.start(HEAD, SPLIT, [1]).methods == ("mc_dropout", "laplace")
    assert heads(data).start(dataclasses.replace(HEAD, dropout=0.0), SPLIT, [1]).methods == ("laplace",)
