"""Measure every backbone's network for the estimates of memory: parameters, features, and the outputs of its layers.

    python -m tests.networks            # writes moa_ray/training/networks.json; minutes
    python -m tests.networks VGG16 ...  # measures these anew, keeps the others

A plan needs these numbers for networks that take Keras ten seconds to build. They depend on the image size through the
edges of the layers' outputs alone, and every edge is ``factor * ((size + offset) // divisor) + extra`` pixels:
convolutions and poolings divide and round, paddings add, and a chain of such steps is again one of this form. So the
edges of a network that was built once are followed through its layers for a stretch of sizes, and written as that rule.
"""

import argparse
import itertools
import json
import os
from collections import defaultdict
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from moa_ray.config.backbones import BACKBONES
from moa_ray.training import models
from moa_ray.training.memory import TABLE, Edge

# The least size that Keras takes, by module of keras.applications; all others take 32. SmallCNN is ours.
MINIMUM = {None: 8, "inception_v3": 75, "inception_resnet_v2": 75, "xception": 71}
# At the first all edges are even, at the second odd, but for the first layers of NASNet: see `_step`.
SIZES = {"nasnet": (129, 131)}
STRETCH = range(96, 96 + 64)  # as many as the largest divisor, so that one rule alone gives them all
RULES = [
    Edge(1, 0, 0, 1),
    *(
        Edge(divisor, offset, factor, extra)
        for factor, extra in itertools.product((1, 2), (0, 1, 2, 3, 4, 5, -1))
        for divisor in (1, 2, 4, 8, 16, 32)
        for offset in range(-64, 64)
    ),
]


def measure(name: str) -> dict[str, Any]:
    """Return a backbone's entry of the table."""
    even, odd = (models.backbone(name, size) for size in SIZES.get(BACKBONES[name][1], (128, 129)))
    outputs = defaultdict(list)
    edges = _edges(even, odd)
    for layer in even.layers:
        if not isinstance(layer.output, list):
            outputs[edges[id(layer.output)]].append(int(np.prod(layer.output.shape[1:])) // _area(layer.output))
    return {
        "minimum": MINIMUM.get(BACKBONES[name][1], 32),
        "parameters": even.count_params(),
        "features": even.output_shape[-1],
        "layers": sorted([*_rule(edge), sum(channels), max(channels)] for edge, channels in outputs.items()),
    }


def _area(tensor: Any) -> int:
    return int(np.prod(tensor.shape[1:-1]))


def _edges(even: keras.Model, odd: keras.Model) -> dict[int, tuple[int, ...]]:
    """Return each tensor's edge at every size of the stretch, by the tensor's id."""
    edges = {id(even.input): tuple(STRETCH)}
    for layer, other in zip(even.operations, odd.operations, strict=True):
        if isinstance(layer, keras.layers.InputLayer):
            continue
        output = layer.output[0] if isinstance(layer.output, list) else layer.output
        if len(output.shape) != 4 or output.shape[1] == 1:  # pooled
            edges[id(output)] = tuple(1 for _ in STRETCH)
            continue
        # An excitation is one number a channel, multiplied with the layer's whole output.
        source, beside = max(_inputs(layer, other), key=lambda pair: _area(pair[0]))
        if output.shape[1] == source.shape[1] and other.output.shape[1] == beside.shape[1]:
            edges[id(output)] = edges[id(source)]
        else:
            edges[id(output)] = tuple(_step(layer, other, source, beside, edge) for edge in edges[id(source)])
    return edges


def _inputs(layer: Any, other: Any) -> list[tuple[Any, Any]]:
    tensors = [(x, y) for x, y in zip(*(keras.tree.flatten(each.input) for each in (layer, other)), strict=True)]
    return [(x, y) for x, y in tensors if len(x.shape) == 4]


def _step(layer: Any, other: Any, source: Any, beside: Any, edge: int) -> int:
    """Return the edge of a layer's output from that of its input.

    Some networks pad by what is odd about an edge, and Keras fixes it when it builds them. So two are built.
    """
    if isinstance(layer, keras.layers.ZeroPadding2D) and layer.padding != other.padding:
        assert source.shape[1] % 2 != beside.shape[1] % 2, layer.name
        layer = layer if edge % 2 == source.shape[1] % 2 else other
    shape = (1, edge, edge, source.shape[-1])
    # A model within the network takes one size alone.
    for part in layer.layers if isinstance(layer, keras.Sequential) else [layer]:
        shape = part.compute_output_shape(shape)
    return int(shape[1])


def _rule(edges: tuple[int, ...]) -> Edge:
    """Return the first rule that gives these edges at the sizes of the stretch."""
    return next(rule for rule in RULES if all(rule.at(size) == edge for size, edge in zip(STRETCH, edges, strict=True)))


def main() -> None:
    """Measure, and write the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("names", nargs="*", choices=[[], *BACKBONES], help="default: all")
    names = arguments.parse_args().names
    table = json.loads(TABLE.read_text(encoding="utf-8")) if names else {}
    for name in names or BACKBONES:
        table[name] = measure(name)
        keras.utils.clear_session()
        print(name, table[name]["parameters"], flush=True)
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(table[name])}" for name in BACKBONES)
    TABLE.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
