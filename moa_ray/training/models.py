"""Build the networks: a backbone with a new head, a head alone, and a backbone that gives features.

Their weights are Keras' own draws; `moa_ray.training.compilation` assigns those of a trial.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from moa_ray.config.backbones import BACKBONES
from moa_ray.config.recipe import Recipe
from moa_ray.training import augmentation, memory
from moa_ray.training.devices import precision
from moa_ray.training.layers import Dropout, Head, InputScaling, Lookup

Weights = list[NDArray[Any]]


def build(recipe: Recipe, n_classes: int, array: NDArray[Any] | None = None) -> keras.Model:
    """Build the network that a recipe fine-tunes.

    Parameters
    ----------
    recipe : Recipe
        Of no linear probe.
    n_classes : int
        Number of labels.
    array : ndarray of shape (n, size, size, 3), uint8, optional
        Tiles that the network holds in the device's memory.

    Returns
    -------
    keras.Model
        Augmentation (in training only), input scaling, the backbone, global average pooling, dropout, dense softmax.
        It takes (batch, size, size, 3) uint8, or where it holds an array (batch,) int32 rows of it, and returns
        (batch, n_classes) float32 probabilities.

    Raises
    ------
    InputError
        If the backbone cannot take images of the recipe's size.
    """
    with _policy(precision(recipe)):
        if array is not None:
            entry, pixels = _rows_of(array)
        else:
            size = recipe.input_size
            entry = pixels = keras.Input((size, size, 3), dtype="uint8", name="pixels")
        pooled = _pooled(pixels, recipe)
        pooled = Dropout(recipe.dropout, name="dropout")(pooled)
        return _with_head(entry, pooled, recipe, n_classes)


def build_head(recipe: Recipe, n_classes: int, features: NDArray[np.float32]) -> keras.Model:
    """Build the network of a linear probe: dropout, where the recipe has any, and dense softmax.

    Parameters
    ----------
    recipe : Recipe
        Of a linear probe.
    n_classes : int
        Number of labels.
    features : ndarray of shape (n, channels), float32
        Features that the network holds in the device's memory.

    Returns
    -------
    keras.Model
        It takes (batch,) int32 rows of the features and returns (batch, n_classes) float32 probabilities.
    """
    with _policy(precision(recipe)):
        entry, pooled = _rows_of(features)
        if recipe.dropout:
            pooled = Dropout(recipe.dropout, name="dropout")(pooled)
        return _with_head(entry, pooled, recipe, n_classes)


def build_extractor(recipe: Recipe) -> keras.Model:
    """Build the frozen network that gives a linear probe its features.

    Parameters
    ----------
    recipe : Recipe
        Of the linear probe.

    Returns
    -------
    keras.Model
        Input scaling, the backbone and global average pooling. It takes (batch, size, size, 3) uint8 and returns
        (batch, channels) float32.

    Raises
    ------
    InputError
        If the backbone cannot take images of the recipe's size.
    """
    size = recipe.input_size
    with _policy(precision(recipe)):
        pixels = keras.Input((size, size, 3), dtype="uint8", name="pixels")
        pooled = _pooled(pixels, recipe.extractor)
        return keras.Model(pixels, keras.layers.Activation("linear", dtype="float32")(pooled))


def assign_hyperparameters(model: keras.Model, recipe: Recipe) -> None:
    """Assign the hyperparameters that are held in variables of a network's layers.

    Parameters
    ----------
    model : keras.Model
        A network that was built for a recipe of the same signature; changed in place.
    recipe : Recipe
        The trial's hyperparameters.
    """
    augmentation.assign(model, recipe.augment)
    for layer in model.layers:
        if isinstance(layer, Dropout):
            layer.rate.assign(recipe.dropout)
        elif isinstance(layer, Head):
            layer.l2.assign(recipe.l2)


def backbone(name: str, size: int, weights: str | None = None) -> keras.Model:
    """Build a backbone without its top.

    Parameters
    ----------
    name : str
        A name in `moa_ray.config.backbones.BACKBONES`.
    size : int
        Height and width of the images, pixels.
    weights : {"imagenet"}, optional
        Weights that Keras fetches; by default they are drawn.

    Returns
    -------
    keras.Model
        It takes (batch, size, size, 3) and returns (batch, height, width, channels); its name is ``backbone``.

    Raises
    ------
    InputError
        If it cannot take images of that size.
    """
    memory.require_size(name, size)
    if name == "SmallCNN":
        network = _small_cnn(size)
    else:
        network = getattr(keras.applications, name)(include_top=False, weights=weights, input_shape=(size, size, 3))
    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
            # Keras freezes the mean and variance into the graph; weights that are assigned later have to reach it.
            layer.mean, layer.variance = layer.adapt_mean, layer.adapt_variance
    network.name = "backbone"
    return network


def _rows_of(array: NDArray[Any]) -> tuple[Any, Any]:
    """The input of row numbers, and what the rows of an array are."""
    rows = keras.Input((), dtype="int32", name="rows")
    return rows, Lookup(array, name="lookup")(rows)


def _with_head(entry: Any, pooled: Any, recipe: Recipe, n_classes: int) -> keras.Model:
    """The network from an input to probabilities, with the recipe's numbers assigned."""
    head = Head(n_classes, activation="softmax", dtype="float32", name="probabilities")
    model = keras.Model(entry, head(pooled), name=recipe.backbone.lower())
    assign_hyperparameters(model, recipe)
    return model


def _pooled(pixels: Any, recipe: Recipe) -> Any:
    """Augmentation, input scaling, backbone and pooling."""
    x = keras.layers.Rescaling(1.0, dtype="float32", name="as_float")(pixels)
    for layer in augmentation.layers(recipe.augment):
        x = layer(x)
    module = BACKBONES[recipe.backbone][1]
    if recipe.input_scaling == "backbone":
        x = InputScaling(module)(x) if module else keras.layers.Rescaling(1 / 127.5, offset=-1, dtype="float32")(x)
    network = backbone(recipe.backbone, recipe.input_size)
    for layer in network.layers[: round(float(recipe.freeze) * len(network.layers))]:
        layer.trainable = False
    return keras.layers.GlobalAveragePooling2D(name="pooled")(network(x))


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
    """Set the global precision while a network is built: the applications take theirs from it."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
