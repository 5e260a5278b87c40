"""The training core: fit one recipe on one fold. Plain Keras on any backend; it knows neither Ray nor MLflow.

    trainer = Trainer(Data(tiles={96: array}, labels=labels, classes=("A", "B")))
    outcome = fit(trainer, recipe, Split(train, validation, test), seed=[7])

A trainer keeps one compiled model warm: the next trial of the same signature gets new weights and optimizer state, and
nothing is traced again.
"""

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moa_ray import laplace, models
from moa_ray.mc_dropout import Thinning
from moa_ray.recipe import Recipe

Rows = NDArray[np.int64]

# Rows of features that one call of `fit` takes over its epochs: to begin one takes longer than an epoch of a head.
_ROWS_AT_ONCE = 4_000_000
Pretrained = Callable[[str, str, int], list[NDArray[Any]]]


class Diverged(ValueError):  # noqa: N818 - the word of the domain
    """The loss is no number any more."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"the loss became NaN or infinite in epoch {epoch}; lower the learning rate")
        self.epoch = epoch


@dataclass(frozen=True)
class Data:
    """What is trained on.

    tiles : for each image size an array (n, size, size, 3) uint8, which may be mapped from a file
    labels : class index of each tile, (n,)
    features : for each `Recipe.features_key` what a frozen backbone makes of the tiles, (orientations, n, channels)
    """

    tiles: Mapping[int, NDArray[np.uint8]]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    features: Mapping[tuple[Any, ...], NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True)
class Split:
    """Rows of the tiles to train on, to watch while training (may be empty), and to predict."""

    train: Rows
    validation: Rows
    test: Rows


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to; accuracies are over tiles, the training's while augmented."""

    epoch: int
    loss: float
    accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    seconds: float
    images_per_second: float


@dataclass(frozen=True)
class Outcome:
    """One trial's history, a row an epoch, and its probabilities, (len(split.test), n_classes)."""

    history: pd.DataFrame
    predictions: NDArray[np.float32]


def fit(trainer: "Trainer", recipe: Recipe, split: Split, seed: Sequence[int]) -> Outcome:
    """Fit a recipe on a fold from beginning to end."""
    training = trainer.start(recipe, split, seed)
    history = pd.DataFrame([asdict(epoch) for epoch in training.epochs()])
    return Outcome(history, training.predict(split.test))


def features(recipe: Recipe, tiles: NDArray[np.uint8], weights: list[NDArray[Any]]) -> NDArray[np.float32]:
    """What a frozen backbone makes of tiles, pooled: (orientations, n, channels), the tile as it is first.

    weights : the backbone's
    """
    return Frozen(recipe, weights, len(tiles))(tiles)


class Frozen:
    """A frozen backbone, to take the features of some tiles after others with.

    weights : the backbone's
    rows : tiles at once, at most
    """

    def __init__(self, recipe: Recipe, weights: list[NDArray[Any]], rows: int) -> None:
        self._model = models.features(recipe)
        self._model.get_layer("backbone").set_weights(weights)
        self._orientations, self._batch = recipe.features_key[-1], models.prediction_batch(recipe, rows)

    def __call__(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pooled features: (orientations, n, channels), the tile as it is first."""
        taken = np.empty((self._orientations, len(tiles), self._model.output_shape[-1]), dtype=np.float32)
        for begin in range(0, len(tiles), self._batch):
            rows = np.arange(begin, min(begin + self._batch, len(tiles)))
            batch = tiles[_filled(rows, self._batch)]
            for orientation in range(self._orientations):
                turned = np.rot90(batch, orientation % 4, axes=(1, 2))
                seen = turned if orientation < 4 else turned[:, :, ::-1]
                taken[orientation, rows] = self._model.predict_on_batch(np.ascontiguousarray(seen))[: len(rows)]
        return taken


class Trainer:
    """Fits recipes, one after the other, keeping the compiled model of the last one.

    pretrained : (backbone, weights, image size) to the backbone's weights
    on_device : bytes of tiles that may lie in the device's memory, where batches are then looked up; else they stream
        from the memory map. By default half of a GPU's memory, and none of a CPU's, for which the map is memory
    """

    def __init__(self, data: Data, pretrained: Pretrained = models.pretrained, on_device: int | None = None) -> None:
        self._data = data
        self._pretrained = pretrained
        self._on_device = models.gpu_memory() // 2 if on_device is None else on_device
        self._backbone: tuple[tuple[str, str, int], list[NDArray[Any]]] | None = None
        self._signature: tuple[Any, ...] | None = None
        self._model: keras.Model | None = None

    def keeps(self, recipe: Recipe) -> bool:
        """Whether a trial of this recipe compiles nothing that another model would have to go for."""
        return self._model is None or recipe.signature == self._signature

    def start(self, recipe: Recipe, split: Split, seed: Sequence[int]) -> "Training":
        """Begin a trial: every weight, optimizer and random state is set from the recipe and the seed alone."""
        array = self._held(recipe)
        if self._model is None or recipe.signature != self._signature:
            self._model, self._compiled = None, Compiled()
            keras.utils.clear_session()
            gc.collect()
            self._model = _compile(recipe, len(self._data.classes), array)
            self._fresh = {v.path: np.array(v) for v in _with_fixed_start(self._model)}
            self._signature = recipe.signature
        _assign(self._model, self._fresh, self._weights(recipe), np.random.default_rng([*seed, 0]))
        _assign_hyperparameters(self._model, recipe)
        return Training(self._model, self._data, recipe, split, seed, array is not None, self._compiled)

    def save_backbone(self, path: Path) -> None:
        """Write the backbone's weights as the last trial left them: a file that other recipes may name as `weights`.

        path : ends in .weights.h5
        Raises ValueError where no backbone was trained.
        """
        if self._model is None or not any(layer.name == "backbone" for layer in self._model.layers):
            raise ValueError(f"{path}: no backbone was trained here; fit a recipe whose freeze is not all")
        self._model.get_layer("backbone").save_weights(path)

    def _held(self, recipe: Recipe) -> NDArray[Any] | None:
        """What the model is to look its rows up in: features, or tiles that the device has room for."""
        if recipe.freeze == "all":
            features = self._data.features[recipe.features_key]
            return features.reshape(-1, features.shape[-1])
        tiles = self._data.tiles[models.input_size(recipe)]
        return tiles if tiles.nbytes <= self._on_device else None

    def _weights(self, recipe: Recipe) -> list[NDArray[Any]] | None:
        """The backbone's pretrained weights, the last ones kept: reading them builds a network."""
        if recipe.weights == "random" or recipe.freeze == "all":
            return None
        key = (recipe.backbone, recipe.weights, models.input_size(recipe))
        if self._backbone is None or self._backbone[0] != key:
            self._backbone = (key, self._pretrained(*key))
        return self._backbone[1]


@dataclass
class Compiled:
    """What is compiled of one model besides itself, when it is first wanted.

    epochs : an epoch of a head, by its batches; folds differ by few
    thinning : the model as Monte Carlo dropout samples it
    """

    epochs: dict[int, Any] = field(default_factory=dict)
    thinning: Thinning | None = None


class Training:
    """One trial under way.

    looked_up : whether the model takes rows of what it holds, instead of pixels
    """

    def __init__(
        self,
        model: keras.Model,
        data: Data,
        recipe: Recipe,
        split: Split,
        seed: Sequence[int],
        looked_up: bool,
        compiled: Compiled,
    ) -> None:
        self._compiled = compiled
        self._model, self._data, self._recipe, self._split, self._seed = model, data, recipe, split, seed
        self._tiles = None if looked_up else data.tiles[models.input_size(recipe)]
        self._epoch = 0
        self._weights = class_weights(data.labels[split.train], len(data.classes))
        if recipe.class_weights == "none":
            self._weights = np.ones_like(self._weights)

    def epochs(self, stop_every: int | None = None) -> Iterator[Epoch]:
        """Train an epoch each time the next one is asked for; of a head many at once, when the first of them is.

        stop_every : after each so many epochs, and the last, no further one is trained before it is asked for, so that
            `predict` is of that epoch
        Raises Diverged where the loss is no number, after the epochs before.
        """
        at_once = max(1, _ROWS_AT_ONCE // len(self._split.train)) if self._recipe.freeze == "all" else 1
        if stop_every is not None:
            at_once = stop_every if stop_every <= at_once else 1
        for first in range(1, self._recipe.epochs + 1, at_once):
            numbers = range(first, min(first + at_once, self._recipe.epochs + 1))
            follow = _Follow(self, first)
            try:
                self._model.fit(**self._stretch(numbers), verbose=0, shuffle=False, callbacks=[follow])
            except Diverged as error:
                yield from follow.epochs
                raise error
            yield from follow.epochs

    def _stretch(self, epochs: range) -> dict[str, Any]:
        """What some epochs are fitted on, one after the other."""
        parts = []
        for self._epoch in epochs:
            order = np.random.default_rng([*self._seed, self._epoch]).permutation(self._split.train)
            parts.append(self._to_fit(order))
        if self._recipe.freeze != "all":
            return parts[0]
        batches = len(parts[0]["x"]) // self._recipe.batch_size
        # An epoch of a head is one call of what is compiled: its steps are shorter than calls.
        self._model.steps_per_execution = batches
        self._model.train_function = self._compiled.epochs.get(batches)
        self._model.make_train_function()
        self._compiled.epochs[batches] = self._model.train_function
        joined = {name: np.concatenate([part[name] for part in parts]) for name in ("x", "y", "sample_weight")}
        sizes = {"batch_size": self._recipe.batch_size, "steps_per_epoch": batches, "epochs": len(parts)}
        return {**joined, **sizes}

    @property
    def images(self) -> int:
        """How many tiles are trained on."""
        return len(self._split.train)

    def begin(self, epoch: int) -> float:
        """Set the learning rate of an epoch, and return it."""
        self._epoch = epoch
        rate = learning_rate(self._recipe, epoch)
        self._model.optimizer.learning_rate.assign(rate)
        return rate

    def predict(self, rows: Rows) -> NDArray[np.float32]:
        """Probabilities of the classes for rows of the tiles, (len(rows), n_classes), each row summing to 1.

        Raises Diverged where they are no numbers: the last step's loss cannot tell what that step did to the weights.
        """
        if not len(rows):
            return np.zeros((0, len(self._data.classes)), dtype=np.float32)
        probabilities = self._probabilities(**self._to_predict(rows))
        return self._finite(np.asarray(probabilities[: len(rows)], dtype=np.float32))

    def samples(self, method: str, rows: Rows, draws: int) -> NDArray[np.float32]:
        """Probabilities drawn several times, (draws, len(rows), n_classes), seeded as the trial is.

        method : ``mc_dropout``, or ``laplace`` for a head on frozen features
        Raises Diverged as `predict` does.
        """
        if not len(rows):
            return np.zeros((draws, 0, len(self._data.classes)), dtype=np.float32)
        taken = {"mc_dropout": self._thinned, "laplace": self._redrawn}[method](rows, draws)
        return self._finite(taken)

    def _thinned(self, rows: Rows, draws: int) -> NDArray[np.float32]:
        if self._compiled.thinning is None:
            self._compiled.thinning = Thinning(self._model)
        rng = np.random.default_rng([*self._seed, 0, 2])
        batches = _batches(**self._to_predict(rows))
        return self._compiled.thinning.predict(batches, draws, rng)[:, : len(rows)]

    def _redrawn(self, rows: Rows, draws: int) -> NDArray[np.float32]:
        """Of heads around the trained one, on the tiles as they are."""
        features = self._data.features[self._recipe.features_key][0]
        head, train = self._model.get_layer("probabilities"), self._split.train
        counted = self._weights[self._data.labels[train]]
        posterior = laplace.fit(features[train], counted, np.asarray(head.kernel), np.asarray(head.bias))
        return posterior.predict(features[rows], draws, np.random.default_rng([*self._seed, 0, 3]))

    def _finite(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        if not np.isfinite(probabilities).all():
            raise Diverged(self._epoch)
        return probabilities

    def _probabilities(self, x: Any, **sizes: int) -> NDArray[np.float32]:
        if self._recipe.freeze != "all":
            probabilities: NDArray[np.float32] = self._model.predict(x, **sizes, verbose=0)
            return probabilities
        # A head is done before `predict` has begun.
        return np.concatenate([np.asarray(self._model.predict_on_batch(rows)) for rows in _batches(x, **sizes)])

    def _to_fit(self, rows: Rows) -> dict[str, Any]:
        size = self._recipe.batch_size
        if self._recipe.freeze != "all":
            return {"x": _Batches(self._tiles, self._data.labels, rows, size, self._weights)}
        rows = _filled(rows, size)
        labels, tiles = self._data.labels[rows], len(self._data.labels)
        rng = np.random.default_rng([*self._seed, self._epoch, 1])
        rows = rows + tiles * rng.integers(self._recipe.features_key[-1], size=len(rows))
        return {"x": rows.astype("int32"), "y": labels, "sample_weight": self._weights[labels]}

    def _to_predict(self, rows: Rows) -> dict[str, Any]:
        size = models.prediction_batch(self._recipe, len(rows))
        if self._recipe.freeze != "all":
            return {"x": _Batches(self._tiles, self._data.labels, rows, size)}
        return {"x": _filled(rows, size).astype("int32"), "batch_size": size}

    def validate(self) -> tuple[float | None, float | None]:
        """Log-loss and accuracy on the validation rows."""
        rows = self._split.validation
        if not len(rows):
            return None, None
        probabilities = self.predict(rows)
        labels = self._data.labels[rows]
        true = np.clip(probabilities[np.arange(len(rows)), labels], 1e-7, 1.0)
        return float(-np.log(true).mean()), float((probabilities.argmax(axis=1) == labels).mean())


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """The learning rate of an epoch, counted from 1."""
    done = (epoch - 1) / recipe.epochs
    factors = {
        "constant": 1.0,
        "step": 0.1 ** (3 * (epoch - 1) // recipe.epochs),
        "cosine": 0.5 * (1 + math.cos(math.pi * done)),
    }
    return recipe.learning_rate * factors[recipe.schedule]


def class_weights(labels: NDArray[np.int64], n_classes: int) -> NDArray[np.float32]:
    """n / (classes x count) for each class, over the classes that occur; 0 for one that does not."""
    counts = np.bincount(labels, minlength=n_classes)
    present = counts > 0
    weights = np.zeros(n_classes, dtype=np.float32)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return weights


def _filled(rows: Rows, size: int) -> Rows:
    """Rows for batches of one same size: the last one is filled up from the beginning."""
    filled: Rows = np.resize(rows, math.ceil(len(rows) / size) * size)
    return filled


def _batches(x: Any, batch_size: int | None = None) -> Iterator[Any]:
    """What `predict` is given, batch by batch: an array, or what gives its batches itself."""
    if batch_size is not None:
        yield from np.split(x, len(x) // batch_size)
    else:
        for number in range(len(x)):
            yield x[number][0]


class _Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """A batch at a time: tiles out of the memory map, or without them rows, for a model that looks tiles up.

    With class weights it yields (tiles, labels, weights) to fit on, without them tiles alone to predict.
    """

    def __init__(
        self,
        tiles: NDArray[np.uint8] | None,
        labels: NDArray[np.int64],
        rows: Rows,
        size: int,
        weights: NDArray[np.float32] | None = None,
    ) -> None:
        # With several workers Keras switches off the autotuning of tf.data, whose thread sleeps for twice as long each
        # time: an epoch that was over after six seconds could wait for the tenth until its iterator was gone.
        super().__init__(workers=2)
        self._tiles, self._labels, self._weights = tiles, labels, weights
        self._size = size
        self._rows = _filled(rows, size)

    def __len__(self) -> int:
        return len(self._rows) // self._size

    def __getitem__(self, index: int) -> Any:
        rows = self._rows[index * self._size : (index + 1) * self._size]
        taken = rows.astype("int32") if self._tiles is None else _in_order(self._tiles, rows)
        if self._weights is None:
            return (taken,)
        labels = self._labels[rows]
        return taken, labels, self._weights[labels]


def _in_order(tiles: NDArray[np.uint8], rows: Rows) -> NDArray[np.uint8]:
    """Some tiles; a memory map is read fastest in its own order."""
    order = np.argsort(rows, kind="stable")
    taken = np.empty((len(rows), *tiles.shape[1:]), dtype=np.uint8)
    taken[order] = tiles[rows[order]]
    return taken


class _Follow(keras.callbacks.Callback):  # type: ignore[misc]
    """Goes along with a training: its learning rate, its epochs, and its end at a loss that is no number."""

    def __init__(self, training: Training, first: int) -> None:
        super().__init__()
        self._training, self._first = training, first
        self.epochs: list[Epoch] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._begun = time.perf_counter()
        self._rate = self._training.begin(self._first + epoch)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if logs is not None and not math.isfinite(float(logs["loss"])):
            raise Diverged(self._first + len(self.epochs))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        seconds = time.perf_counter() - self._begun
        done = float(logs["loss"]), float(logs["accuracy"]), *self._training.validate()
        speed = self._training.images / seconds
        self.epochs.append(Epoch(self._first + epoch, *done, self._rate, seconds, speed))


class _Descent(keras.optimizers.SGD):  # type: ignore[misc]
    """Keras' gradient descent with momentum, the momentum held in a variable."""

    def build(self, variables: list[Any]) -> None:
        super().build(variables)
        self.momentum_held = self.add_variable((), name="momentum")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        past = self.momentums[self._get_variable_index(variable)]
        rate, momentum = (keras.ops.cast(value, variable.dtype) for value in (learning_rate, self.momentum_held))
        self.assign(past, past * momentum - keras.ops.cast(gradient, variable.dtype) * rate)
        self.assign_add(variable, past)


def _compile(recipe: Recipe, n_classes: int, array: NDArray[Any] | None = None) -> keras.Model:
    model = models.build(recipe, n_classes, array)
    # Any number but zero does: the trial's own are assigned.
    decay = {"weight_decay": 1.0} if recipe.weight_decay else {}
    make: dict[str, Callable[[], Any]] = {
        "sgd": lambda: (
            _Descent(1.0, momentum=0.9, name="sgd", **decay) if recipe.momentum else keras.optimizers.SGD(1.0, **decay)
        ),
        "adam": lambda: keras.optimizers.Adam(1.0, **decay),
        "adamw": lambda: keras.optimizers.AdamW(1.0, **{"weight_decay": 0.0, **decay}),
    }
    # XLA makes first steps on a CPU many times slower; TensorFlow there runs without it.
    slow = keras.backend.backend() == "tensorflow" and not models.has_gpu()
    model.compile(
        optimizer=make[recipe.optimizer](),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False if slow else "auto",
    )
    model.optimizer.build(model.trainable_variables)
    if recipe.weight_decay:
        model.optimizer.weight_decay = model.optimizer.add_variable((), name="weight_decay")
    # Else the first fit builds loss and metrics from a batch that it draws, and several workers go on with the second.
    label, probabilities = keras.ops.zeros((1,), "int32"), keras.ops.full((1, n_classes), 1 / n_classes)
    model.compute_loss(y=label, y_pred=probabilities)
    model.compute_metrics(None, label, probabilities)
    return model


def _assign_hyperparameters(model: keras.Model, recipe: Recipe) -> None:
    models.assign_hyperparameters(model, recipe)
    if recipe.weight_decay:
        model.optimizer.weight_decay.assign(recipe.weight_decay)
    if isinstance(model.optimizer, _Descent):
        model.optimizer.momentum_held.assign(recipe.momentum)


def _is_kernel(variable: Any) -> bool:
    return variable.ndim > 1 and "kernel" in variable.path.rsplit("/", 1)[-1]


def _random_states(model: keras.Model) -> list[Any]:
    """States of the seed generators: what is a variable of the model but no weight."""
    weights = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


def _weights(model: keras.Model) -> list[Any]:
    """The weights of a model, without the array that it looks its rows up in."""
    held = {id(v) for layer in model.layers if isinstance(layer, models.Lookup) for v in layer.weights}
    return [variable for variable in model.weights if id(variable) not in held]


def _with_fixed_start(model: keras.Model) -> list[Any]:
    """The variables whose first value no draw decides: biases, normalisations, counters of the optimizer."""
    scalars = [variable for variable in model.optimizer.variables if not variable.ndim]
    return [variable for variable in _weights(model) if not _is_kernel(variable)] + scalars


def _assign(
    model: keras.Model,
    fresh: Mapping[str, NDArray[Any]],
    backbone: list[NDArray[Any]] | None,
    rng: np.random.Generator,
) -> None:
    """Set every variable of a compiled model as if it had just been built, seeded by `rng`."""
    # The head first, so that it begins alike whether the backbone is drawn, loaded or not there.
    for variable in sorted(_weights(model), key=lambda variable: "probabilities" not in variable.path):
        if _is_kernel(variable):
            seed = int(rng.integers(2**31))
            variable.assign(keras.initializers.GlorotUniform(seed=seed)(variable.shape, dtype=variable.dtype))
        else:
            variable.assign(fresh[variable.path])
    if backbone is not None:
        model.get_layer("backbone").set_weights(backbone)
    for variable in _random_states(model):
        variable.assign(rng.integers(2**31, size=variable.shape).astype("uint32"))
    for variable in model.optimizer.variables:
        variable.assign(np.zeros(variable.shape) if variable.ndim else fresh[variable.path])
