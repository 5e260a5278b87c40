"""Backbones with a new head, and the weights that they begin with."""

import contextlib
import dataclasses
import itertools
import os
import re
import subprocess
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from numpy.typing import NDArray

from moa_ray import augment
from moa_ray.backbones import BACKBONES, native_size
from moa_ray.recipe import NO_AUGMENTATION, Recipe

Weights = list[NDArray[Any]]
Shapes = list[tuple[str, list[tuple[int, ...]]]]

_SUFFIXES = (".h5", ".weights.h5", ".keras")


class InputScaling(keras.layers.Layer):  # type: ignore[misc]
    """Scales 0..255 as the backbone's own pre-training did."""

    def __init__(self, module: str, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.module = module

    def call(self, images: Any) -> Any:
        return getattr(keras.applications, self.module).preprocess_input(images, data_format="channels_last")


class Lookup(keras.layers.Layer):  # type: ignore[misc]
    """Rows of an array that lies where the model is computed."""

    def __init__(self, array: NDArray[Any], **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.array = self.add_weight(
            array.shape,
            lambda shape, dtype: keras.ops.convert_to_tensor(np.ascontiguousarray(array), dtype=dtype),
            dtype=str(array.dtype),
            trainable=False,
            autocast=False,
            name="array",
        )

    def call(self, rows: Any) -> Any:
        return keras.ops.take(self.array, rows, axis=0)


class Dropout(keras.layers.Layer):  # type: ignore[misc]
    """Keras' dropout, its rate held in a variable."""

    def __init__(self, rate: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.initial = rate
        self.seed_generator = keras.random.SeedGenerator(seed=0)
        initial = keras.initializers.Constant(rate)
        self.rate = self.add_weight((), initial, trainable=False, autocast=False, name="rate")

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training:
            return inputs
        draws = keras.random.uniform(keras.ops.shape(inputs), seed=self.seed_generator)
        return keras.ops.where(draws < self.rate, 0.0, inputs / (1.0 - self.rate))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.initial}


class Head(keras.layers.Dense):  # type: ignore[misc]
    """Dense softmax with an L2 penalty on its kernel, the penalty's factor held in a variable."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """The factor comes last: a file of weights lists kernel and bias first."""
        super().build(input_shape)
        self.l2 = self.add_weight((), "zeros", trainable=False, autocast=False, name="l2")

    def save_own_variables(self, store: Any) -> None:
        """Dense saves kernel and bias, and wants as many values back as it has variables."""
        super().save_own_variables(store)
        store["l2"] = self.l2

    def call(self, inputs: Any, training: bool = False) -> Any:
        if training:
            self.add_loss(self.l2 * keras.ops.sum(keras.ops.square(self.kernel)))
        return super().call(inputs, training=training)


def build(recipe: Recipe, n_classes: int, array: NDArray[Any] | None = None) -> keras.Model:
    """The network of a recipe: (batch, size, size, 3) uint8 in, (batch, n_classes) float32 probabilities out.

    Augmentation (in training only), input scaling, the backbone, global average pooling, dropout, dense softmax. Its
    weights are Keras' own draws: `moa_ray.training` assigns the recipe's. With ``freeze: all`` it is dropout, where
    there is any, and softmax alone.

    array : what the network sees, tiles or features, a row each; the network then takes (batch,) int32 rows of it
    """
    with _policy(precision(recipe)):
        if array is not None:
            entry = keras.Input((), dtype="int32", name="rows")
            x = Lookup(array, name="lookup")(entry)
        else:
            size = input_size(recipe)
            x = entry = keras.Input((size, size, 3), dtype="uint8", name="pixels")
        if recipe.freeze != "all":
            x = _features(x, recipe)
        if recipe.freeze != "all" or recipe.dropout:
            x = Dropout(recipe.dropout, name="dropout")(x)
        head = Head(n_classes, activation="softmax", dtype="float32", name="probabilities")
        model = keras.Model(entry, head(x), name=recipe.backbone.lower())
    assign_hyperparameters(model, recipe)
    return model


@lru_cache
def channels(name: str, size: int) -> int:
    """How many features a backbone has."""
    return int(backbone(name, size).output_shape[-1])


def features(recipe: Recipe) -> keras.Model:
    """What a frozen backbone makes of tiles: (batch, size, size, 3) uint8 in, (batch, channels) float32 out."""
    size = input_size(recipe)
    with _policy(precision(recipe)):
        pixels = keras.Input((size, size, 3), dtype="uint8", name="pixels")
        pooled = _features(pixels, dataclasses.replace(recipe, augment=NO_AUGMENTATION))
        return keras.Model(pixels, keras.layers.Activation("linear", dtype="float32")(pooled))


def assign_hyperparameters(model: keras.Model, recipe: Recipe) -> None:
    """Give a model the numbers of a recipe of its own signature."""
    augment.assign(model, recipe.augment)
    if recipe.freeze != "all" or recipe.dropout:
        model.get_layer("dropout").rate.assign(recipe.dropout)
    model.get_layer("probabilities").l2.assign(recipe.l2)


def _features(pixels: Any, recipe: Recipe) -> Any:
    """Augmentation, input scaling, backbone and pooling."""
    x = keras.layers.Rescaling(1.0, dtype="float32", name="as_float")(pixels)
    for layer in augment.layers(recipe.augment):
        x = layer(x)
    module = BACKBONES[recipe.backbone][1]
    if recipe.input_scaling == "backbone":
        x = InputScaling(module)(x) if module else keras.layers.Rescaling(1 / 127.5, offset=-1, dtype="float32")(x)
    network = backbone(recipe.backbone, input_size(recipe))
    frozen = 1.0 if recipe.freeze == "all" else recipe.freeze
    for layer in network.layers[: round(frozen * len(network.layers))]:
        layer.trainable = False
    return keras.layers.GlobalAveragePooling2D(name="pooled")(network(x))


def backbone(name: str, size: int, weights: str | None = None) -> keras.Model:
    """A backbone without its top. Its name inside our models is ``backbone``.

    Raises ValueError where it cannot take images of that size.
    """
    if name == "SmallCNN":
        network = _small_cnn(size)
    else:
        try:
            network = getattr(keras.applications, name)(include_top=False, weights=weights, input_shape=(size, size, 3))
        except ValueError as error:
            if "nput size must be at least" not in str(error):
                raise
            raise ValueError(f"image_size: {name} cannot take {size} pixels: {_first_line(str(error))}") from None
    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
            # Keras freezes the mean and variance into the graph; weights that are assigned later have to reach it.
            layer.mean, layer.variance = layer.adapt_mean, layer.adapt_variance
    network.name = "backbone"
    return network


def input_size(recipe: Recipe) -> int:
    """The image size of a recipe, pixels."""
    return native_size(recipe.backbone) if recipe.image_size == "native" else recipe.image_size


def precision(recipe: Recipe) -> str:
    """The Keras dtype policy of a recipe on this device."""
    if recipe.precision != "auto":
        return recipe.precision
    return "mixed_bfloat16" if has_gpu() and _has_bfloat16() else "float32"


def has_gpu() -> bool:
    """Whether Keras' backend sees a GPU."""
    if keras.backend.backend() == "torch":  # of which keras.distribution knows nothing
        return "cuda" in str(keras.ops.zeros(()).device)
    try:
        return bool(keras.distribution.list_devices("gpu"))
    except RuntimeError:  # what JAX answers where there is none
        return False


def gpu_memory() -> int:
    """Bytes of memory of the GPU that Keras' backend computes on; 0 without one, or where nobody can tell."""
    return int(_gpu_says("memory.total") * 2**20) if has_gpu() else 0


def _has_bfloat16() -> bool:
    """From compute capability 8 on (Ampere) it is there in hardware."""
    return _gpu_says("compute_cap") >= 8


@lru_cache
def _gpu_says(field: str) -> float:
    """A number of the first GPU that this process may use; 0 where NVIDIA's tool is not there."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    asked = ["nvidia-smi", f"--id={visible}", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    try:
        return float(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[0])
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        return 0.0


def prediction_batch(recipe: Recipe, rows: int) -> int:
    """How many images are predicted at once: the training's batch on a CPU, where more gain nothing, more on a GPU.

    Of a GPU's memory a tenth is taken; a forward pass holds few of a network's layers at a time. A power of two times
    the training's batch, so that folds of many sizes share few compiled shapes.
    """
    batch = recipe.batch_size
    room = gpu_memory() // (10 * _bytes_an_image(recipe.backbone, input_size(recipe))) if has_gpu() else 0
    return _doubled(batch, min(rows, room))


def _doubled(batch: int, up_to: int) -> int:
    while batch * 2 <= up_to:
        batch *= 2
    return batch


@lru_cache
def _bytes_an_image(name: str, size: int) -> int:
    """Of a forward pass, at most: four layers as large as the largest, in 32 bits."""
    shapes = (layer.output.shape[1:] for layer in backbone(name, size).layers if not isinstance(layer.output, list))
    return 16 * max(int(np.prod(shape)) for shape in shapes)


def expected_memory(recipe: Recipe, n_classes: int) -> int:
    """About the bytes that a worker needs to train a recipe: weights, gradients, optimizer state and activations.

    An estimate from the layers' output shapes, on top of about 1 GB for Keras and its backend.
    """
    if recipe.freeze == "all":
        recipe = dataclasses.replace(recipe, freeze=1.0)  # taking the features is what needs most
    model = build(recipe, n_classes)
    slots = 2 if recipe.optimizer == "sgd" else 3
    outputs = [layer.output for layer in model.get_layer("backbone").layers]
    values = sum(int(np.prod(tensor.shape[1:])) for tensor in outputs if not isinstance(tensor, list))
    keras.utils.clear_session()
    return 1_000_000_000 + 4 * (1 + slots) * int(model.count_params()) + 4 * values * recipe.batch_size


def _small_cnn(size: int) -> keras.Model:
    """Four convolutions that halve by their strides, with batch normalisation: 98 thousand weights, for CPUs and tests.

    Strides in place of pooling (Springenberg et al. 2015): a third of the time at as many weights.
    """
    pixels = keras.Input((size, size, 3))
    x = pixels
    for block, filters in enumerate((16, 32, 64, 128), start=1):
        x = keras.layers.Conv2D(filters, 3, 2, padding="same", use_bias=False, name=f"conv{block}")(x)
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"norm{block}")(x)
        x = keras.layers.Activation("relu", name=f"relu{block}")(x)
    return keras.Model(pixels, x)


@contextlib.contextmanager
def _policy(name: str) -> Iterator[None]:
    """The applications take their precision from the global policy, so it is set for as long as one is built."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


# Pretrained weights ---------------------------------------------------------------------------------------------------


def pretrained(name: str, weights: str, size: int) -> Weights:
    """A backbone's pretrained weights, in the order of its ``get_weights()``.

    weights : ``imagenet``, or a file of weights of the backbone without its top (.h5, .weights.h5, .keras)

    Raises ValueError where they cannot be had: which file to fetch and where to put it, or which layer differs first.
    """
    if weights == "imagenet":
        return _imagenet(name, size)
    path = Path(weights)
    if not path.name.endswith(_SUFFIXES):
        raise ValueError(f"weights: {path} must end in {', '.join(_SUFFIXES)}")
    if not path.is_file():
        raise ValueError(f"weights: {path} is not there")
    network = backbone(name, size)
    if path.suffix == ".keras":
        return _from_model(path, network, name)
    try:
        with warnings.catch_warnings():
            # Keras warns of containers that older files lack; that every array found its layer is checked below.
            warnings.filterwarnings("ignore", "Skipping nested container")
            network.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(
            f"weights: {path} does not fit {name}: {_first_difference(str(error), path, network)}"
        ) from None
    # Keras takes what it needs from a .weights.h5 file and says nothing of the rest.
    if path.name.endswith(".weights.h5") and _count_arrays(path) != len(network.weights):
        raise ValueError(
            f"weights: {path} does not fit {name}: the first layers agree, but the file goes on: it has "
            f"{_count_arrays(path)} arrays, the backbone {len(network.weights)}"
        )
    loaded: Weights = network.get_weights()
    return loaded


def _imagenet(name: str, size: int) -> Weights:
    if BACKBONES[name][1] is None:
        raise ValueError(f"weights: {name} was never trained on ImageNet; take random, or a file")
    try:
        network = backbone(name, size, weights="imagenet")
    except Exception as error:  # Keras raises a bare Exception where it cannot fetch
        address = re.search(r"URL fetch failure on (\S+?):? ", str(error))
        if not address:
            raise
        file = address[1].rsplit("/", 1)[-1]
        raise ValueError(
            f"weights: imagenet for {name} cannot be fetched from here; fetch {file} from {address[1]} and put it into "
            f"{Path(os.environ.get('KERAS_HOME', '~/.keras'), 'models')} of every machine that starts a sweep"
        ) from None
    loaded: Weights = network.get_weights()
    if BACKBONES[name][1] == "efficientnet":
        # After its normalisation Keras scales once more, but only in the network that it builds for ImageNet's weights.
        variance = next(i for i, weight in enumerate(network.weights) if weight.path.endswith("/variance"))
        scale = [layer.scale for layer in network.layers if isinstance(layer, keras.layers.Rescaling)][-1]
        loaded[variance] = loaded[variance] / np.square(scale)
    return loaded


def _from_model(path: Path, network: keras.Model, name: str) -> Weights:
    """Weights out of a whole saved model: the backbone itself, or a model that holds it."""
    try:
        saved = keras.saving.load_model(path, compile=False, safe_mode=True, custom_objects=_custom_objects())
    except (ValueError, OSError, TypeError) as error:
        raise ValueError(f"weights: {path} is no Keras model that can be loaded: {_first_line(str(error))}") from None
    saved = next((layer for layer in saved.layers if layer.name == network.name), saved)
    difference = _compare(network, _layer_shapes(saved))
    if difference:
        raise ValueError(f"weights: {path} does not fit {name}: {difference}")
    loaded: Weights = saved.get_weights()
    return loaded


def _custom_objects() -> dict[str, Any]:
    kinds = (InputScaling, augment.Orientations, augment.ChannelJitter, augment.MeanFilter, augment.GaussianNoise)
    return {kind.__name__: kind for kind in (*kinds, augment.ClipToGrey, Dropout, Head)}


def _first_difference(message: str, path: Path, network: keras.Model) -> str:
    """The first layer that differs: out of the file where it lists its layers, else out of Keras' message."""
    difference = _compare(network, _listed_layers(path))
    if difference is not None:
        return difference
    layer = re.search(r"for object <\w+ name=([^,>]+)", message)
    if layer is None:
        return _first_line(message)
    text = f"the first layer that differs is {layer[1]}"
    shapes = re.search(r"variable\.shape=(\([^)]*\)), Received: value\.shape=(\([^)]*\))", message)
    counts = re.search(r"expected (\d+) variables, but received (\d+)", message)
    if shapes:
        return f"{text}: its shape is {shapes[1]}, the file's {shapes[2]}"
    return f"{text}: it has {counts[1]} variables, the file's {counts[2]}" if counts else text


def _listed_layers(path: Path) -> Shapes:
    """The layers with weights of a legacy .h5 file, of weights or of a whole model; nothing where it is another."""
    try:
        with h5py.File(path) as file:
            group = file.get("model_weights", file)
            names = [_text(name) for name in group.attrs.get("layer_names", [])]
            shapes = [[group[n][_text(w)].shape for w in group[n].attrs["weight_names"]] for n in names]
    except (OSError, KeyError):
        return []
    return [(name, saved) for name, saved in zip(names, shapes, strict=True) if saved]


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _count_arrays(path: Path) -> int:
    """Arrays of weights in a .weights.h5 file; the states of random layers, which it holds too, are none."""
    found: list[str] = []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    return sum("seed_generator" not in name for name in found)


def _compare(network: keras.Model, saved: Shapes) -> str | None:
    """Where a network's layers and a file's first have other shapes, in words; None where nothing can be compared."""
    if not saved:
        return None
    for mine, theirs in itertools.zip_longest(_layer_shapes(network), saved):
        if mine is None:
            return f"the file goes on after the last layer, with {theirs[0]} {theirs[1]}"
        text = f"the first layer that differs is {mine[0]}: its shapes are {mine[1]}"
        if theirs is None:
            return f"{text}, the file ends before it"
        if mine[1] != theirs[1]:
            return f"{text}, the file's ({theirs[0]}) {theirs[1]}"
    return None


def _layer_shapes(network: keras.Model) -> Shapes:
    return [(layer.name, [tuple(w.shape) for w in layer.weights]) for layer in network.layers if layer.weights]


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
