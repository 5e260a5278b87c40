"""The dimensions of a network: counted on Keras' own, and out of the table."""

import numpy as np

from moa_ray.training import memory


def dimensions(backbone):
    """Values of all layers for one image, of the largest layer, weights and features, counted on Keras' network."""
    values = [int(np.prod(layer.output.shape[1:])) for layer in backbone.layers if not isinstance(layer.output, list)]
    return sum(values), max(values), backbone.count_params(), backbone.output_shape[-1]


def tabulated(name, size):
    """The same from the table."""
    network = memory.network(name)
    return network.activations(size), network.largest(size), network.parameters, network.features
