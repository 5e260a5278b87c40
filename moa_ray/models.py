"""Backbones with a new head, and the weights that they begin with."""

import contextlib
import itertools
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from numpy.typing import NDArray

from moa_ray import augment
from moa_ray.backbones import BACKBONES, native_size
from moa_ray.recipe import Recipe

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


def build(recipe: Recipe, n_classes: int) -> keras.Model:
    """The network of a recipe: (batch, size, size, 3) uint8 in, (batch, n_classes) float32 probabilities out.

    Augmentation (in training only), input scaling, the backbone, global average pooling, dropout, dense softmax. Its
    weights are Keras' own draws: `moa_ray.training` assigns the recipe's.
    """
    size = input_size(recipe)
    with _policy(precision(recipe)):
        pixels = keras.Input((size, size, 3), dtype="uint8", name="pixels")
        x = keras.layers.Rescaling(1.0, dtype="float32", name="as_float")(pixels)
        for layer in augment.layers(recipe.augment):
            x = layer(x)
        module = BACKBONES[recipe.backbone][1]
        if recipe.input_scaling == "backbone":
            x = InputScaling(module)(x) if module else keras.layers.Rescaling(1 / 127.5, offset=-1, dtype="float32")(x)
        network = backbone(recipe.backbone, size)
        for layer in network.layers[: round(recipe.freeze * len(network.layers))]:
            layer.trainable = False
        x = keras.layers.GlobalAveragePooling2D(name="pooled")(network(x))
        # On PyTorch Keras lets the global generator draw for a dropout that was made without a seed.
        x = keras.layers.Dropout(recipe.dropout, seed=0, name="dropout")(x) if recipe.dropout else x
        penalty = keras.regularizers.L2(recipe.l2) if recipe.l2 else None
        head = keras.layers.Dense(
            n_classes, activation="softmax", kernel_regularizer=penalty, dtype="float32", name="probabilities"
        )
        return keras.Model(pixels, head(x), name=recipe.backbone.lower())


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
    return "mixed_bfloat16" if has_gpu() else "float32"


def has_gpu() -> bool:
    """Whether Keras' backend sees a GPU."""
    if keras.backend.backend() == "torch":  # of which keras.distribution knows nothing
        return "cuda" in str(keras.ops.zeros(()).device)
    try:
        return bool(keras.distribution.list_devices("gpu"))
    except RuntimeError:  # what JAX answers where there is none
        return False


def expected_memory(recipe: Recipe, n_classes: int) -> int:
    """About the bytes that a worker needs to train a recipe: weights, gradients, optimizer state and activations.

    An estimate from the layers' output shapes, on top of about 1 GB for Keras and its backend.
    """
    model = build(recipe, n_classes)
    slots = 2 if recipe.optimizer == "sgd" else 3
    outputs = [layer.output for layer in model.get_layer("backbone").layers]
    values = sum(int(np.prod(tensor.shape[1:])) for tensor in outputs if not isinstance(tensor, list))
    keras.utils.clear_session()
    return 1_000_000_000 + 4 * (1 + slots) * int(model.count_params()) + 4 * values * recipe.batch_size


def _small_cnn(size: int) -> keras.Model:
    """Four blocks of convolution, batch normalisation and pooling: 98 thousand weights, for CPUs and tests."""
    pixels = keras.Input((size, size, 3))
    x = pixels
    for block, filters in enumerate((16, 32, 64, 128), start=1):
        x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv{block}")(x)
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"norm{block}")(x)
        x = keras.layers.Activation("relu", name=f"relu{block}")(x)
        x = keras.layers.MaxPooling2D(padding="same", name=f"pool{block}")(x)
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
    return {kind.__name__: kind for kind in (*kinds, augment.ClipToGrey)}


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
