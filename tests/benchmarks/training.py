"""How much of a network's speed is left once tiles are fetched, scaled and augmented? The training core alone: no Ray.

    python -m tests.benchmarks.training                 # on a CPU: training.md
    python -m tests.benchmarks.training --gpu           # on a GPU, by Keras' backend there: training-gpu.md

Ours trains an epoch of a recipe as a trial does: tiles shuffled, streamed from the memory map or looked up in the
device's memory, augmented in every way that the paper does. The ceiling is the same network, optimizer and batch in
plain Keras, compiled alike, that sees one constant batch which lies in the device's memory: no data, no augmentation.
Epochs of both alternate; the first of each, which compiles, is left out, and the medians are compared.

The GPU run needs neither TensorFlow nor Ray: Keras with JAX or PyTorch, h5py, numpy and pandas.

    KERAS_BACKEND=jax python -m tests.benchmarks.training --gpu

There the seconds of an epoch count by themselves, and what 38 folds of 10 epochs would take is worked out from them.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from moa_ray.config.recipe import Recipe
from moa_ray.training import devices, models
from moa_ray.training.data import Data, Split
from moa_ray.training.trainer import Trainer

from .results import HERE, Row, machine, write

CLASSES = 12
FOLDS, EPOCHS = 38, 10
ON_CPU = [("MobileNetV2", 96), ("ResNet50", 96)]
ON_GPU = [(name, size) for name in ("ResNet50", "InceptionV3", "InceptionResNetV2") for size in (224, 299)]


@dataclass(frozen=True)
class Figures:
    """Of one recipe; seconds are medians over epochs.

    first, warm : seconds until the end of the first step of a trial, on a new trainer and on one that is warm
    predicting : seconds for predicting all tiles once
    """

    recipe: Recipe
    epoch: float
    ceiling: float
    steps: int
    first: float
    warm: float
    predicting: float
    held: bool

    @property
    def images_per_second(self) -> float:
        """Of training."""
        return self.steps * self.recipe.batch_size / self.epoch

    @property
    def ratio(self) -> float:
        """Images a second, as a share of the ceiling's."""
        return self.ceiling / self.epoch

    @property
    def folds(self) -> float:
        """Seconds that all folds would take, one after the other on one device, the first of them cold."""
        each = EPOCHS * self.epoch + self.warm + self.predicting / FOLDS
        return self.first - self.warm + FOLDS * each


def measure(recipe: Recipe, tiles: np.ndarray, epochs: int, on_device: int | None) -> Figures:
    """Train one recipe on all tiles, an epoch of ours and one of the ceiling in turn."""
    size = recipe.input_size
    labels = np.arange(len(tiles), dtype=np.int64) % CLASSES
    data = Data({size: tiles}, labels, tuple(map(str, range(CLASSES))))
    rows = np.arange(len(tiles))
    nothing, one = rows[:0], replace(recipe, epochs=1)
    trainer = Trainer(data, on_device=on_device)
    first = _seconds(trainer, one, Split(rows[: recipe.batch_size], nothing, nothing))
    warm = _seconds(trainer, one, Split(rows[: recipe.batch_size], nothing, nothing))
    training = trainer.start(replace(recipe, epochs=epochs + 1), Split(rows, nothing, nothing), [0])
    ours = training.epochs()
    steps = -(-len(tiles) // recipe.batch_size)
    ceiling = _ceiling(recipe, tiles[: recipe.batch_size], labels[: recipe.batch_size], steps)
    next(ours), next(ceiling)
    pairs = [(next(ours).seconds, next(ceiling)) for _ in range(epochs)]
    training.predict(rows)
    begun = time.perf_counter()
    training.predict(rows)
    predicting = time.perf_counter() - begun
    mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    held = trainer._compiled.looks_up
    return Figures(recipe, mine, theirs, steps, first, warm, predicting, held)


def _seconds(trainer: Trainer, recipe: Recipe, split: Split) -> float:
    begun = time.perf_counter()
    list(trainer.start(recipe, split, [0]).epochs())
    return time.perf_counter() - begun


def _ceiling(recipe: Recipe, batch: np.ndarray, labels: np.ndarray, steps: int) -> Iterator[float]:
    """Seconds of epochs of bare steps on one constant batch."""
    keras.config.set_dtype_policy(devices.precision(recipe))
    pixels = keras.Input(batch.shape[1:], dtype="uint8")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1, dtype="float32")(pixels)
    x = models.backbone(recipe.backbone, recipe.input_size)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(pixels, keras.layers.Dense(CLASSES, activation="softmax", dtype="float32")(x))
    keras.config.set_dtype_policy("float32")
    model.compile(
        keras.optimizers.SGD(recipe.learning_rate, momentum=recipe.momentum),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    step = _bare_step(model, batch, labels)
    while True:
        begun = time.perf_counter()
        for _ in range(steps):
            loss = step()
        float(loss)  # waits for the device
        yield time.perf_counter() - begun


def _bare_step(model: keras.Model, batch: np.ndarray, labels: np.ndarray) -> Callable[[], Any]:
    """One step of training, compiled as the trainer's own, that takes nothing from the host; it returns the loss.

    Keras' `fit` on a constant batch would not do as a bound: it ran slower than the product, for a reason that was not
    found.
    """
    data = keras.ops.convert_to_tensor(batch), keras.ops.convert_to_tensor(labels.astype("int32"))
    model.optimizer.build(model.trainable_variables)
    predicted = keras.ops.full((1, CLASSES), 1 / CLASSES)
    model.compute_loss(y=data[1][:1], y_pred=predicted)
    model.compute_metrics(None, data[1][:1], predicted)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(lambda: model.train_step(data)["loss"], jit_compile=devices.has_gpu())
    if keras.backend.backend() == "jax":
        import jax

        step = jax.jit(model.train_step, donate_argnums=0)
        kinds = ("trainable", "non_trainable", "optimizer", "metrics")
        state = model._get_jax_state(**{f"{kind}_variables": True for kind in kinds})

        def run() -> Any:
            nonlocal state
            logs, state = step(state, data)
            return logs["loss"]

        return run
    return lambda: model.train_step(data)["loss"]


def _tiles(folder: Path, count: int, size: int) -> np.ndarray:
    """Tiles in a memory map, as a tile store has them."""
    path = folder / f"tiles-{size}.npy"
    tiles = np.lib.format.open_memmap(path, "w+", dtype=np.uint8, shape=(count, size, size, 3))
    rng = np.random.default_rng(0)
    for begin in range(0, count, 256):
        stretch = tiles[begin : begin + 256]
        stretch[:] = rng.integers(0, 256, stretch.shape, dtype=np.uint8)
    tiles.flush()
    mapped: np.ndarray = np.load(path, mmap_mode="r")
    return mapped


def on_cpu(found: list[Figures], tiles: int, epochs: int) -> None:
    """The ratios as a table."""
    rows = [
        Row(
            f"{one.recipe.backbone}, {one.recipe.image_size} px, batches of {one.recipe.batch_size}: "
            f"{one.images_per_second:.1f} images a second",
            f"one constant batch: {one.steps * one.recipe.batch_size / one.ceiling:.1f} images a second",
            one.ratio,
            "at least 0.90",
        )
        for one in found
    ]
    command = f"python -m tests.benchmarks.training --tiles {tiles} --epochs {epochs}"
    write("training", "The core's speed against the network's own", command, rows, _warm_words(found))


def _warm_words(found: list[Figures]) -> str:
    trials = [f"{one.recipe.backbone} {one.first:.1f} s and {one.warm:.2f} s" for one in found]
    return f"A trial to the end of its first step, cold and warm: {', '.join(trials)}."


def on_gpu(found: list[Figures], tiles: int, device: str) -> None:
    """The figures as a table."""
    header = [
        "backbone, px",
        "tiles",
        "s an epoch",
        "images a second",
        "of the ceiling (target 0.90)",
        "cold first step, s",
        "warm trial's first step, s",
        f"{FOLDS} folds x {EPOCHS} epochs, min",
    ]
    lines = [
        "# The core's speed on a GPU",
        "",
        f"`KERAS_BACKEND={keras.backend.backend()} python -m tests.benchmarks.training --gpu`: {device}, {machine()}, "
        f"Keras {keras.__version__}, {tiles} tiles, {devices.precision(found[0].recipe)}, "
        f"batches of {found[0].recipe.batch_size}.",
        "",
        f"| {' | '.join(header)} |",
        "|---" * len(header) + "|",
    ]
    for one in found:
        cells: list[Any] = [
            f"{one.recipe.backbone}, {one.recipe.image_size}",
            "on the device" if one.held else "streamed",
            f"{one.epoch:.2f}",
            f"{one.images_per_second:.0f}",
            f"{one.ratio:.2f}",
            f"{one.first:.1f}",
            f"{one.warm:.2f}",
            f"{one.folds / 60:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    print("\n".join(lines))
    (HERE / "training-gpu.md").write_text("\n".join([*lines, ""]), encoding="utf-8")


def main() -> None:
    """Run, and write what was found beside this file."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--gpu", action="store_true", help="the paper's networks at 224 and 299 px on a GPU")
    arguments.add_argument("--tiles", type=int, help="default: 256 on a CPU, 4800 on a GPU")
    arguments.add_argument("--epochs", type=int, default=5, help="that are timed, of each")
    arguments.add_argument("--backbones", nargs="+", help="NAME:SIZE, in place of the default ones")
    arguments.add_argument("--batch", type=int, default=32)
    arguments.add_argument("--stream", action="store_true", help="stream the tiles also where they fit the device")
    given = arguments.parse_args()
    if given.gpu and not devices.has_gpu():
        arguments.error("--gpu: Keras' backend sees no GPU here; leave the option out")
    tiles = given.tiles or (4800 if given.gpu else 256)
    asked = [(name, int(size)) for name, _, size in (text.partition(":") for text in given.backbones or ())]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for backbone, size in asked or (ON_GPU if given.gpu else ON_CPU):
            recipe = Recipe(backbone=backbone, weights="random", image_size=size, batch_size=given.batch)
            maps = _tiles(Path(folder), tiles, size)
            found.append(measure(recipe, maps, given.epochs, 0 if given.stream else None))
            print(found[-1], flush=True)
    if given.gpu:
        on_gpu(found, tiles, _device())
    else:
        on_cpu(found, tiles, given.epochs)


def _device() -> str:
    return str(keras.distribution.list_devices("gpu")[:1] or keras.backend.backend())


if __name__ == "__main__":
    main()
