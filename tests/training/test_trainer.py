import dataclasses
import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from moa_ray import augment, models, training
from moa_ray.recipe import NO_AUGMENTATION, Augmentation, Recipe
from moa_ray.training import Data, Diverged, Split, Trainer, class_weights, fit, learning_rate

SIZE = 16
CLASSES = ("round", "long", "split")
RECIPE = Recipe(
    backbone="SmallCNN", weights="random", image_size=SIZE, epochs=2, batch_size=8, learning_rate=0.02, dropout=0.2
)
OTHER = dataclasses.replace(RECIPE, optimizer="adamw", dropout=0.0, augment=NO_AUGMENTATION, weight_decay=1e-3)


def painted(n=60, seed=0):
    """Noise, with one channel a class brighter: a network separates them at once."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % len(CLASSES))
    tiles = rng.integers(0, 80, (n, SIZE, SIZE, 3), dtype=np.uint8)
    tiles[np.arange(n), :, :, labels] += 60
    return Data({SIZE: tiles}, labels, CLASSES)


@pytest.fixture(scope="module")
def data():
    return painted()


@pytest.fixture(scope="module")
def split():
    return Split(np.arange(37), np.arange(37, 45), np.arange(45, 60))


@pytest.fixture(scope="module")
def warm(data):
    """One trainer for all tests that can share it: that they do is part of the test."""
    return Trainer(data)


@pytest.fixture(scope="module")
def cold(data, split):
    """The outcome of RECIPE and seed 1 on a trainer of its own."""
    return fit(Trainer(data), RECIPE, split, [1])


def states(model):
    """A copy of everything that a model and its optimizer hold."""
    return {v.path: np.array(v) for v in [*model.variables, *model.optimizer.variables]}


def assert_same(mine, theirs):
    np.testing.assert_array_equal(mine.predictions, theirs.predictions)
    measured = ["seconds", "images_per_second"]
    assert mine.history.drop(columns=measured).equals(theirs.history.drop(columns=measured))


# The warm model


def test_a_trial_on_a_warm_trainer_is_that_on_a_cold_one(warm, cold, split):
    fit(warm, dataclasses.replace(RECIPE, learning_rate=0.1, class_weights="none"), split, [2])
    assert_same(fit(warm, RECIPE, split, [1]), cold)


def test_a_trial_after_one_of_another_recipe_is_that_on_a_cold_trainer(warm, cold, split):
    fit(warm, OTHER, split, [2])
    assert_same(fit(warm, RECIPE, split, [1]), cold)


def test_a_trial_after_one_that_diverged_is_that_on_a_cold_trainer(warm, cold, split):
    with pytest.raises(Diverged):
        fit(warm, dataclasses.replace(RECIPE, learning_rate=1e30), split, [2])
    assert_same(fit(warm, RECIPE, split, [1]), cold)


def test_a_trial_after_one_that_was_stopped_early_is_that_on_a_cold_trainer(warm, cold, split):
    next(warm.start(RECIPE, split, [2]).epochs())
    assert_same(fit(warm, RECIPE, split, [1]), cold)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_warm_start_has_every_state_of_a_cold_one(optimizer, precision, data, split):
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer, precision=precision, weight_decay=1e-3)
    trainer = Trainer(data)
    trainer.start(recipe, split, [1])
    at_first = states(trainer._model)
    assert np.isfinite(fit(trainer, recipe, split, [2]).predictions).all()
    trainer.start(recipe, split, [1])
    again = states(trainer._model)
    assert again.keys() == at_first.keys()
    for path in at_first:
        np.testing.assert_array_equal(again[path], at_first[path], err_msg=path)


def test_a_fresh_optimizer_is_what_keras_made(data, split):
    """A loss scale or a counter set to zero would stop a training or skew it."""
    trainer = Trainer(data)
    recipe = dataclasses.replace(RECIPE, optimizer="adam", precision="mixed_float16")
    trainer.start(recipe, split, [1])
    built = training._compile(recipe, len(CLASSES)).optimizer
    for mine, theirs in zip(trainer._model.optimizer.variables, built.variables, strict=True):
        np.testing.assert_array_equal(np.array(mine), np.array(theirs), err_msg=mine.path)


def test_nothing_is_traced_again_on_a_warm_model(data, split, tmp_path, monkeypatch):
    """A layer's Python is run while tracing alone."""
    calls = []
    plain = augment.Orientations.augment
    monkeypatch.setattr(augment.Orientations, "augment", lambda self, x: calls.append(1) or plain(self, x))
    models.backbone("SmallCNN", SIZE).save_weights(tmp_path / "a.weights.h5")
    trainer = Trainer(data)
    fit(trainer, RECIPE, split, [1])
    model, traced = trainer._model, len(calls)
    assert traced > 0
    shorter = Split(split.train[:9], split.validation[:0], split.test[:3])
    changes = [
        {"learning_rate": 0.5, "schedule": "cosine"},
        {"weights": str(tmp_path / "a.weights.h5")},
        {"class_weights": "none", "epochs": 3},
    ]
    for seed, change in enumerate(changes, start=2):
        for part in (split, shorter):
            fit(trainer, dataclasses.replace(RECIPE, **change), part, [seed])
    assert trainer._model is model
    assert len(calls) == traced


def test_what_a_compiled_model_depends_on_makes_a_new_one():
    """All other hyperparameters are assigned to the warm one."""
    assigned = {
        "weights": "a.h5",
        "epochs": 3,
        "learning_rate": 0.5,
        "schedule": "step",
        "class_weights": "none",
        "momentum": 0.5,
        "dropout": 0.5,
        "l2": 0.5,
        "seed": 3,
    }
    compiled = {
        "backbone": "VGG16",
        "image_size": 32,
        "input_scaling": "none",
        "batch_size": 4,
        "optimizer": "adam",
        "weight_decay": 0.1,  # from none; another one is assigned
        "freeze": 0.5,
        "precision": "float32",
        "augment": NO_AUGMENTATION,
    }
    assert assigned.keys() | compiled.keys() == {field.name for field in dataclasses.fields(Recipe)}
    for key, value in assigned.items():
        assert dataclasses.replace(RECIPE, **{key: value}).signature == RECIPE.signature, key
    for key, value in compiled.items():
        assert dataclasses.replace(RECIPE, **{key: value}).signature != RECIPE.signature, key


NUMBERS = [
    {"learning_rate": 0.3},
    {"dropout": 0.6},
    {"l2": 0.3},
    {"momentum": 0.2},
    {"optimizer": "sgd", "weight_decay": 0.5},
    {"optimizer": "adam", "weight_decay": 0.5},
    {"optimizer": "adamw", "weight_decay": 0.5},
    {"augment": Augmentation(channel_jitter=(1.0, 2.0, 0.1, 1.0))},
    {"augment": Augmentation(blur=0.9)},
    {"augment": Augmentation(noise=1.0)},
    {"augment": Augmentation(noise_variance=900.0)},
]


@pytest.mark.slow
@pytest.mark.parametrize("change", NUMBERS, ids=lambda change: "-".join(map(str, change)))
def test_a_number_assigned_to_a_warm_model_is_that_of_a_cold_one(change, warm, data, split):
    """It is seen, and nothing else is: the outcome is another recipe's, to the bit."""
    before = dataclasses.replace(RECIPE, **{**change, **({"weight_decay": 0.01} if "weight_decay" in change else {})})
    if before == dataclasses.replace(RECIPE, **change):
        before = RECIPE
    after = dataclasses.replace(RECIPE, **change)
    trainer = warm if before.signature == RECIPE.signature else Trainer(data)
    first = fit(trainer, before, split, [1])
    model = trainer._model
    second = fit(trainer, after, split, [1])
    assert trainer._model is model
    assert list(second.history["loss"]) != list(first.history["loss"])
    assert_same(second, fit(Trainer(data), after, split, [1]))


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.0), (0.7, 0.1), (0.0, 0.1)])
def test_descent_is_keras_own(momentum, decay, data, split):
    recipe = dataclasses.replace(RECIPE, momentum=momentum, weight_decay=decay)
    trainer = Trainer(data)
    trainer.start(recipe, split, [1])
    ours = trainer._model.optimizer
    theirs = keras.optimizers.SGD(0.1, momentum=momentum, weight_decay=decay or None)
    ours.learning_rate.assign(0.1)
    mine = trainer._model.trainable_variables
    copies = [keras.Variable(np.array(v)) for v in mine]
    theirs.build(copies)
    rng = np.random.default_rng(0)
    for _ in range(3):
        gradients = [rng.normal(size=v.shape).astype("float32") for v in mine]
        ours.apply([keras.ops.convert_to_tensor(g) for g in gradients])
        theirs.apply([keras.ops.convert_to_tensor(g) for g in gradients])
    for one, other in zip(mine, copies, strict=True):
        np.testing.assert_allclose(np.array(one), np.array(other), rtol=1e-6, atol=1e-7)


def test_tiles_in_the_devices_memory_give_what_streamed_ones_give(data, split, cold):
    held = Trainer(data, on_device=data.tiles[SIZE].nbytes)
    outcome = fit(held, RECIPE, split, [1])
    assert held._model.input_shape == (None,)
    np.testing.assert_allclose(outcome.predictions, cold.predictions, atol=1e-6)
    np.testing.assert_allclose(outcome.history["loss"], cold.history["loss"], rtol=1e-5)
    assert_same(fit(held, RECIPE, split, [1]), outcome)
    too_small = Trainer(data, on_device=data.tiles[SIZE].nbytes - 1)
    too_small.start(RECIPE, split, [1])
    assert too_small._model.input_shape == (None, SIZE, SIZE, 3)


# Frozen features


def eight(image):
    turned = [np.rot90(image, quarter) for quarter in range(4)]
    return turned + [np.fliplr(each) for each in turned]


def test_features_are_those_of_all_orientations_the_tile_itself_first(data):
    recipe = dataclasses.replace(
        RECIPE, freeze="all", augment=dataclasses.replace(NO_AUGMENTATION, orientations=8), weights="a.h5"
    )
    weights = models.backbone("SmallCNN", SIZE).get_weights()
    taken = training.features(recipe, data.tiles[SIZE][:5], weights)
    assert taken.shape == (8, 5, 128)
    network = models.features(recipe)
    network.get_layer("backbone").set_weights(weights)
    for tile in range(5):
        slow = network.predict(np.stack(eight(data.tiles[SIZE][tile])), verbose=0)
        np.testing.assert_allclose(taken[0, tile], slow[0], rtol=1e-4, atol=1e-5)
        for mine in taken[:, tile]:
            assert min(np.abs(mine - other).max() for other in slow) < 1e-4


def test_training_on_features_is_training_the_head_of_a_frozen_network(data, split):
    recipe = dataclasses.replace(RECIPE, freeze="all", augment=NO_AUGMENTATION, dropout=0.0, weights="a.h5", epochs=3)
    weights = models.backbone("SmallCNN", SIZE).get_weights()
    taken = training.features(recipe, data.tiles[SIZE], weights)
    with_features = dataclasses.replace(data, features={recipe.features_key: taken})
    fast = fit(Trainer(with_features), recipe, split, [1])
    slow = fit(Trainer(data, lambda *_: weights), dataclasses.replace(recipe, freeze=1.0), split, [1])
    np.testing.assert_allclose(fast.predictions, slow.predictions, atol=1e-4)
    measured = ["seconds", "images_per_second"]
    np.testing.assert_allclose(
        fast.history.drop(columns=measured), slow.history.drop(columns=measured), rtol=1e-3, atol=1e-5
    )


def test_each_epoch_trains_on_an_orientation_of_each_tile_and_predicts_the_tile_itself(data, split):
    """Features that tell nothing but the orientation: only the tile as it is carries its label."""
    recipe = dataclasses.replace(
        RECIPE, freeze="all", augment=dataclasses.replace(NO_AUGMENTATION, orientations=8), weights="a.h5", epochs=2
    )
    taken = np.zeros((8, len(data.labels), 4), np.float32)
    taken[:, :, 3] = np.arange(8)[:, None]
    trainer = Trainer(dataclasses.replace(data, features={recipe.features_key: taken}))
    seeded = trainer.start(recipe, split, [1])
    rows = [seeded._to_fit(split.train)["x"] for seeded._epoch in (1, 2)]
    for drawn in rows:
        assert list(drawn[: len(split.train)] % len(data.labels)) == list(split.train)
        assert len(set(drawn // len(data.labels))) > 4
    assert list(rows[0]) != list(rows[1])
    assert list(seeded._to_predict(split.test)["x"][: len(split.test)]) == list(split.test)


def test_a_trained_backbone_is_the_weights_of_another_recipe(data, split, tmp_path):
    trainer = Trainer(data)
    fit(trainer, RECIPE, split, [1])
    trainer.save_backbone(tmp_path / "trained.weights.h5")
    trained = [np.array(one) for one in trainer._model.get_layer("backbone").get_weights()]
    for expected, loaded in zip(
        trained, models.pretrained("SmallCNN", str(tmp_path / "trained.weights.h5"), SIZE), strict=True
    ):
        np.testing.assert_array_equal(loaded, expected)


def test_without_a_trained_backbone_there_is_none_to_write(data, split, tmp_path):
    with pytest.raises(ValueError, match=r"trained.weights.h5: no backbone was trained here"):
        Trainer(data).save_backbone(tmp_path / "trained.weights.h5")
    trainer = heads(data)
    fit(trainer, HEAD, split, [1])
    with pytest.raises(ValueError, match="freeze is not all"):
        trainer.save_backbone(tmp_path / "trained.weights.h5")


HEAD = dataclasses.replace(RECIPE, freeze="all", augment=NO_AUGMENTATION, weights="a.h5", epochs=5)


def test_a_head_stops_where_it_is_to_be_predicted(data, split):
    """After two and after four epochs of five it predicts as a training of as many does."""
    recipe = dataclasses.replace(HEAD, schedule="constant")
    trainer, other = heads(data, recipe), heads(data, recipe)
    seeded = trainer.start(recipe, split, [1])
    for epoch in seeded.epochs(2):
        if epoch.epoch % 2 == 0:
            alone = fit(other, dataclasses.replace(recipe, epochs=epoch.epoch), split, [1])
            np.testing.assert_allclose(seeded.predict(split.test), alone.predictions, atol=1e-6)
    assert epoch.epoch == recipe.epochs


def heads(data, recipe=HEAD):
    """A trainer on features that tell the labels in part."""
    rng = np.random.default_rng(3)
    taken = rng.random((1, len(data.labels), 4), dtype=np.float32)
    taken[0, np.arange(len(data.labels)), data.labels] += 0.5
    return Trainer(dataclasses.replace(data, features={recipe.features_key: taken}))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_epochs_of_a_head_at_once_are_epochs_one_by_one(data, split, dropout, monkeypatch):
    recipe = dataclasses.replace(HEAD, dropout=dropout, schedule="cosine", optimizer="adam")
    at_once = fit(heads(data), recipe, split, [1])
    monkeypatch.setattr(training, "_ROWS_AT_ONCE", 1)
    one_by_one = fit(heads(data), recipe, split, [1])
    assert_same(at_once, one_by_one)
    assert list(at_once.history["epoch"]) == [1, 2, 3, 4, 5]
    assert at_once.history["learning_rate"].is_monotonic_decreasing
    assert at_once.history["validation_loss"].notna().all()


def test_heads_of_folds_of_other_sizes_do_not_disturb_each_other(data, split):
    shorter = dataclasses.replace(split, train=split.train[:9])
    warm = heads(data)
    first = fit(warm, HEAD, split, [1])
    assert_same(fit(warm, HEAD, shorter, [1]), fit(heads(data), HEAD, shorter, [1]))
    assert_same(fit(warm, HEAD, split, [1]), first)


def test_a_head_that_diverges_keeps_the_epochs_before(data, split):
    # Each epoch multiplies the weights, until they are no numbers in one that is not the first.
    recipe = dataclasses.replace(HEAD, l2=1.0, learning_rate=1e4, momentum=0.0, epochs=30, dropout=0.0)
    epochs = heads(data).start(recipe, split, [1]).epochs()
    done = []
    with pytest.raises(training.Diverged) as error:
        done.extend(epoch.epoch for epoch in epochs)
    assert done == list(range(1, error.value.epoch))
    assert len(done) > 0


def test_a_frozen_recipe_refuses_what_changes_a_tiles_values():
    with pytest.raises(ValueError, match="freeze: all takes a tile's features once"):
        dataclasses.replace(RECIPE, freeze="all", weights="a.h5")
    with pytest.raises(ValueError, match="freeze: all needs weights"):
        dataclasses.replace(RECIPE, freeze="all", augment=NO_AUGMENTATION)


def test_pretrained_weights_are_read_once_for_trials_in_a_row(data, split, monkeypatch):
    network = models.backbone("SmallCNN", SIZE)
    asked = []

    def pretrained(*key):
        asked.append(key)
        return network.get_weights()

    trainer = Trainer(data, pretrained)
    for path in ("a.h5", "a.h5", "random", "a.h5", "b.h5"):
        trainer.start(dataclasses.replace(RECIPE, weights=path), split, [1])
    assert asked == [("SmallCNN", "a.h5", SIZE), ("SmallCNN", "b.h5", SIZE)]


GROWTH = """
import dataclasses, json, sys
import numpy as np, psutil
from moa_ray.recipe import Recipe
from moa_ray.training import Data, Split, Trainer, fit

memory = lambda: psutil.Process().memory_info().rss
tiles = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
data = Data({32: tiles}, np.arange(64) % 3, ("a", "b", "c"))
recipe = Recipe(backbone="SmallCNN", weights="random", image_size=32, epochs=2, batch_size=16)
split = Split(np.arange(48), np.arange(48, 56), np.arange(56, 64))
trainer, used = Trainer(data), [memory()]
for seed in range(14):
    if sys.argv[1] == "cold":
        trainer = Trainer(data)
    fit(trainer, recipe, split, [seed])
    used.append(memory())
print(json.dumps(used))
"""


@pytest.mark.slow
def test_twelve_warm_trials_need_little_more_memory_than_the_first_two():
    """By bytes: the first trial builds and traces, each later one adds less than a fiftieth of that."""
    output = subprocess.run([sys.executable, "-c", GROWTH, "warm"], check=True, capture_output=True, text=True).stdout
    used = json.loads(output.splitlines()[-1])
    first, later = used[1] - used[0], used[-1] - used[2]
    assert later < 12 * first / 50


# Weights and draws


def glorot_limit(shape):
    """By hand: kernels are (height, width, in, out) or (in, out)."""
    field = math.prod(shape[:-2])
    return math.sqrt(6 / (field * shape[-2] + field * shape[-1]))


def test_random_kernels_are_glorots_and_all_else_begins_as_keras_has_it(warm, split):
    fit(warm, RECIPE, split, [5])
    warm.start(RECIPE, split, [3])
    kernels = 0
    for weight in warm._model.weights:
        values, name = np.array(weight), weight.path.rsplit("/", 1)[-1]
        if name == "kernel":
            kernels += 1
            limit = glorot_limit(values.shape)
            assert np.abs(values).max() <= limit
            assert np.abs(values).max() > 0.95 * limit
            assert abs(values.std() / (limit / math.sqrt(3)) - 1) < 0.1
        else:
            held = {
                "rate": RECIPE.dropout,
                "factors": RECIPE.augment.channel_jitter,
                "probability": 0.5,
                "variance": 50,
            }
            expected = {"gamma": 1, "moving_variance": 1, **held}.get(name, 0)
            np.testing.assert_allclose(values, np.broadcast_to(expected, values.shape), err_msg=weight.path)
    assert kernels == 5


def test_equal_seeds_draw_equal_states_and_others_do_not(warm, split):
    drawn = []
    for seed in ([3, 17], [3, 17], [4, 17], [3, 18]):
        warm.start(RECIPE, split, seed)
        drawn.append(states(warm._model))
    random = [path for path in drawn[0] if path.endswith("kernel") or "seed_generator" in path]
    assert len(random) >= 9
    for path in random:
        np.testing.assert_array_equal(drawn[0][path], drawn[1][path])
        for other in drawn[2:]:
            assert not np.array_equal(drawn[0][path], other[path]), path


def test_the_head_is_drawn_and_the_backbone_is_the_pretrained_one(data, split):
    network = models.backbone("SmallCNN", SIZE)
    weights = [w + 0.125 for w in network.get_weights()]
    trainer = Trainer(data, lambda *_: weights)
    trainer.start(dataclasses.replace(RECIPE, weights="a.h5"), split, [1])
    for mine, theirs in zip(trainer._model.get_layer("backbone").get_weights(), weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    kernel = np.array(trainer._model.get_layer("probabilities").kernel)
    assert 0 < np.abs(kernel).max() <= glorot_limit(kernel.shape)


def test_frozen_layers_keep_every_variable_and_the_others_change(data, split):
    trainer = Trainer(data)
    recipe = dataclasses.replace(RECIPE, freeze=0.5, weight_decay=0.01)
    seeded = trainer.start(recipe, split, [1])
    weights = [*trainer._model.get_layer("backbone").weights, *trainer._model.get_layer("probabilities").weights[:2]]
    before = {w.path: np.array(w) for w in weights}
    list(seeded.epochs())
    changed = {w.path.split("/")[-2] for w in weights if not np.array_equal(before[w.path], np.array(w))}
    frozen = {w.path.split("/")[-2] for w in weights} - changed
    assert frozen == {"conv1", "norm1", "conv2", "norm2"}
    for weight in weights:
        same = np.array_equal(before[weight.path], np.array(weight))
        assert same == (weight.path.split("/")[-2] in frozen), weight.path


# The pieces


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40))
def test_class_weights_are_those_of_scikit_learn(labels):
    labels = np.array(labels)
    weights = class_weights(labels, 5)
    present = np.unique(labels)
    np.testing.assert_allclose(weights[present], compute_class_weight("balanced", classes=present, y=labels), rtol=1e-6)
    assert (np.delete(weights, present) == 0).all()
    np.testing.assert_allclose(weights[labels].sum(), len(labels), rtol=1e-5)


@pytest.mark.parametrize(
    ("schedule", "epochs", "expected"),
    [
        ("constant", 3, [1, 1, 1]),
        ("step", 3, [1, 0.1, 0.01]),
        ("step", 7, [1, 1, 1, 0.1, 0.1, 0.01, 0.01]),
        ("step", 1, [1]),
        ("cosine", 4, [1, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4]),
        ("cosine", 1, [1]),
    ],
)
def test_the_schedule_by_hand(schedule, epochs, expected):
    recipe = Recipe(schedule=schedule, epochs=epochs, learning_rate=0.04)
    rates = [learning_rate(recipe, epoch) for epoch in range(1, epochs + 1)]
    np.testing.assert_allclose(rates, 0.04 * np.array(expected), rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 400))
def test_the_step_schedule_has_three_parts_of_equal_length(thirds):
    recipe = Recipe(schedule="step", epochs=3 * thirds, learning_rate=1.0)
    rates = np.array([learning_rate(recipe, epoch) for epoch in range(1, 3 * thirds + 1)])
    np.testing.assert_allclose(rates, np.repeat([1, 0.1, 0.01], thirds))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 2**31))
def test_batches_visit_every_row_and_go_on_from_the_beginning(n_rows, batch_size, seed):
    """Each tile is painted with its row, each row's label follows from it."""
    tiles = np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None, None, None], (40, SIZE, SIZE, 3))
    rows = np.random.default_rng(seed).choice(40, n_rows, replace=False)
    weights = np.array([1, 2, 4], dtype=np.float32)
    batches = training._Batches(tiles, np.arange(40) % 3, rows, batch_size, weights)
    visited = []
    for index in range(len(batches)):
        images, labels, sample_weights = batches[index]
        assert images.dtype == np.uint8
        assert images.shape == (batch_size, SIZE, SIZE, 3)
        seen = images[:, 0, 0, 0]
        np.testing.assert_array_equal(labels, seen % 3)
        np.testing.assert_array_equal(sample_weights, weights[seen % 3])
        visited += list(seen)
    assert batches.workers > 1  # so that Keras switches off an autotuning which holds up the end of epochs
    expected = list(rows)
    while len(expected) < len(visited):
        expected.append(rows[len(expected) % n_rows])
    assert visited == expected
    assert len(visited) - n_rows < batch_size
    only = training._Batches(tiles, np.arange(40) % 3, rows, batch_size)
    assert [image[0, 0, 0] for index in range(len(only)) for image in only[index][0]] == visited


def test_each_epoch_shuffles_anew_and_in_the_order_of_its_seed(warm, split, monkeypatch):
    orders = []
    plain = training._Batches.__init__

    def remember(self, tiles, labels, rows, size, weights=None):
        if weights is not None:
            orders.append(list(rows))
        plain(self, tiles, labels, rows, size, weights)

    monkeypatch.setattr(training._Batches, "__init__", remember)
    for seed in ([1], [1], [2]):
        fit(warm, RECIPE, split, seed)
    assert all(sorted(order) == list(split.train) for order in orders)
    first, second, again, _, other, _ = orders
    assert first == again
    assert first not in (second, other)


# Training


def test_a_separable_problem_is_learnt(warm, data, split):
    outcome = fit(warm, dataclasses.replace(RECIPE, epochs=16), split, [1])
    assert (outcome.predictions.argmax(axis=1) == data.labels[split.test]).mean() > 0.9
    assert outcome.history["loss"].iloc[-1] < outcome.history["loss"].iloc[0] / 2


def test_predictions_keep_the_order_of_the_rows(warm, split):
    seeded = warm.start(RECIPE, split, [1])
    list(seeded.epochs())
    rows = np.random.default_rng(0).permutation(60)[:19]
    together = seeded.predict(rows)
    assert together.shape == (19, 3)
    np.testing.assert_allclose(together.sum(axis=1), 1, rtol=1e-5)
    one_by_one = np.concatenate([seeded.predict(rows[i : i + 1]) for i in range(len(rows))])
    np.testing.assert_allclose(together, one_by_one, rtol=1e-4, atol=1e-6)
    assert np.ptp(together[:, 0]) > 0.05
    assert seeded.predict(rows[:0]).shape == (0, 3)


def test_the_history_has_a_row_an_epoch_with_its_rate_and_speed(cold, split):
    assert list(cold.history["epoch"]) == [1, 2]
    assert list(cold.history["learning_rate"]) == [0.02, 0.02]
    np.testing.assert_allclose(cold.history["images_per_second"] * cold.history["seconds"], len(split.train))
    assert cold.history["accuracy"].between(0, 1).all()


def test_validation_is_the_log_loss_and_accuracy_of_the_watched_rows(warm, data, split):
    seeded = warm.start(RECIPE, split, [1])
    for epoch in seeded.epochs():
        probabilities = seeded.predict(split.validation)
        labels = data.labels[split.validation]
        assert epoch.validation_loss == pytest.approx(log_loss(labels, probabilities, labels=[0, 1, 2]), rel=1e-4)
        assert epoch.validation_accuracy == (probabilities.argmax(axis=1) == labels).mean()


def test_watching_changes_nothing_of_the_training(warm, cold, split):
    unwatched = fit(warm, RECIPE, dataclasses.replace(split, validation=split.validation[:0]), [1])
    np.testing.assert_array_equal(unwatched.predictions, cold.predictions)
    assert unwatched.history["validation_loss"].isna().all()
    assert unwatched.history["validation_accuracy"].isna().all()
    assert list(unwatched.history["loss"]) == list(cold.history["loss"])


def test_the_training_loss_and_accuracy_are_those_of_the_batches_seen(data, split):
    """With all but the head frozen and a rate of nearly nothing, a slow loop over the rows finds the same."""
    recipe = dataclasses.replace(
        RECIPE, freeze=1.0, learning_rate=1e-12, epochs=1, dropout=0.0, augment=NO_AUGMENTATION, batch_size=4
    )
    rows = split.train[:36]
    seeded = Trainer(data).start(recipe, dataclasses.replace(split, train=rows), [1])
    (epoch,) = seeded.epochs()
    probabilities, labels = seeded.predict(rows), data.labels[rows]
    weights = class_weights(labels, 3)
    losses = [-weights[label] * math.log(row[label]) for row, label in zip(probabilities, labels, strict=True)]
    assert epoch.loss == pytest.approx(np.mean(losses), rel=1e-4)
    assert epoch.accuracy == pytest.approx((probabilities.argmax(axis=1) == labels).mean())


def test_a_rare_class_weighs_more_when_balanced(data, split):
    recipe = dataclasses.replace(RECIPE, epochs=1)
    rare = np.flatnonzero(data.labels == 0)[:2]
    rows = np.concatenate([rare, np.flatnonzero(data.labels != 0)[:30]])
    both = {}
    for choice in ("balanced", "none"):
        part = dataclasses.replace(split, train=rows)
        seeded = Trainer(data).start(dataclasses.replace(recipe, class_weights=choice), part, [1])
        both[choice] = seeded._weights
    assert list(both["none"]) == [1, 1, 1]
    assert both["balanced"][0] == pytest.approx(32 / (3 * 2))


# Divergence


def test_a_loss_that_is_no_number_ends_the_trial_and_names_its_epoch(warm, split, monkeypatch):
    monkeypatch.setattr(training, "learning_rate", lambda _, epoch: 1e-3 if epoch < 3 else 1e30)
    epochs = warm.start(dataclasses.replace(RECIPE, epochs=5), split, [1]).epochs()
    assert [next(epochs).epoch, next(epochs).epoch] == [1, 2]
    with pytest.raises(Diverged, match="epoch 3; lower the learning rate") as caught:
        next(epochs)
    assert caught.value.epoch == 3


def test_a_last_step_that_ruins_the_weights_is_found_by_predicting(warm, split):
    """One batch an epoch: the loss is taken before the step that makes it infinite."""
    recipe = dataclasses.replace(RECIPE, epochs=1, learning_rate=1e38)
    one_batch = Split(split.train[:8], split.validation[:0], split.test)
    with pytest.raises(Diverged) as caught:
        fit(warm, recipe, one_batch, [1])
    assert caught.value.epoch == 1


# Other backends

ON_A_BACKEND = """
import dataclasses
import keras
import numpy as np
from moa_ray.recipe import Recipe
from moa_ray.training import Data, Diverged, Split, Trainer, fit

labels = np.arange(60) % 3
tiles = np.random.default_rng(0).integers(0, 80, (60, 16, 16, 3), dtype=np.uint8)
tiles[np.arange(60), :, :, labels] += 60
data = Data({16: tiles}, labels, ("a", "b", "c"))
split = Split(np.arange(40), np.arange(40, 48), np.arange(48, 60))
recipe = Recipe("SmallCNN", "random", 16, epochs=16, batch_size=8, learning_rate=0.02, dropout=0.2, precision=PRECISION)
cold = fit(Trainer(data), recipe, split, [1])
assert (cold.predictions.argmax(axis=1) == labels[48:]).mean() > 0.9, cold.predictions
trainer = Trainer(data)
try:
    fit(trainer, dataclasses.replace(recipe, learning_rate=1e30), split, [2])
except Diverged as error:
    assert error.epoch == 1
else:
    raise AssertionError("it did not diverge")
warm = fit(trainer, recipe, split, [1])
assert np.allclose(warm.predictions, cold.predictions, atol=TOLERANCE), abs(warm.predictions - cold.predictions).max()
print(keras.backend.backend())
"""


def fit_on(backend, precision, tolerance):
    script = ON_A_BACKEND.replace("PRECISION", repr(precision)).replace("TOLERANCE", str(tolerance))
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == backend


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "auto"])
@pytest.mark.parametrize("backend", ["jax", "torch", "tensorflow"])
def test_the_core_trains_on_another_backend(backend, precision):
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed here")
    # Sums on a GPU may come in any order.
    fit_on(backend, precision, 0.0 if not models.has_gpu() else 0.05)
