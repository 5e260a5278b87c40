"""The training core: a warm trainer gives what a cold one gives, and each number of an outcome is what it says."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from lazy import Lazy
from painted import CLASSES, HEAD, RECIPE, SIZE, SPLIT, UNWATCHED, assert_same, heads, network, states

from moa_ray import training
from moa_ray.config.recipe import NO_AUGMENTATION, Augmentation, Recipe
from moa_ray.training.data import Diverged, Split

keras = Lazy("keras")
augmentation, base, batches, compilation, devices, models, pretrained = (
    Lazy(f"moa_ray.training.{name}")
    for name in ("augmentation", "base", "batches", "compilation", "devices", "models", "pretrained")
)

OTHER = dataclasses.replace(RECIPE, optimizer="adamw", dropout=0.0, augment=NO_AUGMENTATION, weight_decay=1e-3)


@pytest.fixture(scope="module")
def warm(data):
    """One trainer for all tests that can share it: that they do is part of the test."""
    return training.Trainer(data)


@pytest.fixture(scope="module")
def cold(data):
    """The outcome of RECIPE and seed 1 on a trainer of its own."""
    return training.fit(training.Trainer(data), RECIPE, SPLIT, [1])


# The warm model


def test_a_trial_on_a_warm_trainer_is_that_on_a_cold_one(warm, cold):
    training.fit(warm, dataclasses.replace(RECIPE, learning_rate=0.1, class_weights="none"), SPLIT, [2])
    assert_same(training.fit(warm, RECIPE, SPLIT, [1]), cold)


@pytest.mark.slow
def test_a_trial_after_one_of_another_recipe_is_that_on_a_cold_trainer(warm, cold):
    training.fit(warm, OTHER, SPLIT, [2])
    assert_same(training.fit(warm, RECIPE, SPLIT, [1]), cold)


def test_a_trial_after_one_that_diverged_is_that_on_a_cold_trainer(warm, cold):
    with pytest.raises(Diverged):
        training.fit(warm, dataclasses.replace(RECIPE, learning_rate=1e30), SPLIT, [2])
    assert_same(training.fit(warm, RECIPE, SPLIT, [1]), cold)


def test_a_trial_after_one_that_was_stopped_early_is_that_on_a_cold_trainer(warm, cold):
    next(warm.start(RECIPE, SPLIT, [2]).epochs())
    assert_same(training.fit(warm, RECIPE, SPLIT, [1]), cold)


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "precision"), [("sgd", "mixed_bfloat16"), ("adam", "mixed_float16")])
def test_a_warm_start_has_every_state_of_a_cold_one(optimizer, precision, data):
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer, precision=precision, weight_decay=1e-3, epochs=1)
    trainer = training.Trainer(data)
    trainer.start(recipe, SPLIT, [1])
    at_first = states(network(trainer))
    assert np.isfinite(training.fit(trainer, recipe, UNWATCHED, [2]).predictions).all()
    trainer.start(recipe, SPLIT, [1])
    again = states(network(trainer))
    assert again.keys() == at_first.keys()
    for path in at_first:
        np.testing.assert_array_equal(again[path], at_first[path], err_msg=path)


def test_a_fresh_optimizer_is_what_keras_made(data):
    """A loss scale or a counter set to zero would stop a training or skew it."""
    trainer = training.Trainer(data)
    recipe = dataclasses.replace(RECIPE, optimizer="adam", precision="mixed_float16", augment=NO_AUGMENTATION)
    trainer.start(recipe, SPLIT, [1])
    built = compilation.CompiledModel(models.build(recipe, len(CLASSES)), recipe).network.optimizer
    for assigned, expected in zip(network(trainer).optimizer.variables, built.variables, strict=True):
        np.testing.assert_array_equal(np.array(assigned), np.array(expected), err_msg=assigned.path)


@pytest.mark.slow
def test_nothing_is_traced_again_on_a_warm_model(data, tmp_path, monkeypatch):
    """A layer's Python is run while tracing alone."""
    calls = []
    plain = augmentation.Orientations.augment
    monkeypatch.setattr(augmentation.Orientations, "augment", lambda self, x: calls.append(1) or plain(self, x))
    models.backbone("SmallCNN", SIZE).save_weights(tmp_path / "a.weights.h5")
    trainer = training.Trainer(data)
    training.fit(trainer, RECIPE, SPLIT, [1])
    model, traced = network(trainer), len(calls)
    assert traced > 0
    shorter = Split(SPLIT.train[:9], SPLIT.validation[:0], SPLIT.test[:3])
    changes = [
        {"learning_rate": 0.5, "schedule": "cosine"},
        {"weights": str(tmp_path / "a.weights.h5")},
        {"class_weights": "none", "epochs": 3},
    ]
    for seed, change in enumerate(changes, start=2):
        for part in (SPLIT, shorter):
            training.fit(trainer, dataclasses.replace(RECIPE, **change), part, [seed])
    assert network(trainer) is model
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
def test_a_number_assigned_to_a_warm_model_is_that_of_a_cold_one(change, warm, data):
    """It is seen, and nothing else is: the outcome is another recipe's, to the bit."""
    before = dataclasses.replace(RECIPE, **{**change, **({"weight_decay": 0.01} if "weight_decay" in change else {})})
    if before == dataclasses.replace(RECIPE, **change):
        before = RECIPE
    after = dataclasses.replace(RECIPE, **change)
    trainer = warm if before.signature == RECIPE.signature else training.Trainer(data)
    first = training.fit(trainer, before, SPLIT, [1])
    model = network(trainer)
    second = training.fit(trainer, after, SPLIT, [1])
    assert network(trainer) is model
    assert list(second.history["loss"]) != list(first.history["loss"])
    assert_same(second, training.fit(training.Trainer(data), after, SPLIT, [1]))


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.0), (0.7, 0.1), (0.0, 0.1)])
def test_descent_is_keras_own(momentum, decay, data):
    recipe = dataclasses.replace(HEAD, dropout=0.0, momentum=momentum, weight_decay=decay)
    trainer = heads(data)
    trainer.start(recipe, SPLIT, [1])
    optimizer, variables = network(trainer).optimizer, network(trainer).trainable_variables
    referee = keras.optimizers.SGD(0.1, momentum=momentum, weight_decay=decay or None)
    optimizer.learning_rate.assign(0.1)
    copies = [keras.Variable(np.array(v)) for v in variables]
    referee.build(copies)
    rng = np.random.default_rng(0)
    for _ in range(3):
        gradients = [rng.normal(size=v.shape).astype("float32") for v in variables]
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients])
        referee.apply([keras.ops.convert_to_tensor(g) for g in gradients])
    for variable, copy in zip(variables, copies, strict=True):
        np.testing.assert_allclose(np.array(variable), np.array(copy), rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_tiles_in_the_devices_memory_give_what_streamed_ones_give(data, cold):
    held = training.Trainer(data, on_device=data.tiles[SIZE].nbytes)
    outcome = training.fit(held, RECIPE, SPLIT, [1])
    assert network(held).input_shape == (None,)
    np.testing.assert_allclose(outcome.predictions, cold.predictions, atol=1e-6)
    np.testing.assert_allclose(outcome.history["loss"], cold.history["loss"], rtol=1e-5)
    assert_same(training.fit(held, RECIPE, SPLIT, [1]), outcome)
    too_small = training.Trainer(data, on_device=data.tiles[SIZE].nbytes - 1)
    too_small.start(RECIPE, SPLIT, [1])
    assert network(too_small).input_shape == (None, SIZE, SIZE, 3)


# Weights


def test_a_trained_backbone_is_the_weights_of_another_recipe(warm, tmp_path):
    path = tmp_path / "trained.weights.h5"
    training.fit(warm, RECIPE, UNWATCHED, [1])
    warm.save_backbone(path)
    trained = [np.array(weight) for weight in network(warm).get_layer("backbone").get_weights()]
    for expected, loaded in zip(trained, pretrained.pretrained("SmallCNN", str(path), SIZE), strict=True):
        np.testing.assert_array_equal(loaded, expected)


def test_without_a_trained_backbone_there_is_none_to_write(data, tmp_path):
    with pytest.raises(ValueError, match=r"trained.weights.h5: no backbone was trained here"):
        training.Trainer(data).save_backbone(tmp_path / "trained.weights.h5")


def test_pretrained_weights_are_read_once_for_trials_in_a_row(data):
    small = models.backbone("SmallCNN", SIZE)
    asked = []

    def read(*key):
        asked.append(key)
        return small.get_weights()

    trainer = training.Trainer(data, read)
    for path in ("a.h5", "a.h5", "random", "a.h5", "b.h5"):
        trainer.start(dataclasses.replace(OTHER, weights=path), SPLIT, [1])
    assert asked == [("SmallCNN", "a.h5", SIZE), ("SmallCNN", "b.h5", SIZE)]


GROWTH = """
import dataclasses, json, sys
import numpy as np, psutil
from moa_ray.config.recipe import Recipe
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


def test_random_kernels_are_glorots_and_all_else_begins_as_keras_has_it(warm):
    training.fit(warm, RECIPE, SPLIT, [5])
    warm.start(RECIPE, SPLIT, [3])
    kernels = 0
    for weight in network(warm).weights:
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


def test_equal_seeds_draw_equal_states_and_others_do_not(warm):
    drawn = []
    for seed in ([3, 17], [3, 17], [4, 17], [3, 18]):
        warm.start(RECIPE, SPLIT, seed)
        drawn.append(states(network(warm)))
    random = [path for path in drawn[0] if path.endswith("kernel") or "seed_generator" in path]
    assert len(random) >= 9
    for path in random:
        np.testing.assert_array_equal(drawn[0][path], drawn[1][path])
        for other in drawn[2:]:
            assert not np.array_equal(drawn[0][path], other[path]), path


def test_the_head_is_drawn_and_the_backbone_is_the_pretrained_one(data):
    weights = [weight + 0.125 for weight in models.backbone("SmallCNN", SIZE).get_weights()]
    trainer = training.Trainer(data, lambda *_: weights)
    trainer.start(dataclasses.replace(OTHER, weights="a.h5"), SPLIT, [1])
    for assigned, expected in zip(network(trainer).get_layer("backbone").get_weights(), weights, strict=True):
        np.testing.assert_array_equal(assigned, expected)
    kernel = np.array(network(trainer).get_layer("probabilities").kernel)
    assert 0 < np.abs(kernel).max() <= glorot_limit(kernel.shape)


def test_frozen_layers_keep_every_variable_and_the_others_change(data):
    trainer = training.Trainer(data)
    recipe = dataclasses.replace(RECIPE, freeze=0.5, weight_decay=0.01)
    trial = trainer.start(recipe, UNWATCHED, [1])
    layers = [network(trainer).get_layer(name) for name in ("backbone", "probabilities")]
    weights = [*layers[0].weights, *layers[1].weights[:2]]
    before = {w.path: np.array(w) for w in weights}
    list(trial.epochs())
    changed = {w.path.split("/")[-2] for w in weights if not np.array_equal(before[w.path], np.array(w))}
    frozen = {w.path.split("/")[-2] for w in weights} - changed
    assert frozen == {"conv1", "norm1", "conv2", "norm2"}
    for weight in weights:
        same = np.array_equal(before[weight.path], np.array(weight))
        assert same == (weight.path.split("/")[-2] in frozen), weight.path


def test_each_epoch_shuffles_anew_and_in_the_order_of_its_seed(warm, monkeypatch):
    orders = []
    plain = batches.Batches.__init__

    def remember(self, tiles, labels, rows, size, weights=None):
        if weights is not None:
            orders.append(list(rows))
        plain(self, tiles, labels, rows, size, weights)

    monkeypatch.setattr(batches.Batches, "__init__", remember)
    for seed in ([1], [1], [2]):
        list(warm.start(RECIPE, UNWATCHED, seed).epochs())
    assert all(sorted(order) == list(SPLIT.train) for order in orders)
    first, second, again, _, other, _ = orders
    assert first == again
    assert first not in (second, other)


# Training


def test_a_separable_problem_is_learnt(warm, data):
    outcome = training.fit(warm, dataclasses.replace(RECIPE, epochs=16), UNWATCHED, [1])
    assert (outcome.predictions.argmax(axis=1) == data.labels[SPLIT.test]).mean() > 0.9
    assert outcome.history["loss"].iloc[-1] < outcome.history["loss"].iloc[0] / 2


def test_predictions_keep_the_order_of_the_rows(warm):
    trial = warm.start(RECIPE, SPLIT, [1])
    list(trial.epochs())
    rows = np.random.default_rng(0).permutation(60)[:11]  # two batches, of which the last is filled up
    together = trial.predict(rows)
    assert together.shape == (11, 3)
    np.testing.assert_allclose(together.sum(axis=1), 1, rtol=1e-5)
    one_by_one = np.concatenate([trial.predict(rows[i : i + 1]) for i in range(len(rows))])
    np.testing.assert_allclose(together, one_by_one, rtol=1e-4, atol=1e-6)
    assert np.ptp(together[:, 0]) > 0.05
    assert trial.predict(rows[:0]).shape == (0, 3)


def test_the_history_has_a_row_an_epoch_with_its_rate_and_speed(cold):
    assert list(cold.history["epoch"]) == [1, 2]
    assert list(cold.history["learning_rate"]) == [0.02, 0.02]
    np.testing.assert_allclose(cold.history["images_per_second"] * cold.history["seconds"], len(SPLIT.train))
    assert cold.history["accuracy"].between(0, 1).all()


def test_validation_is_the_log_loss_and_accuracy_of_the_watched_rows(warm, data):
    from sklearn.metrics import log_loss

    trial = warm.start(RECIPE, SPLIT, [1])
    for epoch in trial.epochs():
        probabilities = trial.predict(SPLIT.validation)
        labels = data.labels[SPLIT.validation]
        assert epoch.validation_loss == pytest.approx(log_loss(labels, probabilities, labels=[0, 1, 2]), rel=1e-4)
        assert epoch.validation_accuracy == (probabilities.argmax(axis=1) == labels).mean()


def test_watching_changes_nothing_of_the_training(warm, cold):
    unwatched = training.fit(warm, RECIPE, UNWATCHED, [1])
    np.testing.assert_array_equal(unwatched.predictions, cold.predictions)
    assert unwatched.history["validation_loss"].isna().all()
    assert unwatched.history["validation_accuracy"].isna().all()
    assert list(unwatched.history["loss"]) == list(cold.history["loss"])


def test_the_training_loss_and_accuracy_are_those_of_the_batches_seen(data):
    """With all but the head frozen and a rate of nearly nothing, a slow loop over the rows finds the same."""
    recipe = dataclasses.replace(
        RECIPE, freeze=1.0, learning_rate=1e-12, epochs=1, dropout=0.0, augment=NO_AUGMENTATION, batch_size=4
    )
    rows = SPLIT.train[:36]
    trial = training.Trainer(data).start(recipe, dataclasses.replace(UNWATCHED, train=rows), [1])
    (epoch,) = trial.epochs()
    probabilities, labels = trial.predict(rows), data.labels[rows]
    weights = base.class_weights(labels, 3)
    losses = [-weights[label] * math.log(row[label]) for row, label in zip(probabilities, labels, strict=True)]
    assert epoch.loss == pytest.approx(np.mean(losses), rel=1e-4)
    assert epoch.accuracy == pytest.approx((probabilities.argmax(axis=1) == labels).mean())


def test_a_rare_class_weighs_more_when_balanced(warm, data):
    rare = np.flatnonzero(data.labels == 0)[:2]
    rows = np.concatenate([rare, np.flatnonzero(data.labels != 0)[:30]])
    both = {}
    for choice in ("balanced", "none"):
        part = dataclasses.replace(SPLIT, train=rows)
        both[choice] = warm.start(dataclasses.replace(RECIPE, class_weights=choice), part, [1])._weights
    assert list(both["none"]) == [1, 1, 1]
    assert both["balanced"][0] == pytest.approx(32 / (3 * 2))


# Divergence


def test_a_loss_that_is_no_number_ends_the_trial_and_names_its_epoch(warm, monkeypatch):
    monkeypatch.setattr(base, "learning_rate", lambda _, epoch: 1e-3 if epoch < 3 else 1e30)
    epochs = warm.start(dataclasses.replace(RECIPE, epochs=5), SPLIT, [1]).epochs()
    assert [next(epochs).epoch, next(epochs).epoch] == [1, 2]
    with pytest.raises(Diverged, match="epoch 3; lower the learning rate") as caught:
        next(epochs)
    assert caught.value.epoch == 3


def test_a_last_step_that_ruins_the_weights_is_found_by_predicting(warm):
    """One batch an epoch: the loss is taken before the step that makes it infinite."""
    recipe = dataclasses.replace(RECIPE, epochs=1, learning_rate=1e38)
    one_batch = Split(SPLIT.train[:8], SPLIT.validation[:0], SPLIT.test)
    with pytest.raises(Diverged) as caught:
        training.fit(warm, recipe, one_batch, [1])
    assert caught.value.epoch == 1


# Other backends

ON_A_BACKEND = """
import dataclasses
import keras
import numpy as np
from moa_ray.config.recipe import Recipe
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
    fit_on(backend, precision, 0.0 if not devices.has_gpu() else 0.05)
