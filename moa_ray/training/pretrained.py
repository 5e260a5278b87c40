"""Load pretrained weights, and say in one line why a file of them does not fit."""

import itertools
import os
import re
import warnings
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from moa_ray.common.errors import InputError
from moa_ray.common.text import first_line
from moa_ray.config.backbones import BACKBONES
from moa_ray.training import augmentation
from moa_ray.training.layers import Dropout, Head, InputScaling
from moa_ray.training.models import Weights, backbone

# Each layer with weights, by name, and their shapes.
Shapes = list[tuple[str, list[tuple[int, ...]]]]

_SUFFIXES = (".h5", ".weights.h5", ".keras")


def pretrained(name: str, weights: str, size: int) -> Weights:
    """Load a backbone's pretrained weights.

    Parameters
    ----------
    name : str
        A name in `moa_ray.config.backbones.BACKBONES`.
    weights : str
        ``imagenet``, or a file of weights of the backbone without its top (.h5, .weights.h5, .keras); a .keras file may
        also hold a whole model with the backbone in it.
    size : int
        Height and width of the images, pixels.

    Returns
    -------
    list of ndarray
        In the order of the backbone's ``get_weights()``.

    Raises
    ------
    InputError
        If they cannot be had: the message says which file to fetch and where to put it, or which layer differs first.
    """
    if weights == "imagenet":
        return _imagenet(name, size)
    path = _weights_file(weights)
    network = backbone(name, size)
    if path.suffix == ".keras":
        return _from_model(path, network, name)
    return _from_weights(path, network, name)


def _weights_file(weights: str) -> Path:
    path = Path(weights)
    if not path.name.endswith(_SUFFIXES):
        raise InputError(f"weights: {path} must end in {', '.join(_SUFFIXES)}")
    if not path.is_file():
        raise InputError(f"weights: {path} is not there")
    return path


def _from_weights(path: Path, network: keras.Model, name: str) -> Weights:
    """Weights out of a file of weights, which must be those of all the network's layers and of no others."""
    try:
        with warnings.catch_warnings():
            # Keras warns of containers that older files lack; that every array found its layer is checked below.
            warnings.filterwarnings("ignore", "Skipping nested container")
            network.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise InputError(
            f"weights: {path} does not fit {name}: {_first_difference(str(error), path, network)}"
        ) from None
    # Keras takes what it needs from a .weights.h5 file and says nothing of the rest.
    if path.name.endswith(".weights.h5") and _count_arrays(path) != len(network.weights):
        raise InputError(
            f"weights: {path} does not fit {name}: the first layers agree, but the file goes on: it has "
            f"{_count_arrays(path)} arrays, the backbone {len(network.weights)}"
        )
    loaded: Weights = network.get_weights()
    return loaded


def _imagenet(name: str, size: int) -> Weights:
    """Keras' own weights, from its cache or fetched."""
    if BACKBONES[name][1] is None:
        raise InputError(f"weights: {name} was never trained on ImageNet; take random, or a file")
    try:
        network = backbone(name, size, weights="imagenet")
    except Exception as error:  # Keras raises a bare Exception where it cannot fetch
        address = re.search(r"URL fetch failure on (\S+?):? ", str(error))
        if not address:
            raise
        file = address[1].rsplit("/", 1)[-1]
        raise InputError(
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
        raise InputError(f"weights: {path} is no Keras model that can be loaded: {first_line(str(error))}") from None
    saved = next((layer for layer in saved.layers if layer.name == network.name), saved)
    difference = _compare(network, _layer_shapes(saved))
    if difference:
        raise InputError(f"weights: {path} does not fit {name}: {difference}")
    loaded: Weights = saved.get_weights()
    return loaded


def _custom_objects() -> dict[str, Any]:
    kinds = (
        InputScaling,
        augmentation.Orientations,
        augmentation.ChannelJitter,
        augmentation.MeanFilter,
        augmentation.GaussianNoise,
    )
    return {kind.__name__: kind for kind in (*kinds, augmentation.ClipToGrey, Dropout, Head)}


def _first_difference(message: str, path: Path, network: keras.Model) -> str:
    """The first layer that differs: out of the file where it lists its layers, else out of Keras' message."""
    difference = _compare(network, _listed_layers(path))
    if difference is not None:
        return difference
    layer = re.search(r"for object <\w+ name=([^,>]+)", message)
    if layer is None:
        return first_line(message)
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
    arrays: list[str] = []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: arrays.append(name) if isinstance(item, h5py.Dataset) else None)
    return sum("seed_generator" not in name for name in arrays)


def _compare(network: keras.Model, saved: Shapes) -> str | None:
    """Where a network's layers and a file's first have other shapes, in words; None where nothing can be compared."""
    if not saved:
        return None
    for layer, stored in itertools.zip_longest(_layer_shapes(network), saved):
        if layer is None:
            return f"the file goes on after the last layer, with {stored[0]} {stored[1]}"
        text = f"the first layer that differs is {layer[0]}: its shapes are {layer[1]}"
        if stored is None:
            return f"{text}, the file ends before it"
        if layer[1] != stored[1]:
            return f"{text}, the file's ({stored[0]}) {stored[1]}"
    return None


def _layer_shapes(network: keras.Model) -> Shapes:
    return [(layer.name, [tuple(w.shape) for w in layer.weights]) for layer in network.layers if layer.weights]
