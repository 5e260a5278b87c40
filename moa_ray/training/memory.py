"""Estimate the memory of training and prediction, without building a network.

What an estimate needs to know of a backbone stands in ``networks.json``: building the larger ones takes Keras ten
seconds, and a plan describes many. ``python -m tests.networks`` writes that file, and tests hold it against Keras'
networks. This module loads no Keras.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from moa_ray.common.errors import InputError
from moa_ray.config.recipe import Recipe

TABLE = Path(__file__).with_name("networks.json")

_FLOAT32 = 4  # bytes
_KERAS = 1_000_000_000  # bytes of Keras and its backend, about
_LAYERS_AT_ONCE = 4  # whose outputs a forward pass holds, at most


class Edge(NamedTuple):
    """The height and width of a layer's output as a function of the image size.

    Convolutions and poolings divide and round, paddings add; a chain of such steps is one of them again.

    Attributes
    ----------
    divisor, offset, factor, extra : int
        The edge is ``factor * ((size + offset) // divisor) + extra`` pixels.
    """

    divisor: int
    offset: int
    factor: int
    extra: int

    def at(self, size: int) -> int:
        """Return the edge for an image size.

        Parameters
        ----------
        size : int
            Height and width of the image, pixels.

        Returns
        -------
        int
            Height and width of the output, pixels.
        """
        return self.factor * ((size + self.offset) // self.divisor) + self.extra


class Outputs(NamedTuple):
    """The outputs of all layers of one edge.

    Attributes
    ----------
    edge : Edge
        Their height and width.
    channels : int
        Sum of their channels.
    widest : int
        Most channels of a single layer.
    """

    edge: Edge
    channels: int
    widest: int


@dataclass(frozen=True)
class Network:
    """The dimensions of a backbone without its top.

    Attributes
    ----------
    minimum : int
        The smallest image that it takes, pixels.
    parameters : int
        Number of its weights.
    features : int
        Channels of its output, which are the features after pooling.
    outputs : tuple of Outputs
        The outputs of its layers by edge.
    """

    minimum: int
    parameters: int
    features: int
    outputs: tuple[Outputs, ...]

    def activations(self, size: int) -> int:
        """Count the values that all layers give for one image.

        Parameters
        ----------
        size : int
            Height and width of the image, pixels.

        Returns
        -------
        int
        """
        return sum(output.edge.at(size) ** 2 * output.channels for output in self.outputs)

    def largest(self, size: int) -> int:
        """Count the values of the largest layer's output for one image.

        Parameters
        ----------
        size : int
            Height and width of the image, pixels.

        Returns
        -------
        int
        """
        return max(output.edge.at(size) ** 2 * output.widest for output in self.outputs)


@lru_cache
def network(backbone: str) -> Network:
    """Look up the dimensions of a backbone.

    Parameters
    ----------
    backbone : str
        A name in `moa_ray.config.backbones.BACKBONES`.

    Returns
    -------
    Network
    """
    entry = _table()[backbone]
    outputs = tuple(Outputs(Edge(*edge), channels, widest) for *edge, channels, widest in entry["layers"])
    return Network(entry["minimum"], entry["parameters"], entry["features"], outputs)


@lru_cache
def _table() -> Mapping[str, Mapping[str, Any]]:
    table: dict[str, dict[str, Any]] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table


def require_size(backbone: str, size: int) -> None:
    """Check that a backbone can take images of a size.

    Parameters
    ----------
    backbone : str
        A name in `moa_ray.config.backbones.BACKBONES`.
    size : int
        Height and width of the images, pixels.

    Raises
    ------
    InputError
        If they are too small.
    """
    least = network(backbone).minimum
    if size < least:
        raise InputError(
            f"image_size: {backbone} cannot take {size} pixels: its input size must be at least {least}x{least}"
        )


def forward_pass(backbone: str, size: int) -> int:
    """Estimate the memory that predicting one image takes at most.

    Parameters
    ----------
    backbone : str
        A name in `moa_ray.config.backbones.BACKBONES`.
    size : int
        Height and width of the image, pixels.

    Returns
    -------
    int
        Bytes of four outputs as large as the largest layer's, in 32 bits.
    """
    return _LAYERS_AT_ONCE * _FLOAT32 * network(backbone).largest(size)


def expected_memory(recipe: Recipe, n_classes: int) -> int:
    """Estimate the memory that a worker needs to train a recipe.

    Parameters
    ----------
    recipe : Recipe
        Of a linear probe the backbone counts too: taking its features needs most.
    n_classes : int
        Number of labels.

    Returns
    -------
    int
        Bytes of weights, gradients, optimizer state and the outputs of all layers, and about 1 GB for Keras and its
        backend.

    Raises
    ------
    InputError
        If the backbone cannot take images of the recipe's size.
    """
    size = recipe.input_size
    require_size(recipe.backbone, size)
    backbone = network(recipe.backbone)
    head = (backbone.features + 1) * n_classes
    copies = 3 if recipe.optimizer == "sgd" else 4  # weights, gradients, and one or two moments
    values = copies * (backbone.parameters + head) + recipe.batch_size * backbone.activations(size)
    return _KERAS + _FLOAT32 * values
